package llm

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Defaults of Deadlines.
const (
	DefaultFirstByte = 2 * time.Minute
	DefaultIdle      = time.Minute
	DefaultTotal     = 10 * time.Minute
	DefaultMaxBytes  = 4 << 20
)

// Deadlines bound a call. In every field zero is the default and a negative
// value is no limit.
type Deadlines struct {
	// FirstByte bounds the time until the first chunk, DefaultFirstByte.
	FirstByte time.Duration
	// Idle bounds the time between two chunks, DefaultIdle. The time the reader
	// spends on a chunk does not count.
	Idle time.Duration
	// Total bounds the whole call, DefaultTotal.
	Total time.Duration
	// MaxBytes bounds text, reasoning and the arguments of tool calls together,
	// DefaultMaxBytes.
	MaxBytes int
}

// Guard returns a provider that enforces the deadlines on p. A call that runs
// into one is cancelled and ends with CodeTimeoutFirstByte, CodeTimeoutIdle,
// CodeTimeoutTotal (all of which match context.DeadlineExceeded) or
// CodeResponseTooLarge. It relies on p to return when its context ends, as
// Provider demands.
func Guard(p Provider, d Deadlines) Provider {
	return guard{provider: p, limits: Deadlines{
		FirstByte: limitOrDefault(d.FirstByte, DefaultFirstByte),
		Idle:      limitOrDefault(d.Idle, DefaultIdle),
		Total:     limitOrDefault(d.Total, DefaultTotal),
		MaxBytes:  limitOrDefault(d.MaxBytes, DefaultMaxBytes),
	}}
}

// limitOrDefault returns 0 for "no limit".
func limitOrDefault[T int | time.Duration](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return 0
	default:
		return v
	}
}

type guard struct {
	provider Provider
	limits   Deadlines // 0 is no limit
}

// expired is the cancellation cause of a deadline.
type expired struct{ code Code }

func (e expired) Error() string { return string(e.code) }

func (g guard) Stream(ctx context.Context, req Request) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		if stop := cancelAfter(cancel, g.limits.Total, CodeTimeoutTotal); stop != nil {
			defer stop.Stop()
		}
		silence := cancelAfter(cancel, g.limits.FirstByte, CodeTimeoutFirstByte)
		defer func() {
			if silence != nil {
				silence.Stop()
			}
		}()

		first, size := true, 0
		for chunk, err := range g.provider.Stream(ctx, req) {
			if silence != nil {
				silence.Stop()
			}
			if err != nil {
				yield(Chunk{}, deadlineError(ctx, err))
				return
			}
			size += len(chunk.Text) + len(chunk.Reasoning)
			for _, call := range chunk.ToolCalls {
				size += len(call.Name) + len(call.Arguments)
			}
			if g.limits.MaxBytes > 0 && size > g.limits.MaxBytes {
				yield(Chunk{}, NewError(CodeResponseTooLarge, nil))
				return
			}
			if !yield(chunk, nil) {
				return
			}
			if first {
				first = false
				silence = cancelAfter(cancel, g.limits.Idle, CodeTimeoutIdle)
			} else if silence != nil {
				silence.Reset(g.limits.Idle)
			}
		}
	}
}

// cancelAfter cancels with the code as its cause after d; nil for no limit.
func cancelAfter(cancel context.CancelCauseFunc, d time.Duration, code Code) *time.Timer {
	if d <= 0 {
		return nil
	}
	return time.AfterFunc(d, func() { cancel(expired{code}) })
}

// deadlineError turns the error of a call that a deadline cancelled into the
// error of that deadline. An error that came by itself is passed on, even when a
// deadline passed at the same moment.
func deadlineError(ctx context.Context, err error) error {
	var deadline expired
	if errors.As(context.Cause(ctx), &deadline) && errors.Is(err, context.Canceled) {
		e := NewError(deadline.code, context.DeadlineExceeded)
		if cut, ok := errors.AsType[*Error](err); ok {
			e.Usage = cut.Usage // it was paid for all the same
		}
		return e
	}
	return err
}
