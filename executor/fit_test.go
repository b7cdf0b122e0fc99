package executor_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// words counts a token a word, exactly.
func words(text string) int64 { return int64(len(strings.Fields(text))) }

// A prompt that cannot fit is refused before it costs anything, with the counts,
// and a model with a larger window is tried.
func TestContextWindow(t *testing.T) {
	t.Parallel()
	exact := func(window int64) llm.Info { return llm.Info{ContextWindow: window, Count: words} }
	tests := map[string]struct {
		info    llm.Info
		words   int // of the prompt; each is estimated as two tokens
		reserve int
		message string // of the failure; "" = it is called
	}{
		"unknown window":     {llm.Info{}, 10_000, 0, ""},
		"fits exactly":       {exact(107), 100, 0, ""},
		"one too many":       {exact(106), 100, 0, "it has 107 tokens, and the context window has 106."},
		"with the answer":    {exact(123), 100, 17, "it has 107 tokens with 17 kept for the answer, and the context window has 123."},
		"just with it":       {exact(124), 100, 17, ""},
		"estimate, in doubt": {llm.Info{ContextWindow: 130}, 100, 0, ""},
		"estimate, surely":   {llm.Info{ContextWindow: 100}, 100, 0, "it has about 207 tokens, and the context window has 100."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			small, large := plays(answer{text: "small"}), plays(answer{text: "large"})
			h := newHarness(t, map[string]llm.Entry{
				"small": {Provider: small, Info: map[string]llm.Info{"m": tt.info}}, "large": {Provider: large},
			}, executor.Config{Retry: quick})
			content := strings.TrimSpace(strings.Repeat("seven77 ", tt.words))
			extra := ""
			if tt.reserve > 0 {
				extra = fmt.Sprintf(", maxTokens: %d", tt.reserve)
			}
			alone := h.trigger(h.chain("name: alone\nprompts:\n  - {name: P, model: small/m, content: "+content+extra+"}\n"), nil)
			log := h.follow(alone.ID)
			got := h.checkLog(alone.ID, log)
			if tt.message == "" {
				if got.Status != executor.StatusCompleted {
					t.Errorf("%s: %s", got.ErrorCode, got.Error)
				}
				return
			}
			if got.ErrorCode != "context_too_long" || !strings.Contains(got.Error, tt.message) {
				t.Errorf("%s: %s", got.ErrorCode, got.Error)
			}
			if n := len(find(log, events.TypeLLMRequest, events.TypePromptRetry)); n != 0 || len(small.requests()) != 0 {
				t.Errorf("%d calls or retries", n)
			}
			other := h.trigger(h.chain("name: other\nprompts:\n  - {name: P, model: small/m, fallback: [large/m], content: "+content+extra+"}\n"), nil)
			if got := h.checkLog(other.ID, h.follow(other.ID)); got.Status != executor.StatusCompleted || len(large.requests()) != 1 || len(small.requests()) != 0 {
				t.Errorf("with a larger one: %s: %s", got.ErrorCode, got.Error)
			}
		})
	}
}

// The oldest turns of the history are left out first, and the log says how many.
func TestHistoryIsTrimmed(t *testing.T) {
	t.Parallel()
	first, last := plays(answer{text: "one two three"}), plays(answer{text: "done"})
	h := newHarness(t, map[string]llm.Entry{
		"first": {Provider: first},
		// A turn has 2 × 4 tokens of frames, 1 of the question and 3 of the answer.
		"last": {Provider: last, Info: map[string]llm.Info{"m": {ContextWindow: 33, Count: words}}},
	}, executor.Config{})
	v := h.chain(`
name: long-talk
prompts:
  - {name: A, position: 1, model: first/m, content: a}
  - {name: B, position: 2, model: first/m, content: b}
  - {name: C, position: 3, model: first/m, content: c}
  - {name: Z, position: 4, model: last/m, content: z, history: full}
`)
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Fatalf("%s: %s", got.ErrorCode, got.Error)
	}
	var said []string
	for _, m := range last.requests()[0].Messages {
		said = append(said, m.Text)
	}
	if diff := cmp.Diff([]string{"b", "one two three", "c", "one two three", "z"}, said); diff != "" {
		t.Error(diff)
	}
	var dropped []any
	for _, e := range find(log, events.TypeLLMRequest) {
		dropped = append(dropped, e.Data["historyDropped"])
	}
	if diff := cmp.Diff([]any{nil, nil, nil, 1.0}, dropped); diff != "" {
		t.Error(diff)
	}
}
