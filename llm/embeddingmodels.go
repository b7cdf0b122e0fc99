package llm

import (
	"slices"
	"strings"
)

// EmbeddingState is an embedding model of a Registry, and whether it can be called.
type EmbeddingState struct {
	EmbeddingModel        // with the whole id
	Provider       string // the first part of the id
	ProviderLabel  string
	Demo           bool
	Configured     bool
	Callable       bool // as far as is known without a call
}

// EmbeddingModels lists the embedding models that are known, and what providers
// were seen to have, sorted by id. Providers may have others. Like Models it answers
// at once.
func (r *Registry) EmbeddingModels() []EmbeddingState {
	var models []EmbeddingState
	for name, e := range r.entries {
		seen := r.look(e)
		known := slices.Clone(e.Embeddings)
		for _, l := range seen.models {
			if slices.ContainsFunc(known, func(m EmbeddingModel) bool { return m.ID == l.Model }) {
				continue
			}
			if m, embeds := e.embedding(l.Model, seen); embeds {
				known = append(known, m)
			}
		}
		for _, m := range known {
			there := (m.Available == nil || m.Available()) && (!e.asked() || seen.has(m.ID))
			m.ID = name + "/" + m.ID
			models = append(models, EmbeddingState{
				EmbeddingModel: m, Provider: name, ProviderLabel: e.Label, Demo: e.Demo, Configured: e.Provider != nil,
				Callable: e.Provider != nil && there,
			})
		}
	}
	slices.SortFunc(models, func(a, b EmbeddingState) int { return strings.Compare(a.ID, b.ID) })
	return models
}

// EmbeddingModel answers what is known of an embedding model by its id; false when
// nothing is, which does not mean that it cannot be called.
func (r *Registry) EmbeddingModel(id string) (EmbeddingModel, bool) {
	e, model, _ := r.find(id) // an error leaves no entry, or one with a fixed list
	if e == nil {
		return EmbeddingModel{}, false
	}
	m, ok := e.embedding(model, r.look(e))
	m.ID = id
	return m, ok
}

// embedding answers what is known of one of the entry's models as an embedding
// model: by the entry, or because the provider says that it is one.
func (e *listing) embedding(model string, seen sight) (EmbeddingModel, bool) {
	if i := slices.IndexFunc(e.Embeddings, func(m EmbeddingModel) bool { return m.ID == model }); i >= 0 {
		return e.Embeddings[i], true
	}
	if e.FindEmbedding != nil {
		if m, ok := e.FindEmbedding(model); ok {
			m.ID = model
			return m, true
		}
	}
	for _, l := range seen.models {
		if l.Model == model && l.Embeds {
			m := EmbeddingModel{ID: model, Dimensions: l.Dimensions, MaxTokens: int(l.Info.ContextWindow), Info: e.info(model, seen)}
			return m, true
		}
	}
	return EmbeddingModel{}, false
}
