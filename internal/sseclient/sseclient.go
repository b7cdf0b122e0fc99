// Package sseclient follows an event stream to its end, through every
// interruption. It stands on the client of r3labs/sse and adds what that lacks
// for a log that must not lose or repeat an event:
//
//   - A connection that ends cleanly before the last event is resumed; the
//     client itself takes it for the end.
//   - 204 ends the stream; the client takes it for a failure and tries again.
//   - An event that was cut off in the middle is dropped and read again; the
//     client delivers what came of it and remembers its id.
//   - Events may be large; the client's default is 64 KiB.
//   - The server's retry field is honoured, waits grow and are spread, and there
//     is no time after which it gives up; the client stops after 15 minutes and
//     ignores the field.
//   - A connection without any sign of life is given up.
//   - Comments and events without an id, which the client passes on under the
//     previous id, are dropped, and so is every event that came before.
package sseclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/r3labs/sse/v2"
)

// Event is one event of a stream.
type Event struct {
	ID   int64  // grows along the stream
	Type string // "" when the stream names none
	Data []byte
}

// Reconnect says that a connection ended and another one follows.
type Reconnect struct {
	After int64         // id of the last event that was received
	Wait  time.Duration // until the next connection
	Err   error         // why the last one ended; nil when the server closed it
}

// Config says what to follow. URL and Client are needed; the zero value of every
// other field means its default.
type Config struct {
	URL    string
	Client *http.Client // without an overall timeout

	After       int64                   // id of the last event that is known already; sent as Last-Event-ID
	Last        func(event string) bool // tells the event after which nothing follows; default: none, only 204 ends
	MaxEvent    int                     // bytes of the largest event; default 16 MiB
	Idle        time.Duration           // silence after which a connection is given up; default 45 s, three heartbeats
	Wait        time.Duration           // before a reconnect, until the server's retry field says otherwise; default 1 s
	MaxWait     time.Duration           // that repeated failures grow to; default 30 s
	OnReconnect func(Reconnect)         // told before each wait; may be nil
}

// StatusError is an answer that is no stream.
type StatusError struct {
	Status      int
	ContentType string
	Body        []byte        // its beginning
	RetryAfter  time.Duration // as the server asked; 0 when it did not
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the stream was answered with status %d", e.Status)
}

// passing tells whether the same request may succeed later.
func (e *StatusError) passing() bool {
	return e.Status >= http.StatusInternalServerError || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
}

// Errors of Follow.
var (
	// ErrTooLarge says that an event is larger than Config.MaxEvent.
	ErrTooLarge = errors.New("an event of the stream is larger than the limit")
	// ErrNoStream says that what answers is no event stream.
	ErrNoStream = errors.New("the answer is not an event stream")

	errIdle  = errors.New("the connection was silent")
	errEnded = errors.New("nothing follows") // 204
)

// Follow yields the events behind Config.After, each once and in order, and
// reconnects until the last event, 204, or the end of ctx. It yields at most one
// error, at the end: a *StatusError for an answer that another try would not
// change, ErrNoStream, ErrTooLarge, what prevented the very first connection, or
// the cause of ctx.
func Follow(ctx context.Context, cfg Config) iter.Seq2[Event, error] {
	cfg.MaxEvent = cmp.Or(cfg.MaxEvent, 16<<20)
	cfg.Idle = cmp.Or(cfg.Idle, 45*time.Second)
	cfg.Wait = cmp.Or(cfg.Wait, time.Second)
	cfg.MaxWait = cmp.Or(cfg.MaxWait, 30*time.Second)
	return func(yield func(Event, error) bool) {
		f := &follower{cfg: cfg, cursor: cfg.After, retry: cfg.Wait, yield: yield}
		if err := f.follow(ctx); err != nil {
			yield(Event{}, err)
		}
	}
}

// follower is one range over a stream.
type follower struct {
	cfg       Config
	yield     func(Event, error) bool
	cursor    int64         // id of the last event that was yielded
	retry     time.Duration // as the server wishes
	connected bool          // a stream was open before
	progress  bool          // the current connection brought an event
	done      bool          // nothing more is to be yielded
}

func (f *follower) follow(ctx context.Context) error {
	failures := 0
	for {
		f.progress = false
		err := f.connect(ctx)
		switch {
		case f.done || errors.Is(err, errEnded):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case f.final(err):
			return err
		}
		failures++
		if f.progress {
			failures = 0
		}
		wait := f.wait(failures, err)
		if f.cfg.OnReconnect != nil {
			f.cfg.OnReconnect(Reconnect{After: f.cursor, Wait: wait, Err: err})
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// final tells whether another try makes no sense.
func (f *follower) final(err error) bool {
	var status *StatusError
	switch {
	case err == nil:
		return false
	case errors.As(err, &status):
		return !status.passing()
	case errors.Is(err, ErrNoStream), errors.Is(err, ErrTooLarge):
		return true
	}
	return !f.connected
}

// wait is at least what the server asked for, grows with failures in a row, and
// is spread upwards, so that those who lost the same server do not return
// together.
func (f *follower) wait(failures int, err error) time.Duration {
	wait := f.retry
	for range failures {
		if wait >= f.cfg.MaxWait {
			break
		}
		wait = min(2*wait, f.cfg.MaxWait)
	}
	if status, ok := errors.AsType[*StatusError](err); ok {
		wait = max(wait, status.RetryAfter)
	}
	return wait + rand.N(wait/4+1)
}

// connect reads one connection to its end. A nil error is a clean end.
func (f *follower) connect(ctx context.Context) error {
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	watchdog := time.AfterFunc(f.cfg.Idle, func() { hangUp(errIdle) })
	defer watchdog.Stop()

	var body *wholeEvents
	client := sse.NewClient(f.cfg.URL, sse.ClientMaxBufferSize(f.cfg.MaxEvent+1<<10))
	client.Connection = f.cfg.Client
	client.ReconnectStrategy = once{}
	if f.cursor > 0 {
		client.LastEventID.Store([]byte(strconv.FormatInt(f.cursor, 10)))
	}
	client.ResponseValidator = func(_ *sse.Client, resp *http.Response) error {
		if err := check(resp); err != nil {
			return errors.Join(err, resp.Body.Close())
		}
		f.connected = true
		body = &wholeEvents{body: resp.Body, max: f.cfg.MaxEvent, alive: func() { watchdog.Reset(f.cfg.Idle) }}
		resp.Body = body
		return nil
	}
	err := client.SubscribeRawWithContext(ctx, func(msg *sse.Event) { f.take(msg, hangUp) })
	switch {
	case body != nil && errors.Is(body.err, ErrTooLarge):
		return body.err
	case errors.Is(context.Cause(ctx), errIdle):
		return errIdle
	}
	return err
}

// take handles one event of the underlying client.
func (f *follower) take(msg *sse.Event, hangUp context.CancelCauseFunc) {
	if f.done {
		return
	}
	if ms, err := strconv.ParseInt(string(msg.Retry), 10, 32); err == nil && ms >= 0 {
		f.retry = time.Duration(ms) * time.Millisecond
	}
	id, err := strconv.ParseInt(string(msg.ID), 10, 64)
	if err != nil || id <= f.cursor || len(msg.Data) == 0 {
		return
	}
	f.cursor, f.progress = id, true
	event := Event{ID: id, Type: string(msg.Event), Data: msg.Data}
	if !f.yield(event, nil) || f.cfg.Last != nil && f.cfg.Last(event.Type) {
		f.done = true
		hangUp(nil)
	}
}

// maxProblem is how much of an answer that is no stream is read.
const maxProblem = 64 << 10

// check tells whether an answer is a stream.
func check(resp *http.Response) error {
	if resp.StatusCode == http.StatusNoContent {
		return errEnded
	}
	contentType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK {
		if err != nil || contentType != "text/event-stream" {
			return fmt.Errorf("%w but %q", ErrNoStream, resp.Header.Get("Content-Type"))
		}
		return nil
	}
	status := &StatusError{Status: resp.StatusCode, ContentType: contentType}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		status.RetryAfter = time.Duration(seconds) * time.Second
	}
	status.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	return errors.Join(status, err)
}

// once is a reconnect strategy of the underlying client: never. Follow
// reconnects itself.
type once struct{}

// NextBackOff implements backoff.BackOff with its value for "stop".
func (once) NextBackOff() time.Duration { return -1 }

// Reset implements backoff.BackOff.
func (once) Reset() {}
