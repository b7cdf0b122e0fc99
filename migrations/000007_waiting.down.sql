-- A server of the older version knows of no time: what waits for one is
-- claimed at once, as if its server had died.
UPDATE executions SET status = 'running', lease_expires_at = clock_timestamp() - interval '1 second' WHERE status = 'waiting' AND wake_at IS NOT NULL;

DROP INDEX executions_running_idx;
CREATE INDEX executions_live_idx ON executions (id) WHERE status IN ('running', 'waiting');
DROP INDEX executions_slot_key;
CREATE UNIQUE INDEX executions_slot_key ON executions (chain_id, slot) WHERE status = 'running';
DROP INDEX executions_wake_idx;
ALTER TABLE executions DROP COLUMN wake_at;
