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

// postGemini sends a request in Gemini's format.
func postGemini(t *testing.T, root, method, body string) answer {
	t.Helper()
	address := root + "/v1beta/models/m:" + method
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return do(t, req)
}

const geminiHello = `{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}`

func TestGeminiStreamOnTheWire(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Reply{
		llmtest.Role(), llmtest.Reasoning("hm"), llmtest.Delta("a"), llmtest.ToolCall("c1", "n", `{"x":`, `1}`), llmtest.ToolCall("", "o", "broken"),
		llmtest.Finish(llm.FinishToolCalls), llmtest.UsageDetails(10, 5, 4, 3), llmtest.Done(),
	})
	resp := postGemini(t, fake.Root, "streamGenerateContent?alt=sse", geminiHello)
	const tail = `,"modelVersion":"m","responseId":"fake-response","usageMetadata":{"promptTokenCount":10,"totalTokenCount":10}}` + "\n\n"
	want := `data: {"candidates":[{"content":{"parts":[{"text":"hm","thought":true}],"role":"model"},"index":0}]` + tail +
		`data: {"candidates":[{"content":{"parts":[{"text":"a"}],"role":"model"},"index":0}]` + tail +
		`data: {"candidates":[{"content":{"parts":[{"functionCall":{"args":{"x":1},"id":"c1","name":"n"}}],"role":"model"},"index":0}]` + tail +
		`data: {"candidates":[{"content":{"parts":[{"functionCall":{"args":"broken","name":"o"}}],"role":"model"},"index":0}]` + tail +
		`data: {"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}],"modelVersion":"m","responseId":"fake-response",` +
		`"usageMetadata":{"cachedContentTokenCount":4,"candidatesTokenCount":2,"promptTokenCount":10,"promptTokensDetails":[{"modality":"TEXT","tokenCount":10}],"thoughtsTokenCount":3,"totalTokenCount":15}}` + "\n\n"
	if diff := cmp.Diff(want, resp.body); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := resp.header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestGeminiWholeAnswer(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", append(llmtest.Reply{llmtest.Reasoning("hm"), llmtest.ToolCall("c1", "n")}, llmtest.Text("a", "b")...))
	resp := postGemini(t, fake.Root, "generateContent", geminiHello)
	const want = `{"candidates":[{"content":{"parts":[{"text":"hm","thought":true},{"text":"ab"},{"functionCall":{"args":{},"id":"c1","name":"n"}}],"role":"model"},"finishReason":"STOP","index":0}],` +
		`"modelVersion":"m","responseId":"fake-response","usageMetadata":{"candidatesTokenCount":2,"promptTokenCount":7,"promptTokensDetails":[{"modality":"TEXT","tokenCount":7}],"totalTokenCount":9}}`
	if resp.status != http.StatusOK || resp.body != want {
		t.Errorf("status %d, (-want +got):\n%s", resp.status, cmp.Diff(want, resp.body))
	}
}

func TestGeminiFailures(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		method, body string
		reply        llmtest.Reply
		status       int
		want         string
	}{
		"scripted":           {"generateContent", geminiHello, llmtest.Status(429), 429, `{"error":{"code":429,"message":"scripted error 429","status":"RESOURCE_EXHAUSTED"}}`},
		"refused":            {"generateContent", geminiHello, llmtest.Status(403), 403, `"PERMISSION_DENIED"`},
		"unauthenticated":    {"generateContent", geminiHello, llmtest.Status(401), 401, `"UNAUTHENTICATED"`},
		"broken":             {"generateContent", geminiHello, llmtest.Status(500), 500, `"INTERNAL"`},
		"in mid-stream":      {"streamGenerateContent", geminiHello, llmtest.Reply{llmtest.StreamError("busy", llmtest.KindOverloaded)}, 200, `data: {"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}`},
		"a word of one's":    {"streamGenerateContent", geminiHello, llmtest.Reply{llmtest.StreamError("x", "DATA_LOSS")}, 200, `"status":"DATA_LOSS"`},
		"usage alone":        {"streamGenerateContent", geminiHello, llmtest.Reply{llmtest.Usage(1, 2)}, 200, `data: {"modelVersion":"m","responseId":"fake-response","usageMetadata":{"candidatesTokenCount":2,`},
		"filtered":           {"streamGenerateContent", geminiHello, llmtest.Reply{llmtest.Finish(llm.FinishContentFilter)}, 200, `"finishReason":"SAFETY"`},
		"at the limit":       {"streamGenerateContent", geminiHello, llmtest.Reply{llmtest.Finish(llm.FinishLength)}, 200, `"finishReason":"MAX_TOKENS"`},
		"no script":          {"generateContent", geminiHello, nil, 404, `"NOT_FOUND"`},
		"no JSON":            {"generateContent", `{`, llmtest.Text("x"), 400, `"INVALID_ARGUMENT"`},
		"no contents":        {"generateContent", `{}`, llmtest.Text("x"), 400, "contents is not specified"},
		"no parts":           {"generateContent", `{"contents":[{"parts":[]}]}`, llmtest.Text("x"), 400, "contents[0].parts"},
		"empty text":         {"generateContent", `{"contents":[{"parts":[{"text":"a"},{"text":""}]}]}`, llmtest.Text("x"), 400, "contents[0].parts[1].data"},
		"six stop texts":     {"generateContent", `{"contents":[{"parts":[{"text":"a"}]}],"generationConfig":{"stopSequences":["1","2","3","4","5","6"]}}`, llmtest.Text("x"), 400, "the limit is 5"},
		"a role of OpenAI's": {"generateContent", `{"contents":[{"role":"assistant","parts":[{"text":"a"}]}]}`, llmtest.Text("x"), 400, "valid role"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			if tt.reply != nil {
				fake.Script("m", tt.reply)
			}
			resp := postGemini(t, fake.Root, tt.method, tt.body)
			if resp.status != tt.status || !strings.Contains(resp.body, tt.want) {
				t.Errorf("status %d, body %s", resp.status, resp.body)
			}
		})
	}
}

func TestGeminiRequest(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("x"))
	temperature, seed := 0.5, int64(7)
	want := llmtest.Request{
		Wire: llmtest.Gemini, Stream: true, WantUsage: true,
		Request: llm.Request{
			Model: "m",
			Messages: []llm.Message{
				{Role: llm.RoleSystem, Text: "Be brief."},
				{Role: llm.RoleUser, Text: "Look.", Images: []llm.Image{{MIMEType: "image/png", Data: []byte("x")}, {URL: "https://example.com/x"}}},
				{Role: llm.RoleAssistant, Text: "I see.", ToolCalls: []llm.ToolCall{{ID: "c1", Name: "n", Arguments: `{"a":1}`, Signature: "c2ln"}, {Name: "o", Arguments: `{}`}}},
				{Role: llm.RoleTool, ToolCallID: "c1", Text: "fine"},
				{Role: llm.RoleTool, Text: `{"b":2}`},
				{Role: llm.RoleUser, Text: "And?"},
			},
			Temperature: &temperature, TopP: &temperature, MaxTokens: 9, Stop: []string{"END"}, Seed: &seed,
			Schema: json.RawMessage(`{"type":"object"}`), Effort: "high",
			Tools:      []llm.Tool{{Name: "n", Description: "d", Parameters: json.RawMessage(`{}`)}, {Name: "o", Parameters: json.RawMessage(`{"type":"OBJECT"}`)}},
			ToolChoice: "n",
		},
	}
	resp := postGemini(t, fake.Root, "streamGenerateContent?alt=sse", `{
		"systemInstruction":{"parts":[{"text":"Be brief."}]},
		"contents":[
			{"parts":[{"text":"Look."},{"inlineData":{"mimeType":"image/png","data":"eA=="}},{"fileData":{"mimeType":"image/gif","fileUri":"https://example.com/x"}}]},
			{"role":"model","parts":[{"text":"I see."},{"functionCall":{"id":"c1","name":"n","args":{"a":1}},"thoughtSignature":"c2ln"},{"functionCall":{"name":"o","args":{}},"thoughtSignature":"skip_thought_signature_validator"}]},
			{"role":"user","parts":[{"functionResponse":{"id":"c1","name":"n","response":{"output":"fine"}}},{"functionResponse":{"name":"o","response":{"b":2}}},{"text":"And?"}]}],
		"generationConfig":{"temperature":0.5,"topP":0.5,"maxOutputTokens":9,"stopSequences":["END"],"seed":7,
			"responseMimeType":"application/json","responseSchema":{"type":"object"},"thinkingConfig":{"includeThoughts":true,"thinkingLevel":"HIGH"}},
		"tools":[{"functionDeclarations":[{"name":"n","description":"d","parametersJsonSchema":{}},{"name":"o","parameters":{"type":"OBJECT"}}]}],
		"toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["n"]}}}`)
	if resp.status != http.StatusOK {
		t.Fatalf("status %d, body %s", resp.status, resp.body)
	}
	if diff := cmp.Diff(want, fake.Calls()[0].Request); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	for config, want := range map[string]llm.Request{
		`"toolConfig":{"functionCallingConfig":{"mode":"NONE"}}`:                                                        {ToolChoice: llm.ToolChoiceNone},
		`"toolConfig":{"functionCallingConfig":{"mode":"ANY"}}`:                                                         {ToolChoice: llm.ToolChoiceRequired},
		`"tools":[{"functionDeclarations":[{"name":"n"}]}],"toolConfig":{"functionCallingConfig":{"mode":"VALIDATED"}}`: {Tools: []llm.Tool{{Name: "n", Strict: true}}},
		`"generationConfig":{"responseJsonSchema":{},"thinkingConfig":{"thinkingBudget":0}}`:                            {Schema: json.RawMessage(`{}`), Effort: "0"},
	} {
		want.Model, want.Messages = "m", []llm.Message{{Role: llm.RoleUser, Text: "hi"}}
		if resp := postGemini(t, fake.Root, "generateContent", strings.TrimSuffix(geminiHello, "}")+","+config+"}"); resp.status != http.StatusOK {
			t.Errorf("status %d, body %s", resp.status, resp.body)
		}
		calls := fake.Calls()
		if diff := cmp.Diff(want, calls[len(calls)-1].Request.Request); diff != "" {
			t.Errorf("%s (-want +got):\n%s", config, diff)
		}
	}
}
