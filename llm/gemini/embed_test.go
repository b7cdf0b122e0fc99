package gemini_test

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/gemini"
	"github.com/chainstream/chainstream/llm/llmtest"
)

func TestEmbeddingConformance(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	llmtest.ConformEmbeddings(t, llmtest.EmbedSubject{
		Embedder: provider(t, fake.Root, func(c *gemini.Config) { c.MaxBytes = 1 << 20 }), Fake: fake.Fake, Secret: key,
		Purposes: map[llm.Purpose]string{llm.PurposeQuery: "RETRIEVAL_QUERY", llm.PurposeDocument: "RETRIEVAL_DOCUMENT"},
	})
}

// A shortened vector comes without the length 1 that a whole one has, and gets it.
func TestShortenedVectors(t *testing.T) {
	t.Parallel()
	var asked map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = nil
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != "/v1beta/models/m:batchEmbedContents" || r.Header.Get("X-Goog-Api-Key") != key {
			t.Errorf("%s %v %v", r.URL.Path, r.Header, err)
		}
		_, _ = io.WriteString(w, `{"embeddings": [{"values": [3, 4]}, {"values": [0, 0]}]}`)
	}))
	t.Cleanup(server.Close)
	p := provider(t, server.URL)
	vectors, usage, err := p.EmbedFor(t.Context(), llm.PurposeDocument, "m", []string{"some words", "b"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(float64(vectors[0][0])-0.6) > 1e-6 || math.Abs(float64(vectors[0][1])-0.8) > 1e-6 || vectors[1][0] != 0 {
		t.Errorf("%v", vectors)
	}
	if !usage.Estimated || usage.InputTokens < 2 {
		t.Errorf("usage %+v", usage)
	}
	one := func(text string) map[string]any {
		return map[string]any{
			"model": "models/m", "content": map[string]any{"parts": []any{map[string]any{"text": text}}},
			"taskType": "RETRIEVAL_DOCUMENT", "outputDimensionality": 2.0,
		}
	}
	if diff := cmp.Diff(map[string]any{"requests": []any{one("some words"), one("b")}}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if vectors, _, err = p.Embed(t.Context(), "m", []string{"a", "b"}, 0); err != nil || vectors[0][0] != 3 {
		t.Errorf("a whole vector was changed: %v, %v", vectors, err)
	}
}
