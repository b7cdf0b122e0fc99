package executor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/postgres"
)

// perToken is a price of so many dollars for each token.
func perToken(input, output int64) llm.Price {
	return llm.Price{Input: usd(fmt.Sprint(input * 1_000_000)), Output: usd(fmt.Sprint(output * 1_000_000))}
}

// meter is a provider whose answers have exactly as many tokens as they may, and
// which adds up what it would ask for.
type meter struct {
	mu    sync.Mutex
	asked []llm.Request
	spent int64 // dollars at perToken(1, 1)
	gate  chan struct{}
	fails map[string]*llm.Error // by model: at the end of the answer
}

func (m *meter) stream(ctx context.Context, req llm.Request, yield func(llm.Chunk, error) bool) {
	u := llm.Usage{InputTokens: 3, OutputTokens: int64(req.MaxTokens)}
	for _, msg := range req.Messages {
		u.InputTokens += 4 + int64(len(msg.Text))
	}
	m.mu.Lock()
	m.asked = append(m.asked, req)
	fail := m.fails[req.Model]
	if fail == nil || fail.Usage != nil {
		m.spent += u.InputTokens + u.OutputTokens
	}
	m.mu.Unlock()
	if fail != nil {
		copied := *fail
		if fail.Usage != nil {
			copied.Usage = &u
		}
		yield(llm.Chunk{}, &copied)
		return
	}
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			yield(llm.Chunk{}, llm.ContextError(ctx))
			return
		}
	}
	yield(llm.Chunk{Text: "x", FinishReason: llm.FinishStop, Usage: &u}, nil)
}

func (m *meter) requests() []llm.Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

// A limit holds for the worst case: the answer is held shorter where that is
// enough, and otherwise the call is not made.
func TestLimitsBoundTheCall(t *testing.T) {
	t.Parallel()
	const prompt = 12 // tokens of the prompt
	refused := func(words ...string) []string { return append([]string{"budget_exceeded"}, words...) }
	for name, tt := range map[string]struct {
		limits  string
		trigger chain.Limits
		max     int // of the prompt
		want    int // MaxTokens of the call
		refused []string
	}{
		"no limit":             {max: 100, want: 100},
		"cost, room for all":   {limits: "maxCostUsd: 112", max: 100, want: 100},
		"cost, held shorter":   {limits: "maxCostUsd: 90.5", max: 100, want: 78},
		"cost, just enough":    {limits: "maxCostUsd: 76", max: 100, want: 64},
		"cost, too little":     {limits: "maxCostUsd: 75.999", max: 100, refused: refused("maxCostUsd of 75.999 USD", "can cost 76 USD", "0 USD are spent and 0 USD reserved")},
		"cost, less is wanted": {limits: "maxCostUsd: 22", max: 10, want: 10},
		"cost, not the prompt": {limits: "maxCostUsd: 5", max: 10, refused: refused("maxCostUsd of 5 USD")},
		"tokens, room for all": {limits: "maxTokens: 112", max: 100, want: 100},
		"tokens, held shorter": {limits: "maxTokens: 90", max: 100, want: 90 - prompt},
		"tokens, too few":      {limits: "maxTokens: 75", max: 100, refused: refused("maxTokens of 75", "can use 76 tokens", "0 are spent and 0 reserved")},
		"both":                 {limits: "maxTokens: 90, maxCostUsd: 89", max: 100, want: 77},
		"answer not bounded":   {limits: "maxTokens: 100000", want: 4096},
		"trigger narrows":      {limits: "maxTokens: 90", trigger: chain.Limits{MaxTokens: 80}, max: 100, want: 80 - prompt},
		"trigger cannot widen": {limits: "maxCostUsd: 90", trigger: chain.Limits{MaxCostUSD: "1000"}, max: 100, want: 90 - prompt},
		"trigger adds":         {trigger: chain.Limits{MaxCostUSD: "80"}, max: 100, want: 80 - prompt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &meter{}
			h := newHarness(t, vendor(provider(m.stream), perToken(1, 1), "m"), executor.Config{})
			yaml := single
			if tt.max > 0 {
				yaml = strings.Replace(yaml, "retry:", fmt.Sprintf("maxTokens: %d, onError: continue, retry:", tt.max), 1)
			}
			v := h.chain(yaml + "limits: {" + tt.limits + "}\n")
			ex, _, err := h.exec.Trigger(t.Context(), executor.Trigger{Version: v, Limits: tt.trigger})
			if err != nil {
				t.Fatal(err)
			}
			log := h.follow(ex.ID)
			got := h.checkLog(ex.ID, log)
			asked := m.requests()
			if tt.refused != nil {
				if got.ErrorCode != tt.refused[0] || len(asked) > 0 || len(find(log, events.TypeLLMRequest)) > 0 || len(h.calls(ex.ID)) > 0 {
					t.Errorf("%s after %d calls: %v", got.ErrorCode, len(asked), outline(log))
				}
				for _, words := range tt.refused[1:] {
					if !strings.Contains(got.Error, words) {
						t.Errorf("no %q in: %s", words, got.Error)
					}
				}
				if deref(got.CostUSD) != "0" {
					t.Errorf("cost %s", deref(got.CostUSD))
				}
				return
			}
			if got.Status != executor.StatusCompleted || len(asked) != 1 || asked[0].MaxTokens != tt.want {
				t.Fatalf("%s %s, calls: %+v", got.Status, got.Error, asked)
			}
			row := h.calls(ex.ID)[0]
			if tt.limits == "" && tt.trigger == (chain.Limits{}) {
				if row.ReservedUSD != nil || row.ReservedTokens != nil {
					t.Errorf("reserved without a limit: %+v", row)
				}
			} else if deref(row.ReservedUSD) != fmt.Sprint(prompt+tt.want) || *row.ReservedTokens != int64(prompt+tt.want) || row.PromptTokens != prompt {
				t.Errorf("ledger: %+v", row)
			}
		})
	}
}

// Where the tokens of a prompt are only estimated, twice as many are reserved; the
// dearest kind of input and the model's own bound of an answer count.
func TestReserveIsTheWorstCase(t *testing.T) {
	t.Parallel()
	m := &meter{}
	write := usd("3000000")
	models := vendor(provider(m.stream), perToken(1, 1), "m")
	models["test"].Info["m"] = llm.Info{Prices: []llm.Price{{Input: usd("1000000"), CacheWrite: &write, Output: usd("1000000")}}, MaxOutput: 200}
	h := newHarness(t, models, executor.Config{})
	ex := h.trigger(h.chain(single+"limits: {maxCostUsd: 1000}\n"), nil)
	h.checkLog(ex.ID, h.follow(ex.ID))
	row := h.calls(ex.ID)[0]
	// 5 characters are two tokens, four frame the message and three the request.
	if row.PromptTokens != 9 || *row.ReservedTokens != 18+200 || deref(row.ReservedUSD) != fmt.Sprint(3*18+200) {
		t.Errorf("ledger: prompt %d, reserved %d tokens and %s USD", row.PromptTokens, *row.ReservedTokens, deref(row.ReservedUSD))
	}
}

// Retries and fallbacks reserve anew, at the model that they call and after what
// was spent before them.
func TestEveryAttemptReserves(t *testing.T) {
	t.Parallel()
	m := &meter{fails: map[string]*llm.Error{
		"bad": {Code: llm.CodeOverloaded, Message: "Overloaded.", Retryable: true, Usage: &llm.Usage{}},
	}}
	models := vendor(provider(m.stream), perToken(1, 1), "bad", "good")
	models["dear"] = vendor(provider(m.stream), perToken(3, 3), "good")["test"]
	run := func(t *testing.T, fallback, limit string) (executor.Execution, []events.CallState) {
		h := newHarness(t, models, executor.Config{Retry: quick})
		ex := h.trigger(h.chain("name: c\nprompts:\n  - {name: P, position: 1, model: test/bad, content: \"12345\", maxTokens: 88, retry: {attempts: 2}, fallback: ["+
			fallback+"]}\nlimits: {maxCostUsd: "+limit+"}\n"), nil)
		return h.checkLog(ex.ID, h.follow(ex.ID)), h.calls(ex.ID)
	}
	ex, rows := run(t, "test/good", "290") // 100 + 100, and 90 are left
	if ex.Status != executor.StatusCompleted || len(rows) != 3 || deref(ex.CostUSD) != "290" || rows[2].OutputTokens != 78 {
		t.Errorf("%s %s: %s USD for %+v", ex.Status, ex.Error, deref(ex.CostUSD), rows)
	}
	ex, rows = run(t, "dear/good", "420") // the dear one needs 3 × (12 + 64) = 228 and has 220
	if ex.ErrorCode != "budget_exceeded" || len(rows) != 2 || !strings.Contains(ex.Error, "200 USD are spent") || !strings.Contains(ex.Error, "dear/good") {
		t.Errorf("%s %s: %+v", ex.Status, ex.Error, rows)
	}
}

// Prompts that run side by side share the limit while they run.
func TestSiblingsShareTheLimit(t *testing.T) {
	t.Parallel()
	m := &meter{gate: make(chan struct{})}
	h := newHarness(t, vendor(provider(m.stream), perToken(1, 1), "m"), executor.Config{})
	var yaml strings.Builder
	yaml.WriteString("name: c\nlimits: {maxCostUsd: 250}\nprompts:\n")
	for i := range 8 {
		fmt.Fprintf(&yaml, "  - {name: P%d, position: 1, model: test/m, content: \"12345\", maxTokens: 88}\n", i)
	}
	ex := h.trigger(h.chain(yaml.String()), nil)
	for len(find(h.stored(ex.ID), events.TypePromptError)) < 6 {
		h.awaitCount(ex.ID, events.TypePromptError, 6)
	}
	close(m.gate)
	got := h.checkLog(ex.ID, h.follow(ex.ID))
	if got.ErrorCode != "budget_exceeded" || len(m.requests()) != 2 || deref(got.CostUSD) != "200" || !strings.Contains(got.Error, "200 USD reserved") {
		t.Errorf("%s: %s after %d calls for %s USD", got.ErrorCode, got.Error, len(m.requests()), deref(got.CostUSD))
	}
}

// awaitCount reads the stream of an execution until so many events of a type have come.
func (h *harness) awaitCount(id int64, wanted events.Type, n int) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	sub, err := h.broker.Subscribe(ctx, id, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer sub.Close()
	for n > 0 {
		frames, err := sub.Next(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, f := range frames {
			if f.Type == wanted {
				n--
			}
		}
	}
}

// What a lost process may have spent counts in full against the limit and the
// budgets, though only an estimate of it is booked as cost.
func TestLostCallsCountInFull(t *testing.T) {
	t.Parallel()
	url := budgeted(t, total("all", "1000", 0))
	models := vendor(hanging("12"), perToken(1, 1), "m")
	h := newHarnessOn(t, url, models, executor.Config{Owner: "one", Poll: 20 * time.Millisecond})
	ex := h.trigger(h.chain("name: c\nprompts:\n  - {name: P, position: 1, model: test/m, content: \"12345\", maxTokens: 88}\nlimits: {maxCostUsd: 150}\n"), nil)
	h.await(ex.ID, events.TypePromptDelta)
	h.interrupt()
	h.resume(models, executor.Config{Owner: "two", Poll: 20 * time.Millisecond})
	got := h.checkLog(ex.ID, h.follow(ex.ID))
	if got.ErrorCode != "budget_exceeded" || !strings.Contains(got.Error, "100 USD are spent") || deref(got.CostUSD) != "14" {
		t.Errorf("%s %s, cost %s", got.ErrorCode, got.Error, deref(got.CostUSD))
	}
	row := h.calls(ex.ID)[0]
	if !row.Lost || row.Status != events.CallFailed || row.ErrorCode != "connection_failed" || row.UsageSource != "estimated" || row.InputTokens != 12 || row.OutputTokens != 2 {
		t.Errorf("ledger: %+v", row)
	}
	pgtest.Session(t, url)("UPDATE budget_reservations SET created_at = created_at - interval '1 minute'")
	if _, err := h.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b := h.budgets()[0]; b.Spent.USD.String() != "100" || b.Spent.Tokens != 100 || !b.Reserved.USD.IsZero() || b.Reserved.Tokens != 0 {
		t.Errorf("budget: %+v", b)
	}
	checkSums(t, url)
}

// total is a budget for all time; no dollars or 0 tokens are no limit of that kind.
func total(scope, dollars string, tokens int64) executor.Budget {
	b := executor.Budget{Scope: scope, Period: "total"}
	if dollars != "" {
		limit := usd(dollars)
		b.LimitUSD = &limit
	}
	if tokens > 0 {
		b.LimitTokens = &tokens
	}
	return b
}

// budgeted answers a database that has budgets before any server looks at it, so
// that none of them goes by what it saw a moment ago.
func budgeted(t *testing.T, budgets ...executor.Budget) (url string) {
	t.Helper()
	url = pgtest.Database(t)
	store, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, b := range budgets {
		if _, err := store.SetBudget(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	return url
}

// budget sets a budget while servers run.
func (h *harness) budget(b executor.Budget) {
	h.t.Helper()
	if _, err := h.store.SetBudget(h.t.Context(), b); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) budgets() []executor.Budget {
	h.t.Helper()
	list, err := h.store.Budgets(h.t.Context(), 0, 100)
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

// 64 executions at once on two servers, and a budget that pays for three calls:
// three are made, also where they are fallbacks, and not a cent more is spent.
func TestBudgetRace(t *testing.T) {
	t.Parallel()
	const parallel, paid, each = 64, 3, 100 // a call is 12 + 88 tokens of one dollar each
	refusedModel := &llm.Error{Code: llm.CodeOverloaded, Status: 529, Message: "Overloaded.", Retryable: true}
	for name, tt := range map[string]struct {
		model    string
		fallback string
	}{
		"direct":   {"test/m", ""},
		"fallback": {"free/bad", "test/m"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &meter{gate: make(chan struct{})}
			bad := &meter{fails: map[string]*llm.Error{"bad": refusedModel}}
			models := vendor(provider(m.stream), perToken(1, 1), "m")
			models["free"] = vendor(provider(bad.stream), llm.Price{}, "bad")["test"]
			own := total("chain:race", "", paid*each+50)
			if tt.fallback != "" { // the free calls before hold tokens too
				own = total("chain:race", fmt.Sprint(paid*each+50), parallel*2*each)
			}
			url := budgeted(t, total("all", fmt.Sprint(paid*each+50), 0), own, total("chain:other", "1", 1))
			ended := make(chan executor.Status, parallel)
			cfg := executor.Config{Workers: parallel / 2, Retry: quick, OnFinish: func(s executor.Status) { ended <- s }}
			cfg.Owner = "one"
			one := newHarnessOn(t, url, models, cfg)
			cfg.Owner = "two"
			two := newHarnessOn(t, url, models, cfg)
			v := one.chain("name: race\nprompts:\n  - {name: P, position: 1, model: " + tt.model + ", fallback: [" + tt.fallback +
				"], content: \"12345\", maxTokens: 88, retry: {attempts: 1}}\n")
			var ids []int64
			for i := range parallel {
				ids = append(ids, []*harness{one, two}[i%2].trigger(v, nil).ID)
			}
			for range parallel - paid {
				select {
				case s := <-ended:
					if s != executor.StatusFailed {
						t.Fatalf("an execution ended %s before its model answered", s)
					}
				case <-time.After(time.Minute):
					t.Fatal("not all are refused that have to be")
				}
			}
			if b := one.budgets()[0]; b.Reserved.USD.String() != fmt.Sprint(paid*each) {
				t.Errorf("%s USD are reserved", b.Reserved.USD)
			}
			close(m.gate)
			completed := 0
			for _, id := range ids {
				ex := one.checkLog(id, one.follow(id))
				switch {
				case ex.Status == executor.StatusCompleted:
					completed++
				case ex.ErrorCode != "budget_exceeded" || !strings.Contains(ex.Error, "in total has no room"):
					t.Errorf("execution %d: %s %s", id, ex.ErrorCode, ex.Error)
				}
			}
			if n := len(m.requests()); completed != paid || n != paid || m.spent != paid*each {
				t.Errorf("%d completed, %d calls for %d USD", completed, n, m.spent)
			}
			for _, b := range one.budgets() {
				want := fmt.Sprint(paid * each)
				if b.Scope == "chain:other" {
					want = "0"
				}
				if b.Spent.USD.String() != want || fmt.Sprint(b.Spent.Tokens) < want || !b.Reserved.USD.IsZero() || b.Reserved.Tokens != 0 {
					t.Errorf("budget of %s: spent %+v, reserved %+v", b.Scope, b.Spent, b.Reserved)
				}
			}
			checkSums(t, url)
		})
	}
}

// Where failed attempts cost money too, and calls of different sizes and prices
// compete, what providers ask for never exceeds the budget.
func TestBudgetIsNeverExceeded(t *testing.T) {
	t.Parallel()
	m := &meter{fails: map[string]*llm.Error{
		"bad": {Code: llm.CodeOverloaded, Message: "Overloaded.", Retryable: true, Usage: &llm.Usage{}},
	}}
	const most = 2000
	url := budgeted(t, total("all", fmt.Sprint(most), 0))
	models := vendor(provider(m.stream), perToken(1, 1), "good", "bad")
	one := newHarnessOn(t, url, models, executor.Config{Owner: "one", Workers: 32, Retry: quick})
	two := newHarnessOn(t, url, models, executor.Config{Owner: "two", Workers: 32, Retry: quick})
	var ids []int64
	for i := range 4 {
		v := one.chain(fmt.Sprintf("name: c%d\nprompts:\n  - {name: P, position: 1, model: test/bad, fallback: [test/good], content: \"12345\", maxTokens: %d, retry: {attempts: 2}}\n", i, 30+50*i))
		for j := range 16 {
			ids = append(ids, []*harness{one, two}[j%2].trigger(v, nil).ID)
		}
	}
	for _, id := range ids {
		one.checkLog(id, one.follow(id))
	}
	b := one.budgets()[0]
	if m.spent > most || b.Spent.USD.String() != fmt.Sprint(m.spent) || !b.Reserved.USD.IsZero() || m.spent < most*8/10 {
		t.Errorf("providers ask for %d, the budget of %d says %s and %s reserved", m.spent, most, b.Spent.USD, b.Reserved.USD)
	}
	checkSums(t, url)
}

// countingStore counts reservations.
type countingStore struct {
	*postgres.Store
	reserved atomic.Int64
}

func (s *countingStore) Reserve(ctx context.Context, r executor.Reservation) (executor.Grant, error) {
	s.reserved.Add(1)
	return s.Store.Reserve(ctx, r)
}

// forgetful is a store whose process never gets to settle.
type forgetful struct{ *postgres.Store }

func (forgetful) Settle(context.Context, string) error { return errors.New("the process is gone") }

// What a process did not settle is settled by whoever comes.
func TestSweepFinishes(t *testing.T) {
	t.Parallel()
	m := &meter{}
	url := budgeted(t, total("all", "1000", 0))
	h := newHarnessOn(t, url, nil, executor.Config{Workers: -1})
	e := executor.New(forgetful{h.store}, h.log, llm.NewRegistry(vendor(provider(m.stream), perToken(1, 1), "m")), executor.Config{Owner: "two", Workers: 1, Poll: 20 * time.Millisecond})
	e.Start()
	ex := h.trigger(h.chain(strings.Replace(single, "retry:", "maxTokens: 88, retry:", 1)), nil)
	h.checkLog(ex.ID, h.follow(ex.ID))
	if b := h.budgets()[0]; b.Reserved.USD.String() != "100" || !b.Spent.USD.IsZero() {
		t.Errorf("budget: %+v", b)
	}
	pgtest.Session(t, url)("UPDATE budget_reservations SET created_at = created_at - interval '1 minute'")
	for deadline := time.Now().Add(time.Minute); ; {
		b := h.budgets()[0]
		if b.Reserved.USD.IsZero() && b.Spent.USD.String() == "100" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("budget: %+v", b)
		}
	}
	if err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Without a budget no call asks the database for one; a budget that is set later
// is kept by servers that run already.
func TestBudgetsCostNothingUntilThereIsOne(t *testing.T) {
	t.Parallel()
	m := &meter{}
	h := newHarness(t, nil, executor.Config{Workers: -1})
	store := &countingStore{Store: h.store}
	start := func(poll time.Duration) *executor.Executor {
		e := executor.New(store, h.log, llm.NewRegistry(vendor(provider(m.stream), perToken(1, 1), "m")), executor.Config{Owner: "two", Workers: 8, Poll: poll})
		e.Start()
		return e
	}
	e := start(time.Hour)
	v := h.chain(single)
	for range 20 {
		ex, _, err := e.Trigger(t.Context(), executor.Trigger{Version: v})
		if err != nil {
			t.Fatal(err)
		}
		h.follow(ex.ID)
	}
	if n := store.reserved.Load(); n != 0 || len(m.requests()) != 20 {
		t.Errorf("%d reservations for %d calls", n, len(m.requests()))
	}
	if err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	e = start(10 * time.Millisecond)
	h.budget(total("all", "1", 0))
	for deadline := time.Now().Add(time.Minute); ; {
		ex, _, err := e.Trigger(t.Context(), executor.Trigger{Version: v})
		if err != nil {
			t.Fatal(err)
		}
		h.follow(ex.ID)
		if got, err := h.store.Execution(t.Context(), ex.ID); err != nil {
			t.Fatal(err)
		} else if got.ErrorCode == "budget_exceeded" {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("the budget is not kept")
		}
	}
	if err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A budget of money cannot be kept for a model whose price nobody knows; one of
// tokens can.
func TestBudgetsAndUnknownPrices(t *testing.T) {
	t.Parallel()
	m := &meter{}
	h := newHarnessOn(t, budgeted(t, total("chain:single", "", 5000)), map[string]llm.Entry{"test": {Provider: provider(m.stream)}}, executor.Config{})
	v := h.chain(single)
	run := func() executor.Execution {
		ex := h.trigger(v, nil)
		return h.checkLog(ex.ID, h.follow(ex.ID))
	}
	if got := run(); got.Status != executor.StatusCompleted || got.CostUSD != nil {
		t.Errorf("%s %s", got.Status, got.Error)
	}
	if b := h.budgets()[0]; b.Spent.Tokens != h.calls(1)[0].InputTokens+h.calls(1)[0].OutputTokens || !b.Spent.USD.IsZero() {
		t.Errorf("budget: %+v", b)
	}
	h.budget(total("all", "5000", 0))
	if got := run(); got.ErrorCode != "unknown_price" || !strings.Contains(got.Error, "The budget of all executions of 5000 USD in total cannot be kept: the price of test/m is not known.") {
		t.Errorf("%s %s", got.ErrorCode, got.Error)
	}
	if n := len(m.requests()); n != 1 {
		t.Errorf("%d calls", n)
	}
}
