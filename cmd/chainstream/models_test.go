package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// ollama is a server of Ollama's with one model. It counts who asks.
type ollama struct {
	*httptest.Server
	asked atomic.Int64
}

func newOllama(t *testing.T) *ollama {
	t.Helper()
	o := &ollama{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := ""
		switch r.URL.Path {
		case "/api/tags":
			o.asked.Add(1)
			answer = `{"models": [{"name": "tiny:1b"}]}`
		case "/api/show":
			answer = `{"model_info": {"llama.context_length": 2048}, "capabilities": ["completion", "tools"]}`
		default:
			w.WriteHeader(http.StatusNotFound)
		}
		io.WriteString(w, answer) //nolint:errcheck // the test fails without it
	}))
	t.Cleanup(o.Close)
	return o
}

// listed is what the tests read of the list of models.
type listed struct {
	Items []struct {
		ID            string
		Configured    bool
		Available     bool
		ContextWindow *int64
		Price         *struct{ Input, Output string }
	}
	Providers []struct{ ID, Note string }
}

func (l listed) find(id string) (found bool, available bool, window int64, input string) {
	for _, m := range l.Items {
		if m.ID != id {
			continue
		}
		if m.ContextWindow != nil {
			window = *m.ContextWindow
		}
		if m.Price != nil {
			input = m.Price.Input
		}
		return true, m.Available, window, input
	}
	return false, false, 0, ""
}

func list(t *testing.T, env map[string]string, args ...string) listed {
	t.Helper()
	var l listed
	if err := json.Unmarshal([]byte(succeed(t, env, append([]string{"models", "--json"}, args...)...)), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

const nowhere = "http://127.0.0.1:1"

// The models are those of the configuration, and no vendor is asked for them
// unless somebody says so.
func TestModelsCommand(t *testing.T) {
	t.Parallel()
	var vendor atomic.Int64
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		vendor.Add(1)
		if r.URL.Path != "/v1/models" || r.Header.Get("Authorization") != "Bearer the-key" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, `{"data": [{"id": "brand-new"}]}`) //nolint:errcheck // the test fails without it
	}))
	t.Cleanup(fake.Close)
	local := newOllama(t)
	env := map[string]string{
		"OPENAI_API_KEY": "the-key", "OPENAI_BASE_URL": fake.URL + "/v1", "OLLAMA_BASE_URL": local.URL, "LMSTUDIO_BASE_URL": nowhere,
		"CHAINSTREAM_MODELS_FILE": file(t, "models.yaml", "models:\n  openai/gpt-4.1: {prices: [{input: 3, output: 4}]}\n  openai/ours: {contextWindow: 99}\n"),
	}
	got := list(t, env)
	for id, want := range map[string]struct {
		available bool
		window    int64
		input     string
	}{
		"openai/gpt-4.1":             {true, 1047576, "3"},
		"openai/gpt-4.1-mini":        {true, 1047576, "0.4"},
		"openai/ours":                {true, 99, ""},
		"anthropic/claude-haiku-4-5": {false, 200000, "1"},
		"ollama/tiny:1b":             {true, 2048, "0"},
		"ollama/llama3.2":            {false, 0, "0"},
		"offline/echo":               {true, 0, "0"},
	} {
		found, available, window, input := got.find(id)
		if !found || available != want.available || window != want.window || input != want.input {
			t.Errorf("%s: found %v, available %v, window %d, input %q; want %+v", id, found, available, window, input, want)
		}
	}
	notes := make(map[string]string)
	for _, p := range got.Providers {
		notes[p.ID] = p.Note
	}
	if notes["lmstudio"] != "does not answer at "+nowhere+"/v1; start LM Studio, or set LMSTUDIO_BASE_URL" ||
		notes["anthropic"] != "set ANTHROPIC_API_KEY to use Anthropic" || notes["ollama"] != "" || notes["openai"] != "" {
		t.Errorf("notes %v", notes)
	}
	table := succeed(t, env, "models")
	for _, want := range []string{"ollama/tiny:1b", "ready", "not configured", "not there", "demo", "LM Studio: does not answer at"} {
		if !strings.Contains(table, want) {
			t.Errorf("%q is not in:\n%s", want, table)
		}
	}
	doctor := execute(t, env, "doctor", "--server", nowhere, "--database-url", "postgres://127.0.0.1:1/x").stdout
	for _, want := range []string{"ollama       answers at " + local.URL + "/v1 with ollama/tiny:1b", "openai       configured for " + fake.URL} {
		if !strings.Contains(doctor, want) {
			t.Errorf("%q is not in:\n%s", want, doctor)
		}
	}
	if n := vendor.Load(); n != 0 {
		t.Errorf("the vendor was asked %d times", n)
	}
	if found, available, _, input := list(t, env, "--refresh").find("openai/brand-new"); !found || !available || input != "" || vendor.Load() != 1 {
		t.Errorf("after %d questions a new model is found: %v, available: %v, price %q", vendor.Load(), found, available, input)
	}
}

// A server finds Ollama by itself, and answers the command line's question.
func TestModelsOfAServer(t *testing.T) {
	t.Parallel()
	local := newOllama(t)
	s := serve(t, map[string]string{"OLLAMA_BASE_URL": local.URL, "LMSTUDIO_BASE_URL": nowhere, "DATABASE_URL": pgtest.Database(t)})
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if found, available, window, _ := list(t, s.client()).find("ollama/tiny:1b"); found && available && window == 2048 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the server does not find Ollama")
		}
	}
	if n := local.asked.Load(); n != 1 {
		t.Errorf("Ollama was asked %d times", n)
	}
	if found, _, _, _ := list(t, s.client(), "--refresh").find("ollama/tiny:1b"); !found || local.asked.Load() != 2 {
		t.Errorf("refreshed: found %v after %d questions", found, local.asked.Load())
	}
}

// Providers of the models file are called, and prices of the file are booked.
func TestModelsFile(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	usage := llmtest.Text("hello")
	fake.Script("llama", usage)
	fake.Script("priceless", usage)
	fake.Script("tiny", usage)
	models := file(t, "models.yaml", `
providers:
  vllm: {baseUrl: "`+fake.URL+`", keyEnv: VLLM_API_KEY, label: Our vLLM, maxCompletionTokens: true}
  lab: {baseUrl: "`+fake.URL+`", free: true}
models:
  vllm/llama: {prices: [{input: 1000000, output: 0}]}
`)
	document := file(t, "c.yaml", `
name: from-file
prompts:
  - {name: Priced, position: 1, model: vllm/llama, content: hi, maxTokens: 77}
  - {name: Unpriced, position: 1, model: vllm/priceless, content: hi}
  - {name: Free, position: 1, model: lab/tiny, content: hi}
`)
	env := map[string]string{"VLLM_API_KEY": "vllm-key", "OLLAMA_BASE_URL": nowhere, "LMSTUDIO_BASE_URL": nowhere}
	output := succeed(t, env, "run", document, "--json", "--models-file", models, "--database-url", pgtest.Database(t))
	costs := make(map[string]*string)
	for line := range strings.Lines(output) {
		var e struct {
			Event string
			Data  struct {
				Provider, Model string
				CostUSD         *string
				InputTokens     int64
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Event == "llm-response" {
			costs[e.Data.Provider+"/"+e.Data.Model] = e.Data.CostUSD
			if c := e.Data.CostUSD; e.Data.Model == "llama" && (c == nil || e.Data.InputTokens == 0 || !strings.HasPrefix(*c, strconv.FormatInt(e.Data.InputTokens, 10))) {
				t.Errorf("%d tokens at a dollar each are booked as %v", e.Data.InputTokens, c)
			}
		}
	}
	if c := costs["lab/tiny"]; c == nil || *c != "0" {
		t.Errorf("a free model costs %v", c)
	}
	if c, ok := costs["vllm/priceless"]; !ok || c != nil {
		t.Errorf("a model without price costs %v", c)
	}
	for _, call := range fake.Calls() {
		want := ""
		if call.Request.Model != "tiny" {
			want = "Bearer vllm-key"
		}
		if got := call.Header.Get("Authorization"); got != want {
			t.Errorf("%s was sent %q, want %q", call.Request.Model, got, want)
		}
		if call.Request.Model == "llama" && !strings.Contains(string(call.Body), `"max_completion_tokens":77`) {
			t.Errorf("the token limit is missing: %s", call.Body)
		}
	}
}

func TestModelsFileMistakes(t *testing.T) {
	t.Parallel()
	wrong := file(t, "wrong.yaml", "models:\n  openai/x:\n    window: 5\n")
	taken := file(t, "taken.yaml", "providers:\n  ollama: {baseUrl: http://x.test/v1}\n")
	vllm := file(t, "vllm.yaml", "providers:\n  vllm: {baseUrl: http://127.0.0.1:1/v1, keyEnv: VLLM_API_KEY}\n")
	for _, tt := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"CHAINSTREAM_MODELS_FILE": wrong}, wrong + `:3:5: a model has no field "window"; there are capabilities`},
		{map[string]string{"CHAINSTREAM_MODELS_FILE": taken}, taken + ":2:3: the provider name ollama is taken by Chainstream itself; choose another name"},
		{map[string]string{"CHAINSTREAM_MODELS_FILE": "/nowhere/m.yaml"}, "/nowhere/m.yaml cannot be read (no such file or directory); check --models-file (CHAINSTREAM_MODELS_FILE)"},
		{map[string]string{"CHAINSTREAM_MODELS_FILE": vllm, "VLLM_API_KEY": "a b"}, "vllm cannot be used (the key has spaces or characters that no key has); check the provider vllm in --models-file (CHAINSTREAM_MODELS_FILE), and the environment variable VLLM_API_KEY"},
		{map[string]string{"OPENAI_BASE_URL": "api.openai.com"}, "OpenAI cannot be used (the base URL is not an http or https address); check the environment variables OPENAI_API_KEY OPENAI_BASE_URL"},
	} {
		for _, command := range []string{"models", "serve"} {
			r := execute(t, tt.env, command)
			if r.code != 1 || !strings.HasPrefix(r.stderr, "chainstream: "+tt.want) || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("%s: exit code %d\n got %s\nwant %s", command, r.code, r.stderr, tt.want)
			}
		}
	}
	got := succeed(t, map[string]string{"CHAINSTREAM_MODELS_FILE": vllm, "OLLAMA_BASE_URL": nowhere, "LMSTUDIO_BASE_URL": nowhere}, "models")
	if !strings.Contains(got, "vllm: set VLLM_API_KEY to use vllm") {
		t.Errorf("a provider without its key:\n%s", got)
	}
	r := execute(t, map[string]string{"CHAINSTREAM_MODELS_FILE": wrong, "CHAINSTREAM_SERVER": nowhere, "DATABASE_URL": "postgres://127.0.0.1:1/x"}, "doctor")
	if r.code != 1 || !strings.Contains(r.stdout, "missing  models       "+wrong+":3:5: ") {
		t.Errorf("doctor: %d\n%s", r.code, r.stdout)
	}
}
