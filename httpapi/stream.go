package httpapi

import (
	"errors"
	"math/rand/v2"
	"net/http"
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
	place := s.streams.take(s.cfg.MaxStreams)
	if place == nil {
		return s.later(c, busyRetry)
	}
	sub, err := s.cfg.Broker.Subscribe(c.Request().Context(), id, view.after)
	switch {
	case err != nil:
		place.leave()
	case sub.Ended():
		sub.Close()
		place.leave()
		return c.NoContent(http.StatusNoContent) // EventSource stops
	default:
		err = s.serveStream(c, place, sub, view)
	}
	if errors.Is(err, events.ErrUnavailable) || errors.Is(err, events.ErrClosed) {
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
	_, err := c.Response().Write(retryFrame(wait+rand.N(wait), "not now, come back later"))
	s.metrics.ended.WithLabelValues("refused").Inc()
	return ignoreGone(err)
}

// ignoreGone drops the error of a write to a client that has left: the answer
// needs nobody's attention.
func ignoreGone(error) error { return nil }

// view is what a stream shows of a log.
type view struct {
	after    int64
	types    map[events.Type]bool // nil = all
	noDeltas bool
}

// shows tells whether an event passes. The terminal event always does.
func (v view) shows(t events.Type) bool {
	if t == "" { // a note that text deltas were folded away
		t = events.TypePromptDelta
	}
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
	if format := q.one("format"); format != "" && format != "native" {
		q.fail("format", "%q is not a format of this server; native is the only one", format)
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
