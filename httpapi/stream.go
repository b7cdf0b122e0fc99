package httpapi

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/events"
)

const (
	streamRoute = "/events/:executionId"

	// streamRetry is how long a client waits before it reconnects.
	streamRetry = 2 * time.Second
	// busyRetry is the wait of a client that found no room.
	busyRetry = 30 * time.Second
	// streamSendBuffer is the kernel's send buffer of a stream, in bytes. It
	// bounds what a reader that has stopped reading costs.
	streamSendBuffer = 32 << 10
)

// stream is GET /events/{executionId}.
func (s *Server) stream(c echo.Context) error {
	id, ok := pathID(c.Param("executionId"))
	if !ok {
		return events.ErrNotFound
	}
	q := newQuery(c)
	view, err := readView(c.Request(), q)
	if err != nil {
		return err
	}
	if !s.openStream() {
		return s.later(c, busyRetry)
	}
	defer s.closeStream()
	sub, err := s.cfg.Broker.Subscribe(c.Request().Context(), id, view.after)
	if errors.Is(err, events.ErrUnavailable) || errors.Is(err, events.ErrClosed) {
		return s.later(c, streamRetry)
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	if sub.Ended() {
		return c.NoContent(http.StatusNoContent) // EventSource stops
	}
	err = s.serveStream(c, sub, view)
	if errors.Is(err, events.ErrUnavailable) {
		return s.later(c, streamRetry)
	}
	return err
}

// later answers a client that cannot be served at the moment with a stream that
// has no events. A browser's EventSource gives up for good on any status but
// 200, so this is how it is told to come back.
func (s *Server) later(c echo.Context, wait time.Duration) error {
	streamHeader(c.Response())
	if c.Request().Method == http.MethodHead {
		return nil
	}
	_, err := c.Response().Write(appendRetry(nil, wait+rand.N(wait), "not now, come back later"))
	s.metrics.ended.WithLabelValues("refused").Inc()
	return ignoreGone(err)
}

// streamHeader sends the header of a stream.
func streamHeader(res *echo.Response) {
	h := res.Header()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set(echo.HeaderCacheControl, "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	// The connection has a small send buffer from now on, and a new one is
	// cheap for who reconnects after seconds.
	h.Set(echo.HeaderConnection, "close")
	res.WriteHeader(http.StatusOK)
}

// ignoreGone drops the error of a write to a client that has left: the answer
// needs nobody's attention.
func ignoreGone(error) error { return nil }

// openStream takes one of the places for streams; closeStream gives it back.
func (s *Server) openStream() bool {
	if s.streams.Add(1) > int64(s.cfg.MaxStreams) {
		s.streams.Add(-1)
		return false
	}
	return true
}

func (s *Server) closeStream() { s.streams.Add(-1) }

// view is what a stream shows of a log.
type view struct {
	after    int64
	types    map[events.Type]bool // nil = all
	noDeltas bool
}

// shows tells whether an event passes. The terminal event always does.
func (v view) shows(t events.Type) bool {
	if t.Terminal() {
		return true
	}
	return (v.types == nil || v.types[t]) && (!v.noDeltas || !t.Delta())
}

// readView reads where a stream begins and what it shows. The header that a
// browser sends when it reconnects wins over the query it began with.
func readView(req *http.Request, q *query) (view, error) {
	v := view{noDeltas: !q.flag("deltas", true)}
	if list := q.types("types"); list != nil {
		v.types = make(map[events.Type]bool, len(list))
		for _, t := range list {
			v.types[t] = true
		}
	}
	cursor := q.one("after")
	given := q.values.Has("after")
	if last := req.Header.Values("Last-Event-ID"); len(last) > 1 {
		return view{}, events.ErrBadCursor
	} else if len(last) == 1 && last[0] != "" { // an empty id is none
		cursor, given = last[0], true
	}
	if q.err != nil {
		return view{}, q.err
	}
	if given {
		var err error
		if v.after, err = events.ParseCursor(cursor); err != nil {
			return view{}, err
		}
	}
	return v, nil
}

// serveStream sends the header and then the events until the terminal one. The
// first page is read before the header, while there can still be a problem; an
// error says that nothing was sent.
func (s *Server) serveStream(c echo.Context, src source, v view) error {
	req, res := c.Request(), c.Response()
	first, _, err := src.Poll(req.Context())
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	rc := http.NewResponseController(res.Writer)
	if req.Method == http.MethodHead {
		streamHeader(res)
		return nil
	}
	if err := unhurried(rc); err != nil {
		return err
	}
	if conn, ok := req.Context().Value(connKey{}).(*net.TCPConn); ok {
		_ = conn.SetWriteBuffer(streamSendBuffer) // a refusal costs memory, not correctness
	}
	streamHeader(res)
	out := &streamWriter{w: res.Writer, rc: rc, timeout: s.cfg.StreamWrite}
	l := &loop{source: src, out: out, view: v, heartbeat: s.cfg.Heartbeat, draining: s.cfg.Broker.Draining()}
	reason := l.run(req.Context(), first)
	res.Size += out.written
	s.metrics.delivered.Add(float64(l.delivered))
	s.metrics.ended.WithLabelValues(reason.String()).Inc()
	return nil
}

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
	out       sink
	view      view
	heartbeat time.Duration
	draining  <-chan struct{}
	delivered int64 // events written
}

// outageInterval is how often a log that cannot be read is tried again. The
// stream stays open meanwhile: a browser that is sent away could not come back
// before the database does.
const outageInterval = time.Second

var heartbeatComment = []byte(":\n\n")

// run serves until the log ends, the client leaves or the server drains. first
// is the page that was read before the header was sent.
func (l *loop) run(ctx context.Context, first []events.Frame) ending {
	timer := time.NewTimer(l.heartbeat)
	defer timer.Stop()
	if _, err := l.out.Write(appendRetry(nil, streamRetry, "the events of one execution; reconnect with Last-Event-ID")); err != nil {
		return endingOf(err)
	}
	frames, wrote := first, true
	for {
		for _, f := range frames {
			if !l.view.shows(f.Type) {
				continue
			}
			if _, err := l.out.Write(f.Wire()); err != nil {
				return endingOf(err)
			}
			l.delivered++
			wrote = true
		}
		var wake <-chan struct{}
		var err error
		frames, wake, err = l.source.Poll(ctx)
		if len(frames) > 0 {
			continue
		}
		silence := l.heartbeat
		switch {
		case errors.Is(err, events.ErrUnavailable):
			silence, wrote = min(silence, outageInterval), true
		case err != nil && !errors.Is(err, io.EOF):
			_ = l.out.Flush()
			return l.broken(ctx)
		}
		if wrote {
			if ferr := l.out.Flush(); ferr != nil {
				return endingOf(ferr)
			}
			timer.Reset(silence)
			wrote = false
		}
		if errors.Is(err, io.EOF) {
			return endComplete
		}
		select {
		case <-wake:
		case <-timer.C:
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
	b := appendRetry(nil, earliest+rand.N(latest-earliest), "the server is restarting, come back")
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

// appendRetry appends the wait before a reconnect and a comment for people.
func appendRetry(dst []byte, wait time.Duration, comment string) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, wait.Milliseconds(), 10)
	dst = append(dst, "\n: "...)
	dst = append(dst, comment...)
	return append(dst, "\n\n"...)
}

// streamWriter writes with a deadline that moves on while the client reads. It
// looks at the clock once per streamPiece, and moves the deadline at most once
// a second, because that costs a system timer.
type streamWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	armed   time.Time
	credit  int // bytes until the clock is read again
	written int64
}

// streamPiece is the most that has to be taken by the reader within one
// deadline, in bytes: a large event reaches a slow reader in several.
const streamPiece = 16 << 10

func (w *streamWriter) Write(b []byte) (int, error) {
	n := 0
	for {
		piece := b[n:min(n+streamPiece, len(b))]
		if w.credit -= len(piece); w.credit <= 0 {
			if err := w.arm(); err != nil {
				return n, err
			}
		}
		m, err := w.w.Write(piece)
		n += m
		w.written += int64(m)
		if err != nil || n == len(b) {
			return n, err
		}
	}
}

// Flush sends what the server has buffered, which can block like a write.
func (w *streamWriter) Flush() error {
	if err := w.arm(); err != nil {
		return err
	}
	w.credit = 0 // the next write may come much later
	return w.rc.Flush()
}

func (w *streamWriter) arm() error {
	w.credit = streamPiece
	now := time.Now()
	if now.Sub(w.armed) < min(time.Second, w.timeout/4) {
		return nil
	}
	w.armed = now
	if err := w.rc.SetWriteDeadline(now.Add(w.timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
