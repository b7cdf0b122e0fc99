-- name: EventAppend :many
-- EventAppend is the only statement that writes the log. For every head whose
-- execution still has the expected lease epoch and last seq it moves last_seq,
-- inserts the events, and writes the prompt results, the calls, the passages and the
-- outcome that go with them; it answers the ids of these executions. An id that is missing
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
                                output, finish_reason, input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
                                usage_estimated, cost_usd, cached, duration_ms, error, error_code, first_seq, started_at, finished_at,
                                reused_from_execution_id, reused_input_tokens, reused_output_tokens, reused_cost_usd,
                                cache, saved_from_execution_id, saved_input_tokens, saved_output_tokens, saved_cost_usd, tool_calls)
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
           (r.doc ->> 'cache_write_tokens')::bigint,
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
           (r.doc -> 'reused' ->> 'cost_usd')::numeric,
           r.doc ->> 'cache',
           (r.doc -> 'saved' ->> 'execution_id')::bigint,
           coalesce((r.doc -> 'saved' ->> 'input_tokens')::bigint, 0),
           coalesce((r.doc -> 'saved' ->> 'output_tokens')::bigint, 0),
           (r.doc -> 'saved' ->> 'cost_usd')::numeric,
           r.doc -> 'tool_calls'
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
           cache_write_tokens = excluded.cache_write_tokens,
           reasoning_tokens = excluded.reasoning_tokens,
           usage_estimated = excluded.usage_estimated,
           cost_usd = excluded.cost_usd,
           cached = excluded.cached,
           cache = excluded.cache,
           saved_from_execution_id = excluded.saved_from_execution_id,
           saved_input_tokens = excluded.saved_input_tokens,
           saved_output_tokens = excluded.saved_output_tokens,
           saved_cost_usd = excluded.saved_cost_usd,
           duration_ms = excluded.duration_ms,
           error = excluded.error,
           error_code = excluded.error_code,
           first_seq = excluded.first_seq,
           started_at = excluded.started_at,
           finished_at = excluded.finished_at,
           tool_calls = excluded.tool_calls
), ledger AS (
    INSERT INTO llm_calls (request_id, execution_id, prompt_id, attempt, provider, model, status, prompt_tokens, reserved_usd, reserved_tokens,
                           lost, input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, raw_usage, usage_source,
                           cost_usd, error_code, http_status, finish_reason, response_id, duration_ms, time_to_first_token_ms,
                           started_at, finished_at)
    SELECT r.request_id, f.id, r.prompt_id, r.attempt, r.provider, r.model, r.status, r.prompt_tokens, r.reserved_usd, r.reserved_tokens,
           r.lost, r.input_tokens, r.output_tokens, r.cached_tokens, r.cache_write_tokens, r.reasoning_tokens, r.raw_usage, r.usage_source,
           r.cost_usd, r.error_code, r.http_status, r.finish_reason, r.response_id, r.duration_ms, r.time_to_first_token_ms,
           r.started_at, r.finished_at
      FROM (SELECT unnest(@call_execution_ids::bigint[]) AS execution_id,
                   unnest(@calls::jsonb[]) AS doc) c
      JOIN fenced f ON f.id = c.execution_id
     CROSS JOIN LATERAL jsonb_to_record(c.doc) AS r (
           request_id uuid, prompt_id bigint, attempt integer, provider text, model text, status llm_call_status, prompt_tokens bigint,
           reserved_usd numeric, reserved_tokens bigint, lost boolean, input_tokens bigint, output_tokens bigint, cached_tokens bigint,
           cache_write_tokens bigint, reasoning_tokens bigint, raw_usage jsonb, usage_source text, cost_usd numeric, error_code text,
           http_status integer, finish_reason text, response_id text, duration_ms bigint, time_to_first_token_ms bigint,
           started_at timestamptz, finished_at timestamptz)
    ON CONFLICT (request_id) DO UPDATE
       SET status = excluded.status,
           lost = excluded.lost,
           input_tokens = excluded.input_tokens,
           output_tokens = excluded.output_tokens,
           cached_tokens = excluded.cached_tokens,
           cache_write_tokens = excluded.cache_write_tokens,
           reasoning_tokens = excluded.reasoning_tokens,
           raw_usage = excluded.raw_usage,
           usage_source = excluded.usage_source,
           cost_usd = excluded.cost_usd,
           error_code = excluded.error_code,
           http_status = excluded.http_status,
           finish_reason = excluded.finish_reason,
           response_id = excluded.response_id,
           duration_ms = excluded.duration_ms,
           time_to_first_token_ms = excluded.time_to_first_token_ms,
           finished_at = excluded.finished_at
), passages AS (
    INSERT INTO retrievals (execution_id, prompt_id, seq, place, citation, repository_id, document_id, document_version, chunk_id,
                            vector_rank, vector_score, keyword_rank, keyword_score, rerank_rank, rerank_score, score)
    SELECT f.id, r.prompt_id, r.seq, r.place, r.citation, r.repository_id, r.document_id, r.document_version, r.chunk_id,
           r.vector_rank, r.vector_score, r.keyword_rank, r.keyword_score, r.rerank_rank, r.rerank_score, r.score
      FROM (SELECT unnest(@retrieval_execution_ids::bigint[]) AS execution_id,
                   unnest(@retrievals::jsonb[]) AS docs) x
      JOIN fenced f ON f.id = x.execution_id
     CROSS JOIN LATERAL jsonb_to_recordset(x.docs) AS r (
           prompt_id bigint, seq bigint, place integer, citation integer, repository_id bigint, document_id bigint, document_version integer,
           chunk_id bigint, vector_rank integer, vector_score double precision, keyword_rank integer, keyword_score double precision,
           rerank_rank integer, rerank_score double precision, score double precision)
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
-- EventHeads answers how far the logs of executions reach, which of their
-- events were folded away and whether retention has removed them all.
SELECT e.id, e.last_seq, (e.finished_at IS NOT NULL)::boolean AS finished, e.folded_seqs,
       EXISTS (SELECT FROM events_removed r WHERE r.lower_id <= e.id AND r.upper_id > e.id)::boolean AS removed
  FROM executions e
 WHERE e.id = ANY(@execution_ids::bigint[]);

-- name: EventNews :many
-- EventNews reads what stands behind cursors on several logs: of each log that
-- reaches further than its cursor the next events, at most max_rows of each. A log
-- whose next events have been removed has one row with the seq 0. The caller puts
-- the rows in order: where sorting is discouraged, as on the connections of the log,
-- PostgreSQL would otherwise go along the index of all executions for it.
SELECT e.id AS execution_id, e.last_seq, coalesce(v.seq, 0)::bigint AS seq,
       coalesce(v.event_type::text, '')::text AS event_type, coalesce(v.event_data::text, '')::text AS event_data
  FROM (SELECT unnest(@execution_ids::bigint[]) AS id,
               unnest(@after_seqs::bigint[]) AS after_seq) c
  JOIN executions e ON e.id = c.id AND e.last_seq > c.after_seq
  LEFT JOIN LATERAL (
        SELECT ev.seq, ev.event_type, ev.event_data FROM events ev
         WHERE ev.execution_id = c.id AND ev.seq > c.after_seq
         ORDER BY ev.seq
         LIMIT @max_rows) v ON true;

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

-- name: EventPartitionCover :exec
-- EventPartitionCover makes the partitions that hold the events of executions,
-- where they are missing.
SELECT events_cover(x.id, events_partition_size()) FROM unnest(@execution_ids::bigint[]) AS x (id);

-- name: EventPartitionsExpired :many
-- EventPartitionsExpired answers the partitions all of whose executions have
-- finished longer ago than an age. Behind each one an execution was made that
-- long ago too, so that nobody still writes a first event into it. The newest
-- execution of a partition is looked at first: it decides most often, and
-- at once.
SELECT p.name::text AS name, p.lower_id::bigint AS lower_id, p.upper_id::bigint AS upper_id
  FROM events_partitions() p
 WHERE NOT p.detach_pending
   AND EXISTS (SELECT FROM executions e WHERE e.id >= p.upper_id AND e.created_at < clock_timestamp() - @age::interval)
   AND coalesce((SELECT e.finished_at < clock_timestamp() - @age::interval FROM executions e
                  WHERE e.id >= p.lower_id AND e.id < p.upper_id ORDER BY e.id DESC LIMIT 1), true) IS TRUE
   AND NOT EXISTS (SELECT FROM executions e
                    WHERE e.id >= p.lower_id AND e.id < p.upper_id
                      AND (e.finished_at IS NULL OR e.finished_at >= clock_timestamp() - @age::interval))
 ORDER BY p.lower_id;

-- name: EventRemovedInsert :exec
-- EventRemovedInsert notes that a partition is about to go.
INSERT INTO events_removed (lower_id, upper_id, partition_name) VALUES (@lower_id, @upper_id, @partition_name)
ON CONFLICT (lower_id) DO UPDATE SET upper_id = excluded.upper_id, partition_name = excluded.partition_name;

-- name: EventPartitionsPending :many
-- EventPartitionsPending answers partitions whose removal was begun and has not
-- ended: those whose detaching waits for somebody, those that were noted only,
-- and tables that are detached and still there.
SELECT r.partition_name, coalesce(p.name IS NOT NULL, false)::boolean AS attached, coalesce(p.detach_pending, false)::boolean AS pending
  FROM events_removed r
  LEFT JOIN events_partitions() p ON p.name = r.partition_name
 WHERE to_regclass(quote_ident(r.partition_name)) IS NOT NULL
 ORDER BY pending DESC, r.lower_id;

-- name: EventPartitionSizes :many
-- EventPartitionSizes answers the partitions of the log, oldest first, with the
-- bytes that they take on the disk.
SELECT p.name::text AS name, p.lower_id::bigint AS lower_id, p.upper_id::bigint AS upper_id, p.detach_pending::boolean AS detach_pending,
       pg_total_relation_size(p.oid)::bigint AS bytes
  FROM events_partitions() p
 ORDER BY p.lower_id;

-- name: EventBounds :one
-- EventBounds answers when the oldest and the newest execution with events
-- began, 1970 when there are none, and the id of the newest execution.
SELECT coalesce((SELECT ev.created_at FROM events ev ORDER BY ev.execution_id, ev.seq LIMIT 1), 'epoch')::timestamptz AS oldest,
       coalesce((SELECT ev.created_at FROM events ev ORDER BY ev.execution_id DESC, ev.seq DESC LIMIT 1), 'epoch')::timestamptz AS newest,
       coalesce((SELECT max(e.id) FROM executions e), 0)::bigint AS newest_id;
