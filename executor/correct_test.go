package executor_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// played is a provider that plays answers chunk by chunk, in turn; the last one
// stays. It keeps what it was asked.
type played struct {
	mu      sync.Mutex
	answers []answer
	asked   []llm.Request
}

// answer is what a model says, and how it ends.
type answer struct {
	text   string
	finish string // "" = stop
	calls  []llm.ToolCall
	err    error
}

func (p *played) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		p.mu.Lock()
		a := p.answers[min(len(p.asked), len(p.answers)-1)]
		p.asked = append(p.asked, req)
		p.mu.Unlock()
		finish := a.finish
		if finish == "" {
			finish = llm.FinishStop
		}
		switch {
		case !yield(llm.Chunk{Text: a.text, ToolCalls: a.calls}, nil):
		case a.err != nil:
			yield(llm.Chunk{}, a.err)
		default:
			yield(llm.Chunk{FinishReason: finish, Usage: &llm.Usage{InputTokens: 10, OutputTokens: 5}}, nil)
		}
	}
}

func (p *played) requests() []llm.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]llm.Request(nil), p.asked...)
}

func plays(answers ...answer) *played { return &played{answers: answers} }

const titled = `{schema: {type: object, properties: {title: {type: string}}, required: [title]}}`

func reasons(log []event) (out []string) {
	for _, r := range find(log, events.TypePromptRetry) {
		out = append(out, fmt.Sprint(r.Data["reason"]))
	}
	return out
}

// A model that answers something else than it was asked for is told so once,
// whatever the attempts, and then its fallback has its turn.
func TestCorrectiveRound(t *testing.T) {
	t.Parallel()
	const mended, wrong = "```json\n{\"title\": \"Rivers\"}\n```", `{"title": 7}`
	const complaint = "The answer did not follow output.schema: title: got number, want string."
	tests := map[string]struct {
		main, spare []answer
		attempts    int
		code        string // "" = completes
		calls       [2]int
		reasons     []string
	}{
		"mended": {
			main: []answer{{text: wrong}, {text: mended}}, attempts: 1, calls: [2]int{2, 0}, reasons: []string{complaint},
		},
		"still wrong": {
			main: []answer{{text: wrong}}, attempts: 3, code: "", calls: [2]int{2, 1}, spare: []answer{{text: mended}},
			reasons: []string{complaint, "The model's answer does not follow output.schema. Falling back to spare/m."},
		},
		"wrong everywhere": {
			main: []answer{{text: wrong}}, attempts: 3, code: "output_invalid", calls: [2]int{2, 2}, spare: []answer{{text: "no JSON"}},
			reasons: []string{
				complaint, "The model's answer does not follow output.schema. Falling back to spare/m.",
				"The answer did not follow output.schema: it is not JSON.",
			},
		},
		"the round fails": {
			main: []answer{{text: wrong}, {err: llm.NewError(llm.CodeUnavailable, nil)}, {text: mended}}, attempts: 2, calls: [2]int{3, 0},
			reasons: []string{complaint, "The model provider failed to answer."},
		},
		"cut off": {
			main: []answer{{text: `{"title": "Riv`, finish: llm.FinishLength}}, attempts: 3, code: "output_truncated", calls: [2]int{1, 1},
			spare:   []answer{{text: `{"title": "Riv`, finish: llm.FinishLength}},
			reasons: []string{"The model's answer was cut off by its token limit before the JSON was complete; a larger maxTokens may help. Falling back to spare/m."},
		},
		"cut off behind the value": {
			main: []answer{{text: mended, finish: llm.FinishLength}}, attempts: 3, calls: [2]int{1, 0},
		},
		"held back": {
			main: []answer{{text: `{"title": "R`, finish: llm.FinishContentFilter}}, attempts: 3, code: "", calls: [2]int{1, 1},
			spare:   []answer{{text: mended}},
			reasons: []string{"The model provider's content filter refused the prompt. Falling back to spare/m."},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			main, spare, use := plays(tt.main...), plays(tt.spare...), plays(answer{text: "used"})
			h := newHarness(t, map[string]llm.Entry{"main": {Provider: main}, "spare": {Provider: spare}, "use": {Provider: use}}, executor.Config{Retry: quick})
			ex := h.trigger(h.chain(fmt.Sprintf(`
name: structured
prompts:
  - {name: Plan, position: 1, model: main/m, fallback: [spare/m], retry: {attempts: %d}, content: "Plan it", output: %s}
  - {name: Use, position: 2, model: use/m, content: "About ${plan.title}"}
`, tt.attempts, titled)), nil)
			log := h.follow(ex.ID)
			got := h.checkLog(ex.ID, log)
			if got.ErrorCode != tt.code {
				t.Errorf("it ended with %q: %s", got.ErrorCode, got.Error)
			}
			if diff := cmp.Diff(tt.calls, [2]int{len(main.requests()), len(spare.requests())}); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.reasons, reasons(log)); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			if opened, closed := len(find(log, events.TypeLLMRequest)), len(find(log, events.TypeLLMResponse, events.TypeLLMError)); opened != closed {
				t.Errorf("%d calls, %d ends", opened, closed)
			}
			if tt.code != "" {
				return
			}
			// What is stored is what the model said; what later prompts see is the value.
			if state := h.states(ex.ID)["Plan"]; state.Output != mended {
				t.Errorf("output %q", state.Output)
			}
			if asked := use.requests(); len(asked) != 1 || asked[0].Messages[0].Text != "About Rivers" {
				t.Errorf("asked %v", asked)
			}
		})
	}
}

// The corrective round shows the model its answer and what is wrong with it.
func TestCorrectiveRoundIsAsked(t *testing.T) {
	t.Parallel()
	for _, native := range []bool{true, false} {
		t.Run(fmt.Sprintf("native=%t", native), func(t *testing.T) {
			t.Parallel()
			main := plays(answer{text: `{"title": 7}`}, answer{text: `{"title": "Rivers"}`})
			entry := llm.Entry{Provider: main, Info: map[string]llm.Info{"m": {Schema: native}}}
			h := newHarness(t, map[string]llm.Entry{"main": entry}, executor.Config{Retry: quick})
			ex := h.trigger(h.chain("name: structured\nprompts:\n  - {name: Plan, model: main/m, system: Be brief., content: Plan it, output: "+titled+"}\n"), nil)
			if got := h.checkLog(ex.ID, h.follow(ex.ID)); got.Status != executor.StatusCompleted {
				t.Fatalf("%s: %s", got.ErrorCode, got.Error)
			}
			asked := main.requests()
			first, second := asked[0].Messages, asked[1].Messages
			if len(first) != 2 || len(second) != 4 {
				t.Fatalf("%d and %d messages", len(first), len(second))
			}
			if diff := cmp.Diff(first, second[:2]); diff != "" {
				t.Errorf("the prompt has changed: %s", diff)
			}
			want := []llm.Message{
				{Role: llm.RoleAssistant, Text: `{"title": 7}`},
				{Role: llm.RoleUser, Text: "That answer does not follow the JSON Schema: title: got number, want string. " +
					"Answer again, completely, with the corrected JSON value and nothing else."},
			}
			if diff := cmp.Diff(want, second[2:]); diff != "" {
				t.Error(diff)
			}
			// Where the provider is not known to hold the model to the schema, the model is told.
			if told := strings.Contains(first[0].Text, `"required"`); told == native || !strings.HasPrefix(first[0].Text, "Be brief.") {
				t.Errorf("the system message is %q", first[0].Text)
			}
			if len(asked[0].Schema) == 0 {
				t.Error("the provider has not got the schema")
			}
		})
	}
}

// A model that asks for a tool and was given none has not answered.
func TestUnexpectedToolCall(t *testing.T) {
	t.Parallel()
	call := answer{finish: llm.FinishToolCalls, calls: []llm.ToolCall{{ID: "1", Name: "search", Arguments: "{}"}}}
	for name, tt := range map[string]struct {
		answers []answer
		code    string
		calls   int
	}{
		"once":          {[]answer{call, {text: "fine"}}, "", 2},
		"again":         {[]answer{call}, "unexpected_tool_call", 2},
		"only the word": {[]answer{{finish: llm.FinishToolCalls}}, "unexpected_tool_call", 2},
		"beside text":   {[]answer{{text: "fine", finish: llm.FinishToolCalls}}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			main := plays(tt.answers...)
			h := newHarness(t, map[string]llm.Entry{"main": {Provider: main}}, executor.Config{Retry: quick})
			ex := h.trigger(h.chain("name: tools\nprompts:\n  - {name: P, model: main/m, retry: {attempts: 5}, content: x}\n"), nil)
			if got := h.checkLog(ex.ID, h.follow(ex.ID)); got.ErrorCode != tt.code || len(main.requests()) != tt.calls {
				t.Errorf("%q after %d calls: %s", got.ErrorCode, len(main.requests()), got.Error)
			}
		})
	}
}
