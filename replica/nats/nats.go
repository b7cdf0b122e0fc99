// Package nats carries hints between servers through NATS, for installations
// with so many servers or streams that PostgreSQL should not do it as well. It
// uses core subjects, which keep nothing: a hint that is lost is only a hint.
package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Config configures a Transport. The zero value of a field means its default.
type Config struct {
	URL     string        // nats://, tls:// or ws://; several with commas between them; with credentials if need be
	Subject string        // what servers of one database share, and of two databases do not
	Ping    time.Duration // how often the connection is tried; two answers that are missing replace it; default 5 s
	Logger  *slog.Logger  // default discards
}

// Transport implements the transport of package replica.
type Transport struct {
	subject string
	logger  *slog.Logger
	conn    *nats.Conn

	mu     sync.Mutex
	missed func() // nil while nobody listens
}

// reconnectWait is the time between two tries to reach a server, and a random
// time more.
const reconnectWait = 500 * time.Millisecond

// ErrAddress says that NATS_URL cannot be read. It does not repeat the address,
// which may hold a password.
var ErrAddress = errors.New("the NATS address must be of the form nats://host:4222 (NATS_URL)")

// Connect answers a transport at once; it connects in the background, and again
// whenever the connection is lost.
func Connect(cfg Config) (*Transport, error) {
	if err := check(cfg.URL); err != nil {
		return nil, err
	}
	if cfg.Ping == 0 {
		cfg.Ping = 5 * time.Second
	}
	t := &Transport{subject: cfg.Subject, logger: cfg.Logger}
	if t.logger == nil {
		t.logger = slog.New(slog.DiscardHandler)
	}
	var err error
	t.conn, err = nats.Connect(cfg.URL,
		nats.Name("chainstream"), nats.NoEcho(),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.ReconnectBufSize(-1), // hints of a time without connection are worth nothing after it
		nats.PingInterval(cfg.Ping), nats.MaxPingsOutstanding(2), nats.Timeout(2*time.Second),
		nats.ConnectHandler(t.connected), nats.ReconnectHandler(t.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				t.logger.Warn("the connection to NATS was lost; what other servers do is looked for once a second", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			t.logger.Warn("NATS reports an error", "error", err)
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return t, nil
}

// check reads the addresses.
func check(list string) error {
	for address := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(address))
		if err != nil || u.Host == "" {
			return ErrAddress
		}
	}
	return nil
}

func (t *Transport) connected(c *nats.Conn) {
	t.logger.Info("connected to NATS", "server", c.ConnectedUrlRedacted())
	t.mu.Lock()
	missed := t.missed
	t.mu.Unlock()
	if missed != nil {
		t.settled()
		missed()
	}
}

// settled waits until the server has taken in the subscription: what is told from
// then on is heard, and what was told before is looked for. Without an answer it is
// looked for all the same.
func (t *Transport) settled() {
	if err := t.conn.FlushTimeout(settleWait); err != nil {
		t.logger.Debug("NATS has not answered yet", "error", err)
	}
}

// settleWait bounds how long the answer to a subscription is waited for.
const settleWait = 2 * time.Second

// Send implements the transport.
func (t *Transport) Send(_ context.Context, message []byte) error {
	if err := t.conn.Publish(t.subject, message); err != nil {
		return fmt.Errorf("publish to NATS: %w", err)
	}
	return nil
}

// Listen implements the transport. After a reconnect the client subscribes anew
// by itself.
func (t *Transport) Listen(ctx context.Context, receive func(message []byte), missed func()) {
	t.mu.Lock()
	t.missed = missed
	t.mu.Unlock()
	subscription, err := t.conn.Subscribe(t.subject, func(m *nats.Msg) { receive(m.Data) })
	if err != nil {
		t.logger.WarnContext(ctx, "hints of other servers are not heard; they are looked for once a second", "error", err)
	} else if t.conn.IsConnected() {
		t.settled()
	}
	missed()
	<-ctx.Done()
	t.mu.Lock()
	t.missed = nil
	t.mu.Unlock()
	if subscription != nil {
		_ = subscription.Unsubscribe() // the connection is closed next
	}
}

// closeWait is how long a close waits for messages on their way.
const closeWait = time.Second

// Close implements the transport.
func (t *Transport) Close() {
	if t.conn.IsConnected() {
		_ = t.conn.FlushTimeout(closeWait) // hints
	}
	t.conn.Close()
}
