package sseclient_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/internal/sseclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a server of a stream: answer n to connection n, the last one for all
// that follow. It notes the cursors that it was asked for.
type script struct {
	mu      sync.Mutex
	answers []http.HandlerFunc
	cursors []string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := len(s.cursors)
	s.cursors = append(s.cursors, r.Header.Get("Last-Event-ID"))
	s.mu.Unlock()
	s.answers[min(n, len(s.answers)-1)](w, r)
}

// text answers with a stream and ends cleanly.
func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, body)
	}
}

// broken answers with a stream and breaks the connection.
func broken(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text(body)(w, r)
		flush(w)
		panic(http.ErrAbortHandler)
	}
}

// flush sends what was written. A client that has left shows at the next write.
func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		if code != http.StatusNoContent {
			fmt.Fprint(w, `{"title": "Gone"}`)
		}
	}
}

func event(id int, name, data string) string {
	return fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", id, name, data)
}

// follow reads a scripted stream.
func follow(t *testing.T, s *script, change func(*sseclient.Config)) (got []string, reconnects []sseclient.Reconnect, err error) {
	t.Helper()
	server := httptest.NewServer(s)
	defer server.Close()
	cfg := sseclient.Config{
		URL: server.URL, Client: server.Client(), Wait: time.Millisecond, MaxWait: 4 * time.Millisecond,
		Last:        func(event string) bool { return event == "last" },
		OnReconnect: func(r sseclient.Reconnect) { reconnects = append(reconnects, r) },
	}
	if change != nil {
		change(&cfg)
	}
	for e, ferr := range sseclient.Follow(t.Context(), cfg) {
		if ferr != nil {
			err = ferr
			continue
		}
		got = append(got, fmt.Sprintf("%d %s %s", e.ID, e.Type, e.Data))
	}
	return got, reconnects, err
}

func TestFollow(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		answers []http.HandlerFunc
		after   int64
		want    []string
		cursors []string
	}{
		{
			name:    "the last event ends it",
			answers: []http.HandlerFunc{text("retry: 5\n: hello\n\n" + event(1, "a", "x") + event(2, "last", "y"))},
			want:    []string{"1 a x", "2 last y"},
			cursors: []string{""},
		},
		{
			name: "a clean end is resumed",
			answers: []http.HandlerFunc{
				text("retry: 1\n\n" + event(1, "a", "x")), text(event(2, "a", "y")), text(event(3, "last", "z")),
			},
			want:    []string{"1 a x", "2 a y", "3 last z"},
			cursors: []string{"", "1", "2"},
		},
		{
			name:    "204 ends it",
			answers: []http.HandlerFunc{text(event(1, "a", "x")), status(http.StatusNoContent)},
			want:    []string{"1 a x"},
			cursors: []string{"", "1"},
		},
		{
			name:    "204 at once",
			answers: []http.HandlerFunc{status(http.StatusNoContent)},
			after:   9,
			cursors: []string{"9"},
		},
		{
			name: "a repeated event is dropped",
			answers: []http.HandlerFunc{
				text(event(1, "a", "x") + event(1, "a", "x") + event(2, "a", "y")), text(event(1, "a", "x") + event(2, "a", "y") + event(3, "last", "z")),
			},
			want:    []string{"1 a x", "2 a y", "3 last z"},
			cursors: []string{"", "2"},
		},
		{
			name: "an event that was cut off is read again",
			answers: []http.HandlerFunc{
				broken(event(1, "a", "x") + "id: 2\nevent: a\ndata: {\"half"), text(event(1, "a", "x") + "id: 2\nevent: a\ndata: {\"ha"), text(event(2, "a", `{"half": 1}`) + event(3, "last", "z")),
			},
			want:    []string{"1 a x", `2 a {"half": 1}`, "3 last z"},
			cursors: []string{"", "1", "1"},
		},
		{
			name:    "heartbeats and events without id are dropped",
			answers: []http.HandlerFunc{text(event(4, "a", "x") + ":\n\n: beat\n\nevent: ghost\ndata: boo\n\n" + event(5, "last", "z"))},
			after:   3,
			want:    []string{"4 a x", "5 last z"},
			cursors: []string{"3"},
		},
		{
			name:    "CR and CRLF end lines too",
			answers: []http.HandlerFunc{text("id: 1\r\nevent: a\r\ndata: x\r\n\r\nid: 2\revent: last\rdata: y\rdata: z\r\r")},
			want:    []string{"1 a x", "2 last y\nz"},
			cursors: []string{""},
		},
		{
			name: "a server that is away for a while",
			answers: []http.HandlerFunc{
				text(event(1, "a", "x")), status(http.StatusServiceUnavailable), status(http.StatusTooManyRequests), broken(""), text(event(2, "last", "y")),
			},
			want:    []string{"1 a x", "2 last y"},
			cursors: []string{"", "1", "1", "1", "1"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &script{answers: test.answers}
			got, _, err := follow(t, s, func(c *sseclient.Config) { c.After = test.after })
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(test.cursors, s.cursors); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDropAfterEveryEvent resumes a hundred times, half of them in the middle of
// the next event.
func TestDropAfterEveryEvent(t *testing.T) {
	t.Parallel()
	const last = 100
	s := &script{answers: []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
		after := 0
		if id := r.Header.Get("Last-Event-ID"); id != "" {
			after, _ = strconv.Atoi(id)
		}
		name := "a"
		if after+1 == last {
			name = "last"
		}
		body := "retry: 0\n\n" + event(after+1, name, "x")
		if after%2 == 0 {
			body += event(after+2, "a", "never complete")[:20]
			broken(body)(w, r)
		}
		text(body)(w, r)
	}}}
	got, reconnects, err := follow(t, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range got {
		if !strings.HasPrefix(line, fmt.Sprintf("%d ", i+1)) {
			t.Fatalf("event %d is %q", i+1, line)
		}
	}
	if len(got) != last || len(reconnects) != last-1 {
		t.Errorf("%d events and %d reconnects, want %d and %d", len(got), len(reconnects), last, last-1)
	}
}

func TestLargeEvent(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("0123456789", 30_000) // 300 kB
	got, _, err := follow(t, &script{answers: []http.HandlerFunc{text(event(1, "a", large) + event(2, "last", "z"))}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1 a " + large, "2 last z"}, got); diff != "" {
		t.Error(diff)
	}
	got, _, err = follow(t, &script{answers: []http.HandlerFunc{text(event(1, "a", "x") + event(2, "a", large))}},
		func(c *sseclient.Config) { c.MaxEvent = 200_000 })
	if !errors.Is(err, sseclient.ErrTooLarge) {
		t.Errorf("beyond the limit: %v", err)
	}
	if diff := cmp.Diff([]string{"1 a x"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRetryIsHonoured(t *testing.T) {
	t.Parallel()
	_, reconnects, err := follow(t, &script{answers: []http.HandlerFunc{
		text("retry: 20\n\n" + event(1, "a", "x")), text("retry: 3\n\n"), status(http.StatusServiceUnavailable), text(event(2, "last", "z")),
	}}, func(c *sseclient.Config) { c.MaxWait = 10 * time.Millisecond })
	if err != nil {
		t.Fatal(err)
	}
	// The server's own wait first, above the limit of ours; then it grows with
	// every failure in a row, and up to a quarter is added.
	const ms = time.Millisecond
	bounds := [][2]time.Duration{{20 * ms, 26 * ms}, {6 * ms, 8 * ms}, {10 * ms, 13 * ms}}
	if len(reconnects) != len(bounds) {
		t.Fatalf("%d reconnects, want %d", len(reconnects), len(bounds))
	}
	for i, b := range bounds {
		if wait := reconnects[i].Wait; wait < b[0] || wait > b[1] {
			t.Errorf("wait %d is %s, want %s to %s", i, wait, b[0], b[1])
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := httptest.NewServer(status(http.StatusServiceUnavailable, "Retry-After", "7"))
	defer server.Close()
	var wait time.Duration
	for _, err := range sseclient.Follow(ctx, sseclient.Config{URL: server.URL, Client: server.Client(), OnReconnect: func(r sseclient.Reconnect) {
		wait = r.Wait
		cancel()
	}}) {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if wait < 7*time.Second || wait > 9*time.Second {
		t.Errorf("wait is %s, want 7 s and up to a quarter", wait)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusBadRequest, http.StatusNotFound, http.StatusGone} {
		s := &script{answers: []http.HandlerFunc{status(code, "Content-Type", "application/problem+json")}}
		_, _, err := follow(t, s, nil)
		var refused *sseclient.StatusError
		if !errors.As(err, &refused) {
			t.Errorf("%d: %v", code, err)
			continue
		}
		want := &sseclient.StatusError{Status: code, ContentType: "application/problem+json", Body: []byte(`{"title": "Gone"}`)}
		if diff := cmp.Diff(want, refused); diff != "" {
			t.Error(diff)
		}
		if len(s.cursors) != 1 {
			t.Errorf("%d was asked %d times", code, len(s.cursors))
		}
	}
	_, _, err := follow(t, &script{answers: []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }}}, nil)
	if !errors.Is(err, sseclient.ErrNoStream) {
		t.Errorf("a page: %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	events := 0
	for _, err := range sseclient.Follow(t.Context(), sseclient.Config{URL: url, Client: &http.Client{}}) {
		if err == nil {
			t.Error("an event from nobody")
		}
		events++
	}
	if events != 1 {
		t.Errorf("%d errors, want 1", events)
	}
}

// TestSilence gives a connection up that shows no sign of life.
func TestSilence(t *testing.T) {
	t.Parallel()
	s := &script{answers: []http.HandlerFunc{
		func(w http.ResponseWriter, r *http.Request) {
			text(event(1, "a", "x"))(w, r)
			flush(w)
			<-r.Context().Done()
		},
		text(event(2, "last", "y")),
	}}
	got, reconnects, err := follow(t, s, func(c *sseclient.Config) { c.Idle = 500 * time.Millisecond })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1 a x", "2 last y"}, got); diff != "" {
		t.Error(diff)
	}
	if len(reconnects) != 1 || reconnects[0].Err == nil {
		t.Errorf("reconnects: %v", reconnects)
	}
}

// TestStop leaves in the middle, by the loop and by the context.
func TestStop(t *testing.T) {
	t.Parallel()
	endless := func(w http.ResponseWriter, r *http.Request) {
		for i := 1; r.Context().Err() == nil; i++ {
			if i == 1 {
				w.Header().Set("Content-Type", "text/event-stream")
			}
			fmt.Fprint(w, event(i, "a", "x"))
			flush(w)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(endless))
	defer server.Close()
	cfg := sseclient.Config{URL: server.URL, Client: server.Client()}
	n := 0
	for _, err := range sseclient.Follow(t.Context(), cfg) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 5 {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for e, err := range sseclient.Follow(ctx, cfg) {
		last = err
		if e.ID == 5 {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("after cancel: %v", last)
	}
}
