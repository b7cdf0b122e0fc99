package openai_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	apiError := func(message, kind, code string) string {
		return `{"error":{"message":"` + message + `","type":"` + kind + `","code":` + code + `}}`
	}
	half := llmtest.Reply{llmtest.Role(), llmtest.Delta("half")}
	tests := map[string]struct {
		reply     llmtest.Reply
		code      llm.Code
		retryable bool
		status    int
		after     time.Duration
		text      string // that arrived before
		detail    string // part of it
	}{
		"400":                {reply: llmtest.Status(400), code: llm.CodeInvalidRequest, status: 400, detail: "scripted error 400"},
		"401":                {reply: llmtest.Status(401), code: llm.CodeUnauthorized, status: 401},
		"403":                {reply: llmtest.Status(403), code: llm.CodeUnauthorized, status: 403},
		"404":                {reply: llmtest.Status(404), code: llm.CodeNotFound, status: 404},
		"408":                {reply: llmtest.Status(408), code: llm.CodeUnavailable, status: 408, retryable: true},
		"409":                {reply: llmtest.Status(409), code: llm.CodeUnavailable, status: 409, retryable: true},
		"413":                {reply: llmtest.Status(413), code: llm.CodeInvalidRequest, status: 413},
		"422":                {reply: llmtest.Status(422), code: llm.CodeInvalidRequest, status: 422},
		"429":                {reply: llmtest.Status(429, "Retry-After", "2"), code: llm.CodeRateLimited, status: 429, retryable: true, after: 2 * time.Second},
		"429 in ms":          {reply: llmtest.Status(429, "Retry-After", "9", "Retry-After-Ms", "1500"), code: llm.CodeRateLimited, status: 429, retryable: true, after: 1500 * time.Millisecond},
		"429 nonsense":       {reply: llmtest.Status(429, "Retry-After", "NaN"), code: llm.CodeRateLimited, status: 429, retryable: true},
		"429 final":          {reply: llmtest.Status(429, "X-Should-Retry", "false"), code: llm.CodeRateLimited, status: 429},
		"500":                {reply: llmtest.Status(500), code: llm.CodeUnavailable, status: 500, retryable: true},
		"502 web page":       {reply: llmtest.StatusBody(502, "<html>Bad Gateway</html>"), code: llm.CodeUnavailable, status: 502, retryable: true, detail: "Bad Gateway"},
		"503":                {reply: llmtest.Status(503), code: llm.CodeOverloaded, status: 503, retryable: true},
		"529":                {reply: llmtest.Status(529), code: llm.CodeOverloaded, status: 529, retryable: true},
		"400 should retry":   {reply: llmtest.Status(400, "X-Should-Retry", "true"), code: llm.CodeInvalidRequest, status: 400},
		"no quota":           {reply: llmtest.StatusBody(429, apiError("pay", "insufficient_quota", `"insufficient_quota"`)), code: llm.CodeQuotaExceeded, status: 429},
		"too long":           {reply: llmtest.StatusBody(400, apiError("long", "invalid_request_error", `"context_length_exceeded"`)), code: llm.CodeContextTooLong, status: 400},
		"too long, in words": {reply: llmtest.StatusBody(400, apiError("exceeds the maximum context length", "x", "null")), code: llm.CodeContextTooLong, status: 400},
		"filtered":           {reply: llmtest.StatusBody(400, apiError("no", "invalid_request_error", `"content_filter"`)), code: llm.CodeContentFiltered, status: 400},
		"bad key as 400":     {reply: llmtest.StatusBody(400, apiError("API key not valid.", "x", "400")), code: llm.CodeUnauthorized, status: 400},
		"error as text":      {reply: llmtest.StatusBody(400, `{"error":"model is asleep"}`), code: llm.CodeInvalidRequest, status: 400, detail: "model is asleep"},
		"huge error":         {reply: llmtest.StatusBody(400, strings.Repeat("x", 1<<20)), code: llm.CodeInvalidRequest, status: 400, detail: "xxx"},
		"the key is quoted":  {reply: llmtest.StatusBody(401, apiError("Incorrect API key provided: "+key, "x", "null")), code: llm.CodeUnauthorized, status: 401, detail: "Incorrect API key provided: ***"},
		"redirect":           {reply: llmtest.StatusBody(307, "", "Location", "https://other.example/v1/chat?token=secret"), code: llm.CodeMalformedResponse, status: 307, detail: "redirect to https://other.example: check the base URL"},
		"not modified":       {reply: llmtest.StatusBody(304, ""), code: llm.CodeMalformedResponse, status: 304},

		"nothing at all":           {reply: llmtest.Reply{}, code: llm.CodeTruncatedStream, retryable: true},
		"only comments":            {reply: llmtest.Reply{llmtest.Comment("x")}, code: llm.CodeTruncatedStream, retryable: true},
		"clean end in mid-stream":  {reply: half, code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"usage but no end marker":  {reply: append(half[:2:2], llmtest.Usage(1, 1)), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"event cut off":            {reply: append(half[:2:2], llmtest.Raw(`data: {"choices":[{"in`)), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"connection cut":           {reply: append(half[:2:2], llmtest.Cut()), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"connection reset":         {reply: append(half[:2:2], llmtest.Reset()), code: llm.CodeConnectionFailed, retryable: true, text: "*"},
		"reset before the answer":  {reply: llmtest.Reply{llmtest.Reset()}, code: llm.CodeConnectionFailed, retryable: true},
		"error in mid-stream":      {reply: append(half[:2:2], llmtest.StreamError("boom "+key, "server_error"), llmtest.Done()), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "boom ***"},
		"rate limit in mid-stream": {reply: append(half[:2:2], llmtest.Data(apiError("slow down", "requests", `"rate_limit_exceeded"`))), code: llm.CodeRateLimited, retryable: true, text: "half"},
		"overloaded in mid-stream": {reply: append(half[:2:2], llmtest.Data(apiError("busy", "overloaded_error", "null"))), code: llm.CodeOverloaded, retryable: true, text: "half"},
		"refused in mid-stream":    {reply: llmtest.Reply{llmtest.Data(apiError("bad", "invalid_request_error", "null"))}, code: llm.CodeInvalidRequest},
		"status in mid-stream":     {reply: append(half[:2:2], llmtest.Data(`{"id":"x","error":{"message":"upstream","code":502},"choices":[]}`)), code: llm.CodeUnavailable, retryable: true, status: 502, text: "half"},
		"error event":              {reply: append(half[:2:2], llmtest.Raw("event: error\ndata: {\"message\":\"gone\"}\n\n")), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "gone"},
		"error event, plain":       {reply: append(half[:2:2], llmtest.Raw("event: error\ndata: out of memory\n\n")), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "out of memory"},
		"error as string":          {reply: append(half[:2:2], llmtest.Data(`{"error":"oops"}`)), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "oops"},
		"error not streamed":       {reply: llmtest.JSON(apiError("no", "overloaded", "null")), code: llm.CodeOverloaded, retryable: true},
		"whole answer cut off":     {reply: llmtest.JSON(`{"choices":[{"index":0,"mess`), code: llm.CodeTruncatedStream, retryable: true},
		"whole without end":        {reply: llmtest.JSON(`{"choices":[{"index":0,"message":{"content":"x"}}]}`), code: llm.CodeTruncatedStream, retryable: true, text: "x"},
		"lines of JSON":            {reply: llmtest.JSON("{\"a\":1}\n{\"a\":2}\n"), code: llm.CodeMalformedResponse},
		"web page":                 {reply: llmtest.StatusBody(200, "\n<!doctype html>"), code: llm.CodeMalformedResponse, detail: "web page"},
		"no JSON":                  {reply: append(half[:2:2], llmtest.Data("what?"), llmtest.Done()), code: llm.CodeMalformedResponse, text: "half"},
		"wrong JSON":               {reply: append(half[:2:2], llmtest.Data(`{"choices":7}`), llmtest.Done()), code: llm.CodeMalformedResponse, text: "half"},
		"10 MB line":               {reply: append(half[:2:2], llmtest.Raw("data: "+strings.Repeat("x", 10<<20))), code: llm.CodeResponseTooLarge, text: "half"},
		"10 MB comment":            {reply: append(half[:2:2], llmtest.Raw(": "+strings.Repeat("x", 10<<20))), code: llm.CodeResponseTooLarge, text: "half"},
		"10 MB in lines":           {reply: append(half[:2:2], llmtest.Raw(strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 10))), code: llm.CodeResponseTooLarge, text: "half"},
		"10 MB whole":              {reply: llmtest.JSON(`{"x":"` + strings.Repeat("x", 10<<20) + `"}`), code: llm.CodeResponseTooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", tt.reply)
			r := llmtest.Collect(t.Context(), t, provider(t, fake.URL), request("m"))
			e := (*llm.Error)(nil)
			if !errors.As(r.Err, &e) {
				t.Fatalf("no error: %+v", r)
			}
			if e.Code != tt.code || e.Retryable != tt.retryable || e.Status != tt.status || e.RetryAfter != tt.after {
				t.Errorf("got %s, retryable %t, status %d, after %v, detail %.300q", e.Code, e.Retryable, e.Status, e.RetryAfter, e.Detail)
			}
			if tt.text != "*" && r.Text != tt.text {
				t.Errorf("text before the error: %q, want %q", r.Text, tt.text)
			}
			if !strings.Contains(e.Detail, tt.detail) || len(e.Detail) > llm.MaxDetail {
				t.Errorf("detail %.300q, want %q in it", e.Detail, tt.detail)
			}
			for err := r.Err; err != nil; err = errors.Unwrap(err) {
				if strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "secret") {
					t.Errorf("secret in %q", err)
				}
			}
			if n := fake.Count("m"); n != 1 {
				t.Errorf("%d calls, want 1: retries are not the provider's business", n)
			}
		})
	}
}

func TestByteCap(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text(strings.Split(strings.Repeat("word ", 100), " ")...))
	p := provider(t, fake.URL, func(c *openai.Config) { c.MaxBytes = 2000 })
	r := llmtest.Collect(t.Context(), t, p, request("m"))
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeResponseTooLarge || r.Text == "" {
		t.Errorf("%+v", r)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	r := llmtest.Collect(t.Context(), t, provider(t, "http://127.0.0.1:1/v1"), request("m"))
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeConnectionFailed || !e.Retryable || e.Detail == "" {
		t.Errorf("error %v", r.Err)
	}
}

// TestUsageOfFailure shows that what a call had used is known though it failed.
func TestUsageOfFailure(t *testing.T) {
	t.Parallel()
	spent := llmtest.Data(`{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":11,"completion_tokens":1}}`)
	for name, reply := range map[string]llmtest.Reply{
		"truncated": {spent},
		"an error":  {spent, llmtest.StreamError("boom", llmtest.KindServer)},
		"a stall":   {spent, llmtest.Stall()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", reply)
			p := llm.Guard(provider(t, fake.URL), llm.Deadlines{Idle: time.Second})
			r := llmtest.Collect(t.Context(), t, p, request("m"))
			if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Usage == nil || e.Usage.InputTokens != 11 {
				t.Errorf("error %v", r.Err)
			}
		})
	}
}
