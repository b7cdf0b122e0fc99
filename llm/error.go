package llm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Code names a kind of failure. Codes are stored in the log and shown by the
// API; they do not change.
type Code string

// The kinds of failure. The comment says whether a retry may help.
const (
	CodeRateLimited       Code = "rate_limited"       // too many requests or tokens: retry
	CodeQuotaExceeded     Code = "quota_exceeded"     // the account has no credit left: no retry
	CodeOverloaded        Code = "overloaded"         // the provider has no capacity: retry
	CodeUnavailable       Code = "unavailable"        // the provider failed: retry
	CodeUnauthorized      Code = "unauthorized"       // key missing, wrong or without the right: no retry
	CodeNotFound          Code = "not_found"          // no such model or endpoint: no retry
	CodeInvalidRequest    Code = "invalid_request"    // the provider refuses the request as it is: no retry
	CodeContextTooLong    Code = "context_too_long"   // the prompt does not fit the model: no retry
	CodeContentFiltered   Code = "content_filtered"   // the provider refuses the content: no retry
	CodeConnectionFailed  Code = "connection_failed"  // no connection, or it broke: retry
	CodeTruncatedStream   Code = "truncated_stream"   // the answer ended without its end marker: retry
	CodeTimeoutFirstByte  Code = "timeout_first_byte" // nothing came: retry
	CodeTimeoutIdle       Code = "timeout_idle"       // nothing more came: retry
	CodeTimeoutTotal      Code = "timeout_total"      // the call took too long as a whole: no retry
	CodeResponseTooLarge  Code = "response_too_large" // the answer exceeds the byte cap: no retry
	CodeMalformedResponse Code = "malformed_response" // the answer cannot be understood: no retry
	CodeCancelled         Code = "cancelled"          // the caller gave up: no retry
	CodeCircuitOpen       Code = "circuit_open"       // not called, because calls before it failed: retry

	// CodeUnexpectedToolCall says that the model asks for a tool and was given
	// none. RetryPolicy lets it be tried once more, whatever the attempts.
	CodeUnexpectedToolCall Code = "unexpected_tool_call"
)

// codeFacts is what follows from a code: whether another try may help, and the
// sentence for users.
type codeFacts struct {
	retryable bool
	message   string
}

func (c Code) facts() codeFacts {
	switch c {
	case CodeRateLimited:
		return codeFacts{true, "The model provider limits the rate of requests."}
	case CodeQuotaExceeded:
		return codeFacts{false, "The account at the model provider has no quota left."}
	case CodeOverloaded:
		return codeFacts{true, "The model provider is overloaded."}
	case CodeUnavailable:
		return codeFacts{true, "The model provider failed to answer."}
	case CodeUnauthorized:
		return codeFacts{false, "The model provider refused the credentials."}
	case CodeNotFound:
		return codeFacts{false, "The model provider does not know this model."}
	case CodeInvalidRequest:
		return codeFacts{false, "The model provider refused the request."}
	case CodeContextTooLong:
		return codeFacts{false, "The prompt is too long for this model."}
	case CodeContentFiltered:
		return codeFacts{false, "The model provider's content filter refused the prompt."}
	case CodeConnectionFailed:
		return codeFacts{true, "The connection to the model provider failed."}
	case CodeTruncatedStream:
		return codeFacts{true, "The model's answer broke off."}
	case CodeTimeoutFirstByte:
		return codeFacts{true, "The model did not start to answer in time."}
	case CodeTimeoutIdle:
		return codeFacts{true, "The model stopped in the middle of its answer."}
	case CodeTimeoutTotal:
		return codeFacts{false, "The model did not finish in time."}
	case CodeResponseTooLarge:
		return codeFacts{false, "The model's answer is too large."}
	case CodeMalformedResponse:
		return codeFacts{false, "The model provider sent an answer that cannot be read."}
	case CodeCancelled:
		return codeFacts{false, "The call was cancelled."}
	case CodeCircuitOpen:
		return codeFacts{true, "The model is not called for a while, because too many of its calls have failed."}
	case CodeUnexpectedToolCall:
		return codeFacts{true, "The model asked for a tool instead of answering, and it was given no tools."}
	}
	return codeFacts{false, "The model call failed."}
}

// Error is the failure of a call. Every error of a Provider is one; use
// errors.As to read it.
type Error struct {
	// Code is the stable kind of the failure.
	Code Code
	// Status is the HTTP status of the provider's answer, 0 when there was none.
	Status int
	// Retryable reports that the same request may succeed later. RetryPolicy
	// decides on it and on nothing else.
	Retryable bool
	// RetryAfter is how long the provider asked to wait, 0 when it did not say.
	RetryAfter time.Duration
	// Message is a sentence that may be shown to users.
	Message string
	// Detail is the provider's own text for operators: secrets removed, cut at
	// MaxDetail bytes, possibly empty.
	Detail string
	// Usage is what the call had used as far as the provider said; nil = unknown.
	Usage *Usage
	// Err is the cause, if there is one.
	Err error
}

// NewError returns the error for a code, with the retry decision and the user
// message that belong to it. err is the cause and may be nil.
func NewError(code Code, err error) *Error {
	facts := code.facts()
	return &Error{Code: code, Retryable: facts.retryable, Message: facts.message, Err: err}
}

// Error describes the failure for logs: code, status, message and detail.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("model call: ")
	b.WriteString(string(e.Code))
	if e.Status != 0 {
		fmt.Fprintf(&b, " (status %d)", e.Status)
	}
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	if e.Detail != "" {
		b.WriteString(" ")
		b.WriteString(e.Detail)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// StatusError returns the error for an HTTP status that is not a success. It is
// the one table from status to code; Retry-After, retry-after-ms and
// x-should-retry are read from the header, which may be nil. The caller adds the
// detail, and a more precise code where the body gives one.
//
// 408, 409, 429 and 5xx are retryable unless x-should-retry says false. Other
// statuses are not, whatever the header says.
func StatusError(status int, header http.Header, now time.Time) *Error {
	e := NewError(statusCode(status), nil)
	e.Status = status
	e.RetryAfter = RetryAfter(header, now)
	if strings.EqualFold(strings.TrimSpace(header.Get("X-Should-Retry")), "false") {
		e.Retryable = false
	}
	return e
}

func statusCode(status int) Code {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return CodeUnauthorized
	case http.StatusPaymentRequired:
		return CodeQuotaExceeded
	case http.StatusNotFound, http.StatusGone:
		return CodeNotFound
	case http.StatusRequestTimeout, http.StatusConflict:
		return CodeUnavailable
	case http.StatusTooManyRequests:
		return CodeRateLimited
	case http.StatusServiceUnavailable, 529: // 529 is Anthropic's "overloaded"
		return CodeOverloaded
	}
	if status >= 500 {
		return CodeUnavailable
	}
	if status >= 400 {
		return CodeInvalidRequest
	}
	return CodeMalformedResponse
}

// ContextError returns the error for a call whose context has ended, or nil
// while it has not. It matches ctx.Err() and context.Cause(ctx).
func ContextError(ctx context.Context) *Error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	code := CodeCancelled
	if errors.Is(err, context.DeadlineExceeded) {
		code = CodeTimeoutTotal
	}
	if cause := context.Cause(ctx); cause != err { //nolint:errorlint // identity: is there a cause beside err?
		err = errors.Join(err, cause)
	}
	return NewError(code, err)
}

// MaxDetail is the longest Detail of an Error, in bytes.
const MaxDetail = 2000

// secretPattern finds what looks like a credential: bearer tokens and keys with
// the prefixes that providers use. Providers do echo (parts of) a refused key.
var secretPattern = regexp.MustCompile(
	`(?i)\bbearer\s+[A-Za-z0-9._~+/*=-]{6,}|\b(?:sk-|pk-|gsk_|xai-|hf_)[A-Za-z0-9_*.-]{6,}|\bAIza[A-Za-z0-9_*-]{10,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)

// Redact prepares text of a provider for Error.Detail: the given secrets, and
// whatever looks like a credential, become ***, control characters become
// spaces, broken UTF-8 is repaired, and the result is cut at MaxDetail bytes.
func Redact(text string, secrets ...string) string {
	// Far more than is kept, so that a secret never hides behind the cut.
	if len(text) > 8*MaxDetail {
		text = text[:8*MaxDetail]
	}
	for _, s := range secrets {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	text = secretPattern.ReplaceAllString(text, "***")
	text = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	text = strings.TrimSpace(text)
	if len(text) <= MaxDetail {
		return text
	}
	const mark = "…"
	cut := MaxDetail - len(mark)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + mark
}
