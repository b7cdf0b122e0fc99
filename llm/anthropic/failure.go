package anthropic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/anthropics/anthropic-sdk-go"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// streamError is an error object that came in the middle of a success.
type streamError struct{ data []byte }

func (streamError) Error() string { return "the provider reported an error in its answer" }

// openError translates a failure before the answer began. response is nil when
// there was none.
func (p *Provider) openError(ctx context.Context, response *http.Response, err error) *llm.Error {
	if e := llm.ContextError(ctx); e != nil {
		return e
	}
	if response == nil {
		// Errors that are no business of the network: the request could not be encoded.
		var network interface{ Timeout() bool }
		code := llm.CodeInvalidRequest
		if errors.As(err, &network) || errors.Is(err, io.EOF) {
			code = llm.CodeConnectionFailed
		}
		return p.withDetail(llm.NewError(code, nil), nil, err.Error())
	}
	e := llm.StatusError(response.StatusCode, response.Header, time.Now())
	if response.StatusCode < 400 {
		detail := fmt.Sprintf("status %d", response.StatusCode)
		if location, err := response.Location(); err == nil {
			detail = fmt.Sprintf("redirect to %s://%s: check the base URL", location.Scheme, location.Host)
		}
		return p.withDetail(e, response, detail)
	}
	// A body that broke off still leaves the status, which says enough. The SDK has
	// put back what it has read.
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxFailureBody))
	f := parseFailure(body)
	f.refine(e)
	return p.withDetail(e, response, f.detail())
}

// readError translates a failure in the middle of the answer.
func (p *Provider) readError(ctx context.Context, response *http.Response, err error) *llm.Error {
	if e := llm.ContextError(ctx); e != nil {
		return e
	}
	var reported streamError
	switch {
	case errors.As(err, &reported):
		f := parseFailure(reported.data)
		return p.withDetail(f.streamed(), response, f.detail())
	case errors.Is(err, wire.ErrTooLarge):
		return llm.NewError(llm.CodeResponseTooLarge, err)
	case errors.Is(err, wire.ErrMalformed):
		return p.withDetail(llm.NewError(llm.CodeMalformedResponse, nil), response, err.Error())
	case errors.Is(err, wire.ErrTruncated), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return llm.NewError(llm.CodeTruncatedStream, err)
	}
	return p.withDetail(llm.NewError(llm.CodeConnectionFailed, nil), response, err.Error())
}

// withDetail adds text for operators, without the key: the id of the request, by
// which the provider's support finds it, and what the provider said. Causes that
// may quote the provider are kept as detail only, so that no error text has a
// secret.
func (p *Provider) withDetail(e *llm.Error, response *http.Response, detail string) *llm.Error {
	if response != nil {
		id := response.Header.Get("Request-Id")
		if id != "" && !strings.Contains(detail, id) {
			detail = "request " + id + ": " + detail
		}
	}
	e.Detail = llm.Redact(detail, p.key)
	return e
}

// failure is what an error body says.
type failure struct {
	kind    anthropic.ErrorType // lower case; empty when it is not Anthropic's form
	message string
	request string // the id of the request
}

// detail is what an operator should see.
func (f failure) detail() string {
	if f.request != "" {
		return "request " + f.request + ": " + f.message
	}
	return f.message
}

// parseFailure reads an error body: {"type": "error", "error": {…}}, the bare
// inner object, or plain text.
func parseFailure(body []byte) failure {
	var outer struct {
		Error     json.RawMessage `json:"error"`
		RequestID wire.Text       `json:"request_id"`
	}
	inner := json.RawMessage(body)
	if json.Unmarshal(body, &outer) == nil && len(outer.Error) > 0 {
		inner = outer.Error
	}
	var text string
	if json.Unmarshal(inner, &text) == nil {
		return failure{message: text, request: string(outer.RequestID)}
	}
	var object struct {
		Type    wire.Text `json:"type"`
		Message wire.Text `json:"message"`
	}
	if json.Unmarshal(inner, &object) != nil || (object.Type == "" && object.Message == "") {
		return failure{message: string(body)}
	}
	f := failure{kind: anthropic.ErrorType(strings.ToLower(string(object.Type))), message: string(object.Message), request: string(outer.RequestID)}
	if f.message == "" {
		f.message = string(f.kind)
	}
	return f
}

// code returns the code that the provider's own words mean, where they say more
// than the status: the API has one type for everything that it finds wrong with a
// request.
func (f failure) code() (llm.Code, bool) {
	message := strings.ToLower(f.message)
	says := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(message, part) {
				return true
			}
		}
		return false
	}
	switch {
	case f.kind == anthropic.ErrorTypeBillingError, says("credit balance is too low", "specified api usage limits"):
		return llm.CodeQuotaExceeded, true
	case f.kind == anthropic.ErrorTypeAuthenticationError, f.kind == anthropic.ErrorTypePermissionError:
		return llm.CodeUnauthorized, true
	case f.kind == anthropic.ErrorTypeNotFoundError:
		return llm.CodeNotFound, true
	case f.kind != "" && f.kind != anthropic.ErrorTypeInvalidRequestError:
		return "", false
	case says("prompt is too long", "exceed context limit", "exceeds the context", "context window"):
		return llm.CodeContextTooLong, true
	case says("content filtering policy"):
		return llm.CodeContentFiltered, true
	}
	return "", false
}

// refine makes the error of a status more precise. A client error stays final:
// only the kind changes.
func (f failure) refine(e *llm.Error) {
	code, ok := f.code()
	if !ok || e.Status >= 500 || e.Status == http.StatusUnauthorized {
		return
	}
	precise := llm.NewError(code, e.Err)
	e.Code, e.Message, e.Retryable = precise.Code, precise.Message, precise.Retryable
}

// streamed returns the error for an error object inside a success, which has no
// status of its own. What is not known to be final counts as the provider's
// failure, because it had accepted the request.
func (f failure) streamed() *llm.Error {
	if code, ok := f.code(); ok {
		return llm.NewError(code, nil)
	}
	switch f.kind {
	case anthropic.ErrorTypeRateLimitError:
		return llm.NewError(llm.CodeRateLimited, nil)
	case anthropic.ErrorTypeOverloadedError:
		return llm.NewError(llm.CodeOverloaded, nil)
	case anthropic.ErrorTypeInvalidRequestError, "request_too_large":
		return llm.NewError(llm.CodeInvalidRequest, nil)
	}
	return llm.NewError(llm.CodeUnavailable, nil)
}
