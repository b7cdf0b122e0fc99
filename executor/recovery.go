package executor

import (
	"context"
	"maps"
	"slices"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// recoveryPage is how many events are read at once.
const recoveryPage = 2000

// readLost folds the log of the prompts that were left running, by index of the prompt.
func (r *run) readLost(ctx context.Context) (map[int]*events.PromptFold, error) {
	found, after := make(map[int]*events.PromptFold), r.ex.LastSeq
	for i, s := range r.states {
		if s.Status == promptRunning {
			found[i] = nil
			after = min(after, s.FirstSeq-1)
		}
	}
	types := []events.Type{
		events.TypePromptStart, events.TypeLLMRequest, events.TypePromptDelta, events.TypeReasoningDelta, events.TypeLLMResponse, events.TypeLLMError,
		events.TypePromptRetry,
	}
	fold := events.NewFold()
	for after < r.ex.LastSeq && len(found) > 0 {
		page, err := r.e.store.EventsOfTypes(ctx, r.ex.ID, after, types, recoveryPage)
		if err != nil {
			return nil, err
		}
		for _, rec := range page {
			if err := fold.Add(rec); err != nil {
				return nil, err
			}
			after = rec.Seq
		}
		if len(page) < recoveryPage {
			break
		}
	}
	for i := range found {
		if found[i] = fold.Prompt(r.states[i].PromptID); found[i] == nil {
			found[i] = &events.PromptFold{Stream: events.MainStream}
		}
	}
	return found, nil
}

// bookLost closes the calls that an earlier claim left open: their text is kept
// and what they used is estimated, for the provider has charged for it.
func (r *run) bookLost(calls []events.CallState) {
	rows := make(map[string]events.CallState, len(calls))
	for _, row := range calls {
		rows[row.RequestID] = row
	}
	for _, i := range slices.Sorted(maps.Keys(r.unfinished)) {
		l, s := r.unfinished[i], r.states[i]
		if l.Call == nil {
			continue
		}
		s.Output = l.Text()
		id := l.Call.Provider + "/" + l.Call.Model
		info := r.e.models.Info(id)
		u := info.EstimateUsage(r.asked(s), s.Output, l.Reasoning())
		row, known := rows[l.Call.RequestID]
		if !known { // of a server that kept no ledger
			row = events.CallState{
				RequestID: l.Call.RequestID, PromptID: s.PromptID, Attempt: s.Attempt, Provider: l.Call.Provider, Model: l.Call.Model, StartedAt: l.Called,
			}
		}
		u.InputTokens = max(u.InputTokens, row.PromptTokens)
		book(&s, u)
		cost := r.price(&s, id, info, u, l.Called)
		r.states[i] = s
		now := r.e.cfg.Now()
		row.Status, row.Lost, row.FinishedAt, row.ErrorCode = events.CallFailed, true, &now, string(llm.CodeConnectionFailed)
		took := max(l.Newest.Sub(l.Called).Milliseconds(), 0)
		row.DurationMS = &took
		charge(&row, u, cost)
		rows[row.RequestID] = row
		r.writer.Append(events.Batch{Events: []events.Draft{{Stream: l.Stream, Payload: events.LLMError{
			PromptID: s.PromptID, RequestID: l.Call.RequestID, Provider: l.Call.Provider, Model: l.Call.Model, Attempt: s.Attempt,
			Error: "The server that made this call stopped.", Code: string(llm.CodeConnectionFailed),
			DurationMS: took, Retryable: true,
			InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, ReasoningTokens: u.ReasoningTokens, UsageSource: usageSource(u),
			CostUSD: cost,
		}}}, Prompts: []events.PromptState{s}, Calls: []events.CallState{row}})
	}
	for _, row := range rows {
		r.account.take(row)
	}
}

// closeUnfinished gives up the prompts that an earlier claim left running, when
// the execution ends without another attempt of them.
func (r *run) closeUnfinished(f *failure) {
	for _, i := range slices.Sorted(maps.Keys(r.unfinished)) {
		if s, _ := r.state(i); s.Status == promptRunning {
			r.giveUp(i, s, r.unfinished[i].Stream, f, false)
		}
	}
}

// giveUp closes a prompt that failed and keeps what it had.
func (r *run) giveUp(i int, s events.PromptState, stream string, f *failure, counts bool) *events.Pending {
	now := r.e.cfg.Now().UTC()
	duration := max(now.Sub(s.StartedAt).Milliseconds(), 0)
	s.Status, s.FinishedAt, s.DurationMS = promptFailed, &now, &duration
	if f.code == codeCancelled {
		s.Status = promptCancelled
	}
	s.Error, s.ErrorCode = f.message, f.code
	return r.conclude(i, s, []events.Draft{{Stream: stream, Payload: events.PromptError{
		PromptID: s.PromptID, Error: f.message, Code: f.code, Attempt: s.Attempt, Duration: duration,
	}}}, counts)
}
