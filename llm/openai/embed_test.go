package openai_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

// embedder is the provider of a server that answers every request by a handler.
func embedder(t *testing.T, answer http.HandlerFunc) *openai.Provider {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	p, err := openai.New(openai.Config{BaseURL: server.URL, Key: "sk-secret", MaxBytes: 4096, Client: llm.NewHTTPClient()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEmbed(t *testing.T) {
	t.Parallel()
	var asked map[string]any
	var _ llm.Embedder = (*openai.Provider)(nil)
	p := embedder(t, func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != "/embeddings" || r.Header.Get("Authorization") != "Bearer sk-secret" {
			t.Errorf("%s %v %v", r.URL.Path, r.Header, err)
		}
		_, _ = io.WriteString(w, `{"data": [{"index": 1, "embedding": [0.5, -1]}, {"index": 0, "embedding": [2, 3]}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}`)
	})
	vectors, usage, err := p.Embed(t.Context(), "m", []string{"a", "b"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]float32{{2, 3}, {0.5, -1}}, vectors); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(llm.Usage{InputTokens: 4}, usage); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	want := map[string]any{"model": "m", "input": []any{"a", "b"}, "dimensions": 2.0, "encoding_format": "float"}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// A server without usage has it estimated; it is never silently zero.
func TestEmbedWithoutUsage(t *testing.T) {
	t.Parallel()
	for _, usage := range []string{"", `, "usage": {"prompt_tokens": 0, "total_tokens": 0}`, `, "usage": {"prompt_tokens": -5}`} {
		p := embedder(t, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"data": [{"index": 0, "embedding": [1]}]%s}`, usage)
		})
		_, got, err := p.Embed(t.Context(), "m", []string{"some words"}, 0)
		if err != nil || !got.Estimated || got.InputTokens < 1 {
			t.Errorf("%q: %+v, %v", usage, got, err)
		}
	}
}

// Failures have the codes of streamed calls, and no error has the key.
func TestEmbedFailures(t *testing.T) {
	t.Parallel()
	body := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	status := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   llm.Code
	}{
		"too few":    {body(`{"data": []}`), llm.CodeMalformedResponse},
		"twice":      {body(`{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}`), llm.CodeMalformedResponse},
		"beyond":     {body(`{"data": [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [1]}]}`), llm.CodeMalformedResponse},
		"empty":      {body(`{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": []}]}`), llm.CodeMalformedResponse},
		"no numbers": {body(`{"data": [{"index": 0, "embedding": ["x"]}]}`), llm.CodeMalformedResponse},
		"no json":    {body(`<html>`), llm.CodeMalformedResponse},
		"cut":        {body(`{"data": [{"index": 0, "embed`), llm.CodeTruncatedStream},
		"nothing":    {body(""), llm.CodeTruncatedStream},
		"too large":  {body(`{"data": [{"index": 0, "embedding": [` + strings.Repeat("1,", 4096)), llm.CodeResponseTooLarge},
		"busy":       {status(429, `{"error": {"message": "slow down"}}`), llm.CodeRateLimited},
		"key":        {status(401, `{"error": {"message": "bad key sk-secret", "code": "invalid_api_key"}}`), llm.CodeUnauthorized},
		"model":      {status(404, `{"error": {"message": "no", "code": "model_not_found"}}`), llm.CodeNotFound},
		"broken":     {status(500, "oops"), llm.CodeUnavailable},
		"reset":      {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, llm.CodeConnectionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vectors, _, err := embedder(t, c.answer).Embed(t.Context(), "m", []string{"a", "b"}, 0)
			e, ok := errors.AsType[*llm.Error](err)
			if !ok || e.Code != c.want || vectors != nil || strings.Contains(err.Error(), "sk-secret") {
				t.Fatalf("%v, want %s", err, c.want)
			}
			if c.want == llm.CodeRateLimited && e.RetryAfter != 7*time.Second {
				t.Errorf("retry after %s", e.RetryAfter)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		p := embedder(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then the server looks whether the client is there
			cancel()
			<-r.Context().Done()
			close(gone)
		})
		_, _, err := p.Embed(ctx, "m", []string{"a"}, 0)
		if e, ok := errors.AsType[*llm.Error](err); !ok || e.Code != llm.CodeCancelled || !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		<-gone
	})
}

// The embeddings of every server with OpenAI's API, Ollama and LM Studio among
// them, keep the contract.
func TestEmbeddingConformance(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	client := llm.NewHTTPClient()
	t.Cleanup(client.CloseIdleConnections)
	p, err := openai.New(openai.Config{BaseURL: fake.URL, Key: "sk-secret-canary", MaxBytes: 1 << 20, Client: client})
	if err != nil {
		t.Fatal(err)
	}
	llmtest.ConformEmbeddings(t, llmtest.EmbedSubject{Embedder: p, Fake: fake.Fake, Numbered: true, Secret: "sk-secret-canary"})
}
