package executor

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/llm"
)

// call is one call of a model.
type call struct {
	step    *step
	target  llm.Target
	request llm.Request
	id      string
	began   time.Time
	claim   *claim // nil when the response cache has nothing to do with it

	promptTokens int64     // counted before the call
	held         hold      // reserved for it
	called       time.Time // of its llm-request, which price counts

	text, reasoning delta
	toolCalls       []events.ToolCall
	usage           *llm.Usage // as the provider said, nil before
	finish          string
	responseID      string
	firstToken      time.Duration // 0 = none came
	repaired        bool          // some of the text had to be
	closed          bool          // its llm-response or llm-error is handed in
}

// chunk is a pair of the model's sequence.
type chunk struct {
	llm.Chunk
	err error
}

// make calls the model, writes its text as it comes, and closes the prompt when
// the answer is complete and valid. What remains unwritten at the end travels
// with the closing events. done is told how the call itself ended.
func (c *call) make(ctx context.Context, done func(error)) (failed error) {
	defer func() {
		if v := recover(); v != nil {
			failed = c.broken(ctx, v)
		}
	}()
	failpoint.Reach(failpoint.ModelBefore)
	ctx, stop := context.WithCancelCause(ctx)
	chunks := make(chan chunk, 16)
	defer func() {
		stop(nil)
		for range chunks { // what nobody reads any more must not keep the provider waiting
		}
	}()
	go func() {
		defer close(chunks)
		defer func() {
			if v := recover(); v != nil {
				chunks <- chunk{err: c.step.run.panicked(ctx, v)}
			}
		}()
		for got, err := range llm.Guard(c.target.Provider, c.step.run.e.cfg.Deadlines).Stream(ctx, c.request) {
			chunks <- chunk{got, err}
		}
	}()
	err := c.relay(chunks, stop)
	failpoint.Reach(failpoint.ModelAfter)
	if ctx.Err() != nil {
		done(llm.ContextError(ctx))
	} else {
		done(err)
	}
	c.step.state.Output = c.text.all.String()
	if err == nil {
		return c.succeeded()
	}
	if c.step.run.hold.Err() == nil && !errors.Is(err, events.ErrFenced) && !errors.Is(err, events.ErrClosed) {
		c.failed(ctx, err)
	}
	return err
}

// broken closes a call that a bug of ours ended, so that what is reserved for it is
// given back.
func (c *call) broken(ctx context.Context, value any) error {
	f := c.step.run.panicked(ctx, value)
	if !c.closed && c.step.run.hold.Err() == nil {
		c.target.Info.Count = nil // it may be what is broken
		c.failed(ctx, f)
	}
	return f
}

// relay reads the whole answer and writes deltas: at most one append is under
// way, the next one waits for it and for its time, so that under load the
// pieces grow instead of their number.
func (c *call) relay(chunks <-chan chunk, stop context.CancelCauseFunc) (failed error) {
	cfg := &c.step.run.e.cfg
	c.text.kind, c.reasoning.kind = events.TypePromptDelta, events.TypeReasoningDelta
	var pending *events.Pending
	var lastWrite time.Time
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var stored <-chan struct{}
		var due <-chan time.Time
		if pending != nil {
			stored = pending.Done()
		} else if waiting := c.text.waiting() + c.reasoning.waiting(); waiting > 0 && failed == nil {
			wait := cfg.DeltaInterval - cfg.Now().Sub(lastWrite)
			if waiting >= cfg.DeltaBytes || wait <= 0 {
				pending = c.step.run.writer.Append(events.Batch{Events: c.deltas()})
				lastWrite = cfg.Now()
				continue
			}
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case got, open := <-chunks:
			switch {
			case !open:
				return failed
			case got.err != nil && failed == nil:
				failed = got.err
			case got.err == nil:
				c.take(got.Chunk)
			}
		case <-stored:
			if err := pending.Wait(context.Background()); err != nil && failed == nil {
				failed = err
				stop(err)
			}
			pending = nil
			if c.step.run.writer.Seq() > cfg.MaxEvents {
				c.step.run.cancel(eventLimit(cfg.MaxEvents))
			}
		case <-due:
		}
	}
}

func (c *call) take(got llm.Chunk) {
	if c.firstToken == 0 && (got.Text != "" || got.Reasoning != "") {
		c.firstToken = max(c.step.run.e.cfg.Now().Sub(c.began), 1)
	}
	c.repaired = c.repaired || got.Repaired
	c.text.add(got.Text, got.Repaired)
	c.reasoning.add(got.Reasoning, got.Repaired)
	for _, t := range got.ToolCalls {
		c.toolCalls = append(c.toolCalls, events.ToolCall(t))
	}
	if got.Usage != nil {
		c.usage = got.Usage
	}
	if got.ResponseID != "" {
		c.responseID = cutBytes(got.ResponseID, maxResponseID)
	}
	if got.FinishReason != "" {
		c.finish = got.FinishReason
	}
}

// deltas answers what has not been written yet.
func (c *call) deltas() []events.Draft {
	return append(c.reasoning.drafts(c.step), c.text.drafts(c.step)...)
}

// maxResponseID bounds the provider's name of an answer, in bytes.
const maxResponseID = 200

func (c *call) milliseconds() int64 {
	return max(c.step.run.e.cfg.Now().Sub(c.began).Milliseconds(), 0)
}

func (c *call) succeeded() error {
	s := c.step
	s.state.FinishReason, s.state.ToolCalls = c.finish, c.toolCalls
	u := c.used(nil)
	c.closed = true
	cost, row := c.book(events.CallSucceeded, u)
	row.FinishReason = c.finish
	drafts := append(c.deltas(), s.draft(events.LLMResponse{
		PromptID: s.state.PromptID, RequestID: c.id, Provider: c.target.Vendor, Model: c.target.Model, Attempt: s.state.Attempt,
		InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, CachedTokens: u.CachedTokens, CacheWriteTokens: u.CacheWriteTokens,
		ReasoningTokens: u.ReasoningTokens,
		DurationMS:      c.milliseconds(), TimeToFirstTokenMS: c.firstToken.Milliseconds(), FinishReason: c.finish, UsageSource: usageSource(u),
		ResponseID: c.responseID, CostUSD: cost, ToolCalls: c.toolCalls,
	}))
	if err := c.checked(); err != nil {
		c.settle(s.run.writer.Append(events.Batch{Events: drafts, Prompts: []events.PromptState{s.state}, Calls: []events.CallState{row}}))
		return err
	}
	pending := s.succeed(drafts, row)
	c.settle(pending)
	c.remember(pending, u, cost)
	return nil
}

// failed writes how the call failed, with what it had used until then.
func (c *call) failed(ctx context.Context, err error) {
	s := c.step
	f := failureOf(ctx, err)
	var e *llm.Error
	retryable := errors.As(err, &e) && e.Retryable && ctx.Err() == nil
	status := events.CallFailed
	if f.code == codeCancelled {
		status = events.CallCancelled
	}
	u := c.used(err)
	c.closed = true
	cost, row := c.book(status, u)
	fault(&row, f, err)
	drafts := append(c.deltas(), s.draft(events.LLMError{
		PromptID: s.state.PromptID, RequestID: c.id, Provider: c.target.Vendor, Model: c.target.Model, Attempt: s.state.Attempt,
		Error: f.message, Code: f.code, DurationMS: c.milliseconds(), Retryable: retryable,
		InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, CachedTokens: u.CachedTokens, CacheWriteTokens: u.CacheWriteTokens,
		ReasoningTokens: u.ReasoningTokens, UsageSource: usageSource(u), ResponseID: c.responseID, CostUSD: cost, Details: f.details,
	}))
	c.settle(s.run.writer.Append(events.Batch{Events: drafts, Prompts: []events.PromptState{s.state}, Calls: []events.CallState{row}}))
}

// delta collects one kind of text of an attempt.
type delta struct {
	kind     events.Type
	all      strings.Builder
	written  int // bytes of all that have become events
	repaired bool
	offset   int64 // characters written
}

// waiting answers how many bytes have not become events yet.
func (d *delta) waiting() int { return d.all.Len() - d.written }

// maxDeltaBytes bounds the text of one event.
const maxDeltaBytes = 16 << 10

func (d *delta) add(text string, repaired bool) {
	if text == "" {
		return
	}
	d.all.WriteString(text)
	d.repaired = d.repaired || repaired
}

// drafts turns what is unwritten into events.
func (d *delta) drafts(s *step) []events.Draft {
	var out []events.Draft
	for d.waiting() > 0 {
		piece := cutBytes(d.all.String()[d.written:], maxDeltaBytes)
		payload := events.PromptDelta{PromptID: s.state.PromptID, Attempt: s.state.Attempt, Text: piece, Offset: d.offset}
		draft := s.draft(payload)
		if d.kind == events.TypeReasoningDelta {
			draft = s.draft(events.ReasoningDelta(payload))
		}
		draft.Repaired = d.repaired
		out = append(out, draft)
		d.offset += int64(utf8.RuneCountInString(piece))
		d.written += len(piece)
	}
	d.repaired = false
	return out
}
