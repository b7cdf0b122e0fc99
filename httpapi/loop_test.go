package httpapi_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/httpapi"
)

// fakeSource is a log that grows when the test says so.
type fakeSource struct {
	mu     sync.Mutex
	frames []events.Frame
	wake   chan struct{}
	err    error
}

func newSource() *fakeSource { return &fakeSource{wake: make(chan struct{})} }

func (s *fakeSource) Poll(context.Context) ([]events.Frame, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames := s.frames
	s.frames = nil
	if len(frames) > 0 {
		return frames, nil, nil
	}
	return nil, s.wake, s.err
}

// show adds events and wakes the loop.
func (s *fakeSource) show(frames ...events.Frame) {
	s.add(frames...)
	s.ring()
}

func (s *fakeSource) add(frames ...events.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = append(s.frames, frames...)
}

func (s *fakeSource) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.wake)
	s.wake = make(chan struct{})
}

// fail makes what is answered when there are no events an error.
func (s *fakeSource) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// recorder notes what is written and when it is flushed.
type recorder struct {
	mu      sync.Mutex
	start   time.Time
	pending strings.Builder
	flushed []string // time since the start and text
	err     error
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending.Write(b)
	return len(b), r.err
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *recorder) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flushed = append(r.flushed, time.Since(r.start).String()+" "+r.pending.String())
	r.pending.Reset()
	return r.err
}

func frame(seq int64, t events.Type) events.Frame { return events.NewFrame(seq, t, []byte(`{}`)) }

const preamble = "0s retry: 2000\n: the events of one execution; reconnect with Last-Event-ID\n\n"

// loop runs a loop in a bubble until the script ends it.
func loop(t *testing.T, noDeltas bool, first []events.Frame, script func(src *fakeSource, out *recorder, drain chan struct{}, leave func())) (reason string, out *recorder) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		src, drain := newSource(), make(chan struct{})
		out = &recorder{start: time.Now()}
		done := make(chan struct{})
		go func() {
			defer close(done)
			reason = httpapi.RunLoop(ctx, src, out, noDeltas, 15*time.Second, drain, first)
		}()
		synctest.Wait()
		script(src, out, drain, leave)
		<-done
	})
	return reason, out
}

var _ httpapi.Source = (*fakeSource)(nil)
var _ httpapi.Sink = (*recorder)(nil)

func TestLoopHeartbeats(t *testing.T) {
	t.Parallel()
	reason, out := loop(t, true, nil, func(src *fakeSource, _ *recorder, _ chan struct{}, leave func()) {
		wait(20 * time.Second) // one heartbeat at 15 s
		src.show(frame(1, events.TypeProgress))
		wait(10 * time.Second)
		src.show(frame(2, events.TypePromptDelta)) // left out: silence goes on
		wait(4 * time.Second)
		wait(2 * time.Second) // 36 s: 15 s after the event of 20 s
		leave()
	})
	want := []string{preamble, "15s :\n\n", "20s id: 1\nevent: progress\ndata: {}\n\n", "35s :\n\n"}
	if diff := cmp.Diff(want, out.flushed); diff != "" || reason != "client" {
		t.Errorf("%s: %s", reason, diff)
	}
}

// wait lets the time of the bubble pass and everything in it come to rest.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// Everything there is goes out with one flush.
func TestLoopDrainsThenFlushes(t *testing.T) {
	t.Parallel()
	reason, out := loop(t, false, []events.Frame{frame(1, events.TypeExecutionStart), frame(2, events.TypeProgress)}, func(src *fakeSource, _ *recorder, _ chan struct{}, _ func()) {
		src.fail(io.EOF)
		src.show(frame(3, events.TypeProgress), frame(4, events.TypeExecutionComplete))
	})
	want := []string{
		preamble + "id: 1\nevent: execution-start\ndata: {}\n\nid: 2\nevent: progress\ndata: {}\n\n",
		"0s id: 3\nevent: progress\ndata: {}\n\nid: 4\nevent: execution-complete\ndata: {}\n\n",
	}
	if diff := cmp.Diff(want, out.flushed); diff != "" || reason != "complete" {
		t.Errorf("%s: %s", reason, diff)
	}
}

func TestLoopEndings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		script     func(src *fakeSource, out *recorder, drain chan struct{}, leave func())
	}{
		{"client leaves", "client", func(_ *fakeSource, _ *recorder, _ chan struct{}, leave func()) { leave() }},
		{"drain", "drain", func(_ *fakeSource, _ *recorder, drain chan struct{}, _ func()) { close(drain) }},
		{"reader too slow", "slow", func(src *fakeSource, out *recorder, _ chan struct{}, _ func()) {
			out.fail(os.ErrDeadlineExceeded)
			src.show(frame(1, events.TypeProgress))
		}},
		{"reader gone", "client", func(src *fakeSource, out *recorder, _ chan struct{}, _ func()) {
			out.fail(errors.New("broken pipe"))
			src.show(frame(1, events.TypeProgress))
		}},
		{"events removed", "broken", func(src *fakeSource, _ *recorder, _ chan struct{}, _ func()) {
			src.fail(events.ErrGone)
			src.ring()
		}},
		{"heartbeat not taken", "slow", func(_ *fakeSource, out *recorder, _ chan struct{}, _ func()) { out.fail(os.ErrDeadlineExceeded) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if reason, _ := loop(t, false, nil, c.script); reason != c.want {
				t.Errorf("ended as %s, want %s", reason, c.want)
			}
		})
	}
}

// A database that is away for a while does not cost the stream.
func TestLoopOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	reason, out := loop(t, false, nil, func(src *fakeSource, _ *recorder, _ chan struct{}, _ func()) {
		src.fail(events.ErrUnavailable)
		src.ring()
		wait(2500 * time.Millisecond)
		src.fail(io.EOF)
		src.add(frame(1, events.TypeExecutionComplete))
		wait(time.Second)
	})
	last := out.flushed[len(out.flushed)-1]
	if reason != "complete" || last != "3s id: 1\nevent: execution-complete\ndata: {}\n\n" {
		t.Errorf("%s: %q", reason, out.flushed)
	}
}

// The loop costs nothing per event, whoever reads.
func TestLoopAllocations(t *testing.T) {
	frames := make([]events.Frame, 10_000)
	for i := range frames {
		frames[i] = frame(int64(i+1), events.TypePromptDelta)
	}
	allocs := testing.AllocsPerRun(10, func() {
		src := &fakeSource{err: io.EOF}
		if reason := httpapi.RunLoop(t.Context(), src, discard{}, false, time.Minute, nil, frames); reason != "complete" {
			t.Fatal(reason)
		}
	})
	if allocs > 50 {
		t.Errorf("%v allocations for %d events", allocs, len(frames))
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Flush() error                { return nil }
