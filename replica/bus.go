package replica

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"
)

// Transport carries messages between processes.
type Transport interface {
	// Send gives a message to all processes, this one included or not.
	Send(ctx context.Context, message []byte) error
	// Listen calls receive for every message that arrives, one at a time, until
	// ctx ends. It reconnects by itself, and calls missed whenever it begins to
	// hear: what was sent before is not repeated.
	Listen(ctx context.Context, receive func(message []byte), missed func())
	// Close gives the connections back. It is called after Listen has returned.
	Close()
}

// Receiver acts on the hints of other processes. Its methods do not block.
type Receiver interface {
	// Receive is called with every hint of another process.
	Receive(h Hint)
}

// ReceiverFunc is a function as a Receiver.
type ReceiverFunc func(h Hint)

// Receive implements Receiver.
func (f ReceiverFunc) Receive(h Hint) { f(h) }

// Config configures a Bus. The zero value of every field means its default.
type Config struct {
	Interval time.Duration // least time between two messages; default 10 ms
	Timeout  time.Duration // of sending one; default 1 s
	Logger   *slog.Logger  // default discards
}

// Bus gathers what this process has to tell, and hears what others tell. Its
// methods are safe for concurrent use and, but for Close, never wait for a
// connection.
type Bus struct {
	transport Transport
	cfg       Config
	sender    string

	stop context.CancelFunc
	wait sync.WaitGroup
	wake chan struct{} // holds one token: something was gathered
	quit chan struct{} // closed by Close

	mu      sync.Mutex
	pending gathered
	started bool
	closed  bool
}

// NewBus makes a bus; what is told before Start is sent after it.
func NewBus(transport Transport, cfg Config) *Bus {
	cfg.Interval = cmp.Or(cfg.Interval, 10*time.Millisecond)
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Bus{
		transport: transport, cfg: cfg, sender: rand.Text(), stop: func() {},
		wake: make(chan struct{}, 1), quit: make(chan struct{}),
	}
}

// Start begins to send, and to give the hints of others to a receiver.
func (b *Bus) Start(r Receiver) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.started || b.closed {
		return
	}
	b.started = true
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.wait.Go(func() { b.send(ctx) })
	b.wait.Go(func() {
		b.transport.Listen(ctx, func(message []byte) {
			if sender, h, ok := decode(message); ok && sender != b.sender {
				r.Receive(h)
			}
		}, func() { r.Receive(Hint{All: true}) })
	})
}

// Close sends what was gathered last, for as long as ctx allows, and ends.
func (b *Bus) Close(ctx context.Context) {
	b.mu.Lock()
	first, started, stop := !b.closed, b.started, b.stop
	b.closed = true
	b.mu.Unlock()
	if !first {
		return
	}
	close(b.quit)
	if last := b.take(); started && !last.empty() {
		ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
		_ = b.transport.Send(ctx, last.encode(b.sender)) // a hint
		cancel()
	}
	stop()
	b.wait.Wait()
	b.transport.Close()
}

// Grown tells that the log of an execution has grown.
func (b *Bus) Grown(execution int64) {
	b.tell(func(g *gathered) { g.gather(&g.grown, execution) })
}

// Queued tells that an execution can be claimed.
func (b *Bus) Queued() { b.tell(func(g *gathered) { g.queue = true }) }

// Cancelled tells that an execution is to be stopped.
func (b *Bus) Cancelled(execution int64) {
	b.tell(func(g *gathered) { g.gather(&g.cancel, execution) })
}

func (b *Bus) tell(note func(*gathered)) {
	b.mu.Lock()
	note(&b.pending)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *Bus) take() gathered {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.pending
	b.pending = gathered{}
	return g
}

// Waits after messages that could not be sent. Instead of what was in them, the
// others are told to look at everything as soon as they can be told.
const (
	failureFirst = 100 * time.Millisecond
	failureMost  = 2 * time.Second
)

// send sends what is gathered. A lone hint leaves at once.
func (b *Bus) send(ctx context.Context) {
	failed := time.Duration(0) // the wait after the last failure; 0 = the last message was sent
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-b.wake:
		case <-b.quit:
			return
		}
		if g := b.take(); !g.empty() {
			try, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
			err := b.transport.Send(try, g.encode(b.sender))
			cancel()
			if err != nil {
				b.tell(func(g *gathered) { *g = gathered{all: true} })
			}
			switch {
			case err == nil && failed > 0:
				b.cfg.Logger.InfoContext(ctx, "hints to other servers are sent again")
				failed = 0
			case err != nil && failed == 0 && ctx.Err() == nil:
				b.cfg.Logger.WarnContext(ctx, "hints to other servers cannot be sent; they look by themselves once a second", "error", err)
				failed = failureFirst
			case err != nil:
				failed = min(2*failed, failureMost)
			}
		}
		timer.Reset(max(b.cfg.Interval, failed))
		select {
		case <-timer.C:
		case <-b.quit:
			return
		}
	}
}
