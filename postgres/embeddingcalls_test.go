package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/knowledge"
)

// Calls of embedding models stand in the views beside those of prompts, count in the
// budgets of their execution, and are priced anew as they are.
func TestEmbeddingCalls(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	ex := claimed(t, s)
	budget := func(scope string) {
		t.Helper()
		limit := decimal.NewFromInt(100)
		if _, err := s.SetBudget(t.Context(), executor.Budget{Scope: scope, Period: "day", LimitUSD: &limit}); err != nil {
			t.Fatal(err)
		}
	}
	budget("all")
	budget("chain:" + ex.ChainName)
	budget("chain:another")
	// Yesterday's figures are not added to.
	pgtest.Session(t, url)("UPDATE budgets SET period_start = period_start - interval '1 day', spent_usd = 7, spent_tokens = 7, reserved_tokens = 7 WHERE scope = 'all'")

	now := time.Now()
	cost := decimal.RequireFromString("0.25")
	book := func(b knowledge.Booking) {
		t.Helper()
		b.Provider, b.StartedAt, b.Duration = "v", now, 40*time.Millisecond
		if err := s.BookEmbedding(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	of := knowledge.Owner{ExecutionID: ex.ID, PromptID: 1}
	book(knowledge.Booking{Owner: of, Purpose: "query", Model: "e", Status: knowledge.BookedSucceeded, Texts: 1, InputTokens: 10, CostUSD: &cost})
	book(knowledge.Booking{Owner: of, Purpose: "query", Model: "e", Status: knowledge.BookedFailed, Texts: 1, ErrorCode: "unavailable", HTTPStatus: 503})
	book(knowledge.Booking{Owner: knowledge.Owner{DocumentID: 77}, Purpose: "document", Model: "e", Status: knowledge.BookedSucceeded, Texts: 100, InputTokens: 1000, Estimated: true, CostUSD: &cost})
	book(knowledge.Booking{Purpose: "request", Model: "local", Status: knowledge.BookedSucceeded, Texts: 2, InputTokens: 5, CostUSD: &decimal.Zero})
	book(knowledge.Booking{Purpose: "request", Model: "unpriced", Status: knowledge.BookedCancelled, Texts: 2})

	check := func(sql string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, list(t, url, sql)); diff != "" {
			t.Error(diff)
		}
	}
	const calls = `SELECT concat_ws('|', purpose, coalesce(execution_id::text, '-'), coalesce(chain_name, '-'), coalesce(document_id::text, '-'), model_id, status, texts, total_tokens,
		uncached_tokens, usage_source, coalesce(trim_scale(cost_usd)::text, '-'), error_code, http_status, duration_ms) FROM v_llm_calls ORDER BY purpose, model_id, total_tokens DESC`
	check(calls,
		"document|-|-|77|v/e|succeeded|100|1000|1000|estimated|0.25|40",
		fmt.Sprintf("query|%d|%s|-|v/e|succeeded|1|10|10|provider|0.25|40", ex.ID, ex.ChainName),
		fmt.Sprintf("query|%d|%s|-|v/e|failed|1|0|0|provider|-|unavailable|503|40", ex.ID, ex.ChainName),
		"request|-|-|-|v/local|succeeded|2|5|5|provider|0|40",
		"request|-|-|-|v/unpriced|cancelled|2|0|0|provider|-|40")
	check("SELECT concat_ws('|', coalesce(chain_name, '-'), model_id, calls, failed_calls, estimated_calls, input_tokens, trim_scale(cost_usd)) FROM v_costs_hourly WHERE calls > 0 ORDER BY chain_name NULLS FIRST, model_id",
		"-|v/e|1|0|1|1000|0.25", "-|v/local|1|0|0|5|0", "-|v/unpriced|1|1|0|0", ex.ChainName+"|v/e|2|1|0|10|0.25")
	check("SELECT concat_ws('|', model_id, calls, failed_calls, input_tokens, trim_scale(cost_usd)) FROM v_model_costs_daily ORDER BY 1", "v/e|3|1|1010|0.5", "v/local|1|0|5|0", "v/unpriced|1|1|0")
	const budgets = "SELECT concat_ws('|', left(scope, 6), trim_scale(spent_usd), spent_tokens, reserved_tokens, period_start = budget_period(period, now())) FROM budgets ORDER BY id"
	check(budgets, "all|0.25|10|0|t", "chain:|0.25|10|0|t", "chain:|0|0|0|t")
	// A budget that is made now begins with the same.
	pgtest.Session(t, url)("DELETE FROM budgets")
	budget("all")
	budget("chain:" + ex.ChainName)
	check(budgets, "all|0.25|10|0|t", "chain:|0.25|10|0|t")

	// The prices of the database count where it has any.
	pgtest.Session(t, url)("INSERT INTO model_prices (model_id, input_usd, output_usd) VALUES ('v/e', 1000000, 0)")
	r, err := s.Reprice(t.Context(), now.Add(-time.Hour), now.Add(time.Hour), false)
	if err != nil || r.Calls != 3 || r.Prompts != 0 || r.Before.String() != "0.5" || r.After.IntPart() != 1010 {
		t.Errorf("priced anew: %+v, %v", r, err)
	}
	if r, err = s.Reprice(t.Context(), now.Add(-time.Hour), now.Add(time.Hour), false); err != nil || r.Calls != 0 {
		t.Errorf("a second time: %+v, %v", r, err)
	}
	book(knowledge.Booking{Owner: of, Purpose: "query", Model: "e", Status: knowledge.BookedSucceeded, Texts: 1, InputTokens: 3, CostUSD: &cost})
	check(budgets, "all|3.25|13|0|t", "chain:|3.25|13|0|t")

	// What belongs to an execution goes with it.
	pgtest.Session(t, url)(fmt.Sprintf("DELETE FROM executions WHERE id = %d", ex.ID))
	check("SELECT count(*)::text FROM embedding_calls", "3")
}
