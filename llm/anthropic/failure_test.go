package anthropic_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/anthropic"
	"github.com/chainstream/chainstream/llm/llmtest"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	apiError := func(kind, message string) string {
		return `{"type":"error","error":{"type":"` + kind + `","message":"` + message + `"},"request_id":"req_1"}`
	}
	half := func(steps ...llmtest.Step) llmtest.Reply {
		return append(llmtest.Reply{llmtest.Role(), llmtest.Delta("half")}, steps...)
	}
	broken := func(kind, message string) llmtest.Reply {
		return half(llmtest.Raw("event: error\n" + data(apiError(kind, message))))
	}
	tests := map[string]struct {
		reply     llmtest.Reply
		code      llm.Code
		retryable bool
		status    int
		after     time.Duration
		text      string // that arrived before
		detail    string // part of it
	}{
		"400":                   {reply: llmtest.Status(400), code: llm.CodeInvalidRequest, status: 400, detail: "request req_fake: scripted error 400"},
		"401":                   {reply: llmtest.Status(401), code: llm.CodeUnauthorized, status: 401},
		"402":                   {reply: llmtest.StatusBody(402, apiError("billing_error", "pay")), code: llm.CodeQuotaExceeded, status: 402, detail: "request req_1: pay"},
		"403":                   {reply: llmtest.Status(403), code: llm.CodeUnauthorized, status: 403},
		"404":                   {reply: llmtest.Status(404), code: llm.CodeNotFound, status: 404},
		"408":                   {reply: llmtest.Status(408), code: llm.CodeUnavailable, status: 408, retryable: true},
		"409":                   {reply: llmtest.Status(409), code: llm.CodeUnavailable, status: 409, retryable: true},
		"413":                   {reply: llmtest.StatusBody(413, apiError("request_too_large", "Request exceeds the maximum size")), code: llm.CodeInvalidRequest, status: 413},
		"422":                   {reply: llmtest.Status(422), code: llm.CodeInvalidRequest, status: 422},
		"429":                   {reply: llmtest.Status(429, "Retry-After", "2"), code: llm.CodeRateLimited, status: 429, retryable: true, after: 2 * time.Second},
		"429 in ms":             {reply: llmtest.Status(429, "Retry-After", "9", "Retry-After-Ms", "1500"), code: llm.CodeRateLimited, status: 429, retryable: true, after: 1500 * time.Millisecond},
		"429 nonsense":          {reply: llmtest.Status(429, "Retry-After", "NaN"), code: llm.CodeRateLimited, status: 429, retryable: true},
		"429 final":             {reply: llmtest.Status(429, "X-Should-Retry", "false"), code: llm.CodeRateLimited, status: 429},
		"500":                   {reply: llmtest.Status(500), code: llm.CodeUnavailable, status: 500, retryable: true},
		"500 of a known kind":   {reply: llmtest.StatusBody(500, apiError("not_found_error", "lost")), code: llm.CodeUnavailable, status: 500, retryable: true},
		"502 web page":          {reply: llmtest.StatusBody(502, "<html>Bad Gateway</html>"), code: llm.CodeUnavailable, status: 502, retryable: true, detail: "Bad Gateway"},
		"503":                   {reply: llmtest.Status(503), code: llm.CodeOverloaded, status: 503, retryable: true},
		"504":                   {reply: llmtest.StatusBody(504, apiError("timeout_error", "slow")), code: llm.CodeUnavailable, status: 504, retryable: true},
		"529":                   {reply: llmtest.StatusBody(529, apiError("overloaded_error", "Overloaded")), code: llm.CodeOverloaded, status: 529, retryable: true, detail: "Overloaded"},
		"529 final":             {reply: llmtest.Status(529, "X-Should-Retry", "false"), code: llm.CodeOverloaded, status: 529},
		"400 should retry":      {reply: llmtest.Status(400, "X-Should-Retry", "true"), code: llm.CodeInvalidRequest, status: 400},
		"no credit":             {reply: llmtest.StatusBody(400, apiError("invalid_request_error", "Your credit balance is too low to access the Anthropic API.")), code: llm.CodeQuotaExceeded, status: 400},
		"no more this month":    {reply: llmtest.StatusBody(400, apiError("invalid_request_error", "You have reached your specified API usage limits.")), code: llm.CodeQuotaExceeded, status: 400},
		"too long":              {reply: llmtest.StatusBody(400, apiError("invalid_request_error", "prompt is too long: 200082 tokens > 200000 maximum")), code: llm.CodeContextTooLong, status: 400},
		"too long with answer":  {reply: llmtest.StatusBody(400, apiError("invalid_request_error", "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000")), code: llm.CodeContextTooLong, status: 400},
		"filtered":              {reply: llmtest.StatusBody(400, apiError("invalid_request_error", "Output blocked by content filtering policy")), code: llm.CodeContentFiltered, status: 400},
		"message without words": {reply: llmtest.StatusBody(400, `{"type":"error","error":{"type":"invalid_request_error"}}`), code: llm.CodeInvalidRequest, status: 400, detail: "invalid_request_error"},
		"error as text":         {reply: llmtest.StatusBody(400, `{"error":"model is asleep"}`), code: llm.CodeInvalidRequest, status: 400, detail: "model is asleep"},
		"error as list":         {reply: llmtest.StatusBody(400, `[1]`), code: llm.CodeInvalidRequest, status: 400, detail: "[1]"},
		"error without a body":  {reply: llmtest.StatusBody(500, ""), code: llm.CodeUnavailable, status: 500, retryable: true},
		"id in the header":      {reply: llmtest.StatusBody(400, `{"error":{"type":"invalid_request_error","message":"no"}}`, "Request-Id", "req_7"), code: llm.CodeInvalidRequest, status: 400, detail: "request req_7: no"},
		"id in both":            {reply: llmtest.StatusBody(400, apiError("invalid_request_error", "no"), "Request-Id", "req_1"), code: llm.CodeInvalidRequest, status: 400, detail: "request req_1: no"},
		"huge error":            {reply: llmtest.StatusBody(400, strings.Repeat("x", 1<<20)), code: llm.CodeInvalidRequest, status: 400, detail: "xxx"},
		"the key is quoted":     {reply: llmtest.StatusBody(401, apiError("authentication_error", "invalid x-api-key: "+key)), code: llm.CodeUnauthorized, status: 401, detail: "invalid x-api-key: ***"},
		"redirect":              {reply: llmtest.StatusBody(307, "", "Location", "https://other.example/v1/messages?token=secret"), code: llm.CodeMalformedResponse, status: 307, detail: "redirect to https://other.example: check the base URL"},
		"not modified":          {reply: llmtest.StatusBody(304, ""), code: llm.CodeMalformedResponse, status: 304},

		"nothing at all":             {reply: llmtest.Reply{}, code: llm.CodeTruncatedStream, retryable: true},
		"only comments":              {reply: llmtest.Reply{llmtest.Comment("x")}, code: llm.CodeTruncatedStream, retryable: true},
		"only pings":                 {reply: llmtest.Reply{llmtest.Raw(data(`{"type":"ping"}`))}, code: llm.CodeTruncatedStream, retryable: true},
		"clean end in mid-stream":    {reply: half(), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"usage but no end marker":    {reply: half(llmtest.Usage(1, 1)), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"reason but no end marker":   {reply: half(llmtest.Finish("stop"), llmtest.Usage(1, 1)), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"cut after the reason":       {reply: half(llmtest.Finish("stop"), llmtest.Cut()), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"OpenAI's end marker":        {reply: half(llmtest.Data(`[]`)), code: llm.CodeMalformedResponse, text: "half"},
		"event cut off":              {reply: half(llmtest.Raw(`data: {"type":"content_bl`)), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"connection cut":             {reply: half(llmtest.Cut()), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"connection reset":           {reply: half(llmtest.Reset()), code: llm.CodeConnectionFailed, retryable: true, text: "*"},
		"reset before the answer":    {reply: llmtest.Reply{llmtest.Reset()}, code: llm.CodeConnectionFailed, retryable: true},
		"error in mid-stream":        {reply: half(llmtest.StreamError("boom "+key, "server_error"), llmtest.Done()), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "request req_fake: boom ***"},
		"overloaded in mid-stream":   {reply: broken("overloaded_error", "Overloaded"), code: llm.CodeOverloaded, retryable: true, text: "half", detail: "request req_1: Overloaded"},
		"rate limit in mid-stream":   {reply: broken("rate_limit_error", "slow down"), code: llm.CodeRateLimited, retryable: true, text: "half"},
		"API error in mid-stream":    {reply: broken("api_error", "Internal server error"), code: llm.CodeUnavailable, retryable: true, text: "half"},
		"timeout in mid-stream":      {reply: broken("timeout_error", "slow"), code: llm.CodeUnavailable, retryable: true, text: "half"},
		"refused in mid-stream":      {reply: broken("invalid_request_error", "bad"), code: llm.CodeInvalidRequest, text: "half"},
		"too large in mid-stream":    {reply: broken("request_too_large", "big"), code: llm.CodeInvalidRequest, text: "half"},
		"too long in mid-stream":     {reply: broken("invalid_request_error", "prompt is too long"), code: llm.CodeContextTooLong, text: "half"},
		"filtered in mid-stream":     {reply: broken("invalid_request_error", "Output blocked by content filtering policy"), code: llm.CodeContentFiltered, text: "half"},
		"key gone in mid-stream":     {reply: broken("authentication_error", "bad key"), code: llm.CodeUnauthorized, text: "half"},
		"no right in mid-stream":     {reply: broken("permission_error", "no"), code: llm.CodeUnauthorized, text: "half"},
		"no model in mid-stream":     {reply: broken("not_found_error", "no"), code: llm.CodeNotFound, text: "half"},
		"no money in mid-stream":     {reply: broken("billing_error", "pay"), code: llm.CodeQuotaExceeded, text: "half"},
		"unknown error":              {reply: broken("new_error", "huh"), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "huh"},
		"error event, plain":         {reply: half(llmtest.Raw("event: error\ndata: out of memory\n\n")), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "out of memory"},
		"error event without a type": {reply: half(llmtest.Raw("event: error\ndata: {\"error\":\"oops\"}\n\n")), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "oops"},
		"error not streamed":         {reply: llmtest.JSON(apiError("overloaded_error", "no")), code: llm.CodeOverloaded, retryable: true},
		"whole answer cut off":       {reply: llmtest.JSON(`{"content":[{"ty`), code: llm.CodeTruncatedStream, retryable: true},
		"whole without end":          {reply: llmtest.JSON(`{"content":[{"type":"text","text":"x"}]}`), code: llm.CodeTruncatedStream, retryable: true, text: "x"},
		"lines of JSON":              {reply: llmtest.JSON("{\"a\":1}\n{\"a\":2}\n"), code: llm.CodeMalformedResponse},
		"web page":                   {reply: llmtest.StatusBody(200, "\n<!doctype html>"), code: llm.CodeMalformedResponse, detail: "web page"},
		"no JSON":                    {reply: half(llmtest.Data("what?"), llmtest.Done()), code: llm.CodeMalformedResponse, text: "half"},
		"wrong JSON":                 {reply: half(llmtest.Data(`{"type":"content_block_delta","delta":7}`), llmtest.Done()), code: llm.CodeMalformedResponse, text: "half"},
		"10 MB line":                 {reply: half(llmtest.Raw("data: " + strings.Repeat("x", 10<<20))), code: llm.CodeResponseTooLarge, text: "half"},
		"10 MB comment":              {reply: half(llmtest.Raw(": " + strings.Repeat("x", 10<<20))), code: llm.CodeResponseTooLarge, text: "half"},
		"10 MB in lines":             {reply: half(llmtest.Raw(strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 10))), code: llm.CodeResponseTooLarge, text: "half"},
		"10 MB whole":                {reply: llmtest.JSON(`{"x":"` + strings.Repeat("x", 10<<20) + `"}`), code: llm.CodeResponseTooLarge},
		"10 MB of arguments":         {reply: half(llmtest.Raw(block(1, `{"type":"tool_use","id":"t","name":"x"}`) + strings.Repeat(input(1, strings.Repeat("x", 1<<20)), 10))), code: llm.CodeResponseTooLarge, text: "half"},
		"a tool without a name":      {reply: half(llmtest.Raw(block(1, `{"type":"tool_use","id":"t"}`))), code: llm.CodeMalformedResponse, text: "half"},
		"1,000 tool calls":           {reply: half(llmtest.Raw(manyCalls(1000))), code: llm.CodeResponseTooLarge, text: "half"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", tt.reply)
			r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), request("m"))
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

func manyCalls(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(block(i+1, fmt.Sprintf(`{"type":"tool_use","id":"t%d","name":"x"}`, i)) + blockEnd(i+1))
	}
	return b.String()
}

// TestUsageOfFailures shows that what the provider had said of tokens is not lost
// when the answer is, however it ends.
func TestUsageOfFailures(t *testing.T) {
	t.Parallel()
	begin := data(`{"type":"message_start","message":{"usage":{"input_tokens":3,"cache_creation_input_tokens":20,"cache_read_input_tokens":100,"output_tokens":1}}}`)
	prompt := llm.Usage{InputTokens: 123, CachedTokens: 100, CacheWriteTokens: 20, OutputTokens: 1}
	with := func(output, reasoning int64, estimated bool) *llm.Usage {
		u := prompt
		u.OutputTokens, u.ReasoningTokens, u.Estimated = output, reasoning, estimated
		return &u
	}
	words := text(`"twelve chars"`)
	thought := delta(0, `{"type":"thinking_delta","thinking":"eight ch"}`)
	tests := map[string]struct {
		body string
		want *llm.Usage
	}{
		"nothing was said":      {words, nil},
		"before any text":       {begin, with(1, 0, false)},
		"in mid-stream":         {begin + thought + words, with(5, 2, true)},
		"in a call of a tool":   {begin + block(0, `{"type":"tool_use","id":"abcd","name":"abcd"}`) + input(0, `{"a":1`), with(3, 0, true)},
		"after the last figure": {begin + words + data(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":50}}`), with(50, 0, false)},
		"nonsense was said":     {data(`{"type":"message_start","message":{"usage":{"input_tokens":-3}}}`) + words, nil},
	}
	ends := map[string]struct {
		step llmtest.Step
		code llm.Code
	}{
		"truncated": {llmtest.Tell(func() {}), llm.CodeTruncatedStream},
		"error":     {llmtest.StreamError("busy", llmtest.KindOverloaded), llm.CodeOverloaded},
		"cancelled": {llmtest.Stall(), llm.CodeCancelled},
		"idle":      {llmtest.Stall(), llm.CodeTimeoutIdle},
	}
	for name, tt := range tests {
		for how, end := range ends {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				fake := llmtest.NewServer(t)
				// One packet, so that the answer is there when the first chunk is.
				fake.Script("m", llmtest.Reply{llmtest.Raw(tt.body + data(`{"type":"ping","last":true}`)), end.step})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				chunks := 0
				var p llm.Provider = watch{provider(t, fake.Root), func(llm.Chunk) {
					if chunks++; how == "cancelled" && chunks == strings.Count(tt.body, "\n\n")+1 {
						cancel()
					}
				}}
				if how == "idle" {
					p = llm.Guard(p, llm.Deadlines{Idle: 100 * time.Millisecond})
				}
				r := llmtest.Collect(ctx, t, p, request("m"))
				e := (*llm.Error)(nil)
				if !errors.As(r.Err, &e) || e.Code != end.code {
					t.Fatalf("%+v", r)
				}
				if diff := cmp.Diff(tt.want, e.Usage, cmpopts.IgnoreFields(llm.Usage{}, "Raw")); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestByteCap(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text(strings.Split(strings.Repeat("word ", 100), " ")...))
	p := provider(t, fake.Root, func(c *anthropic.Config) { c.MaxBytes = 1000 })
	r := llmtest.Collect(t.Context(), t, p, request("m"))
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeResponseTooLarge || r.Text == "" {
		t.Errorf("%+v", r)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	p := provider(t, "http://127.0.0.1:1")
	r := llmtest.Collect(t.Context(), t, p, request("m"))
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeConnectionFailed || !e.Retryable || e.Detail == "" {
		t.Errorf("%+v", r)
	}
}
