package executor_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/postgres"
)

const shared = "name: shared\nprompts:\n  - {name: P, position: 1, model: test/m, content: the same, cache: 1h, retry: {attempts: 1}}\n"

// together starts n executions of a chain on harnesses in turn and waits until
// every one of them has begun its prompt.
func together(t *testing.T, v *chain.Version, n int, harnesses ...*harness) []executor.Execution {
	t.Helper()
	list := make([]executor.Execution, n)
	for i := range list {
		list[i] = harnesses[i%len(harnesses)].trigger(v, nil)
	}
	for _, ex := range list {
		harnesses[0].await(ex.ID, events.TypePromptStart)
	}
	return list
}

// tally follows executions to their ends and counts them by state, and those
// whose answer came from the cache.
func (h *harness) tally(list []executor.Execution) (states map[executor.Status]int, hits int) {
	h.t.Helper()
	states = make(map[executor.Status]int)
	for _, ex := range list {
		states[h.checkLog(ex.ID, h.follow(ex.ID)).Status]++
		if h.states(ex.ID)["P"].Cached {
			hits++
		}
	}
	return states, hits
}

// two answers two executors on one database, with one provider.
func two(t *testing.T, s *scripted, cfg executor.Config) (one, other *harness) {
	t.Helper()
	url := pgtest.Database(t)
	cfg.Workers = 25
	cfg.Owner = "one"
	one = newHarnessOn(t, url, s.priced("m"), cfg)
	cfg.Owner, cfg.Cache = "two", nil
	return one, newHarnessOn(t, url, s.priced("m"), cfg)
}

// Fifty identical prompts at once, on two servers: the provider sees one call.
func TestOneCallForAll(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}, 50), make(chan struct{})
	s := script(answers{"m": gated("yes", reached, gate)})
	one, other := two(t, s, executor.Config{})
	v := one.chain(shared)
	list := together(t, v, 50, one, other)
	close(gate)
	states, hits := one.tally(list)
	if states[executor.StatusCompleted] != 50 || hits != 49 || s.count("m") != 1 {
		t.Errorf("%v, %d hits, %d calls", states, hits, s.count("m"))
	}
	var cost, saved string
	pgtest.Query(t, one.url, "SELECT sum(cost_usd)::float8::text, sum(saved_cost_usd)::float8::text FROM v_cache", &cost, &saved)
	if cost != "2e-05" || saved != "0.00098" {
		t.Errorf("paid %s, saved %s", cost, saved)
	}
}

// The server that makes the call dies without a word: when its lease has run out,
// one of the others makes the call, and all have its answer.
func TestDeadCallerIsReplaced(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}, 50), make(chan struct{})
	s := script(answers{"m": func(ctx context.Context, call int, _ llm.Request, say func(string) bool) error {
		reached <- struct{}{}
		if call == 1 {
			<-ctx.Done()
			return nil
		}
		<-gate
		say("yes")
		return nil
	}})
	url := pgtest.Database(t)
	store, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	// What this one holds is never renewed nor released.
	one := newHarnessOn(t, url, s.entry(), executor.Config{Owner: "one", Workers: 1, Cache: forgetful{Store: store}, Lease: 2 * time.Second, Renew: 500 * time.Millisecond})
	v := one.chain(shared)
	first := one.trigger(v, nil)
	<-reached
	other := newHarnessOn(t, url, s.entry(), executor.Config{Owner: "two", Workers: 25, Lease: 2 * time.Second, Renew: 500 * time.Millisecond})
	list := append(together(t, v, 10, other), first)
	one.interrupt()
	<-reached
	close(gate)
	states, hits := other.tally(list)
	if states[executor.StatusCompleted] != 11 || hits != 10 || s.count("m") != 2 {
		t.Errorf("%v, %d hits, %d calls", states, hits, s.count("m"))
	}
}

// A call that is longer than a lease keeps it.
func TestLongCallKeepsItsLease(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}, 50), make(chan struct{})
	s := script(answers{"m": gated("yes", reached, gate)})
	one, other := two(t, s, executor.Config{Lease: 10 * time.Second, Renew: 50 * time.Millisecond})
	v := one.chain(shared)
	list := together(t, v, 4, one, other)
	<-reached
	var renewed bool // half a second after it began, at the least
	for deadline := time.Now().Add(time.Minute); !renewed && time.Now().Before(deadline); {
		pgtest.Query(t, one.url, "SELECT min(expires_at) > min(created_at) + interval '10.5 seconds' FROM response_cache", &renewed)
	}
	if !renewed {
		t.Error("the lease was never renewed")
	}
	close(gate)
	if states, hits := one.tally(list); states[executor.StatusCompleted] != 4 || hits != 3 || s.count("m") != 1 {
		t.Errorf("%v, %d hits, %d calls", states, hits, s.count("m"))
	}
}

// A call that fails is made again by exactly one of those who wait.
func TestFailedCallIsMadeAgainOnce(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}, 50), make(chan struct{})
	s := script(answers{"m": func(_ context.Context, call int, _ llm.Request, say func(string) bool) error {
		reached <- struct{}{}
		<-gate
		if call == 1 {
			return &llm.Error{Code: llm.CodeUnauthorized, Message: "no", Status: 401}
		}
		say("yes")
		return nil
	}})
	one, other := two(t, s, executor.Config{})
	v := one.chain(shared)
	list := together(t, v, 20, one, other)
	close(gate)
	states, hits := one.tally(list)
	if states[executor.StatusFailed] != 1 || states[executor.StatusCompleted] != 19 || hits != 18 || s.count("m") != 2 {
		t.Errorf("%v, %d hits, %d calls", states, hits, s.count("m"))
	}
}

// Where every call fails, nobody waits for more than two of them: the others make
// theirs all at once, as they would have without the cache.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	const n = 8
	reached, gate := make(chan struct{}, n), make(chan struct{})
	var mu sync.Mutex
	var at, most int
	all := make(chan struct{})
	s := script(answers{"m": func(ctx context.Context, call int, _ llm.Request, _ func(string) bool) error {
		mu.Lock()
		if at++; at > most {
			most = at
		}
		if at == n-2 {
			close(all)
		}
		mu.Unlock()
		reached <- struct{}{}
		defer func() { mu.Lock(); at--; mu.Unlock() }()
		if call <= 2 {
			<-gate
		} else {
			select { // all of the others are here at the same time
			case <-all:
			case <-ctx.Done():
			}
		}
		return &llm.Error{Code: llm.CodeUnauthorized, Message: "no", Status: 401}
	}})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain(shared)
	list := together(t, v, n, h)
	<-reached
	if mu.Lock(); at != 1 {
		t.Errorf("%d calls at once while one is to be made", at)
	}
	mu.Unlock()
	close(gate)
	if states, _ := h.tally(list); states[executor.StatusFailed] != n || s.count("m") != n || most != n-2 {
		t.Errorf("%v after %d calls, %d at once", states, s.count("m"), most)
	}
}

// Who waits can be cancelled, and nobody minds; when the one that calls is
// cancelled, another one takes its place.
func TestCancelAmongWaiters(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}, 50), make(chan struct{})
	s := script(answers{"m": gated("yes", reached, gate)})
	one, other := two(t, s, executor.Config{Poll: 50 * time.Millisecond})
	v := one.chain(shared)
	caller := one.trigger(v, nil)
	<-reached
	list := together(t, v, 10, one, other)
	for _, ex := range list[:4] {
		if _, err := one.exec.Cancel(t.Context(), ex.ID); err != nil {
			t.Fatal(err)
		}
	}
	if states, _ := one.tally(list[:4]); states[executor.StatusCancelled] != 4 || s.count("m") != 1 {
		t.Errorf("%v of the cancelled, %d calls", states, s.count("m"))
	}
	if _, err := one.exec.Cancel(t.Context(), caller.ID); err != nil {
		t.Fatal(err)
	}
	if states, _ := one.tally([]executor.Execution{caller}); states[executor.StatusCancelled] != 1 {
		t.Errorf("%v of the caller", states)
	}
	<-reached // by the one that took over
	close(gate)
	if states, hits := one.tally(list[4:]); states[executor.StatusCompleted] != 6 || hits != 5 || s.count("m") != 2 {
		t.Errorf("%v, %d hits, %d calls", states, hits, s.count("m"))
	}
}

// A server that stops does not wait for the calls of others: who goes on with its
// executions waits in its place.
func TestHandOverAmongWaiters(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}, 50), make(chan struct{})
	s := script(answers{"m": gated("yes", reached, gate)})
	one, other := two(t, s, executor.Config{Poll: 50 * time.Millisecond})
	v := one.chain(shared)
	one.exec.HandOver(done(t)) // so that the other one makes the call
	caller := other.trigger(v, nil)
	<-reached
	third := newHarnessOn(t, one.url, s.entry(), executor.Config{Owner: "three", Workers: 25, Poll: 50 * time.Millisecond})
	list := together(t, v, 8, third)
	other.exec.HandOver(done(t)) // takes nothing more, and goes on with its call
	third.exec.HandOver(t.Context())
	if n := third.exec.Running(); n != 0 {
		t.Errorf("%d still wait", n)
	}
	last := newHarnessOn(t, one.url, s.entry(), executor.Config{Owner: "four", Workers: 25, Poll: 50 * time.Millisecond})
	close(gate)
	if states, _ := last.tally(append(list, caller)); states[executor.StatusCompleted] != 9 || s.count("m") != 1 {
		t.Errorf("%v, %d calls", states, s.count("m"))
	}
}

// A prompt whose time is up does not wait on.
func TestTimeoutAmongWaiters(t *testing.T) {
	t.Parallel()
	reached, gate := make(chan struct{}, 50), make(chan struct{})
	s := script(answers{"m": gated("yes", reached, gate)})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain(shared)
	caller := h.trigger(v, nil)
	<-reached
	raw := executor.Trigger{Version: v, Inputs: map[string]any{}}
	raw.Limits.Timeout = 300 * time.Millisecond
	ex, _, err := h.exec.Trigger(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.checkLog(ex.ID, h.follow(ex.ID)); got.Status != executor.StatusFailed || got.ErrorCode != "timeout" {
		t.Errorf("%s, %s", got.Status, got.ErrorCode)
	}
	close(gate)
	if states, _ := h.tally([]executor.Execution{caller}); states[executor.StatusCompleted] != 1 {
		t.Errorf("%v", states)
	}
}

// Many questions at once, cancelled and failing at random moments, each with its
// own answer: nobody gets another one's, and nobody is left behind.
func TestFlightsUnderLoad(t *testing.T) {
	t.Parallel()
	s := script(answers{"m": func(_ context.Context, call int, req llm.Request, say func(string) bool) error {
		if call%5 == 0 {
			return &llm.Error{Code: llm.CodeOverloaded, Message: "busy", Retryable: true, Status: 529}
		}
		say("<" + req.Messages[len(req.Messages)-1].Text + ">")
		return nil
	}})
	one, other := two(t, s, executor.Config{Retry: quick})
	v := one.chain(`
name: many
inputs: {topic: {type: short_text}}
prompts:
  - {name: P, position: 1, model: test/m, content: "about ${topic}", cache: 1s, retry: {attempts: 10}}
`)
	const n = 120
	var wait sync.WaitGroup
	for i := range n {
		h := []*harness{one, other}[i%2]
		topic := fmt.Sprint(i % 7)
		ex := h.trigger(v, map[string]string{"topic": topic})
		if i%11 == 0 {
			if _, err := h.exec.Cancel(t.Context(), ex.ID); err != nil {
				t.Log(err) // it had ended
			}
		}
		wait.Go(func() {
			got := one.checkLog(ex.ID, one.follow(ex.ID))
			p := one.states(ex.ID)["P"]
			if got.Status == executor.StatusCompleted && p.Output != "<about "+topic+">" {
				t.Errorf("topic %s: %s", topic, p.Output)
			}
			if got.Status == executor.StatusFailed {
				t.Errorf("failed: %s", got.Error)
			}
		})
	}
	wait.Wait()
	var pending int
	pgtest.Query(t, one.url, "SELECT count(*) FROM response_cache WHERE holder IS NOT NULL", &pending)
	if pending != 0 || s.count("m") >= n {
		t.Errorf("%d calls, %d are noted that nobody makes", s.count("m"), pending)
	}
}
