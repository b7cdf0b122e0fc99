package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

type answers = map[string]func(ctx context.Context, call int, req llm.Request, say func(string) bool) error

// quick makes retries immediate.
var quick = llm.RetryPolicy{Rand: func() float64 { return 0 }}

func TestFailureStopsTheChainAfterItsSiblings(t *testing.T) {
	t.Parallel()
	failed := make(chan struct{})
	s := script(answers{
		"bad": func(_ context.Context, _ int, _ llm.Request, say func(string) bool) error {
			say("half an ans")
			close(failed)
			return llm.NewError(llm.CodeContentFiltered, nil)
		},
		"slow": func(_ context.Context, _ int, _ llm.Request, say func(string) bool) error {
			<-failed
			say("slow but sure")
			return nil
		},
		"never": say("never"),
	})
	h := newHarness(t, s.entry(), executor.Config{Retry: quick})
	v := h.chain(`
name: siblings
prompts:
  - {name: Bad, position: 1, model: test/bad, content: x}
  - {name: Slow, position: 1, model: test/slow, content: x}
  - {name: After, position: 2, model: test/never, content: x}
`)
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	got := h.checkLog(ex.ID, log)
	if got.Status != executor.StatusFailed || got.ErrorCode != "content_filtered" || got.ErrorPrompt != v.PromptIDs[0] {
		t.Errorf("execution: %+v", got)
	}
	if n := len(find(log, events.TypeExecutionError)); n != 1 {
		t.Errorf("%d execution errors", n)
	}
	if n := s.count("never"); n != 0 {
		t.Error("the chain went on after a failure")
	}
	states := h.states(ex.ID)
	if b := states["Bad"]; b.Status != "failed" || b.Output != "half an ans" || b.OutputTokens == 0 || !b.UsageEstimated {
		t.Errorf("failed prompt: %+v", b)
	}
	if s := states["Slow"]; s.Status != "completed" || s.Output != "slow but sure" {
		t.Errorf("its sibling: %+v", s)
	}
	if want := states["Bad"].InputTokens + states["Slow"].InputTokens; got.InputTokens != want {
		t.Errorf("input tokens %d, want the sum %d", got.InputTokens, want)
	}
}

func TestOnErrorContinue(t *testing.T) {
	t.Parallel()
	s := script(answers{"bad": fail("", llm.CodeUnauthorized), "good": say("good")})
	h := newHarness(t, s.entry(), executor.Config{Retry: quick})
	v := h.chain(`
name: onwards
prompts:
  - {name: Bad, position: 1, model: test/bad, content: x, onError: continue}
  - {name: Good, position: 2, model: test/good, content: y}
  - {name: Needs, position: 3, model: test/good, content: "${bad}", onError: continue}
`)
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("execution: %+v", got)
	}
	var codes []string
	for _, e := range find(log, events.TypePromptError) {
		codes = append(codes, fmt.Sprint(e.Data["code"]))
	}
	if diff := cmp.Diff([]string{"unauthorized", "unresolved"}, codes); diff != "" {
		t.Error(diff)
	}
	if last := find(log, events.TypeProgress)[2]; last.Data["percentage"] != 100.0 {
		t.Errorf("last progress: %v", last.Data)
	}
	if s.count("bad") != 1 || s.count("good") != 1 {
		t.Errorf("calls: bad %d, good %d", s.count("bad"), s.count("good"))
	}
}

func TestRetryThenFallback(t *testing.T) {
	t.Parallel()
	s := script(answers{"flaky": fail("wrong ", llm.CodeOverloaded), "spare": say("right")})
	h := newHarness(t, s.entry(), executor.Config{Retry: quick})
	v := h.chain(`
name: fallback
prompts:
  - {name: P, position: 1, model: test/flaky, fallback: [test/spare], retry: {attempts: 2}, content: x}
`)
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	h.checkLog(ex.ID, log)
	p := v.PromptIDs[0]
	want := []string{
		"execution-start",
		"prompt-start P", "llm-request P", "llm-error P", "prompt-retry P",
		"prompt-start P", "llm-request P", "llm-error P", "prompt-retry P",
		"prompt-start P", "llm-request P", "llm-response P", "prompt-complete P", "progress 100", "execution-complete",
	}
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], " P", fmt.Sprint(" ", p))
	}
	if diff := cmp.Diff(want, outline(log)); diff != "" {
		t.Error(diff)
	}
	for attempt, voided := range map[int]int64{2: 2, 3: find(log, events.TypePromptStart)[1].Seq} {
		retry := find(log, events.TypePromptRetry)[attempt-2]
		if retry.Data["attempt"] != float64(attempt) || retry.Data["supersedesFromSeq"] != float64(voided) {
			t.Errorf("retry: %v, want to void from %d", retry.Data, voided)
		}
	}
	if got := text(t, log, p, 1) + "|" + text(t, log, p, 3); got != "wrong |right" {
		t.Errorf("texts %q", got)
	}
	state := h.states(ex.ID)["P"]
	if state.Output != "right" || state.ModelID != "test/spare" || state.Attempt != 3 {
		t.Errorf("state: %+v", state)
	}
	if s.count("flaky") != 2 || s.count("spare") != 1 {
		t.Errorf("calls: %d and %d", s.count("flaky"), s.count("spare"))
	}
}

// An error that arrives in the middle of an answer has a status as a refusal
// has, but the text before it was paid for.
func TestErrorInMidAnswerKeepsUsage(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		used bool
	}{
		"refused":    {"", false},
		"in the mid": {"Once upon a time", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := script(answers{"m": func(_ context.Context, _ int, _ llm.Request, say func(string) bool) error {
				if tt.text != "" {
					say(tt.text)
				}
				failed := llm.NewError(llm.CodeUnavailable, nil)
				failed.Status = 500
				return failed
			}})
			h := newHarness(t, s.entry(), executor.Config{})
			v := h.chain(`
name: broken-off
prompts:
  - {name: P, position: 1, model: test/m, retry: {attempts: 1}, content: x}
`)
			ex := h.trigger(v, nil)
			h.checkLog(ex.ID, h.follow(ex.ID))
			state := h.states(ex.ID)["P"]
			if state.Output != tt.text || (state.InputTokens > 0 && state.OutputTokens > 0) != tt.used {
				t.Errorf("output %q with %d and %d tokens", state.Output, state.InputTokens, state.OutputTokens)
			}
		})
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, prompt, chain, code string }{
		{"of the prompt", "timeout: 300ms", "", "prompt_timeout"},
		{"of the chain", "timeout: 1h", "limits: {timeout: 300ms}", "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := script(answers{"hang": hang("partial", nil)})
			h := newHarness(t, s.entry(), executor.Config{Retry: quick})
			v := h.chain("name: deadlines\n" + tt.chain + "\nprompts:\n  - {name: P, position: 1, model: test/hang, content: x, " + tt.prompt + "}\n")
			ex := h.trigger(v, nil)
			log := h.follow(ex.ID)
			got := h.checkLog(ex.ID, log)
			if got.Status != executor.StatusFailed || got.ErrorCode != tt.code {
				t.Errorf("execution %s with %s", got.Status, got.ErrorCode)
			}
			if s := h.states(ex.ID)["P"]; s.Output != "partial" || s.ErrorCode != tt.code {
				t.Errorf("prompt: %+v", s)
			}
			if s.count("hang") != 1 {
				t.Errorf("%d calls", s.count("hang"))
			}
		})
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 2)
	s := script(answers{"hang": hang("partial ", reached), "never": say("never")})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain(`
name: cancel
prompts:
  - {name: A, position: 1, model: test/hang, content: x}
  - {name: B, position: 1, model: test/hang, content: x, onError: continue}
  - {name: C, position: 2, model: test/never, content: x}
`)
	ex := h.trigger(v, nil)
	<-reached
	<-reached
	if _, err := h.exec.Cancel(t.Context(), ex.ID); err != nil {
		t.Fatal(err)
	}
	log := h.follow(ex.ID)
	got := h.checkLog(ex.ID, log)
	if got.Status != executor.StatusCancelled || got.ErrorCode != "cancelled" || got.OutputTokens == 0 {
		t.Errorf("execution: %+v", got)
	}
	if last := log[len(log)-1]; last.Type != events.TypeExecutionError || last.Data["code"] != "cancelled" {
		t.Errorf("terminal event: %v", last)
	}
	for name, state := range h.states(ex.ID) {
		if state.Status != "cancelled" || state.Output != "partial " {
			t.Errorf("%s: %+v", name, state)
		}
	}
	if s.count("never") != 0 {
		t.Error("the chain went on")
	}
	if _, err := h.exec.Cancel(t.Context(), ex.ID); err != nil {
		t.Errorf("cancelling again: %v", err)
	}
	if _, err := h.exec.Cancel(t.Context(), 1<<40); !errors.Is(err, executor.ErrNotFound) {
		t.Errorf("cancelling nothing: %v", err)
	}
	finished := h.trigger(h.chain(brief), map[string]string{"topic": "x"})
	h.follow(finished.ID)
	if got, err := h.exec.Cancel(t.Context(), finished.ID); !errors.Is(err, executor.ErrFinished) || got.Status != executor.StatusCompleted {
		t.Errorf("cancelling what has completed: %v", err)
	}
}

func TestCancelInTheQueue(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{Workers: -1})
	ex := h.trigger(h.chain(brief), map[string]string{"topic": "x"})
	if _, err := h.exec.Cancel(t.Context(), ex.ID); err != nil {
		t.Fatal(err)
	}
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCancelled {
		t.Errorf("execution: %+v", got)
	}
	if diff := cmp.Diff([]string{"execution-start", "execution-error"}, outline(log)); diff != "" {
		t.Error(diff)
	}
}

// What runs when the process stops goes on in the next one: finished prompts
// are not called again, the unfinished one starts over, and no text of two
// attempts is mixed.
func TestRestartGoesOn(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 1)
	s := script(answers{
		"first": say("first"),
		"second": func(ctx context.Context, call int, req llm.Request, say func(string) bool) error {
			if call == 1 {
				return hang("lost ", reached)(ctx, call, req, say)
			}
			say("kept")
			return nil
		},
	})
	h := newHarness(t, s.entry(), executor.Config{Owner: "one"})
	v := h.chain(`
name: restart
prompts:
  - {name: First, position: 1, model: test/first, content: x}
  - {name: Second, position: 2, model: test/second, content: "${first}"}
`)
	ex := h.trigger(v, nil)
	<-reached
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.exec.Stop(expired); err != nil {
		t.Fatal(err)
	}
	next := executor.New(h.store, h.log, llm.NewRegistry(s.entry()), executor.Config{Owner: "two", Workers: 5})
	next.Start()
	defer func() {
		if err := next.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("execution: %+v", got)
	}
	if s.count("first") != 1 || s.count("second") != 2 {
		t.Errorf("calls: %d and %d", s.count("first"), s.count("second"))
	}
	if n := len(find(log, events.TypeExecutionStart)); n != 1 {
		t.Errorf("%d starts", n)
	}
	retry := find(log, events.TypePromptRetry)
	if len(retry) != 1 || retry[0].Data["attempt"] != 2.0 {
		t.Fatalf("retries: %v", retry)
	}
	if got := text(t, log, v.PromptIDs[1], 2); got != "kept" {
		t.Errorf("text %q", got)
	}
	if got := h.states(ex.ID)["Second"].Output; got != "kept" {
		t.Errorf("output %q", got)
	}
}

func TestCrashLoopEnds(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{Workers: -1})
	ex := h.trigger(h.chain(brief), map[string]string{"topic": "x"})
	for range 3 { // claimed by processes that die at once
		if _, err := h.store.Claim(t.Context(), "dying", 10, -time.Second); err != nil {
			t.Fatal(err)
		}
	}
	next := executor.New(h.store, h.log, llm.NewRegistry(nil), executor.Config{Owner: "two", Workers: 5})
	next.Start()
	defer func() {
		if err := next.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.ErrorCode != "crash_loop" {
		t.Errorf("execution: %+v", got)
	}
}

func TestPanicEndsOneExecutionOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{Retriever: panicking{}})
	v := h.chain(`
name: panic
prompts:
  - {name: P, position: 1, model: offline/echo, content: x, knowledge: {repositories: [1]}}
`)
	ex, fine := h.trigger(v, nil), h.trigger(h.chain(brief), map[string]string{"topic": "x"})
	if got := h.checkLog(ex.ID, h.follow(ex.ID)); got.ErrorCode != "internal" {
		t.Errorf("execution: %+v", got)
	}
	if got := h.checkLog(fine.ID, h.follow(fine.ID)); got.Status != executor.StatusCompleted {
		t.Errorf("another execution: %+v", got)
	}
}

// A model may send anything; the log stores it repaired and says so.
func TestBrokenTextIsRepaired(t *testing.T) {
	t.Parallel()
	s := script(answers{"broken": say("a\x00b\xffc")})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain("name: broken\nprompts:\n  - {name: P, position: 1, model: test/broken, content: x}\n")
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("execution: %+v", got)
	}
	if got := text(t, log, v.PromptIDs[0], 1); got != "a\uFFFDb\uFFFDc" {
		t.Errorf("text %q", got)
	}
	if got := h.states(ex.ID)["P"].Output; got != "a\uFFFDb\uFFFDc" {
		t.Errorf("output %q", got)
	}
}

func TestEventLimit(t *testing.T) {
	t.Parallel()
	s := script(answers{"endless": func(ctx context.Context, _ int, _ llm.Request, say func(string) bool) error {
		for ctx.Err() == nil {
			say("more ")
		}
		return nil
	}})
	h := newHarness(t, s.entry(), executor.Config{MaxEvents: 50, DeltaInterval: time.Nanosecond, Deadlines: llm.Deadlines{MaxBytes: -1}})
	v := h.chain("name: endless\nprompts:\n  - {name: P, position: 1, model: test/endless, content: x}\n")
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.ErrorCode != "limit_exceeded" || !strings.Contains(got.Error, "50") {
		t.Errorf("execution: %+v", got)
	}
}

func TestStructuredOutputIsChecked(t *testing.T) {
	t.Parallel()
	s := script(answers{"json": func(_ context.Context, call int, _ llm.Request, say func(string) bool) error {
		say([]string{`{"title": 7}`, `{"title": "Rivers"}`}[call-1])
		return nil
	}, "plain": say("fine")})
	h := newHarness(t, s.entry(), executor.Config{Retry: quick})
	v := h.chain(`
name: structured
prompts:
  - name: Plan
    position: 1
    model: test/json
    content: x
    output: {schema: {type: object, properties: {title: {type: string}}, required: [title]}}
  - {name: Use, position: 2, model: test/plain, content: "About ${plan.title}"}
`)
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("execution: %+v", got)
	}
	if n := len(find(log, events.TypePromptRetry)); n != 1 {
		t.Errorf("%d retries", n)
	}
	vars := find(log, events.TypeVariableSubstitution)
	want := map[string]any{"plan.title": "Rivers"}
	if len(vars) != 1 || !cmp.Equal(vars[0].Data["variables"], any(want)) {
		t.Errorf("variables: %v", vars)
	}
}

// Three prompts run side by side and end in any order; what the prompt after
// them is asked is the same every time.
func TestParallelHistoryIsDeterministic(t *testing.T) {
	t.Parallel()
	var asked []llm.Request
	answer := func(ctx context.Context, _ int, req llm.Request, say func(string) bool) error {
		select {
		case <-time.After(rand.N(3 * time.Millisecond)):
		case <-ctx.Done():
		}
		say("answer of " + req.Model)
		return nil
	}
	s := script(answers{"a": answer, "b": answer, "c": answer, "sum": func(_ context.Context, _ int, req llm.Request, say func(string) bool) error {
		asked = append(asked, req)
		say("sum")
		return nil
	}})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain(`
name: three
prompts:
  - {name: A, position: 1, model: test/a, content: question a}
  - {name: B, position: 1, model: test/b, content: question b}
  - {name: C, position: 1, model: test/c, content: question c}
  - {name: Sum, position: 2, model: test/sum, content: "${a} ${b} ${c}", history: full}
`)
	for n := range 100 {
		ex := h.trigger(v, nil)
		h.checkLog(ex.ID, h.follow(ex.ID))
		if diff := cmp.Diff(asked[0], asked[n]); diff != "" {
			t.Fatalf("run %d: %s", n+1, diff)
		}
	}
	var turns []string
	for _, m := range asked[0].Messages {
		turns = append(turns, m.Text)
	}
	want := []string{
		"question a", "answer of a", "question b", "answer of b", "question c", "answer of c", "answer of a answer of b answer of c",
	}
	if diff := cmp.Diff(want, turns); diff != "" {
		t.Error(diff)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{})
	v := h.chain(brief)
	type result struct {
		id       int64
		replayed bool
		err      error
	}
	send := func(hash byte) result {
		ex, replayed, err := h.exec.Trigger(t.Context(), executor.Trigger{
			Version: v, Inputs: map[string]any{"topic": "x"}, Key: executor.IdempotencyKey{Key: "k", Hash: [32]byte{hash}},
		})
		return result{ex.ID, replayed, err}
	}
	results := make(chan result)
	for range 100 {
		go func() { results <- send(1) }()
	}
	first, fresh := int64(0), 0
	for range 100 {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		if first == 0 {
			first = r.id
		}
		if r.id != first {
			t.Errorf("executions %d and %d", first, r.id)
		}
		if !r.replayed {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d requests made an execution", fresh)
	}
	if r := send(2); !errors.Is(r.err, executor.ErrKeyReused) {
		t.Errorf("another request under the key: %v", r.err)
	}
	h.follow(first)
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{Workers: -1, MaxQueued: 3})
	v := h.chain(brief)
	for range 3 {
		h.trigger(v, map[string]string{"topic": "x"})
	}
	_, _, err := h.exec.Trigger(t.Context(), executor.Trigger{Version: v, Inputs: map[string]any{"topic": "x"}})
	if !errors.Is(err, executor.ErrQueueFull) {
		t.Errorf("the fourth: %v", err)
	}
}

func TestEventsFollowTheSchema(t *testing.T) {
	t.Parallel()
	compiled := compileSchemas(t)
	s := script(answers{
		"flaky": func(_ context.Context, call int, _ llm.Request, say func(string) bool) error {
			say("x")
			if call == 1 {
				return llm.NewError(llm.CodeUnavailable, nil)
			}
			return nil
		},
		"bad": fail("", llm.CodeUnauthorized),
	})
	h := newHarness(t, s.entry(), executor.Config{Retry: quick, Retriever: library{}})
	v := h.chain(`
name: all-events
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: A, position: 1, model: test/flaky, content: "${topic} ${knowledge}", knowledge: {repositories: [1], maxChunks: 2}}
  - {name: B, position: 1, model: test/bad, content: x, onError: continue}
  - {name: C, position: 2, model: test/bad, content: "${a}"}
`)
	ex := h.trigger(v, map[string]string{"topic": "rivers"})
	log := h.follow(ex.ID)
	h.checkLog(ex.ID, log)
	seen := make(map[events.Type]bool)
	for _, e := range log {
		seen[e.Type] = true
		if err := compiled[e.Type].Validate(e.Data); err != nil {
			t.Errorf("event %d, %s: %v", e.Seq, e.Type, err)
		}
	}
	good := h.trigger(h.chain(brief), map[string]string{"topic": "x"})
	for _, e := range h.follow(good.ID) {
		seen[e.Type] = true
		if err := compiled[e.Type].Validate(e.Data); err != nil {
			t.Errorf("event %d, %s: %v", e.Seq, e.Type, err)
		}
	}
	for _, want := range []events.Type{
		events.TypeKnowledgeRetrievalStart, events.TypeKnowledgeRetrieved, events.TypePromptRetry, events.TypeLLMError,
		events.TypePromptError, events.TypeExecutionError, events.TypeExecutionComplete, events.TypeVariableSubstitution,
	} {
		if !seen[want] {
			t.Errorf("no %s was seen", want)
		}
	}
	var order []string
	for _, e := range log {
		if e.Data["promptId"] == float64(v.PromptIDs[0]) && !e.Type.Delta() {
			order = append(order, string(e.Type))
		}
	}
	want := []string{
		"prompt-start", "knowledge-retrieval-start", "knowledge-retrieved", "variable-substitution", "llm-request", "llm-error",
		"prompt-retry", "prompt-start", "llm-request", "llm-response", "prompt-complete",
	}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Error(diff)
	}
	if got := h.states(ex.ID)["A"].UserMessage; !strings.Contains(got, "[1] Guide\nRivers flow.") {
		t.Errorf("the model was asked %q", got)
	}
	raw, err := json.Marshal(find(log, events.TypeKnowledgeRetrieved)[0].Data["chunks"])
	if err != nil || string(raw) != `[{"chunkId":11,"citation":1,"document":"Guide","documentId":1,"score":0.9},`+
		`{"chunkId":12,"citation":2,"document":"Guide","documentId":1,"score":0.7}]` {
		t.Errorf("chunks %s", raw)
	}
}
