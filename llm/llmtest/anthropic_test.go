package llmtest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// message sends a request in Anthropic's format.
func message(t *testing.T, root, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, root+"/v1/messages", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return do(t, req)
}

const hello = `"max_tokens":9,"messages":[{"role":"user","content":"hi"}]`

func TestAnthropicOnTheWire(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Reply{
		llmtest.Reasoning("hm"), llmtest.Delta("a"), llmtest.Delta("\"b\""), llmtest.ToolCall("c1", "add", `{"a":`, `1}`),
		llmtest.Finish(llm.FinishToolCalls), llmtest.UsageOf(llmtest.Tokens{Input: 10, Output: 7, Cached: 2, CacheWrite: 3}), llmtest.Done(),
	})
	const want = `event: message_start
data: {"message":{"content":[],"id":"msg_fake","model":"m","role":"assistant","stop_reason":null,"stop_sequence":null,"type":"message","usage":{"cache_creation_input_tokens":3,"cache_read_input_tokens":2,"input_tokens":5,"output_tokens":1}},"type":"message_start"}

event: ping
data: {"type":"ping"}

event: content_block_start
data: {"content_block":{"signature":"","thinking":"","type":"thinking"},"index":0,"type":"content_block_start"}

event: content_block_delta
data: {"delta":{"thinking":"hm","type":"thinking_delta"},"index":0,"type":"content_block_delta"}

event: content_block_delta
data: {"delta":{"signature":"c2lnbmF0dXJl","type":"signature_delta"},"index":0,"type":"content_block_delta"}

event: content_block_stop
data: {"index":0,"type":"content_block_stop"}

event: content_block_start
data: {"content_block":{"text":"","type":"text"},"index":1,"type":"content_block_start"}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"a"}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"\"b\""}}

event: content_block_stop
data: {"index":1,"type":"content_block_stop"}

event: content_block_start
data: {"content_block":{"id":"c1","input":{},"name":"add","type":"tool_use"},"index":2,"type":"content_block_start"}

event: content_block_delta
data: {"delta":{"partial_json":"","type":"input_json_delta"},"index":2,"type":"content_block_delta"}

event: content_block_delta
data: {"delta":{"partial_json":"{\"a\":","type":"input_json_delta"},"index":2,"type":"content_block_delta"}

event: content_block_delta
data: {"delta":{"partial_json":"1}","type":"input_json_delta"},"index":2,"type":"content_block_delta"}

event: content_block_stop
data: {"index":2,"type":"content_block_stop"}

event: message_delta
data: {"delta":{"stop_reason":"tool_use","stop_sequence":null},"type":"message_delta","usage":{"cache_creation_input_tokens":3,"cache_read_input_tokens":2,"input_tokens":5,"output_tokens":7}}

event: message_stop
data: {"type":"message_stop"}

`
	if diff := cmp.Diff(want, message(t, fake.Root, `{"model":"m","stream":true,`+hello+`}`).body); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	const whole = `{"content":[{"signature":"c2lnbmF0dXJl","thinking":"hm","type":"thinking"},{"text":"a\"b\"","type":"text"},{"id":"c1","input":{"a":1},"name":"add","type":"tool_use"}],` +
		`"id":"msg_fake","model":"m","role":"assistant","stop_reason":"tool_use","stop_sequence":null,"type":"message",` +
		`"usage":{"cache_creation_input_tokens":3,"cache_read_input_tokens":2,"input_tokens":5,"output_tokens":7}}`
	if diff := cmp.Diff(whole, message(t, fake.Root, `{"model":"m",`+hello+`}`).body); diff != "" {
		t.Errorf("in one piece (-want +got):\n%s", diff)
	}
}

func TestAnthropicErrors(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("busy", llmtest.Status(529))
	fake.Script("breaks", llmtest.Reply{llmtest.Role(), llmtest.StreamError("boom", llmtest.KindServer)})
	fake.Script("silent", llmtest.Reply{llmtest.Usage(3, 4)})
	tests := map[string]struct {
		body   string
		status int
		text   string
	}{
		"overloaded":      {`{"model":"busy",` + hello + `}`, 529, `{"error":{"message":"scripted error 529","type":"overloaded_error"},"request_id":"req_fake","type":"error"}`},
		"in mid-stream":   {`{"model":"breaks","stream":true,` + hello + `}`, 200, "event: error\ndata: {\"error\":{\"message\":\"boom\",\"type\":\"api_error\"},"},
		"only a usage":    {`{"model":"silent","stream":true,` + hello + `}`, 200, `{"stop_reason":null,"stop_sequence":null},"type":"message_delta","usage":{`},
		"unknown model":   {`{"model":"x",` + hello + `}`, 404, `"type":"not_found_error"`},
		"no limit":        {`{"model":"busy","messages":[{"role":"user","content":"hi"}]}`, 400, "max_tokens"},
		"no message":      {`{"model":"busy","max_tokens":1,"messages":[]}`, 400, "first message"},
		"assistant first": {`{"model":"busy","max_tokens":1,"messages":[{"role":"assistant","content":"hi"}]}`, 400, "first message"},
		"empty text":      {`{"model":"busy","max_tokens":1,"messages":[{"role":"user","content":" "}]}`, 400, "messages.0: text content blocks must contain non-whitespace text"},
		"empty system":    {`{"model":"busy","system":"",` + hello + `}`, 400, "system: text"},
		"strange role":    {`{"model":"busy","max_tokens":1,"messages":[{"role":"user","content":"hi"},{"role":"system","content":"hi"}]}`, 400, "messages.1: role"},
		"strange block":   {`{"model":"busy","max_tokens":1,"messages":[{"role":"user","content":[{"type":"smell"}]}]}`, 400, "smell"},
		"broken picture":  {`{"model":"busy","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"?"}}]}]}`, 400, "image"},
		"broken":          {`{"model":`, 400, "invalid_request_error"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := message(t, fake.Root, tt.body); got.status != tt.status || !strings.Contains(got.body, tt.text) {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
}

// TestAnthropicRequest shows that everything of a request in Anthropic's format is
// understood.
func TestAnthropicRequest(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Otherwise(llmtest.Echo)
	resp := message(t, fake.Root, `{"model":"m","stream":true,"temperature":0,"top_p":0.5,"max_tokens":9,"stop_sequences":["END"],
		"output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"object"}}},
		"tools":[{"name":"add","description":"Adds.","input_schema":{"type":"object"},"strict":true}],
		"tool_choice":{"type":"tool","name":"add","disable_parallel_tool_use":true},
		"system":[{"type":"text","text":"Be brief."}],
		"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://pictures.example/a.png"}},
			{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AQID"}},{"type":"text","text":"What is it?"}]},
		{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"add","input":{}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":"42"},{"type":"text","text":"Echo: seen"}]}]}`)
	if resp.status != http.StatusOK || !strings.Contains(resp.body, `"text":"seen"`) {
		t.Fatalf("%d %s", resp.status, resp.body)
	}
	zero, half, no := 0.0, 0.5, false
	want := llmtest.Request{Wire: llmtest.Anthropic, Stream: true, WantUsage: true, Request: llm.Request{
		Model: "m", Temperature: &zero, TopP: &half, MaxTokens: 9, Stop: []string{"END"}, Effort: "low", ParallelTools: &no,
		Schema:     json.RawMessage(`{"type":"object"}`),
		Tools:      []llm.Tool{{Name: "add", Description: "Adds.", Parameters: json.RawMessage(`{"type":"object"}`), Strict: true}},
		ToolChoice: "add",
		Messages: []llm.Message{
			{Role: llm.RoleSystem, Text: "Be brief."},
			{Role: llm.RoleUser, Text: "What is it?", Images: []llm.Image{{URL: "https://pictures.example/a.png"}, {MIMEType: "image/png", Data: []byte{1, 2, 3}}}},
			{Role: llm.RoleAssistant, ToolCalls: []llm.ToolCall{{ID: "c1", Name: "add", Arguments: "{}"}}},
			{Role: llm.RoleTool, Text: "42", ToolCallID: "c1"},
			{Role: llm.RoleUser, Text: "Echo: seen"},
		},
	}}
	if diff := cmp.Diff(want, fake.Calls()[0].Request); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for choice, want := range map[string]string{`{"type":"auto"}`: "", `{"type":"any"}`: llm.ToolChoiceRequired, `{"type":"none"}`: llm.ToolChoiceNone} {
		message(t, fake.Root, `{"model":"m","tool_choice":`+choice+`,`+hello+`}`)
		calls := fake.Calls()
		if got := calls[len(calls)-1].Request.ToolChoice; got != want {
			t.Errorf("%s is understood as %q", choice, got)
		}
	}
}
