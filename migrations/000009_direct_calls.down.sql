-- Nothing before knows what to make of direct calls, so they go with their logs.
DELETE FROM events WHERE execution_id IN (SELECT id FROM executions WHERE chain_id = 9007199254740991);
DELETE FROM executions WHERE chain_id = 9007199254740991;
DELETE FROM chain_versions WHERE chain_id = 9007199254740991;
DELETE FROM chain_prompts WHERE chain_id = 9007199254740991;
DELETE FROM chains WHERE id = 9007199254740991;
ALTER TABLE prompt_results DROP COLUMN tool_calls;
DROP TABLE execution_calls;
