DROP TABLE idempotency_keys;
DROP TABLE events;
DROP FUNCTION events_ensure_partitions(bigint);
DROP TABLE prompt_results;
DROP TABLE executions;
DROP TABLE chain_versions;
DROP TABLE chain_prompts;
DROP TABLE chains;
DROP TYPE prompt_status;
DROP TYPE execution_status;
DROP TYPE assistant_event_type;
-- The vector extension stays: other schemas of the database may use it.
