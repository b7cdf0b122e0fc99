package executor

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// health is what this process knows of how models are doing: whether their
// calls are stopped, and how many retries they are given. Each is a model of one
// provider; another process has its own.
type health struct {
	policy llm.BreakerPolicy
	now    func() time.Time
	logger *slog.Logger

	mu     sync.Mutex
	models map[string]*modelHealth
}

type modelHealth struct {
	breaker *llm.Breaker
	budget  *llm.RetryBudget
}

// maxHealth bounds the memory: chains may name any model.
const maxHealth = 1000

// of answers the health of a model.
func (h *health) of(id string) *modelHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.models[id]; m != nil {
		return m
	}
	if len(h.models) >= maxHealth {
		maps.DeleteFunc(h.models, func(_ string, m *modelHealth) bool { return m.breaker.State() == llm.BreakerClosed })
	}
	if h.models == nil || len(h.models) >= maxHealth {
		h.models = make(map[string]*modelHealth)
	}
	m := &modelHealth{
		breaker: llm.NewBreaker(h.policy, h.now, func(s llm.BreakerState) {
			level := slog.LevelInfo
			if s == llm.BreakerOpen {
				level = slog.LevelWarn
			}
			h.logger.Log(context.Background(), level, "circuit breaker of a model has changed", "model", id, "state", s.String())
		}),
		budget: llm.NewRetryBudget(h.now),
	}
	h.models[id] = m
	return m
}

// Circuit is how the circuit breaker of a model stands in this process.
type Circuit struct {
	Provider string // the first part of the model's id
	Model    string // the rest
	State    llm.BreakerState
}

// Circuits answers the breakers of all models that were called here, sorted.
func (e *Executor) Circuits() []Circuit {
	e.health.mu.Lock()
	defer e.health.mu.Unlock()
	out := make([]Circuit, 0, len(e.health.models))
	for _, id := range slices.Sorted(maps.Keys(e.health.models)) {
		provider, model, _ := strings.Cut(id, "/")
		out = append(out, Circuit{provider, model, e.health.models[id].breaker.State()})
	}
	return out
}
