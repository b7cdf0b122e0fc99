package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/knowledge"
)

// progressInterval is how often a document is looked at whose progress is watched.
const progressInterval = 300 * time.Millisecond

// documentEvents is GET /api/v1/repositories/{id}/documents/{document}/events: the state
// of a document, now and whenever it has changed, until it is ready or has failed. Each
// event is the whole state, so that none is missed by who comes late; who comes back
// after the last one is answered with 204.
func (s *Server) documentEvents(c echo.Context) error {
	repository, id, err := documentID(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	d, err := s.cfg.Store.Document(ctx, repository, id)
	if err != nil {
		return noDocument(err)
	}
	if c.Request().Header.Get("Last-Event-ID") == stateID(d) && d.Status != knowledge.StatusProcessing {
		return c.NoContent(http.StatusNoContent) // EventSource stops
	}
	place := s.streams.take(s.cfg.MaxStreams)
	if place == nil {
		return s.later(c, busyRetry)
	}
	defer place.leave()
	rc := http.NewResponseController(c.Response().Writer)
	if err := unhurried(rc); err != nil {
		return err
	}
	streamHeader(c.Response())
	if c.Request().Method == http.MethodHead {
		return nil
	}
	out := newResponseWriter(c.Response(), rc, s.cfg.StreamWrite)
	w := watching{server: s, out: out, said: time.Now()}
	if _, err := out.Write(retryFrame(streamRetry, "the state of a document")); err != nil {
		return ignoreGone(err)
	}
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		if over, err := w.show(d); over || err != nil {
			return ignoreGone(err)
		}
		select {
		case <-tick.C:
		case <-s.leaving:
			return nil // the client reconnects, to another server
		case <-ctx.Done():
			return nil
		}
		next, err := s.cfg.Store.Document(ctx, repository, id)
		switch {
		case errors.Is(err, knowledge.ErrNotFound):
			return nil // it was deleted; whoever comes back is told
		case err == nil:
			d = next
		case !errors.Is(err, events.ErrUnavailable):
			return nil
		}
	}
}

// watching is a stream of the states of a document.
type watching struct {
	server *Server
	out    *responseWriter
	last   string
	said   time.Time
}

// show sends a state that has not been sent, and tells whether it is the last one.
func (w *watching) show(d knowledge.Document) (over bool, err error) {
	id := stateID(d)
	over = d.Status != knowledge.StatusProcessing
	var frame []byte
	switch {
	case id != w.last:
		data, err := json.Marshal(documentViewOf(d))
		if err != nil {
			return true, fmt.Errorf("write a document: %w", err)
		}
		frame = fmt.Appendf(nil, "id: %s\nevent: document\ndata: %s\n\n", id, data)
	case time.Since(w.said) >= w.server.cfg.Heartbeat:
		frame = []byte(":\n\n")
	default:
		return over, nil
	}
	w.last, w.said = id, time.Now()
	if _, err := w.out.Write(frame); err != nil {
		return true, err
	}
	return over, w.out.Flush()
}

// stateID names a state of a document.
func stateID(d knowledge.Document) string {
	return fmt.Sprintf("%d-%s-%s", d.Uploaded, d.Status, strconv.FormatInt(d.UpdatedAt.UnixMicro(), 36))
}
