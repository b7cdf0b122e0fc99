DROP TABLE document_deletions;
DROP TRIGGER documents_changed ON documents;
DROP FUNCTION documents_changed();
ALTER TABLE documents DROP COLUMN changed;

DROP VIEW v_model_costs_daily;
DROP VIEW v_costs_hourly;
DROP VIEW v_llm_calls;
CREATE VIEW v_llm_calls AS
SELECT c.request_id,
       c.execution_id,
       e.chain_id,
       e.chain_name,
       e.chain_version,
       c.prompt_id,
       r.name AS prompt_name,
       c.attempt,
       c.provider || '/' || c.model AS model_id,
       c.provider,
       c.model,
       c.status::text AS status,
       c.input_tokens,
       c.output_tokens,
       c.input_tokens + c.output_tokens AS total_tokens,
       c.input_tokens - c.cached_tokens - c.cache_write_tokens AS uncached_tokens,
       c.cached_tokens,
       c.cache_write_tokens,
       c.reasoning_tokens,
       c.usage_source,
       c.raw_usage,
       c.cost_usd,
       c.error_code,
       c.http_status,
       c.finish_reason,
       c.response_id,
       c.duration_ms,
       c.time_to_first_token_ms,
       c.started_at,
       c.finished_at
  FROM llm_calls c
  JOIN executions e ON e.id = c.execution_id
  LEFT JOIN prompt_results r ON r.execution_id = c.execution_id AND r.prompt_id = c.prompt_id;
CREATE VIEW v_costs_hourly AS
SELECT x.hour,
       e.chain_name,
       x.model_id,
       count(*) FILTER (WHERE x.ran) AS prompts,
       count(*) FILTER (WHERE x.gave_up) AS failed,
       coalesce(sum(x.input_tokens), 0) AS input_tokens,
       coalesce(sum(x.output_tokens), 0) AS output_tokens,
       sum(x.cost_usd) AS cost_usd,
       count(*) FILTER (WHERE x.reused) AS reused_prompts,
       coalesce(sum(x.reused_tokens), 0)::bigint AS reused_tokens,
       sum(x.reused_cost_usd) AS reused_cost_usd,
       count(*) FILTER (WHERE x.called) AS calls,
       count(*) FILTER (WHERE x.call_failed) AS failed_calls,
       count(*) FILTER (WHERE x.estimated) AS estimated_calls,
       coalesce(sum(x.cached_tokens), 0) AS cached_tokens,
       coalesce(sum(x.cache_write_tokens), 0) AS cache_write_tokens,
       coalesce(sum(x.reasoning_tokens), 0) AS reasoning_tokens
  FROM (SELECT date_trunc('hour', c.started_at) AS hour, c.execution_id, c.provider || '/' || c.model AS model_id,
               false AS ran, false AS gave_up, false AS reused, true AS called,
               c.status IN ('failed', 'cancelled') AS call_failed, c.usage_source IS NOT DISTINCT FROM 'estimated' AS estimated,
               c.input_tokens, c.output_tokens, c.cached_tokens, c.cache_write_tokens, c.reasoning_tokens, c.cost_usd,
               NULL::bigint AS reused_tokens, NULL::numeric AS reused_cost_usd
          FROM llm_calls c
        UNION ALL
        SELECT date_trunc('hour', r.started_at), r.execution_id, r.model_id,
               r.reused_from_execution_id IS NULL, r.status = 'failed', r.reused_from_execution_id IS NOT NULL, false, false, false,
               NULL, NULL, NULL, NULL, NULL, CASE WHEN r.reused_from_execution_id IS NOT NULL THEN 0 END, r.reused_input_tokens + r.reused_output_tokens, r.reused_cost_usd
          FROM prompt_results r) x
  JOIN executions e ON e.id = x.execution_id
 GROUP BY 1, 2, 3;
CREATE VIEW v_model_costs_daily AS
SELECT (c.started_at AT TIME ZONE 'UTC')::date AS day, -- in UTC
       c.provider || '/' || c.model AS model_id,
       count(*) AS calls,
       count(*) FILTER (WHERE c.status IN ('failed', 'cancelled')) AS failed_calls,
       count(*) FILTER (WHERE c.usage_source = 'estimated') AS estimated_calls,
       sum(c.input_tokens) AS input_tokens,
       sum(c.output_tokens) AS output_tokens,
       sum(c.cached_tokens) AS cached_tokens,
       sum(c.cache_write_tokens) AS cache_write_tokens,
       sum(c.reasoning_tokens) AS reasoning_tokens,
       sum(c.cost_usd) AS cost_usd
  FROM llm_calls c
 GROUP BY 1, 2;
CREATE OR REPLACE FUNCTION llm_reprice(since timestamptz, until timestamptz DEFAULT now(),
                            OUT calls bigint, OUT prompts bigint, OUT executions bigint, OUT running bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    touched bigint[];
BEGIN
    WITH due AS (
        SELECT c.request_id, c.execution_id, c.cost_usd,
               (SELECT llm_cost(p, c.input_tokens, c.output_tokens, c.cached_tokens, c.cache_write_tokens)
                  FROM model_prices p
                 WHERE p.model_id = c.provider || '/' || c.model
                   AND p.valid_from <= c.started_at AND (p.valid_until IS NULL OR c.started_at < p.valid_until)
                 ORDER BY p.valid_from DESC
                 LIMIT 1) AS cost
          FROM llm_calls c
          JOIN executions e ON e.id = c.execution_id AND e.finished_at IS NOT NULL
         WHERE c.started_at >= llm_reprice.since AND c.started_at < llm_reprice.until AND c.status <> 'open'
           AND EXISTS (SELECT FROM model_prices p WHERE p.model_id = c.provider || '/' || c.model)
    ), changed AS (
        UPDATE llm_calls c SET cost_usd = d.cost
          FROM due d
         WHERE c.request_id = d.request_id AND c.cost_usd IS DISTINCT FROM d.cost
        RETURNING c.execution_id
    )
    SELECT count(*), array_agg(DISTINCT x.execution_id) INTO llm_reprice.calls, touched FROM changed x;

    WITH sums AS (
        SELECT c.execution_id, c.prompt_id, CASE WHEN bool_and(c.cost_usd IS NOT NULL) THEN sum(c.cost_usd) END AS cost
          FROM llm_calls c WHERE c.execution_id = ANY(touched) GROUP BY 1, 2
    ), changed AS (
        UPDATE prompt_results r SET cost_usd = s.cost
          FROM sums s
         WHERE r.execution_id = s.execution_id AND r.prompt_id = s.prompt_id AND r.cost_usd IS DISTINCT FROM s.cost
        RETURNING r.execution_id
    )
    SELECT count(*) INTO llm_reprice.prompts FROM changed x;

    UPDATE prompt_results r SET reused_cost_usd = paid.cost_usd
      FROM prompt_results paid
     WHERE r.reused_from_execution_id = ANY(touched) AND paid.execution_id = r.reused_from_execution_id
       AND paid.prompt_id = r.prompt_id AND r.reused_cost_usd IS DISTINCT FROM paid.cost_usd;

    WITH sums AS (
        SELECT r.execution_id, CASE WHEN bool_and(r.cost_usd IS NOT NULL) THEN sum(r.cost_usd) END AS cost
          FROM prompt_results r WHERE r.execution_id = ANY(touched) GROUP BY 1
    ), changed AS (
        UPDATE executions e SET cost_usd = s.cost
          FROM sums s
         WHERE e.id = s.execution_id AND e.cost_usd IS DISTINCT FROM s.cost
        RETURNING e.id
    )
    SELECT count(*) INTO llm_reprice.executions FROM changed x;

    SELECT count(*) INTO llm_reprice.running
      FROM llm_calls c JOIN executions e ON e.id = c.execution_id AND e.finished_at IS NULL
     WHERE c.started_at >= llm_reprice.since AND c.started_at < llm_reprice.until;
END
$$;
DROP FUNCTION embedding_book(embedding_calls);
DROP FUNCTION embedding_price(text, timestamptz, bigint, bigint);
DROP TABLE embedding_calls;

-- A number that was given back is nothing that the newest version could be above.
UPDATE documents SET uploaded = version WHERE status = 'ready';
ALTER TABLE documents
    DROP COLUMN ready_hash,
    DROP COLUMN ready_media_type,
    DROP COLUMN cut_chunks;
ALTER TABLE chunk_vectors DROP COLUMN cut;
