package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/knowledge"
)

// Calls implements executor.History.
func (s *Store) Calls(ctx context.Context, execution int64) ([]events.CallState, error) {
	rows, err := s.queries.LLMCallList(ctx, execution)
	if err != nil {
		return nil, fmt.Errorf("load the calls of execution %d: %w", execution, translate(err))
	}
	out := make([]events.CallState, len(rows))
	for i, r := range rows {
		out[i] = events.CallState{
			RequestID: r.RequestID.String(), PromptID: r.PromptID, Attempt: int(r.Attempt), Provider: r.Provider, Model: r.Model,
			Status: string(r.Status), PromptTokens: r.PromptTokens, ReservedUSD: decimalText(r.ReservedUSD), ReservedTokens: r.ReservedTokens,
			Lost: r.Lost, InputTokens: r.InputTokens, OutputTokens: r.OutputTokens, CachedTokens: r.CachedTokens,
			CacheWriteTokens: r.CacheWriteTokens, ReasoningTokens: r.ReasoningTokens, RawUsage: r.RawUsage, UsageSource: deref(r.UsageSource),
			CostUSD: decimalText(r.CostUSD), ErrorCode: deref(r.ErrorCode), HTTPStatus: int(deref(r.HTTPStatus)), FinishReason: deref(r.FinishReason),
			ResponseID: deref(r.ResponseID), DurationMS: r.DurationMs, TimeToFirstTokenMS: r.TimeToFirstTokenMs,
			StartedAt: r.StartedAt, FinishedAt: r.FinishedAt,
		}
	}
	return out, nil
}

// BookEmbedding writes a call of an embedding model into the ledger, and what an
// execution spent by it into the budgets that count the execution.
func (s *Store) BookEmbedding(ctx context.Context, b knowledge.Booking) error {
	p := db.EmbeddingBookParams{
		Purpose: b.Purpose, ExecutionID: orNil(b.ExecutionID), PromptID: orNil(b.PromptID), DocumentID: orNil(b.DocumentID), Provider: b.Provider,
		Model: b.Model, Status: b.Status, Texts: int32(b.Texts), InputTokens: b.InputTokens, OutputTokens: b.OutputTokens, UsageSource: "provider",
		CostUSD: b.CostUSD, ErrorCode: orNil(b.ErrorCode), HTTPStatus: orNil(int32(b.HTTPStatus)), DurationMs: b.Duration.Milliseconds(), StartedAt: b.StartedAt,
	}
	if b.Estimated {
		p.UsageSource = "estimated"
	}
	if err := s.queries.EmbeddingBook(ctx, p); err != nil {
		return fmt.Errorf("book a call of %s/%s: %w", b.Provider, b.Model, translate(err))
	}
	return nil
}

// orNil answers nil for the zero value.
func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// MoneyState implements executor.Accounts.
func (s *Store) MoneyState(ctx context.Context) (executor.MoneyState, error) {
	row, err := s.queries.MoneyState(ctx)
	if err != nil {
		return executor.MoneyState{}, fmt.Errorf("look at budgets and prices: %w", translate(err))
	}
	return executor.MoneyState(row), nil
}

// Prices implements executor.Accounts.
func (s *Store) Prices(ctx context.Context) ([]executor.ModelPrice, error) {
	rows, err := s.queries.ModelPriceList(ctx)
	if err != nil {
		return nil, fmt.Errorf("read prices: %w", translate(err))
	}
	out := make([]executor.ModelPrice, len(rows))
	for i, r := range rows {
		p := executor.ModelPrice{ModelID: r.ModelID, Source: r.Source}
		p.From, p.Until = r.ValidFrom, r.ValidUntil
		p.Input, p.CachedInput, p.CacheWrite, p.Output = r.InputUSD, r.CachedInputUSD, r.CacheWriteUSD, r.OutputUSD
		out[i] = p
	}
	return out, nil
}

// SyncPrices brings the prices of the given models to what is given, and answers
// how many rows had to be written or deleted. A model that an operator has written
// a price of is left alone, and so are models that are not given: their calls may
// have to be priced anew. Several servers may do so at once.
func (s *Store) SyncPrices(ctx context.Context, prices []executor.ModelPrice) (changed int64, err error) {
	var p db.ModelPriceSyncParams
	for _, m := range prices {
		if !m.Until.IsZero() && !m.Until.After(m.From) {
			continue // never valid
		}
		p.ModelIds = append(p.ModelIds, m.ModelID)
		p.ValidFrom = append(p.ValidFrom, timeText(m.From))
		p.ValidUntil = append(p.ValidUntil, timeText(m.Until))
		p.InputUSD = append(p.InputUSD, m.Input.String())
		p.CachedInputUSD = append(p.CachedInputUSD, deref(decimalText(m.CachedInput)))
		p.CacheWriteUSD = append(p.CacheWriteUSD, deref(decimalText(m.CacheWrite)))
		p.OutputUSD = append(p.OutputUSD, m.Output.String())
		p.Sources = append(p.Sources, cmp.Or(m.Source, executor.PriceCatalogue))
	}
	if len(p.ModelIds) == 0 {
		return 0, nil
	}
	err = s.inTx(ctx, func(q *db.Queries) (err error) {
		if err := q.ModelPriceSyncBegin(ctx); err != nil {
			return err
		}
		changed, err = q.ModelPriceSync(ctx, p)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("store the prices of models: %w", err)
	}
	return changed, nil
}

// timeText writes a bound; the zero time is none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Repriced is what became of costs that were computed anew.
type Repriced struct {
	Calls         int64 // rows that changed
	Prompts       int64
	Executions    int64
	Running       int64 // calls of executions that have not ended, and were left out
	Before, After decimal.Decimal
}

// errDryRun ends a transaction that only looks.
var errDryRun = errors.New("nothing is to be changed")

// Reprice computes what the calls that began in a time cost anew, from the prices
// that the database has now, and with it all sums. With dry nothing is changed
// and the answer is what would be.
func (s *Store) Reprice(ctx context.Context, since, until time.Time, dry bool) (r Repriced, err error) {
	err = s.inTx(ctx, func(q *db.Queries) error {
		if r.Before, err = q.LLMCostBetween(ctx, db.LLMCostBetweenParams{Since: since, Until: until}); err != nil {
			return err
		}
		row, err := q.LLMReprice(ctx, db.LLMRepriceParams{Since: since, Until: until})
		if err != nil {
			return err
		}
		r.Calls, r.Prompts, r.Executions, r.Running = row.Calls, row.Prompts, row.Executions, row.Running
		if r.After, err = q.LLMCostBetween(ctx, db.LLMCostBetweenParams{Since: since, Until: until}); err == nil && dry {
			err = errDryRun
		}
		return err
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return r, fmt.Errorf("price calls anew: %w", err)
	}
	return r, nil
}

// Reserve implements executor.Accounts.
func (s *Store) Reserve(ctx context.Context, r executor.Reservation) (g executor.Grant, err error) {
	id, err := uuid.Parse(r.Request)
	if err != nil {
		return g, fmt.Errorf("reserve for a call: %w", err)
	}
	row, err := s.queries.BudgetReserve(ctx, db.BudgetReserveParams{
		RequestID: id, ExecutionID: r.Execution, LeaseEpoch: r.Epoch, Tenant: r.Tenant, Scopes: r.Scopes,
		InputUSD: r.InputUSD, OutputUSD: r.OutputUSD, InputTokens: r.InputTokens, Want: r.Want, Minimum: r.Minimum,
	})
	if err != nil {
		return g, fmt.Errorf("reserve for call %s: %w", r.Request, translate(err))
	}
	g = executor.Grant{Output: row.Granted, Held: row.Held, Unpriced: row.Unpriced}
	if g.Output < 0 {
		g.Refused = executor.Budget{
			Scope: row.Scope, Period: row.Period,
			Spent:    executor.Amount{USD: row.SpentUSD, Tokens: row.SpentTokens},
			Reserved: executor.Amount{USD: row.ReservedUSD, Tokens: row.ReservedTokens},
		}
		if limit, err := decimal.NewFromString(row.LimitUSD); err == nil { // else there is none
			g.Refused.LimitUSD = &limit
		}
		if row.LimitTokens >= 0 {
			g.Refused.LimitTokens = &row.LimitTokens
		}
	}
	return g, nil
}

// Settle implements executor.Accounts.
func (s *Store) Settle(ctx context.Context, request string) error {
	id, err := uuid.Parse(request)
	if err == nil {
		_, err = s.queries.BudgetSettle(ctx, []uuid.UUID{id})
	}
	if err != nil {
		return fmt.Errorf("settle call %s: %w", request, translate(err))
	}
	return nil
}

// sweepAge is how old a reservation is that its own process had the time to settle.
const sweepAge = 5 * time.Second

// Sweep implements executor.Accounts.
func (s *Store) Sweep(ctx context.Context) (int64, error) {
	n, err := s.queries.BudgetSweep(ctx, sweepAge)
	if err != nil {
		return 0, fmt.Errorf("settle what was left behind: %w", translate(err))
	}
	return n, nil
}

// Budgets answers up to limit budgets by id, above after.
func (s *Store) Budgets(ctx context.Context, after int64, limit int) ([]executor.Budget, error) {
	rows, err := s.queries.BudgetList(ctx, db.BudgetListParams{After: after, MaxRows: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("list budgets: %w", translate(err))
	}
	out := make([]executor.Budget, len(rows))
	for i, r := range rows {
		out[i] = executor.Budget{
			ID: r.ID, Scope: r.Scope, Period: r.Period, LimitUSD: r.LimitUSD, LimitTokens: r.LimitTokens, Since: r.PeriodStart,
			Spent:     executor.Amount{USD: r.SpentUSD, Tokens: r.SpentTokens},
			Reserved:  executor.Amount{USD: r.ReservedUSD, Tokens: r.ReservedTokens},
			CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
		}
	}
	return out, nil
}

// SetBudget makes a budget, or changes the limits of the one that has its scope
// and period. A new one begins with what the ledger says was used in the period.
func (s *Store) SetBudget(ctx context.Context, b executor.Budget) (executor.Budget, error) {
	id, err := s.queries.BudgetSet(ctx, db.BudgetSetParams{Scope: b.Scope, Period: b.Period, LimitUSD: b.LimitUSD, LimitTokens: b.LimitTokens})
	if err != nil {
		return executor.Budget{}, fmt.Errorf("set a budget: %w", translate(err))
	}
	list, err := s.Budgets(ctx, id-1, 1)
	if err == nil && (len(list) == 0 || list[0].ID != id) {
		err = executor.ErrNoBudget // deleted between the two statements
	}
	if err != nil {
		return executor.Budget{}, err
	}
	return list[0], nil
}

// DeleteBudget removes a budget with what it counted, or answers
// executor.ErrNoBudget.
func (s *Store) DeleteBudget(ctx context.Context, id int64) error {
	n, err := s.queries.BudgetDelete(ctx, id)
	if err == nil && n == 0 {
		err = executor.ErrNoBudget
	}
	if err != nil {
		return fmt.Errorf("delete budget %d: %w", id, translate(err))
	}
	return nil
}
