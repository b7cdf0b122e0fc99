package executor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// Lease is what the queue knows of an execution that is held.
type Lease struct {
	Epoch           int64
	CancelRequested bool
}

// Queue is the durable queue of executions. Its clock is the database's.
type Queue interface {
	// Enqueue stores a new execution. With a key that was used before, it answers
	// that execution and replayed, or ErrKeyReused for another request.
	Enqueue(ctx context.Context, t Trigger) (ex Execution, replayed bool, err error)
	// Keyed answers the execution that an idempotency key was used for, or
	// ErrKeyReused.
	Keyed(ctx context.Context, key IdempotencyKey) (ex Execution, found bool, err error)
	// Claim takes up to limit executions that are queued, have waited long enough
	// or whose lease ran out, but none of those that the owner still runs.
	Claim(ctx context.Context, owner string, limit int, lease time.Duration, held ...int64) ([]Execution, error)
	// ClaimQueued takes one execution if it still waits, in the queue or for a time.
	ClaimQueued(ctx context.Context, id int64, owner string, lease time.Duration) (ex Execution, claimed bool, err error)
	// CountQueued counts waiting executions, up to limit.
	CountQueued(ctx context.Context, limit int) (int, error)
}

// Leases keeps what was claimed.
type Leases interface {
	// Renew prolongs leases and answers those that are still held.
	Renew(ctx context.Context, owner string, ids []int64, lease time.Duration) (map[int64]Lease, error)
	// Release gives leases back, so that another process can claim at once.
	Release(ctx context.Context, owner string, ids []int64) error
	// Wait lets an execution wait for a time and gives its lease back. It answers
	// false when the lease is another one, or the execution is to be stopped.
	Wait(ctx context.Context, owner string, id, epoch int64, delay time.Duration) (bool, error)
	// RequestCancel notes that an execution is to be stopped and answers its
	// status before; ErrNotFound when there is none.
	RequestCancel(ctx context.Context, id int64) (Status, error)
	// CancelRequests answers which executions of an owner are to be stopped.
	CancelRequests(ctx context.Context, owner string) ([]int64, error)
}

// History is what a claimed execution starts from.
type History interface {
	// Execution answers an execution, or ErrNotFound.
	Execution(ctx context.Context, id int64) (Execution, error)
	// PinnedVersion answers the version of a chain, also of a deleted one.
	PinnedVersion(ctx context.Context, chainID int64, version int) (*chain.Version, error)
	// Call answers what a direct call asks, or ErrNotFound.
	Call(ctx context.Context, id int64) (json.RawMessage, error)
	// PromptStates answers the prompts of executions that have started.
	PromptStates(ctx context.Context, executions ...int64) (map[int64][]events.PromptState, error)
	// Tails answers the newest event of every stream of an execution.
	Tails(ctx context.Context, execution int64) ([]events.Tail, error)
	// EventsOfTypes answers up to limit events of some types after a seq, in order.
	EventsOfTypes(ctx context.Context, execution, after int64, types []events.Type, limit int) ([]events.Record, error)
	// Calls answers the ledger of an execution in the order of the calls.
	Calls(ctx context.Context, execution int64) ([]events.CallState, error)
}

// Store is everything the executor needs from the database.
type Store interface {
	Queue
	Leases
	History
	Accounts
}

// Announcer tells other processes what they would otherwise find out by looking.
// It does not block.
type Announcer interface {
	// Queued tells that an execution can be claimed.
	Queued()
	// Cancelled tells that an execution is to be stopped.
	Cancelled(id int64)
}

// Models finds the provider of a model.
type Models interface {
	// Resolve answers how to call a model.
	Resolve(id string) (llm.Target, error)
	// Check tells whether a chain may name the model.
	Check(id string) error
	// Info answers what is known of a model, also of one that cannot be called.
	Info(id string) llm.Info
}

// Retriever finds passages in knowledge repositories.
type Retriever interface {
	// Missing answers which of the repositories do not exist.
	Missing(ctx context.Context, repositories []int64) ([]int64, error)
	// Retrieve answers the passages for a query, best first.
	Retrieve(ctx context.Context, q knowledge.Query) (knowledge.Result, error)
}

// Config configures an Executor. The zero value of a field means its default,
// unless said otherwise.
type Config struct {
	Owner         string            // name of this process in leases; must be unique
	Workers       int               // executions at a time; 0 = none, only triggering and cancelling
	Parallel      int               // prompts of one position at a time; default 16
	MaxQueued     int               // waiting executions of all processes on the database before triggers are refused; default 10,000
	Lease         time.Duration     // default 10 s
	Renew         time.Duration     // default 3 s
	Poll          time.Duration     // how often the queue and cancel requests are looked at without a hint; default 1 s
	Timeout       time.Duration     // of executions whose chain names none; default 1 h
	DeltaInterval time.Duration     // least time between two text deltas of a prompt; default 50 ms
	DeltaBytes    int               // text that is shown without waiting; default 1 kB
	MaxEvents     int64             // events of one execution; default 50,000
	MaxClaims     int               // crashes without progress before giving up; default 3
	Deadlines     llm.Deadlines     // of model calls
	Retry         llm.RetryPolicy   // waits between attempts; attempts come from the chain
	Breaker       llm.BreakerPolicy // when the calls of a model are stopped
	Now           func() time.Time  // default time.Now
	Logger        *slog.Logger      // default discards
	Retriever     Retriever         // nil = no knowledge repositories
	Announcer     Announcer         // nil = other processes are told nothing
	Cache         Cache             // of answers; nil = every call is made
	OnFinish      func(Status)      // called once per execution that ended here; may be nil
}

// Executor claims executions and runs them.
type Executor struct {
	cfg    Config
	store  Store
	log    *events.Log
	models Models
	logger *slog.Logger

	admission   admission
	definitions definitions
	health      health
	money       money
	flights     flights
	wake        chan struct{} // holds one token: the queue may have something
	wakeCancel  chan struct{} // holds one token: an execution that runs here may have to be stopped

	stopClaiming context.CancelFunc
	claiming     context.Context //nolint:containedctx // the scope of the background loops, from New to Stop
	loops        sync.WaitGroup

	leaving chan struct{} // closed by HandOver

	mu       sync.Mutex
	running  map[int64]*run
	left     bool           // leaving is closed: nothing is started any more
	stopping bool           // Stop was called: nothing is queued any more
	idle     sync.WaitGroup // one per running execution
}

// New makes an executor; Start sets it to work.
func New(store Store, log *events.Log, models Models, cfg Config) *Executor {
	cfg.Parallel = cmp.Or(cfg.Parallel, 16)
	cfg.MaxQueued = cmp.Or(cfg.MaxQueued, 10000)
	cfg.Lease = cmp.Or(cfg.Lease, 10*time.Second)
	cfg.Renew = cmp.Or(cfg.Renew, 3*time.Second)
	cfg.Poll = cmp.Or(cfg.Poll, time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Hour)
	cfg.DeltaInterval = cmp.Or(cfg.DeltaInterval, 50*time.Millisecond)
	cfg.DeltaBytes = cmp.Or(cfg.DeltaBytes, 1000)
	cfg.MaxEvents = cmp.Or(cfg.MaxEvents, 50000)
	cfg.MaxClaims = cmp.Or(cfg.MaxClaims, 3)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Announcer == nil {
		cfg.Announcer = silence{}
	}
	e := &Executor{
		cfg: cfg, store: store, log: log, models: models, logger: cfg.Logger,
		wake: make(chan struct{}, 1), wakeCancel: make(chan struct{}, 1), running: make(map[int64]*run), leaving: make(chan struct{}),
		admission: admission{queue: store, limit: cfg.MaxQueued, now: cfg.Now, turn: make(chan struct{}, 1)},
	}
	e.health = health{policy: cfg.Breaker, now: cfg.Now, logger: cfg.Logger}
	e.claiming, e.stopClaiming = context.WithCancel(context.Background())
	return e
}

// Start begins to claim executions and to renew leases.
func (e *Executor) Start() {
	if e.cfg.Workers > 0 {
		e.loops.Go(e.claimLoop)
	}
	e.loops.Go(e.renewLoop)
	e.loops.Go(e.watchMoney)
	e.loops.Go(e.cancelLoop)
	if e.cfg.Cache != nil {
		e.loops.Go(e.cacheLoop)
	}
}

// HandOver claims nothing more and lets every execution go at its next safe
// point: before a prompt begins, and while one waits for its next attempt. Model
// calls that are under way are finished first. What was let go is claimed by
// another server at once, or by this one after a restart. HandOver waits until
// nothing runs, or until ctx ends; triggers are still taken, for others to run.
func (e *Executor) HandOver(ctx context.Context) {
	e.mu.Lock()
	if !e.left {
		e.left = true
		close(e.leaving)
	}
	e.mu.Unlock()
	e.stopClaiming()
	select {
	case <-e.isIdle():
	case <-ctx.Done():
	}
}

// isIdle answers a channel that is closed when nothing runs any more. It may be
// called once nothing is started any more.
func (e *Executor) isIdle() <-chan struct{} {
	done := make(chan struct{})
	go func() { e.idle.Wait(); close(done) }()
	return done
}

// Stop refuses triggers, hands over what runs until ctx ends, and then
// interrupts the rest: their leases are given back and another process, or this
// one after a restart, goes on with them.
func (e *Executor) Stop(ctx context.Context) error {
	e.mu.Lock()
	e.stopping = true
	e.mu.Unlock()
	e.HandOver(ctx)
	if ctx.Err() != nil {
		e.interrupt(errInterrupted)
	}
	<-e.isIdle()
	e.loops.Wait()
	return nil
}

// Running answers how many executions this process runs.
func (e *Executor) Running() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running)
}

// Trigger queues an execution. It answers ErrQueueFull when too many wait,
// ErrStopping while the server shuts down, and ErrKeyReused. replayed says that
// the idempotency key had been used and ex is the execution from then.
func (e *Executor) Trigger(ctx context.Context, t Trigger) (ex Execution, replayed bool, err error) {
	e.mu.Lock()
	stopping := e.stopping
	e.mu.Unlock()
	if stopping {
		return ex, false, ErrStopping
	}
	if err := e.admission.admit(ctx); err != nil {
		return ex, false, err
	}
	if ex, replayed, err = e.store.Enqueue(ctx, t); err != nil {
		return ex, false, err
	}
	failpoint.Reach(failpoint.TriggerCommitted)
	e.definitions.keep(t.Version)
	e.hint()
	e.cfg.Announcer.Queued()
	return ex, replayed, nil
}

// Replay answers the execution that an idempotency key was used for, so that a
// trigger that is sent again has its answer whatever has become of the chain. It
// answers ErrKeyReused when the key came with another request.
func (e *Executor) Replay(ctx context.Context, key IdempotencyKey) (ex Execution, found bool, err error) {
	return e.store.Keyed(ctx, key)
}

// Cancel stops an execution: the connections to its models are closed, what they
// had answered is kept. It answers the execution as it stood, ErrNotFound, or
// ErrFinished when it ended before by itself. Cancelling twice is no error.
func (e *Executor) Cancel(ctx context.Context, id int64) (Execution, error) {
	status, err := e.store.RequestCancel(ctx, id)
	if err != nil {
		return Execution{}, err
	}
	failpoint.Reach(failpoint.CancelCommitted)
	switch {
	case (status == StatusQueued || status == StatusWaiting) && !e.hasLeft():
		// Nobody owns it: claim it, and its run does nothing but end.
		ex, claimed, err := e.store.ClaimQueued(ctx, id, e.cfg.Owner, e.cfg.Lease)
		if err != nil {
			return Execution{}, err
		}
		if claimed {
			e.start(ex)
		}
	case status == StatusCompleted || status == StatusFailed:
		ex, err := e.store.Execution(ctx, id)
		if err != nil {
			return Execution{}, err
		}
		return ex, fmt.Errorf("cancel execution %d, which is %s: %w", id, status, ErrFinished)
	}
	e.mu.Lock()
	r := e.running[id]
	e.mu.Unlock()
	if r != nil {
		r.cancel(errCancelled)
	} else {
		e.cfg.Announcer.Cancelled(id)
	}
	return e.store.Execution(ctx, id)
}

// hasLeft tells whether nothing is started here any more.
func (e *Executor) hasLeft() bool {
	select {
	case <-e.leaving:
		return true
	default:
		return false
	}
}

// hint wakes the claim loop.
func (e *Executor) hint() { signal(e.wake) }

// HintQueued says that an execution may have been queued elsewhere.
func (e *Executor) HintQueued() { signal(e.wake) }

// HintCancelled says that executions may have been cancelled elsewhere; without
// any, that all may have been. Only the database is believed.
func (e *Executor) HintCancelled(ids ...int64) {
	e.mu.Lock()
	here := len(ids) == 0 || slices.ContainsFunc(ids, func(id int64) bool { return e.running[id] != nil })
	e.mu.Unlock()
	if here {
		signal(e.wakeCancel)
	}
}

// signal puts a token into a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// silence is the Announcer of a process that is alone.
type silence struct{}

func (silence) Queued() {}

func (silence) Cancelled(int64) {}

// Executions are claimed in bounded portions, so that several processes share a
// burst.
const claimPortion = 100

// claimExact is how many executions a claim may answer and still have found all
// that it may take: it looks at a part of each chain only when there are more
// chains than that.
const claimExact = 4

// A claim that took longer than claimCheap, because executions of a thousand
// chains wait, is followed by a rest as long as itself, but at most claimRest.
const (
	claimCheap = 10 * time.Millisecond
	claimRest  = 50 * time.Millisecond
)

// claimTimeout bounds a claim, and with it how long a stop waits for one.
const claimTimeout = 5 * time.Second

func (e *Executor) claimLoop() {
	ctx := e.claiming
	timer := time.NewTimer(e.cfg.Poll)
	defer timer.Stop()
	for ctx.Err() == nil {
		held := slices.Collect(maps.Keys(e.held()))
		if free := e.cfg.Workers - len(held); free > 0 {
			portion := min(free, claimPortion)
			begin := time.Now()
			claimed, err := e.claim(portion, held)
			if err != nil && ctx.Err() == nil {
				e.logger.WarnContext(ctx, "queue not read, trying again", "error", err)
			}
			if len(claimed) > 0 {
				failpoint.Reach(failpoint.ClaimCommitted)
			}
			for _, ex := range claimed {
				e.start(ex)
			}
			if len(claimed) == portion || len(claimed) > claimExact {
				// More waits than can run, so nobody waits for this loop: workers that
				// become free meanwhile are served by one claim.
				if took := time.Since(begin); took > claimCheap {
					sleep(ctx, min(took, claimRest))
				}
				continue
			}
		}
		timer.Reset(e.cfg.Poll)
		select {
		case <-e.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// claim takes executions from the queue. A stop does not cut it off: what the
// database had already given away would belong to nobody until its lease ran out.
func (e *Executor) claim(portion int, held []int64) ([]Execution, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.claiming), claimTimeout)
	defer cancel()
	return e.store.Claim(ctx, e.cfg.Owner, portion, e.cfg.Lease, held...)
}

// start runs a claimed execution in the background.
func (e *Executor) start(ex Execution) {
	r := newRun(e, ex)
	e.mu.Lock()
	if e.left {
		e.mu.Unlock()
		r.release()
		return
	}
	older := e.running[ex.ID]
	e.running[ex.ID] = r
	e.idle.Add(1)
	e.mu.Unlock()
	if older != nil {
		older.cancel(errLost) // another process had taken it over and given it back
	}
	go func() {
		defer e.idle.Done()
		r.execute()
		e.mu.Lock()
		full := len(e.running) >= e.cfg.Workers
		if e.running[ex.ID] == r {
			delete(e.running, ex.ID)
		}
		e.mu.Unlock()
		// Nothing has waited for this end where workers were free and the chain has
		// no limit, and a look at the queue is not free.
		if full || r.version == nil || r.version.Chain.Limits.Concurrency > 0 {
			e.hint()
		}
	}()
}

// held answers what runs here, by execution.
func (e *Executor) held() map[int64]*run {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.running)
}

func (e *Executor) interrupt(cause error) {
	for _, r := range e.held() {
		r.cancel(cause)
	}
}

// renewLoop prolongs the leases of what runs here. It goes on while Stop waits.
func (e *Executor) renewLoop() {
	e.every(e.cfg.Renew, nil, func(ctx context.Context) error {
		held := e.held()
		if len(held) == 0 {
			return nil
		}
		ids := make([]int64, 0, len(held))
		for id := range held {
			ids = append(ids, id)
		}
		leases, err := e.store.Renew(ctx, e.cfg.Owner, ids, e.cfg.Lease)
		if err != nil {
			return err // the fence protects the log should a lease run out meanwhile
		}
		failpoint.Reach(failpoint.RenewCommitted)
		for id, r := range held {
			lease, ok := leases[id]
			switch {
			case !ok && r.ending.Load():
				// Its last event gives the lease up; had it been lost, the fence would tell.
			case !ok || lease.Epoch != r.ex.Epoch:
				r.cancel(errLost)
			case lease.CancelRequested:
				r.cancel(errCancelled)
			}
		}
		return nil
	})
}

// cancelLoop acts on cancel requests that came in through another process.
func (e *Executor) cancelLoop() {
	e.every(e.cfg.Poll, e.wakeCancel, func(ctx context.Context) error {
		held := e.held()
		if len(held) == 0 {
			return nil
		}
		ids, err := e.store.CancelRequests(ctx, e.cfg.Owner)
		for _, id := range ids {
			if r := held[id]; r != nil {
				r.cancel(errCancelled)
			}
		}
		return err
	})
}

// every calls f again and again, and at once when it is woken, until the
// executor has stopped and is idle.
func (e *Executor) every(d time.Duration, wake <-chan struct{}, f func(context.Context) error) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	quit := make(chan struct{})
	go func() {
		<-e.claiming.Done()
		<-e.isIdle()
		close(quit)
	}()
	for {
		select {
		case <-tick.C:
		case <-wake:
		case <-quit:
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.claiming), e.cfg.Lease)
		if err := f(ctx); err != nil {
			e.logger.WarnContext(ctx, "leases not looked after, trying again", "error", err)
		}
		cancel()
	}
}

// Why a run ends early, as causes of its context.
var (
	errCancelled   = errors.New("cancelled by a user")
	errTimeout     = errors.New("the execution's time is up")
	errLost        = fmt.Errorf("run taken over: %w", events.ErrFenced)
	errInterrupted = errors.New("the server is shutting down")
	errHandedOver  = errors.New("another server goes on") // at a safe point
)
