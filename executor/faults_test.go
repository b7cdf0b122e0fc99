package executor_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

var update = flag.Bool("update", false, "rewrite the table of docs/reliability.md")

// fault is something that goes wrong at a model, played on the wire.
type fault struct {
	name    string
	replies []llmtest.Reply
	prompt  string // beside name, model and content
	held    time.Duration
	cancel  bool          // when the call has come
	nobody  bool          // no server listens
	gate    chan struct{} // opened when the text has come
}

// good is a whole answer; begun is the beginning of one.
func good() llmtest.Reply { return llmtest.Text("All ", "is ", "well.") }

func begun(steps ...llmtest.Step) llmtest.Reply {
	return append(llmtest.Reply{llmtest.Role(), llmtest.Delta("Half an ")}, steps...)
}

func refusal(status int, code string) llmtest.Reply {
	return llmtest.StatusBody(status, `{"error": {"message": "no", "type": "invalid_request_error", "code": "`+code+`"}}`)
}

// chunkOf is a piece of an answer on OpenAI's wire.
func chunkOf(text string) string {
	return `{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}]}`
}

const chunkEnd = `{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],` +
	`"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}`

func faults(t *testing.T) []fault {
	named := func(name string) llmtest.Reply {
		f, found := llmtest.FaultNamed(name)
		if !found {
			t.Fatalf("there is no fault %s", name)
		}
		return f.Reply
	}
	again := func(name string, first llmtest.Reply) fault {
		return fault{name: name, replies: []llmtest.Reply{first, good()}}
	}
	final := func(name string, first llmtest.Reply) fault {
		return fault{name: name, replies: []llmtest.Reply{first}}
	}
	busy := func(after string) llmtest.Reply { return llmtest.Status(429, "Retry-After", after) }
	seen := make(chan struct{}) // a reset may overtake what was sent before it
	const schema = `output: {schema: {type: object, required: [title]}}`
	return []fault{
		again("429, `Retry-After: 1`", busy("1")),
		{name: "429, `Retry-After: 2`, and no worker may be held for more than 1 s", replies: []llmtest.Reply{busy("2"), good()}, held: time.Second},
		again("429, `Retry-After: -1`", busy("-1")),
		again("429, `Retry-After: NaN`", busy("NaN")),
		again("429, `Retry-After: 1e99`", busy("1e99")),
		again("429, `Retry-After` in the past", busy("Wed, 21 Oct 2015 07:28:00 GMT")),
		again("429, `retry-after-ms: 1`", llmtest.Status(429, "Retry-After-Ms", "1")),
		final("429, no quota left", refusal(429, "insufficient_quota")),
		again("408", llmtest.Status(408)),
		again("409", llmtest.Status(409)),
		again("500", llmtest.Status(500)),
		again("502 with a page of HTML", llmtest.StatusBody(502, "<html>Bad gateway</html>")),
		again("503", llmtest.Status(503)),
		again("529", llmtest.Status(529)),
		final("503, three times", llmtest.Status(503)),
		final("503, `x-should-retry: false`", llmtest.Status(503, "X-Should-Retry", "false")),
		final("400", llmtest.Status(400)),
		final("401", llmtest.Status(401)),
		final("404", llmtest.Status(404)),
		final("422", llmtest.Status(422)),
		final("400, the context is too long", refusal(400, "context_length_exceeded")),
		final("400, the content is refused", refusal(400, "content_filter")),
		{name: "404, with a fallback", replies: []llmtest.Reply{llmtest.Status(404)}, prompt: "fallback: [wire/spare]"},
		{name: "503, with a fallback", replies: []llmtest.Reply{llmtest.Status(503)}, prompt: "fallback: [wire/spare]"},
		{name: "error in mid-answer, with a fallback", replies: []llmtest.Reply{begun(llmtest.StreamError("overloaded", "server_error"))}, prompt: "retry: {attempts: 1}, fallback: [wire/spare]"},
		{name: "nobody listens", nobody: true},
		{name: "nobody listens, with a fallback", nobody: true, prompt: "fallback: [wire/spare]"},
		again("200, then an error event", begun(llmtest.StreamError("The server is overloaded", "server_error"))),
		final("200 with a page of HTML", named("web-page-200")),
		final("redirect to elsewhere", named("redirect")),
		again("200 with an empty body", named("empty-body")),
		again("silence before the first byte", llmtest.Reply{llmtest.Stall()}),
		again("silence after the head", llmtest.Reply{llmtest.Head(), llmtest.Stall()}),
		again("silence in mid-answer", begun(llmtest.Stall())),
		again("clean end without an end marker", begun()),
		again("connection cut in mid-answer", begun(llmtest.Cut())),
		{name: "connection reset in mid-answer", replies: []llmtest.Reply{begun(llmtest.Gate(seen), llmtest.Reset()), good()}, gate: seen},
		again("connection reset before the answer", llmtest.Reply{llmtest.Reset()}),
		final("no JSON in an event", begun(llmtest.Data(`{"choices": [`), llmtest.Done())),
		final("lines that end in CR only", llmtest.Reply{llmtest.Raw("data: " + chunkOf("CR.") + "\r\rdata: " + chunkEnd + "\r\rdata: [DONE]\r\r")}),
		final("a byte order mark", llmtest.Reply{llmtest.Raw("\xEF\xBB\xBFdata: " + chunkOf("BOM.") + "\n\ndata: " + chunkEnd + "\n\ndata: [DONE]\n\n")}),
		final("a character split over two pieces", llmtest.Reply{
			llmtest.Raw("data: " + chunkOf("caf\xC3")[:len(chunkOf("caf\xC3"))]), llmtest.Raw("\n\ndata: " + chunkOf("\xA9.") + "\n\ndata: " + chunkEnd + "\n\ndata: [DONE]\n\n"),
		}),
		final("a NUL in the text", llmtest.Reply{llmtest.Role(), llmtest.Delta("a\x00b"), llmtest.Finish("stop"), llmtest.Usage(7, 3), llmtest.Done()}),
		final("a line of 10 MB", begun(llmtest.Data(chunkOf(strings.Repeat("x", 10<<20))))),
		final("an answer above the byte cap", begun(llmtest.Delta(strings.Repeat("x", 5<<20)))),
		final("no usage at the end", llmtest.Reply{llmtest.Role(), llmtest.Delta("Fine."), llmtest.Finish("stop"), llmtest.Done()}),
		again("a tool call that nobody asked for", llmtest.Reply{llmtest.Role(), llmtest.ToolCall("1", "search", "{}"), llmtest.Finish("tool_calls"), llmtest.Usage(7, 3), llmtest.Done()}),
		again("a tool call with broken arguments", named("tool-arguments-broken")),
		final("1,000 tool calls", named("tool-calls-1000")),
		{name: "JSON that does not follow the schema", replies: []llmtest.Reply{llmtest.Text("{}"), llmtest.Text(`{"title": 1}`)}, prompt: schema},
		{name: "the same, twice", replies: []llmtest.Reply{llmtest.Text("{}")}, prompt: schema},
		{name: "JSON cut off by the token limit", replies: []llmtest.Reply{{llmtest.Role(), llmtest.Delta(`{"ti`), llmtest.Finish("length"), llmtest.Usage(7, 3), llmtest.Done()}}, prompt: schema},
		{name: "cancelled in mid-answer", replies: []llmtest.Reply{begun(llmtest.Stall())}, cancel: true},
	}
}

// seen is what a client saw of an execution: the events between the beginnings
// and the ends of attempts, in short.
func seen(log []event) string {
	var out []string
	for _, e := range log {
		word := string(e.Type)
		switch e.Type {
		case events.TypeExecutionStart, events.TypePromptStart, events.TypeLLMRequest, events.TypeProgress, events.TypePromptComplete:
			continue
		case events.TypePromptDelta:
			if len(out) > 0 && out[len(out)-1] == "text" {
				continue
			}
			word = "text"
		case events.TypeLLMError, events.TypeExecutionError:
			word += fmt.Sprintf(" `%s`", e.Data["code"])
		case events.TypePromptError:
			continue
		case events.TypePromptRetry:
			if delay := delayOf(e); delay > 0 {
				word += " in " + delay.String()
			}
		}
		out = append(out, word)
	}
	return strings.Join(out, ", ")
}

// suffer runs a chain against a fault and answers its row of the table.
func suffer(t *testing.T, f fault) string {
	t.Helper()
	fake := llmtest.NewServer(t)
	fake.Script("m", f.replies...)
	fake.Script("spare", good())
	provider := func(url string) llm.Provider {
		p, err := openai.New(openai.Config{BaseURL: url, Key: "sk-none", Client: llm.NewHTTPClient()})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	info := llm.Info{Prices: []llm.Price{{Input: decimal.NewFromInt(1), Output: decimal.NewFromInt(2)}}}
	entry := llm.Entry{Provider: provider(fake.URL), Info: map[string]llm.Info{"m": info, "spare": info}}
	models := map[string]llm.Entry{"wire": entry, "gone": {Provider: provider("http://127.0.0.1:1/v1"), Info: entry.Info}}
	h := newHarness(t, models, executor.Config{
		Retry: llm.RetryPolicy{Rand: func() float64 { return 0 }, MaxRetryAfter: f.held}, Poll: 10 * time.Millisecond,
		Deadlines: llm.Deadlines{FirstByte: 3 * time.Second, Idle: 3 * time.Second},
	})
	model := "wire/m"
	if f.nobody {
		model = "gone/m"
	}
	prompt := ""
	if f.prompt != "" {
		prompt = ", " + f.prompt
	}
	ex := h.trigger(h.chain("name: fault\nprompts:\n  - {name: P, model: "+model+", content: How are you?"+prompt+"}\n"), nil)
	waited := ""
	if f.held > 0 {
		h.waits(ex.ID)
		waited = " (status `waiting`)"
	}
	if f.gate != nil {
		h.await(ex.ID, events.TypePromptDelta)
		close(f.gate)
	}
	if f.cancel {
		h.await(ex.ID, events.TypePromptDelta)
		if _, err := h.exec.Cancel(t.Context(), ex.ID); err != nil {
			t.Fatal(err)
		}
	}
	log := h.follow(ex.ID)
	got := h.checkLog(ex.ID, log)
	if opened, closed := find(log, events.TypeLLMRequest), find(log, events.TypeLLMResponse, events.TypeLLMError); len(opened) != len(closed) {
		t.Errorf("%d calls, %d ends", len(opened), len(closed))
	}
	if f.cancel {
		select {
		case <-fake.Calls()[0].Gone:
		case <-time.After(30 * time.Second):
			t.Error("the connection is still open")
		}
	}
	calls := fmt.Sprint(fake.Count(""))
	if f.nobody {
		calls = fmt.Sprintf("%s and %d in vain", calls, len(find(log, events.TypeLLMError)))
	}
	about := ""
	if h.states(ex.ID)["P"].UsageEstimated {
		about = "≈ "
	}
	cost := "unknown"
	if got.CostUSD != nil {
		cost = *got.CostUSD
	}
	return fmt.Sprintf("| %s | %s%s | %s | %s%d + %d | %s%s |", f.name, seen(log), waited, calls, about, got.InputTokens, got.OutputTokens, about, cost)
}

// The table of docs/reliability.md is what happens.
func TestFaultTable(t *testing.T) {
	t.Parallel()
	table := faults(t)
	rows := make([]string, len(table))
	var mu sync.Mutex
	t.Run("rows", func(t *testing.T) {
		for i, f := range table {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				row := suffer(t, f)
				mu.Lock()
				defer mu.Unlock()
				rows[i] = row
			})
		}
	})
	if t.Failed() {
		return
	}
	const path, open, end = "../docs/reliability.md", "<!-- faults -->\n", "<!-- end of faults -->"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(raw), open)
	written, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the table", path)
	}
	want := "| fault | what the client saw | calls | tokens in + out | USD |\n|---|---|--:|--:|--:|\n" + strings.Join(rows, "\n") + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(before+open+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(written, "\n")); diff != "" {
		t.Errorf("%s differs from what happens (-happens +written); go test -run TestFaultTable ./executor -update writes it:\n%s", path, diff)
	}
}
