package listing_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/listing"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// answers is a server: by method and path, the header and the body that are
// needed, and the answer.
type answers map[string]struct{ header, body, answer string }

func serve(t *testing.T, all answers) listing.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		a, ok := all[r.Method+" "+r.URL.RequestURI()+" "+string(body)]
		if !ok {
			a, ok = all[r.Method+" "+r.URL.RequestURI()]
		}
		name, value, _ := strings.Cut(a.header, ": ")
		if !ok || name != "" && r.Header.Get(name) != value {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		io.WriteString(w, a.answer) //nolint:errcheck // the test fails without it
	}))
	t.Cleanup(server.Close)
	return listing.Server{Address: server.URL + "/v1", Key: "the-key", Client: server.Client()}
}

func check(t *testing.T, list func(context.Context) ([]llm.Listed, error), want []llm.Listed) {
	t.Helper()
	got, err := list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOllama(t *testing.T) {
	t.Parallel()
	s := serve(t, answers{
		"GET /api/tags": {answer: `{"models": [{"name": "llama3.2:latest"}, {"name": "qwen3:8b"}, {"name": "nomic-embed-text:latest"}, {"name": "odd"}]}`},
		`POST /api/show {"model":"llama3.2:latest"}`: {
			answer: `{"model_info": {"general.architecture": "llama", "llama.context_length": 131072, "llama.embedding_length": 3072}, "capabilities": ["completion", "tools"]}`,
		},
		`POST /api/show {"model":"qwen3:8b"}`:                {answer: `{"model_info": {"qwen3.context_length": 40960}, "capabilities": ["completion", "vision", "thinking"]}`},
		`POST /api/show {"model":"nomic-embed-text:latest"}`: {answer: `{"model_info": {"nomic-bert.context_length": 2048, "nomic-bert.embedding_length": 768}, "capabilities": ["embedding"]}`},
		`POST /api/show {"model":"odd"}`:                     {answer: `not JSON`},
	})
	check(t, s.Ollama, []llm.Listed{
		{Model: "llama3.2", Info: llm.Info{ContextWindow: 131072, Tools: true, Schema: true}},
		{Model: "qwen3:8b", Info: llm.Info{ContextWindow: 40960, Vision: true, Reasoning: true, Schema: true}},
		{Model: "nomic-embed-text", Embeds: true, Dimensions: 768, Info: llm.Info{ContextWindow: 2048}},
		{Model: "odd"},
	})
}

func TestLMStudio(t *testing.T) {
	t.Parallel()
	s := serve(t, answers{"GET /api/v0/models": {answer: `{"data": [
		{"id": "qwen2.5-7b", "type": "llm", "max_context_length": 32768, "loaded_context_length": 4096, "capabilities": ["tool_use"]},
		{"id": "gemma-3", "type": "vlm", "max_context_length": 131072},
		{"id": "nomic", "type": "embeddings", "max_context_length": 2048}]}`}})
	check(t, s.LMStudio, []llm.Listed{
		{Model: "qwen2.5-7b", Info: llm.Info{ContextWindow: 4096, Tools: true, Schema: true}},
		{Model: "gemma-3", Info: llm.Info{ContextWindow: 131072, Vision: true, Schema: true}},
		{Model: "nomic", Embeds: true, Info: llm.Info{ContextWindow: 2048}},
	})
	// An older one has OpenAI's list only.
	s = serve(t, answers{"GET /v1/models": {answer: `{"data": [{"id": "qwen2.5-7b"}, {"id": "text-embedding-nomic"}]}`}})
	check(t, s.LMStudio, []llm.Listed{{Model: "qwen2.5-7b"}, {Model: "text-embedding-nomic", Embeds: true}})
}

func TestVendors(t *testing.T) {
	t.Parallel()
	s := serve(t, answers{"GET /v1/models": {
		header: "Authorization: Bearer the-key",
		answer: `{"data": [{"id": "gpt-5"}, {"id": "text-embedding-3-small"}, {"id": "gpt-4o-realtime-preview"}, {"id": "meta/llama", "max_model_len": 8192}, {"id": ""}, {"id": " x"}]}`,
	}})
	check(t, s.OpenAI, []llm.Listed{{Model: "gpt-5"}, {Model: "text-embedding-3-small", Embeds: true}, {Model: "meta/llama", Info: llm.Info{ContextWindow: 8192}}})
	s = serve(t, answers{"GET /v1/models?limit=1000": {header: "X-Api-Key: the-key", answer: `{"data": [{"id": "claude-haiku-4-5-20251001"}]}`}})
	check(t, s.Anthropic, []llm.Listed{{Model: "claude-haiku-4-5-20251001"}})
	s = serve(t, answers{"GET /v1/models?pageSize=1000": {header: "X-Goog-Api-Key: the-key", answer: `{"models": [
		{"name": "models/gemini-2.5-pro", "inputTokenLimit": 1048576, "outputTokenLimit": 65536, "supportedGenerationMethods": ["generateContent"]},
		{"name": "models/text-embedding-004", "inputTokenLimit": 2048, "supportedGenerationMethods": ["embedContent", "countTokens"]}]}`}})
	s.Address += "/openai"
	check(t, s.Gemini, []llm.Listed{
		{Model: "gemini-2.5-pro", Info: llm.Info{ContextWindow: 1048576, MaxOutput: 65536}},
		{Model: "text-embedding-004", Embeds: true, Info: llm.Info{ContextWindow: 2048}},
	})
}

func TestFailures(t *testing.T) {
	t.Parallel()
	s := serve(t, answers{"GET /v1/models": {header: "Authorization: Bearer another", answer: `{}`}, "GET /api/tags": {answer: "<html>"}})
	for name, list := range map[string]func(context.Context) ([]llm.Listed, error){
		"openai": s.OpenAI, "anthropic": s.Anthropic, "gemini": s.Gemini, "ollama": s.Ollama, "lmstudio": s.LMStudio,
		"nobody":  listing.Server{Address: "http://user:secret@127.0.0.1:1/v1", Client: s.Client}.OpenAI,
		"nowhere": listing.Server{Address: "http://user:secret@%zz", Client: s.Client}.Ollama,
	} {
		models, err := list(t.Context())
		if err == nil || len(models) != 0 {
			t.Errorf("%s lists %v", name, models)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "the-key") {
			t.Errorf("%s tells a secret: %s", name, err)
		}
	}
}

// A server that does not answer is left when the time is up; what it had not
// described by then is listed without.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/tags" {
			io.WriteString(w, `{"models": [{"name": "slow"}]}`) //nolint:errcheck // the test fails without it
			return
		}
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hold)
	s := listing.Server{Address: server.URL + "/v1", Client: server.Client()}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if models, err := s.Ollama(ctx); err != nil || len(models) != 1 || models[0].Model != "slow" || models[0].Info.ContextWindow != 0 {
		t.Errorf("%+v, %v", models, err)
	}
	if _, err := s.OpenAI(ctx); err == nil {
		t.Error("no answer is a list")
	}
}

// The fake of all vendors is understood too.
func TestFake(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("x"))
	s := listing.Server{Address: fake.URL, Key: "k", Client: llm.NewHTTPClient()}
	defer s.Client.CloseIdleConnections()
	for name, list := range map[string]func(context.Context) ([]llm.Listed, error){
		"openai": s.OpenAI, "anthropic": s.Anthropic, "ollama": s.Ollama, "lmstudio": s.LMStudio,
		"gemini": listing.Server{Address: strings.TrimSuffix(fake.URL, "/v1") + "/v1beta/openai", Client: s.Client}.Gemini,
	} {
		if models, err := list(t.Context()); err != nil || len(models) != 1 || models[0].Model != "m" {
			t.Errorf("%s lists %+v, %v", name, models, err)
		}
	}
}
