-- name: IdempotencyKeyInsert :execrows
-- IdempotencyKeyInsert keeps a key for an execution; an expired key is taken over.
INSERT INTO idempotency_keys (key, request_hash, execution_id)
VALUES (@key, @request_hash, @execution_id)
ON CONFLICT (key) DO UPDATE
   SET request_hash = excluded.request_hash, execution_id = excluded.execution_id, created_at = clock_timestamp()
 WHERE idempotency_keys.created_at < clock_timestamp() - @ttl::interval;

-- name: IdempotencyKeyByKey :one
SELECT request_hash, execution_id FROM idempotency_keys
 WHERE key = @key AND created_at >= clock_timestamp() - @ttl::interval;

-- name: IdempotencyKeyExpire :execrows
DELETE FROM idempotency_keys WHERE created_at < clock_timestamp() - @ttl::interval;
