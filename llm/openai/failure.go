package openai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/sashabaranov/go-openai"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// streamError is an error object that came in the middle of a success.
type streamError struct{ data []byte }

func (streamError) Error() string { return "the provider reported an error in its answer" }

// openError translates a failure before the answer began.
func (p *Provider) openError(ctx context.Context, c *call, err error) *llm.Error {
	if e := llm.ContextError(ctx); e != nil {
		return e
	}
	if c.response == nil {
		// Errors that are no business of the network: go-openai refused the
		// request, or it could not be encoded.
		var network interface{ Timeout() bool }
		code := llm.CodeInvalidRequest
		if errors.As(err, &network) || errors.Is(err, io.EOF) {
			code = llm.CodeConnectionFailed
		}
		return p.withDetail(llm.NewError(code, nil), err.Error())
	}
	status := c.response.StatusCode
	e := llm.StatusError(status, c.response.Header, time.Now())
	if status < 400 {
		detail := fmt.Sprintf("status %d", status)
		if location, err := c.response.Location(); err == nil {
			detail = fmt.Sprintf("redirect to %s://%s: check the base URL", location.Scheme, location.Host)
		}
		return p.withDetail(e, detail)
	}
	f := parseFailure(c.failure)
	f.refine(e)
	return p.withDetail(e, f.message)
}

// readError translates a failure in the middle of the answer.
func (p *Provider) readError(ctx context.Context, err error) *llm.Error {
	if e := llm.ContextError(ctx); e != nil {
		return e
	}
	var reported streamError
	switch {
	case errors.As(err, &reported):
		f := parseFailure(reported.data)
		return p.withDetail(f.streamed(), f.message)
	case errors.Is(err, wire.ErrTooLarge):
		return p.withDetail(llm.NewError(llm.CodeResponseTooLarge, err), err.Error())
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

// failure is what an error body says.
type failure struct {
	code    string // or type, lower case
	status  int    // where the code is a number, as OpenRouter sends it
	message string
}

// parseFailure reads an error body in the forms that servers use: OpenAI's
// {"error": {…}}, the bare inner object, {"error": "text"}, or plain text.
func parseFailure(body []byte) failure {
	var outer struct {
		Error json.RawMessage `json:"error"`
	}
	inner := json.RawMessage(body)
	if json.Unmarshal(body, &outer) == nil && len(outer.Error) > 0 {
		inner = outer.Error
	}
	var text string
	if json.Unmarshal(inner, &text) == nil {
		return failure{message: text}
	}
	var api openai.APIError
	if json.Unmarshal(inner, &api) != nil || (api.Message == "" && api.Type == "" && api.Code == nil) {
		return failure{message: string(body)}
	}
	f := failure{message: api.Message, code: strings.ToLower(api.Type)}
	switch code := api.Code.(type) {
	case string:
		if code != "" {
			f.code = strings.ToLower(code)
		}
	case int:
		f.status = code
	}
	if f.code == "invalid_request_error" && api.InnerError != nil && api.InnerError.Code != "" {
		f.code = strings.ToLower(api.InnerError.Code)
	}
	return f
}

// kind returns the code that the provider's own words mean, where they say more
// than the status.
func (f failure) kind() (llm.Code, bool) {
	message := strings.ToLower(f.message)
	switch {
	case f.code == "context_length_exceeded", strings.Contains(message, "maximum context length"),
		strings.Contains(message, "context window"), strings.Contains(message, "context length"):
		return llm.CodeContextTooLong, true
	case f.code == "content_filter", f.code == "content_policy_violation", f.code == "responsibleaipolicyviolation":
		return llm.CodeContentFiltered, true
	case f.code == "insufficient_quota", f.code == "billing_hard_limit_reached":
		return llm.CodeQuotaExceeded, true
	case f.code == "model_not_found":
		return llm.CodeNotFound, true
	case f.code == "invalid_api_key", f.code == "authentication_error", f.code == "permission_error",
		strings.Contains(message, "api key not valid"):
		return llm.CodeUnauthorized, true
	}
	return "", false
}

// refine makes the error of a status more precise. A client error stays final:
// only the kind changes.
func (f failure) refine(e *llm.Error) {
	kind, ok := f.kind()
	if !ok || e.Status >= 500 || e.Status == http.StatusUnauthorized {
		return
	}
	precise := llm.NewError(kind, e.Err)
	e.Code, e.Message, e.Retryable = precise.Code, precise.Message, precise.Retryable
}

// streamed returns the error for an error object inside a success, which has no
// status of its own. What is not known to be final counts as the provider's
// failure, because it had accepted the request.
func (f failure) streamed() *llm.Error {
	if kind, ok := f.kind(); ok {
		return llm.NewError(kind, nil)
	}
	switch f.code {
	case "rate_limit_exceeded", "rate_limit_error", "too_many_requests", "requests", "tokens":
		return llm.NewError(llm.CodeRateLimited, nil)
	case "overloaded", "overloaded_error", "server_overloaded":
		return llm.NewError(llm.CodeOverloaded, nil)
	case "invalid_request_error", "bad_request", "invalid_request":
		return llm.NewError(llm.CodeInvalidRequest, nil)
	case "not_found_error":
		return llm.NewError(llm.CodeNotFound, nil)
	}
	if f.status >= 400 && f.status < 600 {
		e := llm.StatusError(f.status, nil, time.Time{})
		return e
	}
	return llm.NewError(llm.CodeUnavailable, nil)
}
