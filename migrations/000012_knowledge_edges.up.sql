-- Number 11 are the tables of the queue of background work (postgres/migrate.go).

-- What the version of a document was made of that searches see: an address that is
-- fetched again and has the same changes nothing. Null = none yet, or not known.
ALTER TABLE documents
    ADD COLUMN ready_hash       bytea,
    ADD COLUMN ready_media_type text;
UPDATE documents SET ready_hash = content_hash, ready_media_type = media_type WHERE status = 'ready';

-- Whether a vector stands for the beginning of its text alone, because the model reads no
-- more; and how many passages of a document that searches see have such a vector.
ALTER TABLE chunk_vectors ADD COLUMN cut boolean NOT NULL DEFAULT false;
ALTER TABLE documents ADD COLUMN cut_chunks integer NOT NULL DEFAULT 0;

-- The ledger of embedding models: one row per call, written after it. A call belongs to
-- the retrieval of an execution and goes with that, or to a document, whose row it
-- outlives, or to a request or a search of a client.
CREATE TABLE embedding_calls (
    request_id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    purpose       text NOT NULL CHECK (purpose IN ('document', 'query', 'request')),
    execution_id  bigint REFERENCES executions (id) ON DELETE CASCADE,
    prompt_id     bigint,
    document_id   bigint, -- no reference: what was paid was paid
    provider      text NOT NULL,
    model         text NOT NULL,
    status        llm_call_status NOT NULL CHECK (status <> 'open'),
    texts         integer NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    usage_source  text NOT NULL CHECK (usage_source IN ('provider', 'estimated')),
    cost_usd      numeric, -- null when the model has no price
    error_code    text,
    http_status   integer,
    duration_ms   bigint NOT NULL,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz NOT NULL
);

CREATE INDEX embedding_calls_execution_idx ON embedding_calls (execution_id) WHERE execution_id IS NOT NULL;
CREATE INDEX embedding_calls_started_idx ON embedding_calls (started_at);

-- embedding_price is what a call costs by the prices of the database; known tells
-- whether it has any of the model.
CREATE FUNCTION embedding_price(model_id text, at timestamptz, input_tokens bigint, output_tokens bigint, OUT known boolean, OUT cost numeric)
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM model_prices p WHERE p.model_id = embedding_price.model_id),
           (SELECT llm_cost(p, input_tokens, output_tokens, 0, 0)
              FROM model_prices p
             WHERE p.model_id = embedding_price.model_id AND p.valid_from <= at AND (p.valid_until IS NULL OR at < p.valid_until)
             ORDER BY p.valid_from DESC
             LIMIT 1)
$$;

-- embedding_book writes a call into the ledger. What a call of an execution cost is spent
-- of the budgets that count the execution; nothing is set aside for it before. What is
-- free need not be on the disk before anybody goes on.
CREATE FUNCTION embedding_book(call embedding_calls) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    price record;
    ids bigint[];
BEGIN
    SELECT p.known, p.cost INTO price FROM embedding_price(call.provider || '/' || call.model, call.started_at, call.input_tokens, call.output_tokens) p;
    IF price.known THEN
        call.cost_usd := price.cost;
    END IF;
    IF call.cost_usd = 0 THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    call.request_id := gen_random_uuid();
    INSERT INTO embedding_calls SELECT call.*;
    IF call.execution_id IS NULL OR NOT EXISTS (SELECT FROM budgets) THEN
        RETURN;
    END IF;
    ids := ARRAY(SELECT b.id FROM budgets b
                  WHERE b.tenant = 'default'
                    AND b.scope IN ('all', (SELECT 'chain:' || e.chain_name FROM executions e WHERE e.id = call.execution_id))
                  ORDER BY b.id FOR NO KEY UPDATE);
    UPDATE budgets b
       SET spent_usd = CASE WHEN n.start > b.period_start THEN 0 ELSE b.spent_usd END + coalesce(call.cost_usd, 0),
           spent_tokens = CASE WHEN n.start > b.period_start THEN 0 ELSE b.spent_tokens END + call.input_tokens + call.output_tokens,
           reserved_usd = CASE WHEN n.start > b.period_start THEN 0 ELSE b.reserved_usd END,
           reserved_tokens = CASE WHEN n.start > b.period_start THEN 0 ELSE b.reserved_tokens END,
           period_start = greatest(n.start, b.period_start)
      FROM (SELECT x.id, budget_period(x.period, clock_timestamp()) AS start FROM budgets x) n
     WHERE b.id = ANY(ids) AND n.id = b.id;
END
$$;

-- llm_reprice as it was; it prices embedding calls too, which are part of no sum.
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

    WITH changed AS (
        UPDATE embedding_calls c SET cost_usd = p.cost
          FROM embedding_calls x
         CROSS JOIN LATERAL embedding_price(x.provider || '/' || x.model, x.started_at, x.input_tokens, x.output_tokens) p
         WHERE x.started_at >= llm_reprice.since AND x.started_at < llm_reprice.until
           AND c.request_id = x.request_id AND p.known AND c.cost_usd IS DISTINCT FROM p.cost
        RETURNING c.request_id
    )
    SELECT llm_reprice.calls + count(*) INTO llm_reprice.calls FROM changed x;
END
$$;

-- The views have the calls of both kinds.
CREATE OR REPLACE VIEW v_llm_calls AS
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
       c.finished_at,
       c.purpose,
       c.document_id,
       c.texts
  FROM (SELECT request_id, execution_id, prompt_id, attempt, provider, model, status, input_tokens, output_tokens, cached_tokens,
               cache_write_tokens, reasoning_tokens, usage_source, raw_usage, cost_usd, error_code, http_status, finish_reason, response_id,
               duration_ms, time_to_first_token_ms, started_at, finished_at, 'prompt' AS purpose, NULL::bigint AS document_id, NULL::integer AS texts
          FROM llm_calls
        UNION ALL
        SELECT request_id, execution_id, prompt_id, NULL, provider, model, status, input_tokens, output_tokens, 0, 0, 0, usage_source, NULL,
               cost_usd, error_code, http_status, NULL, NULL, duration_ms, NULL, started_at, finished_at, purpose, document_id, texts
          FROM embedding_calls) c
  LEFT JOIN executions e ON e.id = c.execution_id
  LEFT JOIN prompt_results r ON r.execution_id = c.execution_id AND r.prompt_id = c.prompt_id;

CREATE OR REPLACE VIEW v_costs_hourly AS
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
  FROM (SELECT date_trunc('hour', c.started_at) AS hour, c.execution_id, c.model_id,
               false AS ran, false AS gave_up, false AS reused, true AS called,
               c.status IN ('failed', 'cancelled') AS call_failed, c.usage_source IS NOT DISTINCT FROM 'estimated' AS estimated,
               c.input_tokens, c.output_tokens, c.cached_tokens, c.cache_write_tokens, c.reasoning_tokens, c.cost_usd,
               NULL::bigint AS reused_tokens, NULL::numeric AS reused_cost_usd
          FROM (SELECT started_at, execution_id, provider || '/' || model AS model_id, status, usage_source, input_tokens, output_tokens,
                       cached_tokens, cache_write_tokens, reasoning_tokens, cost_usd
                  FROM llm_calls
                UNION ALL
                SELECT started_at, execution_id, provider || '/' || model, status, usage_source, input_tokens, output_tokens, 0, 0, 0, cost_usd
                  FROM embedding_calls) c
        UNION ALL
        SELECT date_trunc('hour', r.started_at), r.execution_id, r.model_id,
               r.reused_from_execution_id IS NULL, r.status = 'failed', r.reused_from_execution_id IS NOT NULL, false, false, false,
               NULL, NULL, NULL, NULL, NULL, CASE WHEN r.reused_from_execution_id IS NOT NULL THEN 0 END, r.reused_input_tokens + r.reused_output_tokens, r.reused_cost_usd
          FROM prompt_results r) x
  LEFT JOIN executions e ON e.id = x.execution_id -- embedding calls may be in none
 GROUP BY 1, 2, 3;

CREATE OR REPLACE VIEW v_model_costs_daily AS
SELECT (c.started_at AT TIME ZONE 'UTC')::date AS day, -- in UTC
       c.model_id,
       count(*) AS calls,
       count(*) FILTER (WHERE c.status IN ('failed', 'cancelled')) AS failed_calls,
       count(*) FILTER (WHERE c.usage_source = 'estimated') AS estimated_calls,
       sum(c.input_tokens) AS input_tokens,
       sum(c.output_tokens) AS output_tokens,
       sum(c.cached_tokens) AS cached_tokens,
       sum(c.cache_write_tokens) AS cache_write_tokens,
       sum(c.reasoning_tokens) AS reasoning_tokens,
       sum(c.cost_usd) AS cost_usd
  FROM (SELECT started_at, provider || '/' || model AS model_id, status, usage_source, input_tokens, output_tokens,
               cached_tokens, cache_write_tokens, reasoning_tokens, cost_usd
          FROM llm_calls
        UNION ALL
        SELECT started_at, provider || '/' || model, status, usage_source, input_tokens, output_tokens, 0, 0, 0, cost_usd
          FROM embedding_calls) c
 GROUP BY 1, 2;

-- Which transaction has changed a document last. Whoever looked at a snapshot finds what
-- has become visible since by asking for all from the oldest transaction on that was
-- running then: unlike times and sequences, that misses nothing that commits late.
ALTER TABLE documents ADD COLUMN changed xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX documents_changed_idx ON documents (repository_id, changed);

CREATE FUNCTION documents_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := pg_current_xact_id();
    RETURN NEW;
END
$$;

CREATE TRIGGER documents_changed BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION documents_changed();

-- Documents that are gone, for a week, for those who follow a repository.
CREATE TABLE document_deletions (
    document_id   bigint PRIMARY KEY,
    repository_id bigint NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    changed       xid8 NOT NULL DEFAULT pg_current_xact_id(),
    deleted_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX document_deletions_changed_idx ON document_deletions (repository_id, changed);
CREATE INDEX document_deletions_deleted_idx ON document_deletions (deleted_at);
