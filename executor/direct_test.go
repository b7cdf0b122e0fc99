package executor_test

import (
	"context"
	"encoding/json"
	"iter"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// recorder notes what it is asked and answers by number of the call.
type recorder struct {
	mu     sync.Mutex
	asked  []llm.Request
	answer func(ctx context.Context, call int, yield func(llm.Chunk, error) bool)
}

func (r *recorder) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		r.mu.Lock()
		r.asked = append(r.asked, req)
		call := len(r.asked)
		r.mu.Unlock()
		r.answer(ctx, call, yield)
	}
}

func (r *recorder) requests() []llm.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

// everything has a value in every field of a request.
func everything() llm.Request {
	temperature, topP, seed, parallel := 0.0, 0.5, int64(1<<60+1), false
	return llm.Request{
		Messages: []llm.Message{
			{Role: llm.RoleSystem, Text: "Be \u2028 brief."},
			{Role: llm.RoleUser, Text: "Look: ${not a variable}", Images: []llm.Image{{URL: "https://example.com/a.png", Detail: "low"}, {MIMEType: "image/png", Data: []byte{0, 1, 255}}}},
			{Role: llm.RoleAssistant, ToolCalls: []llm.ToolCall{{ID: "c1", Name: "add", Arguments: `{"b":1, "a":2`, Signature: "c2ln"}}},
			{Role: llm.RoleTool, Text: "3", ToolCallID: "c1"},
		},
		Temperature: &temperature, TopP: &topP, MaxTokens: 7, Stop: []string{"END"}, Seed: &seed,
		Schema:     json.RawMessage(`{"type":"object","properties":{"z":{},"a":{}}}`),
		Tools:      []llm.Tool{{Name: "add", Description: "Adds", Parameters: json.RawMessage(`{"type":"object","properties":{"b":{},"a":{}}}`), Strict: true}},
		ToolChoice: "add", ParallelTools: &parallel, Effort: "low",
	}
}

func (h *harness) direct(model string, call llm.Request) executor.Execution {
	h.t.Helper()
	t, err := executor.Direct(model, call)
	if err != nil {
		h.t.Fatal(err)
	}
	ex, _, err := h.exec.Trigger(h.t.Context(), t)
	if err != nil {
		h.t.Fatal(err)
	}
	return ex
}

// A direct call asks exactly what was stored, at every attempt, and a fork and a
// retry of it ask the same; the model wants tools, which the log and the result
// keep.
func TestDirectCall(t *testing.T) {
	t.Parallel()
	calls := []llm.ToolCall{{ID: "t1", Name: "add", Arguments: `{"a": 1`, Signature: "c2ln"}, {ID: "t2", Name: "add", Arguments: "{}"}}
	r := &recorder{answer: func(_ context.Context, call int, yield func(llm.Chunk, error) bool) {
		if call == 1 {
			yield(llm.Chunk{}, llm.NewError(llm.CodeOverloaded, nil))
			return
		}
		_ = yield(llm.Chunk{Text: "I add."}, nil) && yield(llm.Chunk{ToolCalls: calls}, nil) &&
			yield(llm.Chunk{FinishReason: llm.FinishToolCalls, Usage: &llm.Usage{InputTokens: 3, OutputTokens: 2}}, nil)
	}}
	entries := map[string]llm.Entry{"test": {Provider: r}, "other": {Provider: r}}
	h := newHarness(t, entries, executor.Config{Retry: llm.RetryPolicy{Base: 1}})
	first := h.direct("test/m", everything())
	log := h.follow(first.ID)
	ex := h.checkLog(first.ID, log)
	if ex.Status != executor.StatusCompleted || ex.ChainName != executor.DirectName || ex.ChainID != executor.DirectChain {
		t.Fatalf("execution: %+v", ex)
	}
	schemas := compileSchemas(t)
	want := []any{map[string]any{"id": "t1", "name": "add", "arguments": `{"a": 1`, "signature": "c2ln"}, map[string]any{"id": "t2", "name": "add", "arguments": "{}"}}
	for _, e := range log {
		if err := schemas[e.Type].Validate(e.Data); err != nil {
			t.Errorf("event %d: %v", e.Seq, err)
		}
		if e.Type == events.TypeLLMResponse || e.Type == events.TypePromptComplete {
			if diff := cmp.Diff(any(want), e.Data["toolCalls"]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", e.Type, diff)
			}
		}
		if e.Type == events.TypePromptStart && (e.Data["hasTools"] != true || e.Data["modelId"] != "test/m") {
			t.Errorf("prompt-start: %v", e.Data)
		}
	}
	kept := []events.ToolCall{events.ToolCall(calls[0]), events.ToolCall(calls[1])}
	state := h.states(first.ID)["Answer"]
	if diff := cmp.Diff(kept, state.ToolCalls); diff != "" || state.UserMessage != "Look: ${not a variable}" {
		t.Errorf("result %+v (-want +got):\n%s", state, diff)
	}

	fork := h.derive(executor.Derivation{Parent: first.ID, Origin: executor.OriginFork, Model: "other/n"})
	if got := h.checkLog(fork.ID, h.follow(fork.ID)); got.Status != executor.StatusCompleted {
		t.Errorf("fork: %+v", got)
	}
	models := []string{"m", "m", "n"}
	asked := r.requests()
	if len(asked) != len(models) {
		t.Fatalf("%d calls", len(asked))
	}
	for i, req := range asked {
		wanted := everything()
		wanted.Model = models[i]
		if diff := cmp.Diff(wanted, req); diff != "" {
			t.Errorf("call %d (-want +got):\n%s", i+1, diff)
		}
	}
}

// A failed call is retried with what it had asked.
func TestRetryOfDirectCall(t *testing.T) {
	t.Parallel()
	r := &recorder{answer: func(_ context.Context, call int, yield func(llm.Chunk, error) bool) {
		if call == 1 {
			yield(llm.Chunk{}, llm.NewError(llm.CodeContentFiltered, nil))
			return
		}
		_ = yield(llm.Chunk{Text: "now"}, nil) && yield(llm.Chunk{FinishReason: llm.FinishStop, Usage: &llm.Usage{OutputTokens: 1}}, nil)
	}}
	h := newHarness(t, map[string]llm.Entry{"test": {Provider: r}}, executor.Config{})
	first := h.direct("test/m", everything())
	h.checkLog(first.ID, h.follow(first.ID))
	again := h.derive(retryOf(first.ID))
	if got := h.checkLog(again.ID, h.follow(again.ID)); got.Status != executor.StatusCompleted {
		t.Errorf("retry: %+v", got)
	}
	asked := r.requests()
	if diff := cmp.Diff(asked[0], asked[1]); len(asked) != 2 || diff != "" {
		t.Errorf("%d calls (-first +second):\n%s", len(asked), diff)
	}
}

// The next process asks what the one that stopped had asked, and books what that
// call cost by all that was asked.
func TestDirectCallIsTakenOver(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 1)
	r := &recorder{answer: func(ctx context.Context, call int, yield func(llm.Chunk, error) bool) {
		if call == 1 {
			yield(llm.Chunk{Text: "half"}, nil)
			reached <- struct{}{}
			<-ctx.Done()
			yield(llm.Chunk{}, llm.ContextError(ctx))
			return
		}
		_ = yield(llm.Chunk{Text: "whole"}, nil) && yield(llm.Chunk{FinishReason: llm.FinishStop, Usage: &llm.Usage{OutputTokens: 1}}, nil)
	}}
	entries := map[string]llm.Entry{"test": {Provider: r}}
	h := newHarness(t, entries, executor.Config{Owner: "one"})
	ex := h.direct("test/m", everything())
	<-reached
	h.await(ex.ID, events.TypePromptDelta)
	h.interrupt()
	h.resume(entries, executor.Config{Owner: "two"})
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("execution: %+v", got)
	}
	asked := r.requests()
	if diff := cmp.Diff(asked[0], asked[1]); len(asked) != 2 || diff != "" {
		t.Errorf("%d calls (-first +second):\n%s", len(asked), diff)
	}
	lost := find(log, events.TypeLLMError)
	least := float64(llm.EstimateUsage(llm.Request{Messages: everything().Messages}, "", "").InputTokens)
	if len(lost) != 1 {
		t.Fatalf("%d calls were lost", len(lost))
	}
	if tokens, _ := lost[0].Data["inputTokens"].(float64); lost[0].Data["usageSource"] != "estimated" || tokens < least {
		t.Errorf("lost calls: %v, at least %v tokens are expected", lost, least)
	}
}

// The document of the built-in chain is that of the migration, no list has it,
// and no user can take its name.
func TestDirectChainIsHidden(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{})
	trigger, err := executor.Direct("offline/echo", llm.Request{})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := h.store.PinnedVersion(t.Context(), executor.DirectChain, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(stored.Chain.JSON()), string(trigger.Version.Chain.JSON())); diff != "" || !slices.Equal(stored.PromptIDs, trigger.Version.PromptIDs) {
		t.Errorf("prompts %v (-migration +program):\n%s", stored.PromptIDs, diff)
	}
	if list, err := h.store.Chains(t.Context(), 0, 10); err != nil || len(list) != 0 {
		t.Errorf("listed: %v, %v", list, err)
	}
	if _, err := h.store.ChainByName(t.Context(), executor.DirectName, 0); err == nil {
		t.Error("it is found by its name")
	}
	document := "name: " + executor.DirectName + "\nprompts: [{name: A, model: offline/echo, content: x}]\n"
	if _, err := chain.Parse([]byte(document), chain.FormatYAML); err == nil {
		t.Error("its name can be taken")
	}
	if v := h.chain(brief); v.ChainID != 1 || v.PromptIDs[0] != 1 {
		t.Errorf("the first chain of a user has the id %d and the prompt %d", v.ChainID, v.PromptIDs[0])
	}
}

// A field that requests get later is not forgotten in what is stored.
func TestDirectCallKeepsEveryField(t *testing.T) {
	t.Parallel()
	req := everything()
	for _, v := range []reflect.Value{reflect.ValueOf(req), reflect.ValueOf(req.Tools[0]), reflect.ValueOf(req.Messages[2].ToolCalls[0])} {
		for field, value := range v.Fields() {
			if value.IsZero() && field.Name != "Model" {
				t.Errorf("%s.%s has no value here, so nobody sees whether it is stored", v.Type(), field.Name)
			}
		}
	}
}
