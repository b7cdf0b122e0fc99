-- name: EventAppend :many
-- EventAppend is the only statement that writes the log. For every head whose
-- execution still has the expected lease epoch and last seq it moves last_seq,
-- inserts the events, and writes the prompt results and the outcome that go
-- with them; it answers the ids of these executions. An id that is missing
-- from the answer was fenced and nothing of it was written.
WITH head AS (
    SELECT unnest(@execution_ids::bigint[]) AS execution_id,
           unnest(@lease_epochs::bigint[]) AS lease_epoch,
           unnest(@prev_seqs::bigint[]) AS prev_seq,
           unnest(@last_seqs::bigint[]) AS last_seq,
           unnest(@outcomes::jsonb[]) AS outcome
), fenced AS (
    UPDATE executions e
       SET last_seq = h.last_seq,
           claims = CASE WHEN h.outcome ? 'progressed' THEN 0 ELSE e.claims END,
           status = coalesce((h.outcome ->> 'status')::execution_status, e.status),
           error = coalesce(h.outcome ->> 'error', e.error),
           error_code = coalesce(h.outcome ->> 'error_code', e.error_code),
           error_prompt_id = coalesce((h.outcome ->> 'error_prompt_id')::bigint, e.error_prompt_id),
           input_tokens = coalesce((h.outcome ->> 'input_tokens')::bigint, e.input_tokens),
           output_tokens = coalesce((h.outcome ->> 'output_tokens')::bigint, e.output_tokens),
           cost_usd = coalesce((h.outcome ->> 'cost_usd')::numeric, e.cost_usd),
           finished_at = coalesce((h.outcome ->> 'finished_at')::timestamptz, e.finished_at),
           lease_owner = CASE WHEN h.outcome ? 'finished_at' THEN NULL ELSE e.lease_owner END,
           lease_expires_at = CASE WHEN h.outcome ? 'finished_at' THEN NULL ELSE e.lease_expires_at END
      FROM head h
     WHERE e.id = h.execution_id
       AND e.lease_epoch = h.lease_epoch
       AND e.last_seq = h.prev_seq
       AND e.finished_at IS NULL
    RETURNING e.id, e.lease_epoch
), stored AS (
    INSERT INTO events (execution_id, seq, event_id, parent_id, stream_id, event_type, event_data, lease_epoch, created_at)
    SELECT ev.execution_id, ev.seq, ev.event_id, nullif(ev.parent_id, '00000000-0000-0000-0000-000000000000'),
           ev.stream_id, ev.event_type::assistant_event_type, ev.event_data, f.lease_epoch, ev.created_at
      FROM (SELECT unnest(@event_execution_ids::bigint[]) AS execution_id,
                   unnest(@seqs::bigint[]) AS seq,
                   unnest(@event_ids::uuid[]) AS event_id,
                   unnest(@parent_ids::uuid[]) AS parent_id,
                   unnest(@stream_ids::text[]) AS stream_id,
                   unnest(@event_types::text[]) AS event_type,
                   unnest(@event_data::jsonb[]) AS event_data,
                   unnest(@created_at::timestamptz[]) AS created_at) ev
      JOIN fenced f ON f.id = ev.execution_id
), results AS (
    INSERT INTO prompt_results (execution_id, prompt_id, ordinal, name, position, status, attempt, model_id, user_message,
                                output, finish_reason, input_tokens, output_tokens, cached_tokens, reasoning_tokens,
                                usage_estimated, cost_usd, cached, duration_ms, error, error_code, first_seq, started_at, finished_at,
                                reused_from_execution_id, reused_input_tokens, reused_output_tokens, reused_cost_usd)
    SELECT f.id,
           (r.doc ->> 'prompt_id')::bigint,
           (r.doc ->> 'ordinal')::integer,
           r.doc ->> 'name',
           (r.doc ->> 'position')::integer,
           (r.doc ->> 'status')::prompt_status,
           (r.doc ->> 'attempt')::integer,
           r.doc ->> 'model_id',
           r.doc ->> 'user_message',
           r.doc ->> 'output',
           r.doc ->> 'finish_reason',
           (r.doc ->> 'input_tokens')::bigint,
           (r.doc ->> 'output_tokens')::bigint,
           (r.doc ->> 'cached_tokens')::bigint,
           (r.doc ->> 'reasoning_tokens')::bigint,
           (r.doc ->> 'usage_estimated')::boolean,
           (r.doc ->> 'cost_usd')::numeric,
           (r.doc ->> 'cached')::boolean,
           (r.doc ->> 'duration_ms')::bigint,
           r.doc ->> 'error',
           r.doc ->> 'error_code',
           (r.doc ->> 'first_seq')::bigint,
           (r.doc ->> 'started_at')::timestamptz,
           (r.doc ->> 'finished_at')::timestamptz,
           (r.doc -> 'reused' ->> 'execution_id')::bigint,
           coalesce((r.doc -> 'reused' ->> 'input_tokens')::bigint, 0),
           coalesce((r.doc -> 'reused' ->> 'output_tokens')::bigint, 0),
           (r.doc -> 'reused' ->> 'cost_usd')::numeric
      FROM (SELECT unnest(@result_execution_ids::bigint[]) AS execution_id,
                   unnest(@results::jsonb[]) AS doc) r
      JOIN fenced f ON f.id = r.execution_id
    ON CONFLICT (execution_id, prompt_id) DO UPDATE -- what was reused is finished, and never meets one
       SET ordinal = excluded.ordinal,
           name = excluded.name,
           position = excluded.position,
           status = excluded.status,
           attempt = excluded.attempt,
           model_id = excluded.model_id,
           user_message = excluded.user_message,
           output = excluded.output,
           finish_reason = excluded.finish_reason,
           input_tokens = excluded.input_tokens,
           output_tokens = excluded.output_tokens,
           cached_tokens = excluded.cached_tokens,
           reasoning_tokens = excluded.reasoning_tokens,
           usage_estimated = excluded.usage_estimated,
           cost_usd = excluded.cost_usd,
           cached = excluded.cached,
           duration_ms = excluded.duration_ms,
           error = excluded.error,
           error_code = excluded.error_code,
           first_seq = excluded.first_seq,
           started_at = excluded.started_at,
           finished_at = excluded.finished_at
)
SELECT id FROM fenced;

-- name: EventProbe :many
-- EventProbe tells what became of appends whose acknowledgement was lost: the
-- execution's epoch and last seq, and the id of the event at the probed seq.
SELECT e.id, e.lease_epoch, e.last_seq, ev.event_id
  FROM (SELECT unnest(@execution_ids::bigint[]) AS execution_id,
               unnest(@seqs::bigint[]) AS seq) p
  JOIN executions e ON e.id = p.execution_id
  LEFT JOIN events ev ON ev.execution_id = p.execution_id AND ev.seq = p.seq;

-- name: EventPage :many
-- EventPage reads the log of one execution in order, from after_seq on. The
-- text of event_data is the very text of the live stream.
SELECT seq, event_id, parent_id, stream_id, event_type::text AS event_type, event_data::text AS event_data, lease_epoch, created_at
  FROM events
 WHERE execution_id = @execution_id AND seq > @after_seq
 ORDER BY seq
 LIMIT @max_rows;

-- name: EventPageByType :many
-- EventPageByType is EventPage over the given event types only.
SELECT seq, event_id, parent_id, stream_id, event_type::text AS event_type, event_data::text AS event_data, lease_epoch, created_at
  FROM events
 WHERE execution_id = @execution_id AND seq > @after_seq AND event_type::text = ANY(@event_types::text[])
 ORDER BY seq
 LIMIT @max_rows;

-- name: EventHeads :many
-- EventHeads answers how far the logs of executions reach.
SELECT id, last_seq, (finished_at IS NOT NULL)::boolean AS finished
  FROM executions
 WHERE id = ANY(@execution_ids::bigint[]);

-- name: EventTails :many
-- EventTails answers the newest event of every stream of an execution, for a
-- writer that goes on where another one stopped.
SELECT DISTINCT ON (stream_id) stream_id, seq, event_id, created_at
  FROM events
 WHERE execution_id = @execution_id
 ORDER BY stream_id, seq DESC;

-- name: EventDelete :exec
-- EventDelete erases the log of an execution.
DELETE FROM events WHERE execution_id = @execution_id;

-- name: EventPartitionsEnsure :one
-- EventPartitionsEnsure makes the partitions for the next execution ids.
SELECT events_ensure_partitions(@ahead::bigint) AS made;
