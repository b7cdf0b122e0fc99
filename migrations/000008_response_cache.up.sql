-- The response cache: answers of models that stand in for later calls which ask
-- exactly the same, where a prompt asks for it.

-- A row is either an answer, or the note that somebody is getting it (holder is
-- set). What has expired counts as nothing, whatever it is: expires_at is the end
-- of the answer's time or of the holder's lease, by the clock of the database.
CREATE TABLE response_cache (
    key           bytea PRIMARY KEY, -- SHA-256 of all that the answer depends on
    chain_id      bigint NOT NULL,
    prompt_id     bigint NOT NULL,
    model_id      text NOT NULL,
    holder        uuid, -- the call that is under way; null = this is an answer
    expires_at    timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    output        text,
    finish_reason text,
    input_tokens  bigint NOT NULL DEFAULT 0, -- what the answer had cost
    output_tokens bigint NOT NULL DEFAULT 0,
    cost_usd      numeric, -- null while unknown
    execution_id  bigint REFERENCES executions (id) ON DELETE CASCADE, -- that paid; erasing it erases the answer
    request_id    uuid, -- of its llm-request
    document_ids  bigint[] NOT NULL DEFAULT '{}', -- whose text the question held
    hits          bigint NOT NULL DEFAULT 0,
    last_hit_at   timestamptz,
    CHECK ((holder IS NULL) = (output IS NOT NULL AND execution_id IS NOT NULL))
);

CREATE INDEX response_cache_expires_idx ON response_cache (expires_at);
CREATE INDEX response_cache_chain_idx ON response_cache (chain_id);
CREATE INDEX response_cache_execution_idx ON response_cache (execution_id);
CREATE INDEX response_cache_documents_idx ON response_cache USING gin (document_ids);

-- How an execution uses the cache: null as the chain says, refresh without
-- reading, off without reading and writing.
ALTER TABLE executions ADD COLUMN cache_mode text CHECK (cache_mode IN ('refresh', 'off'));

ALTER TABLE prompt_results
    ADD COLUMN cache text CHECK (cache IN ('hit', 'miss')), -- what the newest attempt was told; null = it did not ask
    ADD COLUMN saved_from_execution_id bigint, -- of a hit: the execution that paid for the answer, and what
    ADD COLUMN saved_input_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN saved_output_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN saved_cost_usd numeric;

-- A row per prompt that asked the cache.
CREATE VIEW v_cache AS
SELECT r.execution_id,
       e.chain_id,
       e.chain_name,
       e.chain_version,
       r.prompt_id,
       r.name AS prompt_name,
       r.model_id,
       r.cache = 'hit' AS hit,
       r.saved_from_execution_id,
       r.saved_input_tokens,
       r.saved_output_tokens,
       r.saved_cost_usd,
       r.cost_usd,
       r.duration_ms,
       r.started_at
  FROM prompt_results r
  JOIN executions e ON e.id = r.execution_id
 WHERE r.cache IS NOT NULL;
