-- name: PromptResultList :many
-- PromptResultList answers the prompts of executions in document order.
SELECT * FROM prompt_results
 WHERE execution_id = ANY(@execution_ids::bigint[])
 ORDER BY execution_id, position, ordinal;
