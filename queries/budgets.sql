-- name: BudgetReserve :one
-- BudgetReserve holds the worst case of a call in all budgets that count it, or
-- in none, and says how many tokens the answer may have.
SELECT coalesce(r.granted, -1)::bigint AS granted, coalesce(r.held, false)::boolean AS held,
       coalesce(r.scope, '')::text AS scope, coalesce(r.period, '')::text AS period, coalesce(r.unpriced, false)::boolean AS unpriced,
       coalesce(r.limit_usd::text, '')::text AS limit_usd, coalesce(r.spent_usd, 0)::numeric AS spent_usd, coalesce(r.reserved_usd, 0)::numeric AS reserved_usd,
       coalesce(r.limit_tokens, -1)::bigint AS limit_tokens, coalesce(r.spent_tokens, 0)::bigint AS spent_tokens, coalesce(r.reserved_tokens, 0)::bigint AS reserved_tokens
  FROM budget_reserve(@request_id::uuid, @execution_id::bigint, @lease_epoch::bigint, @tenant::text, @scopes::text[],
                      sqlc.narg('input_usd')::numeric, sqlc.narg('output_usd')::numeric, @input_tokens::bigint, @want::bigint, @minimum::bigint) AS r;

-- name: BudgetSettle :one
-- BudgetSettle books what calls really cost in the place of what they held.
SELECT budget_settle(@request_ids::uuid[])::bigint AS gone;

-- name: BudgetSweep :one
-- BudgetSweep settles what a server left behind that stopped in between.
SELECT budget_settle(NULL::uuid[], @age::interval)::bigint AS gone;

-- name: BudgetSettleExecution :exec
-- BudgetSettleExecution settles the calls of an execution that is about to be erased.
SELECT budget_settle(ARRAY(SELECT r.request_id FROM budget_reservations r WHERE r.execution_id = @execution_id));

-- name: BudgetRelease :exec
-- BudgetRelease gives back what a call held that will not be made.
SELECT budget_release(@request_id::uuid);

-- name: BudgetList :many
-- BudgetList answers budgets with the figures of the period that it is now; one without a
-- beginning has Go's zero time.
SELECT b.id, b.tenant, b.scope, b.period, b.limit_usd, b.limit_tokens,
       coalesce(nullif(greatest(b.period_start, n.start), '-infinity'), '0001-01-01 00:00:00+00')::timestamptz AS period_start,
       (CASE WHEN n.start > b.period_start THEN 0 ELSE b.spent_usd END)::numeric AS spent_usd,
       (CASE WHEN n.start > b.period_start THEN 0 ELSE b.spent_tokens END)::bigint AS spent_tokens,
       (CASE WHEN n.start > b.period_start THEN 0 ELSE b.reserved_usd END)::numeric AS reserved_usd,
       (CASE WHEN n.start > b.period_start THEN 0 ELSE b.reserved_tokens END)::bigint AS reserved_tokens,
       b.created_at, b.updated_at
  FROM budgets b
 CROSS JOIN LATERAL (SELECT budget_period(b.period, clock_timestamp()) AS start) n
 WHERE b.id > @after::bigint
 ORDER BY b.id
 LIMIT @max_rows;

-- name: BudgetSet :one
-- BudgetSet makes a budget or changes its limits; a new one begins with what the
-- ledger says was used in the period so far.
INSERT INTO budgets AS b (tenant, scope, period, limit_usd, limit_tokens, period_start, spent_usd, spent_tokens)
SELECT 'default', @scope::text, @period::text, sqlc.narg('limit_usd')::numeric, sqlc.narg('limit_tokens')::bigint, n.start,
       coalesce(sum(c.cost_usd), 0), coalesce(sum(c.input_tokens + c.output_tokens), 0)
  FROM (SELECT budget_period(@period::text, clock_timestamp()) AS start) n
  LEFT JOIN v_llm_calls c
    ON c.started_at >= n.start AND c.execution_id IS NOT NULL AND (@scope::text = 'all' OR @scope::text = 'chain:' || c.chain_name)
 GROUP BY n.start
ON CONFLICT (tenant, scope, period) DO UPDATE
   SET limit_usd = excluded.limit_usd, limit_tokens = excluded.limit_tokens, updated_at = clock_timestamp()
RETURNING b.id;

-- name: BudgetDelete :execrows
DELETE FROM budgets WHERE id = @id;
