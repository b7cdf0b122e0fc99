-- The core: chains and their immutable versions, executions, the event log and
-- the projections that commit with it.

-- Knowledge retrieval stores embeddings in this database, so the extension is
-- part of the schema from the start: a server without it must say so at start,
-- not at the first retrieval.
CREATE EXTENSION IF NOT EXISTS vector;

-- Every event name of the log. The type keeps the name that analysts' existing
-- statements cast to.
CREATE TYPE assistant_event_type AS ENUM (
    'execution-start',
    'prompt-start',
    'knowledge-retrieval-start',
    'knowledge-retrieved',
    'variable-substitution',
    'prompt-delta',
    'reasoning-delta',
    'tool-execution-start',
    'tool-execution-complete',
    'prompt-retry',
    'prompt-complete',
    'prompt-error',
    'progress',
    'approval-requested',
    'approval-resolved',
    'llm-request',
    'llm-response',
    'llm-error',
    'cache-hit',
    'cache-miss',
    'execution-complete',
    'execution-error'
);

CREATE TYPE execution_status AS ENUM ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled');
CREATE TYPE prompt_status AS ENUM ('running', 'completed', 'failed', 'cancelled');

CREATE TABLE chains (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    version    integer NOT NULL DEFAULT 0, -- the newest version
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz -- executions outlive their chain, so a chain is hidden, not removed
);

CREATE UNIQUE INDEX chains_name_key ON chains (name) WHERE deleted_at IS NULL;

-- A prompt keeps its id through all versions of its chain as long as its slug
-- stays, so that figures of one prompt can be followed across versions.
CREATE TABLE chain_prompts (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain_id bigint NOT NULL REFERENCES chains (id),
    slug     text NOT NULL,
    UNIQUE (chain_id, slug)
);

CREATE TABLE chain_versions (
    chain_id    bigint NOT NULL REFERENCES chains (id),
    version     integer NOT NULL,
    description text NOT NULL,
    document    json NOT NULL, -- json, not jsonb: the order of inputs is part of the document
    prompt_ids  bigint[] NOT NULL, -- prompt_ids[i] is the id of the document's prompt i
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, version)
);

CREATE TABLE executions (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain_id            bigint NOT NULL,
    chain_version       integer NOT NULL,
    chain_name          text NOT NULL,
    status              execution_status NOT NULL DEFAULT 'queued',
    inputs              jsonb NOT NULL,
    metadata            jsonb,
    limits              jsonb,
    total_prompts       integer NOT NULL,
    last_seq            bigint NOT NULL DEFAULT 0, -- seq of the newest event; moved only by the append statement
    lease_epoch         bigint NOT NULL DEFAULT 0, -- grows with every claim; fences writers that lost the lease
    lease_owner         text,
    lease_expires_at    timestamptz,
    claims              integer NOT NULL DEFAULT 0, -- claims since the last finished prompt
    cancel_requested_at timestamptz,
    error               text,
    error_code          text,
    error_prompt_id     bigint,
    input_tokens        bigint NOT NULL DEFAULT 0,
    output_tokens       bigint NOT NULL DEFAULT 0,
    cost_usd            numeric(20, 10),
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    finished_at         timestamptz,
    FOREIGN KEY (chain_id, chain_version) REFERENCES chain_versions (chain_id, version)
) WITH (fillfactor = 60); -- last_seq moves with every append: room for heap-only updates

-- Small indexes over live rows only. lease_expires_at is deliberately not
-- indexed, so that renewing a lease stays a heap-only update.
CREATE INDEX executions_queued_idx ON executions (id) WHERE status = 'queued';
CREATE INDEX executions_live_idx ON executions (id) WHERE status IN ('running', 'waiting');
CREATE INDEX executions_status_idx ON executions (status, id DESC);
CREATE INDEX executions_chain_idx ON executions (chain_id, id DESC);
CREATE INDEX executions_created_idx ON executions (created_at);

-- The newest state of every prompt of an execution: a projection of the log,
-- written by the statement that appends the events.
CREATE TABLE prompt_results (
    execution_id     bigint NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    prompt_id        bigint NOT NULL,
    ordinal          integer NOT NULL, -- 0-based index in the chain's document
    name             text NOT NULL,
    position         integer NOT NULL, -- 1-based
    status           prompt_status NOT NULL,
    attempt          integer NOT NULL,
    model_id         text NOT NULL,
    user_message     text, -- as it was sent, knowledge included
    output           text, -- whole, or what had arrived before a failure
    finish_reason    text,
    input_tokens     bigint NOT NULL DEFAULT 0,
    output_tokens    bigint NOT NULL DEFAULT 0,
    cached_tokens    bigint NOT NULL DEFAULT 0,
    reasoning_tokens bigint NOT NULL DEFAULT 0,
    usage_estimated  boolean NOT NULL DEFAULT false,
    cost_usd         numeric(20, 10),
    cached           boolean NOT NULL DEFAULT false,
    duration_ms      bigint,
    error            text,
    error_code       text,
    first_seq        bigint NOT NULL, -- seq of the newest attempt's first event
    started_at       timestamptz NOT NULL,
    finished_at      timestamptz,
    PRIMARY KEY (execution_id, prompt_id)
);

-- The log. A row is written once and never changed.
CREATE TABLE events (
    execution_id bigint NOT NULL,
    seq          bigint NOT NULL,
    event_id     uuid NOT NULL, -- UUIDv7
    parent_id    uuid, -- the event before it in the same stream; null for the first
    stream_id    text NOT NULL,
    event_type   assistant_event_type NOT NULL,
    event_data   jsonb COMPRESSION lz4 NOT NULL,
    lease_epoch  bigint NOT NULL,
    created_at   timestamptz NOT NULL, -- strictly growing with seq inside an execution
    PRIMARY KEY (execution_id, seq)
) PARTITION BY RANGE (execution_id);

-- Analysts ask by type; text deltas are most of the rows and never asked for
-- that way, so they stay out of the index.
CREATE INDEX events_type_idx ON events (event_type, execution_id)
    WHERE event_type NOT IN ('prompt-delta', 'reasoning-delta');

-- events_ensure_partitions makes the partitions of events for the next "ahead"
-- executions and answers how many it made. A partition holds
-- 100,000 execution ids. It is attached, not created in place, because
-- attaching does not lock out readers and writers of the table.
CREATE FUNCTION events_ensure_partitions(ahead bigint) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    size  constant bigint := 100000;
    newest constant bigint := coalesce(pg_sequence_last_value(pg_get_serial_sequence('executions', 'id')), 0);
    lower_bound bigint;
    made  integer := 0;
    child text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('chainstream.events_partitions'));
    SELECT max(substring(c.relname FROM '^events_p([0-9]+)$')::bigint) + size
      INTO lower_bound
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'events'::regclass AND c.relname ~ '^events_p[0-9]+$';
    IF lower_bound IS NULL THEN
        lower_bound := newest / size * size;
    END IF;
    WHILE lower_bound <= newest + ahead LOOP
        child := format('events_p%s', lpad(lower_bound::text, 12, '0'));
        EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION)', child);
        EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', child, lower_bound, lower_bound + size);
        lower_bound := lower_bound + size;
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

SELECT events_ensure_partitions(100000);

-- A trigger that is sent again with the same key finds its execution here.
CREATE TABLE idempotency_keys (
    key          text PRIMARY KEY,
    request_hash bytea NOT NULL,
    execution_id bigint NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX idempotency_keys_created_idx ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_execution_idx ON idempotency_keys (execution_id);
