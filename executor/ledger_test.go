package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm"
)

// provider is a function that is a provider.
type provider func(ctx context.Context, req llm.Request, yield func(llm.Chunk, error) bool)

func (p provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) { p(ctx, req, yield) }
}

// vendor answers the registry entry of a provider with one price for all its models.
func vendor(p llm.Provider, price llm.Price, models ...string) map[string]llm.Entry {
	info := make(map[string]llm.Info)
	for _, m := range models {
		info[m] = llm.Info{Prices: []llm.Price{price}, Count: func(text string) int64 { return int64(len(text)) }}
	}
	return map[string]llm.Entry{"test": {Provider: p, Label: "Test", Info: info}}
}

func usd(text string) decimal.Decimal { return decimal.RequireFromString(text) }

// dear is a price at which every kind of token shows.
func dear() llm.Price {
	cached, write := usd("100"), usd("2500.0000001")
	return llm.Price{Input: usd("1000"), CachedInput: &cached, CacheWrite: &write, Output: usd("10000")}
}

// calls answers the ledger of an execution.
func (h *harness) calls(id int64) []events.CallState {
	h.t.Helper()
	rows, err := h.store.Calls(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return rows
}

const single = "name: single\nprompts:\n  - {name: P, position: 1, model: test/m, content: \"12345\", retry: {attempts: 1}}\n"

// Whatever becomes of a call, what it used is in the ledger, in the events and in
// the sums: the provider's figures first, then an estimate, and nothing only for
// what was turned down.
func TestEveryCallIsBooked(t *testing.T) {
	t.Parallel()
	reported := llm.Usage{
		InputTokens: 100, OutputTokens: 50, CachedTokens: 60, CacheWriteTokens: 30, ReasoningTokens: 7, Raw: json.RawMessage(`{"prompt_tokens": 100}`),
	}
	early := llm.Usage{InputTokens: 90, OutputTokens: 1, CachedTokens: 40, Raw: json.RawMessage(`{"input_tokens": 90}`)}
	prompt := int64(5 + 4 + 3) // the text, its message and the request
	failing := func(text string, err *llm.Error) provider {
		return func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
			if text == "" || yield(llm.Chunk{Text: text, ResponseID: "resp-1"}, nil) {
				yield(llm.Chunk{}, err)
			}
		}
	}
	type want struct {
		status, code, source string
		usage                llm.Usage
		http                 int
	}
	for name, tt := range map[string]struct {
		provider provider
		yaml     string // instead of single
		cancel   bool
		want     want
	}{
		"success": {provider: func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Text: "answer", ResponseID: "resp-1", FinishReason: llm.FinishStop, Usage: &reported}, nil)
		}, want: want{"succeeded", "", "provider", reported, 0}},
		"success without figures": {provider: func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Text: "answer", ResponseID: "resp-1", FinishReason: llm.FinishStop}, nil)
		}, want: want{"succeeded", "", "estimated", llm.Usage{InputTokens: prompt, OutputTokens: 6}, 0}},
		"success with implausible figures": {provider: func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Text: "answer", ResponseID: "resp-1", FinishReason: llm.FinishStop, Usage: &llm.Usage{InputTokens: 1, CachedTokens: 2}}, nil)
		}, want: want{"succeeded", "", "estimated", llm.Usage{InputTokens: prompt, OutputTokens: 6}, 0}},
		"success with a guess": {provider: func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Text: "answer", ResponseID: "resp-1", FinishReason: llm.FinishStop, Usage: &llm.Usage{InputTokens: 3, OutputTokens: 2, Estimated: true}}, nil)
		}, want: want{"succeeded", "", "estimated", llm.Usage{InputTokens: prompt, OutputTokens: 6}, 0}},
		"broken off": {provider: failing("half", llm.NewError(llm.CodeTruncatedStream, nil)),
			want: want{"failed", "truncated_stream", "estimated", llm.Usage{InputTokens: prompt, OutputTokens: 4}, 0}},
		"broken off after figures": {provider: failing("four", &llm.Error{Code: llm.CodeOverloaded, Status: 529, Usage: &early}),
			want: want{"failed", "overloaded", "estimated", llm.Usage{InputTokens: 90, OutputTokens: 4, CachedTokens: 40, Raw: early.Raw}, 529}},
		"failed with figures": {provider: failing("four", &llm.Error{Code: llm.CodeResponseTooLarge, Usage: &reported}),
			want: want{"failed", "response_too_large", "provider", reported, 0}},
		"implausible figures": {provider: failing("four", &llm.Error{Code: llm.CodeUnavailable, Usage: &llm.Usage{InputTokens: -1}}),
			want: want{"failed", "unavailable", "estimated", llm.Usage{InputTokens: prompt, OutputTokens: 4}, 0}},
		"refused": {provider: failing("", &llm.Error{Code: llm.CodeInvalidRequest, Status: 400}),
			want: want{"failed", "invalid_request", "provider", llm.Usage{}, 400}},
		"refused before it was sent": {provider: failing("", &llm.Error{Code: llm.CodeInvalidRequest}),
			want: want{"failed", "invalid_request", "provider", llm.Usage{}, 0}},
		"never got through": {provider: failing("", llm.NewError(llm.CodeConnectionFailed, &net.OpError{Op: "dial", Err: errors.New("refused")})),
			want: want{"failed", "connection_failed", "provider", llm.Usage{}, 0}},
		"silence": {provider: failing("", llm.NewError(llm.CodeTimeoutFirstByte, nil)),
			want: want{"failed", "timeout_first_byte", "estimated", llm.Usage{InputTokens: prompt}, 0}},
		"panic": {provider: func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
			yield(llm.Chunk{Text: "12", ResponseID: "resp-1"}, nil)
			panic("a bug")
		}, want: want{"failed", "internal", "estimated", llm.Usage{InputTokens: prompt, OutputTokens: 2}, 0}},
		"prompt timeout": {
			provider: hanging("12345"),
			yaml:     "name: single\nprompts:\n  - {name: P, position: 1, model: test/m, content: \"12345\", timeout: 3s}\n",
			want:     want{"failed", "prompt_timeout", "estimated", llm.Usage{InputTokens: prompt, OutputTokens: 5}, 0}},
		"execution timeout": {
			provider: hanging("12345"),
			yaml:     single + "limits: {timeout: 3s}\n",
			want:     want{"failed", "timeout", "estimated", llm.Usage{InputTokens: prompt, OutputTokens: 5}, 0}},
		"cancelled": {provider: hanging("123"), cancel: true,
			want: want{"cancelled", "cancelled", "estimated", llm.Usage{InputTokens: prompt, OutputTokens: 3}, 0}},
		"cut off before it is as the schema says": {
			provider: func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
				yield(llm.Chunk{Text: "answer", ResponseID: "resp-1", FinishReason: llm.FinishLength, Usage: &reported}, nil)
			},
			yaml: "name: single\nprompts:\n  - {name: P, position: 1, model: test/m, content: \"12345\", retry: {attempts: 1}, output: {schema: {type: object}}}\n",
			want: want{"succeeded", "", "provider", reported, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, vendor(tt.provider, dear(), "m"), executor.Config{Retry: quick})
			yaml := tt.yaml
			if yaml == "" {
				yaml = single
			}
			ex := h.trigger(h.chain(yaml), nil)
			if tt.cancel {
				h.await(ex.ID, events.TypePromptDelta)
				if _, err := h.exec.Cancel(t.Context(), ex.ID); err != nil {
					t.Fatal(err)
				}
			}
			log := h.follow(ex.ID)
			h.checkLog(ex.ID, log)
			got := h.calls(ex.ID)
			if len(got) != 1 {
				t.Fatalf("%d rows in the ledger", len(got))
			}
			row := got[0]
			u := llm.Usage{
				InputTokens: row.InputTokens, OutputTokens: row.OutputTokens, CachedTokens: row.CachedTokens,
				CacheWriteTokens: row.CacheWriteTokens, ReasoningTokens: row.ReasoningTokens, Raw: row.RawUsage,
			}
			if diff := cmp.Diff(tt.want, want{row.Status, row.ErrorCode, row.UsageSource, u, row.HTTPStatus}, cmp.AllowUnexported(want{})); diff != "" {
				t.Errorf("ledger: %s", diff)
			}
			price := dear()
			cost := price.Cost(tt.want.usage)
			if row.CostUSD == nil || *row.CostUSD != cost.String() {
				t.Errorf("cost %v, want %s", deref(row.CostUSD), cost)
			}
			opened, closed := find(log, events.TypeLLMRequest), find(log, events.TypeLLMResponse, events.TypeLLMError)
			if len(opened) != 1 || len(closed) != 1 || opened[0].Data["requestId"] != row.RequestID || closed[0].Data["requestId"] != row.RequestID {
				t.Fatalf("events: %v %v", opened, closed)
			}
			for name, n := range map[string]int64{
				"inputTokens": u.InputTokens, "outputTokens": u.OutputTokens, "cachedTokens": u.CachedTokens, "cacheWriteTokens": u.CacheWriteTokens,
				"reasoningTokens": u.ReasoningTokens,
			} {
				if closed[0].Data[name] != float64(n) {
					t.Errorf("%s of the event: %v, want %d", name, closed[0].Data[name], n)
				}
			}
			if closed[0].Data["usageSource"] != row.UsageSource || closed[0].Data["costUsd"] != cost.String() {
				t.Errorf("event: %v", closed[0].Data)
			}
			if u.OutputTokens > 0 && (row.ResponseID != "resp-1" && !strings.Contains(name, "timeout") && name != "cancelled" || closed[0].Data["responseId"] != nil && closed[0].Data["responseId"] != row.ResponseID) {
				t.Errorf("response id %q, event %v", row.ResponseID, closed[0].Data["responseId"])
			}
			for _, e := range []struct {
				event event
				at    time.Time
			}{{opened[0], row.StartedAt}, {closed[0], *row.FinishedAt}} {
				if at := e.at.UTC().Format("2006-01-02T15:04:05.000Z"); e.event.Data["timestamp"] != at {
					t.Errorf("%s at %v, the ledger says %s", e.event.Type, e.event.Data["timestamp"], at)
				}
			}
			s := h.states(ex.ID)["P"]
			if s.InputTokens != u.InputTokens || s.OutputTokens != u.OutputTokens || s.CachedTokens != u.CachedTokens || s.CacheWriteTokens != u.CacheWriteTokens ||
				s.ReasoningTokens != u.ReasoningTokens || s.UsageEstimated != (row.UsageSource == "estimated") || deref(s.CostUSD) != cost.String() {
				t.Errorf("prompt: %+v", s)
			}
		})
	}
}

func deref(s *string) string {
	if s == nil {
		return "nil"
	}
	return *s
}

// hanging says something and then nothing until it is cut off.
func hanging(text string) provider {
	return func(ctx context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
		if !yield(llm.Chunk{Text: text}, nil) {
			return
		}
		<-ctx.Done()
		yield(llm.Chunk{}, llm.ContextError(ctx))
	}
}

// unequal lists where the three sums of the ledger, the prompts and the executions
// do not agree.
const unequal = `
WITH calls AS (
    SELECT execution_id, prompt_id, sum(input_tokens) i, sum(output_tokens) o, sum(cached_tokens) c, sum(cache_write_tokens) w, sum(reasoning_tokens) r,
           bool_or(usage_source = 'estimated') e, CASE WHEN bool_and(cost_usd IS NOT NULL) THEN sum(cost_usd) END AS usd,
           count(*) FILTER (WHERE status = 'open') AS open
      FROM llm_calls GROUP BY 1, 2
), prompts AS (
    SELECT p.execution_id, 'prompt ' || p.prompt_id AS what,
           (p.input_tokens, p.output_tokens, p.cached_tokens, p.cache_write_tokens, p.reasoning_tokens, p.usage_estimated, p.cost_usd, 0::bigint)
           IS NOT DISTINCT FROM
           (coalesce(c.i, 0), coalesce(c.o, 0), coalesce(c.c, 0), coalesce(c.w, 0), coalesce(c.r, 0), coalesce(c.e, false),
            CASE WHEN c.execution_id IS NULL THEN 0 ELSE c.usd END, coalesce(c.open, 0)) AS equal
      FROM prompt_results p LEFT JOIN calls c USING (execution_id, prompt_id)
), executions AS (
    SELECT e.id, 'execution' AS what,
           (e.input_tokens, e.output_tokens, e.cost_usd) IS NOT DISTINCT FROM
           (coalesce(sum(c.i), 0), coalesce(sum(c.o), 0), CASE WHEN bool_and(c.usd IS NOT NULL OR c.execution_id IS NULL) THEN coalesce(sum(c.usd), 0) END) AS equal
      FROM executions e LEFT JOIN calls c ON c.execution_id = e.id
     WHERE e.finished_at IS NOT NULL GROUP BY e.id
)
SELECT execution_id::text || ' ' || what FROM prompts WHERE NOT equal
UNION ALL SELECT id::text || ' ' || what FROM executions WHERE NOT equal
UNION ALL SELECT c.execution_id::text || ' has calls without a prompt' FROM calls c LEFT JOIN prompt_results p USING (execution_id, prompt_id) WHERE p.prompt_id IS NULL`

// checkSums fails the test where sums do not agree in the database.
func checkSums(t *testing.T, url string) {
	t.Helper()
	rows, err := pgtest.Connect(t, url).Query(t.Context(), unequal)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var wrong string
		if err := rows.Scan(&wrong); err != nil {
			t.Fatal(err)
		}
		t.Errorf("the sums of %s do not agree", wrong)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// Whatever fails and whoever runs it: the sums of the ledger are those of the
// prompts, and those are the ones of the executions. Processes stop in the middle
// of calls, others go on, and what has failed is retried and forked.
func TestSumsAgree(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 6)) // of the test itself
	var turn atomic.Uint64
	p := provider(func(ctx context.Context, req llm.Request, yield func(llm.Chunk, error) bool) {
		r := rand.New(rand.NewPCG(seed, turn.Add(1)))
		u := llm.Usage{InputTokens: 20 + r.Int64N(1000), OutputTokens: 1 + r.Int64N(100)}
		u.CachedTokens = r.Int64N(u.InputTokens)
		u.CacheWriteTokens = r.Int64N(u.InputTokens - u.CachedTokens + 1)
		u.ReasoningTokens = r.Int64N(u.OutputTokens)
		text := strings.Repeat("word ", r.IntN(20))
		if r.IntN(3) > 0 && !yield(llm.Chunk{Text: text}, nil) {
			return
		}
		switch r.IntN(9) {
		case 0:
			yield(llm.Chunk{}, llm.NewError(llm.CodeOverloaded, nil))
		case 1:
			yield(llm.Chunk{}, &llm.Error{Code: llm.CodeUnavailable, Status: 503, Retryable: true, Usage: &u})
		case 2:
			yield(llm.Chunk{}, &llm.Error{Code: llm.CodeRateLimited, Status: 429, Retryable: true})
		case 3:
			yield(llm.Chunk{}, llm.NewError(llm.CodeContentFiltered, nil))
		case 4:
			yield(llm.Chunk{Text: text, FinishReason: llm.FinishStop}, nil)
		default:
			yield(llm.Chunk{Text: "{}", FinishReason: llm.FinishStop, Usage: &u}, nil)
		}
	})
	reached := make(chan struct{}, 100)
	slow := provider(func(ctx context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
		if yield(llm.Chunk{Text: "some of it"}, nil) {
			reached <- struct{}{}
			<-ctx.Done()
			yield(llm.Chunk{}, llm.ContextError(ctx))
		}
	})
	models := func(slowly bool) map[string]llm.Entry {
		m := vendor(p, dear(), "a", "b", "slow")
		m["other"] = llm.Entry{Provider: p} // without a price
		m["slow"] = vendor(slow, dear(), "m")["test"]
		if !slowly {
			m["slow"] = vendor(p, dear(), "m")["test"]
		}
		return m
	}
	url := pgtest.Database(t)
	h := newHarnessOn(t, url, models(true), executor.Config{Owner: "one", Retry: quick})
	var ids []int64
	for i := range 24 {
		third := []string{"test/b", "other/x", "slow/m", "missing/x"}[i%4]
		v := h.chain(fmt.Sprintf(`
name: sums-%d
prompts:
  - {name: A, position: 1, model: test/a, content: hello, retry: {attempts: 3}, fallback: [test/b], onError: continue}
  - {name: B, position: 1, model: test/b, content: hello, retry: {attempts: 2}, output: {schema: {type: object}}, onError: continue}
  - {name: C, position: 2, model: %s, content: hello, retry: {attempts: 2}, fallback: [test/a]}
  - {name: D, position: 3, model: test/a, content: hello}
`, i, third))
		ids = append(ids, h.trigger(v, nil).ID)
	}
	for range 1 + dice.IntN(len(ids)/4) { // of those that hang
		<-reached
	}
	h.interrupt()
	next := h.resume(models(false), executor.Config{Owner: "two", Workers: 50, Retry: quick})
	for _, id := range ids {
		h.checkLog(id, h.follow(id))
	}
	checkSums(t, url)
	derived := 0
	for _, id := range ids {
		for _, d := range []executor.Derivation{{Origin: executor.OriginRetry}, {Origin: executor.OriginFork, FromPrompt: "d"}, {Origin: executor.OriginFork, Model: "test/b"}} {
			d.Parent = id
			trigger, err := next.Derive(t.Context(), d)
			if errors.Is(err, executor.ErrCompleted) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			ex, _, err := next.Trigger(t.Context(), trigger)
			if err != nil {
				t.Fatal(err)
			}
			derived++
			h.checkLog(ex.ID, h.follow(ex.ID))
		}
	}
	checkSums(t, url)
	var calls, lost, reused int
	pgtest.Row(t, url, `SELECT count(*), count(*) FILTER (WHERE lost), (SELECT count(*) FROM prompt_results WHERE reused_from_execution_id IS NOT NULL) FROM llm_calls`,
		nil, &calls, &lost, &reused)
	t.Logf("%d executions, %d derived, %d calls, %d lost, %d prompts reused", len(ids), derived, calls, lost, reused)
	if calls < 100 || lost == 0 || reused == 0 {
		t.Errorf("%d calls, %d of them lost, %d prompts reused: this proves little", calls, lost, reused)
	}
	pgtest.Row(t, url, `SELECT count(*) FROM llm_calls c JOIN prompt_results r USING (execution_id, prompt_id) WHERE r.reused_from_execution_id IS NOT NULL`, nil, &calls)
	if calls != 0 {
		t.Errorf("%d calls of prompts that were taken over", calls)
	}
	// What is erased is erased here too.
	if err := h.store.DeleteExecution(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	if rows := h.calls(ids[0]); len(rows) != 0 {
		t.Errorf("%d calls of an erased execution", len(rows))
	}
}

// A price that an operator wrote into the database counts from then on, and not
// the one that the server was built with.
func TestPricesOfTheDatabaseCount(t *testing.T) {
	t.Parallel()
	answer := provider(func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
		yield(llm.Chunk{Text: "x", FinishReason: llm.FinishStop, Usage: &llm.Usage{InputTokens: 1000, OutputTokens: 10}}, nil)
	})
	url := pgtest.Database(t)
	pgtest.Session(t, url)("INSERT INTO model_prices (model_id, input_usd, output_usd) VALUES ('test/m', 7, 0.5)",
		"INSERT INTO model_prices (model_id, valid_from, input_usd, output_usd) VALUES ('test/m', '2099-01-01', 99, 99)")
	h := newHarnessOn(t, url, vendor(answer, dear(), "m", "other"), executor.Config{Poll: 10 * time.Millisecond})
	v := h.chain(single)
	first := h.trigger(v, nil)
	h.follow(first.ID)
	if got := h.calls(first.ID)[0]; deref(got.CostUSD) != "0.007005" {
		t.Errorf("cost %s", deref(got.CostUSD))
	}
	// A change is noticed while the server runs.
	pgtest.Session(t, url)("UPDATE model_prices SET input_usd = 8 WHERE valid_from = '-infinity'")
	for deadline := time.Now().Add(time.Minute); ; {
		ex := h.trigger(v, nil)
		h.follow(ex.ID)
		if got := h.calls(ex.ID)[0]; deref(got.CostUSD) == "0.008005" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("cost %s", deref(got.CostUSD))
		}
	}
	// Another model of the vendor has no row there.
	ex := h.trigger(h.chain(strings.Replace(strings.Replace(single, "test/m", "test/other", 1), "single", "other", 1)), nil)
	h.follow(ex.ID)
	if got := h.calls(ex.ID)[0]; deref(got.CostUSD) != "1.1" {
		t.Errorf("cost %s", deref(got.CostUSD))
	}
}

// The cost of an execution is exact, however small its parts.
func TestCostIsExact(t *testing.T) {
	t.Parallel()
	answer := provider(func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
		yield(llm.Chunk{Text: "x", FinishReason: llm.FinishStop, Usage: &llm.Usage{InputTokens: 1, OutputTokens: 3}}, nil)
	})
	h := newHarness(t, vendor(answer, llm.Price{Input: usd("0.0000001"), Output: usd("12345.6789")}, "m"), executor.Config{})
	ex := h.trigger(h.chain(single), nil)
	h.follow(ex.ID)
	got, err := h.store.Execution(t.Context(), ex.ID)
	if err != nil || deref(got.CostUSD) != "0.0370370367001" {
		t.Errorf("cost %s, %v", deref(got.CostUSD), err)
	}
}
