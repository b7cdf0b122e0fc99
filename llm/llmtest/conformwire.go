package llmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// testModel returns a model of the fake for one test alone, so that its calls
// can be told apart.
func testModel[Test T[Test]](t Test, s Subject) string {
	if s.Fake == nil {
		return s.Model
	}
	return strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == '#' {
			return '-'
		}
		return r
	}, strings.ToLower(t.Name()))
}

// arrived returns the only call of a model, nil without a wire.
func arrived(t TB, s Subject, model string) *Request {
	t.Helper()
	if s.Fake == nil {
		return nil
	}
	var found *Request
	for _, call := range s.Fake.Calls() {
		if call.Request.Model == model {
			if found != nil {
				t.Errorf("more than one call of %s: retries are not the provider's business", model)
			}
			found = &call.Request
		}
	}
	if found == nil {
		t.Errorf("no call of %s arrived", model)
	}
	return found
}

func userMessage(text string, images ...llm.Image) llm.Message {
	return llm.Message{Role: llm.RoleUser, Text: text, Images: images}
}

// sameJSON tells whether two texts are the same JSON value.
func sameJSON(a, b string) bool {
	var va, vb any
	return json.Unmarshal([]byte(a), &va) == nil && json.Unmarshal([]byte(b), &vb) == nil && reflect.DeepEqual(va, vb)
}

func conformSchema[Test T[Test]](t Test, s Subject) {
	t.Parallel()
	schema := json.RawMessage(`{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}`)
	req := llm.Request{Model: testModel(t, s), Schema: schema, Messages: []llm.Message{userMessage(`Echo: {"a": 1}`)}}
	r := Collect(t.Context(), t, s.Provider, req)
	if r.Err != nil || !sameJSON(r.Text, `{"a":1}`) || r.FinishReason != llm.FinishStop {
		t.Errorf("%+v", r)
	}
	if got := arrived(t, s, req.Model); got != nil && s.can(Schema) && !sameJSON(string(got.Schema), string(schema)) {
		t.Errorf("the schema arrived as %s", got.Schema)
	}
}

// conformTools are those of the suite.
func conformTools() []llm.Tool {
	return []llm.Tool{
		{Name: "add", Description: "Adds numbers.", Parameters: json.RawMessage(`{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}`)},
		{Name: "now", Description: "Tells the time."},
	}
}

func conformCalls[Test T[Test]](t Test, s Subject) {
	tests := map[string]struct {
		prompt string
		choice string
		want   []llm.ToolCall
	}{
		"one":                 {`Call: add {"a": 1, "b": "Grüße \"x\""}`, llm.ToolChoiceAuto, []llm.ToolCall{{Name: "add", Arguments: `{"a":1,"b":"Grüße \"x\""}`}}},
		"without arguments":   {"Call: now", llm.ToolChoiceRequired, []llm.ToolCall{{Name: "now", Arguments: "{}"}}},
		"in parallel":         {"Call: add {\"a\": 1}\nCall: now\nCall: add {\"a\": 2}", "", []llm.ToolCall{{Name: "add", Arguments: `{"a":1}`}, {Name: "now", Arguments: "{}"}, {Name: "add", Arguments: `{"a":2}`}}},
		"of the named tool":   {`Call: add {"a": 3}`, "add", []llm.ToolCall{{Name: "add", Arguments: `{"a":3}`}}},
		"of an unknown tool":  {`Call: subtract {"a": 3}`, "", []llm.ToolCall{{Name: "subtract", Arguments: `{"a":3}`}}},
		"of none, but a text": {"Echo: no tool", llm.ToolChoiceNone, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t Test) {
			t.Parallel()
			req := llm.Request{Model: testModel(t, s), Tools: conformTools(), ToolChoice: tt.choice, Messages: []llm.Message{userMessage(tt.prompt)}}
			r := Collect(t.Context(), t, s.Provider, req)
			finish := llm.FinishToolCalls
			if tt.want == nil {
				finish = llm.FinishStop
			}
			if r.Err != nil || r.FinishReason != finish || len(r.ToolCalls) != len(tt.want) {
				t.Errorf("%+v", r)
				return
			}
			for i, want := range tt.want {
				if got := r.ToolCalls[i]; got.Name != want.Name || !sameJSON(got.Arguments, want.Arguments) {
					t.Errorf("call %d is %+v, want %+v", i+1, got, want)
				}
			}
			got := arrived(t, s, req.Model)
			if got == nil {
				return
			}
			if got.ToolChoice != tt.choice || len(got.Tools) != 2 || got.Tools[0].Name != "add" || got.Tools[0].Description != "Adds numbers." ||
				!bytes.Contains(got.Tools[0].Parameters, []byte(`"a"`)) || got.Tools[1].Name != "now" {
				t.Errorf("choice %q and tools %+v arrived", got.ToolChoice, got.Tools)
			}
		})
	}
}

// conformResults shows that a model gets back what its tools answered.
func conformResults[Test T[Test]](t Test, s Subject) {
	t.Parallel()
	req := llm.Request{Model: testModel(t, s), Tools: conformTools(), Messages: []llm.Message{
		userMessage("Add one, and tell the time."),
		{Role: llm.RoleAssistant, Text: "I will.", ToolCalls: []llm.ToolCall{{ID: "c1", Name: "add", Arguments: `{"a":1}`}, {ID: "c2", Name: "now", Arguments: "{}"}}},
		{Role: llm.RoleTool, Text: "forty-two", ToolCallID: "c1"},
		{Role: llm.RoleTool, Text: "noon", ToolCallID: "c2"},
	}}
	r := Collect(t.Context(), t, s.Provider, req)
	if r.Err != nil || !strings.Contains(r.Text, "noon") || r.FinishReason != llm.FinishStop {
		t.Errorf("%+v", r)
	}
	got := arrived(t, s, req.Model)
	if got == nil {
		return
	}
	if !reflect.DeepEqual(got.Messages, req.Messages) {
		t.Errorf("arrived as %+v, want %+v", got.Messages, req.Messages)
	}
}

func conformParameters[Test T[Test]](t Test, s Subject) {
	zero, most, seed := 0.0, 0.123456, int64(42)
	conversation := []llm.Message{{Role: llm.RoleSystem, Text: "Be brief."}, userMessage("Hello"), {Role: llm.RoleAssistant, Text: "Hi"}, userMessage("Echo: Grüße")}
	for name, req := range map[string]llm.Request{
		"none":        {},
		"temperature": {Temperature: &zero, MaxTokens: 77},
		"top p":       {TopP: &most, Stop: []string{"one", "two"}, Seed: &seed},
	} {
		t.Run(name, func(t Test) {
			t.Parallel()
			req.Model, req.Messages = testModel(t, s), conversation
			if r := Collect(t.Context(), t, s.Provider, req); r.Err != nil {
				t.Errorf("%+v", r)
			}
			got := arrived(t, s, req.Model)
			if got == nil {
				return
			}
			if !s.can(Seed) {
				req.Seed = nil
			}
			if req.MaxTokens == 0 {
				got.MaxTokens = 0 // some formats want a limit always
			}
			if !reflect.DeepEqual(got.Request, req) || !got.Stream || !got.WantUsage {
				t.Errorf("arrived as %+v, want %+v", *got, req)
			}
		})
	}
}

func conformImages[Test T[Test]](t Test, s Subject) {
	picture := llm.Image{MIMEType: "image/png", Data: []byte{1, 2, 3}}
	address := llm.Image{URL: "https://pictures.example/a.png"}
	for name, images := range map[string][]llm.Image{"bytes": {picture}, "address": {address}, "both": {address, picture}} {
		t.Run(name, func(t Test) {
			t.Parallel()
			req := llm.Request{Model: testModel(t, s), Messages: []llm.Message{userMessage("Echo: seen", images...)}}
			if r := Collect(t.Context(), t, s.Provider, req); r.Err != nil || r.Text != "seen" {
				t.Errorf("%+v", r)
			}
			if got := arrived(t, s, req.Model); got != nil && !reflect.DeepEqual(got.Messages, req.Messages) {
				t.Errorf("arrived as %+v", got.Messages)
			}
		})
	}
}

// conformUsage shows that usage means the same whichever way a provider counts.
func conformUsage[Test T[Test]](t Test, s Subject) {
	t.Parallel()
	tokens := Tokens{Input: 100, Output: 50, Cached: 60, CacheWrite: 30, Reasoning: 20}
	if !s.can(CacheWrites) {
		tokens.CacheWrite = 0
	}
	if !s.can(ReasoningTokens) {
		tokens.Reasoning = 0
	}
	model := testModel(t, s)
	s.Fake.Script(model, Reply{Role(), Delta("x"), Finish(llm.FinishStop), UsageOf(tokens), Done()})
	r := Collect(t.Context(), t, s.Provider, llm.Request{Model: model, Messages: []llm.Message{userMessage("x")}})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	want := llm.Usage{
		InputTokens: tokens.Input, OutputTokens: tokens.Output, CachedTokens: tokens.Cached,
		CacheWriteTokens: tokens.CacheWrite, ReasoningTokens: tokens.Reasoning, Raw: r.Usage.Raw,
	}
	if !reflect.DeepEqual(*r.Usage, want) || !json.Valid(r.Usage.Raw) {
		t.Errorf("usage %+v, want %+v", *r.Usage, want)
	}
}

// impatience is what the faults that wait for a deadline are given. A machine
// that is too slow for it finds the deadline earlier, with less of the text.
const impatience = time.Second

func conformFault[Test T[Test]](t Test, s Subject, fault Fault) {
	t.Parallel()
	model := testModel(t, s)
	s.Fake.Script(model, fault.Reply)
	provider := s.Provider
	waits := fault.Code == llm.CodeTimeoutFirstByte || fault.Code == llm.CodeTimeoutIdle
	if waits {
		provider = llm.Guard(provider, llm.Deadlines{FirstByte: impatience, Idle: impatience})
	}
	r := Collect(t.Context(), t, provider, llm.Request{Model: model, Messages: []llm.Message{userMessage("Hello")}})
	if n := s.Fake.Count(model); n > 1 || (n == 0 && !waits) { // a slow machine may find the deadline before the call is out
		t.Errorf("%d calls: retries are not the provider's business", n)
	}
	if waits {
		hungUp(t, s, model)
	}
	switch {
	case waits, fault.Torn:
		if !strings.HasPrefix(fault.Text, r.Text) {
			t.Errorf("text %q, want %q", r.Text, fault.Text)
		}
	case r.Text != fault.Text:
		t.Errorf("text %q, want %q", r.Text, fault.Text)
	}
	if fault.Code == "" {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if r.Usage.Estimated != fault.Estimated || r.Repaired != fault.Repaired || len(r.ToolCalls) != fault.ToolCalls {
			t.Errorf("%+v, usage %+v", r, *r.Usage)
		}
		return
	}
	e := (*llm.Error)(nil)
	if !errors.As(r.Err, &e) {
		t.Fatal("no error: ", r.Text)
	}
	if e.Code != fault.Code || e.Retryable != fault.Retryable || e.RetryAfter != fault.RetryAfter {
		t.Errorf("got %s, retryable %t, after %v, detail %.300q", e.Code, e.Retryable, e.RetryAfter, e.Detail)
	}
}
