-- The views are made anew as they were.
DROP VIEW v_model_costs_daily;
DROP VIEW v_costs_hourly;
DROP VIEW v_llm_calls;
DROP VIEW v_prompt_runs;
DROP VIEW v_executions;
DROP FUNCTION budget_release(uuid);
DROP FUNCTION budget_settle(uuid[], interval);
DROP FUNCTION budget_reserve(uuid, bigint, bigint, text, text[], numeric, numeric, bigint, bigint, bigint);
DROP FUNCTION budget_period(text, timestamptz);
DROP TABLE budget_reservations;
DROP TABLE budgets;
DROP FUNCTION llm_reprice(timestamptz, timestamptz);
DROP FUNCTION llm_cost(model_prices, bigint, bigint, bigint, bigint);
DROP TABLE model_prices;
DROP FUNCTION model_prices_owner();
DROP INDEX prompt_results_reused_idx;
DROP TABLE llm_calls;
DROP TYPE llm_call_status;
ALTER TABLE prompt_results
    DROP COLUMN cache_write_tokens,
    ALTER COLUMN cost_usd TYPE numeric(20, 10),
    ALTER COLUMN reused_cost_usd TYPE numeric(20, 10);
ALTER TABLE executions ALTER COLUMN cost_usd TYPE numeric(20, 10);

CREATE VIEW v_executions AS
SELECT e.id AS execution_id,
       e.chain_id,
       e.chain_name,
       e.chain_version,
       e.status,
       e.error_code,
       e.error,
       e.input_tokens,
       e.output_tokens,
       e.input_tokens + e.output_tokens AS total_tokens,
       e.cost_usd,
       e.last_seq AS events,
       e.created_at,
       e.started_at,
       e.finished_at,
       round(extract(epoch FROM e.started_at - e.created_at) * 1000)::bigint AS queued_ms,
       round(extract(epoch FROM e.finished_at - e.started_at) * 1000)::bigint AS duration_ms,
       e.parent_execution_id,
       e.origin,
       coalesce(reused.prompts, 0) AS reused_prompts,
       coalesce(reused.tokens, 0) AS reused_tokens,
       reused.cost_usd AS reused_cost_usd
  FROM executions e
  LEFT JOIN LATERAL (
        SELECT count(*) AS prompts,
               sum(r.reused_input_tokens + r.reused_output_tokens)::bigint AS tokens,
               sum(r.reused_cost_usd) AS cost_usd
          FROM prompt_results r
         WHERE r.execution_id = e.id AND r.reused_from_execution_id IS NOT NULL) reused
    ON e.parent_execution_id IS NOT NULL; -- the others have nothing to look for

CREATE VIEW v_prompt_runs AS
SELECT r.execution_id,
       e.chain_id,
       e.chain_name,
       e.chain_version,
       r.prompt_id,
       r.name AS prompt_name,
       r.position,
       r.status,
       r.attempt AS attempts,
       r.model_id,
       split_part(r.model_id, '/', 1) AS provider,
       r.input_tokens,
       r.output_tokens,
       r.cached_tokens,
       r.reasoning_tokens,
       r.usage_estimated,
       r.cost_usd,
       r.cached,
       r.finish_reason,
       r.error_code,
       r.error,
       r.duration_ms,
       r.started_at,
       r.finished_at,
       r.reused_from_execution_id,
       r.reused_input_tokens,
       r.reused_output_tokens,
       r.reused_cost_usd
  FROM prompt_results r
  JOIN executions e ON e.id = r.execution_id;

-- A prompt that was taken over is no run of a model.
CREATE VIEW v_costs_hourly AS
SELECT date_trunc('hour', r.started_at) AS hour,
       e.chain_name,
       r.model_id,
       count(*) FILTER (WHERE r.reused_from_execution_id IS NULL) AS prompts,
       count(*) FILTER (WHERE r.status = 'failed') AS failed,
       sum(r.input_tokens) AS input_tokens,
       sum(r.output_tokens) AS output_tokens,
       sum(r.cost_usd) AS cost_usd,
       count(*) FILTER (WHERE r.reused_from_execution_id IS NOT NULL) AS reused_prompts,
       sum(r.reused_input_tokens + r.reused_output_tokens)::bigint AS reused_tokens,
       sum(r.reused_cost_usd) AS reused_cost_usd
  FROM prompt_results r
  JOIN executions e ON e.id = r.execution_id
 GROUP BY 1, 2, 3;
