-- name: ExecutionInsert :one
-- ExecutionInsert queues an execution.
INSERT INTO executions (chain_id, chain_version, chain_name, inputs, metadata, limits, total_prompts)
VALUES (@chain_id, @chain_version, @chain_name, @inputs, sqlc.narg('metadata'), sqlc.narg('limits'), @total_prompts)
RETURNING id, created_at;

-- name: ExecutionByID :one
SELECT * FROM executions WHERE id = @id;

-- name: ExecutionList :many
-- ExecutionList answers executions newest first, below the cursor.
SELECT * FROM executions
 WHERE (sqlc.narg('before')::bigint IS NULL OR id < sqlc.narg('before'))
   AND (sqlc.narg('chain_id')::bigint IS NULL OR chain_id = sqlc.narg('chain_id'))
   AND (sqlc.narg('chain_name')::text IS NULL OR chain_name = sqlc.narg('chain_name'))
   AND (sqlc.narg('status')::execution_status IS NULL OR status = sqlc.narg('status')::execution_status)
   AND (sqlc.narg('created_from')::timestamptz IS NULL OR created_at >= sqlc.narg('created_from'))
   AND (sqlc.narg('created_to')::timestamptz IS NULL OR created_at < sqlc.narg('created_to'))
   AND (sqlc.narg('parent_execution_id')::bigint IS NULL OR parent_execution_id = sqlc.narg('parent_execution_id'))
 ORDER BY id DESC
 LIMIT @max_rows;

-- name: ExecutionClaim :many
-- ExecutionClaim takes executions that wait or whose lease ran out, oldest
-- first, under a new epoch. Time is the database's. What the caller still runs
-- is left to it: its lease ran out because renewing it failed, not because its
-- owner died. The two kinds are looked for apart, because each has a small index
-- of its own; under one OR the planner walks through all finished executions.
WITH lost AS MATERIALIZED (
    SELECT c.id FROM executions c
     WHERE c.status = 'running' AND c.lease_expires_at < clock_timestamp() AND c.id <> ALL(@held::bigint[])
     ORDER BY c.id
     LIMIT @max_rows
       FOR NO KEY UPDATE SKIP LOCKED
), waiting AS MATERIALIZED (
    SELECT c.id FROM executions c
     WHERE c.status = 'queued'
     ORDER BY c.id
     LIMIT @max_rows
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE executions e
   SET status = 'running',
       lease_epoch = e.lease_epoch + 1,
       lease_owner = @owner::text,
       lease_expires_at = clock_timestamp() + @lease::interval,
       claims = e.claims + 1,
       started_at = coalesce(e.started_at, clock_timestamp())
 WHERE e.id IN (
        SELECT found.id FROM (SELECT l.id FROM lost l UNION ALL SELECT w.id FROM waiting w) found
         ORDER BY found.id
         LIMIT @max_rows)
RETURNING e.*;

-- name: ExecutionClaimQueued :many
-- ExecutionClaimQueued takes one execution if it still waits in the queue.
UPDATE executions e
   SET status = 'running',
       lease_epoch = e.lease_epoch + 1,
       lease_owner = @owner::text,
       lease_expires_at = clock_timestamp() + @lease::interval,
       claims = e.claims + 1,
       started_at = coalesce(e.started_at, clock_timestamp())
 WHERE e.id = @id AND e.status = 'queued'
RETURNING e.*;

-- name: ExecutionRenew :many
-- ExecutionRenew prolongs leases and answers which of them are still held and
-- whether their executions are to be cancelled.
UPDATE executions e
   SET lease_expires_at = clock_timestamp() + @lease::interval
  FROM (SELECT c.id FROM executions c
         WHERE c.id = ANY(@ids::bigint[])
         ORDER BY c.id
           FOR NO KEY UPDATE) held
 WHERE e.id = held.id AND e.lease_owner = @owner::text
RETURNING e.id, e.lease_epoch, (e.cancel_requested_at IS NOT NULL)::boolean AS cancelled;

-- name: ExecutionsToCancel :many
-- ExecutionsToCancel answers which executions of an owner are to be cancelled.
SELECT id FROM executions
 WHERE status IN ('running', 'waiting') AND lease_owner = @owner::text AND cancel_requested_at IS NOT NULL;

-- name: ExecutionRelease :exec
-- ExecutionRelease gives leases back so that another process can claim at once.
UPDATE executions
   SET lease_expires_at = clock_timestamp() - interval '1 second',
       claims = greatest(claims - 1, 0)
 WHERE id = ANY(@ids::bigint[]) AND lease_owner = @owner::text AND finished_at IS NULL;

-- name: ExecutionRequestCancel :one
-- ExecutionRequestCancel notes the wish to stop; the owner of the lease acts on it.
UPDATE executions
   SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
 WHERE id = @id
RETURNING status::text AS status, coalesce(lease_owner, '')::text AS lease_owner;

-- name: ExecutionCountQueued :one
-- ExecutionCountQueued counts waiting executions, up to a bound.
SELECT count(*) FROM (SELECT 1 FROM executions WHERE status = 'queued' LIMIT @max_rows) q;

-- name: ExecutionDelete :execrows
-- ExecutionDelete erases an execution that has ended.
DELETE FROM executions WHERE id = @id AND finished_at IS NOT NULL;

-- name: ExecutionLineageSet :exec
-- ExecutionLineageSet says what a new execution begins with; it goes with the
-- insert of the execution in one transaction.
UPDATE executions
   SET parent_execution_id = @parent_execution_id,
       origin = @origin,
       fork_from_prompt = sqlc.narg('fork_from_prompt'),
       reuse_prompt_ids = @reuse_prompt_ids,
       models = sqlc.narg('models')
 WHERE id = @id;

-- name: ExecutionsUnfolded :many
-- ExecutionsUnfolded answers executions that finished longer ago than an age
-- and whose text deltas are still there, oldest first.
SELECT id FROM executions
 WHERE finished_at < clock_timestamp() - @age::interval AND folded_at IS NULL
 ORDER BY finished_at
 LIMIT @max_rows;

-- name: ExecutionFold :one
-- ExecutionFold deletes the text deltas of a finished execution and notes which
-- events they were; it answers how many. The deltas of a void attempt go, for
-- nobody reads them; those of the newest attempt go only when the prompt's
-- result holds exactly their text, so that no text is ever lost.
WITH due AS MATERIALIZED (
    SELECT e.id FROM executions e WHERE e.id = @id AND e.finished_at IS NOT NULL AND e.folded_at IS NULL FOR NO KEY UPDATE
), spoken AS (
    SELECT (ev.event_data ->> 'promptId')::bigint AS prompt_id,
           (ev.event_data ->> 'attempt')::integer AS attempt,
           string_agg(ev.event_data ->> 'text', '' ORDER BY ev.seq) AS spoken
      FROM events ev
     WHERE ev.execution_id = @id AND ev.event_type = 'prompt-delta'
     GROUP BY 1, 2
), foldable AS (
    SELECT s.prompt_id, s.attempt
      FROM spoken s
      JOIN prompt_results r ON r.execution_id = @id AND r.prompt_id = s.prompt_id
     WHERE s.attempt < r.attempt OR r.output = s.spoken
), folded AS (
    DELETE FROM events ev
     USING due, foldable f
     WHERE ev.execution_id = @id AND ev.event_type = 'prompt-delta'
       AND (ev.event_data ->> 'promptId')::bigint = f.prompt_id
       AND (ev.event_data ->> 'attempt')::integer = f.attempt
    RETURNING ev.seq
), islands AS (
    SELECT min(n.seq) AS first_seq, max(n.seq) AS last_seq
      FROM (SELECT f.seq, f.seq - row_number() OVER (ORDER BY f.seq) AS island FROM folded f) n
     GROUP BY n.island
), noted AS (
    UPDATE executions e
       SET folded_at = clock_timestamp(),
           folded_seqs = (SELECT array_agg(b.bound ORDER BY b.bound)
                            FROM islands i CROSS JOIN LATERAL unnest(ARRAY[i.first_seq, i.last_seq]) AS b (bound))
      FROM due
     WHERE e.id = due.id
)
SELECT count(*) FROM folded;

-- name: ExecutionsByStatus :many
-- ExecutionsByStatus counts the executions in every state.
SELECT status::text AS status, count(*) AS total FROM executions GROUP BY status;

-- name: ExecutionFoldLag :one
-- ExecutionFoldLag answers how many executions wait to be folded and how many
-- seconds ago the oldest of them finished.
SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(e.finished_at)), 0)::double precision AS seconds
  FROM executions e
 WHERE e.finished_at < clock_timestamp() - @age::interval AND e.folded_at IS NULL;
