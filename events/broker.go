package events

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// ReadStore is the reading side of the table behind the log.
type ReadStore interface {
	// Events answers up to limit events of an execution after a seq, in order.
	Events(ctx context.Context, execution, after int64, limit int) ([]Record, error)
	// Heads answers how far the logs of executions reach; unknown ones are left out.
	Heads(ctx context.Context, executions []int64) (map[int64]Head, error)
	// News answers, by execution, what stands behind cursors on different logs:
	// up to limit events of each, in order. Logs that reach no further than their
	// cursor are left out.
	News(ctx context.Context, cursors []Cursor, limit int) (map[int64]News, error)
}

// Announcer tells other processes that a log has grown. It does not block.
type Announcer interface {
	Grown(execution int64)
}

// BrokerConfig configures a Broker. The zero value of every field means its default.
type BrokerConfig struct {
	RingFrames int           // recent frames kept per live execution; default 256
	RingBytes  int           // and their bytes; default 64 KiB
	PageRows   int           // rows read from the store at once; default 500
	Poll       time.Duration // how often the logs that other processes write are read without a hint; default 1 s
	Pause      time.Duration // least time from one such reading to the next; default 10 ms
	Announcer  Announcer     // told of every append of this process; nil = nobody is
	Logger     *slog.Logger  // default discards
}

// Broker shows the log to subscribers. For every live execution it keeps one
// ring of encoded frames, shared by all readers, and one wake-up. It keeps no
// queue per subscriber: a slow reader holds nothing but its own cursor.
type Broker struct {
	store  ReadStore
	cfg    BrokerConfig
	logger *slog.Logger

	stop context.CancelFunc
	wait sync.WaitGroup

	hints hints

	mu     sync.Mutex
	topics map[int64]*topic
	closed bool
	drain  chan struct{} // closed by Close
}

// topic is what the broker knows of one execution.
type topic struct {
	mu     sync.RWMutex
	frames []Frame       // contiguous, ending at head; nil when nothing is kept
	bytes  int           // of frames
	head   int64         // newest seq that is known to be stored
	wake   chan struct{} // closed and replaced when head moves

	// guarded by Broker.mu
	subscribers int
	writers     int
}

// NewBroker starts a broker that reads history from store.
func NewBroker(store ReadStore, cfg BrokerConfig) *Broker {
	cfg.RingFrames = cmp.Or(cfg.RingFrames, 256)
	cfg.RingBytes = cmp.Or(cfg.RingBytes, 64<<10)
	cfg.PageRows = cmp.Or(cfg.PageRows, 500)
	cfg.Poll = cmp.Or(cfg.Poll, time.Second)
	cfg.Pause = cmp.Or(cfg.Pause, 10*time.Millisecond)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &Broker{store: store, cfg: cfg, logger: cfg.Logger, stop: stop, topics: make(map[int64]*topic), drain: make(chan struct{})}
	b.hints.wake = make(chan struct{}, 1)
	b.wait.Go(func() { b.follow(ctx) })
	return b
}

// Close tells every subscription to end, so that its client reconnects
// elsewhere, and refuses new ones.
func (b *Broker) Close() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.drain)
	}
	b.mu.Unlock()
	b.stop()
	b.wait.Wait()
}

// Draining is closed when the broker is shutting down.
func (b *Broker) Draining() <-chan struct{} { return b.drain }

// Subscribers answers how many subscriptions are open.
func (b *Broker) Subscribers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, t := range b.topics {
		n += t.subscribers
	}
	return n
}

// topic answers the topic of an execution, made when it is missing. The caller
// holds b.mu.
func (b *Broker) topic(execution, head int64) *topic {
	t := b.topics[execution]
	if t == nil {
		t = &topic{head: head, wake: make(chan struct{})}
		b.topics[execution] = t
	}
	return t
}

// release forgets a topic that nobody uses. The caller holds b.mu.
func (b *Broker) release(execution int64, t *topic) {
	if t.subscribers == 0 && t.writers == 0 {
		delete(b.topics, execution)
	}
}

// attach notes that this process writes the execution.
func (b *Broker) attach(execution, head int64) {
	b.mu.Lock()
	t := b.topic(execution, head)
	t.writers++
	b.mu.Unlock()
	t.advance(head)
}

// detach ends attach.
func (b *Broker) detach(execution int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.topics[execution]; t != nil {
		t.writers--
		b.release(execution, t)
	}
}

// publish shows frames that this process has just stored.
func (b *Broker) publish(execution int64, frames []Frame) {
	if len(frames) == 0 {
		return
	}
	b.show(execution, frames)
	if b.cfg.Announcer != nil {
		b.cfg.Announcer.Grown(execution)
	}
}

// show puts frames that are stored into the ring of their execution.
func (b *Broker) show(execution int64, frames []Frame) {
	b.mu.Lock()
	t := b.topics[execution]
	b.mu.Unlock()
	if t != nil {
		t.publish(frames, b.cfg.RingFrames, b.cfg.RingBytes)
	}
}

func (t *topic) publish(frames []Frame, mostFrames, mostBytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := frames[len(frames)-1].Seq
	if last < t.head || last == t.head && len(t.frames) > 0 {
		return // the head was read from the store meanwhile: readers page
	}
	if frames[0].Seq != t.head+1 {
		t.frames, t.bytes = nil, 0 // what is kept must end at the head without a hole
	}
	t.frames = append(t.frames, frames...)
	for _, f := range frames {
		t.bytes += len(f.wire)
	}
	// Readers hold parts of the backing array, so it is only ever replaced,
	// and only when twice the bound is reached, to copy seldom.
	if len(t.frames) > 2*mostFrames || t.bytes > 2*mostBytes {
		keep, bytes := 0, 0
		for keep < len(t.frames) && keep < mostFrames && bytes < mostBytes {
			keep++
			bytes += len(t.frames[len(t.frames)-keep].wire)
		}
		t.frames = append(make([]Frame, 0, 2*keep), t.frames[len(t.frames)-keep:]...)
		t.bytes = bytes
	}
	t.move(last)
}

// advance moves the head to what the store is known to have.
func (t *topic) advance(head int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if head > t.head {
		t.frames, t.bytes = nil, 0
		t.move(head)
	}
}

// move sets the head and wakes every waiting reader. The caller holds t.mu.
func (t *topic) move(head int64) {
	t.head = head
	close(t.wake)
	t.wake = make(chan struct{})
}

// after answers the kept frames behind a cursor. Without any, it answers
// whether the store has more, and the channel that tells of news.
func (t *topic) after(cursor int64) (frames []Frame, more bool, wake <-chan struct{}) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if cursor >= t.head {
		return nil, false, t.wake
	}
	if n := int64(len(t.frames)); n > 0 {
		if at := cursor - (t.head - n); at >= 0 {
			return t.frames[at:n:n], false, nil
		}
	}
	return nil, true, nil
}

// Subscribe opens a cursor on the log of an execution, behind the event with
// the given seq; 0 is the beginning. It answers ErrNotFound for an execution
// that does not exist, ErrFutureCursor for a seq that is not stored yet, ErrGone
// for events that retention has removed, and ErrClosed while the broker drains.
func (b *Broker) Subscribe(ctx context.Context, execution, after int64) (*Subscription, error) {
	heads, err := b.store.Heads(ctx, []int64{execution})
	if err != nil {
		return nil, fmt.Errorf("subscribe to execution %d: %w", execution, err)
	}
	head, found := heads[execution]
	if !found {
		return nil, fmt.Errorf("subscribe to execution %d: %w", execution, ErrNotFound)
	}
	if after > head.LastSeq {
		return nil, fmt.Errorf("subscribe to execution %d after %d, its newest event is %d: %w", execution, after, head.LastSeq, ErrFutureCursor)
	}
	if head.Removed && after < head.LastSeq {
		return nil, fmt.Errorf("subscribe to execution %d after %d: %w", execution, after, ErrGone)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	t := b.topic(execution, head.LastSeq)
	t.subscribers++
	if t.subscribers == 1 && t.remote() && !head.Finished {
		b.hints.add(execution) // what came in since its head was read was of no interest then
	}
	return &Subscription{broker: b, topic: t, execution: execution, cursor: after, ended: head.Finished && after == head.LastSeq}, nil
}
