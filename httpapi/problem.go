package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/knowledge"
)

// kind is a sort of problem: a stable code, the status it is sent with and a
// title that is the same for all problems of the kind.
type kind struct {
	code   string
	status int
	title  string
}

// The kinds of problems. Codes are part of the API and never change.
var (
	kindMalformedBody   = kind{"malformed_body", http.StatusBadRequest, "The body cannot be read"}
	kindBadParameter    = kind{"invalid_parameter", http.StatusBadRequest, "A parameter of the request is not acceptable"}
	kindBadCursor       = kind{"invalid_cursor", http.StatusBadRequest, "The cursor is not acceptable"}
	kindHost            = kind{"host_not_allowed", http.StatusForbidden, "The Host header does not name this machine"}
	kindOrigin          = kind{"origin_not_allowed", http.StatusForbidden, "The request comes from a foreign page"}
	kindNotFound        = kind{"not_found", http.StatusNotFound, "There is nothing at this address"}
	kindNoChain         = kind{"chain_not_found", http.StatusNotFound, "There is no such chain"}
	kindNoExecution     = kind{"execution_not_found", http.StatusNotFound, "There is no such execution"}
	kindNoBudget        = kind{"budget_not_found", http.StatusNotFound, "There is no such budget"}
	kindNoRepository    = kind{"repository_not_found", http.StatusNotFound, "There is no such repository"}
	kindNoDocument      = kind{"document_not_found", http.StatusNotFound, "There is no such document"}
	kindNoChunk         = kind{"chunk_not_found", http.StatusNotFound, "There is no such passage"}
	kindMethod          = kind{"method_not_allowed", http.StatusMethodNotAllowed, "The method is not allowed here"}
	kindSlowBody        = kind{"request_timeout", http.StatusRequestTimeout, "The body did not arrive in time"}
	kindChainExists     = kind{"chain_exists", http.StatusConflict, "A chain with this name exists"}
	kindRepoExists      = kind{"repository_exists", http.StatusConflict, "A repository with this name exists"}
	kindFinished        = kind{"execution_finished", http.StatusConflict, "The execution has ended"}
	kindRunning         = kind{"execution_running", http.StatusConflict, "The execution has not ended"}
	kindCompleted       = kind{"execution_completed", http.StatusConflict, "The execution has completed"}
	kindResultsGone     = kind{"results_gone", http.StatusGone, "The results have been removed"}
	kindGone            = kind{"events_gone", http.StatusGone, "The events have been removed"}
	kindTooLarge        = kind{"body_too_large", http.StatusRequestEntityTooLarge, "The body is too large"}
	kindMediaType       = kind{"unsupported_media_type", http.StatusUnsupportedMediaType, "The media type is not supported"}
	kindEncoding        = kind{"unsupported_encoding", http.StatusUnsupportedMediaType, "The content encoding is not supported"}
	kindInvalidDocument = kind{"invalid_chain", http.StatusUnprocessableEntity, "The chain is not valid"}
	kindInvalidRequest  = kind{"invalid_request", http.StatusUnprocessableEntity, "The request is not valid"}
	kindKeyReused       = kind{"idempotency_key_reused", http.StatusUnprocessableEntity, "The idempotency key belongs to another request"}
	kindQueueFull       = kind{"queue_full", http.StatusTooManyRequests, "Too many executions are waiting"}
	kindInternal        = kind{"internal", http.StatusInternalServerError, "Something went wrong in the server"}
	kindUnavailable     = kind{"unavailable", http.StatusServiceUnavailable, "The database cannot be reached"}
	kindStopping        = kind{"stopping", http.StatusServiceUnavailable, "The server is shutting down"}
	kindFull            = kind{"storage_full", http.StatusInsufficientStorage, "The database has no room left"}
	kindCrowded         = kind{"too_many_uploads", http.StatusServiceUnavailable, "Too many uploads are under way"}
	kindOverloaded      = kind{"too_many_streams", http.StatusServiceUnavailable, "Too many streams are open"}
)

// kinds answers every kind for the documentation, by status.
func kinds() []kind {
	return []kind{
		kindMalformedBody, kindBadParameter, kindBadCursor, kindHost, kindOrigin, kindNotFound, kindNoChain,
		kindNoExecution, kindNoBudget, kindNoRepository, kindNoDocument, kindNoChunk, kindMethod, kindSlowBody, kindChainExists, kindRepoExists, kindFinished, kindRunning, kindCompleted, kindGone, kindResultsGone,
		kindTooLarge, kindMediaType, kindEncoding, kindInvalidDocument, kindInvalidRequest, kindKeyReused,
		kindQueueFull, kindInternal, kindUnavailable, kindStopping, kindCrowded, kindOverloaded, kindFull,
	}
}

// problem is an error that says what to answer.
type problem struct {
	kind
	detail     string // a sentence for people; safe to show
	errors     []problemError
	retryAfter time.Duration // 0 = no Retry-After
	param      string        // in OpenAI's notation: the field that is wrong
	final      bool          // the same request is not to be sent again; shown below /v1 only
	cause      error         // for the operator's log only
}

// problemError is one thing that is wrong with a request.
type problemError struct {
	Pointer string `json:"pointer"` // RFC 6901, into the body; "" is the whole of it
	Detail  string `json:"detail"`
	Code    string `json:"code,omitempty"`
	Line    int    `json:"line,omitempty"` // 1-based, in a submitted document
}

func (p *problem) Error() string {
	if p.cause != nil {
		return p.code + ": " + p.cause.Error()
	}
	return p.code + ": " + p.detail
}

func (p *problem) Unwrap() error { return p.cause }

// badParameter is a problem with a query parameter or a header.
func badParameter(name, detail string) *problem {
	return &problem{kind: kindBadParameter, detail: name + ": " + detail}
}

// invalid is a problem with the meaning of a body that could be read.
func invalid(detail string, list ...problemError) *problem {
	return &problem{kind: kindInvalidRequest, detail: detail, errors: list}
}

// sentinels is the one table from the errors of other packages to problems.
var sentinels = []struct {
	err    error
	kind   kind
	detail string
	retry  time.Duration // with Retry-After: the shortest wait
}{
	{chain.ErrNotFound, kindNoChain, "No chain has this id or name, or it does not have this version.", 0},
	{chain.ErrNameTaken, kindChainExists, "Choose another name, or PUT to the chain to make a new version of it.", 0},
	{executor.ErrNotFound, kindNoExecution, "No execution has this id.", 0},
	{events.ErrNotFound, kindNoExecution, "No execution has this id.", 0},
	{executor.ErrNoBudget, kindNoBudget, "No budget has this id.", 0},
	{knowledge.ErrNotFound, kindNoRepository, "No repository has this id.", 0},
	{knowledge.ErrNameTaken, kindRepoExists, "Choose another name.", 0},
	{executor.ErrFinished, kindFinished, "An execution that has ended cannot be changed any more.", 0},
	{executor.ErrRunning, kindRunning, "Cancel the execution or wait for its end, then try again.", 0},
	{executor.ErrCompleted, kindCompleted, "There is nothing to retry. Fork it: with fromPrompt from that prompt on, without fromPrompt to run all of it again.", 0},
	{executor.ErrResultsGone, kindResultsGone, "What the prompts had answered has been removed and cannot be reused. Run the chain again.", 0},
	{executor.ErrKeyReused, kindKeyReused, "This Idempotency-Key came with another request before. Use a new key for a new execution.", 0},
	{executor.ErrQueueFull, kindQueueFull, "As many executions wait in the database as its servers allow. Try again later.", 2 * time.Second},
	{executor.ErrStopping, kindStopping, "The server is shutting down. Try again soon.", time.Second},
	{events.ErrClosed, kindStopping, "The server is shutting down. Try again soon.", time.Second},
	{events.ErrBadCursor, kindBadCursor, "A cursor is a whole number from 0 on: the id of the last event that was received.", 0},
	{events.ErrFutureCursor, kindBadCursor, "The cursor is ahead of the newest event of the execution.", 0},
	{events.ErrGone, kindGone, "The retention policy removed events that this answer needs; the execution and its results are still there.", 0},
	{events.ErrNoSpace, kindFull, "The disk of the database is full. Nothing was changed that was not acknowledged. Try again when room has been made.", 5 * time.Second},
	{events.ErrUnavailable, kindUnavailable, "The database does not answer at the moment. Nothing was changed that was not acknowledged. Try again soon.", time.Second},
	{context.DeadlineExceeded, kindUnavailable, "The database took too long to answer. Try again soon.", time.Second},
}

// problemOf turns any error into a problem. What is not known is internal and
// keeps its text for the log.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if list, ok := errors.AsType[chain.Problems](err); ok {
		return documentProblem(list)
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return &problem{kind: s.kind, detail: s.detail, retryAfter: s.retry, cause: err}
		}
	}
	if he, ok := errors.AsType[*echo.HTTPError](err); ok {
		switch he.Code {
		case http.StatusNotFound:
			return &problem{kind: kindNotFound, detail: "Check the address. The API is described at /docs."}
		case http.StatusMethodNotAllowed:
			return &problem{kind: kindMethod, detail: "The Allow header lists the methods that are."}
		}
	}
	return &problem{kind: kindInternal, cause: err}
}

// documentProblem reports everything that is wrong with a chain document. What
// cannot be read at all is a malformed body, what has no meaning is invalid.
func documentProblem(list chain.Problems) *problem {
	p := &problem{kind: kindInvalidDocument, errors: problemErrors(list)}
	for _, q := range list {
		switch q.Code {
		case chain.CodeSyntax, chain.CodeInvalidUTF8, chain.CodeNUL, chain.CodeTooDeep, chain.CodeDuplicateKey, chain.CodeYAML:
			p.kind = kindMalformedBody
		}
	}
	p.detail = summary(list)
	return p
}

// inputProblem reports everything that is wrong with the inputs of an execution.
func inputProblem(list chain.Problems) *problem {
	return invalid(summary(list), problemErrors(list)...)
}

func summary(list chain.Problems) string {
	if len(list) == 1 {
		return list[0].Detail
	}
	if len(list) > mostErrors {
		return fmt.Sprintf("%d problems, the first %d listed in errors.", len(list), mostErrors)
	}
	return strconv.Itoa(len(list)) + " problems, listed in errors."
}

// mostErrors bounds the problems that an answer lists: who sends thousands gets no
// answer that is larger than the request.
const mostErrors = 100

func problemErrors(list chain.Problems) []problemError {
	list = list[:min(len(list), mostErrors)]
	out := make([]problemError, len(list))
	for i, q := range list {
		out[i] = problemError{Pointer: q.Pointer, Detail: q.Detail, Code: q.Code, Line: q.Line}
	}
	return out
}

// problemDocument is a problem as RFC 9457 writes it.
type problemDocument struct {
	Type     string         `json:"type"`
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Detail   string         `json:"detail,omitempty"`
	Instance string         `json:"instance"`
	Code     string         `json:"code"`
	Errors   []problemError `json:"errors,omitempty"`
}

// errAborted says that an answer broke off after its header was sent. The
// connection is closed, so that the client does not take it for complete.
var errAborted = errors.New("the answer broke off")

// fail serves an error. It is the only writer of problems and the only logger
// of errors.
func (s *Server) fail(err error, c echo.Context) {
	req, res := c.Request(), c.Response()
	if errors.Is(err, errAborted) || res.Committed {
		level := slog.LevelWarn
		if req.Context().Err() != nil {
			level = slog.LevelDebug // the client left
		}
		s.logger.Log(req.Context(), level, "answer broke off", "request_id", requestID(c), "route", s.route(c), "error", err)
		panic(http.ErrAbortHandler)
	}
	p := problemOf(err)
	if speaksOpenAI(req.URL.Path) {
		p = openAIProblem(p)
	}
	if req.Context().Err() != nil && (errors.Is(err, context.Canceled) || p.status >= http.StatusInternalServerError) {
		// The client left, and that is what failed. Silence would become an empty
		// 200, which a client that closed only its own half takes for success.
		res.Status = statusClientGone
		panic(http.ErrAbortHandler)
	}
	if p.status >= http.StatusInternalServerError && p.cause != nil {
		level := slog.LevelError
		if p.kind == kindStopping {
			level = slog.LevelDebug // nothing is broken, and a proxy asks /readyz over and over
		}
		s.logger.Log(req.Context(), level, "request failed", "request_id", requestID(c), "method", req.Method,
			"route", s.route(c), "status", p.status, "error", p.cause)
	}
	media, body := "application/problem+json", problemBody(p, req)
	if speaksOpenAI(req.URL.Path) {
		media, body = "application/json", openAIBody(p)
		res.Header().Set("X-Should-Retry", strconv.FormatBool(!p.final && retriable(p.status)))
	}
	if p.retryAfter > 0 {
		// Spread, so that those who were refused together do not return together.
		wait := p.retryAfter + rand.N(2*p.retryAfter)
		res.Header().Set(echo.HeaderRetryAfter, strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	}
	if p.kind == kindEncoding {
		res.Header().Set(echo.HeaderAcceptEncoding, "identity")
	}
	if p.kind == kindTooLarge || p.kind == kindSlowBody || p.kind == kindCrowded {
		res.Header().Set(echo.HeaderConnection, "close")
	}
	h := res.Header()
	h.Set(echo.HeaderContentType, media)
	h.Set(echo.HeaderCacheControl, "no-store")
	res.WriteHeader(p.status)
	if req.Method != http.MethodHead {
		_, _ = res.Write(append(body, '\n')) // a client that is gone needs no answer
	}
}

func problemBody(p *problem, req *http.Request) []byte {
	body, err := json.Marshal(problemDocument{
		Type: "/docs#problem-" + p.code, Title: p.title, Status: p.status, Detail: p.detail,
		Instance: req.URL.EscapedPath(), Code: p.code, Errors: p.errors,
	})
	if err != nil {
		panic("httpapi: encode a problem: " + err.Error()) // strings and numbers only
	}
	return body
}

// retriable tells whether a status means that trying again may help.
func retriable(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= http.StatusInternalServerError
}
