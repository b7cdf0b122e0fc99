package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// manySteps is a chain whose prompts are short and many: it can be handed over at
// any of them.
func manySteps(n int) string {
	var b strings.Builder
	b.WriteString("name: many-steps\nprompts:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: Left %[1]d, position: %[1]d, model: offline/echo, content: \"Echo: some words from the left\"}\n", i+1)
		fmt.Fprintf(&b, "  - {name: Right %[1]d, position: %[1]d, model: offline/echo, content: \"Echo: other words from the right\"}\n", i+1)
	}
	return b.String()
}

// TestDrain stops a server with running executions and open streams, while
// another one stands by. Every execution goes on there at its next prompt, no
// model call is cut off, and no client misses anything.
func TestDrain(t *testing.T) {
	t.Parallel()
	for name, standby := range map[string]bool{"to another server": true, "over a restart": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drain(t, standby)
		})
	}
}

func drain(t *testing.T, standby bool) {
	const executions, readers = 10, 3
	ctx := within(t)
	database := pgtest.Database(t)
	cfg := settings{args: []string{"--database-url", database, "--offline-pace", "20ms"}}
	first := serve(ctx, t, cfg)
	first.createChain(ctx, t, manySteps(8))
	next := make(chan *server, 1) // where to go when the first server has said so
	journals := make([][]event, executions*readers)
	ids := make([]int64, executions)
	clients, cctx := errgroup.WithContext(ctx)
	var streaming, told atomic.Int32
	var target *server
	var once sync.Once
	for i := range journals {
		if i%readers == 0 {
			ids[i/readers] = first.begin(ctx, t, "many-steps", nil)
		}
		id := ids[i/readers]
		clients.Go(func() error {
			st, err := first.open(cctx, id, cursor{})
			if err != nil {
				return err
			}
			defer st.close()
			for {
				e, err := st.next()
				if errors.Is(err, io.EOF) && st.Retry >= 500 && st.Retry <= 3000 {
					told.Add(1)
					break // told to come back
				}
				if err != nil {
					return fmt.Errorf("after %d events: %w", len(journals[i]), err)
				}
				if journals[i] = append(journals[i], e); len(journals[i]) == 5 {
					streaming.Add(1)
				}
			}
			once.Do(func() { target = <-next })
			rest, err := target.follow(cctx, id, int64(len(journals[i])))
			journals[i] = append(journals[i], rest...)
			return err
		})
	}
	eventually(ctx, t, "everybody reads", func() bool { return int(streaming.Load()) == len(journals) })
	if standby {
		next <- serve(ctx, t, cfg)
	}
	begin := time.Now()
	first.stop(ctx, t)
	t.Logf("stopped after %s", time.Since(begin).Round(time.Millisecond))
	if !standby {
		cfg.addr = first.addr()
		next <- serve(ctx, t, cfg)
	}
	if err := clients.Wait(); err != nil {
		t.Fatal(err)
	}
	if int(told.Load()) != len(journals) {
		t.Errorf("%d of %d streams were told to come back", told.Load(), len(journals))
	}
	conn := connect(ctx, t, database)
	for i, id := range ids {
		table := rows(ctx, t, conn, id)
		for _, journal := range journals[i*readers : (i+1)*readers] {
			sameLog(t, table, journal)
		}
		if lastType(table) != "execution-complete" || slices.ContainsFunc(table, func(e event) bool { return e.Type == "prompt-retry" || e.Type == "llm-error" }) {
			t.Errorf("execution %d ended with %s, or a call was cut off", id, lastType(table))
		}
		checkEpochs(ctx, t, conn, id, 2)
	}
}

// TestDrainSpreadsItsReaders stops a server with 2,000 streams: they are told
// quickly, and to come back at different times.
func TestDrainSpreadsItsReaders(t *testing.T) {
	const crowd = 2000
	ctx := within(t)
	s := serve(ctx, t, settings{args: []string{"--database-url", pgtest.Database(t), "--workers", "0"}})
	s.createChain(ctx, t, "name: waiting\nprompts: [{name: A, model: offline/echo, content: a}]\n")
	id := s.begin(ctx, t, "waiting", nil)
	streams := make([]*stream, crowd)
	opening, octx := errgroup.WithContext(ctx)
	opening.SetLimit(32)
	for i := range streams {
		opening.Go(func() (err error) {
			streams[i], err = s.open(octx, id, cursor{})
			return err
		})
	}
	if err := opening.Wait(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s.signal(t, syscall.SIGTERM)
	retries := make([]int, crowd)
	var reading sync.WaitGroup
	for i, st := range streams {
		reading.Go(func() {
			defer st.close()
			if _, err := st.next(); !errors.Is(err, io.EOF) {
				t.Errorf("stream %d ended with %v", i, err)
			}
			retries[i] = st.Retry
		})
	}
	reading.Wait()
	t.Logf("%d streams were told within %s", crowd, time.Since(begin).Round(time.Millisecond))
	if code := s.wait(ctx, t); code != 0 || time.Since(begin) > 30*time.Second {
		t.Errorf("the server ended with code %d after %s", code, time.Since(begin))
	}
	const earliest, latest, parts = 500, 3000, 5
	var spread [parts]int
	for _, retry := range retries {
		if retry < earliest || retry >= latest {
			t.Fatalf("a stream was told to come back after %d ms", retry)
		}
		spread[(retry-earliest)*parts/(latest-earliest)]++
	}
	// 400 in each part; half of that is many standard deviations away.
	if slices.Min(spread[:]) < crowd/parts/2 {
		t.Errorf("the clients come back unevenly: %v", spread)
	}
}

// stalled starts a server with an execution whose model never answers, and a
// stream of it.
func stalled(ctx context.Context, t *testing.T, database string, args ...string) (*server, *stream) {
	t.Helper()
	fake := llmtest.NewServer(t)
	fake.Script("stalled", llmtest.Reply{llmtest.Role(), llmtest.Delta("one word"), llmtest.Stall()})
	s := replica(ctx, t, database, fake, args...)
	s.createChain(ctx, t, "name: stalled\nprompts: [{name: A, model: openai/stalled, content: a}]\n")
	id := s.begin(ctx, t, "stalled", nil)
	st, err := s.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	for {
		if e, err := st.next(); err != nil {
			t.Fatal(err)
		} else if e.Type == "prompt-delta" {
			return s, st
		}
	}
}

// ready answers the status of /readyz.
func (s *server) ready(ctx context.Context) (int, error) {
	a, err := s.do(ctx, call{method: http.MethodGet, path: "/readyz"})
	return a.status, err
}

// TestStopIsVisible looks at a server that waits for a model while it stops: it
// says at once that it is not ready, and it still answers. A second signal ends
// the waiting.
func TestStopIsVisible(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	database := pgtest.Database(t)
	s, st := stalled(ctx, t, database, "--shutdown-timeout", "25s")
	if status, err := s.ready(ctx); err != nil || status != http.StatusOK {
		t.Fatalf("ready: %d, %v", status, err)
	}
	s.signal(t, syscall.SIGTERM)
	if _, err := st.next(); !errors.Is(err, io.EOF) || st.Retry < 500 {
		t.Errorf("the stream ended with %v, retry %d", err, st.Retry)
	}
	if status, err := s.ready(ctx); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("ready while it stops: %d, %v", status, err)
	}
	later := s.begin(ctx, t, "stalled", nil) // for another server to run
	begin := time.Now()
	s.signal(t, syscall.SIGTERM)
	if code := s.wait(ctx, t); code != 0 {
		t.Errorf("the server ended with code %d, want 0", code)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the second signal took %s", took)
	}
	// What was interrupted can be claimed at once.
	var free, queued int
	err := connect(ctx, t, database).QueryRow(ctx, `SELECT count(*) FILTER (WHERE status = 'running' AND lease_expires_at < clock_timestamp()),
		count(*) FILTER (WHERE status = 'queued' AND id = $1) FROM executions`, later).Scan(&free, &queued)
	if err != nil || free != 1 || queued != 1 {
		t.Errorf("%d executions can be taken over, %d wait, %v", free, queued, err)
	}
}

// TestStopWithAStalledModel stops a server whose model does not answer and whose
// reader does not read: it waits no longer than it was told to.
func TestStopWithAStalledModel(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	s, _ := stalled(ctx, t, pgtest.Database(t), "--shutdown-timeout", "2s")
	begin := time.Now()
	s.stop(ctx, t)
	if took := time.Since(begin); took < 2*time.Second || took > 30*time.Second {
		t.Errorf("the stop took %s", took)
	}
}

// TestStopWithoutADatabase stops a server whose database has vanished without a
// word: it says so and leaves.
func TestStopWithoutADatabase(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	address, vanish := behindProxy(ctx, t, pgtest.Database(t))
	s, _ := stalled(ctx, t, address, "--shutdown-timeout", "2s")
	vanish()
	begin := time.Now()
	s.signal(t, syscall.SIGTERM)
	code := s.wait(ctx, t)
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if said := s.Stderr.Tail(); code != 0 && !strings.Contains(said, "the server did not stop in time; what was running is continued by the next start") {
		t.Errorf("it ended with code %d and said:\n%s", code, said)
	}
}

// behindProxy answers the URL of a database through a TCP proxy, and what makes
// everything behind the proxy vanish: connections stay open and nothing arrives.
func behindProxy(ctx context.Context, t *testing.T, database string) (address string, vanish func()) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	network, target := "tcp", u.Host
	if dir := u.Query().Get("host"); strings.HasPrefix(dir, "/") {
		network, target = "unix", dir+"/.s.PGSQL."+u.Query().Get("port")
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var gone atomic.Bool
	var open sync.WaitGroup
	relay := func(to, from net.Conn) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if err == nil && !gone.Load() {
				_, err = to.Write(buffer[:n])
			}
			if err != nil {
				_ = to.Close()
				return
			}
		}
	}
	open.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{}).DialContext(ctx, network, target)
			if err != nil {
				_ = client.Close()
				continue
			}
			open.Go(func() { relay(server, client) })
			open.Go(func() { relay(client, server) })
			context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); open.Wait() })
	u.Host = listener.Addr().String()
	u.RawQuery = "sslmode=disable"
	return u.String(), func() { gone.Store(true) }
}
