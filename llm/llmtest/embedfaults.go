package llmtest

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// EmbedFault is one way in which a call for embeddings goes wrong, or nearly so,
// and what a provider makes of it. It is the same on every wire.
type EmbedFault struct {
	// Name is of lower-case letters, digits and dashes.
	Name  string
	Reply EmbedReply
	// Code is that of the error; empty when the answer is a success all the same.
	Code       llm.Code
	Retryable  bool
	RetryAfter time.Duration
	// Estimated says that a success has no usage of the provider.
	Estimated bool
	// Numbered says that the fault is in how vectors are numbered, which not every
	// wire does.
	Numbered bool
}

// EmbedFaultNamed finds a fault.
func EmbedFaultNamed(name string) (EmbedFault, bool) {
	for _, fault := range EmbedFaults() {
		if fault.Name == name {
			return fault, true
		}
	}
	return EmbedFault{}, false
}

// EmbedFaults returns all of them. They are for calls with two texts or more.
func EmbedFaults() []EmbedFault {
	var all []EmbedFault
	for _, part := range [][]EmbedFault{embedBodies(), embedVectors(), embedRefusals(), embedSilences()} {
		all = append(all, part...)
	}
	return all
}

// embedBodies are bodies that are no answer.
func embedBodies() []EmbedFault {
	body := func(name, text string, code llm.Code, retryable bool) EmbedFault {
		return EmbedFault{Name: name, Reply: EmbedReply{Body: &text}, Code: code, Retryable: retryable}
	}
	return []EmbedFault{
		body("empty-body", "", llm.CodeTruncatedStream, true),
		body("web-page-200", "<!doctype html><title>Log in</title>", llm.CodeMalformedResponse, false),
		body("empty-object", "{}", llm.CodeMalformedResponse, false),
		body("json-null", "null", llm.CodeMalformedResponse, false),
		body("list-of-nothing", `{"data": [], "embeddings": []}`, llm.CodeMalformedResponse, false),
		body("not-a-number", `{"data": [{"index": 0, "embedding": [NaN]}], "embeddings": [{"values": [NaN]}]}`, llm.CodeMalformedResponse, false),
		body("error-in-success", `{"error": {"message": "scripted error", "code": 503, "status": "UNAVAILABLE", "type": "overloaded_error"}}`, llm.CodeOverloaded, true),
		{Name: "truncated", Reply: EmbedReply{Half: true}, Code: llm.CodeTruncatedStream, Retryable: true},
	}
}

// embedVectors are answers whose vectors are not what was asked for.
func embedVectors() []EmbedFault {
	change := func(name string, f func(*EmbedAnswer)) EmbedFault {
		return EmbedFault{Name: name, Reply: EmbedReply{Change: f}, Code: llm.CodeMalformedResponse}
	}
	first := func(name string, v any) EmbedFault {
		return change(name, func(a *EmbedAnswer) { a.Vectors[0] = v })
	}
	numbered := func(name string, code llm.Code, f func(*EmbedAnswer)) EmbedFault {
		return EmbedFault{Name: name, Reply: EmbedReply{Change: f}, Code: code, Numbered: true}
	}
	success := func(name string, f func(*EmbedAnswer)) EmbedFault {
		return EmbedFault{Name: name, Reply: EmbedReply{Change: f}, Estimated: true}
	}
	return []EmbedFault{
		change("one-vector-less", func(a *EmbedAnswer) { a.Vectors, a.Indexes = a.Vectors[1:], a.Indexes[1:] }),
		change("one-vector-more", func(a *EmbedAnswer) {
			a.Vectors, a.Indexes = append(a.Vectors, a.Vectors[0]), append(a.Indexes, len(a.Indexes))
		}),
		change("another-length", func(a *EmbedAnswer) { a.Vectors[0] = []float64{1, 2, 3} }),
		first("vector-empty", []float64{}),
		first("vector-null", nil),
		first("number-null", []any{1, nil, 3}),
		first("number-text", []any{"0.1", "0.2"}),
		first("number-too-large", []any{1e300, 1}),
		first("vector-text", "AACAPw=="),
		first("vector-nested", []any{[]any{1, 2}}),
		numbered("index-order", "", func(a *EmbedAnswer) {
			last := len(a.Vectors) - 1
			a.Indexes[0], a.Indexes[last] = a.Indexes[last], a.Indexes[0]
			a.Vectors[0], a.Vectors[last] = a.Vectors[last], a.Vectors[0]
		}),
		numbered("index-absent", "", func(a *EmbedAnswer) { a.Indexes = nil }),
		numbered("index-twice", llm.CodeMalformedResponse, func(a *EmbedAnswer) { a.Indexes[1] = 0 }),
		numbered("index-beyond", llm.CodeMalformedResponse, func(a *EmbedAnswer) { a.Indexes[0] = len(a.Indexes) }),
		numbered("index-negative", llm.CodeMalformedResponse, func(a *EmbedAnswer) { a.Indexes[0] = -1 }),
		numbered("index-text", llm.CodeMalformedResponse, func(a *EmbedAnswer) { a.Indexes[0] = "0" }),
		success("usage-absent", func(a *EmbedAnswer) { a.InputTokens = 0 }),
		success("usage-negative", func(a *EmbedAnswer) { a.InputTokens = -5 }),
		success("usage-absurd", func(a *EmbedAnswer) { a.InputTokens = 1 << 62 }),
	}
}

// embedRefusals are HTTP statuses that are no success.
func embedRefusals() []EmbedFault {
	var all []EmbedFault
	for _, tt := range []struct {
		status    int
		code      llm.Code
		retryable bool
	}{
		{http.StatusBadRequest, llm.CodeInvalidRequest, false},
		{http.StatusUnauthorized, llm.CodeUnauthorized, false},
		{http.StatusForbidden, llm.CodeUnauthorized, false},
		{http.StatusNotFound, llm.CodeNotFound, false},
		{http.StatusRequestEntityTooLarge, llm.CodeInvalidRequest, false},
		{http.StatusTooManyRequests, llm.CodeRateLimited, true},
		{http.StatusInternalServerError, llm.CodeUnavailable, true},
		{http.StatusBadGateway, llm.CodeUnavailable, true},
		{http.StatusServiceUnavailable, llm.CodeOverloaded, true},
		{http.StatusGatewayTimeout, llm.CodeUnavailable, true},
	} {
		all = append(all, EmbedFault{Name: fmt.Sprintf("status-%d", tt.status), Reply: EmbedReply{Status: tt.status}, Code: tt.code, Retryable: tt.retryable})
	}
	page, nothing := "<html>Bad Gateway</html>", ""
	limited := EmbedReply{Status: http.StatusTooManyRequests}
	after := limited
	after.Headers = []string{"Retry-After", "7"}
	final := limited
	final.Headers = []string{"X-Should-Retry", "false"}
	return append(all,
		EmbedFault{Name: "retry-after-7", Reply: after, Code: llm.CodeRateLimited, Retryable: true, RetryAfter: 7 * time.Second},
		EmbedFault{Name: "should-not-retry-429", Reply: final, Code: llm.CodeRateLimited},
		EmbedFault{Name: "web-page-502", Reply: EmbedReply{Status: http.StatusBadGateway, Body: &page}, Code: llm.CodeUnavailable, Retryable: true},
		EmbedFault{Name: "redirect", Reply: EmbedReply{Status: http.StatusTemporaryRedirect, Body: &nothing, Headers: []string{"Location", "https://elsewhere.example/v1"}}, Code: llm.CodeMalformedResponse},
		EmbedFault{Name: "text-too-long", Reply: EmbedReply{
			Status:  http.StatusBadRequest,
			Message: "This model's maximum context length is 8192 tokens, however you requested 9000 tokens. The input token count exceeds the maximum number of tokens allowed.",
		}, Code: llm.CodeContextTooLong},
	)
}

// embedSilences are answers that do not come, or break off.
func embedSilences() []EmbedFault {
	return []EmbedFault{
		{Name: "reset", Reply: EmbedReply{Reset: true}, Code: llm.CodeConnectionFailed, Retryable: true},
		{Name: "cut", Reply: EmbedReply{Cut: true}, Code: llm.CodeTruncatedStream, Retryable: true},
		{Name: "stall", Reply: EmbedReply{Stall: true}, Code: llm.CodeTimeoutTotal},
		{Name: "flood", Reply: EmbedReply{Change: func(a *EmbedAnswer) {
			a.Vectors[0] = make([]float64, 1<<20)
		}}, Code: llm.CodeResponseTooLarge},
	}
}

// EmbedRefuse is the refusal of calls with more than so many texts, or of texts
// with more than so many words, as providers have it: 0 = any number.
func EmbedRefuse(texts, words int) func(EmbedRequest) EmbedReply {
	return func(req EmbedRequest) EmbedReply {
		if texts > 0 && len(req.Texts) > texts {
			return EmbedReply{Status: http.StatusBadRequest, Message: "too many inputs in one request"}
		}
		for _, text := range req.Texts {
			if words > 0 && len(strings.Fields(text)) > words {
				return EmbedReply{Status: http.StatusBadRequest, Message: "This model's maximum context length is exceeded."}
			}
		}
		return EmbedReply{}
	}
}
