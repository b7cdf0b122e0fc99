package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/postgres"
)

func usd(text string) decimal.Decimal { return decimal.RequireFromString(text) }

func usdPointer(text string) *decimal.Decimal {
	d := usd(text)
	return &d
}

// What a call costs is the same in Go and in SQL, to the last digit.
func TestCostInGoAndSQL(t *testing.T) {
	t.Parallel()
	_, url := open(t)
	conn := pgtest.Connect(t, url)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	amount := func() decimal.Decimal { return decimal.New(r.Int64N(1_000_000_000), -r.Int32N(15)) }
	for range 500 {
		p := llm.Price{Input: amount(), Output: amount()}
		for _, special := range []**decimal.Decimal{&p.CachedInput, &p.CacheWrite} {
			if d := amount(); r.IntN(2) == 0 {
				*special = &d
			}
		}
		u := llm.Usage{InputTokens: r.Int64N(llm.MaxTokenCount), OutputTokens: r.Int64N(llm.MaxTokenCount)}
		if r.IntN(4) > 0 {
			u.CachedTokens = r.Int64N(u.InputTokens + 1)
			u.CacheWriteTokens = r.Int64N(u.InputTokens - u.CachedTokens + 1)
		}
		var got decimal.Decimal
		err := conn.QueryRow(t.Context(), `
SELECT llm_cost(ROW('m', '-infinity', NULL, $1::numeric, $2::numeric, $3::numeric, $4::numeric, 'file', now())::model_prices, $5, $6, $7, $8)`,
			p.Input, p.CachedInput, p.CacheWrite, p.Output, u.InputTokens, u.OutputTokens, u.CachedTokens, u.CacheWriteTokens).Scan(&got)
		if err != nil {
			t.Fatal(err)
		}
		if want := p.Cost(u); !got.Equal(want) {
			t.Fatalf("%+v of %+v: %s in SQL, %s in Go", u, p, got, want)
		}
	}
}

// price is a price of a catalogue.
func price(model, from, until, input, output string) executor.ModelPrice {
	p := executor.ModelPrice{ModelID: model, Source: executor.PriceCatalogue}
	p.Input, p.Output = usd(input), usd(output)
	for bound, text := range map[*time.Time]string{&p.From: from, &p.Until: until} {
		if text != "" {
			*bound, _ = time.Parse(time.DateOnly, text)
		}
	}
	return p
}

// stored answers the prices of the database, one a line.
func storedPrices(t *testing.T, s *postgres.Store) []string {
	t.Helper()
	list, err := s.Prices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(list))
	for i, p := range list {
		day := func(at time.Time) string {
			if at.IsZero() {
				return "-"
			}
			return at.UTC().Format(time.DateOnly)
		}
		out[i] = fmt.Sprintf("%s %s %s %s %s %s", p.ModelID, day(p.From), day(p.Until), p.Input, p.Output, p.Source)
		if p.CachedInput != nil {
			out[i] += " " + p.CachedInput.String()
		}
	}
	return out
}

// A server brings its prices, writes only what differs, and leaves alone what an
// operator has written and what it does not know.
func TestSyncPrices(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	sql := pgtest.Session(t, url)
	sync := func(changed int64, prices ...executor.ModelPrice) {
		t.Helper()
		if got, err := s.SyncPrices(t.Context(), prices); err != nil || got != changed {
			t.Errorf("changed %d rows instead of %d, %v", got, changed, err)
		}
	}
	check := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, storedPrices(t, s)); diff != "" {
			t.Error(diff)
		}
	}
	first := []executor.ModelPrice{price("v/a", "", "2026-01-01", "2", "8"), price("v/a", "2026-01-01", "", "1", "4"), price("v/b", "", "", "0.000001", "3")}
	first[2].CachedInput = usdPointer("0.1")
	sync(3, first...)
	check("v/a 2026-01-01 - 1 4 catalogue", "v/a - 2026-01-01 2 8 catalogue", "v/b - - 0.000001 3 catalogue 0.1")
	sync(0, first...)
	sync(0)
	sync(0, append(first, first[0], price("v/b", "2026-02-01", "2026-01-01", "1", "1"))...) // twice, and never valid
	// A newer catalogue: one price changes, one goes, one comes.
	second := []executor.ModelPrice{price("v/a", "2026-01-01", "", "1", "5"), price("v/a", "2027-01-01", "", "1", "6"), first[2]}
	sync(3, second...)
	check("v/a 2027-01-01 - 1 6 catalogue", "v/a 2026-01-01 - 1 5 catalogue", "v/b - - 0.000001 3 catalogue 0.1")
	// An operator changes one: from then on the model is the operator's.
	sql("UPDATE model_prices SET output_usd = 7 WHERE model_id = 'v/a' AND valid_from > '2026-06-01'")
	sync(0, second...)
	sync(0, price("v/a", "", "", "9", "9"))
	check("v/a 2027-01-01 - 1 7 operator", "v/a 2026-01-01 - 1 5 catalogue", "v/b - - 0.000001 3 catalogue 0.1")
	// Nobody can pass for a server by saying so.
	sql("INSERT INTO model_prices (model_id, input_usd, output_usd, source) VALUES ('v/c', 1, 1, 'catalogue')")
	sync(0, price("v/c", "", "", "9", "9"))
	// A model is given back by deleting the operator's rows.
	sql("DELETE FROM model_prices WHERE source = 'operator'")
	sync(2, price("v/a", "2026-01-01", "", "1", "4"), price("v/c", "", "", "9", "9"))
	check("v/a 2026-01-01 - 1 4 catalogue", "v/b - - 0.000001 3 catalogue 0.1", "v/c - - 9 9 catalogue")
}

// Several servers start at once.
func TestSyncPricesConcurrently(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	var prices []executor.ModelPrice
	for i := range 50 {
		prices = append(prices, price(fmt.Sprintf("v/m%d", i), "", "", "1", "2"))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := int64(0)
	for range 8 {
		wg.Go(func() {
			changed, err := s.SyncPrices(t.Context(), prices)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			total += changed
			mu.Unlock()
		})
	}
	wg.Wait()
	if total != 50 || len(storedPrices(t, s)) != 50 {
		t.Errorf("%d rows written, %d stored", total, len(storedPrices(t, s)))
	}
}

// book writes a finished execution with one closed call of each cost and usage.
func book(t *testing.T, s *postgres.Store, ex executor.Execution, calls ...events.CallState) {
	t.Helper()
	broker := events.NewBroker(s, events.BrokerConfig{})
	defer broker.Close()
	log := events.NewLog(s, broker, events.LogConfig{})
	defer log.Close(t.Context()) //nolint:errcheck // never fails
	w := log.Writer(ex.ID, ex.Epoch, 0, nil)
	defer w.Close()
	state := events.PromptState{PromptID: 7, Name: "P", Position: 1, Status: events.PromptCompleted, Attempt: 1, ModelID: "v/m", CostUSD: events.Nothing(), StartedAt: time.Now()}
	for i := range calls {
		c := &calls[i]
		c.RequestID, c.PromptID, c.Attempt, c.Status, c.UsageSource = uuid.NewString(), 7, i+1, events.CallSucceeded, events.UsageProvider
		if c.Model == "" {
			c.Provider, c.Model = "v", "m"
		}
		if c.StartedAt.IsZero() {
			c.StartedAt = time.Now()
		}
		c.FinishedAt = &c.StartedAt
		state.InputTokens += c.InputTokens
		state.OutputTokens += c.OutputTokens
		state.CostUSD = events.AddCost(state.CostUSD, c.CostUSD)
	}
	now := time.Now()
	err := w.Append(events.Batch{
		Events: []events.Draft{{Payload: events.ExecutionComplete{Success: true}}}, Prompts: []events.PromptState{state}, Calls: calls,
		Outcome: events.Outcome{
			Status: "completed", InputTokens: &state.InputTokens, OutputTokens: &state.OutputTokens, CostUSD: state.CostUSD, FinishedAt: &now,
		},
	}).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

// A wrong price is corrected, and then every sum is right: of calls, prompts,
// executions and of what forks say they saved. A second time nothing changes.
func TestReprice(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	sql := pgtest.Session(t, url)
	old, noon := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	first, second, running := claimed(t, s), claimed(t, s), claimed(t, s)
	book(t, s, first,
		events.CallState{InputTokens: 100, CachedTokens: 40, CacheWriteTokens: 10, OutputTokens: 10, CostUSD: new("1"), StartedAt: noon},
		events.CallState{InputTokens: 100, OutputTokens: 10, CostUSD: new("1"), StartedAt: noon.Add(-time.Microsecond)},
		events.CallState{InputTokens: 5, CostUSD: new("0.5"), Provider: "v", Model: "elsewhere", StartedAt: noon}) // has no row
	book(t, s, second, events.CallState{InputTokens: 1, CostUSD: nil, StartedAt: noon}, events.CallState{InputTokens: 7, CostUSD: new("7"), StartedAt: old})
	sql(fmt.Sprintf(`INSERT INTO prompt_results (execution_id, prompt_id, ordinal, name, position, status, attempt, model_id, cost_usd, first_seq, started_at, reused_from_execution_id, reused_cost_usd)
		VALUES (%d, 7, 0, 'P', 1, 'completed', 1, 'v/m', 0, 1, now(), %d, 2.5)`, running.ID, first.ID),
		fmt.Sprintf(`INSERT INTO llm_calls (request_id, execution_id, prompt_id, attempt, provider, model, status, cost_usd, usage_source, started_at, finished_at)
		VALUES (gen_random_uuid(), %d, 8, 1, 'v', 'm', 'succeeded', 3, 'provider', '%s', now())`, running.ID, noon.Format(time.RFC3339)),
		"INSERT INTO model_prices (model_id, input_usd, output_usd, valid_until) VALUES ('v/m', 1000000, 0, '2026-06-01 12:00:00+00')",
		"INSERT INTO model_prices (model_id, valid_from, input_usd, cached_input_usd, output_usd) VALUES ('v/m', '2026-06-01 12:00:00+00', 2000000, 100000, 3000000)")
	costs := func() (out []string) {
		return list(t, url, `SELECT coalesce(trim_scale(c.cost_usd)::text, '-') FROM (
			SELECT 1 AS n, row_number() OVER (ORDER BY execution_id, attempt) AS i, cost_usd FROM llm_calls
			UNION ALL SELECT 2, row_number() OVER (ORDER BY execution_id, prompt_id), cost_usd FROM prompt_results
			UNION ALL SELECT 3, row_number() OVER (ORDER BY id), cost_usd FROM executions
			UNION ALL SELECT 4, 1, reused_cost_usd FROM prompt_results WHERE reused_cost_usd IS NOT NULL) c ORDER BY n, i`)
	}
	before := costs()
	since := old.Add(time.Hour)
	got, err := s.Reprice(t.Context(), since, time.Now(), true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, costs()); diff != "" {
		t.Errorf("a dry run changes: %s", diff)
	}
	// 60 plain tokens (50 and 10 written to the cache) for 2, 40 for 0.1, 10 for 3; before noon 100 for 1.
	want := postgres.Repriced{Calls: 3, Prompts: 2, Executions: 2, Running: 1, Before: usd("5.5"), After: usd("259.5").Add(usd("0"))}
	want.After = usd("154").Add(usd("100")).Add(usd("0.5")).Add(usd("2")).Add(usd("3"))
	equal := cmp.Comparer(func(a, b decimal.Decimal) bool { return a.Equal(b) })
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Errorf("dry run: %s", diff)
	}
	if got, err = s.Reprice(t.Context(), since, time.Now(), false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Errorf("reprice: %s", diff)
	}
	if diff := cmp.Diff([]string{"154", "100", "0.5", "2", "7", "3", "254.5", "9", "0", "254.5", "9", "-", "254.5"}, costs()); diff != "" {
		t.Error(diff)
	}
	again, err := s.Reprice(t.Context(), since, time.Now(), false)
	if err != nil || again.Calls+again.Prompts+again.Executions != 0 {
		t.Errorf("a second time: %+v, %v", again, err)
	}
	// Without a price at that time the cost is unknown, and so are the sums.
	sql("DELETE FROM model_prices WHERE valid_from > '2026-01-01'")
	if _, err = s.Reprice(t.Context(), since, time.Now(), false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"-", "100", "0.5", "-", "7", "3", "-", "-", "0", "-", "-", "-"}, costs()); diff != "" {
		t.Error(diff)
	}
}

// What was paid before there was a ledger gets a row for each prompt, so that the
// sums agree from the start.
func TestLedgerOfOldExecutions(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	if err := postgres.MigrateTo(t.Context(), url, 5); err != nil {
		t.Fatal(err)
	}
	pgtest.Session(t, url)(
		"INSERT INTO chains (name, version) VALUES ('c', 1)",
		"INSERT INTO chain_versions VALUES (1, 1, '', '{}', '{7,8,9}', now())",
		"INSERT INTO executions (chain_id, chain_version, chain_name, status, inputs, total_prompts, input_tokens, output_tokens, cost_usd, finished_at) VALUES (1, 1, 'c', 'completed', '{}', 3, 9, 2, 0.0000012345, now())",
		`INSERT INTO prompt_results (execution_id, prompt_id, ordinal, name, position, status, attempt, model_id, input_tokens, output_tokens, usage_estimated, cost_usd, first_seq, started_at, finished_at, reused_from_execution_id)
		VALUES (1, 7, 0, 'A', 1, 'completed', 2, 'ollama/library/x', 9, 2, true, 0.0000012345, 1, now(), now(), NULL),
		       (1, 8, 1, 'B', 1, 'failed', 1, 'v/m', 0, 0, false, 0, 1, now(), now(), NULL), (1, 9, 2, 'C', 1, 'completed', 1, 'v/m', 0, 0, false, 0, 1, now(), now(), 5)`)
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	got := list(t, url, `SELECT concat_ws(' ', execution_id, prompt_id, attempt, provider, model, status, input_tokens, output_tokens, usage_source, trim_scale(cost_usd)) FROM llm_calls`)
	if diff := cmp.Diff([]string{"1 7 2 ollama library/x succeeded 9 2 estimated 0.0000012345"}, got); diff != "" {
		t.Error(diff)
	}
	if got := list(t, url, "SELECT trim_scale(cost_usd)::text FROM executions"); got[0] != "0.0000012345" {
		t.Errorf("cost %v", got)
	}
}

// Every statement of docs/costs.md and docs/knowledge.md runs, and the views answer the right figures.
func TestStatementsOfTheDocumentation(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	ex := claimed(t, s)
	at := time.Date(2026, 11, 22, 4, 30, 0, 0, time.UTC)
	book(t, s, ex,
		events.CallState{InputTokens: 100, CachedTokens: 40, CacheWriteTokens: 10, OutputTokens: 30, ReasoningTokens: 20, CostUSD: new("0.25"), StartedAt: at},
		events.CallState{InputTokens: 7, OutputTokens: 3, CostUSD: new("0.5"), StartedAt: at.Add(time.Hour)})
	var script strings.Builder
	for _, page := range []string{"costs.md", "knowledge.md"} {
		doc, err := os.ReadFile("../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(doc, -1) {
			script.Write(block[1])
		}
	}
	if n := strings.Count(script.String(), ";"); n < 10 {
		t.Fatalf("%d statements found", n)
	}
	cmd := exec.CommandContext(t.Context(), "psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", url)
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{
		"\n2026-11-22|v/m|2|107|33|0.75\n",
		"|57|40|10|13|20\n", // uncached, cached, written, answers, reasoning
		"|P|0.25\n",         // the attempt before the last one
	} {
		if !strings.Contains("\n"+string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	hourly := list(t, url, `SELECT concat_ws('|', to_char(hour AT TIME ZONE 'UTC', 'HH24'), model_id, prompts, failed, calls, failed_calls, estimated_calls, input_tokens, output_tokens, cached_tokens,
		cache_write_tokens, reasoning_tokens, cost_usd) FROM v_costs_hourly WHERE calls > 0 ORDER BY hour`)
	if diff := cmp.Diff([]string{"04|v/m|0|0|1|0|0|100|30|40|10|20|0.25", "05|v/m|0|0|1|0|0|7|3|0|0|0|0.5"}, hourly); diff != "" {
		t.Error(diff)
	}
	if prompts := list(t, url, "SELECT concat_ws('|', prompts, failed, calls, input_tokens, cost_usd) FROM v_costs_hourly WHERE prompts > 0"); prompts[0] != "1|0|0|0" {
		t.Errorf("the hour of the prompt: %v", prompts)
	}
}

// Who has lost the execution books nothing, and what is written twice is there once.
func TestLedgerIsFenced(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	ex := claimed(t, s)
	request := uuid.NewString()
	now := time.Now()
	row := events.CallState{RequestID: request, PromptID: 7, Attempt: 1, Provider: "v", Model: "m", Status: events.CallOpen, StartedAt: now}
	closed := row
	closed.Status, closed.UsageSource, closed.FinishedAt, closed.CostUSD = events.CallSucceeded, events.UsageProvider, &now, new("0.1")
	closed.RawUsage = []byte(`{"total": 1, "text": "\u0000"}`)
	write := func(epoch, seq int64, call events.CallState) bool {
		t.Helper()
		stored, err := s.AppendEvents(t.Context(), []events.Append{{ExecutionID: ex.ID, Epoch: epoch, PrevSeq: seq, Calls: []events.CallState{call}}})
		if err != nil {
			t.Fatal(err)
		}
		return len(stored) == 1
	}
	for _, tt := range []struct {
		epoch, seq int64
		call       events.CallState
		stored     bool
		want       []string
	}{
		{ex.Epoch - 1, 0, row, false, []string{}},
		{ex.Epoch, 1, row, false, []string{}},
		{ex.Epoch, 0, row, true, []string{"open - -"}},
		{ex.Epoch + 1, 0, closed, false, []string{"open - -"}},
		{ex.Epoch, 0, closed, true, []string{"succeeded 0.1 \uFFFD"}},
		{ex.Epoch, 0, closed, true, []string{"succeeded 0.1 \uFFFD"}},
	} {
		if got := write(tt.epoch, tt.seq, tt.call); got != tt.stored {
			t.Errorf("epoch %d, seq %d: stored %t", tt.epoch, tt.seq, got)
		}
		got := list(t, url, "SELECT concat_ws(' ', status, coalesce(cost_usd::text, '-'), coalesce(raw_usage ->> 'text', '-')) FROM llm_calls")
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("epoch %d, seq %d: %s", tt.epoch, tt.seq, diff)
		}
	}
}
