-- name: ExecutionCallInsert :one
-- ExecutionCallInsert queues the execution of a direct call together with what
-- is asked.
WITH queued AS (
    INSERT INTO executions (chain_id, chain_version, chain_name, inputs, metadata, limits, total_prompts, priority, models)
    VALUES (@chain_id, @chain_version, @chain_name, @inputs, sqlc.narg('metadata'), sqlc.narg('limits'), @total_prompts, @priority, @models)
    RETURNING id, created_at
), kept AS (
    INSERT INTO execution_calls (execution_id, call) SELECT q.id, @call::json FROM queued q
)
SELECT id, created_at FROM queued;

-- name: ExecutionCallByID :one
-- ExecutionCallByID answers what a direct call asks.
SELECT call FROM execution_calls WHERE execution_id = @execution_id;
