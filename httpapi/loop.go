package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/chainstream/chainstream/events"
)

// source is a cursor on a log; events.Subscription is the one.
type source interface {
	// Poll answers what stands behind the cursor, or a channel that tells of news.
	Poll(ctx context.Context) ([]events.Frame, <-chan struct{}, error)
}

// sink takes what a stream sends. A write that its reader does not take in
// time fails, and so does every write after it.
type sink interface {
	Write(b []byte) (int, error)
	// Flush sends what was written.
	Flush() error
}

// ending is why a stream ended.
type ending int

const (
	endComplete ending = iota // after the terminal event
	endClient                 // the client left, or was cut for reading too slowly
	endSlow
	endDrain  // the server is shutting down
	endBroken // the log cannot be read on; the client learns why when it reconnects
)

func (e ending) String() string {
	return [...]string{"complete", "client", "slow", "drain", "broken"}[e]
}

// loop writes a log to one client: everything there is, one flush, then it
// waits. It holds no lock and no queue, so nobody else notices how fast its
// client reads.
type loop struct {
	source    source
	first     []events.Frame // read before the header was sent
	out       sink
	view      view
	heartbeat time.Duration
	draining  <-chan struct{}
	gone      func() bool // tells whether the client has left, where ctx does not; may be nil
	delivered int64       // events written
}

// outageInterval is how often a log that cannot be read is tried again. The
// stream stays open meanwhile: a browser that is sent away could not come back
// before the database does.
const outageInterval = time.Second

var heartbeatComment = []byte(":\n\n")

// run serves until the log ends, the client leaves or the server drains.
func (l *loop) run(ctx context.Context) ending {
	timer := time.NewTimer(l.heartbeat)
	defer timer.Stop()
	if _, err := l.out.Write(retryFrame(streamRetry, "the events of one execution; reconnect with Last-Event-ID")); err != nil {
		return endingOf(err)
	}
	frames, wrote := l.first, true
	l.first = nil     // a stream that waits keeps no events
	var due time.Time // of the next heartbeat
	for {
		for _, f := range frames {
			if !l.view.shows(f.Type) {
				continue
			}
			if _, err := l.out.Write(f.Wire()); err != nil {
				return endingOf(err)
			}
			if !f.Folded() {
				l.delivered++
			}
			wrote = true
		}
		var wake <-chan struct{}
		var err error
		frames, wake, err = l.source.Poll(ctx)
		if len(frames) > 0 {
			continue
		}
		outage := errors.Is(err, events.ErrUnavailable)
		if err != nil && !outage && !errors.Is(err, io.EOF) {
			_ = l.out.Flush()
			return l.broken(ctx)
		}
		if wrote {
			if ferr := l.out.Flush(); ferr != nil {
				return endingOf(ferr)
			}
			due, wrote = time.Now().Add(l.heartbeat), false
		}
		if errors.Is(err, io.EOF) {
			return endComplete
		}
		wait := time.Until(due)
		if outage {
			wait = min(wait, outageInterval)
		}
		timer.Reset(wait)
		select {
		case <-wake:
		case <-timer.C:
			if time.Now().Before(due) {
				continue
			}
			if l.gone != nil && l.gone() {
				return endClient
			}
			if _, err := l.out.Write(heartbeatComment); err != nil {
				return endingOf(err)
			}
			wrote = true
		case <-l.draining:
			return l.drain()
		case <-ctx.Done():
			return endClient
		}
	}
}

func (l *loop) broken(ctx context.Context) ending {
	if ctx.Err() != nil {
		return endClient
	}
	return endBroken
}

// drain tells the client to come back soon, but not together with all others.
func (l *loop) drain() ending {
	const earliest, latest = 500 * time.Millisecond, 3000 * time.Millisecond
	b := retryFrame(earliest+rand.N(latest-earliest), "the server is restarting, come back")
	if _, err := l.out.Write(b); err != nil {
		return endingOf(err)
	}
	if err := l.out.Flush(); err != nil {
		return endingOf(err)
	}
	return endDrain
}

// endingOf tells a reader that was too slow from one that has left.
func endingOf(err error) ending {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return endSlow
	}
	return endClient
}

// retryFrame tells the wait before a reconnect, with a comment for people.
func retryFrame(wait time.Duration, comment string) []byte {
	return fmt.Appendf(nil, "retry: %d\n: %s\n\n", wait.Milliseconds(), comment)
}
