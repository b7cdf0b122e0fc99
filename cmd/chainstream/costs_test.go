package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
)

const counted = `
name: counted
prompts:
  - {name: P, position: 1, model: offline/echo, content: "echo: words to count"}
`

// A server brings the prices that it knows; an operator corrects one and prices
// the past anew, while the server runs.
func TestCostsReprice(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	s := serve(t, nil, "--database-url", url)
	path := filepath.Join(t.TempDir(), "counted.yaml")
	if err := os.WriteFile(path, []byte(counted), 0o600); err != nil {
		t.Fatal(err)
	}
	succeed(t, s.client(), "run", path)
	var source string
	pgtest.Row(t, url, "SELECT source FROM model_prices WHERE model_id = 'offline/echo'", nil, &source)
	if source != "catalogue" {
		t.Errorf("source %q", source)
	}
	pgtest.Session(t, url)("UPDATE model_prices SET output_usd = 500000 WHERE model_id = 'offline/echo'")
	var tokens int64
	pgtest.Row(t, url, "SELECT sum(output_tokens) FROM llm_calls", nil, &tokens)
	reprice := func(args ...string) string {
		t.Helper()
		return succeed(t, map[string]string{"DATABASE_URL": url}, append([]string{"costs", "reprice", "--from", "2026-01-01T00:00:00Z"}, args...)...)
	}
	if got := reprice("--dry-run"); !strings.Contains(got, "1 call would have a new cost, with 1 prompt of 1 execution: 0 USD before") {
		t.Errorf("dry run: %s", got)
	}
	var got struct {
		DryRun                     bool
		Calls, Prompts, Executions int64
		CostUSDBefore              string `json:"costUsdBefore"`
	}
	if err := json.Unmarshal([]byte(reprice("--json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.DryRun || got.Calls != 1 || got.Prompts != 1 || got.Executions != 1 || got.CostUSDBefore != "0" {
		t.Errorf("reprice: %+v", got)
	}
	var right bool
	pgtest.Row(t, url, "SELECT cost_usd = $1::bigint * 0.5 FROM executions", []any{tokens}, &right)
	if !right || tokens == 0 {
		t.Errorf("the cost of %d tokens is wrong", tokens)
	}
	if got := reprice(); !strings.Contains(got, "0 calls have a new cost") {
		t.Errorf("a second time: %s", got)
	}
	if got := reprice("--until", "2026-01-02T00:00:00Z"); !strings.Contains(got, "0 calls") {
		t.Errorf("another time: %s", got)
	}
	for _, args := range [][]string{{"--from", "2099-01-01T00:00:00Z"}, {"--from", "2026-01-01T00:00:00Z", "--until", "2025-01-01T00:00:00Z"}} {
		if r := execute(t, map[string]string{"DATABASE_URL": url}, append([]string{"costs", "reprice"}, args...)...); r.code != 2 || !strings.Contains(r.stderr, "--from must be before --until") {
			t.Errorf("%v: %d %s", args, r.code, r.stderr)
		}
	}
}

// Budgets are set, kept, listed and removed from the command line.
func TestBudgetsCommand(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	// Set before the server starts, so that nothing is waited for.
	pgtest.Session(t, url)("INSERT INTO budgets (scope, period, limit_tokens, period_start) VALUES ('chain:counted', 'total', 5, '-infinity')")
	s := serve(t, nil, "--database-url", url)
	path := filepath.Join(t.TempDir(), "counted.yaml")
	if err := os.WriteFile(path, []byte(counted), 0o600); err != nil {
		t.Fatal(err)
	}
	r := execute(t, s.client(), "run", path)
	if r.code != 1 || !strings.Contains(r.stdout+r.stderr, "The budget of the chain counted of 5 tokens in total has no room") {
		t.Errorf("run: %d %s%s", r.code, r.stdout, r.stderr)
	}
	if got := succeed(t, s.client(), "budgets", "set", "chain:counted", "--period", "total", "--tokens", "100000"); !strings.Contains(got, "budget 1 of chain:counted") {
		t.Errorf("set: %s", got)
	}
	succeed(t, s.client(), "run", path)
	if got := succeed(t, s.client(), "budgets", "set", "all", "--period", "day", "--usd", "2.5", "--json"); !strings.Contains(got, `"limitUsd": 2.5`) {
		t.Errorf("set: %s", got)
	}
	var spent string
	pgtest.Row(t, url, "SELECT sum(input_tokens + output_tokens)::text FROM llm_calls", nil, &spent)
	got := strings.Join(strings.Fields(succeed(t, s.client(), "budgets", "list")), " ")
	for _, want := range []string{"1 chain:counted total 100000 tokens " + spent + " 0 ", " all day 2.5 USD 0 0 2.5"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	succeed(t, s.client(), "budgets", "remove", "1")
	if got := succeed(t, s.client(), "budgets", "list", "--json"); strings.Contains(got, "counted") || !strings.Contains(got, `"scope": "all"`) {
		t.Errorf("list: %s", got)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"set", "all"}, 2, "--usd or --tokens"},
		{[]string{"set", "all", "--usd", "much"}, 2, "is not an amount"},
		{[]string{"set", "tenant:x", "--usd", "1"}, 1, "/scope"},
		{[]string{"set", "all", "--usd", "1", "--period", "year"}, 1, "/period"},
		{[]string{"remove", "77"}, 1, "404"},
	} {
		if r := execute(t, s.client(), append([]string{"budgets"}, tt.args...)...); r.code != tt.code || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%v: %d %s", tt.args, r.code, r.stderr)
		}
	}
}
