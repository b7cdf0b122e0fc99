DROP VIEW v_retrievals;
DROP VIEW v_costs_hourly;
DROP VIEW v_prompt_runs;
DROP VIEW v_executions;
DROP VIEW assistant_architect_events;
