package anthropic_test

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/anthropic"
	"github.com/chainstream/chainstream/llm/llmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key is a canary: no error may contain it.
const key = "sk-ant-canary-0123456789"

// provider returns a provider of the fake with its own connections, which are
// closed at the end of the test.
func provider(tb testing.TB, url string, change ...func(*anthropic.Config)) *anthropic.Provider {
	tb.Helper()
	client := llm.NewHTTPClient()
	tb.Cleanup(client.CloseIdleConnections)
	config := anthropic.Config{BaseURL: url, Key: key, Client: client}
	for _, f := range change {
		f(&config)
	}
	p, err := anthropic.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func request(model string) llm.Request {
	return llm.Request{Model: model, Messages: []llm.Message{{Role: llm.RoleUser, Text: "Hello"}}}
}

// TestConformance runs the suite against a Claude and a model of another kind: the
// suite names its models by the tests, and names are what tells them apart. That
// the other kind has schemas as well is shown by TestStructured.
func TestConformance(t *testing.T) {
	t.Parallel()
	for model, lacks := range map[string][]llmtest.Capability{
		"claude-haiku-4-5": {llmtest.Seed},
		"another":          {llmtest.Seed, llmtest.Schema},
	} {
		t.Run(model, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			p := provider(t, fake.Root)
			subject := llmtest.Subject{Provider: p, Model: "m", MissingModel: "missing", Fake: fake.Fake, Lacks: lacks}
			t.Run("plain", func(t *testing.T) {
				t.Parallel()
				llmtest.Conform(t, subject)
			})
			t.Run("guarded", func(t *testing.T) {
				t.Parallel()
				subject.Provider = llm.Guard(p, llm.Deadlines{})
				llmtest.Conform(t, subject)
			})
		})
	}
}

// TestEnvironment shows that nothing of the SDK's environment gets in.
func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"ANTHROPIC_API_KEY": "sk-ant-of-the-environment", "ANTHROPIC_AUTH_TOKEN": "token", "ANTHROPIC_BASE_URL": "http://elsewhere.invalid",
		"ANTHROPIC_CUSTOM_HEADERS": "X-Custom: yes", "ANTHROPIC_PROFILE": "none such",
	} {
		t.Setenv(name, value)
	}
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("ok"))
	for _, key := range []string{key, ""} {
		p := provider(t, fake.URL, func(c *anthropic.Config) { c.Key = key })
		if r := llmtest.Collect(t.Context(), t, p, request("m")); r.Err != nil {
			t.Fatal(r.Err)
		}
		calls := fake.Calls()
		call := calls[len(calls)-1]
		got := []string{call.Path, call.Header.Get("X-Api-Key"), call.Header.Get("Authorization"), call.Header.Get("X-Custom"), call.Header.Get("Anthropic-Version")}
		if diff := cmp.Diff([]string{"/v1/messages", key, "", "", "2023-06-01"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	number := func(f float64) *float64 { return &f }
	yes, no := true, false
	user := func(text string) llm.Message { return llm.Message{Role: llm.RoleUser, Text: text} }
	hello := []llm.Message{user("Hello")}
	const turn = `"messages":[{"role":"user","content":[{"type":"text","text":"Hello"}]}]`
	add := llm.Tool{Name: "add", Description: "Adds.", Parameters: json.RawMessage(`{"type":"object","properties":{"a":{"type":"number"}},"required":["a"]}`)}
	const addOnWire = `"tools":[{"name":"add","description":"Adds.","input_schema":{"type":"object","properties":{"a":{"type":"number"}},"required":["a"]}}]`
	called := []llm.Message{
		user("1+1?"),
		{Role: llm.RoleAssistant, Text: "Let me see.", ToolCalls: []llm.ToolCall{{ID: "c:1", Name: "add", Arguments: `{"a":1.00}`}, {ID: "c2", Name: "now"}, {ID: "c3", Name: "add", Arguments: "one"}}},
		{Role: llm.RoleTool, ToolCallID: "c:1", Text: "2"},
		{Role: llm.RoleTool, ToolCallID: "c2"},
		{Role: llm.RoleTool, ToolCallID: "c3", Text: "?"},
		user("Well?"),
	}
	const calledOnWire = `"messages":[{"role":"user","content":[{"type":"text","text":"1+1?"}]},
		{"role":"assistant","content":[{"type":"text","text":"Let me see."},{"type":"tool_use","id":"c_1","name":"add","input":{"a":1.00}},
			{"type":"tool_use","id":"c2","name":"now","input":{}},{"type":"tool_use","id":"c3","name":"add","input":{"input":"one"}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"c_1","content":[{"type":"text","text":"2"}]},{"type":"tool_result","tool_use_id":"c2"},
			{"type":"tool_result","tool_use_id":"c3","content":[{"type":"text","text":"?"}]},{"type":"text","text":"Well?"}]}]`
	tests := map[string]struct {
		req    llm.Request
		config anthropic.Config
		want   string // without stream, which is always true
	}{
		"plain": {req: llm.Request{Model: "m", Messages: hello}, want: `{"model":"m","max_tokens":8192,` + turn + `}`},
		"everything": {
			req: llm.Request{Model: "claude-haiku-4-5", Temperature: number(0), MaxTokens: 12, Stop: []string{"END", "", "\n\n"}, Messages: []llm.Message{
				{Role: llm.RoleSystem, Text: "Be <brief>."}, user("Hi"), {Role: llm.RoleAssistant, Text: "Hi."}, user("世界"), {Role: llm.RoleSystem, Text: "In English."},
			}},
			want: `{"model":"claude-haiku-4-5","max_tokens":12,"temperature":0,"stop_sequences":["END"],
				"system":[{"type":"text","text":"Be <brief>."},{"type":"text","text":"In English."}],
				"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]},{"role":"assistant","content":[{"type":"text","text":"Hi."}]},
				{"role":"user","content":[{"type":"text","text":"世界"}]}]}`,
		},
		"a limit of the configuration": {config: anthropic.Config{MaxTokens: 77}, req: llm.Request{Model: "m", Messages: hello}, want: `{"model":"m","max_tokens":77,` + turn + `}`},
		"a limit of a new model":       {req: llm.Request{Model: "claude-opus-5-5", Messages: hello}, want: `{"model":"claude-opus-5-5","max_tokens":32000,` + turn + `}`},
		"a limit of an old model":      {req: llm.Request{Model: "claude-3-haiku-20240307", Messages: hello}, want: `{"model":"claude-3-haiku-20240307","max_tokens":4096,` + turn + `}`},
		"empty texts": {
			req: llm.Request{Model: "m", Messages: []llm.Message{
				{Role: llm.RoleSystem, Text: " "}, {Role: llm.RoleAssistant, Text: "Hi"}, user("\n"), {Role: llm.RoleAssistant}, user("Hello"),
			}},
			want: `{"model":"m","max_tokens":8192,"messages":[{"role":"user","content":[{"type":"text","text":"(empty)"}]},{"role":"assistant","content":[{"type":"text","text":"Hi"}]},
				{"role":"user","content":[{"type":"text","text":"(empty)"},{"type":"text","text":"Hello"}]}]}`,
		},
		"only a system": {
			req:  llm.Request{Model: "m", Messages: []llm.Message{{Role: llm.RoleSystem, Text: "Go."}}},
			want: `{"model":"m","max_tokens":8192,"system":[{"type":"text","text":"Go."}],"messages":[{"role":"user","content":[{"type":"text","text":"(empty)"}]}]}`,
		},
		"an answer to be continued": {
			req: llm.Request{Model: "m", Messages: []llm.Message{user("Hello"), {Role: llm.RoleAssistant, Text: "Once \n"}}},
			want: `{"model":"m","max_tokens":8192,"messages":[{"role":"user","content":[{"type":"text","text":"Hello"}]},
				{"role":"assistant","content":[{"type":"text","text":"Once"}]}]}`,
		},
		"images": {
			req: llm.Request{Model: "m", Messages: []llm.Message{{Role: llm.RoleUser, Text: "What?", Images: []llm.Image{
				{URL: "https://pictures.example/a.png", Detail: "low"}, {MIMEType: "image/png", Data: []byte{1, 2, 3}},
			}}, {Role: llm.RoleUser, Images: []llm.Image{{URL: "http://pictures.example/b"}}}}},
			want: `{"model":"m","max_tokens":8192,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://pictures.example/a.png"}},
				{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AQID"}},{"type":"text","text":"What?"},
				{"type":"image","source":{"type":"url","url":"http://pictures.example/b"}}]}]}`,
		},
		"tools": {req: llm.Request{Model: "m", Messages: hello, Tools: []llm.Tool{add}}, want: `{"model":"m","max_tokens":8192,` + turn + `,` + addOnWire + `}`},
		"tool without arguments": {
			req:  llm.Request{Model: "m", Messages: hello, Tools: []llm.Tool{{Name: "now"}}, ParallelTools: &yes},
			want: `{"model":"m","max_tokens":8192,` + turn + `,"tools":[{"name":"now","input_schema":{"type":"object"}}],"tool_choice":{"type":"auto","disable_parallel_tool_use":false}}`,
		},
		"no tool":           {req: llm.Request{Model: "m", Messages: hello, Tools: []llm.Tool{add}, ToolChoice: llm.ToolChoiceNone, ParallelTools: &no}, want: `{"model":"m","max_tokens":8192,` + turn + `,` + addOnWire + `,"tool_choice":{"type":"none"}}`},
		"some tool":         {req: llm.Request{Model: "m", Messages: hello, Tools: []llm.Tool{add}, ToolChoice: llm.ToolChoiceRequired, ParallelTools: &no}, want: `{"model":"m","max_tokens":8192,` + turn + `,` + addOnWire + `,"tool_choice":{"type":"any","disable_parallel_tool_use":true}}`},
		"this tool":         {req: llm.Request{Model: "m", Messages: hello, Tools: []llm.Tool{add}, ToolChoice: "add"}, want: `{"model":"m","max_tokens":8192,` + turn + `,` + addOnWire + `,"tool_choice":{"type":"tool","name":"add"}}`},
		"choice of nothing": {req: llm.Request{Model: "m", Messages: hello, ToolChoice: llm.ToolChoiceRequired}, want: `{"model":"m","max_tokens":8192,` + turn + `}`},
		"strict tool": {
			req: llm.Request{Model: "claude-sonnet-4-6", Messages: hello, Tools: []llm.Tool{{Name: "add", Parameters: add.Parameters, Strict: true}}},
			want: `{"model":"claude-sonnet-4-6","max_tokens":32000,` + turn + `,"tools":[{"name":"add","strict":true,
				"input_schema":{"type":"object","properties":{"a":{"type":"number"}},"required":["a"],"additionalProperties":false}}]}`,
		},
		"strict tool of an old model":       {req: llm.Request{Model: "claude-3-5-haiku-latest", Messages: hello, Tools: []llm.Tool{{Name: "add", Strict: true}}}, want: `{"model":"claude-3-5-haiku-latest","max_tokens":8192,` + turn + `,"tools":[{"name":"add","input_schema":{"type":"object"}}]}`},
		"strict tool that takes everything": {req: llm.Request{Model: "claude-opus-5", Messages: hello, Tools: []llm.Tool{{Name: "add", Parameters: json.RawMessage(`{"type":"object"}`), Strict: true}}}, want: `{"model":"claude-opus-5","max_tokens":32000,` + turn + `,"tools":[{"name":"add","input_schema":{"type":"object"}}]}`},
		"calls of tools":                    {req: llm.Request{Model: "m", Messages: called, Tools: []llm.Tool{add}}, want: `{"model":"m","max_tokens":8192,` + calledOnWire + `,` + addOnWire + `}`},
		"calls of tools that are gone": {
			req: llm.Request{Model: "m", Messages: called},
			want: `{"model":"m","max_tokens":8192,` + calledOnWire + `,"tool_choice":{"type":"none"},
				"tools":[{"name":"add","input_schema":{"type":"object"}},{"name":"now","input_schema":{"type":"object"}}]}`,
		},

		"too hot":                           {req: llm.Request{Model: "m", Messages: hello, Temperature: number(1.5)}, want: `{"model":"m","max_tokens":8192,"temperature":1,` + turn + `}`},
		"top_p":                             {req: llm.Request{Model: "m", Messages: hello, TopP: number(0.123456789012)}, want: `{"model":"m","max_tokens":8192,"top_p":0.123456789012,` + turn + `}`},
		"temperature and top_p of a Claude": {req: llm.Request{Model: "claude-opus-4-1", Messages: hello, Temperature: number(0.5), TopP: number(0.9)}, want: `{"model":"claude-opus-4-1","max_tokens":32000,"temperature":0.5,` + turn + `}`},
		"temperature and top_p":             {req: llm.Request{Model: "m", Messages: hello, Temperature: number(0.5), TopP: number(0.9)}, want: `{"model":"m","max_tokens":8192,"temperature":0.5,"top_p":0.9,` + turn + `}`},
		"a model that takes neither":        {req: llm.Request{Model: "claude-opus-4-7", Messages: hello, Temperature: number(0.5), TopP: number(0.9)}, want: `{"model":"claude-opus-4-7","max_tokens":32000,` + turn + `}`},
		"a seed, which nobody takes":        {req: llm.Request{Model: "m", Messages: hello, Seed: new(int64)}, want: `{"model":"m","max_tokens":8192,` + turn + `}`},
		"effort":                            {req: llm.Request{Model: "claude-sonnet-5-5", Messages: hello, Effort: "high", Temperature: number(0)}, want: `{"model":"claude-sonnet-5-5","max_tokens":32000,"output_config":{"effort":"high"},"thinking":{"type":"adaptive","display":"summarized"},` + turn + `}`},
		"effort and a model that thinks if told to": {req: llm.Request{Model: "claude-opus-4-6", Messages: hello, Effort: "low", Temperature: number(0)}, want: `{"model":"claude-opus-4-6","max_tokens":32000,"output_config":{"effort":"low"},"thinking":{"type":"adaptive","display":"summarized"},` + turn + `}`},
		"no effort":                     {req: llm.Request{Model: "claude-opus-4-6", Messages: hello, Effort: "none", Temperature: number(0)}, want: `{"model":"claude-opus-4-6","max_tokens":32000,"temperature":0,"output_config":{"effort":"low"},` + turn + `}`},
		"effort with a forced tool":     {req: llm.Request{Model: "claude-opus-4-8", Messages: hello, Effort: "max", Tools: []llm.Tool{add}, ToolChoice: "add"}, want: `{"model":"claude-opus-4-8","max_tokens":32000,"output_config":{"effort":"max"},` + turn + `,` + addOnWire + `,"tool_choice":{"type":"tool","name":"add"}}`},
		"budget, low":                   {req: llm.Request{Model: "claude-haiku-4-5", Messages: hello, Effort: "low", Temperature: number(0)}, want: `{"model":"claude-haiku-4-5","max_tokens":32000,"thinking":{"type":"enabled","budget_tokens":4000},` + turn + `}`},
		"budget, medium":                {req: llm.Request{Model: "claude-haiku-4-5", Messages: hello, Effort: "medium"}, want: `{"model":"claude-haiku-4-5","max_tokens":32000,"thinking":{"type":"enabled","budget_tokens":8000},` + turn + `}`},
		"budget, high":                  {req: llm.Request{Model: "claude-haiku-4-5", Messages: hello, Effort: "high"}, want: `{"model":"claude-haiku-4-5","max_tokens":32000,"thinking":{"type":"enabled","budget_tokens":16000},` + turn + `}`},
		"budget, max, of a small limit": {req: llm.Request{Model: "claude-haiku-4-5", Messages: hello, Effort: "max", MaxTokens: 2048}, want: `{"model":"claude-haiku-4-5","max_tokens":2048,"thinking":{"type":"enabled","budget_tokens":1536},` + turn + `}`},
		"budget of too small a limit":   {req: llm.Request{Model: "claude-haiku-4-5", Messages: hello, Effort: "max", MaxTokens: 2047}, want: `{"model":"claude-haiku-4-5","max_tokens":2047,` + turn + `}`},
		"no budget":                     {req: llm.Request{Model: "claude-haiku-4-5", Messages: hello, Effort: "none"}, want: `{"model":"claude-haiku-4-5","max_tokens":32000,` + turn + `}`},
		"no budget for results of tools": {
			req: llm.Request{Model: "m", Messages: []llm.Message{user("x"), {Role: llm.RoleAssistant, ToolCalls: []llm.ToolCall{{ID: "a", Name: "add"}}}, {Role: llm.RoleTool, ToolCallID: "a", Text: "1"}}, Tools: []llm.Tool{add}, Effort: "high"},
			want: `{"model":"m","max_tokens":8192,` + addOnWire + `,"messages":[{"role":"user","content":[{"type":"text","text":"x"}]},
				{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"add","input":{}}]},
				{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[{"type":"text","text":"1"}]}]}]}`,
		},

		"schema": {
			req:  llm.Request{Model: "claude-haiku-4-5", Messages: hello, Schema: json.RawMessage(`{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}}}`)},
			want: `{"model":"claude-haiku-4-5","max_tokens":32000,"output_config":{"format":{"type":"json_schema","schema":{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"}},"additionalProperties":false}}},` + turn + `}`,
		},
		"schema and effort": {
			req:  llm.Request{Model: "claude-opus-5-5", Messages: hello, Effort: "low", Schema: json.RawMessage(`{"type":"object","properties":{"b":{"type":"string"}}}`)},
			want: `{"model":"claude-opus-5-5","max_tokens":32000,"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"object","properties":{"b":{"type":"string"}},"additionalProperties":false}}},` + turn + `}`,
		},
		"schema beyond what is enforced": {
			req:  llm.Request{Model: "claude-haiku-4-5", Messages: hello, Schema: json.RawMessage(`{"type":"array","items":{}}`)},
			want: `{"model":"claude-haiku-4-5","max_tokens":32000,"system":[{"type":"text","text":"Answer with one JSON value that follows this JSON Schema, and with nothing else:\n{\"type\":\"array\",\"items\":{}}"}],` + turn + `}`,
		},
		"schema for an old model": {
			req: llm.Request{Model: "claude-3-5-haiku-latest", Messages: hello, Effort: "high", Schema: json.RawMessage(`{"type":"object"}`)},
			want: `{"model":"claude-3-5-haiku-latest","max_tokens":8192,` + turn + `,"tools":[{"name":"answer","description":"Gives the answer.","input_schema":{"type":"object"}}],
				"tool_choice":{"type":"tool","name":"answer","disable_parallel_tool_use":true}}`,
		},
		"schema of a list for an old model": {
			req: llm.Request{Model: "m", Messages: hello, Schema: json.RawMessage(`{"type":"array","items":{"$ref":"#/$defs/x"},"$defs":{"x":{"type":"string"}}}`)},
			want: `{"model":"m","max_tokens":8192,` + turn + `,"tools":[{"name":"answer","description":"Gives the answer.","input_schema":{"type":"object","required":["answer"],
				"properties":{"answer":{"type":"array","items":{"$ref":"#/$defs/x"},"$defs":{"x":{"type":"string"}}}},"$defs":{"x":{"type":"string"}}}}],
				"tool_choice":{"type":"tool","name":"answer","disable_parallel_tool_use":true}}`,
		},
		"schema beside tools": {
			req:  llm.Request{Model: "m", Messages: hello, Tools: []llm.Tool{add}, Schema: json.RawMessage(`{"type":"object"}`)},
			want: `{"model":"m","max_tokens":8192,` + turn + `,` + addOnWire + `,"system":[{"type":"text","text":"Answer with one JSON value that follows this JSON Schema, and with nothing else:\n{\"type\":\"object\"}"}]}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script(tt.req.Model, llmtest.Text("ok"))
			p := provider(t, fake.Root, func(c *anthropic.Config) { c.MaxTokens = tt.config.MaxTokens })
			if r := llmtest.Collect(t.Context(), t, p, tt.req); r.Err != nil {
				t.Error(r.Err)
			}
			sameJSON(t, strings.TrimSuffix(tt.want, "}")+`,"stream":true}`, fake.Calls()[0].Body)
		})
	}
}

// TestOrder shows that the properties of a schema, in whose order models write,
// arrive in theirs.
func TestOrder(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	schema := json.RawMessage(`{"type":"object","properties":{"thought":{"type":"string"},"answer":{"type":"string"}}}`)
	for _, model := range []string{"claude-opus-5", "claude-3-opus"} {
		fake.Script(model, llmtest.Text("ok"))
		req := request(model)
		req.Schema = schema
		if r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), req); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	for _, call := range fake.Calls() {
		if !strings.Contains(string(call.Body), `"properties":{"thought":{"type":"string"},"answer":{"type":"string"}}`) {
			t.Errorf("body %s", call.Body)
		}
	}
}

// TestCachePrompts shows what is marked to be kept, and that nothing is unless it
// is asked for.
func TestCachePrompts(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("word ", 1000) // some 1,250 tokens
	conversation := func(system, history string) llm.Request {
		return llm.Request{Model: "m", Messages: []llm.Message{
			{Role: llm.RoleSystem, Text: system}, {Role: llm.RoleUser, Text: history}, {Role: llm.RoleAssistant, Text: "ok"}, {Role: llm.RoleUser, Text: "go"},
		}}
	}
	const mark = `"cache_control":{"type":"ephemeral"}`
	tests := map[string]struct {
		req            llm.Request
		on             bool
		system, before int
	}{
		"off":                        {conversation(long, long), false, 0, 0},
		"short":                      {conversation("Be brief.", "hi"), true, 0, 0},
		"long system":                {conversation(long, "hi"), true, 1, 1},
		"long history":               {conversation("Be brief.", long), true, 0, 1},
		"one question":               {request("m"), true, 0, 0},
		"long question":              {llm.Request{Model: "m", Messages: []llm.Message{{Role: llm.RoleUser, Text: long}}}, true, 0, 0},
		"system, long, and question": {llm.Request{Model: "m", Messages: []llm.Message{{Role: llm.RoleSystem, Text: long}, {Role: llm.RoleUser, Text: "hi"}}}, true, 1, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", llmtest.Text("ok"))
			p := provider(t, fake.Root, func(c *anthropic.Config) { c.CachePrompts = tt.on })
			if r := llmtest.Collect(t.Context(), t, p, tt.req); r.Err != nil {
				t.Fatal(r.Err)
			}
			var body struct{ System, Messages json.RawMessage }
			if err := json.Unmarshal(fake.Calls()[0].Body, &body); err != nil {
				t.Fatal(err)
			}
			if system, before := strings.Count(string(body.System), mark), strings.Count(string(body.Messages), mark); system != tt.system || before != tt.before {
				t.Errorf("%d marks in the system, %d in the conversation, want %d and %d", system, before, tt.system, tt.before)
			}
		})
	}
}

// TestRefusedHere shows requests that are not sent.
func TestRefusedHere(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	nan := math.NaN()
	tests := map[string]llm.Request{
		"temperature that is no number": {Temperature: &nan},
		"unknown effort":                {Effort: "enormous"},
		"schema that is no JSON":        {Schema: json.RawMessage(`{"type":`)},
		"arguments that are no JSON":    {Tools: []llm.Tool{{Name: "x", Parameters: json.RawMessage(`{`)}}},
	}
	for name, req := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req.Model, req.Messages = "m", request("m").Messages
			r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), req)
			if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeInvalidRequest || e.Detail == "" || fake.Count("") != 0 {
				t.Errorf("%v after %d calls", r.Err, fake.Count(""))
			}
		})
	}
}

func sameJSON(t *testing.T, want string, got []byte) {
	t.Helper()
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%v in %s", err, want)
	}
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	client := &http.Client{}
	tests := map[string]struct {
		config anthropic.Config
		ok     bool
	}{
		"Anthropic itself": {anthropic.Config{Client: client}, true},
		"with a version":   {anthropic.Config{BaseURL: "http://127.0.0.1:4010/v1/", Client: client}, true},
		"no client":        {anthropic.Config{}, false},
		"no scheme":        {anthropic.Config{BaseURL: "127.0.0.1:4010", Client: client}, false},
		"wrong scheme":     {anthropic.Config{BaseURL: "ftp://x", Client: client}, false},
		"no host":          {anthropic.Config{BaseURL: "http:///v1", Client: client}, false},
		"broken":           {anthropic.Config{BaseURL: "http://u:secret@%zz/", Client: client}, false},
		"key of 2 lines":   {anthropic.Config{Key: "sk-a\nsk-b", Client: client}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := anthropic.New(tt.config)
			if (err == nil) != tt.ok {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("password in %q", err)
			}
		})
	}
}
