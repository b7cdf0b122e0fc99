package openai_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key is a canary: no error may contain it.
const key = "sk-canary-0123456789"

// provider returns a provider of the fake with its own connections, which are
// closed at the end of the test.
func provider(tb testing.TB, url string, change ...func(*openai.Config)) *openai.Provider {
	tb.Helper()
	client := llm.NewHTTPClient()
	tb.Cleanup(client.CloseIdleConnections)
	config := openai.Config{BaseURL: url, Key: key, Client: client}
	for _, f := range change {
		f(&config)
	}
	p, err := openai.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func request(model string) llm.Request {
	return llm.Request{Model: model, Messages: []llm.Message{{Role: llm.RoleUser, Text: "Hello"}}}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	p := provider(t, fake.URL)
	subject := llmtest.Subject{Provider: p, Model: "m", MissingModel: "missing", Fake: fake.Fake}
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		llmtest.Conform(t, subject)
	})
	t.Run("guarded", func(t *testing.T) {
		t.Parallel()
		subject.Provider = llm.Guard(p, llm.Deadlines{})
		llmtest.Conform(t, subject)
	})
}

func TestRequest(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("ok"))
	zero, seed := 0.0, int64(42)
	req := llm.Request{
		Model: "m",
		Messages: []llm.Message{
			{Role: llm.RoleSystem, Text: "Be <brief>."},
			{Role: llm.RoleUser, Text: "Hi"},
			{Role: llm.RoleAssistant, Text: ""},
			{Role: llm.RoleUser, Text: "世界"},
		},
		Temperature: &zero, TopP: new(float64), MaxTokens: 12, Stop: []string{"END"}, Seed: &seed,
		Schema: json.RawMessage(`{"type":"object","title":"T"}`),
	}
	*req.TopP = 0.123456789012
	p := provider(t, fake.URL)
	if r := llmtest.Collect(t.Context(), t, p, req); r.Err != nil {
		t.Fatal(r.Err)
	}
	const common = `"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0,"top_p":0.123456789012,"stop":["END"],"seed":42,
		"messages":[{"role":"system","content":"Be <brief>."},{"role":"user","content":"Hi"},{"role":"assistant","content":" "},{"role":"user","content":"世界"}],
		"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":false,"schema":{"type":"object","title":"T"}}}`
	call := fake.Calls()[0]
	sameJSON(t, `{`+common+`,"max_tokens":12}`, call.Body)
	if got := call.Header.Get("Authorization"); got != "Bearer "+key {
		t.Errorf("Authorization %q", got)
	}

	p = provider(t, fake.URL, func(c *openai.Config) { c.MaxCompletionTokens, c.Key = true, "" })
	if r := llmtest.Collect(t.Context(), t, p, req); r.Err != nil {
		t.Fatal(r.Err)
	}
	call = fake.Calls()[1]
	sameJSON(t, `{`+common+`,"max_completion_tokens":12}`, call.Body)
	if got := call.Header.Get("Authorization"); got != "" {
		t.Errorf("Authorization %q without a key", got)
	}

	// Models that go-openai has opinions about get what was asked for.
	fake.Script("o3-mini", llmtest.Text("ok"))
	req.Model = "o3-mini"
	if r := llmtest.Collect(t.Context(), t, p, req); r.Err != nil {
		t.Error(r.Err)
	}
	req.Temperature = new(float64)
	*req.Temperature = inf()
	r := llmtest.Collect(t.Context(), t, p, req)
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeInvalidRequest || fake.Count("") != 3 {
		t.Errorf("infinite temperature: %v", r.Err)
	}
}

func inf() float64 {
	x := 1e308
	return x * 10
}

func sameJSON(t *testing.T, want string, got []byte) {
	t.Helper()
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
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
		config openai.Config
		ok     bool
	}{
		"OpenAI itself":  {openai.Config{Client: client}, true},
		"Ollama":         {openai.Config{BaseURL: "http://127.0.0.1:11434/v1/", Client: client}, true},
		"no client":      {openai.Config{}, false},
		"no scheme":      {openai.Config{BaseURL: "127.0.0.1:11434", Client: client}, false},
		"wrong scheme":   {openai.Config{BaseURL: "ftp://x/v1", Client: client}, false},
		"no host":        {openai.Config{BaseURL: "http:///v1", Client: client}, false},
		"broken":         {openai.Config{BaseURL: "http://u:secret@%zz/", Client: client}, false},
		"key of 2 lines": {openai.Config{Key: "sk-a\nsk-b", Client: client}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := openai.New(tt.config)
			if (err == nil) != tt.ok {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("password in %q", err)
			}
		})
	}
}
