package executor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/llm"
)

// run is one claim of one execution.
type run struct {
	e      *Executor
	ex     Execution
	logger *slog.Logger

	// work ends when the execution is to end: by a user, by its deadline, or
	// because the process may not go on with it. hold ends only in the last
	// case; under it the last events are still written.
	work context.Context //nolint:containedctx // a run is one long call and these are its two scopes
	hold context.Context //nolint:containedctx // see work
	end  context.CancelCauseFunc
	drop context.CancelCauseFunc

	call    *llm.Request // nil unless it is a direct call
	version *chain.Version
	inputs  map[string]any
	writer  *events.Writer
	slots   chan struct{} // bounds parallel prompts
	ending  atomic.Bool   // the terminal event has been handed in

	mu       sync.Mutex
	states   map[int]events.PromptState // by index of the prompt; copies of what is stored
	finished int                        // prompts that need no more work

	account  account
	settling sync.WaitGroup // calls that are being booked to shared budgets

	unfinished map[int]*events.PromptFold // prompts that an earlier claim left running, by index
}

func newRun(e *Executor, ex Execution) *run {
	r := &run{
		e: e, ex: ex, logger: e.logger.With("execution_id", ex.ID),
		states: make(map[int]events.PromptState), slots: make(chan struct{}, e.cfg.Parallel),
	}
	r.hold, r.drop = context.WithCancelCause(context.Background())
	r.work, r.end = context.WithCancelCause(r.hold)
	return r
}

// cancel ends the run for a reason; the first one counts.
func (r *run) cancel(cause error) {
	if errors.Is(cause, errLost) || errors.Is(cause, errInterrupted) {
		r.drop(cause)
	}
	r.end(cause)
}

// release gives the lease back, so that the execution goes on elsewhere.
func (r *run) release() {
	ctx, cancel := context.WithTimeout(context.Background(), r.e.cfg.Lease)
	defer cancel()
	failpoint.Reach(failpoint.ReleaseBefore)
	if err := r.e.store.Release(ctx, r.e.cfg.Owner, []int64{r.ex.ID}); err != nil {
		r.logger.WarnContext(ctx, "lease not given back, it will run out", "error", err)
		return
	}
	failpoint.Reach(failpoint.ReleaseAfter)
	r.e.cfg.Announcer.Queued()
}

// execute runs the execution to its end, or as far as this process may.
func (r *run) execute() {
	defer r.drop(nil)
	defer r.settling.Wait()
	status, err := r.toTheEnd()
	switch {
	case err == nil:
		r.logger.InfoContext(r.hold, "execution ended", "status", status, "chain", r.ex.ChainName)
		if r.e.cfg.OnFinish != nil {
			r.e.cfg.OnFinish(status)
		}
	case errors.Is(err, errWaits):
	case errors.Is(err, events.ErrFenced):
		r.logger.WarnContext(r.hold, "execution lost to another process", "error", err)
	case errors.Is(err, errInterrupted), errors.Is(err, errHandedOver):
		r.logger.InfoContext(r.hold, "execution handed over")
		r.release()
	default:
		// Not given back at once: whatever is wrong here would be wrong again.
		r.logger.ErrorContext(r.hold, "execution stopped, another claim follows when its lease runs out", "error", err)
	}
}

// toTheEnd runs all prompts and writes the terminal event.
func (r *run) toTheEnd() (Status, error) {
	defer r.end(nil)
	if err := r.patiently(r.open); err != nil {
		return "", fmt.Errorf("open execution %d: %w", r.ex.ID, err)
	}
	defer r.writer.Close()
	work, stop := context.WithDeadlineCause(r.work, r.deadline(), errTimeout)
	defer stop()

	var failed *failure
	switch {
	case r.ex.CancelRequested:
		r.end(errCancelled)
		failed = failureOf(r.work, errCancelled)
	case r.ex.Claims > r.e.cfg.MaxClaims:
		failed = &failure{code: codeCrashLoop, message: fmt.Sprintf("%d servers in a row began this execution and stopped before a prompt was finished.", r.e.cfg.MaxClaims)}
	default:
		if err := r.patiently(r.define); err != nil {
			return "", fmt.Errorf("open execution %d: %w", r.ex.ID, err)
		}
		if err := r.patiently(r.reuse); errors.As(err, &failed) {
			break
		} else if err != nil {
			return "", fmt.Errorf("open execution %d: %w", r.ex.ID, err)
		}
		if err := r.prompts(work); err != nil && !errors.As(err, &failed) {
			return "", r.settled(err)
		}
	}
	if err := context.Cause(r.hold); err != nil {
		return "", err
	}
	if failed != nil {
		r.closeUnfinished(failed)
	}
	return r.terminate(failed)
}

// settled waits, before the execution is handed over, until all that it has
// written is stored: whoever goes on reads the log, and fences what comes later.
func (r *run) settled(err error) error {
	if !errors.Is(err, errHandedOver) {
		return err
	}
	if _, lost := r.commit(events.Batch{}); lost != nil {
		return cause(r.hold, lost)
	}
	return err
}

// Waits between tries to load what the database does not give at the moment.
const (
	patienceFirst = 50 * time.Millisecond
	patienceMost  = time.Second
)

// patiently calls load until the database answers: like the log, a run outlives
// the absence of the database instead of counting as a crash.
func (r *run) patiently(load func() error) error {
	for wait := patienceFirst; ; wait = min(2*wait, patienceMost) {
		err := load()
		if !errors.Is(err, events.ErrUnavailable) {
			return cause(r.hold, err)
		}
		r.logger.WarnContext(r.hold, "the database is away, trying again", "wait", wait, "error", err)
		if !sleep(r.hold, wait) {
			return context.Cause(r.hold)
		}
	}
}

// define loads what the execution is to do.
func (r *run) define() (err error) {
	if r.version, err = r.e.definitions.load(r.hold, r.e.store, r.ex.ChainID, r.ex.ChainVersion); err != nil {
		return err
	}
	r.version = withModels(r.version, r.ex.Models)
	if err := json.Unmarshal(r.ex.Inputs, &r.inputs); err != nil {
		return fmt.Errorf("read the inputs: %w", err)
	}
	return nil
}

// open loads how far the execution had come and opens its log. It needs nothing
// that could be wrong with the chain, so that every execution can be ended.
func (r *run) open() error {
	if err := r.loadCall(); err != nil {
		return err
	}
	if err := r.account.limit(r.ex.Limits); err != nil {
		return err
	}
	if err := r.e.money.load(r.hold, r.e.store); err != nil {
		return err
	}
	if r.ex.LastSeq == 0 {
		r.writer = r.e.log.Writer(r.ex.ID, r.ex.Epoch, 0, nil)
		r.writer.Append(events.Batch{Events: []events.Draft{{Payload: events.ExecutionStart{
			TotalPrompts: r.ex.TotalPrompts, ToolName: r.ex.ChainName, ChainID: r.ex.ChainID, ChainVersion: r.ex.ChainVersion,
			ParentExecutionID: r.ex.Parent, Origin: string(r.ex.Origin), FromPrompt: r.ex.FromPrompt,
		}}}})
		return nil
	}
	tails, err := r.e.store.Tails(r.hold, r.ex.ID)
	if err != nil {
		return err
	}
	states, err := r.e.store.PromptStates(r.hold, r.ex.ID)
	if err != nil {
		return err
	}
	calls, err := r.e.store.Calls(r.hold, r.ex.ID)
	if err != nil {
		return err
	}
	r.finished = 0 // this may be another try
	for _, s := range states[r.ex.ID] {
		r.states[s.Ordinal] = s
		if r.done(s) {
			r.finished++
		}
	}
	if r.unfinished, err = r.readLost(r.hold); err != nil {
		return err
	}
	r.writer = r.e.log.Writer(r.ex.ID, r.ex.Epoch, r.ex.LastSeq, tails)
	r.bookLost(calls)
	return nil
}

// done tells whether a prompt needs no more work.
func (r *run) done(s events.PromptState) bool {
	return s.Status == promptCompleted || s.Status == promptFailed
}

func (r *run) started() time.Time {
	if r.ex.StartedAt == nil {
		return r.ex.CreatedAt
	}
	return *r.ex.StartedAt
}

func (r *run) deadline() time.Time {
	return r.started().Add(cmp.Or(r.ex.Limits.Timeout, r.e.cfg.Timeout))
}

// prompts runs position after position. Its error is a *failure when the chain
// failed, anything else when the process may not go on.
func (r *run) prompts(ctx context.Context) error {
	for _, group := range r.version.Chain.Plan() {
		errs := make([]error, len(group))
		var siblings sync.WaitGroup
		for k, i := range group {
			stream := r.stream(group, i)
			siblings.Go(func() { errs[k] = r.prompt(ctx, i, stream) })
		}
		siblings.Wait() // a sibling is never left behind, whatever became of the others
		if err := r.together(ctx, errs); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return failureOf(ctx, ctx.Err())
		}
	}
	return nil
}

// together says what the ends of siblings mean for the execution. It waits for
// those that have to wait unless it ends anyway.
func (r *run) together(ctx context.Context, errs []error) error {
	var wait *later
	var failed error
	for _, err := range errs {
		if l, ok := errors.AsType[*later](err); ok {
			wait = wait.join(l)
		} else if _, ok := errors.AsType[*failure](err); err != nil && !ok {
			return err
		} else if failed == nil {
			failed = err
		}
	}
	if wait == nil {
		return failed
	}
	if failed == nil && ctx.Err() == nil {
		if err := r.wait(wait); err != nil {
			return err
		}
	}
	if err := wait.giveUp(ctx); err != nil {
		return err
	}
	return failed
}

// stream names the stream of a prompt of a group.
func (r *run) stream(group []int, i int) string {
	if len(group) > 1 {
		return "branch:" + r.version.Chain.Prompts[i].Slug
	}
	return events.MainStream
}

// prompt runs one prompt, or takes over its result. A panic in it ends the
// execution and nothing else.
func (r *run) prompt(ctx context.Context, i int, stream string) (err error) {
	r.slots <- struct{}{}
	defer func() { <-r.slots }()
	p := &r.version.Chain.Prompts[i]
	var s *step
	defer func() {
		if v := recover(); v != nil {
			f := r.panicked(ctx, v)
			f.prompt = r.version.PromptIDs[i]
			if err = f; s != nil {
				err = r.settle(p, s.fail(f))
			}
		}
	}()
	prior, seen := r.state(i)
	if seen && prior.Status == promptCompleted {
		return nil
	}
	if seen && prior.Status == promptFailed {
		return r.verdict(p, &failure{code: prior.ErrorCode, message: prior.Error, prompt: prior.PromptID})
	}
	if ctx.Err() != nil {
		return failureOf(ctx, ctx.Err())
	}
	if r.e.hasLeft() {
		return errHandedOver
	}
	s = newStep(r, i, stream, prior)
	return r.settle(p, s.attempts(ctx))
}

// settle says what the end of a prompt means for the execution.
func (r *run) settle(p *chain.Prompt, err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return r.verdict(p, f)
	}
	return err
}

// panicked reports a bug and answers the failure that it is for users.
func (r *run) panicked(ctx context.Context, value any) *failure {
	r.logger.ErrorContext(ctx, "panic in a prompt", "panic", value, "stack", string(debug.Stack()))
	return &failure{code: codeInternal, message: "An internal error ended the prompt.", err: fmt.Errorf("panic: %v", value)}
}

// verdict says what the failure of a prompt means for the execution. What ends
// the execution itself cannot be continued after.
func (r *run) verdict(p *chain.Prompt, f *failure) error {
	if p.OnError == chain.OnErrorContinue && r.work.Err() == nil && !slices.Contains([]string{codeCancelled, codeTimeout, codeLimit, codeBudget, codeUnpriced}, f.code) {
		return nil
	}
	return f
}

func (r *run) state(i int) (events.PromptState, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.states[i]
	return s, ok
}

func (r *run) setState(i int, s events.PromptState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states[i] = s
}

// known answers what earlier prompts left for later ones: outputs for variables
// and turns for the history.
func (r *run) known() (outputs map[int]string, turns map[int]chain.Turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	outputs, turns = make(map[int]string, len(r.states)), make(map[int]chain.Turn, len(r.states))
	for i, s := range r.states {
		if s.Status == promptCompleted {
			outputs[i] = s.Output
			turns[i] = chain.Turn{User: s.UserMessage, Assistant: s.Output}
		}
	}
	return outputs, turns
}

// commit appends and waits until it is stored. It does not give up when the
// execution is to end, only when the process may not go on.
func (r *run) commit(b events.Batch) (*events.Pending, error) {
	p := r.writer.Append(b)
	return p, p.Wait(r.hold)
}

// conclude appends what closes a prompt, with the progress it means. The lock
// keeps the order of the events the order of the steps.
func (r *run) conclude(i int, s events.PromptState, drafts []events.Draft, counts bool, calls ...events.CallState) *events.Pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states[i] = s
	if counts {
		r.finished++
		verb := "Finished"
		if s.Status != promptCompleted {
			verb = "Gave up"
		}
		drafts = append(drafts, r.progress(verb, s.Name))
	}
	return r.writer.Append(events.Batch{Events: drafts, Prompts: []events.PromptState{s}, Calls: calls, Outcome: events.Outcome{Progressed: true}})
}

// progress says what the newest of the finished prompts means for the whole. The
// caller holds r.mu.
func (r *run) progress(verb, name string) events.Draft {
	return events.Draft{Payload: events.Progress{
		CurrentStep: r.finished, TotalSteps: r.ex.TotalPrompts,
		Percentage: math.Round(1000*float64(r.finished)/float64(r.ex.TotalPrompts)) / 10,
		Message:    fmt.Sprintf("%s %q (%d of %d)", verb, name, r.finished, r.ex.TotalPrompts),
	}}
}

// terminate writes the terminal event and the totals.
func (r *run) terminate(failed *failure) (Status, error) {
	r.settling.Wait() // whoever sees the end sees the budgets as they are after it
	t := r.totals()
	now := r.e.cfg.Now()
	if now.Before(r.started()) {
		now = r.started()
	}
	outcome := events.Outcome{InputTokens: &t.InputTokens, OutputTokens: &t.OutputTokens, CostUSD: t.CostUSD, FinishedAt: &now, Status: string(StatusCompleted)}
	var terminal events.Payload = events.ExecutionComplete{
		TotalTokens: t.InputTokens + t.OutputTokens, Duration: now.Sub(r.started()).Milliseconds(), Success: true, CostUSD: t.CostUSD,
		ReusedTokens: t.ReusedTokens, SavedTokens: t.SavedTokens, SavedCostUSD: t.SavedCostUSD,
	}
	if failed != nil {
		outcome.Status = string(StatusFailed)
		if failed.code == codeCancelled {
			outcome.Status = string(StatusCancelled)
		}
		outcome.Error, outcome.ErrorCode, outcome.ErrorPromptID = failed.message, failed.code, failed.prompt
		terminal = events.ExecutionError{
			Error: failed.message, PromptID: failed.prompt, Recoverable: failed.recoverable, Details: failed.details, Code: failed.code,
		}
	}
	r.ending.Store(true)
	failpoint.Reach(failpoint.TerminalBefore)
	_, err := r.commit(events.Batch{Events: []events.Draft{{Payload: terminal}}, Outcome: outcome})
	failpoint.Reach(failpoint.TerminalAfter)
	return Status(outcome.Status), err
}

// totals sums over all prompts, also those that failed.
func (r *run) totals() events.Totals {
	r.mu.Lock()
	defer r.mu.Unlock()
	return events.Totalled(slices.Collect(maps.Values(r.states)))
}
