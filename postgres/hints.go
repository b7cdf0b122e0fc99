package postgres

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// hintChannel is what hints are notified on. A channel belongs to its database.
const hintChannel = "chainstream_hints"

// ErrDeaf says that what listens for hints does not hear them, though both its
// connection and the one that notifies work.
var ErrDeaf = errors.New("the connection that listens for hints hears nothing: it seems to go through a connection pooler in transaction mode; " +
	"give the listener an address without one with --listen-database-url (CHAINSTREAM_LISTEN_DATABASE_URL)")

// HintsConfig configures Hints. The zero value of a field means its default.
type HintsConfig struct {
	URL       string        // of the database
	ListenURL string        // of the same database without a pooler in transaction mode; default URL
	Ping      time.Duration // of silence after which the listener is tried; default 5 s
	Timeout   time.Duration // of connecting, and of every answer; default 2 s
	Logger    *slog.Logger  // default discards
}

// Hints carries hints between processes through LISTEN and NOTIFY; it implements
// the transport of package replica. It has two connections, because one that
// waits for notifications cannot send any. The listener is tried when it has
// heard nothing for a while, with a notification to itself; one that is dead or
// leads nowhere is replaced.
type Hints struct {
	cfg    HintsConfig
	logger *slog.Logger
	notify *pgx.ConnConfig
	listen *pgx.ConnConfig
	echo   string // what the listener is tried with

	sending chan struct{} // holds one token: conn is free
	conn    *pgx.Conn     // sends; nil until needed, and after an error
}

// NewHints answers the transport; it connects when it is used.
func NewHints(cfg HintsConfig) (*Hints, error) {
	cfg.ListenURL = cmp.Or(cfg.ListenURL, cfg.URL)
	cfg.Ping = cmp.Or(cfg.Ping, 5*time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Hints{cfg: cfg, logger: cfg.Logger, echo: "echo " + rand.Text(), sending: make(chan struct{}, 1)}
	h.sending <- struct{}{}
	var err error
	if h.notify, err = hintConfig(cfg.URL, cfg.Timeout); err != nil {
		return nil, err
	}
	// Behind a pooler the sender may get what a listener should have heard.
	h.notify.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
	if h.listen, err = hintConfig(cfg.ListenURL, cfg.Timeout); err != nil {
		return nil, err
	}
	h.listen.RuntimeParams["application_name"] += " listener"
	return h, nil
}

// hintConfig is that of a connection for hints. Nothing is prepared on it, so
// the one that sends may go through any pooler.
func hintConfig(url string, timeout time.Duration) (*pgx.ConnConfig, error) {
	c, err := parseConn(url)
	if err != nil {
		return nil, err
	}
	c.ConnectTimeout = timeout
	c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return c, nil
}

// Send implements the transport.
func (h *Hints) Send(ctx context.Context, message []byte) error {
	select {
	case <-h.sending:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { h.sending <- struct{}{} }()
	if h.conn == nil || h.conn.IsClosed() {
		conn, err := pgx.ConnectConfig(ctx, h.notify)
		if err != nil {
			return fmt.Errorf("connect to notify: %w", translate(err))
		}
		h.conn = conn
	}
	if _, err := h.conn.Exec(ctx, "SELECT pg_notify($1, $2)", hintChannel, string(message)); err != nil {
		hangUp(h.conn, h.cfg.Timeout)
		h.conn = nil
		return fmt.Errorf("notify: %w", translate(err))
	}
	return nil
}

// Close implements the transport.
func (h *Hints) Close() {
	<-h.sending
	if h.conn != nil {
		hangUp(h.conn, h.cfg.Timeout)
		h.conn = nil
	}
	h.sending <- struct{}{}
}

// Waits before a listener that was lost is replaced.
const (
	relistenFirst = 100 * time.Millisecond
	relistenMost  = 2 * time.Second
)

// Listen implements the transport.
func (h *Hints) Listen(ctx context.Context, receive func(message []byte), missed func()) {
	l := listener{hints: h, receive: receive, missed: missed}
	defer l.trials.Wait()
	wait := relistenFirst
	for ctx.Err() == nil {
		heard, err := l.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if heard {
			wait = relistenFirst
		}
		if !l.lost {
			l.lost = true
			h.logger.WarnContext(ctx, "the listener for hints of other servers is replaced; until then they are looked for once a second", "error", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, relistenMost)
	}
}

// listener is the receiving side of Hints.
type listener struct {
	hints   *Hints
	receive func([]byte)
	missed  func()
	trials  sync.WaitGroup

	lost bool      // the last connection was lost, and that was said
	deaf time.Time // when it was last said that nothing is heard
}

// deafEvery is how often a listener that hears nothing is complained about.
const deafEvery = time.Hour

// once listens on one connection until it is lost, and tells whether anything
// was heard.
func (l *listener) once(ctx context.Context) (heard bool, err error) {
	h := l.hints
	conn, err := connectToListen(ctx, h.listen, h.cfg.Timeout)
	if err != nil {
		return false, err
	}
	defer hangUp(conn, h.cfg.Timeout)
	l.missed()
	var trial chan error // holds how the trial's notification was sent; nil when there is none
	due := time.Now()    // of the next trial, or of the answer to the last one
	for {
		wait, cancel := context.WithDeadline(ctx, due)
		n, err := conn.WaitForNotification(wait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return heard, context.Cause(ctx)
		case err == nil:
			if l.lost {
				h.logger.InfoContext(ctx, "hints of other servers are heard again")
			}
			heard, l.lost = true, false
			trial, due = nil, time.Now().Add(h.cfg.Ping)
			if !strings.HasPrefix(n.Payload, "echo ") {
				l.receive([]byte(n.Payload))
			}
			continue
		case !pgconn.Timeout(err):
			return heard, fmt.Errorf("listen: %w", translate(err))
		case trial == nil:
			trial, due = l.try(ctx), time.Now().Add(h.cfg.Timeout)
			continue
		}
		// The trial's notification did not come. Whose fault is it?
		answer, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
		err = conn.Ping(answer)
		cancel()
		if err != nil {
			return heard, fmt.Errorf("listen: the connection does not answer: %w", translate(err))
		}
		if sent := <-trial; sent == nil && time.Since(l.deaf) > deafEvery {
			l.deaf = time.Now()
			h.logger.WarnContext(ctx, "hints of other servers are not heard, they are looked for once a second", "error", ErrDeaf)
		}
		trial, due = nil, time.Now().Add(h.cfg.Ping)
	}
}

// try notifies the listener, through the connection that sends. It does not
// wait, because that connection may be the one that does not answer.
func (l *listener) try(ctx context.Context) chan error {
	sent := make(chan error, 1)
	l.trials.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, l.hints.cfg.Timeout)
		defer cancel()
		sent <- l.hints.Send(ctx, []byte(l.hints.echo))
	})
	return sent
}

// connectToListen answers a connection that listens.
func connectToListen(ctx context.Context, config *pgx.ConnConfig, timeout time.Duration) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to listen: %w", translate(err))
	}
	if _, err := conn.Exec(ctx, "LISTEN "+hintChannel); err != nil {
		hangUp(conn, timeout)
		return nil, fmt.Errorf("listen: %w", translate(err))
	}
	return conn, nil
}

// hangUp closes a connection that may lead nowhere.
func hangUp(conn *pgx.Conn, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_ = conn.Close(ctx) // whatever it says, it is not used any more
}

// TryHints tells how long a hint takes from a notification to the listener. It
// answers ErrDeaf when it does not arrive.
func TryHints(ctx context.Context, cfg HintsConfig) (time.Duration, error) {
	h, err := NewHints(cfg)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	conn, err := connectToListen(ctx, h.listen, h.cfg.Timeout)
	if err != nil {
		return 0, err
	}
	defer hangUp(conn, h.cfg.Timeout)
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	if err := h.Send(ctx, []byte(h.echo)); err != nil { // connects, which is not what is measured
		return 0, err
	}
	begin := time.Now()
	if err := h.Send(ctx, []byte(h.echo+" again")); err != nil {
		return 0, err
	}
	for {
		n, err := conn.WaitForNotification(ctx)
		switch {
		case pgconn.Timeout(err):
			return 0, ErrDeaf
		case err != nil:
			return 0, fmt.Errorf("listen: %w", translate(err))
		case n.Payload == h.echo+" again":
			return time.Since(begin), nil
		}
	}
}
