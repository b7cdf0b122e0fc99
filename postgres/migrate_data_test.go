package postgres_test

import (
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

// A step down and up again with direct calls, their forks, what waits and what
// the cache holds; what belongs to the chains of users stays.
func TestMigrateDownWithModelData(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	const direct = "9007199254740991"
	pgtest.Session(t, url)(
		"INSERT INTO chains (name, version) VALUES ('c', 1)",
		"INSERT INTO chain_versions VALUES (1, 1, '', '{}', '{7}', now())",
		"INSERT INTO executions (chain_id, chain_version, chain_name, status, inputs, total_prompts, wake_at, slot) VALUES (1, 1, 'c', 'waiting', '{}', 1, now(), 1)",
		"INSERT INTO executions (chain_id, chain_version, chain_name, status, inputs, total_prompts, finished_at) VALUES ("+direct+", 1, '_direct', 'failed', '{}', 1, now())",
		"INSERT INTO executions (chain_id, chain_version, chain_name, status, inputs, total_prompts, parent_execution_id, origin) VALUES ("+direct+", 1, '_direct', 'running', '{}', 1, 2, 'retry')",
		"INSERT INTO execution_calls VALUES (2, '{}'), (3, '{}')",
		"INSERT INTO llm_calls (request_id, execution_id, prompt_id, attempt, provider, model, status, started_at) VALUES (gen_random_uuid(), 3, "+direct+", 1, 'v', 'm', 'open', now())",
		"INSERT INTO budgets (scope, period, limit_usd, period_start) VALUES ('all', 'total', 1, '-infinity')",
		"INSERT INTO budget_reservations SELECT request_id, 1, 3, 1, '-infinity', 1, 1 FROM llm_calls",
		"INSERT INTO response_cache (key, chain_id, prompt_id, model_id, expires_at, output, execution_id) VALUES ('k', 1, 7, 'v/m', now() + interval '1 h', 'x', 1)",
	)
	for _, version := range []int64{8, 7, 6, 5} {
		if err := postgres.MigrateTo(t.Context(), url, version); err != nil {
			t.Fatalf("down to %d: %v", version, err)
		}
	}
	if got := list(t, url, "SELECT id || ' ' || status FROM executions"); len(got) != 1 || got[0] != "1 running" {
		t.Errorf("left: %v", got)
	}
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
}
