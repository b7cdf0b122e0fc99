package openai_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// deltas makes a stream of pieces of tool calls, each the JSON of one list.
func deltas(lists ...string) llmtest.Reply {
	var reply llmtest.Reply
	for _, list := range lists {
		reply = append(reply, llmtest.Data(`{"id":"r1","choices":[{"index":0,"delta":{"tool_calls":`+list+`}}]}`))
	}
	return reply
}

// TestToolCalls shows that complete calls come out of every way in which servers
// send them.
func TestToolCalls(t *testing.T) {
	t.Parallel()
	ended := llmtest.Reply{llmtest.Finish("tool_calls"), llmtest.Usage(5, 9), llmtest.Done()}
	add, now := llm.ToolCall{ID: "c1", Name: "add", Arguments: `{"a":1}`}, llm.ToolCall{ID: "c2", Name: "now", Arguments: "{}"}
	tests := map[string]struct {
		reply llmtest.Reply
		want  []llm.ToolCall
		other string // finish reason, when not tool_calls
	}{
		"as OpenAI": {
			append(llmtest.Reply{llmtest.Role(), llmtest.ToolCall("c1", "add", `{"a"`, `:1`, `}`), llmtest.ToolCall("c2", "now", "{}")}, ended...),
			[]llm.ToolCall{add, now}, "",
		},
		"no arguments": {
			append(llmtest.Reply{llmtest.ToolCall("c2", "now")}, ended...),
			[]llm.ToolCall{now}, "",
		},
		"taking turns": {
			append(deltas(
				`[{"index":0,"id":"c1","function":{"name":"add","arguments":""}}]`, `[{"index":1,"id":"c2","function":{"name":"now"}}]`,
				`[{"index":0,"function":{"arguments":"{\"a\""}},{"index":1,"function":{"arguments":"{"}}]`,
				`[{"index":1,"function":{"arguments":"}"}},{"index":0,"function":{"arguments":":1}"}}]`,
			), ended...),
			[]llm.ToolCall{add, now}, "",
		},
		"id with every piece": {
			append(deltas(`[{"index":0,"id":"c1","function":{"name":"add","arguments":"{\"a\""}}]`, `[{"index":0,"id":"c1","function":{"name":"add","arguments":":1}"}}]`), ended...),
			[]llm.ToolCall{add}, "",
		},
		"id and no index": {
			append(deltas(`[{"id":"c1","function":{"name":"add","arguments":"{\"a\""}}]`, `[{"id":"c1","function":{"arguments":":1}"}}]`, `[{"id":"c2","function":{"name":"now","arguments":""}}]`), ended...),
			[]llm.ToolCall{add, now}, "",
		},
		"pieces without id and index": {
			append(deltas(`[{"function":{"name":"add","arguments":"{\"a\""}}]`, `[{"function":{"arguments":":1}"}}]`, `[{"function":{"name":"now"}}]`), ended...),
			[]llm.ToolCall{{ID: "call_1", Name: "add", Arguments: `{"a":1}`}, {ID: "call_2", Name: "now", Arguments: "{}"}}, "",
		},
		"whole calls of one tool, without id and index": {
			append(deltas(`[{"function":{"name":"add","arguments":"{\"a\":1}"}},{"function":{"name":"add","arguments":"{\"a\":2}"}}]`), ended...),
			[]llm.ToolCall{{ID: "call_1", Name: "add", Arguments: `{"a":1}`}, {ID: "call_2", Name: "add", Arguments: `{"a":2}`}}, "",
		},
		"index always 0": {
			append(deltas(`[{"index":0,"id":"c1","function":{"name":"add","arguments":"{\"a\":1}"}}]`, `[{"index":0,"id":"c2","function":{"name":"now","arguments":"{}"}}]`), ended...),
			[]llm.ToolCall{add, now}, "",
		},
		"index always 0 and no ids": {
			append(deltas(`[{"index":0,"function":{"name":"add","arguments":"{\"a\":1}"}}]`, `[{"index":0,"function":{"name":"now","arguments":"{}"}}]`, `[{"index":0,"function":{"name":"now","arguments":"{}"}}]`), ended...),
			[]llm.ToolCall{{ID: "call_1", Name: "add", Arguments: `{"a":1}`}, {ID: "call_2", Name: "now", Arguments: "{}"}, {ID: "call_3", Name: "now", Arguments: "{}"}}, "",
		},
		"name with every piece": {
			append(deltas(`[{"index":0,"function":{"name":"add","arguments":"{\"a\""}}]`, `[{"index":0,"function":{"name":"add","arguments":":1}"}}]`, `[{"index":0,"function":{"name":"add","arguments":""}}]`), ended...),
			[]llm.ToolCall{{ID: "call_1", Name: "add", Arguments: `{"a":1}`}}, "",
		},
		"empty ids": {
			append(deltas(`[{"index":0,"id":"","function":{"name":"add","arguments":"{\"a\""}}]`, `[{"index":0,"id":"","function":{"arguments":":1}"}}]`, `[{"index":1,"id":"","function":{"name":"now"}}]`), ended...),
			[]llm.ToolCall{{ID: "call_1", Name: "add", Arguments: `{"a":1}`}, {ID: "call_2", Name: "now", Arguments: "{}"}}, "",
		},
		"the same id twice": {
			append(deltas(`[{"index":0,"id":"call_2","function":{"name":"add","arguments":"{\"a\":1}"}}]`, `[{"index":1,"id":"call_2","function":{"name":"now"}}]`), ended...),
			[]llm.ToolCall{{ID: "call_2", Name: "add", Arguments: `{"a":1}`}, {ID: "call_3", Name: "now", Arguments: "{}"}}, "",
		},
		"arguments as an object": {
			append(deltas(`[{"index":0,"id":"c1","function":{"name":"add","arguments":{"a":1}}}]`, `[{"index":1,"id":"c2","function":{"name":"now","arguments":null}}]`), ended...),
			[]llm.ToolCall{add, now}, "",
		},
		"name in pieces": {
			append(deltas(`[{"index":0,"id":"c1","function":{"name":"a"}}]`, `[{"index":0,"function":{"name":"dd","arguments":"{\"a\":1}"}}]`), ended...),
			[]llm.ToolCall{add}, "",
		},
		"finish reason stop": {
			llmtest.Reply{llmtest.ToolCall("c1", "add", `{"a":1}`), llmtest.Finish("stop"), llmtest.Usage(5, 9), llmtest.Done()},
			[]llm.ToolCall{add}, "",
		},
		"no finish reason": {
			llmtest.Reply{llmtest.ToolCall("c1", "add", `{"a":1}`), llmtest.Done()},
			[]llm.ToolCall{add}, "",
		},
		"finish reason in the same event": {
			llmtest.Reply{llmtest.Data(`{"id":"r1","choices":[{"delta":{"tool_calls":[{"id":"c1","function":{"name":"add","arguments":"{\"a\":1}"}}]},"finish_reason":"stop"}]}`), llmtest.Done()},
			[]llm.ToolCall{add}, "",
		},
		"calls after the finish reason": {
			append(append(llmtest.Reply{llmtest.ToolCall("c1", "add", `{"a":1}`)}, ended[0]), append(deltas(`[{"index":1,"id":"c2","function":{"name":"now"}}]`), ended[1:]...)...),
			[]llm.ToolCall{add}, "",
		},
		"cut off by the limit": {
			llmtest.Reply{llmtest.ToolCall("c1", "add", `{"a":1}`), llmtest.ToolCall("c3", "add", `{"a":`), llmtest.Finish("length"), llmtest.Done()},
			[]llm.ToolCall{add}, llm.FinishLength,
		},
		"finish reason tool_calls without any": {
			append(llmtest.Reply{llmtest.Role()}, ended...), nil, llm.FinishStop,
		},
		"function_call": {
			llmtest.Reply{
				llmtest.Data(`{"choices":[{"delta":{"function_call":{"name":"add","arguments":""}}}]}`),
				llmtest.Data(`{"choices":[{"delta":{"function_call":{"arguments":"{\"a\":"}}}]}`),
				llmtest.Data(`{"choices":[{"delta":{"function_call":{"arguments":"1}"}}}]}`),
				llmtest.Finish("function_call"), llmtest.Done(),
			},
			[]llm.ToolCall{{ID: "call_1", Name: "add", Arguments: `{"a":1}`}}, "",
		},
		"not streamed": {
			llmtest.JSON(`{"id":"r1","choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{\"a\":1}"}},{"id":"c2","type":"function","function":{"name":"now","arguments":""}}]},"finish_reason":"tool_calls"}]}`),
			[]llm.ToolCall{add, now}, "",
		},
		"arguments that are no JSON": {
			append(llmtest.Reply{llmtest.ToolCall("c1", "no-such-tool", `{"a":`, `oops`)}, ended...),
			[]llm.ToolCall{{ID: "c1", Name: "no-such-tool", Arguments: `{"a":oops`}}, "",
		},
		"arguments that cannot be stored": {
			append(deltas(`[{"index":0,"id":"c1","function":{"name":"add","arguments":"\u0000\ud800"}}]`), ended...),
			[]llm.ToolCall{{ID: "c1", Name: "add", Arguments: "\uFFFD\uFFFD"}}, "",
		},
		"a character split between pieces": {
			append(deltas(`[{"index":0,"id":"c1","function":{"name":"add","arguments":"{\"a\":\"\ud83c"}}]`, `[{"index":0,"function":{"arguments":"\udf0d\"}"}}]`), ended...),
			[]llm.ToolCall{{ID: "c1", Name: "add", Arguments: "{\"a\":\"\U0001F30D\"}"}}, "",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", tt.reply)
			r := llmtest.Collect(t.Context(), t, provider(t, fake.URL), request("m"))
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			if diff := cmp.Diff(tt.want, r.ToolCalls); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			want := llm.FinishToolCalls
			if tt.other != "" {
				want = tt.other
			}
			if r.FinishReason != want || (len(tt.want) > 0 && r.Usage.OutputTokens == 0) {
				t.Errorf("finish reason %q, usage %+v", r.FinishReason, r.Usage)
			}
		})
	}
}

// TestToolCallBounds shows that no answer makes the provider collect without end.
func TestToolCallBounds(t *testing.T) {
	t.Parallel()
	var many, most []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf(`[{"index":%d,"id":"c%d","function":{"name":"add","arguments":"{}"}}]`, i, i))
	}
	most = many[:llm.MaxToolCalls]
	long := `[{"index":0,"id":"c1","function":{"name":"add","arguments":"` + strings.Repeat("x", 1<<20) + `"}}]`
	tests := map[string]struct {
		reply llmtest.Reply
		code  llm.Code
		calls int
	}{
		"as many as may be": {append(deltas(most...), llmtest.Finish("tool_calls"), llmtest.Done()), "", llm.MaxToolCalls},
		"1,000 calls":       {deltas(many...), llm.CodeResponseTooLarge, 0},
		"5 MB of arguments": {deltas(long, long, long, long, long), llm.CodeResponseTooLarge, 0},
		"a call without a name": {
			append(deltas(`[{"index":0,"id":"c1","function":{"arguments":"{}"}}]`), llmtest.Finish("tool_calls"), llmtest.Done()), llm.CodeMalformedResponse, 0,
		},
		"not a list": {deltas(`7`), llm.CodeMalformedResponse, 0},
		"cut off":    {llmtest.Reply{llmtest.ToolCall("c1", "add", "{}")}, llm.CodeTruncatedStream, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", tt.reply)
			r := llmtest.Collect(t.Context(), t, provider(t, fake.URL), request("m"))
			e := &llm.Error{}
			if r.Err != nil && !errors.As(r.Err, &e) {
				t.Fatal(r.Err)
			}
			if e.Code != tt.code || len(r.ToolCalls) != tt.calls {
				t.Errorf("code %q, detail %q, %d calls", e.Code, e.Detail, len(r.ToolCalls))
			}
		})
	}
}

func TestToolRequest(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("gpt-5", llmtest.Text("ok"))
	no := false
	tools := []llm.Tool{
		{Name: "add", Description: "Adds.", Parameters: json.RawMessage(`{"type":"object","properties":{"a":{"type":"number"}}}`), Strict: true},
		{Name: "now"},
	}
	req := llm.Request{
		Model: "gpt-5", Effort: "low", Tools: tools, ParallelTools: &no,
		Messages: []llm.Message{
			{Role: llm.RoleUser, Text: "What is it?", Images: []llm.Image{
				{URL: "https://pictures.example/a.png", Detail: "low"}, {MIMEType: "image/png", Data: []byte{1, 2, 3}},
			}},
			{Role: llm.RoleUser, Images: []llm.Image{{URL: "https://pictures.example/b.png"}}},
			{Role: llm.RoleAssistant, ToolCalls: []llm.ToolCall{{ID: "c1", Name: "add", Arguments: `{"a":1}`}, {ID: "c2", Name: "now"}}},
			{Role: llm.RoleTool, Text: "42", ToolCallID: "c1"},
			{Role: llm.RoleTool, ToolCallID: "c2"},
		},
	}
	p := provider(t, fake.URL)
	const common = `"model":"gpt-5","stream":true,"stream_options":{"include_usage":true},"reasoning_effort":"low","messages":[
		{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://pictures.example/a.png","detail":"low"}},
			{"type":"image_url","image_url":{"url":"data:image/png;base64,AQID"}},{"type":"text","text":"What is it?"}]},
		{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://pictures.example/b.png"}}]},
		{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{\"a\":1}"}},
			{"id":"c2","type":"function","function":{"name":"now","arguments":"{}"}}]},
		{"role":"tool","tool_call_id":"c1","content":"42"},{"role":"tool","tool_call_id":"c2","content":" "}]`
	const withTools = common + `,"parallel_tool_calls":false,"tools":[
		{"type":"function","function":{"name":"add","description":"Adds.","parameters":{"type":"object","properties":{"a":{"type":"number"}}},"strict":true}},
		{"type":"function","function":{"name":"now","parameters":{"type":"object","properties":{}}}}]`
	for i, tt := range []struct{ choice, want string }{
		{llm.ToolChoiceAuto, withTools},
		{llm.ToolChoiceNone, withTools + `,"tool_choice":"none"`},
		{llm.ToolChoiceRequired, withTools + `,"tool_choice":"required"`},
		{"add", withTools + `,"tool_choice":{"type":"function","function":{"name":"add"}}`},
		{"add", common}, // without tools
	} {
		if tt.want == common {
			req.Tools = nil
		}
		req.ToolChoice = tt.choice
		if r := llmtest.Collect(t.Context(), t, p, req); r.Err != nil {
			t.Fatal(r.Err)
		}
		sameJSON(t, "{"+tt.want+"}", fake.Calls()[i].Body)
	}
	for name, spoil := range map[string]func(*llm.Request){
		"image of nothing": func(r *llm.Request) { r.Messages = []llm.Message{{Role: llm.RoleUser, Images: []llm.Image{{}}}} },
		"image of an unknown type": func(r *llm.Request) {
			r.Messages = []llm.Message{{Role: llm.RoleUser, Images: []llm.Image{{Data: []byte{1}}}}}
		},
		"parameters that are none":  func(r *llm.Request) { r.Tools = []llm.Tool{{Name: "x", Parameters: json.RawMessage(`{`)}} },
		"a schema that is not JSON": func(r *llm.Request) { r.Schema = json.RawMessage(`{`) },
	} {
		bad := req
		spoil(&bad)
		r := llmtest.Collect(t.Context(), t, p, bad)
		if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeInvalidRequest {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
}

// TestStrictSchema shows which schemas the provider has the server enforce.
func TestStrictSchema(t *testing.T) {
	t.Parallel()
	const closed = `"additionalProperties":false`
	tests := map[string]struct {
		schema string
		want   bool
	}{
		"closed":               {`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],` + closed + `}`, true},
		"empty":                {`{"type":"object","properties":{},"required":[],` + closed + `}`, true},
		"nested":               {`{"type":"object","properties":{"a":{"type":"array","items":{"type":"object","properties":{"b":{"type":["number","null"]}},"required":["b"],` + closed + `}}},"required":["a"],` + closed + `}`, true},
		"definitions":          {`{"type":"object","$defs":{"n":{"type":"integer"}},"properties":{"a":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["a"],` + closed + `}`, true},
		"open":                 {`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}`, false},
		"optional":             {`{"type":"object","properties":{"a":{"type":"string"},"b":{}},"required":["a"],` + closed + `}`, false},
		"required but unknown": {`{"type":"object","properties":{"a":{"type":"string"}},"required":["a","b"],` + closed + `}`, false},
		"open inside":          {`{"type":"object","properties":{"a":{"type":"object"}},"required":["a"],` + closed + `}`, false},
		"open in a list":       {`{"type":"object","properties":{"a":{"type":"array","items":{"properties":{"b":{}}}}},"required":["a"],` + closed + `}`, false},
		"optional in anyOf":    {`{"type":"object","properties":{"a":{"anyOf":[{"type":"object","properties":{"b":{}},` + closed + `}]}},"required":["a"],` + closed + `}`, false},
		"open definition":      {`{"type":"object","$defs":{"n":{"type":"object"}},"properties":{},"required":[],` + closed + `}`, false},
		"a list at the top":    {`{"type":"array","items":{"type":"string"}}`, false},
		"a choice at the top":  {`{"type":"object","anyOf":[{"type":"object"}],` + closed + `}`, false},
		"an unknown keyword":   {`{"type":"object","properties":{"a":{"type":"string","minLength":3}},"required":["a"],` + closed + `}`, false},
		"allOf":                {`{"type":"object","properties":{"a":{"allOf":[{"type":"string"}]}},"required":["a"],` + closed + `}`, false},
		"true":                 {`{"type":"object","properties":{"a":true},"required":["a"],` + closed + `}`, false},
		"too deep":             {`{"type":"object","properties":{"a":` + strings.Repeat(`{"type":"array","items":`, 12) + `{"type":"string"}` + strings.Repeat(`}`, 12) + `},"required":["a"],` + closed + `}`, false},
	}
	fake := llmtest.NewServer(t)
	fake.Otherwise(llmtest.Echo)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := request(name)
			req.Schema = json.RawMessage(tt.schema)
			if r := llmtest.Collect(t.Context(), t, provider(t, fake.URL), req); r.Err != nil {
				t.Fatal(r.Err)
			}
			for _, call := range fake.Calls() {
				if call.Request.Model != name {
					continue
				}
				var got struct {
					Format struct {
						Schema struct{ Strict bool } `json:"json_schema"`
					} `json:"response_format"`
				}
				if err := json.Unmarshal(call.Body, &got); err != nil || got.Format.Schema.Strict != tt.want {
					t.Errorf("strict %t, want %t, error %v", got.Format.Schema.Strict, tt.want, err)
				}
			}
		})
	}
}
