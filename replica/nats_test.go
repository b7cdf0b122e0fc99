package replica_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/replica/nats"
)

// natsServer starts a NATS server in this process; port -1 is any.
func natsServer(t *testing.T, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not get ready")
	}
	return s
}

func overNATS(t *testing.T, url string, logs *record) *nats.Transport {
	t.Helper()
	transport, err := nats.Connect(nats.Config{URL: url, Subject: "chainstream.hints.test", Logger: slog.New(slog.NewTextHandler(logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return transport
}

// Over NATS everything happens without any poll; when NATS goes away, everything
// happens with the polls; and when it comes back, without them again.
func TestReplicasOverNATS(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	broker := natsServer(t, -1)
	url, port := broker.ClientURL(), server.DEFAULT_PORT
	if _, err := fmt.Sscanf(url, "nats://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	g := newGated()
	logs, workerLogs := newRecord(), newRecord()
	edge := start(t, "edge", options{database: database, poll: never, transport: overNATS(t, url, logs)})
	start(t, "worker", options{database: database, workers: 5, poll: never, models: g.entry(), transport: overNATS(t, url, workerLogs)})
	v := edge.chain(gatedChain)
	id := edge.trigger(v)
	seen, text := texts(t)
	journal := edge.follow(id, seen)
	for range 10 {
		g.say(t, "word ")
		wait(t, "the word", text)
	}

	broker.Shutdown()
	broker.WaitForShutdown()
	logs.await(t, "connection to NATS was lost")
	workerLogs.await(t, "connection to NATS was lost")
	g.say(t, "in the dark ")
	// A third process polls, and so sees it now.
	late := start(t, "late", options{database: database, poll: 50 * time.Millisecond, transport: deaf{}})
	lateSeen, lateText := texts(t)
	lateJournal := late.follow(id, lateSeen)
	for wait(t, "the word", lateText) != "in the dark " {
		continue
	}
	natsServer(t, port)
	if got := wait(t, "the word that was missed", text); got != "in the dark " {
		t.Errorf("text %q", got)
	}
	g.say(t, "back ")
	wait(t, "the word", text)
	if _, err := edge.exec.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the call", g.closed)
	edge.sameLogs(id, journal, lateJournal)
	if ex, err := edge.store.Execution(t.Context(), id); err != nil || ex.Status != executor.StatusCancelled {
		t.Errorf("status %s, error %v", ex.Status, err)
	}
}

// A NATS that is not there yet holds nobody up.
func TestNATSComesLater(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	broker := natsServer(t, -1)
	url := broker.ClientURL()
	port := server.DEFAULT_PORT
	if _, err := fmt.Sscanf(url, "nats://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	broker.Shutdown()
	broker.WaitForShutdown()
	logs := newRecord()
	p := start(t, "alone", options{database: database, workers: 1, poll: 50 * time.Millisecond, transport: overNATS(t, url, logs)})
	v := p.chain("name: a\nprompts:\n  - {name: P, position: 1, model: offline/echo, content: x}\n")
	if ex := p.await(p.trigger(v)); ex.Status != executor.StatusCompleted {
		t.Errorf("execution is %s: %s", ex.Status, ex.Error)
	}
	natsServer(t, port)
	logs.await(t, "connected to NATS")
}

func TestNATSAddress(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "localhost:4222", "nats://", "nats://user:secret@", "nats://a:1,b"} {
		if _, err := nats.Connect(nats.Config{URL: url}); !errors.Is(err, nats.ErrAddress) {
			t.Errorf("%q: error %v", url, err)
		}
	}
}
