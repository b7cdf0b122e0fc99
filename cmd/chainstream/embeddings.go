package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/catalog"
	"github.com/chainstream/chainstream/llm/offline"
)

// knownEmbeddings answers the embedding models of a vendor that the catalogue knows.
func knownEmbeddings(known *catalog.Catalog, v vendor) (models []llm.EmbeddingModel) {
	for _, name := range known.Embeddings(v.name) {
		m, _ := known.EmbeddingModel(v.name + "/" + name)
		m.ID = name
		models = append(models, v.priced(m))
	}
	return models
}

// priced adds that a vendor's models cost nothing, where that is so.
func (v vendor) priced(m llm.EmbeddingModel) llm.EmbeddingModel {
	if v.free && len(m.Info.Prices) == 0 {
		m.Info.Prices = llm.Free()
	}
	return m
}

// embeddingModels finds the embedding models of the providers of a registry, and
// keeps what this process learns of each.
type embeddingModels struct {
	registry *llm.Registry
	logger   *slog.Logger
	observe  func(provider string, c knowledge.EmbeddingCall, price *llm.Price) // may be nil
	book     func(context.Context, knowledge.Booking) error                     // into the ledger; may be nil

	mu     sync.Mutex
	states map[string]*knowledge.EmbeddingState
}

func embeddings(registry *llm.Registry, logger *slog.Logger) *embeddingModels {
	return &embeddingModels{registry: registry, logger: logger, states: make(map[string]*knowledge.EmbeddingState)}
}

const (
	// embeddingBatch is how many texts one call has where it is not known how many
	// the model takes, and the most that it has elsewhere: an answer with the vectors
	// of more is megabytes, and a failure costs all of it.
	embeddingBatch = 100
	// embeddingTokens bounds the tokens of one call where no limit is known.
	embeddingTokens = 100_000
	// maxEmbeddingStates bounds the memory: clients may name any model.
	maxEmbeddingStates = 1000
)

// Embedding implements knowledge.Embeddings. Its errors are those of
// llm.Registry.Resolve, or say that the provider has no embeddings.
func (m *embeddingModels) Embedding(id string) (knowledge.Embedding, error) {
	target, err := m.registry.Resolve(id)
	if err != nil {
		return knowledge.Embedding{}, err
	}
	if target.Vendor == offline.Name {
		e, err := offlineEmbedding(target)
		e.State, e.Observe = m.state(id), m.observer(target, llm.EmbeddingModel{Info: llm.Info{Prices: llm.Free()}})
		return e, err
	}
	embedder, ok := target.Provider.(llm.Embedder)
	if !ok {
		return knowledge.Embedding{}, fmt.Errorf("%w: the provider of %q has no embeddings", llm.ErrUnknownModel, id)
	}
	known, _ := m.registry.EmbeddingModel(id)
	e := knowledge.Embedding{
		Embedder: embedder, Model: target.Model, Dimensions: known.Dimensions, MaxTokens: known.MaxTokens,
		Batch: embeddingBatch, BatchTokens: embeddingTokens, Count: llm.EstimateTokens, State: m.state(id), Observe: m.observer(target, known),
	}
	if known.Batch > 0 {
		e.Batch = min(known.Batch, embeddingBatch)
	}
	if known.BatchTokens > 0 {
		e.BatchTokens = min(known.BatchTokens, embeddingTokens)
	}
	if known.Info.Count != nil {
		e.Count, e.Exact = known.Info.Count, true
	}
	return e, nil
}

// state answers what is known of how a model is doing.
func (m *embeddingModels) state(id string) *knowledge.EmbeddingState {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.states[id]; s != nil {
		return s
	}
	if len(m.states) >= maxEmbeddingStates {
		clear(m.states)
	}
	s := knowledge.NewEmbeddingState(llm.NewBreaker(llm.BreakerPolicy{}, nil, func(to llm.BreakerState) {
		level := slog.LevelInfo
		if to == llm.BreakerOpen {
			level = slog.LevelWarn
		}
		m.logger.Log(context.Background(), level, "circuit breaker of a model has changed", "model", id, "state", to.String())
	}), llm.NewRetryBudget(nil))
	m.states[id] = s
	return s
}

// observer answers what is told of the calls of a model.
func (m *embeddingModels) observer(target llm.Target, known llm.EmbeddingModel) func(knowledge.EmbeddingCall) {
	return func(c knowledge.EmbeddingCall) {
		if c.Cut > 0 {
			m.logger.Warn("texts were longer than the embedding model takes, and cut", "model", target.ID, "texts", c.Cut)
		}
		var price *llm.Price
		if p, ok := known.Info.PriceAt(time.Now()); ok {
			price = &p
		}
		if m.observe != nil {
			m.observe(target.Vendor, c, price)
		}
		if m.book == nil {
			return
		}
		// It was paid for, whether or not anybody still waits for it; and what was asked
		// for does not fail for the sake of the ledger.
		ctx, cancel := context.WithTimeout(context.Background(), bookWithin)
		defer cancel()
		if err := m.book(ctx, booking(target, c, price)); err != nil {
			m.logger.Error("a call of an embedding model is not in the ledger", "model", target.ID, "purpose", purposeOf(c),
				"tokens", c.Usage.InputTokens+c.Usage.OutputTokens, "error", err)
		}
	}
}

// bookWithin bounds how long a search waits for the ledger.
const bookWithin = 2 * time.Second

// booking answers a call as the ledger keeps it.
func booking(target llm.Target, c knowledge.EmbeddingCall, price *llm.Price) knowledge.Booking {
	b := knowledge.Booking{
		Owner: c.Owner, Purpose: purposeOf(c), Provider: target.Vendor, Model: target.Model, Status: knowledge.BookedSucceeded, Texts: c.Texts,
		InputTokens: c.Usage.InputTokens, OutputTokens: c.Usage.OutputTokens, Estimated: c.Usage.Estimated, StartedAt: c.Begin, Duration: c.Duration,
	}
	if price != nil {
		cost := price.Cost(c.Usage)
		b.CostUSD = &cost
	}
	if c.Err == nil {
		return b
	}
	b.Status = knowledge.BookedFailed
	if failed, ok := errors.AsType[*llm.Error](c.Err); ok {
		b.ErrorCode, b.HTTPStatus = string(failed.Code), failed.Status
	}
	if errors.Is(c.Err, context.Canceled) {
		b.Status = knowledge.BookedCancelled
	}
	return b
}

func purposeOf(c knowledge.EmbeddingCall) string {
	if c.Purpose == llm.PurposeAny {
		return "request"
	}
	return string(c.Purpose)
}

// circuits answers the breakers of those models that no prompt has called, after
// those of prompts.
func (m *embeddingModels) circuits(of func() []executor.Circuit) func() []executor.Circuit {
	return func() []executor.Circuit {
		out := of()
		seen := make(map[string]bool, len(out))
		for _, c := range out {
			seen[c.Provider+"/"+c.Model] = true
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, id := range slices.Sorted(maps.Keys(m.states)) {
			if provider, model, _ := strings.Cut(id, "/"); !seen[id] {
				out = append(out, executor.Circuit{Provider: provider, Model: model, State: m.states[id].Circuit()})
			}
		}
		return out
	}
}
