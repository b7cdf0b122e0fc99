package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

// hearing is a listener of a test.
type hearing struct {
	messages chan string
	missed   chan struct{}
}

// listen listens until the test ends.
func listen(t *testing.T, h *postgres.Hints) hearing {
	t.Helper()
	e := hearing{messages: make(chan string, 100), missed: make(chan struct{}, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		h.Listen(ctx, func(m []byte) { e.messages <- string(m) }, func() { e.missed <- struct{}{} })
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
		h.Close()
	})
	return e
}

func hints(t *testing.T, cfg postgres.HintsConfig) *postgres.Hints {
	t.Helper()
	h, err := postgres.NewHints(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const hintPatience = 30 * time.Second

func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(hintPatience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// What one process notifies, all hear, and nobody of another database. The
// trials of the listener are not heard.
func TestHintsAreCarried(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	cfg := postgres.HintsConfig{URL: database, Ping: 20 * time.Millisecond}
	one, two := hints(t, cfg), hints(t, cfg)
	stranger := listen(t, hints(t, postgres.HintsConfig{URL: pgtest.Empty(t)}))
	hearOne, hearTwo := listen(t, one), listen(t, two)
	for _, h := range []hearing{hearOne, hearTwo, stranger} {
		receive(t, "a listener", h.missed)
	}
	for n := range 20 {
		message := fmt.Sprintf("%d'\\ %s", n, strings.Repeat("x", 7800))
		if err := one.Send(t.Context(), []byte(message)); err != nil {
			t.Fatal(err)
		}
		for _, h := range []hearing{hearOne, hearTwo} {
			if diff := cmp.Diff(message, receive(t, "a message", h.messages)); diff != "" {
				t.Error(diff)
			}
		}
	}
	if len(stranger.messages) > 0 {
		t.Error("a hint has reached another database")
	}
}

// A sender whose connection is lost connects anew; one that leads nowhere does
// not hold its caller.
func TestHintsSenderIsReplaced(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	proxy := pgtest.NewProxy(t, database)
	h := hints(t, postgres.HintsConfig{URL: proxy.URL, ListenURL: database})
	heard := listen(t, h)
	receive(t, "a listener", heard.missed)
	send := func(message string, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return h.Send(ctx, []byte(message))
	}
	if err := send("first", hintPatience); err != nil {
		t.Fatal(err)
	}
	receive(t, "the first message", heard.messages)
	proxy.BlackHole()
	for range 2 {
		if err := send("lost", 50*time.Millisecond); err == nil {
			t.Error("a message went through a black hole")
		}
	}
	proxy.Restore()
	if err := send("last", hintPatience); err != nil {
		t.Fatal(err)
	}
	for receive(t, "the last message", heard.messages) != "last" {
		continue // what was held back may come after all
	}
}

func TestTryHints(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	if took, err := postgres.TryHints(t.Context(), postgres.HintsConfig{URL: database}); err != nil || took <= 0 {
		t.Errorf("%v, error %v", took, err)
	}
	// A listener on another database is as good as one that hears nothing.
	other := pgtest.Empty(t)
	if _, err := postgres.TryHints(t.Context(), postgres.HintsConfig{URL: database, ListenURL: other, Timeout: 3 * time.Second}); !errors.Is(err, postgres.ErrDeaf) {
		t.Errorf("error %v", err)
	}
}

func TestNews(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	broker := events.NewBroker(s, events.BrokerConfig{})
	defer broker.Close()
	log := events.NewLog(s, broker, events.LogConfig{})
	ids := make([]int64, 4)
	for i := range ids {
		ex := claimed(t, s)
		ids[i] = ex.ID
		w := log.Writer(ex.ID, ex.Epoch, 0, nil)
		for n := range 10 * i {
			draft := events.Draft{Payload: events.Progress{CurrentStep: n, TotalSteps: 100, Message: "é\n"}}
			if err := w.Append(events.Batch{Events: []events.Draft{draft}}).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	news, err := s.News(t.Context(), []events.Cursor{
		{Execution: ids[0], After: 0}, {Execution: ids[1], After: 4}, {Execution: ids[2], After: 20}, {Execution: ids[3], After: 1}, {Execution: 1 << 40, After: 0},
	}, 8)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[int64]events.News)
	for i, after := range map[int]int64{1: 4, 3: 1} {
		records, err := s.Events(t.Context(), ids[i], after, 8)
		if err != nil {
			t.Fatal(err)
		}
		n := events.News{LastSeq: int64(10 * i)}
		for _, r := range records {
			n.Records = append(n.Records, events.Record{Seq: r.Seq, Type: r.Type, Data: r.Data})
		}
		want[ids[i]] = n
	}
	if diff := cmp.Diff(want, news); diff != "" {
		t.Errorf("news (-want +got):\n%s", diff)
	}
}

// What a hint costs follows the logs that it names, not the executions there are.
func TestNewsReadsByKey(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	conn := dial(t, url)
	v := limited(t, s, "many", 0)
	change(t, conn, `INSERT INTO executions (chain_id, chain_version, chain_name, inputs, total_prompts)
		SELECT $1, 1, 'many', '{}', 1 FROM generate_series(1, 20000)`, v.ChainID)
	change(t, conn, `ANALYZE executions`)
	change(t, conn, postgres.LogSettings)
	read, seq := buffers(t, conn, func(q *db.Queries) {
		_, _ = q.EventNews(t.Context(), db.EventNewsParams{ExecutionIds: []int64{7, 1000, 19000}, AfterSeqs: []int64{0, 0, 0}, MaxRows: 100})
	})
	if most := 100; read > most || seq {
		t.Errorf("news of three logs read %d pages, at most %d expected; reads the whole table: %t", read, most, seq)
	}
}
