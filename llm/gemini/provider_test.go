package gemini_test

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
	"github.com/chainstream/chainstream/llm/gemini"
	"github.com/chainstream/chainstream/llm/llmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key is a canary: no error and no address may contain it.
const key = "AIzaCanary-0123456789"

// provider returns a provider of the fake with its own connections, which are
// closed at the end of the test.
func provider(tb testing.TB, root string, change ...func(*gemini.Config)) *gemini.Provider {
	tb.Helper()
	client := llm.NewHTTPClient()
	tb.Cleanup(client.CloseIdleConnections)
	config := gemini.Config{BaseURL: root + "/v1beta", Key: key, Client: client}
	for _, f := range change {
		f(&config)
	}
	p, err := gemini.New(config)
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
	p := provider(t, fake.Root)
	subject := llmtest.Subject{
		Provider: p, Model: "m", MissingModel: "missing", Fake: fake.Fake,
		Lacks: []llmtest.Capability{llmtest.CacheWrites}, // Gemini does not count them
	}
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

// sent returns the body that a request becomes.
func sent(t *testing.T, req llm.Request) []byte {
	t.Helper()
	fake := llmtest.NewServer(t)
	fake.Script(req.Model, llmtest.Text("ok"))
	if r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), req); r.Err != nil {
		t.Fatal(r.Err)
	}
	return fake.Calls()[0].Body
}

func TestRequest(t *testing.T) {
	t.Parallel()
	user := func(text string) llm.Message { return llm.Message{Role: llm.RoleUser, Text: text} }
	const hello = `"contents":[{"role":"user","parts":[{"text":"Hello"}]}]`
	weather := llm.Tool{Name: "weather", Description: "Tells it.", Parameters: json.RawMessage(`{"type":"object","properties":{"city":{"type":"string"}}}`)}
	const declared = `"tools":[{"functionDeclarations":[{"name":"weather","description":"Tells it.","parametersJsonSchema":{"type":"object","properties":{"city":{"type":"string"}}}}]}]`
	called := func(signature string) llm.Message {
		return llm.Message{Role: llm.RoleAssistant, ToolCalls: []llm.ToolCall{
			{ID: "a", Name: "weather", Arguments: `{"city": "Oslo"}`, Signature: signature}, {ID: "b", Name: "now"},
		}}
	}
	results := []llm.Message{
		{Role: llm.RoleTool, ToolCallID: "a", Text: `{"degrees": -3}`},
		{Role: llm.RoleTool, ToolCallID: "b", Text: "noon"},
	}
	const responses = `{"role":"user","parts":[
		{"functionResponse":{"id":"a","name":"weather","response":{"degrees":-3}}},
		{"functionResponse":{"id":"b","name":"now","response":{"output":"noon"}}}]}`
	const ask = `{"role":"user","parts":[{"text":"Hello"}]}`
	tests := map[string]struct {
		model  string
		change func(*llm.Request)
		want   string
	}{
		"usual": {"m", func(*llm.Request) {}, `{` + hello + `}`},
		"everything": {"m", func(r *llm.Request) {
			r.Messages = []llm.Message{{Role: llm.RoleSystem, Text: "Be <brief>."}, user("Hi"), {Role: llm.RoleAssistant, Text: "Yes?"}, user("世界")}
			r.Temperature, r.TopP, r.MaxTokens, r.Stop = new(float64), new(float64), 12, []string{"END"}
			*r.TopP = 0.123456789012
			r.Seed = new(int64)
			*r.Seed = -42
			r.Schema = json.RawMessage(`{"type":"object","title":"<T>"}`)
		}, `{"systemInstruction":{"parts":[{"text":"Be <brief>."}]},
			"contents":[{"role":"user","parts":[{"text":"Hi"}]},{"role":"model","parts":[{"text":"Yes?"}]},{"role":"user","parts":[{"text":"世界"}]}],
			"generationConfig":{"temperature":0,"topP":0.123456789012,"maxOutputTokens":12,"stopSequences":["END"],"seed":-42,
				"responseMimeType":"application/json","responseJsonSchema":{"type":"object","title":"<T>"}}}`},
		"empty texts": {"m", func(r *llm.Request) {
			r.Messages = []llm.Message{{Role: llm.RoleSystem}, user(""), {Role: llm.RoleAssistant}, user("")}
		}, `{"contents":[{"role":"user","parts":[{"text":" "}]},{"role":"model","parts":[{"text":" "}]},{"role":"user","parts":[{"text":" "}]}]}`},
		"only instructions": {"m", func(r *llm.Request) {
			r.Messages = []llm.Message{{Role: llm.RoleSystem, Text: "Go."}, {Role: llm.RoleSystem, Text: "On."}}
		}, `{"systemInstruction":{"parts":[{"text":"Go."},{"text":"On."}]},"contents":[{"role":"user","parts":[{"text":" "}]}]}`},
		"images": {"m", func(r *llm.Request) {
			r.Messages[0].Images = []llm.Image{
				{MIMEType: "image/webp", Data: []byte("RIFF")}, {Data: []byte("\x89PNG\r\n\x1a\n")},
				{URL: "https://example.com/a.JPG?x=1"}, {URL: "https://example.com/b", MIMEType: "image/heic"}, {URL: "https://example.com/c"},
			}
		}, `{"contents":[{"role":"user","parts":[
			{"inlineData":{"mimeType":"image/webp","data":"UklGRg=="}},{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}},
			{"fileData":{"mimeType":"image/jpeg","fileUri":"https://example.com/a.JPG?x=1"}},{"fileData":{"mimeType":"image/heic","fileUri":"https://example.com/b"}},
			{"fileData":{"fileUri":"https://example.com/c"}},{"text":"Hello"}]}]}`},
		"image without text": {"m", func(r *llm.Request) {
			r.Messages[0] = llm.Message{Role: llm.RoleUser, Images: []llm.Image{{MIMEType: "image/png", Data: []byte("x")}}}
		}, `{"contents":[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"eA=="}}]}]}`},
		"tools": {"m", func(r *llm.Request) { r.Tools = []llm.Tool{weather, {Name: "now"}} },
			`{` + hello + `,"tools":[{"functionDeclarations":[{"name":"weather","description":"Tells it.","parametersJsonSchema":{"type":"object","properties":{"city":{"type":"string"}}}},{"name":"now"}]}]}`},
		"strict tools": {"m", func(r *llm.Request) {
			r.Tools = []llm.Tool{weather}
			r.Tools[0].Strict = true
		}, `{` + hello + `,` + declared + `,"toolConfig":{"functionCallingConfig":{"mode":"VALIDATED"}}}`},
		"no tool": {"m", func(r *llm.Request) { r.Tools, r.ToolChoice = []llm.Tool{weather}, llm.ToolChoiceNone },
			`{` + hello + `,` + declared + `,"toolConfig":{"functionCallingConfig":{"mode":"NONE"}}}`},
		"some tool": {"m", func(r *llm.Request) { r.Tools, r.ToolChoice = []llm.Tool{weather}, llm.ToolChoiceRequired },
			`{` + hello + `,` + declared + `,"toolConfig":{"functionCallingConfig":{"mode":"ANY"}}}`},
		"one tool": {"m", func(r *llm.Request) { r.Tools, r.ToolChoice = []llm.Tool{weather}, "weather" },
			`{` + hello + `,` + declared + `,"toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["weather"]}}}`},
		"a choice without tools": {"m", func(r *llm.Request) { r.ToolChoice = llm.ToolChoiceRequired }, `{` + hello + `}`},
		"results of tools, signed": {"gemini-3-pro", func(r *llm.Request) {
			r.Messages = append(append(r.Messages, called("c2ln")), results...)
		}, `{"contents":[` + ask + `,{"role":"model","parts":[
			{"functionCall":{"id":"a","name":"weather","args":{"city":"Oslo"}},"thoughtSignature":"c2ln"},{"functionCall":{"id":"b","name":"now","args":{}}}]},` + responses + `]}`},
		"results of tools, unsigned": {"gemini-3-pro", func(r *llm.Request) {
			r.Messages = append(append(r.Messages, called("")), results...)
			r.Messages[1].Text = "Let me see."
		}, `{"contents":[` + ask + `,{"role":"model","parts":[{"text":"Let me see."},
			{"functionCall":{"id":"a","name":"weather","args":{"city":"Oslo"}},"thoughtSignature":"skip_thought_signature_validator"},
			{"functionCall":{"id":"b","name":"now","args":{}}}]},` + responses + `]}`},
		"results of tools, before Gemini 3": {"gemini-2.5-flash", func(r *llm.Request) {
			r.Messages = append(append(r.Messages, called("")), results...)
			r.Messages[1].ToolCalls[1].Arguments = "no JSON"
			r.Messages = append(r.Messages, user("And?"))
		}, `{"contents":[` + ask + `,{"role":"model","parts":[{"functionCall":{"id":"a","name":"weather","args":{"city":"Oslo"}}},
			{"functionCall":{"id":"b","name":"now","args":{"arguments":"no JSON"}}}]},` + responses + `,{"role":"user","parts":[{"text":"And?"}]}]}`},
		"effort in tokens":   {"gemini-2.5-flash", func(r *llm.Request) { r.Effort = "medium" }, `{` + hello + `,"generationConfig":{"thinkingConfig":{"includeThoughts":true,"thinkingBudget":8192}}}`},
		"little effort":      {"gemini-2.5-pro", func(r *llm.Request) { r.Effort = "low" }, `{` + hello + `,"generationConfig":{"thinkingConfig":{"includeThoughts":true,"thinkingBudget":1024}}}`},
		"great effort":       {"gemini-2.5-pro", func(r *llm.Request) { r.Effort = "high" }, `{` + hello + `,"generationConfig":{"thinkingConfig":{"includeThoughts":true,"thinkingBudget":24576}}}`},
		"effort in words":    {"gemini-3-flash", func(r *llm.Request) { r.Effort = "medium" }, `{` + hello + `,"generationConfig":{"thinkingConfig":{"includeThoughts":true,"thinkingLevel":"MEDIUM"}}}`},
		"effort as a number": {"gemini-3-flash", func(r *llm.Request) { r.Effort = "-1" }, `{` + hello + `,"generationConfig":{"thinkingConfig":{"includeThoughts":true,"thinkingBudget":-1}}}`},
		"no effort":          {"gemini-2.5-flash", func(r *llm.Request) { r.Effort = "none" }, `{` + hello + `,"generationConfig":{"thinkingConfig":{"thinkingBudget":0}}}`},
		"effort for Gemini":  {"gemini-2.5-flash", func(r *llm.Request) { r.Effort = "extreme" }, `{` + hello + `,"generationConfig":{"thinkingConfig":{"includeThoughts":true,"thinkingLevel":"EXTREME"}}}`},
		"parallel tools":     {"m", func(r *llm.Request) { r.ParallelTools = new(bool) }, `{` + hello + `}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := request(tt.model)
			tt.change(&req)
			sameJSON(t, tt.want, sent(t, req))
		})
	}
}

// TestRefusedHere shows what is refused before anything is sent.
func TestRefusedHere(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*llm.Request)
		detail string
	}{
		"six stop texts":       {func(r *llm.Request) { r.Stop = strings.Split("abcdef", "") }, "at most 5 stop texts, not 6"},
		"seed of 64 bits":      {func(r *llm.Request) { r.Seed = new(int64); *r.Seed = 1 << 40 }, "a seed of 32 bits"},
		"infinite temperature": {func(r *llm.Request) { r.Temperature = new(float64); *r.Temperature = math.Inf(1) }, "unsupported value"},
		"broken schema":        {func(r *llm.Request) { r.Schema = json.RawMessage(`{`) }, "encode the request"},
		"empty image":          {func(r *llm.Request) { r.Messages[0].Images = make([]llm.Image, 1) }, "neither an address nor bytes"},
		"result of no call": {func(r *llm.Request) {
			r.Messages = append(r.Messages, llm.Message{Role: llm.RoleTool, ToolCallID: "x"})
		}, `the tool call "x" comes without the call`},
		"another place": {func(r *llm.Request) { r.Model = "models/../files" }, "not the name of a model"},
		"no model":      {func(r *llm.Request) { r.Model = "" }, "not the name of a model"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Otherwise(llmtest.Echo)
			req := request("m")
			tt.change(&req)
			r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), req)
			e := (*llm.Error)(nil)
			if !errors.As(r.Err, &e) || e.Code != llm.CodeInvalidRequest || !strings.Contains(e.Detail, tt.detail) {
				t.Errorf("error %v", r.Err)
			}
			if n := fake.Count(""); n != 0 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// TestAddress shows where requests go, and that the key is in a header alone.
func TestAddress(t *testing.T) {
	t.Parallel()
	for model, want := range map[string]string{
		"gemini-2.5-flash":   "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
		"models/m":           "/v1beta/models/m:streamGenerateContent?alt=sse",
		"tunedModels/mine-1": "/v1beta/tunedModels/mine-1:streamGenerateContent?alt=sse",
		"a b?key=c#d":        "/v1beta/models/a%20b%3Fkey=c%23d:streamGenerateContent?alt=sse",
	} {
		var got *http.Request
		p := provider(t, "http://gemini.invalid", func(c *gemini.Config) {
			c.Client = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				got = r
				return answered([]byte(finish)), nil
			})}
		})
		if r := llmtest.Collect(t.Context(), t, p, request(model)); r.Err != nil {
			t.Error(r.Err)
			continue
		}
		if uri := got.URL.RequestURI(); uri != want {
			t.Errorf("model %q is called at %s, want %s", model, uri, want)
		}
		if got.Header.Get("X-Goog-Api-Key") != key || got.Header.Get("Authorization") != "" || strings.Contains(got.URL.String(), key) {
			t.Errorf("headers %v, address %s", got.Header, got.URL)
		}
	}
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
		config gemini.Config
		ok     bool
	}{
		"Gemini itself":  {gemini.Config{Client: client}, true},
		"a gateway":      {gemini.Config{BaseURL: "http://127.0.0.1:4000/gemini/v1beta/", Client: client}, true},
		"no client":      {gemini.Config{}, false},
		"no scheme":      {gemini.Config{BaseURL: "127.0.0.1:4000", Client: client}, false},
		"wrong scheme":   {gemini.Config{BaseURL: "ftp://x/v1beta", Client: client}, false},
		"no host":        {gemini.Config{BaseURL: "http:///v1beta", Client: client}, false},
		"broken":         {gemini.Config{BaseURL: "http://u:secret@%zz/", Client: client}, false},
		"key in address": {gemini.Config{BaseURL: "http://x/v1beta?key=secret", Client: client}, false},
		"key of 2 lines": {gemini.Config{Key: "secret\nAIza", Client: client}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := gemini.New(tt.config)
			if (err == nil) != tt.ok {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("password in %q", err)
			}
		})
	}
}
