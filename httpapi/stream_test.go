package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/httpapi"
)

func TestStreamTranscript(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	s.write(whole()...)
	f := s.open(call{method: "GET", path: s.path()})
	var b strings.Builder
	for _, h := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering", "Content-Encoding", "X-Content-Type-Options"} {
		b.WriteString(h + ": " + f.res.Header.Get(h) + "\n")
	}
	b.WriteString("\n")
	for block := f.block(); block != ""; block = f.block() {
		b.WriteString(block)
	}
	golden(t, "stream.txt", b.String())
}

func TestStreamShowsEventsAsTheyAreStored(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	f := s.open(call{method: "GET", path: s.path()})
	if first := f.block(); !strings.HasPrefix(first, "retry: 2000\n: ") {
		t.Fatalf("first bytes %q", first)
	}
	for i, p := range whole() {
		s.write(p)
		got := f.event()
		if field(got, "id") != strconv.Itoa(i+1) || field(got, "event") != string(p.EventType()) {
			t.Fatalf("event %d is %q", i+1, got)
		}
	}
	if rest := f.block(); rest != "" {
		t.Errorf("after the terminal event: %q", rest)
	}
}

func TestStreamHeartbeat(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{config: func(c *httpapi.Config) { c.Heartbeat = 20 * time.Millisecond }}).script()
	f := s.open(call{method: "GET", path: s.path()})
	f.block()
	for range 3 {
		if got := f.block(); got != ":\n\n" {
			t.Fatalf("heartbeat %q", got)
		}
	}
	s.write(whole()...)
	if got := f.events(); len(got) != 7 {
		t.Errorf("%d events", len(got))
	}
}

// A client that loses its connection after every single event still sees
// exactly the table.
func TestResumeAfterEveryEvent(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"header", "query"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			s := newAPI(t, setup{}).script()
			var journal []string
			last := ""
			for _, p := range whole() {
				c := call{method: "GET", path: s.path()}
				if last != "" && by == "header" {
					c.header = map[string]string{"Last-Event-ID": last}
					c.path += "?after=0" // the header wins
				} else if last != "" {
					c.path += "?after=" + last
				}
				f := s.open(c)
				s.write(p)
				e := f.event()
				f.close()
				last = field(e, "id")
				journal = append(journal, e)
			}
			if diff := cmp.Diff(s.table(), journal); diff != "" {
				t.Errorf("journal differs from the table (-table +journal):\n%s", diff)
			}
			s.do(call{method: "GET", path: s.path(), header: map[string]string{"Last-Event-ID": last}}).want(http.StatusNoContent)
			s.do(call{method: "GET", path: s.path() + "?after=" + last}).want(http.StatusNoContent)
			s.do(call{method: "HEAD", path: s.path() + "?after=" + last}).want(http.StatusNoContent)
		})
	}
}

func TestStreamFilters(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	s.write(whole()...)
	for _, c := range []struct {
		query string
		want  []string // ids
	}{
		{"", []string{"1", "2", "3", "4", "5", "6", "7"}},
		{"?deltas=false", []string{"1", "2", "5", "6", "7"}},
		{"?deltas=true", []string{"1", "2", "3", "4", "5", "6", "7"}},
		{"?types=prompt-start,prompt-complete", []string{"2", "5", "7"}},
		{"?types=prompt-start&types=progress", []string{"2", "6", "7"}},
		{"?types=prompt-delta&deltas=false", []string{"7"}},
		{"?types=prompt-start&after=2", []string{"7"}},
	} {
		t.Run(c.query, func(t *testing.T) {
			t.Parallel()
			var ids []string
			for _, e := range s.open(call{method: "GET", path: s.path() + c.query}).events() {
				ids = append(ids, field(e, "id"))
			}
			if diff := cmp.Diff(c.want, ids); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStreamRefusals(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	s.write(whole()[:3]...)
	for _, c := range []struct {
		name, path string
		header     map[string]string
		status     int
		code       string
	}{
		{"unknown execution", "/events/999999", nil, 404, "execution_not_found"},
		{"textual execution", "/events/abc", nil, 404, "execution_not_found"},
		{"execution with a sign", "/events/+1", nil, 404, "execution_not_found"},
		{"execution beyond 64 bits", "/events/9223372036854775808", nil, 404, "execution_not_found"},
		{"negative cursor", s.path() + "?after=-1", nil, 400, "invalid_cursor"},
		{"textual cursor", s.path() + "?after=abc", nil, 400, "invalid_cursor"},
		{"empty cursor", s.path() + "?after=", nil, 400, "invalid_cursor"},
		{"huge cursor", s.path() + "?after=99999999999999999999", nil, 400, "invalid_cursor"},
		{"cursor with a line end", s.path() + "?after=1%0d%0aid:9", nil, 400, "invalid_cursor"},
		{"cursor with NUL", s.path() + "?after=1%00", nil, 400, "invalid_cursor"},
		{"future cursor", s.path() + "?after=4", nil, 400, "invalid_cursor"},
		{"two cursors", s.path() + "?after=1&after=2", nil, 400, "invalid_parameter"},
		{"bad header beats good query", s.path() + "?after=1", map[string]string{"Last-Event-ID": "x"}, 400, "invalid_cursor"},
		{"future header", s.path(), map[string]string{"Last-Event-ID": "7"}, 400, "invalid_cursor"},
		{"unknown type", s.path() + "?types=prompt-start,nope", nil, 400, "invalid_parameter"},
		{"empty types", s.path() + "?types=", nil, 400, "invalid_parameter"},
		{"deltas neither true nor false", s.path() + "?deltas=maybe", nil, 400, "invalid_parameter"},
		{"unknown format", s.path() + "?format=morse", nil, 400, "invalid_parameter"},
		{"broken query", s.path() + "?after=%zz", nil, 400, "invalid_parameter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s.do(call{method: "GET", path: c.path, header: c.header}).problem(c.status, c.code)
			s.do(call{method: "HEAD", path: c.path, header: c.header}).want(c.status)
		})
	}
}

func TestStreamHead(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	got := s.do(call{method: "HEAD", path: s.path()}).want(http.StatusOK)
	if media := got.header.Get("Content-Type"); media != "text/event-stream" {
		t.Errorf("content type %q", media)
	}
}

// Retention is not there yet, but a hole must already be told from a log.
func TestStreamOfRemovedEvents(t *testing.T) {
	t.Parallel()
	store := &scriptedStore{head: events.Head{LastSeq: 9}, first: 5}
	a := newFake(t, store, nil)
	a.do(call{method: "GET", path: "/events/1"}).problem(http.StatusGone, "events_gone")
	a.do(call{method: "GET", path: "/events/1?after=2"}).problem(http.StatusGone, "events_gone")
	a.do(call{method: "GET", path: "/api/v1/executions/1/events"}).problem(http.StatusGone, "events_gone")
	a.do(call{method: "GET", path: "/api/v1/executions/1/events?type=progress"}).problem(http.StatusGone, "events_gone")
	if e := a.open(call{method: "GET", path: "/events/1?after=4"}).event(); field(e, "id") != "5" {
		t.Errorf("event %q", e)
	}
}

// A browser's EventSource gives up for good on any status but 200.
func TestStreamSaysComeBackLater(t *testing.T) {
	t.Parallel()
	later := func(t *testing.T, a *api, path string) {
		t.Helper()
		f := a.open(call{method: "GET", path: path})
		if retry := field(f.block(), "retry"); retry == "" {
			t.Error("no retry")
		}
		if rest := f.block(); rest != "" {
			t.Errorf("the stream goes on: %q", rest)
		}
	}
	t.Run("full", func(t *testing.T) {
		t.Parallel()
		s := newAPI(t, setup{config: func(c *httpapi.Config) { c.MaxStreams = 1 }}).script()
		first := s.open(call{method: "GET", path: s.path()})
		first.block()
		later(t, s.api, s.path())
		p := s.do(call{method: "POST", path: "/api/v1/executions", body: `{"chain":"two","inputs":{"topic":"x"}}`, header: map[string]string{"Accept": "text/event-stream"}})
		p.problem(http.StatusServiceUnavailable, "too_many_streams")
		if p.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		s.write(whole()...)
		if got := len(first.events()); got != 7 {
			t.Errorf("the first stream got %d events", got)
		}
	})
	t.Run("no database", func(t *testing.T) {
		t.Parallel()
		later(t, newFake(t, &scriptedStore{err: events.ErrUnavailable}, nil), "/events/1")
	})
	t.Run("draining", func(t *testing.T) {
		t.Parallel()
		a := newFake(t, &scriptedStore{head: events.Head{LastSeq: 1}, first: 1}, nil)
		a.broker.Close()
		later(t, a, "/events/1")
	})
}

func TestDrainEndsStreams(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	var feeds []*feed
	for range 20 {
		f := s.open(call{method: "GET", path: s.path()})
		f.block()
		feeds = append(feeds, f)
	}
	s.broker.Close()
	waits := make(map[string]bool)
	for _, f := range feeds {
		retry := field(f.block(), "retry")
		if ms, err := strconv.Atoi(retry); err != nil || ms < 500 || ms > 3000 {
			t.Errorf("retry %q", retry)
		}
		waits[retry] = true
		if rest := f.block(); rest != "" {
			t.Errorf("after the drain: %q", rest)
		}
	}
	if len(waits) < 5 {
		t.Errorf("20 clients come back at %d different times", len(waits))
	}
}

// One reader that takes nothing is cut; the others do not notice.
func TestSlowReaderIsCut(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{config: func(c *httpapi.Config) { c.StreamWrite = time.Second }}).script()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	stalled, err := d.DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stalled.Close() })
	if tcp, ok := stalled.(*net.TCPConn); !ok || tcp.SetReadBuffer(4<<10) != nil {
		t.Fatal("the read buffer cannot be set")
	}
	if _, err := io.WriteString(stalled, "GET "+s.path()+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReaderSize(stalled, 16).ReadString('\n'); err != nil { // the stream has begun
		t.Fatal(err)
	}
	fast := s.open(call{method: "GET", path: s.path()})
	read := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(fast.reader) // cut short when it fails
		read <- string(all)
	}()
	text := strings.Repeat("x", 200<<10)
	s.write(whole()[:2]...)
	for range 10 {
		s.write(events.PromptDelta{PromptID: 1, Attempt: 1, Text: text})
	}
	s.write(events.ExecutionComplete{Success: true})
	if got := strings.Count(<-read, "\ndata: {"); got != 13 {
		t.Fatalf("the fast reader got %d events", got)
	}
	eventually(t, func() bool { return metric(t, s.api, `chainstream_streams_ended_total{reason="slow"}`) == "1" })
	if open := metric(t, s.api, "chainstream_streams_open"); open != "0" {
		t.Errorf("%s streams are open", open)
	}
	// What it had read was true, and it can go on from there.
	if diff := cmp.Diff(s.table()[3:], s.open(call{method: "GET", path: s.path() + "?after=3"}).events()); diff != "" {
		t.Error("the rest of the log differs")
	}
}

// A large event reaches a reader that needs longer for it than one deadline.
func TestSteadyReaderOfALargeEventIsNotCut(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{config: func(c *httpapi.Config) { c.StreamWrite = 2 * time.Second }}).script()
	f := s.open(call{method: "GET", path: s.path()})
	f.block()
	s.write(whole()[0], events.PromptDelta{PromptID: 1, Attempt: 1, Text: strings.Repeat("x", 900<<10)}, events.ExecutionComplete{Success: true})
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	buf := make([]byte, 64<<10)
	total := 0
	for {
		<-tick.C
		n, err := io.ReadFull(f.reader, buf)
		total += n
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", total, err)
		}
	}
	if total < 900<<10 {
		t.Errorf("the stream ended after %d bytes", total)
	}
}

func TestTriggerStreamsItsEvents(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{workers: 4})
	a.chain(twoPrompts)
	f := a.open(call{
		method: "POST", path: "/api/v1/executions", body: `{"chain":"two","inputs":{"topic":"tides"}}`,
		header: map[string]string{"Accept": "text/event-stream", "Idempotency-Key": "k1"},
	})
	id := f.res.Header.Get("Execution-Id")
	if got := f.res.Header.Get("Location"); id == "" || got != "/api/v1/executions/"+id {
		t.Errorf("Execution-Id %q, Location %q", id, got)
	}
	got := f.events()
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{api: a, id: n}
	if diff := cmp.Diff(s.table(), got); diff != "" {
		t.Errorf("stream differs from the table:\n%s", diff)
	}
	if last := field(got[len(got)-1], "event"); last != string(events.TypeExecutionComplete) {
		t.Errorf("last event %s", last)
	}
	// The same request again is the same execution, shown from the start.
	again := a.open(call{
		method: "POST", path: "/api/v1/executions", body: `{"inputs": {"topic": "tides"}, "chain": "two"}`,
		header: map[string]string{"Accept": "text/event-stream", "Idempotency-Key": "k1"},
	})
	if again.res.Header.Get("Idempotency-Replayed") != "true" || !slices.Equal(again.events(), got) {
		t.Error("the replay is another stream")
	}
}

// A server that drains has no stream to answer with, and an execution behind a
// refusal would be one that nobody knows of. Without a stream it is queued.
func TestTriggerWhileDraining(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain(twoPrompts)
	a.server.Drain()
	body := `{"chain":"two","inputs":{"topic":"tides"}}`
	a.do(call{method: "POST", path: "/api/v1/executions", body: body, header: map[string]string{"Accept": "text/event-stream"}}).
		problem(http.StatusServiceUnavailable, "stopping")
	if m := a.do(call{method: "POST", path: "/api/v1/executions", body: body}).want(http.StatusAccepted).object(); m["executionId"] != 1.0 {
		t.Errorf("the refused trigger made an execution: %v", m)
	}
}

// Closing a stream never stops an execution.
func TestDisconnectDoesNotStop(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{workers: 4})
	a.chain(twoPrompts)
	f := a.open(call{method: "POST", path: "/api/v1/executions", body: `{"chain":"two","inputs":{"topic":"tides"}}`, header: map[string]string{"Accept": "text/event-stream"}})
	id := f.res.Header.Get("Execution-Id")
	f.close()
	rest := a.open(call{method: "GET", path: "/events/" + id}).events()
	if last := field(rest[len(rest)-1], "event"); last != string(events.TypeExecutionComplete) {
		t.Errorf("last event %s", last)
	}
}

// eventually waits until a condition holds that nothing can be waited for.
func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatal("it did not become true")
		}
	}
}

// metric answers the value of a time series, "" when it is missing.
func metric(t *testing.T, a *api, series string) string {
	t.Helper()
	body := string(a.do(call{method: "GET", path: "/metrics"}).want(http.StatusOK).body)
	for line := range strings.SplitSeq(body, "\n") {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return v
		}
	}
	return ""
}

// scriptedStore is a store whose log and failures a test decides. What a test
// does not set must not be called.
type scriptedStore struct {
	httpapi.Store

	head  events.Head
	first int64 // the oldest event that is left
	err   error
	panic string
	hang  bool // until the request is given up
	rows  func(after int64, limit int) ([]events.Record, error)
}

func (s *scriptedStore) Heads(_ context.Context, ids []int64) (map[int64]events.Head, error) {
	if s.err != nil {
		return nil, s.err
	}
	heads := make(map[int64]events.Head)
	for _, id := range ids {
		heads[id] = s.head
	}
	return heads, nil
}

func (s *scriptedStore) Events(_ context.Context, _, after int64, limit int) ([]events.Record, error) {
	if s.rows != nil {
		return s.rows(after, limit)
	}
	var list []events.Record
	for seq := max(after+1, s.first); seq <= s.head.LastSeq && len(list) < limit; seq++ {
		list = append(list, events.Record{Seq: seq, Type: events.TypeProgress, Data: []byte(`{"seq": ` + strconv.FormatInt(seq, 10) + `}`)})
	}
	return list, s.err
}

func (s *scriptedStore) News(context.Context, []events.Cursor, int) (map[int64]events.News, error) {
	return nil, s.err
}

func (s *scriptedStore) Execution(ctx context.Context, _ int64) (executor.Execution, error) {
	if s.hang {
		<-ctx.Done()
		return executor.Execution{}, ctx.Err()
	}
	if s.panic != "" {
		panic(s.panic)
	}
	return executor.Execution{ID: 1, LastSeq: s.head.LastSeq, Status: executor.StatusRunning}, s.err
}

func (s *scriptedStore) Ping(context.Context) error { return s.err }
