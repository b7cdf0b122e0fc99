package llmtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

// post sends a completion request.
func post(ctx context.Context, t *testing.T, url, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return do(t, req)
}

// do sends a request and reads the answer.
func do(t *testing.T, req *http.Request) answer {
	t.Helper()
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

func client(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestStreamOnTheWire(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("a", "\"b\""))
	resp := post(t.Context(), t, fake.URL, `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`)
	const want = `data: {"choices":[{"delta":{"content":"","role":"assistant"},"finish_reason":null,"index":0}],"id":"chatcmpl-fake","model":"m","object":"chat.completion.chunk"}

data: {"id":"chatcmpl-fake","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}

data: {"id":"chatcmpl-fake","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"\"b\""},"finish_reason":null}]}

data: {"choices":[{"delta":{},"finish_reason":"stop","index":0}],"id":"chatcmpl-fake","model":"m","object":"chat.completion.chunk"}

data: {"choices":[],"id":"chatcmpl-fake","model":"m","object":"chat.completion.chunk","usage":{"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":0},"prompt_tokens":7,"prompt_tokens_details":{"cached_tokens":0},"total_tokens":9}}

data: [DONE]

`
	if diff := cmp.Diff(want, resp.body); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := resp.header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	if resp := post(t.Context(), t, fake.URL, `{"model":"m","stream":true}`); strings.Contains(resp.body, "usage") {
		t.Errorf("usage that was not asked for:\n%s", resp.body)
	}
}

func TestWholeAnswer(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", append(llmtest.Reply{llmtest.Reasoning("hm")}, llmtest.Text("a", "b")...))
	resp := post(t.Context(), t, fake.URL, `{"model":"m"}`)
	var got struct {
		Object  string
		Choices []struct {
			Message struct {
				Content   string
				Reasoning string `json:"reasoning_content"`
			}
			FinishReason string `json:"finish_reason"`
		}
		Usage map[string]any
	}
	if err := json.Unmarshal([]byte(resp.body), &got); err != nil {
		t.Fatalf("%v in %s", err, resp.body)
	}
	if resp.status != http.StatusOK || got.Object != "chat.completion" || len(got.Choices) != 1 || got.Usage["total_tokens"] != 9.0 {
		t.Fatalf("status %d, body %s", resp.status, resp.body)
	}
	if c := got.Choices[0]; c.Message.Content != "ab" || c.Message.Reasoning != "hm" || c.FinishReason != "stop" {
		t.Errorf("choice %+v", c)
	}
}

func TestScriptsAndRecords(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Status(503, "Retry-After", "7"), llmtest.Text("ok"))
	statuses := make([]int, 0, 5)
	for _, model := range []string{"m", "m", "m", "unknown"} {
		resp := post(t.Context(), t, fake.URL, `{"model":"`+model+`","stream":true,"messages":[{"role":"user","content":"hi"}]}`)
		statuses = append(statuses, resp.status)
	}
	statuses = append(statuses, post(t.Context(), t, fake.URL, `{"model":`).status)
	if diff := cmp.Diff([]int{503, 200, 200, 404, 400}, statuses); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if m, all := fake.Count("m"), fake.Count(""); m != 3 || all != 5 {
		t.Errorf("counted %d of m, %d in all", m, all)
	}
	call := fake.Calls()[1]
	if diff := cmp.Diff([]llm.Message{{Role: llm.RoleUser, Text: "hi"}}, call.Request.Messages); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	select {
	case <-call.Gone:
		t.Error("a call that ended well counts as given up")
	default:
	}
}

func TestAwait(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	reached := make(chan struct{})
	fake.Script("m", llmtest.Reply{llmtest.Head(), llmtest.Tell(func() { close(reached) }), llmtest.Stall()})

	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fake.URL+"/chat/completions", strings.NewReader(`{"model":"m","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	call, err := fake.Await(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	cancel()
	<-call.Gone
	<-call.Ended

	late, stop := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer stop()
	if _, err := fake.Await(late, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call that never comes: %v", err)
	}
}

// TestCloseEndsStalls shows that a closed fake lets go of whoever waits.
func TestCloseEndsStalls(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Reply{llmtest.Delta("x"), llmtest.Tell(fake.Close), llmtest.Stall()})
	fake.Script("slow", llmtest.Reply{llmtest.Delta("x"), llmtest.Delay(time.Hour)})
	for _, model := range []string{"m", "slow"} {
		resp := post(t.Context(), t, fake.URL, `{"model":"`+model+`","stream":true}`)
		if !strings.Contains(resp.body, `"x"`) || strings.Contains(resp.body, "[DONE]") {
			t.Errorf("body %s", resp.body)
		}
	}
}

// get asks for a path and returns the status and the body.
func get(t *testing.T, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return do(t, req)
}

func TestOtherEndpoints(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("x"))
	fake.Script("n", llmtest.Text("x"))
	tests := map[string]struct {
		path    string
		headers []string
		status  int
		text    string
	}{
		"models of OpenAI":    {"/v1/models", nil, 200, `"data":[{"created":1700000000,"id":"m",`},
		"models of Anthropic": {"/v1/models", []string{"Anthropic-Version", "2023-06-01"}, 200, `"last_id":"n"`},
		"models of Gemini":    {"/v1beta/models", nil, 200, `"name":"models/m"`},
		"models of Ollama":    {"/api/tags", nil, 200, `"model":"m"`},
		"version of Ollama":   {"/api/version", nil, 200, `{"version":"`},
		"GET of embeddings":   {"/v1/embeddings", nil, 404, `"unknown_url"`},
		"GET of completions":  {"/v1/chat/completions", nil, 404, `"unknown_url"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := get(t, fake.Root+tt.path, tt.headers...)
			if got.status != tt.status || !strings.Contains(got.body, tt.text) {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
}

func TestEmbeddings(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	embed := func(body string) (status int, vectors [][]float64) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fake.URL+"/embeddings", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp := do(t, req)
		var got struct {
			Data []struct{ Embedding []float64 }
		}
		if err := json.Unmarshal([]byte(resp.body), &got); err != nil {
			t.Fatalf("%v in %s", err, resp.body)
		}
		for _, e := range got.Data {
			vectors = append(vectors, e.Embedding)
		}
		return resp.status, vectors
	}
	_, one := embed(`{"model":"e","input":"tea","dimensions":4}`)
	_, two := embed(`{"model":"e","input":["tea","coffee"],"dimensions":4}`)
	if diff := cmp.Diff([][]float64{llmtest.Embedding("tea", 4)}, one); diff != "" {
		t.Errorf("one text (-want +got):\n%s", diff)
	}
	if len(two) != 2 || !cmp.Equal(two[0], one[0]) || cmp.Equal(two[1], one[0]) {
		t.Errorf("two texts: %v", two)
	}
	if _, usual := embed(`{"input":"tea"}`); len(usual) != 1 || len(usual[0]) != llmtest.Dimensions {
		t.Errorf("usual length: %v", usual)
	}
	if status, _ := embed(`{"input":7}`); status != http.StatusBadRequest {
		t.Errorf("status %d for a number", status)
	}
}

func TestToolCallsOnTheWire(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Reply{
		llmtest.Role(), llmtest.ToolCall("c1", "add", `{"a":`, `1}`), llmtest.ToolCall("c2", "now"), llmtest.Finish("tool_calls"), llmtest.Done(),
	})
	resp := post(t.Context(), t, fake.URL, `{"model":"m","stream":true}`)
	for _, want := range []string{
		`"tool_calls":[{"function":{"arguments":"","name":"add"},"id":"c1","index":0,"type":"function"}]`,
		`"tool_calls":[{"function":{"arguments":"{\"a\":"},"index":0}]`,
		`"tool_calls":[{"function":{"arguments":"1}"},"index":0}]`,
		`"tool_calls":[{"function":{"arguments":"","name":"now"},"id":"c2","index":1,"type":"function"}]`,
		`"finish_reason":"tool_calls"`,
	} {
		if !strings.Contains(resp.body, want) {
			t.Errorf("no %s in\n%s", want, resp.body)
		}
	}
	whole := post(t.Context(), t, fake.URL, `{"model":"m"}`)
	if want := `"tool_calls":[{"function":{"arguments":"{\"a\":1}","name":"add"},"id":"c1","type":"function"},`; !strings.Contains(whole.body, want) {
		t.Errorf("no %s in\n%s", want, whole.body)
	}
}

// TestRequest shows that everything of a request in OpenAI's format is understood.
func TestRequest(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Otherwise(llmtest.Echo)
	resp := post(t.Context(), t, fake.URL, `{"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0,"top_p":0.5,
		"max_completion_tokens":9,"stop":"END","seed":4,"reasoning_effort":"low","parallel_tool_calls":false,
		"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":{"type":"object"}}},
		"tools":[{"type":"function","function":{"name":"add","description":"Adds.","parameters":{"type":"object"},"strict":true}}],
		"tool_choice":{"type":"function","function":{"name":"add"}},
		"messages":[{"role":"system","content":"Be brief."},
		{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://pictures.example/a.png","detail":"low"}},
			{"type":"image_url","image_url":{"url":"data:image/png;base64,AQID"}},{"type":"text","text":"What is it?"}]},
		{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{}"}}]},
		{"role":"tool","tool_call_id":"c1","content":"42"}]}`)
	if resp.status != http.StatusOK || !strings.Contains(resp.body, `"content":"42"`) {
		t.Fatalf("%d %s", resp.status, resp.body)
	}
	zero, half, seed, no := 0.0, 0.5, int64(4), false
	want := llmtest.Request{Wire: llmtest.OpenAI, Stream: true, WantUsage: true, Request: llm.Request{
		Model: "m", Temperature: &zero, TopP: &half, MaxTokens: 9, Stop: []string{"END"}, Seed: &seed, Effort: "low", ParallelTools: &no,
		Schema:     json.RawMessage(`{"type":"object"}`),
		Tools:      []llm.Tool{{Name: "add", Description: "Adds.", Parameters: json.RawMessage(`{"type":"object"}`), Strict: true}},
		ToolChoice: "add",
		Messages: []llm.Message{
			{Role: llm.RoleSystem, Text: "Be brief."},
			{Role: llm.RoleUser, Text: "What is it?", Images: []llm.Image{
				{URL: "https://pictures.example/a.png", Detail: "low"}, {MIMEType: "image/png", Data: []byte{1, 2, 3}},
			}},
			{Role: llm.RoleAssistant, ToolCalls: []llm.ToolCall{{ID: "c1", Name: "add", Arguments: "{}"}}},
			{Role: llm.RoleTool, Text: "42", ToolCallID: "c1"},
		},
	}}
	if diff := cmp.Diff(want, fake.Calls()[0].Request); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, body := range map[string]string{
		"a word for messages": `{"model":"m","messages":"hi"}`,
		"a picture as text":   `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:text"}}]}]}`,
		"an unknown part":     `{"model":"m","messages":[{"role":"user","content":[{"type":"smell"}]}]}`,
		"a number as content": `{"model":"m","messages":[{"role":"user","content":7}]}`,
		"a number as choice":  `{"model":"m","tool_choice":7}`,
	} {
		if resp := post(t.Context(), t, fake.URL, body); resp.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, resp.status, resp.body)
		}
	}
}
