package llm_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
)

// Embedding models are listed by themselves, can be called, and no prompt may name
// one: those of the catalogue, and those that a server says it has.
func TestEmbeddingModels(t *testing.T) {
	t.Parallel()
	r := llm.NewRegistry(map[string]llm.Entry{
		"offline": {
			Provider: slow{}, Label: "Demo", Demo: true, Models: []string{"echo"}, Fixed: true,
			Embeddings: []llm.EmbeddingModel{{ID: "hash", Dimensions: 512}, {ID: "gone", Available: func() bool { return false }}},
		},
		"openai": {Label: "OpenAI", Env: "OPENAI_API_KEY", Models: []string{"gpt"}, Embeddings: []llm.EmbeddingModel{{ID: "embed", Dimensions: 8, Shortens: true}}},
		"ollama": {
			Provider: slow{}, Label: "Ollama", Local: true,
			Embeddings: []llm.EmbeddingModel{{ID: "known", MaxTokens: 512}},
			FindEmbedding: func(model string) (llm.EmbeddingModel, bool) {
				return llm.EmbeddingModel{Dimensions: 3}, model == "found"
			},
			List: func(context.Context) ([]llm.Listed, error) {
				return []llm.Listed{
					{Model: "chat"}, {Model: "found"}, {Model: "told", Embeds: true, Dimensions: 5, Info: llm.Info{ContextWindow: 99}},
				}, nil
			},
		},
	})
	defer r.Close()
	r.Refresh(t.Context(), false)
	type line struct {
		ID                   string
		Dimensions, Max      int
		Configured, Callable bool
	}
	var got []line
	for _, m := range r.EmbeddingModels() {
		got = append(got, line{m.ID, m.Dimensions, m.MaxTokens, m.Configured, m.Callable})
	}
	want := []line{
		{"offline/gone", 0, 0, true, false}, {"offline/hash", 512, 0, true, true},
		{"ollama/found", 3, 0, true, true}, {"ollama/known", 0, 512, true, false}, {"ollama/told", 5, 99, true, true},
		{"openai/embed", 8, 0, false, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var prompts []string
	for _, m := range r.Models() {
		prompts = append(prompts, m.ID)
	}
	if diff := cmp.Diff([]string{"offline/echo", "ollama/chat", "openai/gpt"}, prompts); diff != "" {
		t.Errorf("models for prompts (-want +got):\n%s", diff)
	}
	for _, m := range want {
		err := r.Check(m.ID)
		if !errors.Is(err, llm.ErrEmbeddingModel) && !errors.Is(err, llm.ErrUnknownModel) {
			t.Errorf("a prompt may name %s: %v", m.ID, err)
		}
		if found, ok := r.EmbeddingModel(m.ID); !ok || found.ID != m.ID || found.Dimensions != m.Dimensions {
			t.Errorf("%s is found as %+v, %v", m.ID, found, ok)
		}
		if _, err := r.Resolve(m.ID); err != nil && !errors.Is(err, llm.ErrNotConfigured) {
			t.Errorf("%s cannot be called: %v", m.ID, err)
		}
	}
	for _, id := range []string{"ollama/chat", "openai/new", "offline/echo", "nobody/x", "x", ""} {
		if m, ok := r.EmbeddingModel(id); ok {
			t.Errorf("%s is an embedding model: %+v", id, m)
		}
	}
}
