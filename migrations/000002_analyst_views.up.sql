-- Stable views for analysts. Their columns are only ever added to.

-- The log under the name and with the columns that existing reports use. The
-- id is unique and grows with time inside an execution.
CREATE VIEW assistant_architect_events AS
SELECT (execution_id << 24) | seq AS id,
       execution_id,
       event_type,
       event_data,
       created_at
  FROM events;

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

CREATE VIEW v_retrievals AS
SELECT ev.execution_id,
       e.chain_name,
       (ev.event_data ->> 'promptId')::bigint AS prompt_id,
       (ev.event_data ->> 'documentsFound')::integer AS documents_found,
       (ev.event_data ->> 'relevanceScore')::double precision AS relevance_score,
       (ev.event_data ->> 'tokens')::integer AS tokens,
       ev.event_data ->> 'error' AS error,
       ev.created_at
  FROM events ev
  JOIN executions e ON e.id = ev.execution_id
 WHERE ev.event_type = 'knowledge-retrieved';
