-- A view cannot lose columns in place, so the views are made anew as they were.
DROP VIEW v_costs_hourly;
DROP VIEW v_prompt_runs;
DROP VIEW v_executions;
ALTER TABLE prompt_results
    DROP COLUMN reused_from_execution_id,
    DROP COLUMN reused_input_tokens,
    DROP COLUMN reused_output_tokens,
    DROP COLUMN reused_cost_usd;
DROP INDEX executions_parent_idx;
ALTER TABLE executions
    DROP COLUMN parent_execution_id,
    DROP COLUMN origin,
    DROP COLUMN fork_from_prompt,
    DROP COLUMN reuse_prompt_ids,
    DROP COLUMN models;

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
       round(extract(epoch FROM e.finished_at - e.started_at) * 1000)::bigint AS duration_ms
  FROM executions e;

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
       r.finished_at
  FROM prompt_results r
  JOIN executions e ON e.id = r.execution_id;

CREATE VIEW v_costs_hourly AS
SELECT date_trunc('hour', r.started_at) AS hour,
       e.chain_name,
       r.model_id,
       count(*) AS prompts,
       count(*) FILTER (WHERE r.status = 'failed') AS failed,
       sum(r.input_tokens) AS input_tokens,
       sum(r.output_tokens) AS output_tokens,
       sum(r.cost_usd) AS cost_usd
  FROM prompt_results r
  JOIN executions e ON e.id = r.execution_id
 GROUP BY 1, 2, 3;
