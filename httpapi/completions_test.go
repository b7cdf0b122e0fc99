package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
	"github.com/chainstream/chainstream/postgres"
)

// patience is how long a test waits for what comes at once.
const patience = time.Minute

// withFake is a setup whose provider "openai" is a fake server.
func withFake(t *testing.T, change func(*httpapi.Config)) (setup, *llmtest.Server) {
	t.Helper()
	fake := llmtest.NewServer(t)
	provider, err := openai.New(openai.Config{BaseURL: fake.URL, Client: llm.NewHTTPClient()})
	if err != nil {
		t.Fatal(err)
	}
	return setup{workers: 10, models: map[string]llm.Entry{"openai": {Provider: provider, Label: "OpenAI", Models: []string{"gpt-4.1-mini"}}}, config: change}, fake
}

// ask is a call of the chat completions.
func ask(body string) call {
	return call{method: "POST", path: "/v1/chat/completions", body: body}
}

func hello(model, more string) string {
	return `{"model": "` + model + `", "messages": [{"role": "user", "content": "Hi"}]` + more + `}`
}

// lines reads a stream of an answer to its end.
func (f *feed) lines() []string {
	f.t.Helper()
	var list []string
	for b := f.block(); b != ""; b = f.block() {
		list = append(list, strings.TrimSuffix(b, "\n\n"))
	}
	return list
}

// chunk is what a test reads of a piece of an answer.
type chunk struct {
	Choices []struct {
		Delta struct {
			Role, Content string
			Reasoning     string `json:"reasoning_content"`
		}
		Finish string `json:"finish_reason"`
	}
	Error *struct{ Message, Type, Code string }
}

func parseChunk(t *testing.T, line string) (c chunk) {
	t.Helper()
	data, ok := strings.CutPrefix(line, "data: ")
	if !ok {
		t.Fatalf("no data: %q", line)
	}
	if err := json.Unmarshal([]byte(data), &c); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	return c
}

// said puts the text of a stream together.
func said(t *testing.T, lines []string) string {
	t.Helper()
	var b strings.Builder
	for _, l := range lines {
		if l == "data: [DONE]" || strings.HasPrefix(l, ":") {
			continue
		}
		for _, choice := range parseChunk(t, l).Choices {
			b.WriteString(choice.Delta.Content)
		}
	}
	return b.String()
}

var created = regexp.MustCompile(`"created":\d+`)

// until waits for an event of an execution.
func (a *api) until(id int64, wanted func(events.Frame) bool) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	sub, err := a.broker.Subscribe(ctx, id, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	defer sub.Close()
	for {
		frames, err := sub.Next(ctx)
		if err != nil {
			a.t.Fatalf("follow execution %d: %v", id, err)
		}
		if slices.ContainsFunc(frames, wanted) {
			return
		}
	}
}

// ended waits until an execution has ended.
func (a *api) ended(id int64) executor.Execution {
	a.t.Helper()
	a.until(id, func(e events.Frame) bool { return e.Type.Terminal() })
	ex, err := a.store.Execution(a.t.Context(), id)
	if err != nil {
		a.t.Fatal(err)
	}
	return ex
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s did not happen", what)
	}
}

// The answers of one model, whole and as a stream, are exactly OpenAI's form, and
// each is an execution with a log.
func TestCompletionForm(t *testing.T) {
	t.Parallel()
	s, fake := withFake(t, nil)
	fake.Script("m", llmtest.Reply{
		llmtest.Role(), llmtest.Reasoning("Hm. "), llmtest.Delta("High "), llmtest.Delta("tide <&>\u2028"),
		llmtest.Finish(llm.FinishLength), llmtest.UsageDetails(11, 7, 4, 2), llmtest.Done(),
	})
	a := newAPI(t, s)
	whole := a.do(ask(hello("openai/m", ""))).want(http.StatusOK)
	golden(t, "v1/whole.json", created.ReplaceAllString(string(whole.body), `"created":0`))
	id := whole.header.Get("X-Execution-Id")
	if id != "1" || whole.header.Get("Link") != `</events/1>; rel="monitor"` || whole.header.Get("X-Request-Id") == "" {
		t.Errorf("header: %v", whole.header)
	}
	detail := a.do(call{method: "GET", path: "/api/v1/executions/" + id}).want(http.StatusOK).object()
	if detail["status"] != "completed" || detail["chainName"] != "_direct" {
		t.Errorf("execution: %v", detail)
	}
	if list, _ := a.do(call{method: "GET", path: "/api/v1/executions?chain=_direct"}).object()["items"].([]any); len(list) != 1 {
		t.Errorf("the list has %d executions", len(list))
	}

	// The pieces come as they are stored; how many there are is the clock's.
	f := a.open(ask(hello("openai/m", `, "stream": true, "stream_options": {"include_usage": true}`)))
	if h := f.res.Header; h.Get("X-Execution-Id") != "2" || h.Get("X-Accel-Buffering") != "no" || h.Get("Connection") == "close" {
		t.Errorf("header of the stream: %v", h)
	}
	var first, rest []string
	reasoning, text := "", ""
	for _, l := range f.lines() {
		if l != "data: [DONE]" {
			if c := parseChunk(t, l); len(c.Choices) > 0 && (c.Choices[0].Delta.Content != "" || c.Choices[0].Delta.Reasoning != "") {
				reasoning += c.Choices[0].Delta.Reasoning
				text += c.Choices[0].Delta.Content
				first = append(first, l)
				continue
			}
		}
		rest = append(rest, l)
	}
	golden(t, "v1/frame.txt", created.ReplaceAllString(strings.Join(rest, "\n"), `"created":0`))
	if reasoning != "Hm. " || text != "High tide <&>\u2028" {
		t.Errorf("reasoning %q, text %q", reasoning, text)
	}
	form := regexp.MustCompile(`^data: \{"id":"chatcmpl-2","object":"chat.completion.chunk","created":\d+,"model":"openai/m","choices":\[\{"index":0,"delta":\{"(content|reasoning_content)":"[^"]*"\},"logprobs":null,"finish_reason":null\}\],"usage":null\}$`)
	for _, l := range first {
		if !form.MatchString(l) {
			t.Errorf("a piece is %s", l)
		}
	}
	if short := a.open(ask(hello("openai/m", `, "stream": true`))).lines(); strings.Contains(strings.Join(short, ""), "usage") {
		t.Errorf("usage that was not asked for: %v", short)
	}
}

// A model is asked all that the request says, its tool calls come back, and the
// results of tools go to it.
func TestCompletionWithTools(t *testing.T) {
	t.Parallel()
	r := &listener{chunks: []llm.Chunk{
		{ToolCalls: []llm.ToolCall{{ID: "c1", Name: "add", Arguments: `{"a":1}`, Signature: "c2ln"}, {ID: "c2", Name: "add", Arguments: ""}}},
		{FinishReason: llm.FinishToolCalls, Usage: &llm.Usage{InputTokens: 3, OutputTokens: 2}},
	}}
	a := newAPI(t, setup{workers: 5, models: map[string]llm.Entry{"test": {Provider: r}}})
	body := `{"model": "test/some/model", "temperature": 0, "top_p": 0.5, "max_tokens": 9, "max_completion_tokens": 7, "stop": "END", "seed": -5,
		"reasoning_effort": "low", "parallel_tool_calls": false, "tool_choice": {"type": "function", "function": {"name": "add"}},
		"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": {"type": "object", "properties": {"z": {}, "a": {}}}}},
		"tools": [{"type": "function", "function": {"name": "add", "description": "Adds", "strict": true, "parameters": {"type": "object", "properties": {"b": {}, "a": {}}}}}],
		"user": "u-1", "store": false, "metadata": {"customer": "7"}, "service_tier": "auto", "unknown": {"x": 1}, "n": 1, "logprobs": false, "presence_penalty": 0,
		"messages": [
			{"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
			{"role": "user", "name": "ann", "content": [{"type": "text", "text": "Look."}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
				{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAH/"}}]},
			{"role": "assistant", "content": null, "tool_calls": [{"id": "c0", "type": "function", "function": {"name": "add", "arguments": "{\"a\":2}"}, "extra_content": {"google": {"thought_signature": "b2xk"}}}]},
			{"role": "tool", "tool_call_id": "c0", "content": "3"}
		]`
	got := a.do(ask(body + "}")).want(http.StatusOK)
	golden(t, "v1/tools.json", created.ReplaceAllString(string(got.body), `"created":0`))
	temperature, topP, seed, parallel := 0.0, 0.5, int64(-5), false
	want := llm.Request{
		Model: "some/model",
		Messages: []llm.Message{
			{Role: llm.RoleSystem, Text: "Be brief."},
			{Role: llm.RoleUser, Text: "Look.", Images: []llm.Image{{URL: "https://example.com/a.png", Detail: "low"}, {MIMEType: "image/png", Data: []byte{0, 1, 255}}}},
			{Role: llm.RoleAssistant, ToolCalls: []llm.ToolCall{{ID: "c0", Name: "add", Arguments: `{"a":2}`, Signature: "b2xk"}}},
			{Role: llm.RoleTool, Text: "3", ToolCallID: "c0"},
		},
		Temperature: &temperature, TopP: &topP, MaxTokens: 7, Stop: []string{"END"}, Seed: &seed, Effort: "low",
		Schema:     json.RawMessage(`{"type":"object","properties":{"z":{},"a":{}}}`),
		Tools:      []llm.Tool{{Name: "add", Description: "Adds", Strict: true, Parameters: json.RawMessage(`{"type":"object","properties":{"b":{},"a":{}}}`)}},
		ToolChoice: "add", ParallelTools: &parallel,
	}
	if diff := cmp.Diff(want, r.last()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	ex := a.ended(1)
	if diff := cmp.Diff(`{"user": "u-1", "store": false, "customer": "7"}`, string(ex.Metadata)); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	for _, query := range []string{"", "?atSeq=" + strconv.FormatInt(ex.LastSeq, 10)} {
		detail := a.do(call{method: "GET", path: "/api/v1/executions/1" + query}).want(http.StatusOK).object()
		asked, _ := detail["call"].(map[string]any)
		messages, _ := asked["messages"].([]any)
		prompts, _ := detail["prompts"].([]any)
		wanted := []any{map[string]any{"id": "c1", "name": "add", "arguments": `{"a":1}`, "signature": "c2ln"}, map[string]any{"id": "c2", "name": "add", "arguments": ""}}
		if len(messages) != 4 || len(prompts) != 1 {
			t.Fatalf("execution%s: %v", query, detail)
		}
		if prompt, _ := prompts[0].(map[string]any); !cmp.Equal(any(wanted), prompt["toolCalls"]) {
			t.Errorf("prompt%s: %v", query, prompt)
		}
	}
	streamed := strings.Join(a.open(ask(body+`, "stream": true}`)).lines(), "\n")
	golden(t, "v1/tools.txt", created.ReplaceAllString(streamed, `"created":0`))
}

// Every provider's failure has the status and the code that OpenAI's clients know,
// whole and in a stream that has not begun; clients are told not to make more
// attempts of it.
func TestCompletionFailures(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{workers: 5, models: map[string]llm.Entry{"test": {Provider: failing{}}}})
	for code, want := range map[llm.Code]string{
		llm.CodeRateLimited: "429 rate_limit_error rate_limit_exceeded", llm.CodeQuotaExceeded: "429 insufficient_quota insufficient_quota",
		llm.CodeOverloaded: "503 server_error overloaded", llm.CodeUnavailable: "502 server_error unavailable",
		llm.CodeUnauthorized: "502 server_error provider_unauthorized", llm.CodeNotFound: "404 invalid_request_error model_not_found",
		llm.CodeInvalidRequest: "400 invalid_request_error invalid_request", llm.CodeContextTooLong: "400 invalid_request_error context_length_exceeded",
		llm.CodeContentFiltered: "400 invalid_request_error content_filter", llm.CodeConnectionFailed: "502 server_error connection_failed",
		llm.CodeTruncatedStream: "502 server_error truncated_stream", llm.CodeTimeoutFirstByte: "504 server_error timeout_first_byte",
		llm.CodeTimeoutIdle: "504 server_error timeout_idle", llm.CodeTimeoutTotal: "504 server_error timeout_total",
		llm.CodeResponseTooLarge: "502 server_error response_too_large", llm.CodeMalformedResponse: "502 server_error malformed_response",
		llm.CodeCircuitOpen: "503 server_error circuit_open", llm.CodeUnexpectedToolCall: "502 server_error unexpected_tool_call",
		"output_truncated": "502 server_error output_truncated", "unknown_price": "400 invalid_request_error unknown_price",
		"budget_exceeded": "429 insufficient_quota insufficient_quota", "of_tomorrow": "500 server_error of_tomorrow",
	} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			for _, more := range []string{"", `, "stream": true`} {
				got := a.do(ask(hello("test/"+string(code), more)))
				var e struct{ Error struct{ Type, Code string } }
				got.decode(&e)
				if is := fmt.Sprintf("%d %s %s", got.status, e.Error.Type, e.Error.Code); is != want || got.header.Get("X-Should-Retry") != "false" || got.header.Get("X-Execution-Id") == "" {
					t.Errorf("stream %q: %s, want %s; %v", more, is, want, got.header)
				}
			}
		})
	}
}

// A failure after a part of the answer was sent comes in the stream, which then
// ends without its end marker.
func TestCompletionFailsInTheMiddle(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	s, fake := withFake(t, nil)
	fake.Script("m", llmtest.Reply{llmtest.Role(), llmtest.Delta("Once "), llmtest.Gate(gate), llmtest.StreamError("filtered", "content_filter")})
	a := newAPI(t, s)
	f := a.open(ask(hello("openai/m", `, "stream": true`)))
	f.block() // the role
	if c := parseChunk(t, strings.TrimSpace(f.block())); c.Choices[0].Delta.Content != "Once " {
		t.Fatalf("first piece: %+v", c)
	}
	close(gate)
	rest := f.lines()
	if len(rest) != 1 {
		t.Fatalf("rest: %q", rest)
	}
	if e := parseChunk(t, rest[0]).Error; e == nil || e.Code != "content_filter" || e.Type != "invalid_request_error" || e.Message == "" {
		t.Errorf("error: %+v", e)
	}
}

// While nothing was sent, another attempt is nobody's business. What was sent is
// never taken back: an attempt that says the same is followed on, one that says
// something else ends the stream with an error, and the execution with it.
func TestCompletionRestarts(t *testing.T) {
	t.Parallel()
	s, fake := withFake(t, nil)
	broken := func(shown string, gate chan struct{}) llmtest.Reply {
		return llmtest.Reply{llmtest.Role(), llmtest.Delta(shown), llmtest.Gate(gate), llmtest.Cut()}
	}
	gates := map[string]chan struct{}{"same": make(chan struct{}), "other": make(chan struct{}), "shorter": make(chan struct{})}
	fake.Script("silent", llmtest.Status(503), llmtest.Status(529), llmtest.Text("All ", "good."))
	fake.Script("same", broken("All ", gates["same"]), llmtest.Text("A", "ll", " is good."))
	stalled := llmtest.Reply{llmtest.Role(), llmtest.Delta("Another"), llmtest.Stall()}
	fake.Script("other", broken("All ", gates["other"]), stalled)
	fake.Script("shorter", broken("All ", gates["shorter"]), llmtest.Text("A"))
	a := newAPI(t, s)
	if text := said(t, a.open(ask(hello("openai/silent", `, "stream": true`))).lines()); text != "All good." {
		t.Errorf("after silent attempts: %q", text)
	}
	for model, want := range map[string]string{"same": "All is good.", "other": "All ", "shorter": "All "} {
		f := a.open(ask(hello("openai/"+model, `, "stream": true`)))
		lines := []string{strings.TrimSpace(f.block()), strings.TrimSpace(f.block())}
		close(gates[model])
		lines = append(lines, f.lines()...)
		if got := said(t, lines); got != want {
			t.Errorf("%s: %q", model, got)
		}
		last := lines[len(lines)-1]
		if model == "same" {
			if last != "data: [DONE]" {
				t.Errorf("%s ends with %q", model, last)
			}
			continue
		}
		if e := parseChunk(t, last).Error; e == nil || e.Code != "answer_restarted" || e.Type != "server_error" {
			t.Errorf("%s ends with %q", model, last)
		}
		if model == "other" {
			id, _ := strconv.ParseInt(f.res.Header.Get("X-Execution-Id"), 10, 64)
			if ex := a.ended(id); ex.Status != executor.StatusCancelled {
				t.Errorf("the execution is %s", ex.Status)
			}
		}
	}
}

// A client that leaves ends the execution, and with it the call of the model,
// unless it says otherwise; also while it waits in the queue.
func TestCompletionDisconnect(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{true, false} {
		for _, goesOn := range []bool{false, true} {
			t.Run(fmt.Sprintf("stream=%t,continue=%t", stream, goesOn), func(t *testing.T) {
				t.Parallel()
				gate := make(chan struct{})
				s, fake := withFake(t, nil)
				fake.Script("m", llmtest.Reply{llmtest.Role(), llmtest.Delta("Once "), llmtest.Gate(gate), llmtest.Delta("more"), llmtest.Finish("stop"), llmtest.Usage(1, 2), llmtest.Done()})
				a := newAPI(t, s)
				c := ask(hello("openai/m", `, "stream": `+strconv.FormatBool(stream)))
				if goesOn {
					c.header = map[string]string{"X-Chainstream-On-Disconnect": "continue"}
				}
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				done := make(chan error, 1)
				go func() {
					res, err := a.client.Do(a.request(c).WithContext(ctx))
					if err == nil {
						_, err = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					done <- err
				}()
				call, err := fake.Await(t.Context(), 1)
				if err != nil {
					t.Fatal(err)
				}
				leave()
				if err := <-done; err == nil {
					t.Fatal("the client did not leave")
				}
				if goesOn {
					close(gate)
					if ex := a.ended(1); ex.Status != executor.StatusCompleted || ex.OutputTokens != 2 {
						t.Errorf("execution: %+v", ex)
					}
					return
				}
				await(t, call.Gone, "the end of the provider's connection")
				if ex := a.ended(1); ex.Status != executor.StatusCancelled {
					t.Errorf("execution: %+v", ex)
				}
			})
		}
	}
	t.Run("queued", func(t *testing.T) {
		t.Parallel()
		a := newAPI(t, setup{config: func(c *httpapi.Config) { c.Heartbeat = 5 * time.Millisecond }})
		ctx, leave := context.WithCancel(t.Context())
		res, err := a.client.Do(a.request(ask(hello("offline/echo", `, "stream": true`))).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(res.Body).ReadString('\n')
		if err != nil || line != ": ping\n" {
			t.Errorf("%q, %v", line, err)
		}
		leave()
		res.Body.Close()
		if ex := a.ended(1); ex.Status != executor.StatusCancelled {
			t.Errorf("execution: %+v", ex)
		}
	})
}

// A connection on which the model keeps silent is kept open; from then on even a
// failure before the first word comes in the stream.
func TestCompletionPings(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	s, fake := withFake(t, func(c *httpapi.Config) { c.Heartbeat = 10 * time.Millisecond })
	fake.Script("m", append(llmtest.Reply{llmtest.Gate(gate)}, llmtest.Status(401)...))
	a := newAPI(t, s)
	f := a.open(ask(hello("openai/m", `, "stream": true`)))
	for range 2 {
		if b := f.block(); b != ": ping\n\n" {
			t.Fatalf("%q is no ping", b)
		}
	}
	close(gate)
	lines := f.lines()
	if e := parseChunk(t, lines[len(lines)-1]).Error; e == nil || e.Code != "provider_unauthorized" {
		t.Errorf("ends with %q", lines)
	}
}

// Events that add nothing to the answer are no sign of life to a proxy.
func TestCompletionPingsWhileOthersSpeak(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	a := newAPI(t, setup{
		workers: 5, models: map[string]llm.Entry{"test": {Provider: chatty{gate}}},
		config: func(c *httpapi.Config) { c.Heartbeat = 300 * time.Millisecond }, // the deltas of the first prompt come every 50
	})
	a.chain("name: long\nprompts:\n  - {name: A, position: 1, model: test/a, content: x}\n  - {name: B, position: 2, model: offline/echo, content: \"Echo: end\"}\n")
	f := a.open(ask(hello("chain/long", `, "stream": true`)))
	if b := f.block(); b != ": ping\n\n" {
		t.Errorf("%q is no ping", b)
	}
	close(gate)
	if got := said(t, f.lines()); got != "end" {
		t.Errorf("answer %q", got)
	}
}

// The same request with the same key is the same execution.
func TestCompletionIdempotency(t *testing.T) {
	t.Parallel()
	s, fake := withFake(t, nil)
	fake.Script("m", llmtest.Text("Once."))
	a := newAPI(t, s)
	c := ask(hello("openai/m", ""))
	c.header = map[string]string{"Idempotency-Key": "k1"}
	first := a.do(c).want(http.StatusOK)
	second := a.do(c).want(http.StatusOK)
	if string(first.body) != string(second.body) || second.header.Get("Idempotency-Replayed") != "true" || fake.Count("m") != 1 {
		t.Errorf("%s\n%s\n%v, %d calls", first.body, second.body, second.header, fake.Count("m"))
	}
	c.body = hello("openai/m", `, "seed": 1`)
	a.do(c).problem(http.StatusUnprocessableEntity, "idempotency_key_reused")
	trigger := call{method: "POST", path: "/api/v1/executions", body: hello("openai/m", ""), header: c.header}
	a.do(trigger).problem(http.StatusUnprocessableEntity, "idempotency_key_reused")
}

// A text that no event holds whole is read from the results, when its deltas are
// gone.
func TestCompletionOfFoldedLog(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 5000) // more than prompt-complete has
	s, fake := withFake(t, nil)
	fake.Script("m", llmtest.Text(long[:40_000], long[40_000:]))
	a := newAPI(t, s)
	c := ask(hello("openai/m", `, "stream": true`))
	c.header = map[string]string{"Idempotency-Key": "k1"}
	if got := said(t, a.open(c).lines()); got != long {
		t.Errorf("%d characters came", len(got))
	}
	if done, err := a.store.Trim(t.Context(), a.database, postgres.RetentionPolicy{Fold: time.Microsecond}); err != nil || done.Executions == 0 {
		t.Fatalf("folded: %+v, %v", done, err)
	}
	lines := a.open(c).lines()
	if got := said(t, lines); got != long || lines[len(lines)-1] != "data: [DONE]" {
		t.Errorf("%d characters came after folding, at last %q", len(got), lines[len(lines)-1])
	}
}

// The queue of the server is bounded; clients are told when to return.
func TestCompletionQueueFull(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{queued: 1})
	a.chain(twoPrompts)
	a.queue()
	got := a.do(ask(hello("offline/echo", "")))
	got.problem(http.StatusTooManyRequests, "queue_full")
	if got.header.Get("Retry-After") == "" || got.header.Get("X-Should-Retry") != "true" || !strings.Contains(string(got.body), `"type":"rate_limit_error"`) {
		t.Errorf("%v %s", got.header, got.body)
	}
	busy := newAPI(t, setup{config: func(c *httpapi.Config) { c.MaxStreams = 1 }})
	busy.chain(twoPrompts)
	id := busy.queue()
	busy.open(call{method: "GET", path: "/events/" + strconv.FormatInt(id, 10)})
	busy.do(ask(hello("offline/echo", ""))).problem(http.StatusServiceUnavailable, "too_many_streams")
}

// listener is a provider that notes what it is asked.
type listener struct {
	chunks []llm.Chunk

	mu    sync.Mutex
	asked llm.Request
}

func (r *listener) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		r.mu.Lock()
		r.asked = req
		r.mu.Unlock()
		for _, c := range r.chunks {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (r *listener) last() llm.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// failing is a provider whose models are named after how they fail.
type failing struct{}

func (failing) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) { yield(llm.Chunk{}, llm.NewError(llm.Code(req.Model), nil)) }
}

// chatty is a provider that speaks until its gate opens.
type chatty struct{ gate chan struct{} }

func (c chatty) Stream(ctx context.Context, _ llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if !yield(llm.Chunk{Text: "word "}, nil) {
					return
				}
			case <-ctx.Done():
				yield(llm.Chunk{}, llm.ContextError(ctx))
				return
			case <-c.gate:
				yield(llm.Chunk{FinishReason: llm.FinishStop, Usage: &llm.Usage{OutputTokens: 1}}, nil)
				return
			}
		}
	}
}
