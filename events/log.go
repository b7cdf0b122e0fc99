package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/internal/failpoint"
)

// Append is one execution's share of a commit.
type Append struct {
	ExecutionID int64
	Epoch       int64 // the lease epoch the execution must still have
	PrevSeq     int64 // the last seq the execution must still have
	Records     []Record
	Prompts     []PromptState
	Calls       []CallState
	Retrievals  []RetrievalState
	Outcome     Outcome
}

// LastSeq answers the execution's last seq after the append.
func (a Append) LastSeq() int64 { return a.PrevSeq + int64(len(a.Records)) }

// Probe is what the store knows about an execution whose append was not acknowledged.
type Probe struct {
	Epoch   int64
	LastSeq int64
	EventID uuid.UUID // of the event at the append's first seq; uuid.Nil when there is none
}

// AppendStore is the writing side of the table behind the log.
type AppendStore interface {
	// AppendEvents stores each append completely or not at all, in one
	// transaction, and answers the executions whose append was stored; the
	// others were fenced. An error in IsTransient says that nothing can be
	// known about the outcome; any other error says that nothing was stored.
	AppendEvents(ctx context.Context, appends []Append) (stored map[int64]struct{}, err error)
	// ProbeAppends answers, by execution, what is stored at the first seq of
	// the appends.
	ProbeAppends(ctx context.Context, appends []Append) (map[int64]Probe, error)
}

// transientError is how stores mark an error that may pass.
type transientError struct{ err error }

func (e transientError) Error() string { return e.err.Error() }
func (e transientError) Unwrap() error { return e.err }

// Transient marks an error after which the outcome is unknown and a later try
// may succeed: a lost connection, a deadlock, a full disk.
func Transient(err error) error { return transientError{err} }

// IsTransient tells whether an error was marked by Transient.
func IsTransient(err error) bool {
	var t transientError
	return errors.As(err, &t)
}

// LogConfig configures a Log. The zero value of every field means its default.
type LogConfig struct {
	Committers int              // connections that commit; default 2
	MaxEvents  int              // events in one commit; default 2,000
	MaxBytes   int              // bytes of data in one commit; default 8 MiB
	Timeout    time.Duration    // of one try to commit, after which its outcome is looked up; default 30 s
	Now        func() time.Time // default time.Now
	Logger     *slog.Logger     // default discards
}

// Log commits the appends of all writers of a process. Writers are spread over
// a few committers; each gathers what arrives while its previous commit is on
// its way to the disk, so the batches grow with the load and a lone append
// waits for nobody.
type Log struct {
	store  AppendStore
	broker *Broker
	now    func() time.Time
	logger *slog.Logger

	committers []*committer
	stop       context.CancelFunc
	wait       sync.WaitGroup
}

// NewLog starts a log that stores into store and shows through broker.
func NewLog(store AppendStore, broker *Broker, cfg LogConfig) *Log {
	ctx, stop := context.WithCancel(context.Background())
	l := &Log{store: store, broker: broker, now: cfg.Now, logger: cfg.Logger, stop: stop}
	if l.now == nil {
		l.now = time.Now
	}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	for range cmp.Or(cfg.Committers, 2) {
		c := &committer{
			log: l, wake: make(chan struct{}, 1),
			maxEvents: cmp.Or(cfg.MaxEvents, 2000), maxBytes: cmp.Or(cfg.MaxBytes, 8<<20),
			timeout: cmp.Or(cfg.Timeout, 30*time.Second),
		}
		l.committers = append(l.committers, c)
		l.wait.Go(func() { c.run(ctx) })
	}
	return l
}

// Writer opens the log of an execution for appending. epoch is the lease epoch
// of the claim; head and tails are where an earlier writer stopped.
func (l *Log) Writer(execution, epoch int64, head int64, tails []Tail) *Writer {
	w := &Writer{
		log: l, execution: execution, epoch: epoch, seq: head, tails: make(map[string]uuid.UUID, len(tails)+1),
		committer: l.committers[int(uint64(execution)%uint64(len(l.committers)))],
	}
	for _, t := range tails {
		w.tails[t.Stream] = t.ID
		if t.Time.After(w.time) {
			w.time = t.Time
		}
	}
	l.broker.attach(execution, head)
	return w
}

// Close stops the committers after what is already handed in has been tried
// once more. Appends that cannot be stored by the end of ctx end in ErrClosed.
func (l *Log) Close(ctx context.Context) error {
	for _, c := range l.committers {
		c.close()
	}
	done := make(chan struct{})
	go func() { l.wait.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		l.stop()
		<-done
	}
	l.stop()
	return nil
}

// committer commits the appends of its share of the executions, one commit at a time.
type committer struct {
	log       *Log
	maxEvents int
	maxBytes  int
	timeout   time.Duration
	wake      chan struct{} // holds one token: something is pending

	mu      sync.Mutex
	pending []*Pending
	closed  bool
}

func (c *committer) enqueue(p *Pending) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.pending = append(c.pending, p)
	c.signal()
	return nil
}

func (c *committer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *committer) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.signal()
}

// take answers the next appends to commit, and whether the committer is done.
func (c *committer) take() (batch []*Pending, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	events, bytes := 0, 0
	n := 0
	for ; n < len(c.pending); n++ {
		events += len(c.pending[n].records)
		bytes += c.pending[n].bytes
		if n > 0 && (events > c.maxEvents || bytes > c.maxBytes) {
			break
		}
	}
	batch = slices.Clone(c.pending[:n])
	rest := copy(c.pending, c.pending[n:])
	clear(c.pending[rest:])
	c.pending = c.pending[:rest]
	if rest > 0 {
		c.signal()
	}
	return batch, c.closed && n == 0
}

func (c *committer) run(ctx context.Context) {
	for {
		batch, done := c.take()
		if done {
			return
		}
		if len(batch) == 0 {
			select {
			case <-c.wake:
			case <-ctx.Done():
				return
			}
			continue
		}
		c.commit(ctx, gather(batch))
		// Those who were just acknowledged write their next events first, so
		// that these travel in the next commit and not in the one after it.
		runtime.Gosched()
	}
}

// share is what one writer contributes to a commit.
type share struct {
	Append
	writer  *Writer
	pending []*Pending
}

// gather joins the appends of each writer and orders the shares by execution,
// so that two processes lock rows in the same order.
func gather(batch []*Pending) []*share {
	byWriter := make(map[*Writer]*share, len(batch))
	shares := make([]*share, 0, len(batch))
	for _, p := range batch {
		s := byWriter[p.writer]
		if s == nil {
			s = &share{writer: p.writer, Append: Append{ExecutionID: p.writer.execution, Epoch: p.epoch, PrevSeq: p.prev}}
			byWriter[p.writer] = s
			shares = append(shares, s)
		}
		s.pending = append(s.pending, p)
		if len(s.pending) == 1 {
			s.Records = p.records // full, so that appending to it copies
		} else {
			s.Records = append(s.Records, p.records...)
		}
		s.Outcome = s.Outcome.merge(p.outcome)
		s.Retrievals = append(s.Retrievals, p.found...)
		for _, state := range p.prompts {
			if i := slices.IndexFunc(s.Prompts, func(o PromptState) bool { return o.PromptID == state.PromptID }); i >= 0 {
				s.Prompts[i] = state // a row can be written once per statement
			} else {
				s.Prompts = append(s.Prompts, state)
			}
		}
		for _, call := range p.calls {
			if i := slices.IndexFunc(s.Calls, func(o CallState) bool { return o.RequestID == call.RequestID }); i >= 0 {
				s.Calls[i] = call
			} else {
				s.Calls = append(s.Calls, call)
			}
		}
	}
	slices.SortFunc(shares, func(a, b *share) int { return cmp.Compare(a.ExecutionID, b.ExecutionID) })
	return shares
}

// Waits between tries while the store is away.
const (
	retryFirst = 20 * time.Millisecond
	retryMost  = time.Second
)

// commit stores the shares, however long the store is away, and settles each
// with its writer.
func (c *committer) commit(ctx context.Context, shares []*share) {
	wait := retryFirst
	for len(shares) > 0 {
		try, cancel := context.WithTimeout(ctx, c.timeout)
		stored, err := c.log.store.AppendEvents(try, appendsOf(shares))
		cancel()
		switch {
		case err != nil && ctx.Err() != nil:
			for _, s := range shares {
				c.fail(s, ErrClosed)
			}
			return
		case err == nil:
			failpoint.Reach(failpoint.AppendUnacknowledged)
			shares = slices.DeleteFunc(shares, func(s *share) bool {
				if _, ok := stored[s.ExecutionID]; !ok {
					return false
				}
				c.succeed(s)
				return true
			})
			// What was not stored is fenced, or stands there since a try whose
			// acknowledgement was lost: the probe tells.
			if len(shares) > 0 {
				shares = c.settle(ctx, shares, true)
			}
			continue
		case !IsTransient(err) && len(shares) == 1:
			c.fail(shares[0], fmt.Errorf("append to execution %d: %w", shares[0].ExecutionID, err))
			return
		case !IsTransient(err):
			// One share spoils the transaction for all: commit each by itself.
			for _, s := range shares {
				c.commit(ctx, []*share{s})
			}
			return
		}
		c.log.logger.WarnContext(ctx, "append not acknowledged, trying again", "executions", len(shares), "wait", wait, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			continue // the next try fails and says so
		}
		wait = min(2*wait, retryMost)
		shares = c.settle(ctx, shares, false)
	}
}

// settle re-reads what became of shares whose commit is in doubt and answers
// those that are still to be stored. refused says that the statement ran and
// left them out.
func (c *committer) settle(ctx context.Context, shares []*share, refused bool) []*share {
	try, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	probes, err := c.log.store.ProbeAppends(try, appendsOf(shares))
	if err != nil {
		return shares // still in doubt: the next try is fenced if it was stored
	}
	return slices.DeleteFunc(shares, func(s *share) bool {
		probe, found := probes[s.ExecutionID]
		switch {
		case found && len(s.Records) > 0 && probe.EventID == s.Records[0].ID:
			c.succeed(s)
		case found && !refused && probe.Epoch == s.Epoch && probe.LastSeq == s.PrevSeq:
			return false
		default:
			c.fail(s, fmt.Errorf("append to execution %d: %w", s.ExecutionID, ErrFenced))
		}
		return true
	})
}

func (c *committer) succeed(s *share) {
	frames := s.pending[0].frames
	for _, p := range s.pending[1:] {
		frames = append(frames, p.frames...)
	}
	c.log.broker.publish(s.ExecutionID, frames)
	failpoint.Reach(failpoint.PublishAfter)
	for _, p := range s.pending {
		p.finish(nil)
	}
}

func (c *committer) fail(s *share, err error) {
	s.writer.spend(err)
	for _, p := range s.pending {
		p.finish(err)
	}
}

func appendsOf(shares []*share) []Append {
	out := make([]Append, len(shares))
	for i, s := range shares {
		out[i] = s.Append
	}
	return out
}
