package executor_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// impatient is a policy under which any wait is a long one.
var impatient = llm.RetryPolicy{MaxRetryAfter: time.Nanosecond, Base: time.Nanosecond, Max: time.Nanosecond, Rand: func() float64 { return 0 }}

// limited fails as often as said, asking for a wait, and then answers.
func limitedFor(times int, wait time.Duration) func(context.Context, int, llm.Request, func(string) bool) error {
	return func(_ context.Context, call int, _ llm.Request, say func(string) bool) error {
		if call <= times {
			e := llm.NewError(llm.CodeRateLimited, nil)
			e.RetryAfter = wait
			return e
		}
		say("there")
		return nil
	}
}

// waits waits until an execution waits, and answers it.
func (h *harness) waits(id int64) executor.Execution {
	h.t.Helper()
	return h.until(id, func(ex executor.Execution) bool { return ex.Status == executor.StatusWaiting })
}

// until waits until an execution is as wanted.
func (h *harness) until(id int64, wanted func(executor.Execution) bool) executor.Execution {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ex, err := h.store.Execution(ctx, id)
		if err != nil {
			h.t.Fatal(err)
		}
		if wanted(ex) {
			return ex
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.t.Fatalf("execution %d is %s", id, ex.Status)
		}
	}
}

const waitingChain = "name: waiting\nprompts:\n  - {name: P, model: test/busy, content: x}\n"

// A long wait holds neither worker nor lease; the execution goes on when the
// database's clock says so, and not earlier.
func TestLongWaitFreesTheWorker(t *testing.T) {
	t.Parallel()
	s := script(answers{"busy": limitedFor(1, 3*time.Second), "fine": say("fine")})
	h := newHarness(t, s.entry(), executor.Config{Workers: 1, Retry: impatient, Poll: 10 * time.Millisecond})
	ex := h.trigger(h.chain(waitingChain), nil)
	waiting := h.waits(ex.ID)
	if waiting.WakeAt == nil || waiting.Claims != 0 || waiting.Epoch != 1 {
		t.Errorf("waiting: %+v", waiting)
	}
	// The only worker is free.
	other := h.trigger(h.chain("name: other\nprompts: [{name: P, model: test/fine, content: x}]\n"), nil)
	if got := h.checkLog(other.ID, h.follow(other.ID)); got.Status != executor.StatusCompleted {
		t.Errorf("the other: %+v", got)
	}
	log := h.follow(ex.ID)
	got := h.checkLog(ex.ID, log)
	if got.Status != executor.StatusCompleted || got.Epoch != 2 || got.WakeAt != nil || s.count("busy") != 2 {
		t.Errorf("%s in epoch %d after %d calls, wakes at %v", got.Status, got.Epoch, s.count("busy"), got.WakeAt)
	}
	retry := find(log, events.TypePromptRetry)
	if len(retry) != 1 || retry[0].Data["delay"] != 3000.0 || retry[0].Data["modelId"] != "test/busy" || retry[0].Data["try"] != 2.0 {
		t.Fatalf("retries: %v", retry)
	}
	if begun := when(t, find(log, events.TypePromptStart)[1]); begun.Before(waiting.WakeAt.Truncate(time.Millisecond)) {
		t.Errorf("the attempt began at %v, before %v", begun, waiting.WakeAt)
	}
}

// delayOf answers the wait that a prompt-retry announces.
func delayOf(e event) time.Duration {
	ms, _ := e.Data["delay"].(float64)
	return time.Duration(ms * float64(time.Millisecond))
}

// when answers the time of an event.
func when(t *testing.T, e event) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, fmt.Sprint(e.Data["timestamp"]))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// The attempts of a model count over waits and servers: one that always asks
// for another wait is not waited for for ever, and no wake counts as a crash.
func TestWaitsAreCounted(t *testing.T) {
	t.Parallel()
	s := script(answers{"busy": limitedFor(100, 10*time.Millisecond)})
	h := newHarness(t, s.entry(), executor.Config{Retry: impatient, Poll: 5 * time.Millisecond, MaxClaims: 2})
	ex := h.trigger(h.chain("name: waiting\nprompts:\n  - {name: P, model: test/busy, content: x, retry: {attempts: 6}}\n"), nil)
	log := h.follow(ex.ID)
	got := h.checkLog(ex.ID, log)
	if got.ErrorCode != "rate_limited" || got.Epoch != 6 || s.count("busy") != 6 {
		t.Errorf("%s in epoch %d after %d calls", got.ErrorCode, got.Epoch, s.count("busy"))
	}
	for i, r := range find(log, events.TypePromptRetry) {
		if r.Data["try"] != float64(i+2) {
			t.Errorf("retry %d: %v", i+1, r.Data)
		}
	}
}

// A model that asks for a long wait is passed over while another can be asked;
// the last one is waited for, and is the one that is asked again.
func TestLongWaitPrefersFallbacks(t *testing.T) {
	t.Parallel()
	s := script(answers{"busy": limitedFor(100, time.Hour), "spare": limitedFor(1, 20*time.Millisecond)})
	h := newHarness(t, s.entry(), executor.Config{Retry: impatient, Poll: 5 * time.Millisecond})
	ex := h.trigger(h.chain("name: waiting\nprompts:\n  - {name: P, model: test/busy, fallback: [test/spare], content: x}\n"), nil)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted || got.Epoch != 2 {
		t.Errorf("%s in epoch %d: %s", got.Status, got.Epoch, got.Error)
	}
	var said []string
	for _, r := range find(log, events.TypePromptRetry) {
		said = append(said, fmt.Sprint(r.Data["modelId"], " ", r.Data["try"], " ", r.Data["delay"], " ", r.Data["reason"]))
	}
	want := []string{
		"test/spare 1 0 The model provider limits the rate of requests. Falling back to test/spare.",
		"test/spare 2 20 The model provider limits the rate of requests.",
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Error(diff)
	}
	if s.count("busy") != 1 || s.count("spare") != 2 {
		t.Errorf("calls: %d and %d", s.count("busy"), s.count("spare"))
	}
}

// The siblings of a prompt that waits are run to their end first, and several
// waits are over one after the other.
func TestSiblingsOfAWait(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	s := script(answers{
		"soon": limitedFor(1, time.Second), "late": limitedFor(1, 3*time.Second),
		"slow": func(_ context.Context, _ int, _ llm.Request, say func(string) bool) error {
			<-gate
			say("slow")
			return nil
		},
		"after": say("after"),
	})
	h := newHarness(t, s.entry(), executor.Config{Retry: impatient, Poll: 5 * time.Millisecond})
	v := h.chain(`
name: siblings
prompts:
  - {name: Soon, position: 1, model: test/soon, content: x}
  - {name: Late, position: 1, model: test/late, content: x}
  - {name: Slow, position: 1, model: test/slow, content: x}
  - {name: After, position: 2, model: test/after, content: x}
`)
	ex := h.trigger(v, nil)
	h.await(ex.ID, events.TypePromptRetry)
	if got, err := h.store.Execution(t.Context(), ex.ID); err != nil || got.Status != executor.StatusRunning {
		t.Errorf("%s while a sibling runs, %v", got.Status, err)
	}
	close(gate)
	h.waits(ex.ID)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("%s: %s", got.Status, got.Error)
	}
	for _, model := range []string{"soon", "late"} {
		if s.count(model) != 2 {
			t.Errorf("%s: %d calls", model, s.count(model))
		}
	}
	for _, e := range find(log, events.TypePromptRetry) {
		delay := delayOf(e)
		for _, begun := range find(log, events.TypePromptStart) {
			if begun.Data["promptId"] == e.Data["promptId"] && begun.Data["attempt"] == 2.0 && when(t, begun).Sub(when(t, e)) < delay-time.Millisecond {
				t.Errorf("attempt 2 of prompt %v began %v after it was announced for %v", e.Data["promptId"], when(t, begun).Sub(when(t, e)), delay)
			}
		}
	}
	if s.count("after") != 1 {
		t.Errorf("%d calls of the prompt behind them", s.count("after"))
	}
}

// Where a sibling fails the chain, nobody waits any more.
func TestFailureBesideAWait(t *testing.T) {
	t.Parallel()
	s := script(answers{"busy": limitedFor(1, time.Hour), "bad": fail("", llm.CodeUnauthorized)})
	h := newHarness(t, s.entry(), executor.Config{Retry: impatient})
	v := h.chain(`
name: siblings
prompts:
  - {name: Busy, position: 1, model: test/busy, content: x}
  - {name: Bad, position: 1, model: test/bad, content: x}
`)
	ex := h.trigger(v, nil)
	if got := h.checkLog(ex.ID, h.follow(ex.ID)); got.ErrorCode != "unauthorized" || got.Epoch != 1 {
		t.Errorf("%s in epoch %d", got.ErrorCode, got.Epoch)
	}
	if state := h.states(ex.ID)["Busy"]; state.Status != "failed" || state.ErrorCode != "rate_limited" {
		t.Errorf("the prompt that waited: %s, %s", state.Status, state.ErrorCode)
	}
}

// The deadlines of the execution and of the prompt end a wait.
func TestDeadlinesEndAWait(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, prompt, chain, code string }{
		{"of the prompt", "timeout: 5s", "", "prompt_timeout"},
		{"of the chain", "timeout: 1h", "limits: {timeout: 5s}", "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := script(answers{"busy": limitedFor(1, time.Hour)})
			h := newHarness(t, s.entry(), executor.Config{Retry: impatient, Poll: 5 * time.Millisecond})
			ex := h.trigger(h.chain("name: waiting\n"+tt.chain+"\nprompts:\n  - {name: P, model: test/busy, content: x, "+tt.prompt+"}\n"), nil)
			got := h.checkLog(ex.ID, h.follow(ex.ID))
			if got.ErrorCode != tt.code || got.Epoch < 2 /* it was put down */ || s.count("busy") != 1 {
				t.Errorf("%s in epoch %d after %d calls", got.ErrorCode, got.Epoch, s.count("busy"))
			}
			if state := h.states(ex.ID)["P"]; state.ErrorCode != tt.code {
				t.Errorf("prompt: %s, %s", state.Status, state.ErrorCode)
			}
		})
	}
}

// A cancel ends an execution that waits at once, whoever is asked.
func TestCancelOfAWait(t *testing.T) {
	t.Parallel()
	s := script(answers{"busy": limitedFor(1, time.Hour)})
	h := newHarness(t, s.entry(), executor.Config{Retry: impatient})
	for name, cancel := range map[string]func(id int64){
		"here": func(id int64) { _, _ = h.exec.Cancel(t.Context(), id) },
		"by a server that may not run": func(id int64) {
			leaving := executor.New(h.store, h.log, llm.NewRegistry(s.entry()), executor.Config{Owner: "leaving"})
			leaving.HandOver(t.Context())
			_, _ = leaving.Cancel(t.Context(), id)
		},
	} {
		s.mu.Lock()
		s.calls["busy"] = 0
		s.mu.Unlock()
		ex := h.trigger(h.chain(strings.Replace(waitingChain, "waiting", "waiting-"+strings.ReplaceAll(name, " ", "-"), 1)), nil)
		h.waits(ex.ID)
		cancel(ex.ID)
		log := h.follow(ex.ID)
		if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCancelled || got.WakeAt != nil {
			t.Errorf("%s: %s, wakes at %v", name, got.Status, got.WakeAt)
		}
		if state := h.states(ex.ID)["P"]; state.Status != "cancelled" {
			t.Errorf("%s: prompt %s", name, state.Status)
		}
	}
}

// Another server goes on when the time has come, and asks the model that the
// wait was for.
func TestWaitOutlivesTheServer(t *testing.T) {
	t.Parallel()
	s := script(answers{"busy": limitedFor(1, 3*time.Second)})
	h := newHarness(t, s.entry(), executor.Config{Owner: "one", Retry: impatient})
	ex := h.trigger(h.chain(waitingChain), nil)
	waiting := h.waits(ex.ID)
	h.interrupt()
	h.resume(s.entry(), executor.Config{Owner: "two", Retry: impatient, Poll: 5 * time.Millisecond})
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted || got.Epoch != 2 {
		t.Errorf("%s in epoch %d", got.Status, got.Epoch)
	}
	if retries := find(log, events.TypePromptRetry); len(retries) != 1 {
		t.Errorf("announced %d times", len(retries))
	}
	if begun := when(t, find(log, events.TypePromptStart)[1]); begun.Before(waiting.WakeAt.Truncate(time.Millisecond)) {
		t.Errorf("the attempt began at %v, before %v", begun, waiting.WakeAt)
	}
}

// A server that dies between the announcement and the wait leaves a running
// execution; who takes it over waits for the rest of the time.
func TestCrashBeforeAWait(t *testing.T) {
	t.Parallel()
	s := script(answers{"busy": limitedFor(1, time.Hour)})
	h := newHarness(t, s.entry(), executor.Config{Owner: "one", Retry: llm.RetryPolicy{MaxRetryAfter: 2 * time.Hour, Rand: func() float64 { return 0 }}})
	ex := h.trigger(h.chain(waitingChain), nil)
	h.await(ex.ID, events.TypePromptRetry)
	h.interrupt()
	h.resume(s.entry(), executor.Config{Owner: "two", Poll: 5 * time.Millisecond})
	waiting := h.waits(ex.ID)
	if left := time.Until(*waiting.WakeAt); left > time.Hour || left < 58*time.Minute || s.count("busy") != 1 {
		t.Errorf("%v are left after %d calls", left, s.count("busy"))
	}
	if waiting.Claims != 0 {
		t.Errorf("%d claims are counted", waiting.Claims)
	}
}

// A stop does not hold on to what waits, and lets what is about to wait go.
func TestHandOverOfAWait(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}), make(chan struct{})
	s := script(answers{"busy": func(ctx context.Context, call int, req llm.Request, say func(string) bool) error {
		close(reached)
		<-gate
		return limitedFor(1, time.Hour)(ctx, call, req, say)
	}})
	h := newHarness(t, s.entry(), executor.Config{Retry: impatient})
	ex := h.trigger(h.chain(waitingChain), nil)
	<-reached
	left := make(chan struct{})
	go func() {
		h.exec.HandOver(t.Context())
		close(left)
	}()
	close(gate)
	<-left
	if got, err := h.store.Execution(t.Context(), ex.ID); err != nil || got.Status != executor.StatusWaiting {
		t.Errorf("%s, %v", got.Status, err)
	}
	if _, err := h.exec.Derive(t.Context(), executor.Derivation{Parent: ex.ID, Origin: executor.OriginRetry}); err == nil {
		t.Error("what waits was retried")
	}
}

// An execution that waits keeps its place among those of its chain.
func TestWaitKeepsItsPlace(t *testing.T) {
	t.Parallel()
	s := script(answers{"busy": limitedFor(1, 3*time.Second)})
	h := newHarness(t, s.entry(), executor.Config{Retry: impatient, Poll: 5 * time.Millisecond})
	v := h.chain("name: one-at-a-time\nlimits: {concurrency: 1}\nprompts: [{name: P, model: test/busy, content: x}]\n")
	first, second := h.trigger(v, nil), h.trigger(v, nil)
	h.waits(first.ID)
	if got, err := h.store.Execution(t.Context(), second.ID); err != nil || got.Status != executor.StatusQueued {
		t.Errorf("the second is %s, %v", got.Status, err)
	}
	a, b := h.checkLog(first.ID, h.follow(first.ID)), h.checkLog(second.ID, h.follow(second.ID))
	if b.StartedAt.Before(a.FinishedAt.Truncate(time.Millisecond)) {
		t.Errorf("the second began at %v, the first ended at %v", b.StartedAt, a.FinishedAt)
	}
}
