package gemini

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// maxFailureBody is how much of an error's body is read.
const maxFailureBody = 64 << 10

// streamError is an error object that came in the middle of a success.
type streamError struct{ data []byte }

func (streamError) Error() string { return "the provider reported an error in its answer" }

// blocked is a prompt that Gemini does not answer because of what it says.
type blocked struct{ reason, message string }

func (b blocked) Error() string {
	return strings.TrimSpace("the prompt was blocked: " + b.reason + " " + b.message)
}

// statusError translates the response of a failure.
func (p *Provider) statusError(resp *http.Response, body []byte) *llm.Error {
	e := llm.StatusError(resp.StatusCode, resp.Header, time.Now())
	if resp.StatusCode < 400 {
		detail := fmt.Sprintf("status %d", resp.StatusCode)
		if location, err := resp.Location(); err == nil {
			detail = fmt.Sprintf("redirect to %s://%s: check the base URL", location.Scheme, location.Host)
		}
		return p.withDetail(e, detail)
	}
	f := parseFailure(body)
	f.refine(e)
	return p.withDetail(e, f.message)
}

// readError translates a failure in the middle of the answer.
func (p *Provider) readError(ctx context.Context, err error) *llm.Error {
	if e := llm.ContextError(ctx); e != nil {
		return e
	}
	var reported streamError
	var refused blocked
	switch {
	case errors.As(err, &reported):
		f := parseFailure(reported.data)
		return p.withDetail(f.streamed(), f.message)
	case errors.As(err, &refused):
		return p.withDetail(llm.NewError(llm.CodeContentFiltered, nil), refused.Error())
	case errors.Is(err, wire.ErrTooLarge):
		return llm.NewError(llm.CodeResponseTooLarge, err)
	case errors.Is(err, wire.ErrMalformed):
		return p.withDetail(llm.NewError(llm.CodeMalformedResponse, nil), err.Error())
	case errors.Is(err, wire.ErrTruncated), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return llm.NewError(llm.CodeTruncatedStream, err)
	}
	return p.withDetail(llm.NewError(llm.CodeConnectionFailed, nil), err.Error())
}

// withDetail adds text for operators, without the key. Causes that may quote the
// provider are kept as detail only, so that no error text has a secret.
func (p *Provider) withDetail(e *llm.Error, detail string) *llm.Error {
	e.Detail = llm.Redact(detail, p.key)
	return e
}

// failure is what an error body says. See Google's "google.rpc.Status".
type failure struct {
	code    int    // an HTTP status
	status  string // Google's word for it
	reason  string // of google.rpc.ErrorInfo
	message string
	delay   time.Duration // of google.rpc.RetryInfo, 0 = none
}

// retryIn finds the delay where only the message has it.
var retryIn = regexp.MustCompile(`(?i)retry in ([0-9]+(?:\.[0-9]+)?)s\b`)

// parseFailure reads an error body: {"error": {…}}, the inner object, either in
// an array, or plain text.
func parseFailure(body []byte) failure {
	inner := json.RawMessage(body)
	var list []json.RawMessage
	if json.Unmarshal(inner, &list) == nil && len(list) > 0 {
		inner = list[0]
	}
	var outer struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(inner, &outer) == nil && len(outer.Error) > 0 {
		inner = outer.Error
	}
	var text string
	if json.Unmarshal(inner, &text) == nil {
		return failure{message: text}
	}
	var api struct {
		Code    json.RawMessage   `json:"code"` // a number; gateways send words too
		Status  string            `json:"status"`
		Message string            `json:"message"`
		Details []json.RawMessage `json:"details"`
	}
	if json.Unmarshal(inner, &api) != nil || (api.Message == "" && api.Status == "" && len(api.Code) == 0) {
		return failure{message: string(body)}
	}
	f := failure{status: strings.ToUpper(api.Status), message: api.Message}
	if json.Unmarshal(api.Code, &f.code) != nil {
		f.code = 0
	}
	for _, data := range api.Details {
		var detail struct {
			Reason     string `json:"reason"`
			RetryDelay string `json:"retryDelay"`
		}
		if json.Unmarshal(data, &detail) != nil {
			continue
		}
		if f.reason == "" {
			f.reason = detail.Reason
		}
		if seconds, ok := strings.CutSuffix(detail.RetryDelay, "s"); ok {
			f.delay = retryAfter(seconds)
		}
	}
	if found := retryIn.FindStringSubmatch(f.message); f.delay == 0 && found != nil {
		f.delay = retryAfter(found[1])
	}
	return f
}

// retryAfter reads seconds with the same doubts as the header.
func retryAfter(seconds string) time.Duration {
	return llm.RetryAfter(http.Header{"Retry-After": {seconds}}, time.Time{})
}

// kind returns the code that the provider's own words mean, where they say more
// than the status.
func (f failure) kind() (llm.Code, bool) {
	message := strings.ToLower(f.message)
	switch {
	case f.reason == "API_KEY_INVALID", f.reason == "API_KEY_EXPIRED", strings.Contains(message, "api key not valid"),
		strings.Contains(message, "api key expired"):
		return llm.CodeUnauthorized, true
	case strings.Contains(message, "token count") && strings.Contains(message, "exceed"),
		strings.Contains(message, "exceeds the maximum number of tokens"):
		return llm.CodeContextTooLong, true
	case f.limited() && f.exhausted(message):
		return llm.CodeQuotaExceeded, true
	case f.limited():
		return llm.CodeRateLimited, true
	}
	return "", false
}

func (f failure) limited() bool { return f.status == "RESOURCE_EXHAUSTED" || f.code == 429 }

// exhausted tells a quota that waiting does not bring back from a limit of the
// rate. The message advises to check plan and billing for both; what tells them
// apart is that a limit of the rate says when to come again, and a quota that the
// plan does not have is a limit of 0.
func (f failure) exhausted(message string) bool {
	return strings.Contains(message, "limit: 0,") || strings.HasSuffix(message, "limit: 0") ||
		strings.Contains(message, "credits are depleted") || strings.Contains(message, "spending cap") ||
		(f.delay == 0 && strings.Contains(message, "billing"))
}

// refine makes the error of a status more precise.
func (f failure) refine(e *llm.Error) {
	if e.RetryAfter == 0 && (e.Status == http.StatusTooManyRequests || e.Status >= 500) {
		e.RetryAfter = f.delay
	}
	kind, ok := f.kind()
	if !ok || e.Status >= 500 || e.Status == http.StatusUnauthorized || kind == e.Code {
		return
	}
	precise := llm.NewError(kind, e.Err)
	e.Code, e.Message, e.Retryable = precise.Code, precise.Message, precise.Retryable
}

// streamed returns the error for an error object inside a success, which has no
// status of its own. What is not known to be final counts as the provider's
// failure, because it had accepted the request.
func (f failure) streamed() *llm.Error {
	e := llm.NewError(f.streamedCode(), nil)
	if f.code >= 400 && f.code < 600 {
		e.Status = f.code
	}
	if e.Retryable {
		e.RetryAfter = f.delay
	}
	return e
}

func (f failure) streamedCode() llm.Code {
	if kind, ok := f.kind(); ok {
		return kind
	}
	switch f.status {
	case "INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED":
		return llm.CodeInvalidRequest
	case "UNAUTHENTICATED", "PERMISSION_DENIED":
		return llm.CodeUnauthorized
	case "NOT_FOUND":
		return llm.CodeNotFound
	case "UNAVAILABLE":
		return llm.CodeOverloaded
	case "INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "DATA_LOSS":
		return llm.CodeUnavailable
	}
	if f.code >= 400 && f.code < 600 {
		return llm.StatusError(f.code, nil, time.Time{}).Code
	}
	return llm.CodeUnavailable
}
