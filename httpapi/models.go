package httpapi

import (
	"cmp"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/llm"
)

// modelEntry is a model that a chain may name.
type modelEntry struct {
	ID            string            `json:"id"` // provider/model
	Provider      string            `json:"provider"`
	Label         string            `json:"label"` // of the provider, for people
	Demo          bool              `json:"demo"`  // not a real model
	Configured    bool              `json:"configured"`
	Available     bool              `json:"available"`     // as far as is known without a call
	ContextWindow *int64            `json:"contextWindow"` // tokens; null = unknown
	MaxOutput     *int64            `json:"maxOutput"`     // tokens; null = unknown
	Capabilities  modelCapabilities `json:"capabilities"`
	TokenCount    string            `json:"tokenCount"` // exact or estimated
	Price         *modelPrice       `json:"price"`      // of a call now; null = unknown
}

type modelCapabilities struct {
	Vision    bool `json:"vision"`
	Tools     bool `json:"tools"`
	Schema    bool `json:"schema"`
	Reasoning bool `json:"reasoning"`
}

// modelPrice is in US dollars for a million tokens, as decimal text.
type modelPrice struct {
	Input       string     `json:"input"`
	CachedInput *string    `json:"cachedInput"` // null = as input
	CacheWrite  *string    `json:"cacheWrite"`  // null = as input
	Output      string     `json:"output"`
	From        *time.Time `json:"from"`  // null = no bound
	Until       *time.Time `json:"until"` // null = no bound
}

// providerEntry is what is known of a provider.
type providerEntry struct {
	ID         string     `json:"id"` // the first part of its model ids
	Label      string     `json:"label"`
	Demo       bool       `json:"demo"`
	Configured bool       `json:"configured"`
	Available  bool       `json:"available"`
	Local      bool       `json:"local"`     // a server that is looked for
	CheckedAt  *time.Time `json:"checkedAt"` // when it was last asked for its models; null = never
	Note       string     `json:"note"`      // what to do about it; empty = nothing
}

// modelList is all models, and who has them.
type modelList struct {
	list[modelEntry]
	Embeddings []embeddingEntry `json:"embeddings"`
	Providers  []providerEntry  `json:"providers"`
}

// embeddingEntry is a model that makes vectors. No prompt may name one.
type embeddingEntry struct {
	ID         string  `json:"id"` // provider/model
	Provider   string  `json:"provider"`
	Label      string  `json:"label"` // of the model where it has one, or else of the provider
	Configured bool    `json:"configured"`
	Available  bool    `json:"available"`  // as far as is known without a call
	Dimensions *int64  `json:"dimensions"` // of its own vectors; null = unknown
	Shortens   bool    `json:"shortens"`   // shorter ones can be asked for
	MaxTokens  *int64  `json:"maxTokens"`  // of a text; null = unknown
	Batch      *int64  `json:"batch"`      // texts of one call; null = unknown
	TokenCount string  `json:"tokenCount"` // exact or estimated
	Price      *string `json:"price"`      // US dollars for a million tokens, now; null = unknown
}

func embeddingEntries(models []llm.EmbeddingState, now time.Time) []embeddingEntry {
	out := make([]embeddingEntry, len(models))
	for i, m := range models {
		e := embeddingEntry{
			ID: m.ID, Provider: m.Provider, Label: cmp.Or(m.Label, m.ProviderLabel), Configured: m.Configured, Available: m.Callable,
			Dimensions: orNull(int64(m.Dimensions)), Shortens: m.Shortens, MaxTokens: orNull(int64(m.MaxTokens)), Batch: orNull(int64(m.Batch)),
			TokenCount: "estimated",
		}
		if m.Info.Count != nil {
			e.TokenCount = "exact"
		}
		if p, ok := m.Info.PriceAt(now); ok {
			text := p.Input.String()
			e.Price = &text
		}
		out[i] = e
	}
	return out
}

func (s *Server) listModels(c echo.Context) error {
	q := newQuery(c)
	refresh := q.flag("refresh", false)
	if q.err != nil {
		return q.err
	}
	if refresh {
		s.cfg.Models.Refresh(c.Request().Context(), true)
	}
	return c.JSON(http.StatusOK, ModelList(s.cfg.Models, time.Now()))
}

// ModelList answers what GET /api/v1/models does, for the command line.
func ModelList(models ModelLister, now time.Time) any {
	all := modelList{list: list[modelEntry]{Items: []modelEntry{}}, Embeddings: embeddingEntries(models.EmbeddingModels(), now), Providers: []providerEntry{}}
	for _, m := range models.Models() {
		e := modelEntry{
			ID: m.ID, Provider: m.Provider, Label: m.Label, Demo: m.Demo, Configured: m.Configured, Available: m.Available,
			ContextWindow: orNull(m.Info.ContextWindow), MaxOutput: orNull(m.Info.MaxOutput), TokenCount: "estimated",
			Capabilities: modelCapabilities{Vision: m.Info.Vision, Tools: m.Info.Tools, Schema: m.Info.Schema, Reasoning: m.Info.Reasoning},
		}
		if m.Info.Count != nil {
			e.TokenCount = "exact"
		}
		if p, ok := m.Info.PriceAt(now); ok {
			e.Price = priceEntry(p)
		}
		all.Items = append(all.Items, e)
	}
	for _, p := range models.Providers() {
		all.Providers = append(all.Providers, providerEntry{
			ID: p.Name, Label: p.Label, Demo: p.Demo, Configured: p.Configured, Available: p.Available, Local: p.Local,
			CheckedAt: moment(p.Checked), Note: p.Note,
		})
	}
	return all
}

func priceEntry(p llm.Price) *modelPrice {
	text := func(d *decimal.Decimal) *string {
		if d == nil {
			return nil
		}
		s := d.String()
		return &s
	}
	return &modelPrice{
		Input: p.Input.String(), CachedInput: text(p.CachedInput), CacheWrite: text(p.CacheWrite), Output: p.Output.String(),
		From: moment(p.From), Until: moment(p.Until),
	}
}

// orNull is a number that zero stands for the absence of.
func orNull(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

// moment is a time that the zero time stands for the absence of.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
