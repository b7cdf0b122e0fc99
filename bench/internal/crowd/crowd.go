// Package crowd is many subscribers of one stream that count together: every
// event must reach every one of them, in order, and an event is complete when
// the last one has it.
package crowd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/subscriber"
)

// window is the most events that may be under way at once.
const window = 1024

// Figures are distributions over all deliveries.
type Figures struct {
	Latency measure.Latencies // from Sent to a subscriber
	Spread  measure.Latencies // from the first subscriber that had the event to each; storing is not in it
}

// Crowd is a number of open streams.
type Crowd struct {
	figures   atomic.Pointer[Figures] // since the last Reset
	delivered atomic.Int64
	bytes     atomic.Int64

	size      int64
	sent      [window]atomic.Int64 // when, in ns since begin
	seen      [window]atomic.Int64 // by how many subscribers
	first     [window]atomic.Int64 // when the first of them had it, in ns since begin
	begin     time.Time
	completed atomic.Int64
	Complete  chan struct{} // one value for every event that all subscribers have

	streams []*subscriber.Stream
	readers sync.WaitGroup
	closing atomic.Bool
	failure atomic.Pointer[error]
	failed  chan struct{} // closed at the first failure
}

// connecting is how many streams are opened at a time.
const connecting = 64

// Open opens size streams.
func Open(ctx context.Context, size int, addr, path string, o subscriber.Options) (*Crowd, error) {
	c := &Crowd{
		size: int64(size), begin: time.Now(), Complete: make(chan struct{}, window), failed: make(chan struct{}),
		streams: make([]*subscriber.Stream, size),
	}
	c.figures.Store(new(Figures))
	var next atomic.Int64
	errs := make([]error, min(connecting, size))
	var openers sync.WaitGroup
	for k := range errs {
		openers.Go(func() {
			for i := next.Add(1) - 1; i < int64(size) && errs[k] == nil; i = next.Add(1) - 1 {
				c.streams[i], errs[k] = subscriber.Open(ctx, addr, path, o)
			}
		})
	}
	openers.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for _, s := range c.streams {
		c.readers.Go(func() { c.read(s) })
	}
	return c, nil
}

// read follows one stream to its end.
func (c *Crowd) read(s *subscriber.Stream) {
	var last int64
	var wrong error
	for wrong == nil {
		n, bytes := 0, 0
		var now time.Duration
		figures := c.figures.Load()
		err := s.Read(func(e subscriber.Event) {
			if n++; n == 1 {
				now = time.Since(c.begin)
			}
			bytes += e.Size
			if e.ID != last+1 && wrong == nil {
				wrong = fmt.Errorf("after event %d came %d", last, e.ID)
			}
			last = e.ID
			slot := e.ID % window
			figures.Latency.Add(now-time.Duration(c.sent[slot].Load()), 1)
			seen := c.seen[slot].Add(1)
			if seen == 1 {
				c.first[slot].Store(int64(now))
			}
			figures.Spread.Add(now-time.Duration(c.first[slot].Load()), 1)
			if seen == c.size {
				c.seen[slot].Store(0)
				c.completed.Add(1)
				c.Complete <- struct{}{}
			}
		})
		c.delivered.Add(int64(n))
		c.bytes.Add(int64(bytes))
		if err != nil {
			wrong = errors.Join(wrong, err)
		}
	}
	if !c.closing.Load() {
		if err := fmt.Errorf("subscriber at event %d: %w", last, wrong); c.failure.CompareAndSwap(nil, &err) {
			close(c.failed)
		}
	}
}

// Sent notes that an event is about to be published.
func (c *Crowd) Sent(id int64) { c.sent[id%window].Store(int64(time.Since(c.begin))) }

// Failed is closed when a subscriber lost its stream or an event; Err says why.
func (c *Crowd) Failed() <-chan struct{} { return c.failed }

// Err answers the first failure.
func (c *Crowd) Err() error {
	if err := c.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Totals answers how many events were delivered, and their bytes.
func (c *Crowd) Totals() (delivered, bytes int64) { return c.delivered.Load(), c.bytes.Load() }

// Completed answers how many events have reached everybody.
func (c *Crowd) Completed() int64 { return c.completed.Load() }

// Reset begins with new figures and answers those before.
func (c *Crowd) Reset() *Figures { return c.figures.Swap(new(Figures)) }

// Close closes all streams and waits for their readers.
func (c *Crowd) Close() error {
	c.closing.Store(true)
	var err error
	for _, s := range c.streams {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	c.readers.Wait()
	return err
}
