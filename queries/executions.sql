-- name: ExecutionInsert :one
-- ExecutionInsert queues an execution.
INSERT INTO executions (chain_id, chain_version, chain_name, inputs, metadata, limits, total_prompts, priority, cache_mode)
VALUES (@chain_id, @chain_version, @chain_name, @inputs, sqlc.narg('metadata'), sqlc.narg('limits'), @total_prompts, @priority,
        sqlc.narg('cache_mode'))
RETURNING id, created_at;

-- name: ExecutionByID :one
SELECT * FROM executions WHERE id = @id;

-- name: ExecutionList :many
-- ExecutionList answers executions newest first, below the cursor, without
-- their inputs: those may hold images, and a list shows none.
SELECT id, chain_id, chain_version, chain_name, status, '{}'::jsonb AS inputs, metadata, limits, total_prompts, last_seq, lease_epoch,
       lease_owner, lease_expires_at, claims, cancel_requested_at, error, error_code, error_prompt_id, input_tokens, output_tokens,
       cost_usd, created_at, started_at, finished_at, priority, slot, parent_execution_id, origin, fork_from_prompt, reuse_prompt_ids,
       models, folded_at, folded_seqs, wake_at, cache_mode
  FROM executions
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
-- ExecutionClaim takes executions under a new epoch: first those whose lease ran
-- out, then those that have waited for a time that has come, then from the
-- queue. Time is the database's. What the caller still runs
-- is left to it: its lease ran out because renewing it failed, not because its
-- owner died.
--
-- The queue is read lane by lane; a lane is one priority of one chain. Higher
-- priorities go first, and a lane that waits rises by one for every minute, up to
-- the highest priority that waits. Among equals the chain goes first of which the
-- fewest run; where that is equal too, the chains take turns, and turn is the one
-- that was served last. A tenant, when there is one, stands before the chain in
-- the lanes and in what runs, and its own number goes before that of the chain.
--
-- A chain with a limit gives as many as it has slots. An execution that waits for
-- a time keeps its slot, so it is simply taken when the time has come. The advisory lock keeps two
-- servers from the same slots; should a slot have been given away since the
-- statement began, the unique index ends it, and the caller tries again.
--
-- What is due is compared with the time of the statement, because an index is not
-- searched for a time that moves.
--
-- The kinds are looked for apart, because each has a small index of its own;
-- under one OR the planner walks through all finished executions.
WITH RECURSIVE asked AS MATERIALIZED (
    SELECT @max_rows::integer AS most, @turn::bigint AS turn
), lost AS MATERIALIZED (
    SELECT c.id FROM executions c
     WHERE c.status = 'running' AND c.lease_expires_at < clock_timestamp() AND c.id <> ALL(@held::bigint[])
     ORDER BY c.id
     LIMIT (SELECT a.most FROM asked a)
       FOR NO KEY UPDATE SKIP LOCKED
), due AS MATERIALIZED (
    SELECT c.id FROM executions c
     WHERE c.status = 'waiting' AND c.wake_at <= statement_timestamp() AND c.id <> ALL(@held::bigint[])
     ORDER BY c.wake_at
     LIMIT (SELECT a.most FROM asked a) - (SELECT count(*) FROM lost)
       FOR NO KEY UPDATE SKIP LOCKED
), busy AS MATERIALIZED (
    SELECT r.chain_id, count(*) AS running
      FROM (SELECT c.chain_id FROM executions c WHERE c.status = 'running' AND c.slot IS NULL
            UNION ALL
            SELECT c.chain_id FROM executions c WHERE c.status IN ('running', 'waiting') AND c.slot IS NOT NULL) r
     GROUP BY r.chain_id
), heads AS (
    (SELECT -c.priority AS lane, c.chain_id, c.id, c.created_at
       FROM executions c
      WHERE c.status = 'queued'
      ORDER BY -c.priority, c.chain_id, c.id
      LIMIT 1)
    UNION ALL
    SELECT n.lane, n.chain_id, n.id, n.created_at
      FROM heads h
     CROSS JOIN LATERAL (
           SELECT -c.priority AS lane, c.chain_id, c.id, c.created_at
             FROM executions c
            WHERE c.status = 'queued' AND (-c.priority, c.chain_id) > (h.lane, h.chain_id)
            ORDER BY -c.priority, c.chain_id, c.id
            LIMIT 1) n
), open AS MATERIALIZED (
    SELECT h.lane, h.chain_id, h.id, h.created_at, l.concurrency, coalesce(b.running, 0) AS running,
           coalesce(l.concurrency - coalesce(b.running, 0), a.most) AS room,
           -min(h.lane) OVER () AS top,
           4 * a.most / count(*) OVER () AS share
      FROM asked a
     CROSS JOIN heads h
      LEFT JOIN busy b ON b.chain_id = h.chain_id
      LEFT JOIN chains l ON l.id = h.chain_id AND l.concurrency IS NOT NULL
     WHERE l.concurrency IS NULL OR l.concurrency > coalesce(b.running, 0)
), candidates AS (
    SELECT l.lane, l.chain_id, l.concurrency, l.running, l.room, l.top, l.id, l.created_at FROM open l
    UNION ALL
    -- With many lanes the heads are enough; with few, more of each are looked at.
    SELECT l.lane, l.chain_id, l.concurrency, l.running, l.room, l.top, n.id, n.created_at
      FROM open l
     CROSS JOIN LATERAL (
           SELECT c.id, c.created_at
             FROM executions c
            WHERE c.status = 'queued' AND -c.priority = l.lane AND c.chain_id = l.chain_id AND c.id > l.id
            ORDER BY c.id
            LIMIT greatest(least(l.room, l.share) - 1, 0)) n
), placed AS (
    SELECT c.lane, c.chain_id, c.concurrency, c.running, c.room, c.level,
           row_number() OVER (PARTITION BY c.chain_id ORDER BY c.level DESC, c.id) AS place
      FROM (SELECT n.lane, n.chain_id, n.concurrency, n.running, n.room, n.id,
                   least(n.top, -n.lane + floor(extract(epoch FROM clock_timestamp() - n.created_at) / 60)) AS level
              FROM candidates n) c
), best AS (
    SELECT p.lane, p.chain_id, p.concurrency, p.running
      FROM placed p
     WHERE p.place <= p.room
     ORDER BY p.level DESC, p.running + p.place, p.chain_id <= (SELECT a.turn FROM asked a), p.chain_id
     LIMIT (SELECT a.most FROM asked a) - (SELECT count(*) FROM lost) - (SELECT count(*) FROM due)
), taken AS MATERIALIZED (
    SELECT t.lane, t.chain_id, t.concurrency, t.running, t.wanted
      FROM (SELECT b.lane, b.chain_id, b.concurrency, b.running, count(*) AS wanted
              FROM best b
             GROUP BY b.lane, b.chain_id, b.concurrency, b.running
            OFFSET 0) t
     WHERE t.concurrency IS NULL OR pg_try_advisory_xact_lock(hashtextextended('chainstream.slots', t.chain_id))
), waiting AS MATERIALIZED (
    SELECT w.id, t.chain_id, t.concurrency, t.running, row_number() OVER (PARTITION BY t.chain_id) AS nth
      FROM taken t
     CROSS JOIN LATERAL (
           SELECT c.id FROM executions c
            WHERE c.status = 'queued' AND -c.priority = t.lane AND c.chain_id = t.chain_id
            ORDER BY c.id
            LIMIT t.wanted
              FOR NO KEY UPDATE SKIP LOCKED) w
), slots AS MATERIALIZED (
    -- One of the first running + n numbers is free for each of n.
    SELECT w.chain_id, s.slot, row_number() OVER (PARTITION BY w.chain_id ORDER BY s.slot) AS nth
      FROM (SELECT q.chain_id, max(q.running) + count(*) AS most FROM waiting q WHERE q.concurrency IS NOT NULL GROUP BY q.chain_id) w
     CROSS JOIN LATERAL generate_series(1, w.most::integer) AS s (slot)
     WHERE NOT EXISTS (SELECT FROM executions u WHERE u.status IN ('running', 'waiting') AND u.chain_id = w.chain_id AND u.slot = s.slot)
), chosen AS MATERIALIZED (
    SELECT l.id, NULL::integer AS slot FROM lost l
    UNION ALL
    SELECT d.id, NULL::integer AS slot FROM due d
    UNION ALL
    SELECT w.id, s.slot FROM waiting w LEFT JOIN slots s ON s.chain_id = w.chain_id AND s.nth = w.nth
)
UPDATE executions e
   SET status = 'running',
       lease_epoch = e.lease_epoch + 1,
       lease_owner = @owner::text,
       lease_expires_at = clock_timestamp() + @lease::interval,
       claims = e.claims + 1,
       wake_at = NULL,
       slot = coalesce((SELECT h.slot FROM chosen h WHERE h.id = e.id), e.slot),
       started_at = coalesce(e.started_at, clock_timestamp())
 WHERE e.id = ANY(ARRAY(SELECT h.id FROM chosen h)) -- an array, so that the rows are always found by their key
RETURNING e.*;

-- name: ExecutionClaimQueued :many
-- ExecutionClaimQueued takes one execution if it still waits, in the queue or for
-- a time.
UPDATE executions e
   SET status = 'running',
       lease_epoch = e.lease_epoch + 1,
       lease_owner = @owner::text,
       lease_expires_at = clock_timestamp() + @lease::interval,
       claims = e.claims + 1,
       wake_at = NULL,
       started_at = coalesce(e.started_at, clock_timestamp())
 WHERE e.id = @id AND (e.status = 'queued' OR e.status = 'waiting' AND e.wake_at IS NOT NULL)
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
 WHERE status = 'running' AND lease_owner = @owner::text AND cancel_requested_at IS NOT NULL;

-- name: ExecutionRelease :exec
-- ExecutionRelease gives leases back so that another process can claim at once.
UPDATE executions
   SET lease_expires_at = clock_timestamp() - interval '1 second',
       claims = greatest(claims - 1, 0)
 WHERE id = ANY(@ids::bigint[]) AND lease_owner = @owner::text AND finished_at IS NULL;

-- name: ExecutionWait :execrows
-- ExecutionWait lets an execution wait for a time without lease and worker. The
-- claim that got so far is none of those that are counted for a crash loop.
-- Nothing waits that is to be cancelled.
UPDATE executions
   SET status = 'waiting',
       wake_at = clock_timestamp() + @delay::interval,
       lease_owner = NULL,
       lease_expires_at = NULL,
       claims = greatest(claims - 1, 0)
 WHERE id = @id AND status = 'running' AND lease_owner = @owner::text AND lease_epoch = @lease_epoch AND cancel_requested_at IS NULL;

-- name: ExecutionRequestCancel :one
-- ExecutionRequestCancel notes the wish to stop; the owner of the lease acts on
-- it, or whoever claims the execution, which need not wait for a time any more.
UPDATE executions
   SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
       wake_at = CASE WHEN wake_at IS NOT NULL THEN least(wake_at, clock_timestamp()) END
 WHERE id = @id
RETURNING status::text AS status, coalesce(lease_owner, '')::text AS lease_owner;

-- name: ExecutionCountQueued :one
-- ExecutionCountQueued counts waiting executions of all servers, up to a bound.
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
