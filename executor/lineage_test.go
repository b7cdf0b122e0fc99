package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm"
)

const family = `
name: family
inputs:
  topic: {type: short_text, default: rivers}
prompts:
  - {name: Outline, position: 1, model: test/outline, content: "outline ${topic}"}
  - {name: Left, position: 2, model: test/left, content: "left ${outline}"}
  - {name: Right, position: 2, model: test/right, content: "right ${outline}"}
  - {name: Merge, position: 3, model: test/merge, content: "merge ${left} ${right} ${topic}", history: full}
`

// echo answers with what it was asked.
func echo(_ context.Context, _ int, req llm.Request, say func(string) bool) error {
	say("<" + req.Messages[len(req.Messages)-1].Text + ">")
	return nil
}

// derive starts what a derivation means.
func (h *harness) derive(d executor.Derivation) executor.Execution {
	h.t.Helper()
	t, err := h.exec.Derive(h.t.Context(), d)
	if err != nil {
		h.t.Fatal(err)
	}
	ex, _, err := h.exec.Trigger(h.t.Context(), t)
	if err != nil {
		h.t.Fatal(err)
	}
	return ex
}

func retryOf(id int64) executor.Derivation {
	return executor.Derivation{Parent: id, Origin: executor.OriginRetry}
}

func forkOf(id int64, from string) executor.Derivation {
	return executor.Derivation{Parent: id, Origin: executor.OriginFork, FromPrompt: from}
}

// reusedIn answers the names of the prompts that an execution took over, with
// the execution that paid.
func (h *harness) reusedIn(id int64) map[string]int64 {
	h.t.Helper()
	out := make(map[string]int64)
	for name, s := range h.states(id) {
		if s.Reused != nil {
			out[name] = s.Reused.ExecutionID
		}
	}
	return out
}

// A retry calls only the models of the prompts that had not completed, and the
// others are in its log, its variables and its history as if they had run there.
func TestRetryCallsOnlyWhatIsUnfinished(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	var messages []llm.Message
	s := script(answers{
		"outline": echo, "left": echo,
		"right": func(ctx context.Context, call int, req llm.Request, say func(string) bool) error {
			if call == 1 {
				return &llm.Error{Code: llm.CodeUnauthorized, Message: "no", Status: 401} // costs nothing
			}
			return echo(ctx, call, req, say)
		},
		"merge": func(ctx context.Context, call int, req llm.Request, say func(string) bool) error {
			messages = req.Messages
			return echo(ctx, call, req, say)
		},
	})
	h := newHarnessOn(t, url, s.entry(), executor.Config{Retry: quick})
	parent := h.trigger(h.chain(family), nil)
	if got := h.checkLog(parent.ID, h.follow(parent.ID)); got.Status != executor.StatusFailed {
		t.Fatalf("the parent is %s", got.Status)
	}
	child := h.derive(retryOf(parent.ID))
	log := h.follow(child.ID)
	got := h.checkLog(child.ID, log)
	if got.Status != executor.StatusCompleted || got.Parent != parent.ID || got.Origin != executor.OriginRetry {
		t.Errorf("the retry: %+v", got)
	}
	if s.count("outline") != 1 || s.count("left") != 1 || s.count("right") != 2 || s.count("merge") != 1 {
		t.Errorf("calls %v", s.calls)
	}
	want := []string{
		"execution-start",
		"prompt-start 1", "prompt-complete 1", "progress 25",
		"prompt-start 2", "prompt-complete 2", "progress 50",
		"prompt-start 3", "variable-substitution 3", "llm-request 3", "llm-response 3", "prompt-complete 3", "progress 75",
		"prompt-start 4", "variable-substitution 4", "llm-request 4", "llm-response 4", "prompt-complete 4", "progress 100",
		"execution-complete",
	}
	if diff := cmp.Diff(want, outline(log)); diff != "" {
		t.Error(diff)
	}
	schemas := compileSchemas(t)
	for _, e := range log {
		if err := schemas[e.Type].Validate(e.Data); err != nil {
			t.Errorf("event %d: %v", e.Seq, err)
		}
	}
	if start := log[0].Data; start["parentExecutionId"] != float64(parent.ID) || start["origin"] != "retry" {
		t.Errorf("start: %v", start)
	}
	complete := find(log, events.TypePromptComplete)[0].Data
	if diff := cmp.Diff(map[string]any{"executionId": float64(parent.ID), "inputTokens": 10.0, "outputTokens": 5.0}, complete["reusedFrom"]); diff != "" {
		t.Error(diff)
	}
	if complete["output"] != "<outline rivers>" || complete["inputTokens"] != 0.0 || complete["outputTokens"] != 0.0 {
		t.Errorf("reused prompt: %v", complete)
	}
	if end := log[len(log)-1].Data; end["totalTokens"] != 30.0 || end["reusedTokens"] != 30.0 || end["savedCostUsd"] != nil {
		t.Errorf("end: %v", end)
	}
	out := h.states(child.ID)["Merge"].Output
	if out != "<merge <left <outline rivers>> <right <outline rivers>> rivers>" {
		t.Errorf("merged: %s", out)
	}
	var said []string
	for _, m := range messages {
		said = append(said, m.Text)
	}
	if diff := cmp.Diff([]string{
		"outline rivers", "<outline rivers>", "left <outline rivers>", "<left <outline rivers>>",
		"right <outline rivers>", "<right <outline rivers>>", "merge <left <outline rivers>> <right <outline rivers>> rivers",
	}, said); diff != "" {
		t.Errorf("history: %s", diff)
	}

	// What the fake model served is what both executions paid together, to the token.
	served := 15 * (s.count("outline") + s.count("left") + s.count("right") - 1 + s.count("merge"))
	for _, query := range []string{
		"SELECT sum(total_tokens)::int FROM v_executions",
		"SELECT sum(input_tokens + output_tokens)::int FROM v_prompt_runs",
		"SELECT sum(input_tokens + output_tokens)::int FROM v_costs_hourly",
	} {
		var paid int
		if pgtest.Row(t, url, query, nil, &paid); paid != served {
			t.Errorf("%s: %d, served %d", query, paid, served)
		}
	}
	var runs, reused, tokens int
	pgtest.Row(t, url, "SELECT sum(prompts)::int, sum(reused_prompts)::int, sum(reused_tokens)::int FROM v_costs_hourly", nil, &runs, &reused, &tokens)
	if runs != 5 || reused != 2 || tokens != 30 {
		t.Errorf("%d runs, %d reused with %d tokens", runs, reused, tokens)
	}
	pgtest.Row(t, url, "SELECT reused_prompts::int, reused_tokens::int FROM v_executions WHERE parent_execution_id = $1 AND origin = 'retry'", []any{parent.ID}, &reused, &tokens)
	if reused != 2 || tokens != 30 {
		t.Errorf("%d reused with %d tokens", reused, tokens)
	}

	if _, err := h.exec.Derive(t.Context(), retryOf(child.ID)); !errors.Is(err, executor.ErrCompleted) {
		t.Errorf("retry of a completed execution: %v", err)
	}
	if _, err := h.exec.Derive(t.Context(), retryOf(999)); !errors.Is(err, executor.ErrNotFound) {
		t.Errorf("retry of nothing: %v", err)
	}
}

// A fork runs its prompt and everything later again; prompts before it and
// finished siblings stay. The second generation leads back to who paid.
func TestFork(t *testing.T) {
	t.Parallel()
	s := script(answers{"outline": echo, "left": echo, "right": echo, "merge": echo, "other": echo})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain(family)
	first := h.trigger(v, nil)
	h.follow(first.ID)

	for _, from := range []string{"left", "Left", fmt.Sprint(v.PromptIDs[1])} {
		ex := h.derive(forkOf(first.ID, from))
		got := h.checkLog(ex.ID, h.follow(ex.ID))
		if diff := cmp.Diff(map[string]int64{"Outline": first.ID, "Right": first.ID}, h.reusedIn(ex.ID)); diff != "" || got.FromPrompt != "left" {
			t.Errorf("fork from %s, stored as %q: %s", from, got.FromPrompt, diff)
		}
	}
	d := forkOf(first.ID, "merge")
	d.Inputs = map[string]json.RawMessage{"topic": json.RawMessage(`"lakes"`)}
	d.Model = "test/other"
	second := h.derive(d)
	log := h.follow(second.ID)
	h.checkLog(second.ID, log)
	merged := h.states(second.ID)["Merge"]
	if merged.Output != "<merge <left <outline rivers>> <right <outline rivers>> lakes>" || merged.ModelID != "test/other" || s.count("other") != 1 {
		t.Errorf("changed input and model: %+v", merged)
	}
	third := h.derive(forkOf(second.ID, "right"))
	h.follow(third.ID)
	if diff := cmp.Diff(map[string]int64{"Outline": first.ID, "Left": first.ID}, h.reusedIn(third.ID)); diff != "" {
		t.Errorf("second generation: %s", diff)
	}
	if got := h.states(third.ID)["Merge"]; got.ModelID != "test/other" || !strings.HasSuffix(got.Output, " lakes>") {
		t.Errorf("the second generation lost the model or the inputs: %+v", got)
	}
	again := h.derive(forkOf(first.ID, ""))
	h.follow(again.ID)
	if got := h.reusedIn(again.ID); len(got) > 0 {
		t.Errorf("a re-run took over %v", got)
	}
	last, err := h.store.Executions(t.Context(), executor.Filter{Parent: first.ID, Limit: 10})
	if err != nil || len(last) != 5 {
		t.Errorf("%d children, %v", len(last), err)
	}
}

// A fork to another version takes over the prompts whose slug is still there and
// before the point, also after the chain was deleted.
func TestForkToAnotherVersion(t *testing.T) {
	t.Parallel()
	s := script(answers{"outline": echo, "left": echo, "right": echo, "merge": echo, "spare": echo})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain(family)
	first := h.trigger(v, nil)
	h.follow(first.ID)
	c, err := chain.Parse([]byte(`
name: family
inputs:
  tone: {type: short_text, default: dry}
prompts:
  - {name: Outline, position: 1, model: test/outline, content: "another outline"}
  - {name: Fresh, position: 1, model: test/spare, content: "fresh"}
  - {name: Left, position: 2, model: test/left, content: "left ${outline} ${fresh}"}
  - {name: Merge, position: 3, model: test/merge, content: "merge ${left} ${tone}"}
`), chain.FormatYAML)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.UpdateChain(t.Context(), v.ChainID, c); err != nil {
		t.Fatal(err)
	}
	if err := h.store.DeleteChain(t.Context(), v.ChainID); err != nil {
		t.Fatal(err)
	}
	d := forkOf(first.ID, "merge")
	d.Version = 2
	d.Models = map[string]string{"merge": "test/spare"}
	ex := h.derive(d)
	got := h.checkLog(ex.ID, h.follow(ex.ID))
	if diff := cmp.Diff(map[string]int64{"Outline": first.ID, "Left": first.ID}, h.reusedIn(ex.ID)); diff != "" || got.ChainVersion != 2 {
		t.Errorf("version %d: %s", got.ChainVersion, diff)
	}
	if m := h.states(ex.ID)["Merge"]; m.Output != "<merge <left <outline rivers>> dry>" || m.ModelID != "test/spare" {
		t.Errorf("merge: %+v", m)
	}
	if string(got.Inputs) != `{"tone": "dry"}` || s.count("outline") != 1 || s.count("spare") != 2 {
		t.Errorf("inputs %s, calls %v", got.Inputs, s.calls)
	}

	d = forkOf(first.ID, "nowhere")
	d.Model = "unheard/of"
	d.Models = map[string]string{"nobody": "test/left", "merge": "none/at-all"}
	d.Inputs = map[string]json.RawMessage{"topic": json.RawMessage(`7`), "surplus": json.RawMessage(`1`)}
	_, err = h.exec.Derive(t.Context(), d)
	problems, _ := errors.AsType[chain.Problems](err)
	var pointers []string
	for _, p := range problems {
		pointers = append(pointers, p.Pointer)
	}
	slices.Sort(pointers)
	if diff := cmp.Diff([]string{"/fromPrompt", "/inputs/surplus", "/inputs/topic", "/model", "/model/merge", "/model/nobody"}, pointers); diff != "" {
		t.Errorf("problems (%v): %s", err, diff)
	}
	d.Version = 9
	if _, err = h.exec.Derive(t.Context(), d); !strings.Contains(fmt.Sprint(err), "/version: ") {
		t.Errorf("unknown version: %v", err)
	}
}

// A cancelled execution is retried; a retry that is cancelled before it began is
// retried too, and takes over what it was to take over. A running one is neither.
func TestCancelAndRetry(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 5)
	s := script(answers{
		"outline": echo, "left": echo, "right": echo,
		"merge": func(ctx context.Context, call int, req llm.Request, say func(string) bool) error {
			if call == 1 {
				return hang("half", reached)(ctx, call, req, say)
			}
			return echo(ctx, call, req, say)
		},
	})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain(family)
	parent := h.trigger(v, nil)
	<-reached
	for _, d := range []executor.Derivation{retryOf(parent.ID), forkOf(parent.ID, "merge")} {
		if _, err := h.exec.Derive(t.Context(), d); !errors.Is(err, executor.ErrRunning) {
			t.Errorf("%s while it runs: %v", d.Origin, err)
		}
	}
	if _, err := h.exec.Cancel(t.Context(), parent.ID); err != nil {
		t.Fatal(err)
	}
	h.checkLog(parent.ID, h.follow(parent.ID))
	h.interrupt() // nobody claims the next one

	trigger, err := h.exec.Derive(t.Context(), retryOf(parent.ID))
	if err != nil {
		t.Fatal(err)
	}
	child, _, err := h.store.Enqueue(t.Context(), trigger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.RequestCancel(t.Context(), child.ID); err != nil {
		t.Fatal(err)
	}
	h.exec = h.resume(s.entry(), executor.Config{Owner: "two"})
	if got := h.checkLog(child.ID, h.follow(child.ID)); got.Status != executor.StatusCancelled || got.LastSeq != 2 {
		t.Fatalf("the child: %+v", got)
	}
	grandchild := h.derive(retryOf(child.ID))
	if got := h.checkLog(grandchild.ID, h.follow(grandchild.ID)); got.Status != executor.StatusCompleted || got.Parent != child.ID {
		t.Errorf("the grandchild: %+v", got)
	}
	if diff := cmp.Diff(map[string]int64{"Outline": parent.ID, "Left": parent.ID, "Right": parent.ID}, h.reusedIn(grandchild.ID)); diff != "" {
		t.Error(diff)
	}
	if s.count("outline") != 1 || s.count("left") != 1 || s.count("right") != 1 || s.count("merge") != 2 {
		t.Errorf("calls %v", s.calls)
	}
}

// A process that dies around the taking over leaves nothing half done: the next
// one finds all of it or none.
func TestCrashWhileReusing(t *testing.T) {
	t.Parallel()
	for _, reused := range []bool{false, true} {
		t.Run(fmt.Sprintf("reused %t", reused), func(t *testing.T) {
			t.Parallel()
			reached := make(chan struct{}, 5)
			s := script(answers{"outline": echo, "left": echo, "right": echo, "merge": func(ctx context.Context, call int, req llm.Request, say func(string) bool) error {
				switch {
				case call == 1:
					return llm.NewError(llm.CodeUnauthorized, nil)
				case reused && call == 2:
					return hang("", reached)(ctx, call, req, say)
				}
				return echo(ctx, call, req, say)
			}})
			h := newHarness(t, s.entry(), executor.Config{Owner: "one", Retry: quick})
			parent := h.trigger(h.chain(family), nil)
			h.follow(parent.ID)
			var child executor.Execution
			if reused {
				child = h.derive(retryOf(parent.ID))
				<-reached
				h.interrupt()
			} else {
				h.interrupt()
				trigger, err := h.exec.Derive(t.Context(), retryOf(parent.ID))
				if err != nil {
					t.Fatal(err)
				}
				if child, _, err = h.store.Enqueue(t.Context(), trigger); err != nil {
					t.Fatal(err)
				}
				// A process that claims it, writes the first event and is gone.
				claimed, ok, err := h.store.ClaimQueued(t.Context(), child.ID, "dead", -time.Second)
				if err != nil || !ok {
					t.Fatal(ok, err)
				}
				w := h.log.Writer(child.ID, claimed.Epoch, 0, nil)
				err = w.Append(events.Batch{Events: []events.Draft{{Payload: events.ExecutionStart{TotalPrompts: 4, ToolName: "family", ChainID: 1, ChainVersion: 1}}}}).Wait(t.Context())
				w.Close()
				if err != nil {
					t.Fatal(err)
				}
			}
			h.resume(s.entry(), executor.Config{Owner: "two"})
			log := h.follow(child.ID)
			if got := h.checkLog(child.ID, log); got.Status != executor.StatusCompleted {
				t.Errorf("the child: %+v", got)
			}
			taken := 0
			for _, e := range find(log, events.TypePromptComplete) {
				if e.Data["reusedFrom"] != nil {
					taken++
				}
			}
			if taken != 3 || len(h.reusedIn(child.ID)) != 3 || s.count("outline") != 1 || s.count("right") != 1 {
				t.Errorf("%d prompts taken over, calls %v", taken, s.calls)
			}
			h.checkFold(child.ID)
		})
	}
}

// Text that no prompt-complete can hold comes as deltas, so that a reader of the
// new log alone has all of it.
func TestReuseOfALongText(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ägypten ", 20_000)
	s := script(answers{"long": say(long), "bad": func(_ context.Context, call int, _ llm.Request, say func(string) bool) error {
		if call == 1 {
			return llm.NewError(llm.CodeUnauthorized, nil)
		}
		say("done")
		return nil
	}})
	h := newHarness(t, s.entry(), executor.Config{Retry: quick})
	v := h.chain("name: long\nprompts:\n  - {name: Long, position: 1, model: test/long, content: x}\n  - {name: Bad, position: 2, model: test/bad, content: y}\n")
	parent := h.trigger(v, nil)
	h.follow(parent.ID)
	child := h.derive(retryOf(parent.ID))
	log := h.follow(child.ID)
	h.checkLog(child.ID, log)
	if got := text(t, log, v.PromptIDs[0], 1); got != long || h.states(child.ID)["Long"].Output != long {
		t.Errorf("%d of %d bytes in the log, %d stored", len(got), len(long), len(h.states(child.ID)["Long"].Output))
	}
	h.checkFold(child.ID)
}

// Results that were erased between the wish and the claim are not made up.
func TestParentErasedBeforeTheClaim(t *testing.T) {
	t.Parallel()
	s := script(answers{"outline": echo, "left": echo, "right": echo, "merge": echo})
	h := newHarness(t, s.entry(), executor.Config{Owner: "one"})
	parent := h.trigger(h.chain(family), nil)
	h.follow(parent.ID)
	h.interrupt()
	trigger, err := h.exec.Derive(t.Context(), forkOf(parent.ID, "merge"))
	if err != nil {
		t.Fatal(err)
	}
	child, _, err := h.store.Enqueue(t.Context(), trigger)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.store.DeleteExecution(t.Context(), parent.ID); err != nil {
		t.Fatal(err)
	}
	h.resume(s.entry(), executor.Config{Owner: "two"})
	if got := h.checkLog(child.ID, h.follow(child.ID)); got.Status != executor.StatusFailed || got.ErrorCode != "reuse_gone" {
		t.Errorf("the child: %+v", got)
	}
	if n := s.count("merge"); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// checkFold fails the test unless the fold of an execution's whole log is what
// is stored of it.
func (h *harness) checkFold(id int64) {
	h.t.Helper()
	ex, err := h.store.Execution(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	records, err := h.store.Events(h.t.Context(), id, 0, 100_000)
	if err != nil {
		h.t.Fatal(err)
	}
	fold := events.NewFold()
	for _, rec := range records {
		if err := fold.Add(rec); err != nil {
			h.t.Fatal(err)
		}
	}
	utc := cmp.Transformer("utc", func(t time.Time) time.Time { return t.UTC() })
	if diff := cmp.Diff(ex, ex.At(fold), utc); diff != "" {
		h.t.Errorf("execution %d (-stored +folded): %s", id, diff)
	}
	stored, err := h.store.PromptStates(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	folded := fold.Prompts()
	byID := func(a, b events.PromptState) int { return int(a.PromptID - b.PromptID) }
	slices.SortFunc(folded, byID)
	slices.SortFunc(stored[id], byID)
	inNoEvent := cmpopts.IgnoreFields(events.PromptState{}, "Ordinal", "UserMessage", "CachedTokens", "ReasoningTokens")
	if diff := cmp.Diff(stored[id], folded, utc, inNoEvent, cmpopts.EquateEmpty()); diff != "" {
		h.t.Errorf("prompts of execution %d (-stored +folded): %s", id, diff)
	}
}

// The fold of the whole log is what is stored, whatever became of the execution.
func TestFoldIsWhatIsStored(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 5)
	flaky := func(ctx context.Context, call int, req llm.Request, say func(string) bool) error {
		if call%3 != 0 {
			say("wrong ")
			return llm.NewError(llm.CodeOverloaded, nil)
		}
		return echo(ctx, call, req, say)
	}
	s := script(answers{
		"echo": echo, "flaky": flaky, "bad": fail("half an ans", llm.CodeContentFiltered), "refused": fail("", llm.CodeUnauthorized),
		"hang": hang("so far", reached), "busy": func(_ context.Context, _ int, _ llm.Request, say func(string) bool) error {
			say("void")
			reached <- struct{}{}
			return &llm.Error{Code: llm.CodeOverloaded, Message: "busy", Retryable: true, RetryAfter: 50 * time.Second}
		},
	})
	h := newHarness(t, s.entry(), executor.Config{Retry: llm.RetryPolicy{Base: time.Millisecond, Max: time.Minute}})
	prompts := map[string]string{
		"completed": `{name: P, position: 1, model: test/echo, content: x}, {name: Q, position: 2, model: offline/echo, content: "${p}"}`,
		"flaky":     `{name: P, position: 1, model: test/flaky, content: x}, {name: Q, position: 2, model: test/flaky, content: "${p}"}`,
		"fallback":  `{name: P, position: 1, model: test/bad, content: x, retry: {attempts: 1}, fallback: [offline/echo]}`,
		"parallel":  `{name: A, position: 1, model: test/flaky, content: x}, {name: B, position: 1, model: test/bad, content: y}, {name: C, position: 1, model: offline/echo, content: z}, {name: D, position: 2, model: test/echo, content: z}`,
		"onwards":   `{name: P, position: 1, model: test/refused, content: x, onError: continue}, {name: Q, position: 2, model: test/echo, content: "${p}", onError: continue}, {name: R, position: 3, model: test/echo, content: r}`,
		"schema":    `{name: P, position: 1, model: test/echo, content: x, retry: {attempts: 2}, output: {schema: {type: object}}}`,
		"timeout":   `{name: P, position: 1, model: test/hang, content: x, timeout: 50ms}`,
	}
	var ids []int64
	for name, list := range prompts {
		ids = append(ids, h.trigger(h.chain("name: "+name+"\nprompts: ["+list+"]\n"), nil).ID)
	}
	for _, model := range []string{"hang", "busy"} {
		for len(reached) > 0 {
			<-reached
		}
		ex := h.trigger(h.chain("name: cut-"+model+"\nprompts: [{name: P, position: 1, model: offline/echo, content: x}, {name: Q, position: 2, model: test/"+model+", content: x}]\n"), nil)
		if model == "busy" {
			h.await(ex.ID, events.TypePromptRetry)
		} else {
			h.await(ex.ID, events.TypePromptDelta)
		}
		if _, err := h.exec.Cancel(t.Context(), ex.ID); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, ex.ID)
	}
	seen := make(map[executor.Status]int)
	for _, id := range ids {
		got := h.checkLog(id, h.follow(id))
		seen[got.Status]++
		h.checkFold(id)
		if got.Status == executor.StatusCompleted {
			continue
		}
		child := h.derive(retryOf(id))
		h.await(child.ID, events.TypeExecutionStart)
		if _, err := h.exec.Cancel(t.Context(), child.ID); err != nil && !errors.Is(err, executor.ErrFinished) {
			t.Fatal(err)
		}
		h.checkLog(child.ID, h.follow(child.ID))
		h.checkFold(child.ID)
	}
	if seen[executor.StatusCompleted] == 0 || seen[executor.StatusFailed] == 0 || seen[executor.StatusCancelled] == 0 {
		t.Errorf("states %v", seen)
	}
}
