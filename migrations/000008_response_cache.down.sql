DROP VIEW v_cache;
ALTER TABLE prompt_results
    DROP COLUMN saved_cost_usd,
    DROP COLUMN saved_output_tokens,
    DROP COLUMN saved_input_tokens,
    DROP COLUMN saved_from_execution_id,
    DROP COLUMN cache;
ALTER TABLE executions DROP COLUMN cache_mode;
DROP TABLE response_cache;
