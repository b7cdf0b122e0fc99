package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// partBreak stands between the texts of several prompts in one answer.
const partBreak = "\n\n"

// reading is a log that is read for the answer it has: the texts of the prompts
// of the last position, in the order of the document.
type reading struct {
	execution int64
	states    func(ctx context.Context, executions ...int64) (map[int64][]events.PromptState, error)
	parts     []*part
	spoke     bool // a piece of an answer has been handed out
	usage     llm.Usage

	ended   bool
	failure *problem // why the execution ended without success
}

// part is what one prompt adds to the answer.
type part struct {
	prompt          int64
	attempt         int
	text, reasoning strand
	finish          string
	calls           []events.ToolCall
	ended           bool
	failure         *problem // the chain went on without it
	begun, thought  bool     // some of its text, of its thinking, has been handed out
}

// strand is one kind of text of a prompt while it grows. What was handed out
// stays handed out: a new attempt is followed on only where it says the same
// again.
type strand struct {
	text   strings.Builder // of the newest attempt
	sent   int             // bytes of it that were handed out, unless behind
	shown  string          // what was handed out, while behind
	behind bool            // the newest attempt has not said yet what was handed out
}

// restart begins a new attempt.
func (s *strand) restart() {
	if s.sent > 0 && !s.behind {
		s.shown, s.behind = s.text.String()[:s.sent], true
	}
	s.text.Reset()
}

// settle sets the whole text, where the deltas are not the whole of it.
func (s *strand) settle(text string) {
	if s.text.String() != text {
		s.restart()
		s.text.WriteString(text)
	}
}

// next answers what has not been handed out yet; ok is false when the newest
// attempt says something else than what was.
func (s *strand) next() (piece string, ok bool) {
	text := s.text.String()
	if s.behind {
		if len(text) < len(s.shown) {
			return "", strings.HasPrefix(s.shown, text)
		}
		if !strings.HasPrefix(text, s.shown) {
			return "", false
		}
		s.behind, s.shown = false, ""
	}
	piece, s.sent = text[s.sent:], len(text)
	return piece, true
}

// newReading answers a reading of an execution of a version.
func newReading(execution int64, v *chain.Version, store ExecutionStore) *reading {
	r := &reading{execution: execution, states: store.PromptStates}
	plan := v.Chain.Plan()
	for _, i := range plan[len(plan)-1] {
		r.parts = append(r.parts, &part{prompt: v.PromptIDs[i]})
	}
	return r
}

// logged is the union of what a reading needs of events.
type logged struct {
	PromptID        int64             `json:"promptId"`
	Attempt         int               `json:"attempt"`
	Text            string            `json:"text"`
	Output          string            `json:"output"`
	Truncated       bool              `json:"truncated"`
	FinishReason    string            `json:"finishReason"`
	ToolCalls       []events.ToolCall `json:"toolCalls"`
	Error           string            `json:"error"`
	Code            string            `json:"code"`
	InputTokens     int64             `json:"inputTokens"`
	OutputTokens    int64             `json:"outputTokens"`
	CachedTokens    int64             `json:"cachedTokens"`
	ReasoningTokens int64             `json:"reasoningTokens"`
}

// add reads the next event.
func (r *reading) add(ctx context.Context, f events.Frame) error {
	var d logged
	switch f.Type {
	case events.TypePromptStart, events.TypePromptDelta, events.TypeReasoningDelta, events.TypePromptRetry, events.TypePromptComplete,
		events.TypePromptError, events.TypeLLMResponse, events.TypeLLMError, events.TypeExecutionComplete, events.TypeExecutionError:
		if err := json.Unmarshal(f.Data(), &d); err != nil {
			return fmt.Errorf("read event %d of execution %d: %w", f.Seq, r.execution, err)
		}
	default:
		return nil
	}
	switch f.Type { //nolint:exhaustive // no other type comes here
	case events.TypeLLMResponse, events.TypeLLMError:
		r.usage.InputTokens += d.InputTokens
		r.usage.OutputTokens += d.OutputTokens
		r.usage.CachedTokens += d.CachedTokens
		r.usage.ReasoningTokens += d.ReasoningTokens
		return nil
	case events.TypeExecutionComplete:
		r.ended = true
		return nil
	case events.TypeExecutionError:
		r.ended, r.failure = true, failureProblem(d.Code, d.Error)
		return nil
	}
	for _, p := range r.parts {
		if p.prompt == d.PromptID {
			return r.addTo(ctx, p, f.Type, d)
		}
	}
	return nil
}

func (r *reading) addTo(ctx context.Context, p *part, t events.Type, d logged) error {
	switch t { //nolint:exhaustive // add lets no other type through
	case events.TypePromptStart, events.TypePromptRetry:
		if d.Attempt > p.attempt {
			p.attempt = d.Attempt
			p.text.restart()
			p.reasoning.restart()
		}
	case events.TypePromptDelta:
		if d.Attempt >= p.attempt {
			p.text.text.WriteString(d.Text)
		}
	case events.TypeReasoningDelta:
		if d.Attempt >= p.attempt {
			p.reasoning.text.WriteString(d.Text)
		}
	case events.TypePromptComplete:
		p.ended, p.finish, p.calls = true, d.FinishReason, d.ToolCalls
		if !d.Truncated {
			p.text.settle(d.Output)
			return nil
		}
		if len(p.text.text.String()) > len(d.Output) {
			return nil // the deltas are all there
		}
		states, err := r.states(ctx, r.execution)
		if err != nil {
			return err
		}
		for _, s := range states[r.execution] {
			if s.PromptID == p.prompt {
				p.text.settle(s.Output)
			}
		}
	case events.TypePromptError:
		p.ended, p.failure = true, failureProblem(d.Code, d.Error)
		if !p.begun && !p.thought { // else the pieces that were handed out are of no whole
			p.text.restart()
			p.reasoning.restart()
		}
	}
	return nil
}

// errRestarted says that an answer cannot be completed: a part of it was handed
// out and is void.
var errRestarted = &problem{
	kind:   kind{code: "answer_restarted", status: 502, title: "The answer was begun anew"},
	detail: "The model's answer broke off after a part of it had been sent, and the next attempt says something else. What was sent is void.", final: true,
}

// next answers what can be handed out now. A later prompt waits until those
// before it have ended.
func (r *reading) next() (text, reasoning string, err error) {
	for _, p := range r.parts {
		more, ok := p.reasoning.next()
		piece, same := p.text.next()
		if !ok || !same || p.ended && p.failure == nil && (p.text.behind || p.reasoning.behind) {
			return text, reasoning, errRestarted
		}
		if p.failure != nil && (p.begun || p.thought) {
			return text, reasoning, p.failure
		}
		reasoning += more
		if piece != "" {
			if r.spoke && !p.begun {
				text += partBreak
			}
			text += piece
			r.spoke, p.begun = true, true
		}
		p.thought = p.thought || more != ""
		if !p.ended {
			break
		}
	}
	return text, reasoning, nil
}

// outcome answers what the end of the execution means for the answer.
func (r *reading) outcome() *problem {
	if r.failure != nil {
		return r.failure
	}
	for _, p := range r.parts {
		if p.failure == nil {
			return nil
		}
	}
	return r.parts[0].failure
}

// whole answers the text and the thinking of the complete answer.
func (r *reading) whole() (text, reasoning string) {
	var texts []string
	for _, p := range r.parts {
		if p.failure != nil {
			continue
		}
		if t := p.text.text.String(); t != "" {
			texts = append(texts, t)
		}
		reasoning += p.reasoning.text.String()
	}
	return strings.Join(texts, partBreak), reasoning
}

// toolCalls answers what the model wants to have called.
func (r *reading) toolCalls() (list []toolCallAnswer) {
	for _, p := range r.parts {
		for _, c := range p.calls {
			t := toolCallAnswer{ID: c.ID, Type: "function"}
			t.Function.Name, t.Function.Arguments = c.Name, c.Arguments
			if c.Signature != "" {
				t.Extra = new(extraContent)
				t.Extra.Google.Signature = c.Signature
			}
			list = append(list, t)
		}
	}
	return list
}

// finishReason answers why the answer ended, in OpenAI's words: what cut a part of
// it short goes before what did not.
func (r *reading) finishReason() string {
	for _, reason := range []string{llm.FinishToolCalls, llm.FinishContentFilter, llm.FinishLength} {
		for _, p := range r.parts {
			if p.finish == reason {
				return reason
			}
		}
	}
	return llm.FinishStop
}
