package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
)

// readyTimeout is how long the database may take to count as reachable.
const readyTimeout = 2 * time.Second

type healthAnswer struct {
	Status  string `json:"status"`
	Version string `json:"version"`
}

// healthz tells that the process answers.
func (s *Server) healthz(c echo.Context) error {
	return c.JSON(http.StatusOK, healthAnswer{Status: "ok", Version: s.cfg.Version})
}

// readyz tells whether requests should be sent here: the database answers and
// the server is not shutting down.
func (s *Server) readyz(c echo.Context) error {
	if s.stopping() {
		return executor.ErrStopping
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), readyTimeout)
	defer cancel()
	if err := s.cfg.Store.Ping(ctx); err != nil {
		p := problemOf(err)
		switch {
		case errors.Is(err, events.ErrNoSpace):
			p = &problem{kind: kindUnavailable, detail: "The disk of the database is full.", retryAfter: p.retryAfter, cause: err}
		case p.status == http.StatusInternalServerError:
			p = &problem{kind: kindUnavailable, detail: "The database does not answer.", retryAfter: time.Second, cause: err}
		}
		return p
	}
	return c.JSON(http.StatusOK, healthAnswer{Status: "ready", Version: s.cfg.Version})
}

func (s *Server) stopping() bool {
	select {
	case <-s.cfg.Broker.Draining():
		return true
	default:
		return s.draining.Load()
	}
}

func (s *Server) chainSchema(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/schema+json", chain.Schema())
}

func (s *Server) eventSchema(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/schema+json", events.Schema)
}
