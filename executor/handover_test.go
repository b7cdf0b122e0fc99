package executor_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/postgres"
)

// gated answers a text when the gate opens.
func gated(text string, reached chan<- struct{}, gate <-chan struct{}) func(context.Context, int, llm.Request, func(string) bool) error {
	return func(ctx context.Context, _ int, _ llm.Request, say func(string) bool) error {
		reached <- struct{}{}
		select {
		case <-gate:
			say(text)
		case <-ctx.Done():
		}
		return nil
	}
}

// announcements counts what other processes are told.
type announcements struct{ queued atomic.Int64 }

func (a *announcements) Queued()         { a.queued.Add(1) }
func (a *announcements) Cancelled(int64) {}

// A stop lets the model calls that are under way end, all siblings of a position,
// keeps what they answered, and begins no other prompt. The next process pays for
// nothing twice, and nothing counts as a crash.
func TestHandOver(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}, 2), make(chan struct{})
	s := script(answers{
		"first": say("first"), "left": gated("left", reached, gate), "right": gated("right", reached, gate), "last": say("last"),
	})
	told := &announcements{}
	h := newHarness(t, s.entry(), executor.Config{Owner: "one", Announcer: told})
	ex := h.trigger(h.chain(`
name: three
prompts:
  - {name: First, position: 1, model: test/first, content: x}
  - {name: Left, position: 2, model: test/left, content: "${first}"}
  - {name: Right, position: 2, model: test/right, content: "${first}"}
  - {name: Last, position: 3, model: test/last, content: "${left} ${right}"}
`), nil)
	<-reached
	<-reached
	h.exec.HandOver(done(t))
	next := h.trigger(h.chain("name: later\nprompts: [{name: P, model: test/first, content: x}]\n"), nil) // still taken, for others
	before := told.queued.Load()
	close(gate)
	h.exec.HandOver(t.Context())
	if told.queued.Load() == before {
		t.Error("nobody was told that the execution was given back")
	}
	got, err := h.store.Execution(t.Context(), ex.ID)
	if err != nil || got.Status != executor.StatusRunning || got.Claims != 0 || h.exec.Running() != 0 {
		t.Errorf("handed over: %+v, %v; %d still run", got, err, h.exec.Running())
	}
	if s.count("last") != 0 {
		t.Error("a prompt was begun after the stop")
	}
	if got, err := h.store.Execution(t.Context(), next.ID); err != nil || got.Status != executor.StatusQueued {
		t.Errorf("triggered during the stop: %s, %v", got.Status, err)
	}
	h.resume(s.entry(), executor.Config{Owner: "two"})
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted || got.Epoch != 2 {
		t.Errorf("execution: %+v", got)
	}
	h.checkLog(next.ID, h.follow(next.ID))
	if n := len(find(log, events.TypePromptRetry)); n != 0 {
		t.Errorf("%d attempts were repeated", n)
	}
	calls := map[string]int{"left": s.count("left"), "right": s.count("right"), "last": s.count("last")}
	if diff := cmp.Diff(map[string]int{"left": 1, "right": 1, "last": 1}, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// A prompt that waits for its next attempt is let go at once, and the attempt
// that was announced is the next process's, at its time.
func TestHandOverBetweenAttempts(t *testing.T) {
	t.Parallel()
	s := script(answers{"busy": func(_ context.Context, call int, _ llm.Request, say func(string) bool) error {
		if call == 1 {
			return &llm.Error{Code: llm.CodeOverloaded, Message: "busy", Retryable: true, RetryAfter: 50 * time.Second}
		}
		say("there")
		return nil
	}})
	h := newHarness(t, s.entry(), executor.Config{Owner: "one"})
	ex := h.trigger(h.chain("name: waiting\nprompts:\n  - {name: P, position: 1, model: test/busy, content: x}\n"), nil)
	h.await(ex.ID, events.TypePromptRetry)
	h.exec.HandOver(t.Context())
	h.resume(s.entry(), executor.Config{Owner: "two", Now: func() time.Time { return time.Now().Add(time.Minute) }})
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("execution: %s, %s", got.Status, got.Error)
	}
	if n := len(find(log, events.TypePromptRetry)); n != 1 {
		t.Errorf("the attempt was announced %d times", n)
	}
	if got := h.states(ex.ID)["P"]; got.Attempt != 2 || got.Output != "there" {
		t.Errorf("prompt: %+v", got)
	}
}

// Twenty stops in a row, one in each prompt, are no crash.
func TestHandOverIsNoCrash(t *testing.T) {
	t.Parallel()
	const prompts = 20
	reached, gate := make(chan struct{}), make(chan struct{})
	s := script(answers{"next": gated("x", reached, gate)})
	h := newHarness(t, s.entry(), executor.Config{Workers: -1})
	document := "name: long\nprompts:\n"
	for i := range prompts {
		document += fmt.Sprintf("  - {name: P%d, position: %d, model: test/next, content: x}\n", i, i+1)
	}
	ex := h.trigger(h.chain(document), nil)
	for i := range prompts {
		e := executor.New(h.store, h.log, llm.NewRegistry(s.entry()), executor.Config{Owner: fmt.Sprint("owner-", i), Workers: 1})
		e.Start()
		<-reached
		e.HandOver(done(t))
		gate <- struct{}{}
		if err := e.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := h.checkLog(ex.ID, h.follow(ex.ID))
	if got.Status != executor.StatusCompleted || got.Epoch != prompts || s.count("next") != prompts {
		t.Errorf("%s in epoch %d after %d calls: %s", got.Status, got.Epoch, s.count("next"), got.Error)
	}
}

// done answers a context that has ended.
func done(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// forgetfulStore cannot renew leases.
type forgetfulStore struct {
	*postgres.Store
	tries atomic.Int32
}

func (s *forgetfulStore) Renew(context.Context, string, []int64, time.Duration) (map[int64]executor.Lease, error) {
	s.tries.Add(1)
	return nil, errors.New("the database is slow")
}

// Renewing fails for longer than the lease, and nobody takes over: the run still
// holds its epoch and goes on to its end.
func TestRenewalFailsAndNobodyTakesOver(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}, 1), make(chan struct{})
	s := script(answers{"slow": gated("slow", reached, gate)})
	h := newHarness(t, s.entry(), executor.Config{Workers: -1})
	ex := h.trigger(h.chain("name: slow\nprompts: [{name: P, model: test/slow, content: x}]\n"), nil)
	store := &forgetfulStore{Store: h.store}
	lease := 100 * time.Millisecond
	e := executor.New(store, h.log, llm.NewRegistry(s.entry()), executor.Config{Owner: "two", Workers: 2, Lease: lease, Renew: lease / 10, Poll: lease / 10})
	e.Start()
	<-reached
	begin := time.Now()
	tick := time.NewTicker(lease / 10)
	defer tick.Stop()
	for time.Since(begin) < 3*lease || store.tries.Load() < 5 {
		<-tick.C
	}
	close(gate)
	if got := h.checkLog(ex.ID, h.follow(ex.ID)); got.Status != executor.StatusCompleted || got.Epoch != 1 || s.count("slow") != 1 {
		t.Errorf("%s in epoch %d after %d calls", got.Status, got.Epoch, s.count("slow"))
	}
	if err := e.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// An execution that kills every server that runs it fails as a crash loop, and
// so does nothing else.
func TestCrashLoopLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{Workers: -1})
	v := h.chain(brief)
	bad := h.trigger(v, map[string]string{"topic": "x"})
	for range 3 {
		if _, err := h.store.Claim(t.Context(), "dying", 10, -time.Second); err != nil {
			t.Fatal(err)
		}
	}
	good := h.trigger(v, map[string]string{"topic": "y"})
	h.resume(map[string]llm.Entry{"offline": {Provider: &offline.Provider{}, Demo: true}}, executor.Config{Owner: "two"})
	if got := h.checkLog(bad.ID, h.follow(bad.ID)); got.ErrorCode != "crash_loop" || got.Epoch != 4 {
		t.Errorf("execution: %+v", got)
	}
	if got := h.checkLog(good.ID, h.follow(good.ID)); got.Status != executor.StatusCompleted {
		t.Errorf("the other: %+v", got)
	}
}
