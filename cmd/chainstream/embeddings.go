package main

import (
	"fmt"
	"strings"

	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/llm/tokenizer"
)

// embeddings finds the embedding models of the providers of a registry.
func embeddings(registry *llm.Registry) knowledge.Embeddings { return embeddingModels{registry} }

type embeddingModels struct{ registry *llm.Registry }

// embeddingBatch is how many texts one call of a provider has: as many as all of
// them take, and few enough for the tokens that one call may have.
const embeddingBatch = 100

// Embedding implements knowledge.Embeddings. Its errors are those of
// llm.Registry.Resolve, or say that the provider has no embeddings.
func (m embeddingModels) Embedding(id string) (knowledge.Embedding, error) {
	target, err := m.registry.Resolve(id)
	if err != nil {
		return knowledge.Embedding{}, err
	}
	if target.Vendor == offline.Name {
		return offlineEmbedding(target)
	}
	embedder, ok := target.Provider.(llm.Embedder)
	if !ok {
		return knowledge.Embedding{}, fmt.Errorf("%w: the provider of %q has no embeddings", llm.ErrUnknownModel, id)
	}
	e := knowledge.Embedding{
		Embedder: embedder, Model: target.Model, Batch: embeddingBatch,
		Count: func(text string) int64 { n, _ := target.Info.CountTokens(text); return n },
	}
	switch {
	case target.Vendor == "openai" && strings.HasPrefix(target.Model, "text-embedding-"):
		e.MaxTokens, e.Count = 8191, tokenizer.Counter(tokenizer.CL100k)
	case target.Vendor == "gemini":
		e.MaxTokens = 2048
	}
	return e, nil
}
