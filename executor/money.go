package executor

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// ModelPrice is a price with the model that it is of.
type ModelPrice struct {
	ModelID string // provider/model
	Source  string // PriceCatalogue, PriceFile or PriceOperator
	llm.Price
}

// Where prices come from. Those of an operator win, and servers leave them alone.
const (
	PriceCatalogue = "catalogue"
	PriceFile      = "file"
	PriceOperator  = "operator"
)

// MoneyState is what a process looks at all the time, to know whether it has to
// read more.
type MoneyState struct {
	Budgets bool   // there is at least one
	Prices  string // another one when a price has changed
}

// Accounts keeps the prices and budgets that all processes on the database share.
type Accounts interface {
	// MoneyState answers what there is to know of budgets and prices.
	MoneyState(ctx context.Context) (MoneyState, error)
	// Prices answers the prices of all models; of each the newest first.
	Prices(ctx context.Context) ([]ModelPrice, error)
	// Reserve holds the worst case of a call in all budgets that count it, or in none.
	Reserve(ctx context.Context, r Reservation) (Grant, error)
	// Settle books what a call that is closed in the ledger really cost, once.
	Settle(ctx context.Context, request string) error
	// Sweep settles what others left behind, and answers how many reservations
	// have gone.
	Sweep(ctx context.Context) (int64, error)
}

// money is what a process knows of prices and budgets.
type money struct {
	loading sync.Mutex // held while the first prices are read
	mu      sync.RWMutex
	prices  map[string][]llm.Price // by model, the newest first; nil before they were read
	version string
	budgets bool
	seen    time.Time // when that was so, by the monotonic clock
}

// refresh reads what has changed.
func (m *money) refresh(ctx context.Context, store Accounts) error {
	now := time.Now()
	state, err := store.MoneyState(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.budgets, m.seen = state.Budgets, now
	known := m.prices != nil && m.version == state.Prices
	m.mu.Unlock()
	if known {
		return nil
	}
	list, err := store.Prices(ctx)
	if err != nil {
		return err
	}
	prices := make(map[string][]llm.Price)
	for _, p := range list {
		prices[p.ModelID] = append(prices[p.ModelID], p.Price)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.prices, m.version = prices, state.Prices
	return nil
}

// load reads the prices unless they were read before.
func (m *money) load(ctx context.Context, store Accounts) error {
	if m.loaded() {
		return nil
	}
	m.loading.Lock() // the others wait for the one who reads
	defer m.loading.Unlock()
	if m.loaded() {
		return nil
	}
	return m.refresh(ctx, store)
}

func (m *money) loaded() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.prices != nil
}

// noBudgets tells whether there was no budget a moment ago, so that nobody has to
// be asked.
func (m *money) noBudgets(age time.Duration) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return !m.budgets && time.Since(m.seen) <= age
}

// priceAt answers the price of a call that begins at a moment: the newest one that
// is valid in the database, or what the registry knows of a model that the
// database has no price of.
func (m *money) priceAt(id string, info llm.Info, at time.Time) (llm.Price, bool) {
	m.mu.RLock()
	list, known := m.prices[id]
	m.mu.RUnlock()
	if !known {
		return info.PriceAt(at)
	}
	i := slices.IndexFunc(list, func(p llm.Price) bool {
		return !at.Before(p.From) && (p.Until.IsZero() || at.Before(p.Until))
	})
	if i < 0 {
		return llm.Price{}, false
	}
	return list[i], true
}

// watchMoney keeps what this process knows of prices and budgets up to date, and
// settles what a process left behind that stopped in between.
func (e *Executor) watchMoney() {
	e.every(e.cfg.Poll, nil, func(ctx context.Context) error {
		if err := e.money.refresh(ctx, e.store); err != nil || e.money.noBudgets(time.Hour) {
			return err
		}
		_, err := e.store.Sweep(ctx)
		return err
	})
}

// book adds what a call used to its prompt.
func book(s *events.PromptState, u llm.Usage) {
	s.InputTokens += u.InputTokens
	s.OutputTokens += u.OutputTokens
	s.CachedTokens += u.CachedTokens
	s.CacheWriteTokens += u.CacheWriteTokens
	s.ReasoningTokens += u.ReasoningTokens
	s.UsageEstimated = s.UsageEstimated || u.Estimated
}

// price books the cost of a call to its prompt and answers it; nil when the
// model has no price.
func (r *run) price(s *events.PromptState, id string, model llm.Info, u llm.Usage, at time.Time) (call *string) {
	if p, known := r.e.money.priceAt(id, model, at); known {
		cost := p.Cost(u).String()
		call = &cost
	}
	s.CostUSD = events.AddCost(s.CostUSD, call)
	return call
}

func usageSource(u llm.Usage) string {
	if u.Estimated {
		return events.UsageEstimated
	}
	return events.UsageProvider
}

// used answers what the call has used: what the provider says, and otherwise an
// estimate of the prompt and of what has come. Only a call that was turned down,
// or did not even get through, has used nothing.
func (c *call) used(err error) llm.Usage {
	guessed := c.usage != nil && c.usage.Estimated && c.target.Info.Count != nil // by a provider that does not know the tokenizer
	if c.usage != nil && c.usage.Plausible() && !guessed {
		return *c.usage
	}
	estimated := c.target.Info.EstimateUsage(c.request, c.text.all.String(), c.reasoning.all.String())
	if guessed {
		estimated.Raw = c.usage.Raw
	}
	e, ok := errors.AsType[*llm.Error](err)
	if !ok || c.usage != nil {
		return estimated
	}
	if e.Usage != nil && e.Usage.Plausible() {
		return atLeast(*e.Usage, estimated)
	}
	dial, ok := errors.AsType[*net.OpError](err)
	turnedDown := e.Status >= 400 || e.Code == llm.CodeInvalidRequest // the latter perhaps before it was sent
	if estimated.OutputTokens == 0 && (turnedDown || ok && dial.Op == "dial") {
		return llm.Usage{}
	}
	return estimated
}

// atLeast puts what has come in the place of figures that the provider gave
// before it had come.
func atLeast(u, seen llm.Usage) llm.Usage {
	if u.InputTokens == 0 {
		u.InputTokens, u.Estimated = seen.InputTokens, true
	}
	if u.OutputTokens < seen.OutputTokens {
		u.OutputTokens, u.Estimated = seen.OutputTokens, true
		u.ReasoningTokens = max(u.ReasoningTokens, seen.ReasoningTokens)
	}
	return u
}
