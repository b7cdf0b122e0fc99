package llmtest_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

// ask sends a prompt to a model of the fake.
func ask(t *testing.T, fake *llmtest.Server, model string) llmtest.Result {
	t.Helper()
	c := llm.NewHTTPClient()
	t.Cleanup(c.CloseIdleConnections)
	p, err := openai.New(openai.Config{BaseURL: fake.URL, Client: c})
	if err != nil {
		t.Fatal(err)
	}
	return llmtest.Collect(t.Context(), t, p, llm.Request{Model: model, Messages: []llm.Message{{Role: llm.RoleUser, Text: "Hello"}}})
}

// scripted starts a fake that plays a script.
func scripted(t *testing.T, text string, pace llmtest.Pace) *llmtest.Server {
	t.Helper()
	script, err := llmtest.ParseScript([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	fake := llmtest.NewServer(t)
	fake.List(script.Models()...)
	fake.Otherwise(func(req llmtest.Request) llmtest.Reply {
		reply, ok := script.Reply(req, pace)
		if !ok {
			return llmtest.StatusError(http.StatusNotFound, llmtest.KindNoModel, "no such model")
		}
		return reply
	})
	return fake
}

func TestScriptAnswers(t *testing.T) {
	t.Parallel()
	// The prompt "Hello" and its frame.
	input := llm.EstimateUsage(llm.Request{Messages: []llm.Message{{Role: llm.RoleUser, Text: "Hello"}}}, "", "").InputTokens
	tests := map[string]struct {
		reply string
		want  llmtest.Result
		code  llm.Code
		note  string
	}{
		"a text": {
			reply: `two words`,
			want:  llmtest.Result{Text: "two words", FinishReason: "stop", Usage: &llm.Usage{InputTokens: input, OutputTokens: 3}},
			note:  "3 tokens, stop",
		},
		"one step": {
			reply: `{text: two words}`,
			want:  llmtest.Result{Text: "two words", FinishReason: "stop", Usage: &llm.Usage{InputTokens: input, OutputTokens: 3}},
			note:  "3 tokens, stop",
		},
		"everything": {
			reply: `[{reasoning: "hm "}, {comment: ping}, {text: "a "}, {delay: 1ms}, {text: b}, {toolCall: {name: add, arguments: {a: 1}}},
				{toolCall: {id: x, name: now}}, {toolCall: {name: bad, arguments: "{oops"}},
				{usage: {input: 100, output: 50, cached: 60, cacheWrite: 30, reasoning: 20}}]`,
			want: llmtest.Result{
				Text: "a b", Reasoning: "hm ", FinishReason: llm.FinishToolCalls,
				ToolCalls: []llm.ToolCall{{ID: "call_1", Name: "add", Arguments: `{"a":1}`}, {ID: "x", Name: "now", Arguments: "{}"}, {ID: "call_3", Name: "bad", Arguments: "{oops"}},
				Usage:     &llm.Usage{InputTokens: 100, OutputTokens: 50, CachedTokens: 60, CacheWriteTokens: 30, ReasoningTokens: 20},
			},
			note: "50 tokens, tool_calls",
		},
		"a finish reason": {
			reply: `[{text: cut}, {finish: length}]`,
			want:  llmtest.Result{Text: "cut", FinishReason: "length", Usage: &llm.Usage{InputTokens: input, OutputTokens: 1}},
			note:  "1 tokens, length",
		},
		"raw": {
			reply: `[{raw: "data: {\"choices\":[{\"delta\":{\"content\":\"raw\"}}]}\n\n"}]`,
			want:  llmtest.Result{Text: "raw", FinishReason: "stop", Usage: &llm.Usage{InputTokens: input, OutputTokens: 1, Estimated: true}},
			note:  "0 tokens, stop",
		},
		"a status":             {reply: `{status: 429, headers: {Retry-After: "2"}}`, code: llm.CodeRateLimited, note: "status 429"},
		"a status in words":    {reply: `{status: 400, kind: context_length_exceeded, message: too long}`, code: llm.CodeContextTooLong, note: "status 400"},
		"a body":               {reply: `{status: 200, body: "<html>"}`, code: llm.CodeMalformedResponse, note: "status 200"},
		"a fault":              {reply: `{fault: status-529}`, code: llm.CodeOverloaded, note: "fault status-529"},
		"truncated":            {reply: `[{text: half}, {truncate: true}, {text: never}]`, want: llmtest.Result{Text: "half"}, code: llm.CodeTruncatedStream, note: "1 tokens, then the end without an end marker"},
		"cut":                  {reply: `[{text: half}, {cut: true}]`, want: llmtest.Result{Text: "half"}, code: llm.CodeTruncatedStream, note: "1 tokens, then a cut"},
		"reset":                {reply: `{reset: true}`, code: llm.CodeConnectionFailed, note: "0 tokens, then a reset"},
		"overloaded":           {reply: `[{text: half}, {streamError: overloaded}]`, want: llmtest.Result{Text: "half"}, code: llm.CodeOverloaded, note: "1 tokens, then an error in the stream"},
		"limited":              {reply: `{streamError: rate-limit}`, code: llm.CodeRateLimited, note: "0 tokens, then an error in the stream"},
		"a failure":            {reply: `{streamError: server}`, code: llm.CodeUnavailable, note: "0 tokens, then an error in the stream"},
		"a failure in a word":  {reply: `{streamError: content_filter}`, code: llm.CodeContentFiltered, note: "0 tokens, then an error in the stream"},
		"nothing but an ended": {reply: `{truncate: true}`, code: llm.CodeTruncatedStream, note: "0 tokens, then the end without an end marker"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := scripted(t, "m: ["+tt.reply+"]", llmtest.Pace{})
			got := ask(t, fake, "m")
			var code llm.Code
			if e := (*llm.Error)(nil); errors.As(got.Err, &e) {
				code = e.Code
			}
			if code != tt.code {
				t.Errorf("error %v, want %q", got.Err, tt.code)
			}
			got.Err, got.Chunks, got.ResponseID, got.Repaired = nil, 0, "", false
			if got.Usage != nil {
				got.Usage.Raw = nil
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			call := fake.Calls()[0]
			<-call.Ended
			if call.Note != tt.note {
				t.Errorf("note %q, want %q", call.Note, tt.note)
			}
		})
	}
}

func TestScriptOrder(t *testing.T) {
	t.Parallel()
	fake := scripted(t, "m: [first, second]\n'*': [other]\n", llmtest.Pace{})
	for _, tt := range []struct{ model, want string }{{"m", "first"}, {"m", "second"}, {"m", "second"}, {"x", "other"}} {
		if r := ask(t, fake, tt.model); r.Text != tt.want {
			t.Errorf("%s answered %q, error %v, want %q", tt.model, r.Text, r.Err, tt.want)
		}
	}
	if got := get(t, fake.URL+"/models").body; !strings.Contains(got, `"id":"m"`) || strings.Contains(got, "*") {
		t.Errorf("listed: %s", got)
	}
	fake = scripted(t, "m: [first]", llmtest.Pace{})
	if r := ask(t, fake, "x"); r.Err == nil {
		t.Errorf("a model that is not in the script answered %q", r.Text)
	}
}

// TestPace shows how long a paced answer takes, on a clock that is not the real one.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := llmtest.New()
		fake.Otherwise(func(req llmtest.Request) llmtest.Reply {
			return llmtest.Whole(req, llmtest.Pace{First: 3 * time.Second, Rate: 2}, llmtest.Result{Text: "four four four "})
		})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://fake.invalid/v1/chat/completions", strings.NewReader(`{"model":"m","stream":true}`))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		w := &recorder{header: http.Header{}}
		fake.ServeHTTP(w, req)
		// "four " are two tokens by the estimate, at two a second.
		if took := time.Since(start); took != 6*time.Second {
			t.Errorf("took %v", took)
		}
		if !strings.HasSuffix(w.body.String(), "data: [DONE]\n\n") {
			t.Errorf("body %s", w.body.String())
		}
	})
}

// recorder is a response in memory.
type recorder struct {
	header http.Header
	body   strings.Builder
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(int)             {}
func (r *recorder) Flush()                      {}
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func TestScriptMistakes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ text, want string }{
		"not YAML":             {"a: [", "this is not valid YAML"},
		"empty":                {"", "a script maps names of models to lists of replies"},
		"a list":               {"[a]", "a script maps names of models to lists of replies"},
		"one reply, no list":   {"m: {text: a}", "a script maps names of models to lists of replies"},
		"no replies":           {"m: []", `model "m" has no replies`},
		"a number":             {"m: [7]", `model "m", reply 1: a reply is a text, a status, a fault, or a list of steps`},
		"an unknown step":      {"m: [a, [{txt: a}]]", `model "m", reply 2: step 1: unknown field "txt"`},
		"two steps in one":     {"m: [[{text: a, delay: 1s}]]", "step 1: a step is a mapping with one key"},
		"a step that is none":  {"m: [[{text: a}, b]]", "step 2: a step is a mapping with one key"},
		"text of a number":     {"m: [[{text: 7}]]", "step 1: text cannot be a number"},
		"a wrong delay":        {"m: [[{delay: soon}]]", `step 1: "soon" is not a duration`},
		"a negative delay":     {"m: [[{delay: -1s}]]", `step 1: "-1s" is not a duration`},
		"a call without name":  {"m: [[{toolCall: {arguments: {}}}]]", "step 1: a tool call has a name"},
		"an unknown fault":     {"m: [{fault: fire}]", `there is no fault called "fire"`},
		"a fault and more":     {"m: [{fault: truncated, text: a}]", "a fault is a name, alone"},
		"a wrong status":       {"m: [{status: 99}]", "99 is not an HTTP status from 200 to 599"},
		"a status and a text":  {"m: [{status: 500, text: a}]", `unknown field "text"`},
		"headers of no text":   {"m: [{status: 500, headers: {A: 1}}]", "headers cannot be a number"},
		"a script of 1 MB":     {"m: [" + strings.Repeat("x", llmtest.MaxScript) + "]", "the script has more than 1048576 bytes"},
		"the same model twice": {"m: [a]\nm: [b]", "this is not valid YAML"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := llmtest.ParseScript([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// TestDocumentedScript plays what docs/fake-llm.md shows.
func TestDocumentedScript(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/fake-llm.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(doc), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	fake := scripted(t, text, llmtest.Pace{})
	if r := ask(t, fake, "flaky"); r.Err == nil {
		t.Errorf("%+v", r)
	}
	if r := ask(t, fake, "flaky"); r.Text != "fine now" {
		t.Errorf("%+v", r)
	}
	if r := ask(t, fake, "agent"); len(r.ToolCalls) != 1 || r.Usage.CachedTokens != 100 {
		t.Errorf("%+v", r)
	}
	if r := ask(t, fake, "agent"); r.Text != "It is noon." {
		t.Errorf("%+v", r)
	}
	if r := ask(t, fake, "broken"); r.Text != "Once upon a " || r.Err == nil {
		t.Errorf("%+v", r)
	}
	for line := range strings.SplitSeq(string(doc), "\n") {
		for _, name := range regexp.MustCompile(`fault: ([a-z0-9-]+)`).FindAllStringSubmatch(line, -1) {
			if _, ok := llmtest.FaultNamed(name[1]); !ok {
				t.Errorf("no fault %s", name[1])
			}
		}
	}
}

// FuzzScript shows that no file ends the program, and that what is understood can
// be played.
func FuzzScript(f *testing.F) {
	f.Add("m: [a, {status: 500}, {fault: truncated}, [{text: a}, {toolCall: {name: b, arguments: {c: 1}}}]]")
	f.Add("'*':\n  - - reasoning: a\n    - delay: 1h\n    - usage: {input: 1}\n    - finish: stop\n")
	f.Fuzz(func(t *testing.T, text string) {
		script, err := llmtest.ParseScript([]byte(text))
		if err != nil {
			return
		}
		for _, model := range append(script.Models(), llmtest.AnyModel) {
			script.Reply(llmtest.Request{Request: llm.Request{Model: model}}, llmtest.Pace{Rate: 1})
		}
	})
}

// TestFaultNames shows that faults can be named on a command line.
func TestFaultNames(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, fault := range llmtest.Faults() {
		if strings.Trim(fault.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || seen[fault.Name] {
			t.Errorf("name %q", fault.Name)
		}
		seen[fault.Name] = true
		if found, ok := llmtest.FaultNamed(fault.Name); !ok || found.Code != fault.Code {
			t.Errorf("%s is not found", fault.Name)
		}
		if facts := llm.NewError(fault.Code, nil); fault.Code != "" && facts.Retryable != fault.Retryable && !strings.HasPrefix(fault.Name, "should-not-retry") {
			t.Errorf("%s: retryable %t, unlike %s", fault.Name, fault.Retryable, fault.Code)
		}
	}
	if _, ok := llmtest.FaultNamed("fire"); ok {
		t.Error("a fault that does not exist is found")
	}
}

// TestWatch shows that a fake that is watched keeps no calls.
func TestWatch(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("x"))
	over := make(chan *llmtest.Call, 2)
	fake.Watch(func(call *llmtest.Call) { over <- call })
	post(t.Context(), t, fake.URL, `{"model":"m"}`)
	post(t.Context(), t, fake.URL, `{"model":`)
	if call := <-over; call.Request.Model != "m" || call.Note != "" || !json.Valid(call.Body) {
		t.Errorf("%+v", call)
	}
	if call := <-over; call.Note != "a request that cannot be read" {
		t.Errorf("%+v", call)
	}
	if n := len(fake.Calls()); n > 0 {
		t.Errorf("%d calls are kept", n)
	}
}
