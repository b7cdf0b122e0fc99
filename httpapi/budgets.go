package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/executor"
)

// budgetView is a budget with what is left of it.
type budgetView struct {
	ID              int64        `json:"id"`
	Scope           string       `json:"scope"`
	Period          string       `json:"period"`
	LimitUSD        *json.Number `json:"limitUsd"`
	LimitTokens     *int64       `json:"limitTokens"`
	Since           *time.Time   `json:"since"`
	SpentUSD        json.Number  `json:"spentUsd"`
	SpentTokens     int64        `json:"spentTokens"`
	ReservedUSD     json.Number  `json:"reservedUsd"`
	ReservedTokens  int64        `json:"reservedTokens"`
	RemainingUSD    *json.Number `json:"remainingUsd"`
	RemainingTokens *int64       `json:"remainingTokens"`
	CreatedAt       time.Time    `json:"createdAt"`
	UpdatedAt       time.Time    `json:"updatedAt"`
}

func budgetViewOf(b executor.Budget) budgetView {
	v := budgetView{
		ID: b.ID, Scope: b.Scope, Period: b.Period, LimitTokens: b.LimitTokens,
		SpentUSD: usd(b.Spent.USD), SpentTokens: b.Spent.Tokens, ReservedUSD: usd(b.Reserved.USD), ReservedTokens: b.Reserved.Tokens,
		CreatedAt: b.CreatedAt.UTC(), UpdatedAt: b.UpdatedAt.UTC(),
	}
	if !b.Since.IsZero() {
		v.Since = utc(&b.Since)
	}
	if b.LimitUSD != nil {
		limit, left := usd(*b.LimitUSD), usd(decimal.Max(b.LimitUSD.Sub(b.Spent.USD).Sub(b.Reserved.USD), decimal.Zero))
		v.LimitUSD, v.RemainingUSD = &limit, &left
	}
	if b.LimitTokens != nil {
		left := max(*b.LimitTokens-b.Spent.Tokens-b.Reserved.Tokens, 0)
		v.RemainingTokens = &left
	}
	return v
}

// usd writes an amount exactly, as a number of JSON.
func usd(d decimal.Decimal) json.Number { return json.Number(d.String()) }

// listBudgets is GET /api/v1/budgets.
func (s *Server) listBudgets(c echo.Context) error {
	q := newQuery(c)
	limit, after := int(q.whole("limit", 1, 200, 50)), q.whole("cursor", 0, 1<<62, 0)
	if q.err != nil {
		return q.err
	}
	found, err := s.cfg.Store.Budgets(c.Request().Context(), after, limit+1)
	if err != nil {
		return err
	}
	items := make([]budgetView, len(found))
	for i, b := range found {
		items[i] = budgetViewOf(b)
	}
	return c.JSON(http.StatusOK, page(items, limit, func(b budgetView) int64 { return b.ID }))
}

// setBudget is PUT /api/v1/budgets: one budget for each scope and period.
func (s *Server) setBudget(c echo.Context) error {
	r, err := s.readObject(c)
	if err != nil {
		return err
	}
	b := r.budget()
	if len(r.problems) > 0 {
		return inputProblem(r.problems)
	}
	stored, err := s.cfg.Store.SetBudget(c.Request().Context(), b)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, budgetViewOf(stored))
}

// deleteBudget is DELETE /api/v1/budgets/{id}.
func (s *Server) deleteBudget(c echo.Context) error {
	id, ok := pathID(c.Param("id"))
	if !ok {
		return executor.ErrNoBudget
	}
	if err := s.cfg.Store.DeleteBudget(c.Request().Context(), id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func (r *fieldReader) budget() (b executor.Budget) {
	if b.Scope = r.text("scope"); b.Scope != executor.ScopeAll {
		name, ok := strings.CutPrefix(b.Scope, executor.ScopeChain(""))
		if !ok || !slug.MatchString(name) {
			r.add("/scope", chain.CodeInvalid, "must be all, or chain: and the name of a chain")
		}
	}
	if b.Period = r.text("period"); !slices.Contains(executor.Periods(), b.Period) {
		r.add("/period", chain.CodeInvalid, "must be one of "+strings.Join(executor.Periods(), ", "))
	}
	if raw, ok := r.field("limitUsd"); ok {
		b.LimitUSD = r.amount("/limitUsd", raw)
	}
	if raw, ok := r.field("limitTokens"); ok {
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || n < 0 || n > 1<<53 {
			r.add("/limitTokens", chain.CodeOutOfRange, "must be a whole number from 0 on")
		}
		b.LimitTokens = &n
	}
	r.surplus("scope", "period", "limitUsd", "limitTokens")
	if len(r.problems) == 0 && b.LimitUSD == nil && b.LimitTokens == nil {
		r.add("", chain.CodeRequired, "limitUsd or limitTokens is needed")
	}
	return b
}

func (r *fieldReader) text(name string) (text string) {
	if err := json.Unmarshal(r.fields[name], &text); err != nil {
		return ""
	}
	return text
}

// amount reads an amount of US dollars that may be 0, and keeps it exact.
func (r *fieldReader) amount(pointer string, raw json.RawMessage) *decimal.Decimal {
	const most, places, longest = 1_000_000_000, 9, 40
	about, err := strconv.ParseFloat(string(raw), 64) // first, because an exponent may be anything
	if err != nil || about < 0 || about > most || len(raw) > longest {
		r.add(pointer, chain.CodeOutOfRange, fmt.Sprintf("must be a number from 0 to %d", most))
		return nil
	}
	exact := decimal.Zero
	if about > 0 {
		exact, err = decimal.NewFromString(string(raw))
		if err != nil || about < 1e-10 || !exact.Truncate(places).Equal(exact) {
			r.add(pointer, chain.CodeInvalid, fmt.Sprintf("may have at most %d decimal places", places))
		}
	}
	return &exact
}
