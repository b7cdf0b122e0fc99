// Package catalog knows models by name: their limits, what they can, what they
// cost and when, and which tokenizer is theirs. What Chainstream ships with is
// models.yaml; a file of the operator adds to it or corrects it, and names
// further providers. Nothing needs to be in a catalogue to be called.
package catalog

import (
	_ "embed"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/tokenizer"
)

//go:embed models.yaml
var builtin []byte

// Catalog is a set of models and of providers beyond the built-in ones. It does
// not change and is safe for concurrent use.
type Catalog struct {
	models     map[string]Model     // by provider/model
	embeddings map[string]Embedding // likewise
	providers  map[string]Provider
}

// Model is what is known of a model. What is nil or empty is unknown, or, in a
// file of the operator, not corrected.
type Model struct {
	ContextWindow, MaxOutput *int64
	Capabilities             *Capabilities
	Tokenizer                string      // a name of package tokenizer
	Prices                   []llm.Price // oldest first, without overlap
	priced                   bool        // Prices were given, be it none
	corrected                bool        // by the operator
}

// Capabilities are what a model can; see llm.Info.
type Capabilities struct{ Vision, Tools, Schema, Reasoning bool }

// Provider is a server that the operator named.
type Provider struct {
	Label               string // for people; the name when none was given
	BaseURL             string // up to and including the version
	KeyEnv              string // the environment variable of its key; empty = it needs none
	API                 string // the vendor whose API it speaks: openai, anthropic or gemini
	MaxCompletionTokens bool   // send the token limit as OpenAI's newer models want it
	Detect              bool   // ask whether it runs, and for its models
	Free                bool   // its models cost nothing
}

// Builtin answers the models that Chainstream ships with.
var Builtin = sync.OnceValue(func() *Catalog {
	c, err := Parse("models.yaml", builtin, []string{"openai", "anthropic", "gemini", "ollama", "lmstudio"})
	if err != nil {
		panic(err) // the tests read it
	}
	return c
})

// With answers the catalogue with the corrections of another. A model that is
// there in both, or is a dated release of one that is here, keeps what is not
// corrected.
func (c *Catalog) With(over *Catalog) *Catalog {
	merged := &Catalog{models: maps.Clone(c.models), embeddings: maps.Clone(c.embeddings), providers: maps.Clone(c.providers)}
	maps.Copy(merged.providers, over.providers)
	for id, e := range over.embeddings {
		base, _ := c.LookupEmbedding(id)
		merged.embeddings[id] = base.with(e)
	}
	for id, m := range over.models {
		base, _ := c.Lookup(id)
		merged.models[id] = base.with(m)
	}
	return merged
}

func (m Model) with(over Model) Model {
	if over.ContextWindow != nil {
		m.ContextWindow = over.ContextWindow
	}
	if over.MaxOutput != nil {
		m.MaxOutput = over.MaxOutput
	}
	if over.Capabilities != nil {
		m.Capabilities = over.Capabilities
	}
	if over.Tokenizer != "" {
		m.Tokenizer = over.Tokenizer
	}
	if over.priced {
		m.Prices, m.priced, m.corrected = over.Prices, true, true
	}
	return m
}

// Providers answers the providers of the catalogue by name.
func (c *Catalog) Providers() map[string]Provider { return maps.Clone(c.providers) }

// Models answers the names of a provider's models, sorted and without prefix.
func (c *Catalog) Models(provider string) []string {
	var names []string
	for id := range c.models {
		if name, ok := strings.CutPrefix(id, provider+"/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// release is what may follow the name of a model without making another model
// of it: a date, the number of a release, or the word for the newest one.
// Anything else, be it a single digit, names another model.
var release = regexp.MustCompile(`^(-latest|[-@]\d{8}|-\d{4}-\d{2}-\d{2}|-\d{4}|-\d{3})$`)

// Lookup answers what is known of a model, whose id is provider/model: the model
// of that name, or else the one with the longest name of which the id is a
// dated release.
func (c *Catalog) Lookup(id string) (Model, bool) { return lookup(c.models, id) }

func lookup[M any](models map[string]M, id string) (found M, ok bool) {
	if m, ok := models[id]; ok {
		return m, true
	}
	for i := len(id) - 1; i > 0; i-- {
		if id[i] != '-' && id[i] != '@' || !release.MatchString(id[i:]) {
			continue
		}
		if m, ok := models[id[:i]]; ok {
			return m, true
		}
	}
	return found, false
}

// Info is Lookup in the form of the contract; the zero Info when nothing is
// known.
func (c *Catalog) Info(id string) llm.Info {
	m, _ := c.Lookup(id)
	info := llm.Info{Prices: m.Prices, OwnPrices: m.corrected, Count: tokenizer.Counter(m.Tokenizer)}
	if m.ContextWindow != nil {
		info.ContextWindow = *m.ContextWindow
	}
	if m.MaxOutput != nil {
		info.MaxOutput = *m.MaxOutput
	}
	if can := m.Capabilities; can != nil {
		info.Vision, info.Tools, info.Schema, info.Reasoning = can.Vision, can.Tools, can.Schema, can.Reasoning
	}
	return info
}
