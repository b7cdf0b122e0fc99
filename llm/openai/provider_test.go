package openai_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key is a canary: no error may contain it.
const key = "sk-canary-0123456789"

// provider returns a provider of the fake with its own connections, which are
// closed at the end of the test.
func provider(tb testing.TB, url string, change ...func(*openai.Config)) *openai.Provider {
	tb.Helper()
	client := llm.NewHTTPClient()
	tb.Cleanup(client.CloseIdleConnections)
	config := openai.Config{BaseURL: url, Key: key, Client: client}
	for _, f := range change {
		f(&config)
	}
	p, err := openai.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func request(model string) llm.Request {
	return llm.Request{Model: model, Messages: []llm.Message{{Role: llm.RoleUser, Text: "Hello"}}}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Otherwise(func(req llmtest.Request) llmtest.Reply {
		if req.Model == "missing" {
			return llmtest.StatusBody(http.StatusNotFound, `{"error":{"message":"no such model","type":"invalid_request_error","code":"model_not_found"}}`)
		}
		return llmtest.Echo(req)
	})
	p := provider(t, fake.URL)
	subject := llmtest.Subject{Provider: p, Model: "m", MissingModel: "missing"}
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		llmtest.Conform(t, subject)
	})
	t.Run("guarded", func(t *testing.T) {
		t.Parallel()
		subject.Provider = llm.Guard(p, llm.Deadlines{})
		llmtest.Conform(t, subject)
	})
}

func TestRequest(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("ok"))
	zero, seed := 0.0, int64(42)
	req := llm.Request{
		Model: "m",
		Messages: []llm.Message{
			{Role: llm.RoleSystem, Text: "Be <brief>."},
			{Role: llm.RoleUser, Text: "Hi"},
			{Role: llm.RoleAssistant, Text: ""},
			{Role: llm.RoleUser, Text: "世界"},
		},
		Temperature: &zero, TopP: new(float64), MaxTokens: 12, Stop: []string{"END"}, Seed: &seed,
		Schema: json.RawMessage(`{"type":"object","title":"T"}`),
	}
	*req.TopP = 0.123456789012
	p := provider(t, fake.URL)
	if r := llmtest.Collect(t.Context(), t, p, req); r.Err != nil {
		t.Fatal(r.Err)
	}
	const common = `"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0,"top_p":0.123456789012,"stop":["END"],"seed":42,
		"messages":[{"role":"system","content":"Be <brief>."},{"role":"user","content":"Hi"},{"role":"assistant","content":" "},{"role":"user","content":"世界"}],
		"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":false,"schema":{"type":"object","title":"T"}}}`
	call := fake.Calls()[0]
	sameJSON(t, `{`+common+`,"max_tokens":12}`, call.Body)
	if got := call.Header.Get("Authorization"); got != "Bearer "+key {
		t.Errorf("Authorization %q", got)
	}

	p = provider(t, fake.URL, func(c *openai.Config) { c.MaxCompletionTokens, c.Key = true, "" })
	if r := llmtest.Collect(t.Context(), t, p, req); r.Err != nil {
		t.Fatal(r.Err)
	}
	call = fake.Calls()[1]
	sameJSON(t, `{`+common+`,"max_completion_tokens":12}`, call.Body)
	if got := call.Header.Get("Authorization"); got != "" {
		t.Errorf("Authorization %q without a key", got)
	}

	// Models that go-openai has opinions about get what was asked for.
	fake.Script("o3-mini", llmtest.Text("ok"))
	req.Model = "o3-mini"
	if r := llmtest.Collect(t.Context(), t, p, req); r.Err != nil {
		t.Error(r.Err)
	}
	req.Temperature = new(float64)
	*req.Temperature = inf()
	r := llmtest.Collect(t.Context(), t, p, req)
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeInvalidRequest || fake.Count("") != 3 {
		t.Errorf("infinite temperature: %v", r.Err)
	}
}

func inf() float64 {
	x := 1e308
	return x * 10
}

func sameJSON(t *testing.T, want string, got []byte) {
	t.Helper()
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	type result struct {
		Text, Reasoning, FinishReason string
		Usage                         llm.Usage
		Repaired                      bool
	}
	// The prompt "Hello" and its frame are six tokens.
	estimated := func(output, reasoning int64) llm.Usage {
		return llm.Usage{InputTokens: 6, OutputTokens: output, ReasoningTokens: reasoning, Estimated: true}
	}
	delta := func(content string) string {
		return `data: {"choices":[{"index":0,"delta":{"content":` + content + `}}]}` + "\n\n"
	}
	const finish = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	tests := map[string]struct {
		reply llmtest.Reply
		want  result
	}{
		"usual": {
			llmtest.Text("Hello", ", world"),
			result{Text: "Hello, world", FinishReason: "stop", Usage: llm.Usage{InputTokens: 7, OutputTokens: 2}},
		},
		"empty": {
			llmtest.Reply{llmtest.Role(), llmtest.Finish("stop"), llmtest.Usage(3, 0), llmtest.Done()},
			result{FinishReason: "stop", Usage: llm.Usage{InputTokens: 3}},
		},
		"usage in detail": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.UsageDetails(100, 50, 80, 40), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: llm.Usage{InputTokens: 100, OutputTokens: 50, CachedTokens: 80, ReasoningTokens: 40}},
		},
		"no usage": {
			llmtest.Reply{llmtest.Delta("twelve chars"), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "twelve chars", FinishReason: "stop", Usage: estimated(3, 0)},
		},
		"usage of zeros": {
			llmtest.Reply{llmtest.Delta("twelve chars"), llmtest.Finish("stop"), llmtest.Usage(0, 0), llmtest.Done()},
			result{Text: "twelve chars", FinishReason: "stop", Usage: estimated(3, 0)},
		},
		"negative usage": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.Usage(-5, 3), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"unreadable usage": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Data(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":"many"}}`), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"usage on every chunk": {
			llmtest.Reply{
				llmtest.Data(`{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`),
				llmtest.Data(`{"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`),
				llmtest.Done(),
			},
			result{Text: "ab", FinishReason: "stop", Usage: llm.Usage{InputTokens: 1, OutputTokens: 2}},
		},
		"reasoning_content": {
			llmtest.Reply{llmtest.Reasoning("think"), llmtest.Delta("say"), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "say", Reasoning: "think", FinishReason: "stop", Usage: estimated(3, 2)},
		},
		"reasoning": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":0,"delta":{"reasoning":"hm","content":""}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Reasoning: "hm", FinishReason: "stop", Usage: estimated(1, 1)},
		},
		"reasoning in both fields": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":0,"delta":{"reasoning":"hm","reasoning_content":"hm"}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Reasoning: "hm", FinishReason: "stop", Usage: estimated(1, 1)},
		},
		"content in parts": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[]},{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "ab", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"refusal": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":0,"delta":{"refusal":"I cannot."}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "I cannot.", FinishReason: "stop", Usage: estimated(3, 0)},
		},
		"length": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("length"), llmtest.Done()},
			result{Text: "x", FinishReason: "length", Usage: estimated(1, 0)},
		},
		"content filter": {
			llmtest.Reply{llmtest.Finish("content_filter"), llmtest.Done()},
			result{FinishReason: "content_filter", Usage: estimated(0, 0)},
		},
		"finish reason that cannot be stored": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("st\x00op"), llmtest.Done()},
			result{Text: "x", FinishReason: "st\uFFFDop", Usage: estimated(1, 0)},
		},
		"two finish reasons": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.Finish("length"), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"finish reason without [DONE]": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop")},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"broken after the finish reason": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.Cut()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"[DONE] without finish reason": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Done()},
			result{Text: "x", FinishReason: "unknown", Usage: estimated(1, 0)},
		},
		"error after the finish reason": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.StreamError("late", "server_error"), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"several choices": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"stop"},{"index":0,"delta":{"content":"a"}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "a", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"not streamed": {
			llmtest.JSON(` {"choices":[{"index":0,"message":{"role":"assistant","content":"whole"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`),
			result{Text: "whole", FinishReason: "stop", Usage: llm.Usage{InputTokens: 3, OutputTokens: 1}},
		},
		"comments and other fields": {
			llmtest.Reply{llmtest.Raw(": hi\n\nid: 4\nretry: 10\nevent: x\n\n"), llmtest.Delta("x"), llmtest.Comment(strings.Repeat("ping", 1000)), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"CR only": {
			llmtest.Reply{llmtest.Raw(strings.ReplaceAll(delta(`"a"`)+delta(`"b"`)+finish+"data: [DONE]\n\n", "\n", "\r"))},
			result{Text: "ab", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"CRLF split between packets": {
			llmtest.Reply{llmtest.Raw("data: {\"choices\":\r"), llmtest.Raw("\ndata: [{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\r"), llmtest.Raw("\n\r"), llmtest.Raw("\n"), llmtest.Done()},
			result{Text: "a", FinishReason: "unknown", Usage: estimated(1, 0)},
		},
		"byte order mark": {
			llmtest.Reply{llmtest.Raw("\uFEFF" + delta(`"a"`) + finish)},
			result{Text: "a", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"no space after the colon": {
			llmtest.Reply{llmtest.Raw("data:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata:[DONE]\n\n")},
			result{Text: "a", FinishReason: "unknown", Usage: estimated(1, 0)},
		},
		"end without a blank line": {
			llmtest.Reply{llmtest.Raw(delta(`"a"`) + "data: [DONE]")},
			result{Text: "a", FinishReason: "unknown", Usage: estimated(1, 0)},
		},
		"character split between packets": {
			llmtest.Reply{llmtest.Raw("data: {\"choices\":[{\"delta\":{\"content\":\"\xe4\xb8"), llmtest.Raw("\x96\"}}]}\n\n"), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "世", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"character split between chunks": {
			llmtest.Reply{llmtest.Raw(delta("\"a\xe4\"") + delta("\"\xb8\"") + delta("\"\x96b\"") + finish)},
			result{Text: "a世b", FinishReason: "stop", Usage: estimated(2, 0)},
		},
		"surrogates split between chunks": {
			llmtest.Reply{llmtest.Raw(delta(`"a\ud83c"`) + delta(`"\udf0db"`) + finish)},
			result{Text: "a\U0001F30Db", FinishReason: "stop", Usage: estimated(2, 0)},
		},
		"character never completed": {
			llmtest.Reply{llmtest.Raw(delta("\"a\xe4\xb8\"") + finish)},
			result{Text: "a\uFFFD", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
		"character never completed, [DONE] only": {
			llmtest.Reply{llmtest.Raw(delta("\"a\xe4\xb8\"")), llmtest.Done()},
			result{Text: "a\uFFFD", FinishReason: "unknown", Usage: estimated(2, 0), Repaired: true},
		},
		"broken UTF-8": {
			llmtest.Reply{llmtest.Raw(delta("\"a\xffb\"") + finish)},
			result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
		"NUL as an escape": {
			llmtest.Reply{llmtest.Delta("a\x00b"), llmtest.Finish("stop")},
			result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
		"raw NUL": {
			llmtest.Reply{llmtest.Raw(delta("\"a\x00b\"") + finish)},
			result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
		"lone surrogate": {
			llmtest.Reply{llmtest.Raw(delta(`"a\ud83cb"`) + finish)},
			result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", tt.reply)
			r := llmtest.Collect(t.Context(), t, provider(t, fake.URL), request("m"))
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			got := result{r.Text, r.Reasoning, r.FinishReason, *r.Usage, r.Repaired}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

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

// TestHangUp shows that the server sees the connection close as soon as a call is
// given up, in every way and at every point of an answer.
func TestHangUp(t *testing.T) {
	t.Parallel()
	points := map[string]llmtest.Reply{
		"before the head":       {llmtest.Stall()},
		"before the first byte": {llmtest.Head(), llmtest.Stall()},
		"in mid-stream":         {llmtest.Role(), llmtest.Delta("half"), llmtest.Stall()},
	}
	for name, reply := range points {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", reply)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan llmtest.Result, 1)
			go func() {
				ended <- llmtest.Collect(ctx, t, provider(t, fake.URL), request("m"))
			}()
			call := awaitCall(t, fake)
			cancel()
			within(t, call.Gone)
			if r := <-ended; !errors.Is(r.Err, context.Canceled) {
				t.Errorf("ended with %v", r.Err)
			}
		})
	}
	t.Run("left the loop", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		fake.Script("m", points["in mid-stream"])
		for chunk, err := range provider(t, fake.URL).Stream(t.Context(), request("m")) {
			if err != nil {
				t.Fatal(err)
			}
			if chunk.Text == "half" {
				break
			}
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("idle deadline", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		fake.Script("m", points["in mid-stream"])
		p := llm.Guard(provider(t, fake.URL), llm.Deadlines{Idle: 20 * time.Millisecond})
		r := llmtest.Collect(t.Context(), t, p, request("m"))
		if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeTimeoutIdle || r.Text != "half" {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("first byte deadline", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		// Comments are no sign of life of the model.
		fake.Script("m", llmtest.Reply{llmtest.Head(), llmtest.Comment("queued"), llmtest.Stall()})
		p := llm.Guard(provider(t, fake.URL), llm.Deadlines{FirstByte: 20 * time.Millisecond})
		r := llmtest.Collect(t.Context(), t, p, request("m"))
		if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeTimeoutFirstByte {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("finished, but the server holds on", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		fake.Script("m", append(llmtest.Text("all"), llmtest.Stall()))
		r := llmtest.Collect(t.Context(), t, provider(t, fake.URL), request("m"))
		if r.Err != nil || r.Text != "all" {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
}

func awaitCall(t *testing.T, fake *llmtest.Server) *llmtest.Call {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	call, err := fake.Await(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	return call
}

// within waits a second, the promise of how fast a connection is closed.
func within(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Second):
		t.Error("the server did not see the connection close within a second")
	}
}

// TestGates shows that text is passed on as it comes, not at the end.
func TestGates(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	gate := make(chan struct{})
	fake.Script("m", llmtest.Reply{
		llmtest.Delta("one"), llmtest.Gate(gate), llmtest.Delta("two"), llmtest.Gate(gate), llmtest.Finish("stop"), llmtest.Done(),
	})
	var got []string
	for chunk, err := range provider(t, fake.URL).Stream(t.Context(), request("m")) {
		if err != nil {
			t.Fatal(err)
		}
		if chunk.Text != "" {
			got = append(got, chunk.Text)
			gate <- struct{}{}
		}
	}
	if diff := cmp.Diff([]string{"one", "two"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestConnectionReuse shows that finished answers leave their connection for the
// next call.
func TestConnectionReuse(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("ok"))
	fake.Script("bad", llmtest.Status(400))
	dials := 0
	client := llm.NewHTTPClient()
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("transport is a %T", client.Transport)
	}
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return dial(ctx, network, addr)
	}
	t.Cleanup(client.CloseIdleConnections)
	p := provider(t, fake.URL, func(c *openai.Config) { c.Client = client })
	for range 20 {
		if r := llmtest.Collect(t.Context(), t, p, request("m")); r.Err != nil {
			t.Fatal(r.Err)
		}
		if r := llmtest.Collect(t.Context(), t, p, request("bad")); r.Err == nil {
			t.Fatal("no error")
		}
	}
	if dials != 1 {
		t.Errorf("%d connections for 40 calls", dials)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	client := &http.Client{}
	tests := map[string]struct {
		config openai.Config
		ok     bool
	}{
		"OpenAI itself":  {openai.Config{Client: client}, true},
		"Ollama":         {openai.Config{BaseURL: "http://127.0.0.1:11434/v1/", Client: client}, true},
		"no client":      {openai.Config{}, false},
		"no scheme":      {openai.Config{BaseURL: "127.0.0.1:11434", Client: client}, false},
		"wrong scheme":   {openai.Config{BaseURL: "ftp://x/v1", Client: client}, false},
		"no host":        {openai.Config{BaseURL: "http:///v1", Client: client}, false},
		"broken":         {openai.Config{BaseURL: "http://u:secret@%zz/", Client: client}, false},
		"key of 2 lines": {openai.Config{Key: "sk-a\nsk-b", Client: client}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := openai.New(tt.config)
			if (err == nil) != tt.ok {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("password in %q", err)
			}
		})
	}
}

// bodyTransport answers every request by a body, without a network.
type bodyTransport []byte

func (b bodyTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     http.Header{},
		Body:       io.NopCloser(strings.NewReader(string(b))),
	}, nil
}

// silentTransport answers by a body that then stays open without a word.
type silentTransport string

func (s silentTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	silence := silentBody{ctx: req.Context()}
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     http.Header{},
		Body:       io.NopCloser(io.MultiReader(strings.NewReader(string(s)), silence)),
	}, nil
}

type silentBody struct{ ctx context.Context }

func (s silentBody) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// TestSilence shows what a connection that stays open means: before the finish
// reason a deadline decides, after it the answer is complete.
func TestSilence(t *testing.T) {
	t.Parallel()
	const text = `data: {"choices":[{"delta":{"content":"all"}}]}` + "\n\n"
	const finish = `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	tests := map[string]struct {
		body   string
		limits llm.Deadlines
		code   llm.Code
		took   time.Duration
	}{
		"in mid-stream":            {text, llm.Deadlines{Idle: 30 * time.Second}, llm.CodeTimeoutIdle, 30 * time.Second},
		"before the first byte":    {"", llm.Deadlines{FirstByte: 30 * time.Second}, llm.CodeTimeoutFirstByte, 30 * time.Second},
		"in the middle of a line":  {text + "data: {", llm.Deadlines{Total: 40 * time.Second}, llm.CodeTimeoutTotal, 40 * time.Second},
		"after the finish reason":  {text + finish, llm.Deadlines{Idle: 30 * time.Second}, "", 5 * time.Second},
		"and a deadline before":    {text + finish, llm.Deadlines{Idle: time.Second}, "", time.Second},
		"after the end of it all":  {text + finish + "data: [DONE]\n\n", llm.Deadlines{}, "", 50 * time.Millisecond},
		"after [DONE] and no more": {text + "data: [DONE]\n\n", llm.Deadlines{}, "", 50 * time.Millisecond},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := provider(t, "http://silent.invalid", func(c *openai.Config) {
					c.Client = &http.Client{Transport: silentTransport(tt.body)}
				})
				start := time.Now()
				r := llmtest.Collect(t.Context(), t, llm.Guard(p, tt.limits), request("m"))
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				var code llm.Code
				if e := (*llm.Error)(nil); errors.As(r.Err, &e) {
					code = e.Code
				}
				if code != tt.code || (tt.body != "" && r.Text != "all") {
					t.Errorf("text %q, code %q, want %q", r.Text, code, tt.code)
				}
			})
		})
	}
}

// FuzzBody feeds arbitrary bodies; Collect checks what always holds.
func FuzzBody(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\ud83c\"}}]}\r\n\r\ndata: [DONE]\n\n"))
	f.Add([]byte("\xef\xbb\xbfevent: error\rdata: {\"error\":{\"message\":[\"x\"],\"code\":429}}\r\r"))
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"\xe4\xb8\"},\"finish_reason\":\"stop\"}],\"usage\":{}}"))
	f.Add([]byte(` {"choices":[{"message":{"content":[{"type":"text","text":"a"}]},"finish_reason":"x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p := provider(t, "http://fuzz.invalid", func(c *openai.Config) { c.Client = &http.Client{Transport: bodyTransport(body)} })
		llmtest.Collect(t.Context(), t, p, request("m"))
	})
}

// FuzzContent shows that any text, split anywhere, arrives as one would expect.
func FuzzContent(f *testing.F) {
	f.Add("plain", 2)
	f.Add("世界 \U0001F30D \"quoted\" \\ \n\u2028", 1)
	f.Add("a\x00\xff\xed\xa0\x80", 3)
	f.Fuzz(func(t *testing.T, text string, at int) {
		at = min(max(at, 0), len(text))
		var body strings.Builder
		for _, piece := range []string{text[:at], text[at:]} {
			// JSON that keeps every byte, as a careless server writes it.
			quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(piece)
			for c := rune(1); c < 0x20; c++ {
				quoted = strings.ReplaceAll(quoted, string(c), `\u00`+string("01"[c>>4])+string("0123456789abcdef"[c&15]))
			}
			body.WriteString(`data: {"choices":[{"delta":{"content":"` + quoted + "\"}}]}\n\n")
		}
		body.WriteString("data: [DONE]\n\n")
		p := provider(t, "http://fuzz.invalid", func(c *openai.Config) {
			c.Client = &http.Client{Transport: bodyTransport(body.String())}
		})
		r := llmtest.Collect(t.Context(), t, p, request("m"))
		var repairer llm.Repairer
		want, _ := repairer.Text(text)
		tail, _ := repairer.Flush()
		if r.Err != nil || r.Text != want+tail {
			t.Errorf("%q arrived as %q, want %q; error %v", text, r.Text, want+tail, r.Err)
		}
	})
}

// BenchmarkStream measures the whole way of a chunk: the fake encodes it, a
// loopback connection carries it, the provider decodes it.
func BenchmarkStream(b *testing.B) {
	fake := llmtest.NewServer(b)
	const chunks = 1000
	fake.Script("m", llmtest.Text(strings.SplitAfter(strings.Repeat("word ", chunks), " ")...))
	p := provider(b, fake.URL)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n += drain(b, p)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/chunk")
}

// BenchmarkDecode measures the provider alone, without network and server.
func BenchmarkDecode(b *testing.B) {
	const chunks = 1000
	body := strings.Repeat(`data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4.1-mini","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}`+"\n\n", chunks)
	body += "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
	p := provider(b, "http://bench.invalid", func(c *openai.Config) { c.Client = &http.Client{Transport: bodyTransport(body)} })
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	n := 0
	for b.Loop() {
		n += drain(b, p)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/chunk")
}

func drain(b *testing.B, p llm.Provider) int {
	n := 0
	for _, err := range p.Stream(b.Context(), request("m")) {
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	return n
}
