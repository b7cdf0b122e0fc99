-- name: LLMCallList :many
-- LLMCallList answers the calls of an execution in the order in which they began.
SELECT * FROM llm_calls WHERE execution_id = @execution_id ORDER BY started_at, request_id;

-- name: LLMReprice :one
-- LLMReprice computes costs anew from the prices that are valid now.
SELECT r.calls::bigint AS calls, r.prompts::bigint AS prompts, r.executions::bigint AS executions, r.running::bigint AS running
  FROM llm_reprice(@since::timestamptz, @until::timestamptz) AS r;

-- name: LLMCostBetween :one
-- LLMCostBetween answers what the calls that began in a time have cost together.
SELECT coalesce(sum(c.cost_usd), 0)::numeric AS cost_usd
  FROM v_llm_calls c
 WHERE c.started_at >= @since AND c.started_at < @until;

-- name: EmbeddingBook :exec
-- EmbeddingBook writes a call of an embedding model into the ledger.
SELECT embedding_book(ROW(NULL, @purpose::text, sqlc.narg('execution_id')::bigint, sqlc.narg('prompt_id')::bigint, sqlc.narg('document_id')::bigint,
    @provider::text, @model::text, @status::text, @texts::integer, @input_tokens::bigint, @output_tokens::bigint, @usage_source::text,
    sqlc.narg('cost_usd')::numeric, sqlc.narg('error_code')::text, sqlc.narg('http_status')::integer, @duration_ms::bigint,
    @started_at::timestamptz, clock_timestamp())::embedding_calls);
