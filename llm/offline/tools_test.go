package offline_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/offline"
)

// TestToolCalls shows when the demo model asks for tools: for each line that says
// so, if it was given any.
func TestToolCalls(t *testing.T) {
	t.Parallel()
	tools := []llm.Tool{{Name: "add"}}
	tests := map[string]struct {
		prompt, choice string
		tools          []llm.Tool
		want           []llm.ToolCall
	}{
		"a call":             {"Call: add {\"a\": 1}", "", tools, []llm.ToolCall{{ID: "call_1", Name: "add", Arguments: `{"a": 1}`}}},
		"between other text": {"Please.\n  call: add\r\nCall:\nThanks.", "", tools, []llm.ToolCall{{ID: "call_1", Name: "add", Arguments: "{}"}}},
		"with NUL":           {"Call: a\x00 \xff", "", tools, []llm.ToolCall{{ID: "call_1", Name: "a\uFFFD", Arguments: "\uFFFD"}}},
		"no tools":           {"Call: add {}", "", nil, nil},
		"tools not wanted":   {"Call: add {}", llm.ToolChoiceNone, tools, nil},
		"another prompt":     {"Tell me about call: signs.", "", tools, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := request(user(tt.prompt))
			req.Tools, req.ToolChoice = tt.tools, tt.choice
			r := llmtest.Collect(t.Context(), t, offline.Provider{}, req)
			if diff := cmp.Diff(tt.want, r.ToolCalls); diff != "" || r.Err != nil {
				t.Errorf("(-want +got):\n%s error %v", diff, r.Err)
			}
			if len(tt.want) > 0 != (r.FinishReason == llm.FinishToolCalls) || len(tt.want) > 0 != (r.Text == "") {
				t.Errorf("finish reason %q, text %q", r.FinishReason, r.Text)
			}
		})
	}
	req := request(user(strings.Repeat("Call: add\n", 1000)))
	req.Tools = tools
	if r := llmtest.Collect(t.Context(), t, offline.Provider{}, req); len(r.ToolCalls) != llm.MaxToolCalls {
		t.Errorf("%d calls", len(r.ToolCalls))
	}
}

func TestToolResults(t *testing.T) {
	t.Parallel()
	r := llmtest.Collect(t.Context(), t, offline.Provider{}, request(
		user("Call: add {}"),
		llm.Message{Role: llm.RoleAssistant, ToolCalls: []llm.ToolCall{{ID: "c1", Name: "add"}}},
		llm.Message{Role: llm.RoleTool, ToolCallID: "c1", Text: "42"},
		llm.Message{Role: llm.RoleTool, ToolCallID: "c9", Text: "noon"},
	))
	if want := "add answered: 42\n\nA tool answered: noon\n\n" + offline.Label; r.Text != want || len(r.ToolCalls) > 0 {
		t.Errorf("%q, calls %v", r.Text, r.ToolCalls)
	}
}
