package crowd

import (
	"context"
	"fmt"
	"time"
)

// Load publishes events for a crowd. It is used by one goroutine.
type Load struct {
	crowd   *Crowd
	publish func() error
	sent    int64
}

// NewLoad makes a load. publish must publish the next event, with the ids
// 1, 2, 3 …, without waiting for it.
func NewLoad(c *Crowd, publish func() error) *Load { return &Load{crowd: c, publish: publish} }

// Sent answers how many events were published.
func (l *Load) Sent() int64 { return l.sent }

// Publish publishes one event.
func (l *Load) Publish() error {
	l.sent++
	l.crowd.Sent(l.sent)
	return l.publish()
}

// Saturate publishes more events at once, and from then on one for each that
// has reached everybody, for the given time.
func (l *Load) Saturate(ctx context.Context, more int, d time.Duration) error {
	for range more {
		if err := l.Publish(); err != nil {
			return err
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-l.crowd.Complete:
			if err := l.Publish(); err != nil {
				return err
			}
		case <-timer.C:
			return nil
		case <-l.crowd.Failed():
			return l.crowd.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Pace publishes so many events a second for the given time, whether or not
// they arrive.
func (l *Load) Pace(ctx context.Context, perSecond int, d time.Duration) error {
	begin := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(min(perSecond, 1000)))
	defer tick.Stop()
	first := l.sent
	for {
		select {
		case <-tick.C:
		case <-l.crowd.Complete: // nothing waits for it
			continue
		case <-l.crowd.Failed():
			return l.crowd.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		past := time.Since(begin)
		for l.sent-first < int64(past.Seconds()*float64(perSecond)) {
			if err := l.Publish(); err != nil {
				return err
			}
		}
		if past >= d {
			return nil
		}
	}
}

// drainTimeout is how long the last events may take.
const drainTimeout = 30 * time.Second

// Drain waits until every event has reached everybody.
func (l *Load) Drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	for l.crowd.Completed() < l.sent {
		select {
		case <-l.crowd.Complete:
		case <-l.crowd.Failed():
			return l.crowd.Err()
		case <-ctx.Done():
			return fmt.Errorf("%d of %d events have reached everybody: %w", l.crowd.Completed(), l.sent, context.Cause(ctx))
		}
	}
	return nil
}
