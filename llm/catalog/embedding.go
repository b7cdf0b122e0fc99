package catalog

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/tokenizer"
)

// Embedding is what is known of a model that turns texts into vectors; see
// llm.EmbeddingModel. What is nil or empty is unknown, or, in a file of the
// operator, not corrected.
type Embedding struct {
	Dimensions, MaxTokens, Batch, BatchTokens *int64
	Shortens                                  *bool
	Label, Tokenizer                          string
	Prices                                    []llm.Price
	priced                                    bool // Prices were given, be it none
	corrected                                 bool // by the operator
}

func (e Embedding) with(over Embedding) Embedding {
	for _, f := range []struct{ to, from **int64 }{
		{&e.Dimensions, &over.Dimensions}, {&e.MaxTokens, &over.MaxTokens}, {&e.Batch, &over.Batch}, {&e.BatchTokens, &over.BatchTokens},
	} {
		if *f.from != nil {
			*f.to = *f.from
		}
	}
	if over.Shortens != nil {
		e.Shortens = over.Shortens
	}
	if over.Label != "" {
		e.Label = over.Label
	}
	if over.Tokenizer != "" {
		e.Tokenizer = over.Tokenizer
	}
	if over.priced {
		e.Prices, e.priced, e.corrected = over.Prices, true, true
	}
	return e
}

// Embeddings answers the names of a provider's embedding models, sorted and without
// prefix.
func (c *Catalog) Embeddings(provider string) []string {
	var names []string
	for id := range c.embeddings {
		if name, ok := strings.CutPrefix(id, provider+"/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// LookupEmbedding is Lookup for embedding models. Of one with a tag, as Ollama has
// them behind a colon, the model without it is known.
func (c *Catalog) LookupEmbedding(id string) (Embedding, bool) {
	if e, ok := lookup(c.embeddings, id); ok {
		return e, true
	}
	if name, _, tagged := strings.Cut(id, ":"); tagged {
		return lookup(c.embeddings, name)
	}
	return Embedding{}, false
}

// EmbeddingModel is LookupEmbedding in the form of the contract, without an id.
func (c *Catalog) EmbeddingModel(id string) (llm.EmbeddingModel, bool) {
	e, ok := c.LookupEmbedding(id)
	number := func(n *int64) int {
		if n == nil {
			return 0
		}
		return int(*n)
	}
	m := llm.EmbeddingModel{
		Label: e.Label, Dimensions: number(e.Dimensions), MaxTokens: number(e.MaxTokens), Batch: number(e.Batch), BatchTokens: number(e.BatchTokens),
		Shortens: e.Shortens != nil && *e.Shortens,
		Info:     llm.Info{Prices: e.Prices, OwnPrices: e.corrected, Count: tokenizer.Counter(e.Tokenizer)},
	}
	return m, ok
}

func (r *reader) embedding(n ast.Node) (Embedding, error) {
	var e Embedding
	number := func(into **int64, what string) func(ast.Node) error {
		return func(n ast.Node) (err error) { *into, err = r.tokens(n, what); return err }
	}
	err := r.fields(n, "an embedding model", map[string]func(ast.Node) error{
		"dimensions": number(&e.Dimensions, "dimensions"), "maxTokens": number(&e.MaxTokens, "maxTokens"),
		"batch": number(&e.Batch, "batch"), "batchTokens": number(&e.BatchTokens, "batchTokens"),
		"shortens": func(n ast.Node) error {
			v, err := r.truth(n, "shortens")
			e.Shortens = &v
			return err
		},
		"label":     func(n ast.Node) (err error) { e.Label, err = r.text(n, "label"); return err },
		"tokenizer": func(n ast.Node) (err error) { e.Tokenizer, err = r.tokenizer(n); return err },
		"prices": func(n ast.Node) (err error) {
			e.priced = true
			e.Prices, err = r.prices(n, true)
			return err
		},
	})
	return e, err
}
