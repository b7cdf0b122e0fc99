package httpapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/internal/pgtest"
)

// Budgets are set, listed page by page with what is left of them, and removed;
// amounts are exact.
func TestBudgets(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	put := func(body string) answer {
		return a.do(call{method: http.MethodPut, path: "/api/v1/budgets", body: body})
	}
	for body, want := range map[string]map[string]any{
		`{"scope":"all","period":"day","limitUsd":25.000000001}`:                    {"limitUsd": "25.000000001", "limitTokens": nil, "remainingUsd": "25.000000001", "remainingTokens": nil},
		`{"scope":"chain:two","period":"total","limitTokens":5000,"limitUsd":null}`: {"limitUsd": nil, "limitTokens": "5000", "remainingTokens": "5000", "since": nil},
		`{"scope":"all","period":"hour","limitUsd":1e-6,"limitTokens":0}`:           {"limitUsd": "0.000001", "limitTokens": "0", "spentUsd": "0", "reservedTokens": "0"},
		`{"scope":"all","period":"month","limitUsd":0}`:                             {"limitUsd": "0", "remainingUsd": "0"},
	} {
		got := put(body)
		if got.status != http.StatusOK {
			t.Fatalf("%s: %d %s", body, got.status, got.body)
		}
		checkAnswer(t, http.MethodPut, "/api/v1/budgets", got)
		fields := numbers(t, got.body)
		for name, value := range want {
			if diff := cmp.Diff(value, fields[name]); diff != "" {
				t.Errorf("%s: %s: %s", body, name, diff)
			}
		}
	}
	// The same scope and period is the same budget.
	if got := numbers(t, put(`{"scope":"all","period":"month","limitUsd":7}`).body); got["limitUsd"] != "7" {
		t.Errorf("set again: %v", got)
	}
	seen, path := 0, "/api/v1/budgets?limit=3"
	for range 2 {
		got := a.do(call{path: path})
		checkAnswer(t, http.MethodGet, "/api/v1/budgets", got)
		var page struct {
			Items      []struct{ ID int64 }
			NextCursor *string
		}
		if err := json.Unmarshal(got.body, &page); err != nil {
			t.Fatal(err)
		}
		seen += len(page.Items)
		if page.NextCursor == nil {
			break
		}
		path = "/api/v1/budgets?limit=3&cursor=" + *page.NextCursor
	}
	if seen != 4 {
		t.Errorf("%d budgets listed", seen)
	}
	if got := a.do(call{method: http.MethodDelete, path: "/api/v1/budgets/1"}); got.status != http.StatusNoContent {
		t.Errorf("delete: %d %s", got.status, got.body)
	}
	for _, path := range []string{"/api/v1/budgets/1", "/api/v1/budgets/x", "/api/v1/budgets/99999999999999999999"} {
		if got := a.do(call{method: http.MethodDelete, path: path}); got.status != http.StatusNotFound || !strings.Contains(string(got.body), "budget_not_found") {
			t.Errorf("delete %s: %d %s", path, got.status, got.body)
		}
	}
}

// numbers reads an object whose numbers are kept as their text.
func numbers(t *testing.T, body []byte) map[string]any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	var fields map[string]any
	if err := dec.Decode(&fields); err != nil {
		t.Fatal(err)
	}
	for name, value := range fields {
		if n, ok := value.(json.Number); ok {
			fields[name] = n.String()
		}
	}
	return fields
}

// What is wrong with a budget is said with a pointer for each field.
func TestBudgetProblems(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	for body, pointers := range map[string][]string{
		`{}`:                              {"/scope", "/period"},
		`[]`:                              {""},
		`{"scope":"all","period":"day"}`:  {""},
		`{"scope":"tenant","period":"x"}`: {"/scope", "/period"},
		`{"scope":"chain:","period":"day","limitUsd":1}`:                       {"/scope"},
		`{"scope":"chain:No Name","period":"day","limitUsd":1}`:                {"/scope"},
		`{"scope":"all","period":"day","limitUsd":-1}`:                         {"/limitUsd"},
		`{"scope":"all","period":"day","limitUsd":"1"}`:                        {"/limitUsd"},
		`{"scope":"all","period":"day","limitUsd":1e300}`:                      {"/limitUsd"},
		`{"scope":"all","period":"day","limitUsd":0.0000000001}`:               {"/limitUsd"},
		`{"scope":"all","period":"day","limitUsd":1e-300}`:                     {"/limitUsd"},
		`{"scope":"all","period":"day","limitTokens":1.5}`:                     {"/limitTokens"},
		`{"scope":"all","period":"day","limitTokens":-1}`:                      {"/limitTokens"},
		`{"scope":"all","period":"day","limitTokens":1,"spentUsd":0,"id":"1"}`: {"/id", "/spentUsd"},
	} {
		got := a.do(call{method: http.MethodPut, path: "/api/v1/budgets", body: body})
		checkAnswer(t, http.MethodPut, "/api/v1/budgets", got)
		var problem struct {
			Errors []struct{ Pointer string }
		}
		if err := json.Unmarshal(got.body, &problem); err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, e := range problem.Errors {
			found = append(found, e.Pointer)
		}
		if diff := cmp.Diff(pointers, found); got.status != http.StatusUnprocessableEntity || diff != "" {
			t.Errorf("%s: %d %s", body, got.status, diff)
		}
	}
}

// A limit of money over a model without a price is refused, whether the chain or
// the trigger sets it; the limits of a trigger only narrow.
func TestLimitsOfATrigger(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain("name: priced\nprompts:\n  - {name: P, position: 1, model: offline/echo, content: x}\nlimits: {maxCostUsd: 0.5, maxTokens: 1000}\n")
	a.chain("name: unpriced\nprompts:\n  - {name: P, position: 1, model: openai/gpt-4.1-mini, content: x}\n")
	for body, want := range map[string]string{
		`{"chain":"unpriced","limits":{"maxCostUsd":1}}`: "does not know the price of openai/gpt-4.1-mini",
		`{"chain":"priced","limits":{"maxTokens":0}}`:    "/limits/maxTokens",
		`{"chain":"priced","limits":{"maxTokens":1.5}}`:  "/limits/maxTokens",
		`{"chain":"priced","limits":{"maxTokens":"x"}}`:  "/limits/maxTokens",
	} {
		got := a.do(call{method: http.MethodPost, path: "/api/v1/executions", body: body})
		checkAnswer(t, http.MethodPost, "/api/v1/executions", got)
		if got.status != http.StatusUnprocessableEntity || !strings.Contains(string(got.body), want) {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
	for body, want := range map[string]map[string]any{
		`{"chain":"priced"}`: {"maxCostUsd": 0.5, "maxTokens": 1000.0},
		`{"chain":"priced","limits":{"maxCostUsd":0.25,"maxTokens":10}}`: {"maxCostUsd": 0.25, "maxTokens": 10.0},
		`{"chain":"priced","limits":{"maxCostUsd":9,"maxTokens":9999}}`:  {"maxCostUsd": 0.5, "maxTokens": 1000.0},
		`{"chain":"unpriced","limits":{"maxTokens":10}}`:                 {"maxTokens": 10.0},
	} {
		got := a.do(call{method: http.MethodPost, path: "/api/v1/executions", body: body})
		if got.status != http.StatusAccepted {
			t.Fatalf("%s: %d %s", body, got.status, got.body)
		}
		shown := a.do(call{path: got.header.Get("Location")})
		checkAnswer(t, http.MethodGet, "/api/v1/executions/1", shown)
		var detail struct{ Limits map[string]any }
		if err := json.Unmarshal(shown.body, &detail); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, detail.Limits); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
}

// An execution shows all parts of its usage, who counted them, and its exact cost.
func TestUsageOfAnExecution(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{workers: 2})
	a.chain("name: two\nprompts:\n  - {name: P, position: 1, model: offline/echo, content: x}\n")
	got := a.do(call{method: http.MethodPost, path: "/api/v1/executions", body: `{"chain":"two"}`, header: map[string]string{"Prefer": "wait=30"}})
	if got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	pgtest.Session(t, a.database)("UPDATE prompt_results SET cached_tokens = 3, cache_write_tokens = 2, reasoning_tokens = 1, usage_estimated = true, cost_usd = 0.12345678901234567890123456789",
		"UPDATE executions SET input_tokens = 10, output_tokens = 4, cost_usd = 0.12345678901234567890123456789")
	shown := a.do(call{path: "/api/v1/executions/1"})
	checkAnswer(t, http.MethodGet, "/api/v1/executions/1", shown)
	var detail struct {
		Usage   map[string]any
		CostUSD json.Number
		Prompts []map[string]any
	}
	dec := json.NewDecoder(strings.NewReader(string(shown.body)))
	dec.UseNumber()
	if err := dec.Decode(&detail); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"inputTokens": json.Number("10"), "outputTokens": json.Number("4"), "totalTokens": json.Number("14"), "cachedTokens": json.Number("3"),
		"cacheWriteTokens": json.Number("2"), "reasoningTokens": json.Number("1"), "usageSource": "estimated",
	}
	if diff := cmp.Diff(want, detail.Usage); diff != "" {
		t.Error(diff)
	}
	const exact = "0.12345678901234567890123456789"
	p := detail.Prompts[0]
	if detail.CostUSD != exact || p["costUsd"] != json.Number(exact) || p["cachedTokens"] != json.Number("3") || p["cacheWriteTokens"] != json.Number("2") || p["reasoningTokens"] != json.Number("1") {
		t.Errorf("cost %s, prompt %v", detail.CostUSD, p)
	}
	listed := a.do(call{path: "/api/v1/executions"})
	checkAnswer(t, http.MethodGet, "/api/v1/executions", listed)
	if !strings.Contains(string(listed.body), `"costUsd":`+exact) || strings.Contains(string(listed.body), "cachedTokens") {
		t.Errorf("list: %s", listed.body)
	}
}
