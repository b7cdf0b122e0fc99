package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// lost is what the log tells of the newest attempt of a prompt whose process
// stopped in the middle of it.
type lost struct {
	stream          string
	request         *events.LLMRequest // the call that nobody closed; nil when there is none
	began, last     time.Time          // of the call, and of its newest event
	text, reasoning strings.Builder
}

// recoveryPage is how many events are read at once.
const recoveryPage = 2000

// readLost folds the log of the prompts that were left running, by ordinal.
func (r *run) readLost(ctx context.Context) (map[int]*lost, error) {
	running, after := make(map[int64]events.PromptState), r.ex.LastSeq
	found := make(map[int]*lost)
	for i, s := range r.states {
		if s.Status == promptRunning {
			running[s.PromptID], found[i] = s, &lost{stream: events.MainStream}
			after = min(after, s.FirstSeq-1)
		}
	}
	types := []events.Type{
		events.TypePromptStart, events.TypeLLMRequest, events.TypePromptDelta, events.TypeReasoningDelta, events.TypeLLMResponse, events.TypeLLMError,
	}
	for after < r.ex.LastSeq && len(running) > 0 {
		page, err := r.e.store.EventsOfTypes(ctx, r.ex.ID, after, types, recoveryPage)
		if err != nil {
			return nil, err
		}
		for _, rec := range page {
			var d struct {
				events.LLMRequest
				Text string `json:"text"`
			}
			if err := json.Unmarshal(rec.Data, &d); err != nil {
				return nil, fmt.Errorf("read event %d: %w", rec.Seq, err)
			}
			if s, ok := running[d.PromptID]; ok && s.Attempt == d.Attempt {
				found[s.Ordinal].add(rec, d.LLMRequest, d.Text)
			}
			after = rec.Seq
		}
		if len(page) < recoveryPage {
			break
		}
	}
	return found, nil
}

func (l *lost) add(rec events.Record, request events.LLMRequest, text string) {
	l.last = rec.Time
	switch rec.Type {
	case events.TypePromptDelta:
		l.text.WriteString(text)
	case events.TypeReasoningDelta:
		l.reasoning.WriteString(text)
	case events.TypeLLMRequest:
		l.request, l.began = &request, rec.Time
	case events.TypeLLMResponse, events.TypeLLMError:
		l.request = nil // what it used is booked
	default:
		l.stream = rec.Stream
	}
}

// bookLost closes the calls that an earlier claim left open: their text is kept
// and what they used is estimated, for the provider has charged for it.
func (r *run) bookLost() {
	for _, i := range slices.Sorted(maps.Keys(r.unfinished)) {
		l, s := r.unfinished[i], r.states[i]
		if l.request == nil {
			continue
		}
		s.Output = l.text.String()
		u := llm.EstimateUsage(llm.Request{Messages: []llm.Message{{Role: llm.RoleUser, Text: s.UserMessage}}}, s.Output, l.reasoning.String())
		book(&s, u)
		r.price(&s)
		r.states[i] = s
		r.writer.Append(events.Batch{Events: []events.Draft{{Stream: l.stream, Payload: events.LLMError{
			PromptID: s.PromptID, RequestID: l.request.RequestID, Provider: l.request.Provider, Model: l.request.Model, Attempt: s.Attempt,
			Error: "The server that made this call stopped.", Code: string(llm.CodeConnectionFailed),
			DurationMS: max(l.last.Sub(l.began).Milliseconds(), 0), Retryable: true,
			InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, UsageSource: usageSource(&u),
		}}}, Prompts: []events.PromptState{s}})
	}
}

// closeUnfinished gives up the prompts that an earlier claim left running, when
// the execution ends without another attempt of them.
func (r *run) closeUnfinished(f *failure) {
	for _, i := range slices.Sorted(maps.Keys(r.unfinished)) {
		if s, _ := r.state(i); s.Status == promptRunning {
			r.giveUp(i, s, r.unfinished[i].stream, f, false)
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
		PromptID: s.PromptID, Error: f.message, Code: f.code, Attempt: s.Attempt,
	}}}, counts)
}
