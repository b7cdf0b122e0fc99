package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
)

// statusClientGone stands in the access log for requests whose client left
// before there was an answer. It is never sent.
const statusClientGone = 499

const requestIDKey = "request_id"

// requestID answers the id of the request, which is in its answer and in every
// line of the log about it.
func requestID(c echo.Context) string {
	id, _ := c.Get(requestIDKey).(string)
	return id
}

// acceptableID tells whether an id that a client chose can stand in a log.
func acceptableID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

// decodePath makes routes match the decoded path, because /chains/hel%6Co and
// /chains/hello are the same address (RFC 3986, section 6.2.2.2). No id and no
// name holds a slash, which is the one character that this could confuse.
func decodePath(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Request().URL.RawPath = ""
		return next(c)
	}
}

// observe is the outermost layer: it names the request, serves its error,
// writes the access log and counts it.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		req, res := c.Request(), c.Response()
		id := req.Header.Get(echo.HeaderXRequestID)
		if !acceptableID(id) {
			id = uuid.NewString()
		}
		c.Set(requestIDKey, id)
		res.Header().Set(echo.HeaderXRequestID, id)
		secure(res.Header())

		defer func() {
			route := s.route(c)
			took := time.Since(start)
			s.metrics.request(req.Method, route, res.Status, took)
			// Readings are many and change nothing.
			level := slog.LevelInfo
			if req.Method == http.MethodGet || req.Method == http.MethodHead {
				level = slog.LevelDebug
			}
			// The query may hold what must not be logged; the path cannot.
			s.logger.Log(req.Context(), level, "request", "request_id", id, "method", req.Method, "path", req.URL.EscapedPath(),
				"route", route, "status", res.Status, "bytes", res.Size, "duration_ms", float64(took.Microseconds())/1000, "remote", c.RealIP())
		}()
		if err := next(c); err != nil {
			s.fail(err, c)
		}
		return nil
	}
}

// route answers the pattern that the request matched. What matched none has one
// name, so that clients cannot fill the metrics.
func (s *Server) route(c echo.Context) string {
	if path := c.Path(); s.known[path] {
		return path
	}
	return "unknown"
}

// secure sets the headers that every answer has.
func secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store") // what may be kept says so itself
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// rescue turns a panic of a handler into an error.
func (s *Server) rescue(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			r := recover()
			if r == nil {
				return
			}
			if e, ok := r.(error); ok && errors.Is(e, http.ErrAbortHandler) {
				panic(r)
			}
			err = &problem{kind: kindInternal, cause: fmt.Errorf("panic: %v\n%s", r, debug.Stack())}
		}()
		return next(c)
	}
}
