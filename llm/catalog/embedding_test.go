package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/catalog"
)

// What is shipped of embedding models can be true.
func TestBuiltinEmbeddings(t *testing.T) {
	t.Parallel()
	c := catalog.Builtin()
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for provider, paid := range map[string]bool{"openai": true, "gemini": true, "ollama": false, "lmstudio": false} {
		names := c.Embeddings(provider)
		if len(names) == 0 {
			t.Errorf("%s has none", provider)
		}
		for _, name := range names {
			m, ok := c.EmbeddingModel(provider + "/" + name)
			if !ok || m.Dimensions < 100 || m.Dimensions > 4000 || m.MaxTokens < 100 || m.BatchTokens != 0 && m.BatchTokens < m.MaxTokens {
				t.Errorf("%s/%s: %+v, %v", provider, name, m, ok)
			}
			price, priced := m.Info.PriceAt(now)
			if priced != paid || paid && (!price.Input.IsPositive() || !price.Output.IsZero()) {
				t.Errorf("%s/%s: price %+v, %v", provider, name, price, priced)
			}
			if _, ok := c.Lookup(provider + "/" + name); ok {
				t.Errorf("%s/%s is a model for prompts too", provider, name)
			}
		}
	}
	m, _ := c.EmbeddingModel("openai/text-embedding-3-small")
	price, _ := m.Info.PriceAt(now)
	if got := price.Cost(llm.Usage{InputTokens: 1500}).String(); got != "0.00003" || m.Info.Count("hello world") != 2 {
		t.Errorf("1500 tokens cost %s", got)
	}
	for id, want := range map[string]bool{
		"ollama/nomic-embed-text": true, "ollama/nomic-embed-text:v1.5": true, "ollama/nomic-embed-text:latest": true,
		"ollama/nomic-embed-texts": false, "gemini/gemini-embedding-002": false, "openai/text-embedding-4": false, "": false,
	} {
		if _, ok := c.LookupEmbedding(id); ok != want {
			t.Errorf("%q is found: %v", id, ok)
		}
	}
}

func TestOwnEmbeddings(t *testing.T) {
	t.Parallel()
	c := catalog.Builtin().With(parse(t, `
providers:
  mine: {baseUrl: "http://127.0.0.1:8000/v1"}
embeddings:
  mine/bge: {dimensions: 1024, maxTokens: 512, batch: 32, batchTokens: 8192, shortens: true, label: English, prices: [{input: "0.01"}]}
  openai/text-embedding-3-small: {prices: [{input: "0.015"}], maxTokens: 4000}
`))
	m, ok := c.EmbeddingModel("mine/bge")
	if !ok || m.Dimensions != 1024 || m.MaxTokens != 512 || m.Batch != 32 || m.BatchTokens != 8192 || !m.Shortens || m.Label != "English" {
		t.Errorf("%+v, %v", m, ok)
	}
	m, _ = c.EmbeddingModel("openai/text-embedding-3-small")
	price, _ := m.Info.PriceAt(time.Now())
	if m.Dimensions != 1536 || m.MaxTokens != 4000 || price.Input.String() != "0.015" || !m.Info.OwnPrices || m.Info.Count == nil {
		t.Errorf("%+v, price %+v", m, price)
	}
	for text, want := range map[string]string{
		"embeddings:\n  x: {}\n":                                            "no model id",
		"embeddings:\n  nobody/x: {}\n":                                     "belongs to no provider",
		"embeddings:\n  openai/x: {dimensions: none}\n":                     "dimensions",
		"embeddings:\n  openai/x: {size: 3}\n":                              `no field "size"`,
		"embeddings:\n  openai/x: {prices: [{output: \"1\"}]}\n":            "needs input",
		"embeddings:\n  openai/x: {shortens: perhaps}\n":                    "must be true or false",
		"embeddings:\n  openai/x: {tokenizer: wordpiece}\n":                 "unknown",
		"embeddings:\n  openai/x: {prices: [{input: 1}, {input: \"1\"}]}\n": "overlaps",
	} {
		if _, err := catalog.Parse("my.yaml", []byte(text), known); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
