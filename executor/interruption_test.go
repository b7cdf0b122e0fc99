package executor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/postgres"
)

// A prompt that waits for its next attempt when the process stops has not
// failed: the next process makes that attempt.
func TestStopWhileWaitingForARetry(t *testing.T) {
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
	h.interrupt()
	if state := h.states(ex.ID)["P"]; state.Status != "running" {
		t.Errorf("after the stop the prompt is %s: %s", state.Status, state.Error)
	}
	// The wait is over when the next process comes.
	h.resume(s.entry(), executor.Config{Owner: "two", Now: func() time.Time { return time.Now().Add(time.Minute) }})
	log := h.follow(ex.ID)
	if retries := find(log, events.TypePromptRetry); len(retries) != 1 {
		t.Errorf("the attempt was announced %d times", len(retries))
	}
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("execution: %s, %s", got.Status, got.Error)
	}
}

// await reads the stream of an execution until an event of a type has come.
func (h *harness) await(id int64, wanted events.Type) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	sub, err := h.broker.Subscribe(ctx, id, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer sub.Close()
	for {
		frames, err := sub.Next(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		if slices.ContainsFunc(frames, func(f events.Frame) bool { return f.Type == wanted }) {
			return
		}
	}
}

// interrupt stops the harness's executor in the middle of what it does.
func (h *harness) interrupt() {
	h.t.Helper()
	expired, cancel := context.WithCancel(h.t.Context())
	cancel()
	if err := h.exec.Stop(expired); err != nil {
		h.t.Fatal(err)
	}
}

// resume starts a second executor on the harness's store and stops it with the test.
func (h *harness) resume(models map[string]llm.Entry, cfg executor.Config) *executor.Executor {
	h.t.Helper()
	if cfg.Workers == 0 {
		cfg.Workers = 5
	}
	next := executor.New(h.store, h.log, llm.NewRegistry(models), cfg)
	next.Start()
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := next.Stop(ctx); err != nil {
			h.t.Error(err)
		}
	})
	return next
}

// A lease that ran out because renewing it failed is not taken over by the very
// process that runs the execution: the model would be called twice, and a few
// stalls of the database would look like a crash loop.
func TestOwnExecutionIsNotClaimedAgain(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 10)
	s := script(answers{"hang": hang("still here", reached), "quick": say("quick")})
	h := newHarness(t, s.entry(), executor.Config{Lease: -time.Second, Renew: time.Hour})
	held := h.trigger(h.chain("name: held\nprompts:\n  - {name: P, position: 1, model: test/hang, content: x}\n"), nil)
	<-reached
	// The claim that finds this one looks over the other one, whose lease ran out.
	h.follow(h.trigger(h.chain("name: next\nprompts:\n  - {name: P, position: 1, model: test/quick, content: x}\n"), nil).ID)
	if got, err := h.store.Execution(t.Context(), held.ID); err != nil || got.Epoch != 1 || got.Claims != 1 {
		t.Errorf("epoch %d after %d claims, %v", got.Epoch, got.Claims, err)
	}
	if _, err := h.exec.Cancel(t.Context(), held.ID); err != nil {
		t.Fatal(err)
	}
	h.checkLog(held.ID, h.follow(held.ID))
	if n := s.count("hang"); n != 1 {
		t.Errorf("%d calls of the model", n)
	}
}

// A bug in a provider ends the prompt that met it, on the record, and nothing else.
func TestPanicOfAProvider(t *testing.T) {
	t.Parallel()
	s := script(answers{
		"buggy": func(_ context.Context, _ int, _ llm.Request, say func(string) bool) error {
			say("before the bug")
			panic("index out of range")
		},
		"fine": say("fine"),
	})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain(`
name: buggy
prompts:
  - {name: P, position: 1, model: test/buggy, content: x, onError: continue}
  - {name: Q, position: 2, model: test/fine, content: x}
`)
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("execution: %+v", got)
	}
	if state := h.states(ex.ID)["P"]; state.Status != "failed" || state.ErrorCode != "internal" || state.Output != "before the bug" {
		t.Errorf("prompt: %+v", state)
	}
}

// awayStore is a database that cannot be reached for a while, or a chain that
// cannot be read.
type awayStore struct {
	*postgres.Store
	away     atomic.Int32 // calls that still fail
	version  error
	released atomic.Int32
}

func (s *awayStore) PinnedVersion(ctx context.Context, id int64, version int) (*chain.Version, error) {
	if s.version != nil {
		return nil, s.version
	}
	if s.away.Add(-1) >= 0 {
		return nil, fmt.Errorf("load: %w", events.ErrUnavailable)
	}
	return s.Store.PinnedVersion(ctx, id, version)
}

func (s *awayStore) Release(ctx context.Context, owner string, ids []int64) error {
	s.released.Add(1)
	return s.Store.Release(ctx, owner, ids)
}

// queued answers an execution that waits, and what runs it on another store.
func queued(t *testing.T) (*harness, *awayStore, executor.Execution) {
	t.Helper()
	h := newHarness(t, nil, executor.Config{Workers: -1})
	return h, &awayStore{Store: h.store}, h.trigger(h.chain(brief), map[string]string{"topic": "x"})
}

// An absence of the database is waited for; it is no crash of the execution.
func TestRunOutlivesTheDatabase(t *testing.T) {
	t.Parallel()
	h, store, ex := queued(t)
	store.away.Store(4)
	next := executor.New(store, h.log, demo(), executor.Config{Owner: "two", Workers: 1})
	next.Start()
	got := h.checkLog(ex.ID, h.follow(ex.ID))
	if got.Status != executor.StatusCompleted || got.Epoch != 1 || store.released.Load() != 0 {
		t.Errorf("execution %s in epoch %d, released %d times", got.Status, got.Epoch, store.released.Load())
	}
	if err := next.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// A chain that no server can read must not make its execution run for ever.
func TestUnreadableChainEnds(t *testing.T) {
	t.Parallel()
	h, store, ex := queued(t)
	store.version = errors.New("the document is not valid")
	next := executor.New(store, h.log, demo(), executor.Config{Owner: "two", Workers: 1, Lease: -time.Second, Poll: time.Millisecond})
	next.Start()
	if got := h.checkLog(ex.ID, h.follow(ex.ID)); got.ErrorCode != "crash_loop" || got.Epoch != 4 {
		t.Errorf("execution: %+v", got)
	}
	if err := next.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// demo is a registry of the demonstration model alone.
func demo() *llm.Registry {
	return llm.NewRegistry(map[string]llm.Entry{"offline": {Provider: &offline.Provider{}, Demo: true}})
}

// A call that its process could not close is closed by the next one: the text
// that had come is the prompt's, and what it used is estimated and counted.
func TestLostCallIsClosed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		cancel bool // while nobody runs the execution
		status executor.Status
		prompt string
		output string
	}{
		{"goes on", false, executor.StatusCompleted, "completed", "whole answer"},
		{"cancelled meanwhile", true, executor.StatusCancelled, "cancelled", "half an "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := script(answers{"m": func(ctx context.Context, call int, req llm.Request, talk func(string) bool) error {
				if call <= 2 {
					return hang("half an ", nil)(ctx, call, req, talk)
				}
				return say("whole answer")(ctx, call, req, talk)
			}})
			h := newHarness(t, s.entry(), executor.Config{Owner: "one"})
			v := h.chain(`
name: lost
prompts:
  - {name: P, position: 1, model: test/m, content: "a question"}
  - {name: Q, position: 1, model: test/m, content: "another question"}
`)
			ex := h.trigger(v, nil)
			h.await(ex.ID, events.TypePromptDelta)
			for s.count("m") < 2 || len(find(h.stored(ex.ID), events.TypePromptDelta)) < 2 {
				h.await(ex.ID, events.TypePromptDelta)
			}
			h.interrupt()
			if tt.cancel {
				if _, err := h.store.RequestCancel(t.Context(), ex.ID); err != nil {
					t.Fatal(err)
				}
			}
			h.resume(s.entry(), executor.Config{Owner: "two"})
			log := h.follow(ex.ID)
			got := h.checkLog(ex.ID, log)
			if got.Status != tt.status {
				t.Errorf("execution: %+v", got)
			}
			if open, closed := len(find(log, events.TypeLLMRequest)), len(find(log, events.TypeLLMResponse, events.TypeLLMError)); open != closed {
				t.Errorf("%d calls, %d ends", open, closed)
			}
			lost := find(log, events.TypeLLMError)
			if len(lost) != 2 || lost[0].Data["usageSource"] != "estimated" || lost[0].Data["outputTokens"] == 0.0 || lost[0].Data["inputTokens"] == 0.0 {
				t.Errorf("lost calls: %v", lost)
			}
			used := int64(0)
			for name, state := range h.states(ex.ID) {
				if state.Status != tt.prompt || state.Output != tt.output || !state.UsageEstimated {
					t.Errorf("%s: %+v", name, state)
				}
				used += state.OutputTokens
			}
			if got.OutputTokens != used || used <= 0 {
				t.Errorf("%d tokens, the prompts say %d", got.OutputTokens, used)
			}
			if n := len(find(log, events.TypePromptError)); tt.cancel != (n == 2) {
				t.Errorf("%d prompt errors", n)
			}
		})
	}
}

// stored answers what is stored of an execution's log now.
func (h *harness) stored(id int64) []event {
	h.t.Helper()
	records, err := h.store.Events(h.t.Context(), id, 0, 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	out := make([]event, len(records))
	for i, r := range records {
		out[i] = event{Seq: r.Seq, Type: r.Type}
	}
	return out
}

// gateStore holds claims back and counts how often the queue is counted.
type gateStore struct {
	*postgres.Store
	entered, proceed chan struct{}
	counts           atomic.Int32
}

var errCount = fmt.Errorf("count: %w", events.ErrUnavailable)

func (s *gateStore) CountQueued(context.Context, int) (int, error) {
	s.counts.Add(1)
	return 0, errCount
}

func (s *gateStore) Claim(ctx context.Context, owner string, limit int, lease time.Duration, held ...int64) ([]executor.Execution, error) {
	claimed, err := s.Store.Claim(ctx, owner, limit, lease, held...)
	if len(claimed) > 0 { // done in the database, and the answer is on its way
		s.entered <- struct{}{}
		<-s.proceed
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return claimed, err
}

// What is being claimed when the process stops goes back to the queue at once.
func TestStopDuringAClaim(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{Workers: -1})
	ex := h.trigger(h.chain(brief), map[string]string{"topic": "x"})
	store := &gateStore{Store: h.store, entered: make(chan struct{}), proceed: make(chan struct{})}
	e := executor.New(store, h.log, demo(), executor.Config{Owner: "stopping", Workers: 1, Lease: time.Hour})
	e.Start()
	<-store.entered
	stopped := make(chan error)
	go func() { stopped <- e.Stop(t.Context()) }()
	for {
		if _, _, err := e.Trigger(t.Context(), executor.Trigger{}); errors.Is(err, executor.ErrStopping) {
			break
		}
	}
	close(store.proceed)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if got, err := h.store.Execution(t.Context(), ex.ID); err != nil || got.Claims != 0 {
		t.Errorf("%d claims, %v", got.Claims, err)
	}
	if got, err := h.store.Claim(t.Context(), "next", 10, time.Minute); err != nil || len(got) != 1 {
		t.Errorf("the next process claims %d, %v", len(got), err)
	}
}

// A database that does not answer is asked once for all who want to trigger,
// not once for each, one after the other.
func TestAdmissionSharesAFailure(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{Workers: -1})
	store := &gateStore{Store: h.store}
	now := time.Now()
	e := executor.New(store, h.log, demo(), executor.Config{Owner: "two", Now: func() time.Time { return now }})
	for range 5 {
		if _, _, err := e.Trigger(t.Context(), executor.Trigger{}); !errors.Is(err, events.ErrUnavailable) {
			t.Errorf("trigger: %v", err)
		}
	}
	if n := store.counts.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	now = now.Add(time.Second)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := e.Trigger(gone, executor.Trigger{}); !errors.Is(err, context.Canceled) {
		t.Errorf("trigger of a caller that is gone: %v", err)
	}
	if _, _, err := e.Trigger(t.Context(), executor.Trigger{}); !errors.Is(err, events.ErrUnavailable) || store.counts.Load() < 2 {
		t.Errorf("asked %d times, %v", store.counts.Load(), err)
	}
}
