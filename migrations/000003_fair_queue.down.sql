DROP INDEX chains_limited_idx;
CREATE INDEX executions_queued_idx ON executions (id) WHERE status = 'queued';
DROP INDEX executions_slot_key;
DROP INDEX executions_lanes_idx;
ALTER TABLE chains DROP COLUMN concurrency;
ALTER TABLE executions
    DROP COLUMN slot,
    DROP COLUMN priority;
