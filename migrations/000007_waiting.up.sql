-- Executions that wait for a time, such as the one that a model's provider has
-- named, hold no lease and no worker. They are claimed again when the time has
-- come.

ALTER TABLE executions ADD COLUMN wake_at timestamptz; -- of a waiting execution; null = it waits for something else than time

CREATE INDEX executions_wake_idx ON executions (wake_at) WHERE status = 'waiting';

-- An execution that waits has begun, so it keeps its place among those of its
-- chain.
DROP INDEX executions_slot_key;
CREATE UNIQUE INDEX executions_slot_key ON executions (chain_id, slot) WHERE slot IS NOT NULL AND status IN ('running', 'waiting');

-- Many more may wait than run, so what runs has an index of its own.
DROP INDEX executions_live_idx;
CREATE INDEX executions_running_idx ON executions (id) INCLUDE (chain_id, slot) WHERE status = 'running';
