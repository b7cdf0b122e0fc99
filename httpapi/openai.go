package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// The routes below /v1 speak OpenAI's API, so that its clients can be pointed at
// this server: a chain is a model, and a model of a provider is one, too. Their
// errors have OpenAI's shape; where a client reads a code, it is OpenAI's.

// speaksOpenAI tells whether a path belongs to that API.
func speaksOpenAI(path string) bool { return strings.HasPrefix(path, "/v1/") }

// Codes of OpenAI that requests are refused with.
const (
	codeMissing          = "missing_required_parameter"
	codeInvalidType      = "invalid_type"
	codeInvalidValue     = "invalid_value"
	codeUnsupported      = "unsupported_parameter"
	codeUnsupportedValue = "unsupported_value"
	codeModelNotFound    = "model_not_found"
)

// refused is a problem with a field of a request. param is its path in OpenAI's
// notation, such as messages[0].content.
func refused(param, code, detail string) *problem {
	return &problem{kind: kind{code: code, status: http.StatusBadRequest, title: "The request is not valid"}, param: param, detail: detail}
}

func noModel(detail string) *problem {
	return &problem{kind: kind{code: codeModelNotFound, status: http.StatusNotFound, title: "There is no such model"}, param: "model", detail: detail}
}

// openAIError is OpenAI's error object.
type openAIError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// openAIProblem changes a problem to what OpenAI's clients understand.
func openAIProblem(p *problem) *problem {
	q := *p
	switch p.kind {
	case kindNoChain:
		q.kind = kind{code: codeModelNotFound, status: http.StatusNotFound, title: p.title}
		q.detail, q.param = "There is no such chain.", "model"
	case kindInvalidRequest, kindInvalidDocument:
		q.status = http.StatusBadRequest // OpenAI knows no 422
	case kindMethod:
		q.detail = "The method is not allowed here. " + p.detail // a message stands without a title
	}
	return &q
}

// openAIBody is the body of an error.
func openAIBody(p *problem) []byte {
	e := openAIError{Message: p.detail, Type: "invalid_request_error"}
	if len(p.errors) > 1 {
		var all []string
		for _, q := range p.errors {
			all = append(all, paramOf(q.Pointer)+": "+q.Detail)
		}
		e.Message = p.title + ": " + strings.Join(all, "; ") + "."
	}
	if len(p.errors) > 0 && p.param == "" {
		p.param = paramOf(p.errors[0].Pointer)
	}
	if e.Message == "" {
		e.Message = p.title
	}
	switch {
	case p.code == "insufficient_quota":
		e.Type = p.code
	case p.status == http.StatusTooManyRequests:
		e.Type = "rate_limit_error"
	case p.status >= http.StatusInternalServerError:
		e.Type = "server_error"
	}
	if p.param != "" {
		e.Param = &p.param
	}
	if p.code != "" {
		e.Code = &p.code
	}
	body, err := json.Marshal(struct {
		Error openAIError `json:"error"`
	}{e})
	if err != nil {
		panic("httpapi: encode an error: " + err.Error()) // strings only
	}
	return body
}

// paramOf writes a JSON pointer as OpenAI names parameters.
func paramOf(pointer string) string {
	var b strings.Builder
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		switch _, err := strconv.Atoi(token); {
		case err == nil:
			b.WriteString("[" + token + "]")
		case b.Len() > 0:
			b.WriteString("." + token)
		default:
			b.WriteString(token)
		}
	}
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(b.String())
}

// failures is the one table from what ended an execution to what is answered.
// Codes that are not in it are the server's own failures.
var failures = map[string]struct {
	status int
	code   string // "" = as it is
}{
	string(llm.CodeRateLimited):        {http.StatusTooManyRequests, "rate_limit_exceeded"},
	string(llm.CodeQuotaExceeded):      {http.StatusTooManyRequests, "insufficient_quota"},
	"budget_exceeded":                  {http.StatusTooManyRequests, "insufficient_quota"},
	string(llm.CodeOverloaded):         {http.StatusServiceUnavailable, ""},
	string(llm.CodeUnavailable):        {http.StatusBadGateway, ""},
	string(llm.CodeUnauthorized):       {http.StatusBadGateway, "provider_unauthorized"}, // the server's key, not that of the client
	string(llm.CodeNotFound):           {http.StatusNotFound, codeModelNotFound},
	string(llm.CodeInvalidRequest):     {http.StatusBadRequest, ""},
	string(llm.CodeContextTooLong):     {http.StatusBadRequest, "context_length_exceeded"},
	string(llm.CodeContentFiltered):    {http.StatusBadRequest, "content_filter"},
	string(llm.CodeConnectionFailed):   {http.StatusBadGateway, ""},
	string(llm.CodeTruncatedStream):    {http.StatusBadGateway, ""},
	string(llm.CodeTimeoutFirstByte):   {http.StatusGatewayTimeout, ""},
	string(llm.CodeTimeoutIdle):        {http.StatusGatewayTimeout, ""},
	string(llm.CodeTimeoutTotal):       {http.StatusGatewayTimeout, ""},
	string(llm.CodeResponseTooLarge):   {http.StatusBadGateway, ""},
	string(llm.CodeMalformedResponse):  {http.StatusBadGateway, ""},
	string(llm.CodeCancelled):          {http.StatusConflict, ""},
	string(llm.CodeCircuitOpen):        {http.StatusServiceUnavailable, ""},
	string(llm.CodeUnexpectedToolCall): {http.StatusBadGateway, ""},
	"timeout":                          {http.StatusGatewayTimeout, ""},
	"prompt_timeout":                   {http.StatusGatewayTimeout, ""},
	"model_unavailable":                {http.StatusServiceUnavailable, ""},
	"output_invalid":                   {http.StatusBadGateway, ""},
	"output_truncated":                 {http.StatusBadGateway, ""},
	"unknown_price":                    {http.StatusBadRequest, ""},
	"unresolved":                       {http.StatusBadRequest, ""},
	"limit_exceeded":                   {http.StatusBadRequest, ""},
}

// failureProblem is what an execution that failed is answered with. The client is
// told not to try again: the execution has made its attempts already.
func failureProblem(code, message string) *problem {
	k := kind{code: code, status: http.StatusInternalServerError, title: "The execution failed"}
	if f, known := failures[code]; known {
		k.status = f.status
		if f.code != "" {
			k.code = f.code
		}
	}
	return &problem{kind: k, detail: message, final: true}
}

// callFailure is what the call of an embedding model that is no execution is answered
// with.
func callFailure(e *llm.Error) *problem {
	p := failureProblem(string(e.Code), e.Message)
	p.title = "The embedding call failed"
	switch e.Code {
	case llm.CodeNotFound:
		p = noModel(strings.TrimSpace(e.Message + " " + e.Detail))
	case llm.CodeContextTooLong:
		p.detail = "The text is too long for this model."
	case llm.CodeContentFiltered:
		p.detail = "The model provider's content filter refused the text."
	default: // their sentences speak of no prompt
	}
	p.final, p.retryAfter, p.cause = !e.Retryable, e.RetryAfter, e
	return p
}
