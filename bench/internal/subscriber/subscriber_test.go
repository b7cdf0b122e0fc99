package subscriber_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/bench/internal/subscriber"
)

func TestStream(t *testing.T) {
	t.Parallel()
	frames := "retry: 2000\n: hello\n\nid: 1\nevent: prompt-delta\ndata: {}\n\n:\n\nid: 22\ndata: " + strings.Repeat("x", 300) + "\n\nid: 23\nevent: last\ndata: 1\n\n"
	want := []string{"1 prompt-delta 36", "22  315", "23 last 28"}
	for _, step := range []int{1, 2, 7, 100, len(frames)} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Last-Event-ID") != "5" {
				w.WriteHeader(http.StatusBadRequest)
			}
			rc := http.NewResponseController(w)
			for rest := frames; rest != ""; {
				n := min(step, len(rest))
				_, err := io.WriteString(w, rest[:n])
				if err := errors.Join(err, rc.Flush()); err != nil {
					t.Error(err)
				}
				rest = rest[n:]
			}
		}))
		s, err := subscriber.Open(t.Context(), server.Listener.Addr().String(), "/", subscriber.Options{LastEventID: 5, Buffer: 512})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for err == nil {
			err = s.Read(func(e subscriber.Event) { got = append(got, fmt.Sprint(e, " ", e.Size)) })
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("in steps of %d: ended with %v", step, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in steps of %d (-want +got):\n%s", step, diff)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	}
}

func TestOpenRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if _, err := subscriber.Open(t.Context(), server.Listener.Addr().String(), "/", subscriber.Options{}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v, want the status", err)
	}
}
