package llm_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
)

// lister is a server whose models change.
type lister struct {
	calls  atomic.Int64
	answer func(ctx context.Context) ([]llm.Listed, error)
}

func (l *lister) list(ctx context.Context) ([]llm.Listed, error) {
	l.calls.Add(1)
	return l.answer(ctx)
}

func has(names ...string) func(context.Context) ([]llm.Listed, error) {
	return func(context.Context) ([]llm.Listed, error) {
		var out []llm.Listed
		for _, name := range names {
			out = append(out, llm.Listed{Model: name, Info: llm.Info{ContextWindow: 8192, Tools: true}})
		}
		return out, nil
	}
}

func available(r *llm.Registry) map[string]bool {
	out := make(map[string]bool)
	for _, m := range r.Models() {
		out[m.ID] = m.Available
	}
	return out
}

func state(t *testing.T, r *llm.Registry, name string) llm.ProviderState {
	t.Helper()
	for _, s := range r.Providers() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no provider %s", name)
	return llm.ProviderState{}
}

// A local server is asked in the background, once however many ask, and again
// when what is known is half a minute old.
func TestDetection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &lister{answer: func(context.Context) ([]llm.Listed, error) { return nil, errors.New("refused") }}
		r := llm.NewRegistry(map[string]llm.Entry{"local": {
			Provider: slow{}, Label: "Local", Models: []string{"known"}, List: server.list, Local: true, Remedy: "start Local",
			Lookup: func(string) llm.Info { return llm.Info{Prices: llm.Free(), MaxOutput: 7} },
		}})
		defer r.Close()
		if n := server.calls.Load(); n != 0 {
			t.Fatalf("asked %d times before anybody wanted to know", n)
		}
		if s := state(t, r, "local"); s.Available || !s.Checked.IsZero() || s.Note != "being looked for" {
			t.Errorf("before the first answer: %+v", s)
		}
		for range 10 {
			r.Detect()
		}
		synctest.Wait()
		if n := server.calls.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if s := state(t, r, "local"); s.Available || s.Note != "start Local" || s.Checked.IsZero() {
			t.Errorf("not running: %+v", s)
		}
		if diff := cmp.Diff(map[string]bool{"local/known": false}, available(r)); diff != "" {
			t.Errorf("not running (-want +got):\n%s", diff)
		}

		server.answer = has("new", "newer")
		time.Sleep(29 * time.Second) //nolint:forbidigo // of the bubble
		r.Models()
		synctest.Wait()
		if n := server.calls.Load(); n != 1 {
			t.Errorf("asked again after 29 seconds")
		}
		time.Sleep(time.Second) //nolint:forbidigo // of the bubble
		r.Models()              // what is old is still answered, at once
		synctest.Wait()
		want := map[string]bool{"local/known": false, "local/new": true, "local/newer": true}
		if diff := cmp.Diff(want, available(r)); diff != "" {
			t.Errorf("running (-want +got):\n%s", diff)
		}
		if s := state(t, r, "local"); !s.Available || s.Note != "" {
			t.Errorf("running: %+v", s)
		}
		target, err := r.Resolve("local/new")
		if err != nil || target.Info.ContextWindow != 8192 || target.Info.MaxOutput != 7 || !target.Info.Tools || len(target.Info.Prices) != 1 {
			t.Errorf("a model that was seen: %+v, %v", target.Info, err)
		}
		if info := r.Info("local/unseen"); info.ContextWindow != 0 || info.MaxOutput != 7 || len(info.Prices) != 1 {
			t.Errorf("a model that was not seen: %+v", info)
		}
	})
}

// A server that hangs delays nobody, and nothing is left of it after Close.
func TestDetectionOfASilentServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &lister{answer: func(ctx context.Context) ([]llm.Listed, error) { <-ctx.Done(); return nil, ctx.Err() }}
		r := llm.NewRegistry(map[string]llm.Entry{"local": {Provider: slow{}, List: server.list, Local: true, Remedy: "start it"}})
		began := time.Now()
		r.Detect()
		r.Models()
		if _, err := r.Resolve("local/x"); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %s", took)
		}
		r.Close()
		if took := time.Since(began); took != 500*time.Millisecond {
			t.Errorf("closed after %s", took)
		}
		if s := state(t, r, "local"); s.Available || s.Note != "start it" {
			t.Errorf("state %+v", s)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // of the bubble
		r.Models()
		synctest.Wait()
		if n := server.calls.Load(); n != 1 {
			t.Errorf("asked %d times, the last after Close", n)
		}
	})
}

// What costs money or reaches others is asked only when somebody says so.
func TestRefresh(t *testing.T) {
	t.Parallel()
	remote, local, unset := &lister{answer: has("brand-new")}, &lister{answer: has("llama")}, &lister{answer: has("x")}
	r := llm.NewRegistry(map[string]llm.Entry{
		"remote": {Provider: slow{}, Models: []string{"old"}, List: remote.list},
		"local":  {Provider: slow{}, List: local.list, Local: true},
		"unset":  {Label: "Unset", Env: "UNSET_KEY", Models: []string{"y"}, List: unset.list},
	})
	defer r.Close()
	r.Refresh(t.Context(), false)
	if remote.calls.Load() != 0 || local.calls.Load() != 1 {
		t.Errorf("calls: %d remote, %d local", remote.calls.Load(), local.calls.Load())
	}
	r.Refresh(t.Context(), true)
	want := map[string]bool{"remote/old": true, "remote/brand-new": true, "local/llama": true, "unset/y": false}
	if diff := cmp.Diff(want, available(r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if remote.calls.Load() != 1 || unset.calls.Load() != 0 {
		t.Errorf("calls: %d remote, %d without a key", remote.calls.Load(), unset.calls.Load())
	}
	if s := state(t, r, "unset"); s.Configured || s.Available || s.Note != "set UNSET_KEY to use Unset" {
		t.Errorf("state %+v", s)
	}
	remote.answer = func(context.Context) ([]llm.Listed, error) { return nil, errors.New("refused Bearer abcdefghij") }
	r.Refresh(t.Context(), true)
	if s := state(t, r, "remote"); !s.Available || s.Note != "its models could not be listed: refused ***" {
		t.Errorf("state %+v", s)
	}
}
