package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// later says that the next attempts of some prompts come so late that no worker
// is held for them.
type later struct {
	until time.Time // of the first of them
	steps []*step
}

func (l *later) Error() string { return "the execution waits until " + l.until.Format(time.RFC3339) }

// errWaits ends a run whose execution waits for a time.
var errWaits = errors.New("the execution waits")

// join adds what a sibling waits for.
func (l *later) join(other *later) *later {
	if l == nil {
		return other
	}
	if other.until.Before(l.until) {
		l.until = other.until
	}
	l.steps = append(l.steps, other.steps...)
	return l
}

// timeLimit bounds the prompt by its own timeout. A wait that was announced is a
// part of that time, also when it is over in another process.
func (s *step) timeLimit(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.prompt.Timeout <= 0 {
		return ctx, func() {}
	}
	begin := time.Now()
	if l := s.run.unfinished[s.index]; l != nil && l.Announced {
		begin = s.state.StartedAt
	}
	return context.WithDeadlineCause(ctx, begin.Add(s.prompt.Timeout), errPromptTimeout)
}

// delayed waits before an attempt: here, or, when that is too long for a worker,
// by a *later. It never waits beyond the end of the context.
func (s *step) delayed(ctx context.Context, d time.Duration, long bool) error {
	until := time.Now().Add(d)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
		long = long && time.Until(until) > s.run.e.cfg.Retry.Held()
	}
	if !long || ctx.Err() != nil {
		return s.pause(ctx, d)
	}
	return &later{until: until, steps: []*step{s}}
}

// giveUp closes the prompts that wait, because the execution ends without them.
func (l *later) giveUp(ctx context.Context) error {
	for _, s := range l.steps {
		f := failureOf(ctx, s.lastError())
		if err := s.fail(f); err != nil {
			if _, ok := errors.AsType[*failure](err); !ok {
				return err
			}
		}
	}
	return nil
}

// lastError answers why the prompt waits.
func (s *step) lastError() error {
	if s.failed != nil {
		return s.failed
	}
	e := llm.NewError(llm.CodeRateLimited, nil)
	if l := s.run.unfinished[s.index]; l != nil {
		e.Code, e.Message = cmp.Or(llm.Code(l.CallCode), e.Code), cmp.Or(l.CallError, e.Message)
	}
	return e
}

// wait puts the execution down until its time comes and gives the lease back.
// It answers nil when it is to be cancelled instead.
func (r *run) wait(l *later) error {
	if _, err := r.commit(events.Batch{}); err != nil { // whoever wakes up reads the log
		return cause(r.hold, err)
	}
	r.ending.Store(true) // from here on the lease may be gone
	waits := false
	err := r.patiently(func() (err error) {
		waits, err = r.e.store.Wait(r.hold, r.e.cfg.Owner, r.ex.ID, r.ex.Epoch, max(time.Until(l.until), 0))
		return err
	})
	if waits {
		r.logger.InfoContext(r.hold, "execution waits", "until", l.until)
		return errWaits
	}
	if err != nil {
		return err
	}
	var now Execution
	if err := r.patiently(func() (err error) { now, err = r.e.store.Execution(r.hold, r.ex.ID); return err }); err != nil {
		return err
	}
	switch {
	case now.Epoch == r.ex.Epoch && now.Status == StatusWaiting: // the answer to the first try was lost
		return errWaits
	case now.Epoch == r.ex.Epoch && now.CancelRequested:
		r.ending.Store(false)
		r.end(errCancelled)
		return nil
	}
	return fmt.Errorf("let execution %d wait: %w", r.ex.ID, errLost)
}
