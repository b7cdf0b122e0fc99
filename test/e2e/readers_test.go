package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/r3labs/sse/v2"
	"golang.org/x/sync/errgroup"
	"gopkg.in/cenkalti/backoff.v1"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// floodChain writes far more than the buffers of a connection hold.
const floodChain = `
name: flood
prompts:
  - {name: Flood, model: openai/flood, content: "Write."}
`

// flood is a reply of n pieces of 8 kB that begins when the gate opens.
func flood(gate <-chan struct{}, n int) llmtest.Reply {
	reply := llmtest.Reply{llmtest.Role(), llmtest.Delta("begin "), llmtest.Gate(gate)}
	for i := range n {
		reply = append(reply, llmtest.Delta(strings.Repeat(fmt.Sprintf("%07d ", i), 1<<10)))
	}
	return append(reply, llmtest.Finish("stop"), llmtest.Usage(1, int64(n)), llmtest.Done())
}

// TestR3labsClient reads a live execution with the client of r3labs/sse as it
// is. What its user has to know: events over 64 KiB need a larger buffer, the
// comments of the stream come as messages without data, and a clean end is the
// end, there is no reconnect.
func TestR3labsClient(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	gate := make(chan struct{})
	fake := llmtest.NewServer(t)
	fake.Script("flood", flood(gate, 20)) // prompt-complete carries 64 kB of it
	database := pgtest.Database(t)
	s := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", database}})
	s.createChain(ctx, t, floodChain)
	id := s.begin(ctx, t, "flood", nil)

	client := sse.NewClient(fmt.Sprintf("%s/events/%d", s.url, id), sse.ClientMaxBufferSize(1<<20))
	client.Connection = s.client
	client.ReconnectStrategy = &backoff.StopBackOff{} // a reconnect would be a fault
	var journal []event
	err := client.SubscribeRawWithContext(ctx, func(msg *sse.Event) {
		if len(msg.Data) == 0 {
			return
		}
		seq, err := strconv.ParseInt(string(msg.ID), 10, 64)
		if err != nil {
			t.Errorf("id %q: %v", msg.ID, err)
		}
		journal = append(journal, event{ID: seq, Type: string(msg.Event), Data: string(msg.Data)})
		if len(journal) == 1 {
			close(gate) // the client is there: what follows is live
		}
	})
	if err != nil {
		t.Errorf("the client ended with %v, want the end of the stream", err)
	}
	table := rows(ctx, t, connect(ctx, t, database), id)
	sameLog(t, table, journal)
	if longest := longest(table); longest < 64<<10 {
		t.Errorf("the longest event has %d bytes; it should not have fitted into the client's own buffer", longest)
	}
}

// TestR3labsClientOfRepository follows the documents of a repository with the client of
// r3labs/sse, which keeps the last id, and goes on with it behind a break.
func TestR3labsClientOfRepository(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	s := serve(ctx, t, settings{args: []string{"--database-url", pgtest.Database(t)}})
	if err := s.want(ctx, http.StatusCreated, call{method: http.MethodPost, path: "/api/v1/repositories", media: "application/json", body: `{"name":"watched","embeddingModel":"offline/hash"}`}, nil); err != nil {
		t.Fatal(err)
	}
	add := func(name string) {
		t.Helper()
		body := fmt.Sprintf(`{"name":%q,"text":"About %s."}`, name, name)
		if err := s.want(ctx, http.StatusAccepted, call{method: http.MethodPost, path: "/api/v1/repositories/1/documents", media: "application/json", body: body}, nil); err != nil {
			t.Fatal(err)
		}
	}
	client := sse.NewClient(s.url + "/api/v1/repositories/1/events")
	client.Connection = s.client
	client.ReconnectStrategy = &backoff.StopBackOff{}
	// follow reads until a document has a state, and then hangs up.
	follow := func(event, name string) (seen []string) {
		t.Helper()
		within, hangUp := context.WithCancel(ctx)
		defer hangUp()
		_ = client.SubscribeRawWithContext(within, func(msg *sse.Event) {
			var d struct {
				ID           int
				Name, Status string
			}
			if len(msg.Data) == 0 || json.Unmarshal(msg.Data, &d) != nil {
				return
			}
			seen = append(seen, fmt.Sprintf("%s %d %s", msg.Event, d.ID, d.Status))
			if string(msg.Event) == event && (d.Name == name && d.Status == "ready" || event == "document-deleted") {
				hangUp()
			}
		})
		return seen
	}
	add("a.txt")
	follow("document", "a.txt")
	if _, ok := client.LastEventID.Load().([]byte); !ok {
		t.Fatal("no id came")
	}
	if err := s.want(ctx, http.StatusNoContent, call{method: http.MethodDelete, path: "/api/v1/repositories/1/documents/1"}, nil); err != nil {
		t.Fatal(err)
	}
	if seen := follow("document-deleted", ""); !slices.Contains(seen, "document-deleted 1 ") {
		t.Errorf("seen %q", seen)
	}
	add("b.txt")
	if seen := follow("document", "b.txt"); !slices.Contains(seen, "document 2 ready") || slices.Contains(seen, "document 1 ready") {
		t.Errorf("seen %q", seen)
	}
}

func longest(log []event) int {
	n := 0
	for _, e := range log {
		n = max(n, len(e.Data))
	}
	return n
}

// TestStalledReader has a reader that stops reading beside 20 that do not. It
// costs them nothing, is cut off by the deadline of the server, and reads on
// later without a loss.
func TestStalledReader(t *testing.T) {
	t.Parallel()
	const readers = 20
	ctx := within(t)
	gate := make(chan struct{})
	fake := llmtest.NewServer(t)
	fake.Script("flood", flood(gate, 250)) // 2 MB
	database := pgtest.Database(t)
	s := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", database}})
	s.createChain(ctx, t, floodChain)
	id := s.begin(ctx, t, "flood", nil)

	stalled, err := s.open(ctx, id, cursor{buffer: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.close()
	first, err := stalled.next()
	if err != nil {
		t.Fatal(err)
	}
	journals := make([][]event, readers)
	group, gctx := errgroup.WithContext(ctx)
	for i := range readers {
		group.Go(func() (err error) {
			journals[i], err = s.follow(gctx, id, 0)
			return err
		})
	}
	eventually(ctx, t, "all readers are connected", func() bool { return metric(t, s, "chainstream_streams_open") == readers+1 })
	close(gate)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	table := rows(ctx, t, connect(ctx, t, database), id)
	for _, journal := range journals {
		sameLog(t, table, journal)
	}

	eventually(ctx, t, "the stalled reader is cut off", func() bool {
		return metric(t, s, `chainstream_streams_ended_total{reason="slow"}`) == 1
	})
	seen := append([]event{first}, stalled.drain(t)...)
	if len(seen) >= len(table) {
		t.Fatalf("the stalled reader has all %d events: there was nothing to cut off", len(seen))
	}
	if diff := cmp.Diff(table[:len(seen)], seen); diff != "" {
		t.Errorf("what the stalled reader got is not the log (-table +reader):\n%s", diff)
	}
	rest, err := s.follow(ctx, id, int64(len(seen)))
	if err != nil {
		t.Fatal(err)
	}
	sameLog(t, table, append(seen, rest...))
}

// metric reads one figure of /metrics; 0 when it is not there.
func metric(t *testing.T, s *server, name string) float64 {
	t.Helper()
	a, err := s.do(t.Context(), call{method: http.MethodGet, path: "/metrics"})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(a.body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}
