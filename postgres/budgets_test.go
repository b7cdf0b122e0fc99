package postgres_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

// wish is a reservation of 10 tokens of prompt and up to 90 of answer, for a dollar each.
func wish(ex executor.Execution) executor.Reservation {
	return executor.Reservation{
		Request: uuid.NewString(), Execution: ex.ID, Epoch: ex.Epoch, Tenant: "default", Scopes: []string{"all", "chain:" + ex.ChainName},
		InputTokens: 10, Want: 90, Minimum: 20, InputUSD: usdPointer("10"), OutputUSD: usdPointer("1"),
	}
}

func setBudget(t *testing.T, s *postgres.Store, scope, period, limit string, tokens int64) executor.Budget {
	t.Helper()
	b := executor.Budget{Scope: scope, Period: period}
	if limit != "" {
		b.LimitUSD = usdPointer(limit)
	}
	if tokens > 0 {
		b.LimitTokens = &tokens
	}
	got, err := s.SetBudget(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// figures answers spent and reserved of the budgets, in dollars and tokens.
func figures(t *testing.T, s *postgres.Store) []string {
	t.Helper()
	list, err := s.Budgets(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = fmt.Sprintf("%s/%d + %s/%d", b.Spent.USD, b.Spent.Tokens, b.Reserved.USD, b.Reserved.Tokens)
	}
	return out
}

func expectFigures(t *testing.T, s *postgres.Store, want ...string) {
	t.Helper()
	if got := figures(t, s); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("spent and reserved: %v, want %v", got, want)
	}
}

// A call is reserved in all budgets that count it or in none, shorter where one has
// less room, and refused with the figures of the one that has too little.
func TestReserve(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	ex := claimed(t, s)
	reserve := func(r executor.Reservation) executor.Grant {
		t.Helper()
		g, err := s.Reserve(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	if g := reserve(wish(ex)); g.Output != 90 || g.Held {
		t.Errorf("without budgets: %+v", g)
	}
	setBudget(t, s, "all", "total", "170", 0)
	setBudget(t, s, "chain:other", "total", "1", 1)
	own := setBudget(t, s, "chain:"+ex.ChainName, "day", "", 165)
	first := wish(ex)
	if g := reserve(first); g.Output != 90 || !g.Held {
		t.Errorf("first: %+v", g)
	}
	if g := reserve(first); g.Output != 90 || !g.Held {
		t.Errorf("the same again: %+v", g)
	}
	expectFigures(t, s, "0/0 + 100/100", "0/0 + 0/0", "0/0 + 100/100")
	if g := reserve(wish(ex)); g.Output != 55 || !g.Held {
		t.Errorf("second: %+v", g)
	}
	expectFigures(t, s, "0/0 + 165/165", "0/0 + 0/0", "0/0 + 165/165")
	g := reserve(wish(ex))
	if g.Output != -1 || g.Held || g.Unpriced || g.Refused.Scope != "all" || g.Refused.LimitUSD.String() != "170" || g.Refused.LimitTokens != nil || g.Refused.Reserved.USD.String() != "165" {
		t.Errorf("third: %+v", g)
	}
	setBudget(t, s, "all", "total", "100000", 0)
	g = reserve(wish(ex))
	if g.Output != -1 || g.Refused.Scope != own.Scope || *g.Refused.LimitTokens != 165 || g.Refused.Reserved.Tokens != 165 || g.Refused.Period != "day" {
		t.Errorf("after a change of the first budget: %+v", g)
	}
	expectFigures(t, s, "0/0 + 165/165", "0/0 + 0/0", "0/0 + 165/165")
	unpriced := wish(ex)
	unpriced.InputUSD, unpriced.OutputUSD = nil, nil
	if g = reserve(unpriced); g.Output != -1 || !g.Unpriced || g.Refused.Scope != "all" {
		t.Errorf("without a price: %+v", g)
	}
	// Division does not round in favour of the call.
	setBudget(t, s, "all", "total", "201.999999999999999999999999", 0)
	if err := s.DeleteBudget(t.Context(), own.ID); err != nil {
		t.Fatal(err)
	}
	thirds := wish(ex)
	thirds.OutputUSD = usdPointer("1.000000000000000000000001")
	if g = reserve(thirds); g.Output != 26 {
		t.Errorf("granted %+v", g)
	}
}

// close writes the ledger row of a call.
func closeCall(t *testing.T, sql func(...string), ex executor.Execution, request, status, cost string, lost bool) {
	t.Helper()
	sql(fmt.Sprintf(`INSERT INTO llm_calls (request_id, execution_id, prompt_id, attempt, provider, model, status, lost, input_tokens, output_tokens, cost_usd, usage_source, started_at, finished_at)
		VALUES ('%s', %d, 7, 1, 'v', 'm', '%s', %t, 10, 5, %s, 'provider', now(), now())`, request, ex.ID, status, lost, cost))
}

// A reservation is settled once, with what the ledger says of its call, and by
// whom does not matter.
func TestSettle(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prepare func(sql func(...string), ex executor.Execution, request string)
		want    string
	}{
		"closed": {func(sql func(...string), ex executor.Execution, request string) {
			closeCall(t, sql, ex, request, "succeeded", "15", false)
		}, "15/15 + 0/0"},
		"closed without a price": {func(sql func(...string), ex executor.Execution, request string) {
			closeCall(t, sql, ex, request, "failed", "NULL", false)
		}, "0/15 + 0/0"},
		"lost": {func(sql func(...string), ex executor.Execution, request string) {
			closeCall(t, sql, ex, request, "failed", "15", true)
		}, "100/100 + 0/0"},
		"lost and dearer": {func(sql func(...string), ex executor.Execution, request string) {
			closeCall(t, sql, ex, request, "failed", "150", true)
		}, "150/100 + 0/0"},
		"still open": {func(sql func(...string), ex executor.Execution, request string) {
			closeCall(t, sql, ex, request, "open", "NULL", false)
		}, "0/0 + 100/100"},
		"not on record yet": {func(func(...string), executor.Execution, string) {}, "0/0 + 100/100"},
		"never on record, taken over": {func(sql func(...string), _ executor.Execution, _ string) {
			sql("UPDATE executions SET lease_epoch = lease_epoch + 1")
		}, "0/0 + 0/0"},
		"never on record, ended": {func(sql func(...string), _ executor.Execution, _ string) {
			sql("UPDATE executions SET finished_at = now(), status = 'failed'")
		}, "0/0 + 0/0"},
		"erased": {func(sql func(...string), _ executor.Execution, _ string) {
			sql("DELETE FROM executions")
		}, "100/100 + 0/0"},
		"period over": {func(sql func(...string), ex executor.Execution, request string) {
			closeCall(t, sql, ex, request, "succeeded", "15", false)
			sql("UPDATE budgets SET period_start = period_start - interval '1 month', spent_usd = 70")
			sql("UPDATE budget_reservations SET period_start = period_start - interval '2 months'")
		}, "0/0 + 0/0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, url := open(t)
			sql := pgtest.Session(t, url)
			ex := claimed(t, s)
			setBudget(t, s, "all", "month", "100", 0)
			r := wish(ex)
			if g, err := s.Reserve(t.Context(), r); err != nil || !g.Held {
				t.Fatalf("%+v, %v", g, err)
			}
			tt.prepare(sql, ex, r.Request)
			var wg sync.WaitGroup
			for range 4 { // at once, and again
				wg.Go(func() {
					if err := s.Settle(t.Context(), r.Request); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			expectFigures(t, s, tt.want)
			sql("UPDATE budget_reservations SET created_at = created_at - interval '1 minute'")
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			expectFigures(t, s, tt.want)
		})
	}
}

// The sweep finds what nobody settled.
func TestSweep(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	sql := pgtest.Session(t, url)
	ex := claimed(t, s)
	setBudget(t, s, "all", "total", "1000", 0)
	setBudget(t, s, "chain:"+ex.ChainName, "total", "1000", 0)
	for range 3 {
		r := wish(ex)
		if _, err := s.Reserve(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		closeCall(t, sql, ex, r.Request, "cancelled", "15", false)
	}
	if n, err := s.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("%d settled that their process may settle, %v", n, err)
	}
	sql("UPDATE budget_reservations SET created_at = created_at - interval '1 minute'")
	if n, err := s.Sweep(t.Context()); err != nil || n != 6 {
		t.Errorf("%d settled, %v", n, err)
	}
	expectFigures(t, s, "45/45 + 0/0", "45/45 + 0/0")
}

// Erasing an execution first books what its calls cost.
func TestEraseSettles(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	sql := pgtest.Session(t, url)
	ex := claimed(t, s)
	setBudget(t, s, "all", "total", "1000", 0)
	r := wish(ex)
	if _, err := s.Reserve(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	closeCall(t, sql, ex, r.Request, "succeeded", "15", false)
	sql("UPDATE executions SET finished_at = now(), status = 'completed'")
	if err := s.DeleteExecution(t.Context(), ex.ID); err != nil {
		t.Fatal(err)
	}
	expectFigures(t, s, "15/15 + 0/0")
}

// A period begins anew by the clock of the database, without anybody's doing; what
// was reserved before counts there.
func TestPeriods(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	sql := pgtest.Session(t, url)
	ex := claimed(t, s)
	for i, period := range executor.Periods() {
		setBudget(t, s, []string{"all", "chain:" + ex.ChainName}[i%2], period, "100", 0)
	}
	if g, err := s.Reserve(t.Context(), wish(ex)); err != nil || g.Output != 90 {
		t.Fatalf("%+v, %v", g, err)
	}
	full := "0/0 + 100/100"
	expectFigures(t, s, full, full, full, full)
	if g, err := s.Reserve(t.Context(), wish(ex)); err != nil || g.Output != -1 {
		t.Errorf("a second call: %+v, %v", g, err)
	}
	// An hour, a day and a month later. What was reserved goes with its period.
	sql("UPDATE budgets SET period_start = period_start - ('1 ' || period)::interval WHERE period <> 'total'",
		"UPDATE budget_reservations r SET period_start = b.period_start FROM budgets b WHERE b.id = r.budget_id",
		"UPDATE budgets SET limit_usd = 300 WHERE period = 'total'")
	expectFigures(t, s, "0/0 + 0/0", "0/0 + 0/0", "0/0 + 0/0", full)
	if g, err := s.Reserve(t.Context(), wish(ex)); err != nil || g.Output != 90 {
		t.Errorf("in the new period: %+v, %v", g, err)
	}
	expectFigures(t, s, full, full, full, "0/0 + 200/200")
	list, err := s.Budgets(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	if at := list[1].Since.UTC(); at.Hour() != 0 || now.Sub(at) > 25*time.Hour {
		t.Errorf("the day began at %s", at)
	}
	if at := list[2].Since.UTC(); at.Day() != 1 || at.Hour() != 0 {
		t.Errorf("the month began at %s", at)
	}
	if at := list[3].Since; !at.IsZero() {
		t.Errorf("all time began at %s", at)
	}
}

// A new budget knows what was used in its period; one that exists keeps its figures.
func TestSetBudget(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	ex := claimed(t, s)
	book(t, s, ex, events.CallState{InputTokens: 10, OutputTokens: 5, CostUSD: new("0.25")},
		events.CallState{InputTokens: 10, OutputTokens: 5, CostUSD: new("4"), StartedAt: time.Now().Add(-24 * 40 * time.Hour)})
	first := setBudget(t, s, "all", "month", "1", 0)
	setBudget(t, s, "all", "total", "", 500)
	setBudget(t, s, "chain:"+ex.ChainName, "day", "1", 0)
	setBudget(t, s, "chain:other", "total", "1", 0)
	want := []string{"0.25/15 + 0/0", "4.25/30 + 0/0", "0.25/15 + 0/0", "0/0 + 0/0"}
	expectFigures(t, s, want...)
	again := setBudget(t, s, "all", "month", "0", 7)
	if again.ID != first.ID || !again.LimitUSD.IsZero() || *again.LimitTokens != 7 {
		t.Errorf("set again: %+v", again)
	}
	expectFigures(t, s, want...)
	if err := s.DeleteBudget(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteBudget(t.Context(), first.ID); !errors.Is(err, executor.ErrNoBudget) {
		t.Errorf("delete again: %v", err)
	}
}

// Whoever reserves and settles in whatever order, over overlapping budgets: nobody
// waits for ever, and at the end the figures are those of the ledger.
func TestBudgetsWithoutDeadlocks(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	ex := claimed(t, s)
	for _, scope := range []string{"chain:" + ex.ChainName, "all", "chain:other"} {
		for _, period := range executor.Periods() {
			setBudget(t, s, scope, period, "1000000", 0)
		}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		sql := pgtest.Session(t, url)
		wg.Go(func() {
			for range 15 {
				r := wish(ex)
				if i%2 == 0 {
					r.Scopes = []string{"chain:other", "all"}
				}
				if g, err := s.Reserve(t.Context(), r); err != nil || g.Output != 90 {
					t.Errorf("%+v, %v", g, err)
				}
				closeCall(t, sql, ex, r.Request, "succeeded", "15", false)
				if err := s.Settle(t.Context(), r.Request); err != nil {
					t.Error(err)
				}
				if _, err := s.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	half, all := "900/900 + 0/0", "1800/1800 + 0/0"
	expectFigures(t, s, half, half, half, half, all, all, all, all, half, half, half, half)
}

// Prices and budgets work through a connection pooler, where transactions of
// several clients share sessions.
func TestMoneyThroughAPooler(t *testing.T) {
	t.Parallel()
	direct, url := open(t)
	ex := claimed(t, direct)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: pgtest.NewPooler(t, url)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, err := s.SyncPrices(t.Context(), []executor.ModelPrice{price("v/m", "", "", "1000000", "2000000")}); err != nil || n != 1 {
		t.Errorf("%d prices written, %v", n, err)
	}
	pgtest.Session(t, url)("UPDATE model_prices SET input_usd = 3000000")
	if n, err := s.SyncPrices(t.Context(), []executor.ModelPrice{price("v/m", "", "", "1000000", "2000000")}); err != nil || n != 0 {
		t.Errorf("%d prices of an operator overwritten, %v", n, err)
	}
	setBudget(t, s, "all", "day", "1000", 0)
	book(t, s, ex, events.CallState{InputTokens: 1, CostUSD: new("1")})
	r := wish(ex)
	if g, err := s.Reserve(t.Context(), r); err != nil || g.Output != 90 || !g.Held {
		t.Errorf("%+v, %v", g, err)
	}
	closeCall(t, pgtest.Session(t, url), ex, r.Request, "succeeded", "15", false)
	if err := s.Settle(t.Context(), r.Request); err != nil {
		t.Error(err)
	}
	expectFigures(t, s, "15/15 + 0/0")
	if got, err := s.Reprice(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour), false); err != nil || got.Calls != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}
