package executor_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// scripted is a provider whose answers are functions by model name.
type scripted struct {
	mu      sync.Mutex
	calls   map[string]int
	answers map[string]func(ctx context.Context, call int, req llm.Request, say func(string) bool) error
}

func script(answers map[string]func(ctx context.Context, call int, req llm.Request, say func(string) bool) error) *scripted {
	return &scripted{answers: answers, calls: make(map[string]int)}
}

func (s *scripted) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		s.mu.Lock()
		s.calls[req.Model]++
		call := s.calls[req.Model]
		s.mu.Unlock()
		err := s.answers[req.Model](ctx, call, req, func(text string) bool { return yield(llm.Chunk{Text: text}, nil) })
		switch {
		case ctx.Err() != nil:
			yield(llm.Chunk{}, llm.ContextError(ctx))
		case err != nil:
			yield(llm.Chunk{}, err)
		default:
			yield(llm.Chunk{FinishReason: llm.FinishStop, Usage: &llm.Usage{InputTokens: 10, OutputTokens: 5}}, nil)
		}
	}
}

func (s *scripted) count(model string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[model]
}

func (s *scripted) entry() map[string]llm.Entry {
	return map[string]llm.Entry{"test": {Provider: s, Label: "Test"}}
}

// say answers a fixed text.
func say(text string) func(context.Context, int, llm.Request, func(string) bool) error {
	return func(_ context.Context, _ int, _ llm.Request, say func(string) bool) error {
		say(text)
		return nil
	}
}

// hang says something and then nothing until it is cut off.
func hang(text string, reached chan<- struct{}) func(context.Context, int, llm.Request, func(string) bool) error {
	return func(ctx context.Context, _ int, _ llm.Request, say func(string) bool) error {
		say(text)
		if reached != nil {
			reached <- struct{}{}
		}
		<-ctx.Done()
		return nil
	}
}

// fail answers an error after some text.
func fail(text string, code llm.Code) func(context.Context, int, llm.Request, func(string) bool) error {
	return func(_ context.Context, _ int, _ llm.Request, say func(string) bool) error {
		if text != "" {
			say(text)
		}
		return llm.NewError(code, nil)
	}
}

// find answers the events of a type.
func find(log []event, types ...events.Type) []event {
	var out []event
	for _, e := range log {
		if slices.Contains(types, e.Type) {
			out = append(out, e)
		}
	}
	return out
}

// text puts the deltas of an attempt of a prompt together and checks their offsets.
func text(t *testing.T, log []event, prompt int64, attempt int) string {
	t.Helper()
	var out strings.Builder
	for _, e := range find(log, events.TypePromptDelta) {
		if e.Data["promptId"] != float64(prompt) || e.Data["attempt"] != float64(attempt) {
			continue
		}
		if e.Data["offset"] != float64(len([]rune(out.String()))) {
			t.Errorf("event %d: offset %v behind %d characters", e.Seq, e.Data["offset"], len([]rune(out.String())))
		}
		out.WriteString(fmt.Sprint(e.Data["text"]))
	}
	return out.String()
}

// checkLog checks what holds for every log: numbers without a gap, one terminal
// event at the end, progress that never falls, and an execution row that agrees.
func (h *harness) checkLog(id int64, log []event) executor.Execution {
	h.t.Helper()
	percentage := 0.0
	for i, e := range log {
		if e.Seq != int64(i+1) || e.Data["seq"] != float64(i+1) || e.Data["executionId"] != float64(id) {
			h.t.Errorf("event %d of execution %d has seq %d: %v", i+1, id, e.Seq, e.Data)
		}
		if e.Type.Terminal() != (i == len(log)-1) {
			h.t.Errorf("event %d of %d is %s", i+1, len(log), e.Type)
		}
		if p, ok := e.Data["percentage"].(float64); ok {
			if p < percentage {
				h.t.Errorf("progress falls from %v to %v", percentage, p)
			}
			percentage = p
		}
	}
	ex, err := h.store.Execution(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	if !ex.Status.Final() || ex.LastSeq != int64(len(log)) || ex.FinishedAt == nil {
		h.t.Errorf("execution %d is %s with last seq %d of %d", id, ex.Status, ex.LastSeq, len(log))
	}
	return ex
}

// states answers the stored prompts by name.
func (h *harness) states(id int64) map[string]events.PromptState {
	h.t.Helper()
	all, err := h.store.PromptStates(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	out := make(map[string]events.PromptState)
	for _, s := range all[id] {
		out[s.Name] = s
	}
	return out
}
