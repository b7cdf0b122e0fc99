package executor_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/executor"
)

const brief = `
name: brief
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: Outline, position: 1, model: offline/echo, content: "echo: outline of ${topic}"}
  - {name: Draft A, position: 2, model: offline/echo, content: "echo: A(${outline})"}
  - {name: Merge, position: 3, model: offline/echo, content: "echo: M(${draft-a})"}
`

func TestRun(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{})
	v := h.chain(brief)
	ex := h.trigger(v, map[string]string{"topic": "rivers"})
	log := h.follow(ex.ID)
	p := v.PromptIDs
	_ = p
	want := []string{
		"execution-start",
		"prompt-start 1", "variable-substitution 1", "llm-request 1", "llm-response 1", "prompt-complete 1", "progress 33.3",
		"prompt-start 2", "variable-substitution 2", "llm-request 2", "llm-response 2", "prompt-complete 2", "progress 66.7",
		"prompt-start 3", "variable-substitution 3", "llm-request 3", "llm-response 3", "prompt-complete 3", "progress 100",
		"execution-complete",
	}
	if diff := cmp.Diff(want, outline(log)); diff != "" {
		t.Error(diff)
	}
	for i, e := range log {
		if e.Seq != int64(i+1) {
			t.Errorf("event %d has seq %d", i, e.Seq)
		}
		t.Log(e.Seq, e.Type, e.Data)
	}
}
