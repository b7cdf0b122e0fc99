-- name: ResponseCacheFind :many
-- ResponseCacheFind answers the answer under a key, or who is getting it; nothing
-- when there is neither.
SELECT holder, output, finish_reason, input_tokens, output_tokens, coalesce(trim_scale(cost_usd)::text, '')::text AS cost_usd, execution_id, request_id,
       (extract(epoch FROM clock_timestamp() - created_at) * 1000)::bigint AS age_ms
  FROM response_cache
 WHERE key = @key AND expires_at > clock_timestamp();

-- name: ResponseCacheClaim :execrows
-- ResponseCacheClaim makes the caller the one that gets the answer, unless there
-- is one or somebody else is at it.
INSERT INTO response_cache (key, chain_id, prompt_id, model_id, holder, expires_at)
VALUES (@key, @chain_id, @prompt_id, @model_id, @holder, clock_timestamp() + @lease::interval)
ON CONFLICT (key) DO UPDATE
   SET holder = excluded.holder, expires_at = excluded.expires_at, created_at = clock_timestamp(),
       output = NULL, finish_reason = NULL, input_tokens = 0, output_tokens = 0, cost_usd = NULL,
       execution_id = NULL, request_id = NULL, document_ids = '{}', hits = 0, last_hit_at = NULL
 WHERE response_cache.expires_at <= clock_timestamp();

-- name: ResponseCacheRenew :exec
-- ResponseCacheRenew prolongs the leases of calls that are still under way.
UPDATE response_cache SET expires_at = clock_timestamp() + @lease::interval
 WHERE key = ANY(@keys::bytea[]) AND holder = ANY(@holders::uuid[]);

-- name: ResponseCacheKeep :execrows
-- ResponseCacheKeep stores an answer, unless its chain has been deleted. It wins
-- over whoever is still getting one.
INSERT INTO response_cache (key, chain_id, prompt_id, model_id, expires_at, output, finish_reason,
                            input_tokens, output_tokens, cost_usd, execution_id, request_id, document_ids)
SELECT @key, c.id, @prompt_id, @model_id, clock_timestamp() + @ttl::interval, @output, @finish_reason,
       @input_tokens, @output_tokens, sqlc.narg('cost_usd')::text::numeric, @execution_id, @request_id, @document_ids::bigint[]
  FROM chains c
 WHERE c.id = @chain_id AND c.deleted_at IS NULL
ON CONFLICT (key) DO UPDATE
   SET holder = NULL, expires_at = excluded.expires_at, created_at = clock_timestamp(),
       output = excluded.output, finish_reason = excluded.finish_reason,
       input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens, cost_usd = excluded.cost_usd,
       execution_id = excluded.execution_id, request_id = excluded.request_id, document_ids = excluded.document_ids,
       hits = 0, last_hit_at = NULL;

-- name: ResponseCacheRelease :exec
-- ResponseCacheRelease gives up getting an answer, so that somebody else does.
DELETE FROM response_cache WHERE key = @key AND holder = @holder::uuid;

-- name: ResponseCacheCount :exec
-- ResponseCacheCount counts uses of answers.
UPDATE response_cache c SET hits = c.hits + u.hits, last_hit_at = clock_timestamp()
  FROM (SELECT unnest(@keys::bytea[]) AS key, unnest(@hits::bigint[]) AS hits) u
 WHERE c.key = u.key AND c.holder IS NULL;

-- name: ResponseCacheForgetChain :execrows
DELETE FROM response_cache WHERE chain_id = @chain_id;

-- name: ResponseCacheForgetDocuments :execrows
-- ResponseCacheForgetDocuments removes the answers to questions that held text of
-- these documents.
DELETE FROM response_cache WHERE document_ids && @document_ids::bigint[];

-- name: ResponseCacheForgetRepository :exec
-- ResponseCacheForgetRepository removes the answers to questions that held text of
-- any document of a repository.
DELETE FROM response_cache
 WHERE document_ids && (SELECT coalesce(array_agg(d.id), '{}') FROM documents d WHERE d.repository_id = @repository_id);

-- name: ResponseCacheExpire :execrows
-- ResponseCacheExpire removes some of what has expired. What somebody is just
-- renewing or replacing is left alone.
DELETE FROM response_cache
 WHERE key IN (SELECT c.key FROM response_cache c
                WHERE c.expires_at <= clock_timestamp()
                ORDER BY c.expires_at
                LIMIT @max_rows
                  FOR UPDATE SKIP LOCKED);
