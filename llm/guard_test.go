package llm_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// A call that a deadline cuts off keeps what its provider says of its usage.
func TestGuardKeepsTheUsage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		paid := &llm.Usage{InputTokens: 7}
		p := cut(func(ctx context.Context) *llm.Error {
			<-ctx.Done()
			e := llm.ContextError(ctx)
			e.Usage = paid
			return e
		})
		for _, err := range llm.Guard(p, llm.Deadlines{}).Stream(t.Context(), llm.Request{}) {
			var e *llm.Error
			if !errors.As(err, &e) || e.Code != llm.CodeTimeoutFirstByte || e.Usage != paid {
				t.Errorf("%v with usage %v", err, e.Usage)
			}
		}
	})
}

// cut is a provider that ends in the error that it answers.
type cut func(ctx context.Context) *llm.Error

func (c cut) Stream(ctx context.Context, _ llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) { yield(llm.Chunk{}, c(ctx)) }
}

// slow is a provider that waits before each of its pieces.
type slow struct {
	waits  []time.Duration
	pieces []string // "" is an empty chunk
	err    error    // at the end, instead of success
}

func (s slow) Stream(ctx context.Context, _ llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		for i, wait := range s.waits {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				yield(llm.Chunk{}, llm.ContextError(ctx))
				return
			}
			if i < len(s.pieces) && !yield(llm.Chunk{Text: s.pieces[i]}, nil) {
				return
			}
		}
		if s.err != nil {
			yield(llm.Chunk{}, s.err)
			return
		}
		yield(llm.Chunk{FinishReason: llm.FinishStop, Usage: &llm.Usage{OutputTokens: 1}}, nil)
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	const s = time.Second
	own := llm.NewError(llm.CodeOverloaded, nil)
	tests := map[string]struct {
		provider slow
		limits   llm.Deadlines
		code     llm.Code // empty is success
		text     string
		took     time.Duration
	}{
		"in time":            {slow{waits: []time.Duration{s, s, s}, pieces: []string{"a", "b", "c"}}, llm.Deadlines{}, "", "abc", 3 * s},
		"first byte":         {slow{waits: []time.Duration{10 * s}, pieces: []string{"a"}}, llm.Deadlines{FirstByte: 3 * s}, llm.CodeTimeoutFirstByte, "", 3 * s},
		"first byte default": {slow{waits: []time.Duration{time.Hour}, pieces: []string{"a"}}, llm.Deadlines{}, llm.CodeTimeoutFirstByte, "", llm.DefaultFirstByte},
		"idle":               {slow{waits: []time.Duration{s, 10 * s}, pieces: []string{"a", "b"}}, llm.Deadlines{Idle: 4 * s}, llm.CodeTimeoutIdle, "a", 5 * s},
		"idle later":         {slow{waits: []time.Duration{s, s, s, 10 * s}, pieces: []string{"a", "b", "c", "d"}}, llm.Deadlines{Idle: 4 * s}, llm.CodeTimeoutIdle, "abc", 7 * s},
		"idle default":       {slow{waits: []time.Duration{s, time.Hour}, pieces: []string{"a", "b"}}, llm.Deadlines{}, llm.CodeTimeoutIdle, "a", s + llm.DefaultIdle},
		"signs of life":      {slow{waits: []time.Duration{2 * s, 2 * s, 2 * s, 2 * s}, pieces: []string{"", "", "", "a"}}, llm.Deadlines{FirstByte: 3 * s, Idle: 3 * s}, "", "a", 8 * s},
		"total":              {slow{waits: []time.Duration{s, s, s, s}, pieces: []string{"a", "b", "c", "d"}}, llm.Deadlines{Total: 2500 * time.Millisecond}, llm.CodeTimeoutTotal, "ab", 2500 * time.Millisecond},
		"total before first": {slow{waits: []time.Duration{10 * s}, pieces: []string{"a"}}, llm.Deadlines{Total: 2 * s}, llm.CodeTimeoutTotal, "", 2 * s},
		"no limits":          {slow{waits: []time.Duration{24 * time.Hour, 24 * time.Hour}, pieces: []string{"a", strings.Repeat("x", 8<<20)}}, llm.Deadlines{FirstByte: -1, Idle: -1, Total: -1, MaxBytes: -1}, "", "a" + strings.Repeat("x", 8<<20), 48 * time.Hour},
		"only first byte":    {slow{waits: []time.Duration{s, time.Hour}, pieces: []string{"a", "b"}}, llm.Deadlines{FirstByte: 2 * s, Idle: -1, Total: -1}, "", "ab", time.Hour + s},
		"at the byte":        {slow{waits: []time.Duration{s, s}, pieces: []string{"ab", "cd"}}, llm.Deadlines{MaxBytes: 4}, "", "abcd", 2 * s},
		"a byte over":        {slow{waits: []time.Duration{s, s}, pieces: []string{"ab", "cde"}}, llm.Deadlines{MaxBytes: 4}, llm.CodeResponseTooLarge, "ab", 2 * s},
		"bytes default":      {slow{waits: []time.Duration{s}, pieces: []string{strings.Repeat("x", llm.DefaultMaxBytes+1)}}, llm.Deadlines{}, llm.CodeResponseTooLarge, "", s},
		"error of its own":   {slow{waits: []time.Duration{s}, pieces: []string{"a"}, err: own}, llm.Deadlines{}, llm.CodeOverloaded, "a", s},
		"own error, too late": {
			slow{waits: []time.Duration{s}, pieces: []string{"a"}, err: own},
			llm.Deadlines{Total: s + 1}, llm.CodeOverloaded, "a", s,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				r := llmtest.Collect(t.Context(), t, llm.Guard(tt.provider, tt.limits), llm.Request{})
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if r.Text != tt.text {
					t.Errorf("text %.40q, want %.40q", r.Text, tt.text)
				}
				var code llm.Code
				if e := (*llm.Error)(nil); errors.As(r.Err, &e) {
					code = e.Code
				}
				if code != tt.code {
					t.Errorf("code %q, want %q: %v", code, tt.code, r.Err)
				}
				timeout := strings.HasPrefix(string(tt.code), "timeout_")
				if timeout != errors.Is(r.Err, context.DeadlineExceeded) || errors.Is(r.Err, context.Canceled) {
					t.Errorf("error %#v", r.Err)
				}
			})
		})
	}
}

// TestGuardReader shows that the reader's own time is not the model's.
func TestGuardReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := llm.Guard(slow{waits: []time.Duration{1, 1, 1}, pieces: []string{"a", "b", "c"}}, llm.Deadlines{Idle: time.Second})
		text := ""
		for chunk, err := range p.Stream(t.Context(), llm.Request{}) {
			if err != nil {
				t.Fatal(err)
			}
			text += chunk.Text
			<-time.After(time.Minute)
		}
		if text != "abc" {
			t.Errorf("text %q", text)
		}
	})
}

// spent is a provider that knows what it used when it is stopped.
type spent llm.Usage

func (s spent) Stream(ctx context.Context, _ llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		<-ctx.Done()
		e := llm.ContextError(ctx)
		e.Usage = (*llm.Usage)(&s)
		yield(llm.Chunk{}, e)
	}
}

// TestGuardUsage shows that a deadline does not forget what a call had used.
func TestGuardUsage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, limits := range []llm.Deadlines{{FirstByte: time.Second}, {Total: time.Second}} {
			r := llmtest.Collect(t.Context(), t, llm.Guard(spent{InputTokens: 7}, limits), llm.Request{})
			if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Usage == nil || e.Usage.InputTokens != 7 {
				t.Errorf("error %v", r.Err)
			}
		}
	})
}

// TestGuardCaller shows that the caller's cancel stays the caller's.
func TestGuardCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reason := errors.New("stop pressed")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { cancel(reason) })
		p := llm.Guard(slow{waits: []time.Duration{time.Hour}}, llm.Deadlines{})
		r := llmtest.Collect(ctx, t, p, llm.Request{})
		e := (*llm.Error)(nil)
		if !errors.As(r.Err, &e) || e.Code != llm.CodeCancelled || !errors.Is(r.Err, reason) || !errors.Is(r.Err, context.Canceled) {
			t.Errorf("error %v", r.Err)
		}
	})
}

// TestGuardLeft shows that leaving the loop ends the provider's context.
func TestGuardLeft(t *testing.T) {
	t.Parallel()
	var done <-chan struct{}
	p := llm.Guard(provide(func(ctx context.Context, yield func(llm.Chunk, error) bool) {
		done = ctx.Done()
		for yield(llm.Chunk{Text: "x"}, nil) {
		}
	}), llm.Deadlines{})
	for _, err := range p.Stream(t.Context(), llm.Request{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	select {
	case <-done:
	default:
		t.Error("the provider's context lives on")
	}
}

// provide makes a provider of a function.
type provide func(ctx context.Context, yield func(llm.Chunk, error) bool)

func (f provide) Stream(ctx context.Context, _ llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) { f(ctx, yield) }
}

func BenchmarkGuard(b *testing.B) {
	const chunks = 1000
	p := llm.Guard(provide(func(_ context.Context, yield func(llm.Chunk, error) bool) {
		for range chunks {
			if !yield(llm.Chunk{Text: "x"}, nil) {
				return
			}
		}
	}), llm.Deadlines{})
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for _, err := range p.Stream(b.Context(), llm.Request{}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/chunk")
}

// calling is a provider that asks for one tool call.
type calling llm.ToolCall

func (c calling) Stream(context.Context, llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		if yield(llm.Chunk{ToolCalls: []llm.ToolCall{llm.ToolCall(c)}}, nil) {
			yield(llm.Chunk{FinishReason: llm.FinishToolCalls, Usage: &llm.Usage{OutputTokens: 1}}, nil)
		}
	}
}

// TestGuardCountsToolCalls shows that what a tool is to be called with is part of
// the answer's size.
func TestGuardCountsToolCalls(t *testing.T) {
	t.Parallel()
	call := calling{ID: "c1", Name: "add", Arguments: `{"a":1}`}
	r := llmtest.Collect(t.Context(), t, llm.Guard(call, llm.Deadlines{MaxBytes: 10}), llm.Request{})
	if r.Err != nil || len(r.ToolCalls) != 1 {
		t.Errorf("at the byte: %+v", r)
	}
	r = llmtest.Collect(t.Context(), t, llm.Guard(call, llm.Deadlines{MaxBytes: 9}), llm.Request{})
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeResponseTooLarge {
		t.Errorf("a byte over: %+v", r)
	}
}
