package events

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// The states of a prompt, as they are stored.
const (
	PromptRunning   = "running"
	PromptCompleted = "completed"
	PromptFailed    = "failed"
	PromptCancelled = "cancelled"
)

// codeCancelled is the code of what was stopped by a user.
const codeCancelled = "cancelled"

// Fold says how an execution stood after the events that were added to it, in
// order. It may begin anywhere in the log: then it knows what the events since
// tell. It is the one place that turns events back into state; the projections
// that are stored with the log agree with it.
type Fold struct {
	prompts map[int64]*PromptFold
	order   []*PromptFold

	last     int64
	terminal Type
	outcome  Outcome
}

// PromptFold is how one prompt stood.
type PromptFold struct {
	PromptState               // without UserMessage and Ordinal, which no event carries
	Stream      string        // of its newest attempt
	Call        *LLMRequest   // the call that no event has closed; nil when there is none
	Called      time.Time     // when that call began
	Newest      time.Time     // of the events of the attempt
	Announced   bool          // a prompt-retry has announced the next attempt, which has not begun
	Delay       time.Duration // from that event to that attempt
	NextModel   string        // that it calls; "" = not decided
	NextTry     int           // of that model
	CallCode    string        // of the newest call that failed
	CallError   string        // and its message

	text, reasoning strings.Builder // of the newest attempt
}

// Text answers the deltas of the newest attempt.
func (p *PromptFold) Text() string { return p.text.String() }

// Reasoning answers the reasoning of the newest attempt.
func (p *PromptFold) Reasoning() string { return p.reasoning.String() }

// NewFold answers the state before any event.
func NewFold() *Fold { return &Fold{prompts: make(map[int64]*PromptFold)} }

// LastSeq answers the seq of the newest event that was added; 0 before the first.
func (f *Fold) LastSeq() int64 { return f.last }

// Terminal answers the type of the event that ended the execution; "" before it.
func (f *Fold) Terminal() Type { return f.terminal }

// Outcome answers what the terminal event says, with the sums over the prompts;
// the zero value before it.
func (f *Fold) Outcome() Outcome { return f.outcome }

// Prompt answers how a prompt stood, nil when no event told of it.
func (f *Fold) Prompt(id int64) *PromptFold { return f.prompts[id] }

// Prompts answers the prompts in the order in which they began. The text of one
// that has not ended is what its newest attempt had said so far.
func (f *Fold) Prompts() []PromptState {
	out := make([]PromptState, len(f.order))
	for i, p := range f.order {
		out[i] = p.PromptState
		if p.Status != PromptCompleted {
			out[i].Output = p.Text()
		}
	}
	return out
}

// folded is the union of what the fold reads of events.
type folded struct {
	PromptID         int64       `json:"promptId"`
	PromptName       string      `json:"promptName"`
	Position         int         `json:"position"`
	ModelID          string      `json:"modelId"`
	Attempt          int         `json:"attempt"`
	Text             string      `json:"text"`
	RequestID        string      `json:"requestId"`
	Provider         string      `json:"provider"`
	Model            string      `json:"model"`
	InputTokens      int64       `json:"inputTokens"`
	OutputTokens     int64       `json:"outputTokens"`
	CachedTokens     int64       `json:"cachedTokens"`
	CacheWriteTokens int64       `json:"cacheWriteTokens"`
	ReasoningTokens  int64       `json:"reasoningTokens"`
	UsageSource      string      `json:"usageSource"`
	CostUSD          *string     `json:"costUsd"`
	FinishReason     string      `json:"finishReason"`
	Duration         int64       `json:"duration"`
	Delay            int64       `json:"delay"`
	Try              int         `json:"try"`
	Cached           bool        `json:"cached"`
	Output           string      `json:"output"`
	Truncated        bool        `json:"truncated"`
	Error            string      `json:"error"`
	Code             string      `json:"code"`
	ReusedFrom       *ReusedFrom `json:"reusedFrom"`
	ToolCalls        []ToolCall  `json:"toolCalls"`

	SourceExecutionID int64   `json:"sourceExecutionId"`
	SavedInputTokens  int64   `json:"savedInputTokens"`
	SavedOutputTokens int64   `json:"savedOutputTokens"`
	SavedCostUSD      *string `json:"savedCostUsd"`
}

// Add folds the next event.
func (f *Fold) Add(rec Record) error {
	var d folded
	switch rec.Type {
	case TypeProgress, TypeVariableSubstitution, TypeKnowledgeRetrievalStart, TypeKnowledgeRetrieved, TypeToolExecutionStart,
		TypeToolExecutionComplete, TypeApprovalRequested, TypeApprovalResolved, TypeExecutionStart:
		// They change nothing that is shown of a prompt or of the outcome.
		f.last = rec.Seq
		return nil
	case TypePromptStart, TypePromptDelta, TypeReasoningDelta, TypePromptRetry, TypePromptComplete, TypePromptError,
		TypeLLMRequest, TypeLLMResponse, TypeLLMError, TypeCacheHit, TypeCacheMiss, TypeExecutionComplete, TypeExecutionError:
	}
	if err := json.Unmarshal(rec.Data, &d); err != nil {
		return fmt.Errorf("read event %d: %w", rec.Seq, err)
	}
	f.last = rec.Seq
	if rec.Type.Terminal() {
		f.end(rec, d)
		return nil
	}
	p := f.prompts[d.PromptID]
	if p == nil {
		p = &PromptFold{Stream: rec.Stream, PromptState: PromptState{
			PromptID: d.PromptID, Status: PromptRunning, StartedAt: rec.Time, CostUSD: Nothing(),
		}}
		f.prompts[d.PromptID] = p
		f.order = append(f.order, p)
	}
	p.add(rec, d)
	return nil
}

func (p *PromptFold) add(rec Record, d folded) {
	switch rec.Type { //nolint:exhaustive // Add lets no other type through
	case TypePromptStart:
		p.void()
		p.Name, p.Position, p.ModelID, p.Attempt, p.Status = d.PromptName, d.Position, d.ModelID, d.Attempt, PromptRunning
		p.Stream, p.FirstSeq, p.Reused = rec.Stream, rec.Seq, d.ReusedFrom.state()
		p.Announced, p.Cache, p.Saved = false, "", nil
	case TypePromptRetry:
		p.void()
		p.Announced, p.Delay = true, time.Duration(d.Delay)*time.Millisecond
		p.NextModel, p.NextTry = d.ModelID, d.Try
	case TypePromptDelta, TypeReasoningDelta:
		if d.Attempt < p.Attempt {
			return
		}
		if rec.Type == TypePromptDelta {
			p.text.WriteString(d.Text)
		} else {
			p.reasoning.WriteString(d.Text)
		}
	case TypeLLMRequest:
		p.Called = rec.Time
		p.Call = &LLMRequest{PromptID: d.PromptID, RequestID: d.RequestID, Provider: d.Provider, Model: d.Model, Attempt: d.Attempt}
	case TypeLLMResponse, TypeLLMError:
		p.Call, p.FinishReason, p.ToolCalls = nil, d.FinishReason, d.ToolCalls
		p.InputTokens += d.InputTokens
		p.OutputTokens += d.OutputTokens
		p.CachedTokens += d.CachedTokens
		p.CacheWriteTokens += d.CacheWriteTokens
		p.ReasoningTokens += d.ReasoningTokens
		p.UsageEstimated = p.UsageEstimated || d.UsageSource == UsageEstimated
		p.CostUSD = AddCost(p.CostUSD, d.CostUSD)
		if rec.Type == TypeLLMError {
			p.CallCode, p.CallError = d.Code, d.Error
		}
	case TypeCacheMiss:
		p.Cache, p.Saved = CacheToldMiss, nil
	case TypeCacheHit:
		p.Cache = CacheToldHit
		p.Saved = &Reused{ExecutionID: d.SourceExecutionID, InputTokens: d.SavedInputTokens, OutputTokens: d.SavedOutputTokens, CostUSD: d.SavedCostUSD}
	case TypePromptComplete:
		p.close(PromptCompleted, rec.Time, d.Duration)
		p.InputTokens, p.OutputTokens, p.CostUSD, p.Cached = d.InputTokens, d.OutputTokens, d.CostUSD, d.Cached
		p.ModelID, p.FinishReason, p.ToolCalls = d.ModelID, d.FinishReason, d.ToolCalls
		if p.Output = d.Output; d.Truncated && p.text.Len() > len(d.Output) {
			p.Output = p.Text()
		}
	case TypePromptError:
		p.close(PromptFailed, rec.Time, d.Duration)
		if d.Code == codeCancelled {
			p.Status = PromptCancelled
		}
		p.Error, p.ErrorCode = d.Error, d.Code
	}
	p.Newest = rec.Time
}

// void forgets what an attempt said; what it cost stays.
func (p *PromptFold) void() {
	p.text.Reset()
	p.reasoning.Reset()
	p.Output, p.FinishReason, p.Call, p.ToolCalls = "", "", nil, nil
}

func (p *PromptFold) close(status string, at time.Time, duration int64) {
	p.Status, p.FinishedAt, p.DurationMS, p.Call = status, &at, &duration, nil
}

func (r *ReusedFrom) state() *Reused {
	if r == nil {
		return nil
	}
	reused := Reused(*r)
	return &reused
}

func (f *Fold) end(rec Record, d folded) {
	f.terminal = rec.Type
	t := Totalled(f.Prompts())
	f.outcome = Outcome{
		Status: PromptCompleted, Error: d.Error, ErrorCode: d.Code, ErrorPromptID: d.PromptID,
		InputTokens: &t.InputTokens, OutputTokens: &t.OutputTokens, CostUSD: t.CostUSD, FinishedAt: &rec.Time,
	}
	if rec.Type == TypeExecutionError {
		f.outcome.Status = PromptFailed
		if d.Code == codeCancelled {
			f.outcome.Status = PromptCancelled
		}
	}
}

// Nothing answers the cost of what has not called any model yet.
func Nothing() *string {
	zero := "0"
	return &zero
}

// AddCost adds the cost of a call to that of its prompt. Either is nil when it
// is unknown, and then the sum is.
func AddCost(sum, call *string) *string {
	if call == nil || sum == nil {
		return nil
	}
	total := addDecimals(*sum, *call)
	return &total
}

// addDecimals adds exactly; what is not a number counts as nothing.
func addDecimals(a, b string) string {
	x, errX := decimal.NewFromString(a)
	y, errY := decimal.NewFromString(b)
	if errX != nil || errY != nil {
		return a
	}
	return x.Add(y).String()
}

// Totals are sums over the prompts of an execution.
type Totals struct {
	InputTokens, OutputTokens      int64   // paid by this execution
	CachedTokens, CacheWriteTokens int64   // parts of InputTokens
	ReasoningTokens                int64   // part of OutputTokens
	Estimated                      bool    // the provider did not give some of the figures
	CostUSD                        *string // decimal; nil when that of one prompt is unknown
	ReusedTokens                   int64   // input and output of prompts that were taken over, paid by others
	SavedTokens                    int64   // of answers from the response cache
	SavedCostUSD                   *string // what both had cost; nil when there are none or a cost is unknown
}

// Totalled sums over prompts, also those that failed.
func Totalled(prompts []PromptState) Totals {
	t := Totals{CostUSD: Nothing()}
	others := false
	for _, s := range prompts {
		t.InputTokens += s.InputTokens
		t.OutputTokens += s.OutputTokens
		t.CachedTokens += s.CachedTokens
		t.CacheWriteTokens += s.CacheWriteTokens
		t.ReasoningTokens += s.ReasoningTokens
		t.Estimated = t.Estimated || s.UsageEstimated
		t.CostUSD = AddCost(t.CostUSD, s.CostUSD)
		from := s.Reused
		switch {
		case from != nil:
			t.ReusedTokens += from.InputTokens + from.OutputTokens
		case s.Saved != nil:
			from = s.Saved
			t.SavedTokens += from.InputTokens + from.OutputTokens
		default:
			continue
		}
		if !others {
			others, t.SavedCostUSD = true, Nothing()
		}
		t.SavedCostUSD = AddCost(t.SavedCostUSD, from.CostUSD)
	}
	return t
}
