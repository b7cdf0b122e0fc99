-- Executions that begin with the finished prompts of another one. What a prompt
-- took over was paid by the execution it comes from, so its figures stand apart:
-- the sum of input_tokens, output_tokens and cost_usd is always what was paid.

ALTER TABLE executions
    ADD COLUMN parent_execution_id bigint, -- no reference: a parent may be erased, its children stay
    ADD COLUMN origin text CHECK (origin IN ('retry', 'fork')),
    ADD COLUMN fork_from_prompt text, -- slug of the first prompt that runs again; null = all
    ADD COLUMN reuse_prompt_ids bigint[], -- prompts whose results are taken over at the first claim
    ADD COLUMN models jsonb; -- slug to model: what stands in for the models of the chain

CREATE INDEX executions_parent_idx ON executions (parent_execution_id, id DESC) WHERE parent_execution_id IS NOT NULL;

ALTER TABLE prompt_results
    ADD COLUMN reused_from_execution_id bigint, -- the execution that paid for it
    ADD COLUMN reused_input_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN reused_output_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN reused_cost_usd numeric(20, 10);

CREATE OR REPLACE VIEW v_executions AS
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

CREATE OR REPLACE VIEW v_prompt_runs AS
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
CREATE OR REPLACE VIEW v_costs_hourly AS
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
