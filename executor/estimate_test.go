package executor_test

import (
	"context"
	"iter"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// guessing is a provider that gives estimates instead of figures, as it has to
// without the tokenizer of the model.
type guessing struct{ fail bool }

func (g guessing) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		if !yield(llm.Chunk{Reasoning: "well well", Text: "one two three"}, nil) {
			return
		}
		if g.fail {
			yield(llm.Chunk{}, llm.NewError(llm.CodeContentFiltered, nil))
			return
		}
		u := llm.EstimateUsage(req, "one two three", "well well")
		yield(llm.Chunk{FinishReason: llm.FinishStop, Usage: &u}, nil)
	}
}

// Where the provider gave no figures, the tokenizer of the model counts, whether
// the call succeeded or not.
func TestEstimatesUseTheTokenizer(t *testing.T) {
	t.Parallel()
	info := map[string]llm.Info{"m": {Count: func(text string) int64 { return int64(len(strings.Fields(text))) }}}
	h := newHarness(t, map[string]llm.Entry{
		"good": {Provider: guessing{}, Info: info}, "bad": {Provider: guessing{fail: true}, Info: info},
	}, executor.Config{Retry: quick})
	v := h.chain(`
name: estimates
prompts:
  - {name: Good, position: 1, model: good/m, content: five words make a prompt}
  - {name: Bad, position: 1, model: bad/m, content: five words make a prompt}
`)
	ex := h.trigger(v, nil)
	h.checkLog(ex.ID, h.follow(ex.ID))
	for name, s := range h.states(ex.ID) {
		if s.InputTokens != 3+4+5 || s.OutputTokens != 5 || s.ReasoningTokens != 2 || !s.UsageEstimated {
			t.Errorf("%s used %d in, %d out, %d of them reasoning, estimated: %v",
				name, s.InputTokens, s.OutputTokens, s.ReasoningTokens, s.UsageEstimated)
		}
	}
}
