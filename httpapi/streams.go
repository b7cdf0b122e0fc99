package httpapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/events"
)

// streams are the places for streams: those that are open, and what is left of
// their number.
type streams struct {
	mu    sync.Mutex
	open  map[*place]struct{}
	ended sync.Cond // signalled when a place is left
}

func newStreams() *streams {
	s := &streams{open: make(map[*place]struct{})}
	s.ended.L = &s.mu
	return s
}

// place is that of one stream and of what the stream holds. It is left once the
// stream has ended.
type place struct {
	streams      *streams
	subscription *events.Subscription // nil until there is one
	conn         net.Conn             // that was taken over; nil while net/http has it
}

// take answers a place, or nil when all are taken.
func (s *streams) take(most int) *place {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= most {
		return nil
	}
	p := &place{streams: s}
	s.open[p] = struct{}{}
	return p
}

// hold notes the connection of a stream, so that it can be cut off.
func (p *place) hold(conn net.Conn) {
	p.streams.mu.Lock()
	defer p.streams.mu.Unlock()
	p.conn = conn
}

// leave gives the place back and closes what it holds.
func (p *place) leave() {
	if p.subscription != nil {
		p.subscription.Close()
	}
	p.streams.mu.Lock()
	defer p.streams.mu.Unlock()
	delete(p.streams.open, p)
	if p.conn != nil {
		_ = p.conn.Close() // the client may have closed it
	}
	p.streams.ended.Broadcast()
}

func (s *streams) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// wait blocks until every stream has ended. When ctx ends before, it cuts off
// those whose readers keep them.
func (s *streams) wait(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for p := range s.open {
			if p.conn != nil {
				_ = p.conn.Close()
			}
		}
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.open) > 0 {
		s.ended.Wait()
	}
}

// serveStream sends the header and then the events until the terminal one; the
// subscription and the place are its own from now on. The first page is read
// before the header, while there can still be a problem; an error says that
// nothing was sent.
//
// A stream lives long and mostly waits. So its connection is taken over from
// net/http, whose buffers and goroutines cost six times what the wait itself
// needs, and served by one goroutine that owns nothing but a cursor. Where a
// connection cannot be taken over, the response is written as usual.
func (s *Server) serveStream(c echo.Context, p *place, sub *events.Subscription, v view) error {
	p.subscription = sub
	req, res := c.Request(), c.Response()
	first, _, err := sub.Poll(req.Context())
	if err != nil && !errors.Is(err, io.EOF) {
		p.leave()
		return err
	}
	if req.Method == http.MethodHead {
		p.leave()
		streamHeader(res)
		return nil
	}
	l := &loop{source: sub, first: first, view: v, heartbeat: s.cfg.Heartbeat, draining: s.cfg.Broker.Draining()}
	rc := http.NewResponseController(res.Writer)
	if req.ProtoMajor == 1 {
		if conn, _, err := rc.Hijack(); err == nil {
			p.hold(conn)
			out := newConnWriter(conn, s.cfg.StreamWrite, req.ProtoMinor == 0)
			l.out, l.gone = out, departure(conn)
			res.Status, res.Committed = http.StatusOK, true
			if err := out.header(res.Header()); err != nil {
				p.leave()
				return nil //nolint:nilerr // the client has left; nobody needs to know
			}
			// Nothing of the request is kept: its context ends with this call.
			go s.follow(context.Background(), p, l, out.end)
			return nil
		}
	}
	if err := unhurried(rc); err != nil {
		p.leave()
		return err
	}
	streamHeader(res)
	l.out = newResponseWriter(res, rc, s.cfg.StreamWrite)
	s.follow(req.Context(), p, l, func() error { return nil }) // net/http ends what it has begun
	return nil
}

// follow runs the loop of a stream to its end.
func (s *Server) follow(ctx context.Context, p *place, l *loop, end func() error) {
	defer p.leave()
	defer func() {
		if r := recover(); r != nil { // net/http does not stand behind a connection that was taken over
			s.logger.ErrorContext(ctx, "panic in a stream", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	reason := l.run(ctx)
	if reason == endComplete || reason == endDrain {
		_ = end() // a client that has left needs no end
	}
	s.metrics.delivered.Add(float64(l.delivered))
	s.metrics.ended.WithLabelValues(reason.String()).Inc()
}

// WaitStreams blocks until every stream has ended, which follows closing the
// Broker, and at the end of ctx cuts off those that have not. http.Server's
// Shutdown does not know of them.
func (s *Server) WaitStreams(ctx context.Context) { s.streams.wait(ctx) }
