package llm_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
)

// words counts words, which makes the frames visible.
func words(text string) int64 { return int64(len(strings.Fields(text))) }

func TestCountRequest(t *testing.T) {
	t.Parallel()
	user := func(text string) llm.Message { return llm.Message{Role: llm.RoleUser, Text: text} }
	for _, tt := range []struct {
		name  string
		req   llm.Request
		want  int64
		exact bool
	}{
		{"nothing", llm.Request{}, 3, true},
		{"one message", llm.Request{Messages: []llm.Message{user("two words")}}, 3 + 4 + 2, true},
		{"a conversation", llm.Request{Messages: []llm.Message{
			{Role: llm.RoleSystem, Text: "be brief"}, user("why"), {Role: llm.RoleAssistant, Text: "because it is so"}, user(""),
		}}, 3 + 4*4 + 2 + 1 + 4, true},
		{"a schema", llm.Request{Messages: []llm.Message{user("x")}, Schema: []byte(`{"a": 1}`)}, 3 + 4 + 1 + 2, false},
		{"tools", llm.Request{Messages: []llm.Message{user("x")}, Tools: []llm.Tool{
			{Name: "add", Description: "adds two numbers", Parameters: []byte(`{"type": "object"}`)}, {Name: "now"},
		}}, 3 + 4 + 1 + 12 + 7 + 1 + 3 + 2 + 7 + 1, false},
		{"a tool call and its result", llm.Request{Messages: []llm.Message{
			{Role: llm.RoleAssistant, ToolCalls: []llm.ToolCall{{ID: "call_1", Name: "add", Arguments: `{"a": 1}`}}},
			{Role: llm.RoleTool, ToolCallID: "call_1", Text: "the sum"},
		}}, 3 + 4 + 3 + 1 + 2 + 4 + 2, false},
		{"images", llm.Request{Messages: []llm.Message{
			{Role: llm.RoleUser, Text: "what is it", Images: []llm.Image{{URL: "https://x.test/a.png", Detail: "low"}, {Data: []byte("x")}}},
		}}, 3 + 4 + 3 + llm.LowImageTokens + llm.ImageTokens, false},
	} {
		n, exact := llm.Info{Count: words}.CountRequest(tt.req)
		if n != tt.want || exact != tt.exact {
			t.Errorf("%s: %d, %v; want %d, %v", tt.name, n, exact, tt.want, tt.exact)
		}
		sum, sumExact := int64(3), true
		for _, m := range tt.req.Messages {
			n, exact := llm.Info{Count: words}.CountMessage(m)
			sum, sumExact = sum+n, sumExact && exact
		}
		if len(tt.req.Tools)+len(tt.req.Schema) == 0 && (sum != n || sumExact != exact) {
			t.Errorf("%s: the messages add up to %d, %v; want %d, %v", tt.name, sum, sumExact, n, exact)
		}
		if _, exact := (llm.Info{}).CountRequest(tt.req); exact {
			t.Errorf("%s: exact without a tokenizer", tt.name)
		}
	}
}

func TestEstimateUsage(t *testing.T) {
	t.Parallel()
	req := llm.Request{
		Messages: []llm.Message{{Role: llm.RoleSystem, Text: "eight ch"}, {Role: llm.RoleUser, Text: "four"}},
		Schema:   []byte(`{"a":1}`),
	}
	want := llm.Usage{InputTokens: 3 + 4 + 2 + 4 + 1 + 2, OutputTokens: 3, ReasoningTokens: 1, Estimated: true}
	if diff := cmp.Diff(want, llm.EstimateUsage(req, "eight ch", "four")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want = llm.Usage{InputTokens: 3 + 4 + 2 + 4 + 1 + 1, OutputTokens: 5, ReasoningTokens: 2, Estimated: true}
	if diff := cmp.Diff(want, llm.Info{Count: words}.EstimateUsage(req, "one two three", "four five")); diff != "" {
		t.Errorf("with a tokenizer (-want +got):\n%s", diff)
	}
}
