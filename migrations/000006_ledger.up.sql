-- Money: what every call of a provider used and cost, the prices that it follows
-- from, and the budgets that bound it.

-- A view keeps the type of its columns, so the three that show money are made anew.
DROP VIEW v_costs_hourly;
DROP VIEW v_prompt_runs;
DROP VIEW v_executions;

-- A sum of money has as many decimals as it has.
ALTER TABLE executions ALTER COLUMN cost_usd TYPE numeric;
ALTER TABLE prompt_results
    ALTER COLUMN cost_usd TYPE numeric,
    ALTER COLUMN reused_cost_usd TYPE numeric,
    ADD COLUMN cache_write_tokens bigint NOT NULL DEFAULT 0;

CREATE TYPE llm_call_status AS ENUM ('open', 'succeeded', 'failed', 'cancelled');

-- The ledger: one row per call of a provider, written by the statement that
-- appends the event that opens or closes the call. Results that were taken over
-- from another execution have none here. The rows outlive the events, which
-- retention removes, and go with their execution.
CREATE TABLE llm_calls (
    request_id             uuid PRIMARY KEY,
    execution_id           bigint NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    prompt_id              bigint NOT NULL,
    attempt                integer NOT NULL,
    provider               text NOT NULL,
    model                  text NOT NULL, -- as the provider knows it; provider/model is the id
    status                 llm_call_status NOT NULL,
    prompt_tokens          bigint NOT NULL DEFAULT 0, -- counted before the call
    reserved_usd           numeric, -- the worst that the call could cost; null without a limit
    reserved_tokens        bigint, -- the same in tokens
    lost                   boolean NOT NULL DEFAULT false, -- closed by another process than the one that called
    input_tokens           bigint NOT NULL DEFAULT 0, -- the whole prompt, what the provider had or put into its cache included
    output_tokens          bigint NOT NULL DEFAULT 0, -- the whole answer, reasoning included
    cached_tokens          bigint NOT NULL DEFAULT 0,
    cache_write_tokens     bigint NOT NULL DEFAULT 0,
    reasoning_tokens       bigint NOT NULL DEFAULT 0,
    raw_usage              jsonb, -- the provider's own figures; null when it sent none
    usage_source           text CHECK (usage_source IN ('provider', 'estimated')),
    cost_usd               numeric, -- null when the model has no price
    error_code             text,
    http_status            integer,
    finish_reason          text,
    response_id            text,
    duration_ms            bigint,
    time_to_first_token_ms bigint,
    started_at             timestamptz NOT NULL, -- which price counts
    finished_at            timestamptz,
    CHECK (status = 'open' OR usage_source IS NOT NULL AND finished_at IS NOT NULL)
) WITH (fillfactor = 80); -- every row is written twice: room for a heap-only update

CREATE INDEX llm_calls_execution_idx ON llm_calls (execution_id);
CREATE INDEX llm_calls_started_idx ON llm_calls (started_at);

-- What was paid before there was a ledger: one row per prompt.
INSERT INTO llm_calls (request_id, execution_id, prompt_id, attempt, provider, model, status, input_tokens, output_tokens, cached_tokens,
                       reasoning_tokens, usage_source, cost_usd, error_code, finish_reason, duration_ms, started_at, finished_at)
SELECT gen_random_uuid(), r.execution_id, r.prompt_id, r.attempt, split_part(r.model_id, '/', 1), substr(r.model_id, strpos(r.model_id, '/') + 1),
       CASE r.status WHEN 'completed' THEN 'succeeded' WHEN 'cancelled' THEN 'cancelled' ELSE 'failed' END::llm_call_status,
       r.input_tokens, r.output_tokens, r.cached_tokens, r.reasoning_tokens,
       CASE WHEN r.usage_estimated THEN 'estimated' ELSE 'provider' END, r.cost_usd, r.error_code, r.finish_reason, r.duration_ms,
       r.started_at, coalesce(r.finished_at, r.started_at)
  FROM prompt_results r
 WHERE r.reused_from_execution_id IS NULL AND (r.input_tokens > 0 OR r.output_tokens > 0 OR r.cost_usd <> 0);

-- Those who took over a result are found when it is priced anew.
CREATE INDEX prompt_results_reused_idx ON prompt_results (reused_from_execution_id) WHERE reused_from_execution_id IS NOT NULL;

-- What models cost, in US dollars for a million tokens. A server that starts
-- writes the prices it was built or configured with. A row that anybody else
-- writes becomes the operator's, and a model that has one is left alone by
-- servers until the row is deleted.
CREATE TABLE model_prices (
    model_id            text NOT NULL, -- provider/model
    valid_from          timestamptz NOT NULL DEFAULT '-infinity', -- of the call; of several prices that are valid the newest counts
    valid_until         timestamptz, -- exclusive; null = no end
    input_usd           numeric NOT NULL CHECK (input_usd >= 0),
    cached_input_usd    numeric CHECK (cached_input_usd >= 0), -- null = as input_usd
    cache_write_usd     numeric CHECK (cache_write_usd >= 0), -- null = as input_usd
    output_usd          numeric NOT NULL CHECK (output_usd >= 0),
    source              text NOT NULL DEFAULT 'operator' CHECK (source IN ('catalogue', 'file', 'operator')),
    updated_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (model_id, valid_from),
    CHECK (valid_until > valid_from)
);

CREATE FUNCTION model_prices_owner() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('chainstream.price_sync', true), '') <> 'on' THEN
        NEW.source := 'operator';
    END IF;
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;

CREATE TRIGGER model_prices_owner BEFORE INSERT OR UPDATE ON model_prices
    FOR EACH ROW EXECUTE FUNCTION model_prices_owner();

-- llm_cost is what a call costs, exactly. No token is counted twice: those of
-- the cache are part of the input, and reasoning is part of the output.
CREATE FUNCTION llm_cost(price model_prices, input_tokens bigint, output_tokens bigint, cached_tokens bigint, cache_write_tokens bigint)
RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT (price.input_usd * (input_tokens - cached_tokens - cache_write_tokens)
            + coalesce(price.cached_input_usd, price.input_usd) * cached_tokens
            + coalesce(price.cache_write_usd, price.input_usd) * cache_write_tokens
            + price.output_usd * output_tokens) * 0.000001
$$;

-- llm_reprice computes what calls cost anew, from their tokens and from the
-- price that was valid when they began, and with it the sums of their prompts
-- and executions, and what retries and forks say they saved. It answers how many
-- rows of each have changed. Executions that have not ended are left out,
-- because their server adds up as it goes; running tells how many of their calls
-- fall into the time, for a second turn. Calls of models without any price here
-- keep the cost that they were booked with.
CREATE FUNCTION llm_reprice(since timestamptz, until timestamptz DEFAULT now(),
                            OUT calls bigint, OUT prompts bigint, OUT executions bigint, OUT running bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    touched bigint[];
BEGIN
    WITH due AS (
        SELECT c.request_id, c.execution_id, c.cost_usd,
               (SELECT llm_cost(p, c.input_tokens, c.output_tokens, c.cached_tokens, c.cache_write_tokens)
                  FROM model_prices p
                 WHERE p.model_id = c.provider || '/' || c.model
                   AND p.valid_from <= c.started_at AND (p.valid_until IS NULL OR c.started_at < p.valid_until)
                 ORDER BY p.valid_from DESC
                 LIMIT 1) AS cost
          FROM llm_calls c
          JOIN executions e ON e.id = c.execution_id AND e.finished_at IS NOT NULL
         WHERE c.started_at >= llm_reprice.since AND c.started_at < llm_reprice.until AND c.status <> 'open'
           AND EXISTS (SELECT FROM model_prices p WHERE p.model_id = c.provider || '/' || c.model)
    ), changed AS (
        UPDATE llm_calls c SET cost_usd = d.cost
          FROM due d
         WHERE c.request_id = d.request_id AND c.cost_usd IS DISTINCT FROM d.cost
        RETURNING c.execution_id
    )
    SELECT count(*), array_agg(DISTINCT x.execution_id) INTO llm_reprice.calls, touched FROM changed x;

    WITH sums AS (
        SELECT c.execution_id, c.prompt_id, CASE WHEN bool_and(c.cost_usd IS NOT NULL) THEN sum(c.cost_usd) END AS cost
          FROM llm_calls c WHERE c.execution_id = ANY(touched) GROUP BY 1, 2
    ), changed AS (
        UPDATE prompt_results r SET cost_usd = s.cost
          FROM sums s
         WHERE r.execution_id = s.execution_id AND r.prompt_id = s.prompt_id AND r.cost_usd IS DISTINCT FROM s.cost
        RETURNING r.execution_id
    )
    SELECT count(*) INTO llm_reprice.prompts FROM changed x;

    UPDATE prompt_results r SET reused_cost_usd = paid.cost_usd
      FROM prompt_results paid
     WHERE r.reused_from_execution_id = ANY(touched) AND paid.execution_id = r.reused_from_execution_id
       AND paid.prompt_id = r.prompt_id AND r.reused_cost_usd IS DISTINCT FROM paid.cost_usd;

    WITH sums AS (
        SELECT r.execution_id, CASE WHEN bool_and(r.cost_usd IS NOT NULL) THEN sum(r.cost_usd) END AS cost
          FROM prompt_results r WHERE r.execution_id = ANY(touched) GROUP BY 1
    ), changed AS (
        UPDATE executions e SET cost_usd = s.cost
          FROM sums s
         WHERE e.id = s.execution_id AND e.cost_usd IS DISTINCT FROM s.cost
        RETURNING e.id
    )
    SELECT count(*) INTO llm_reprice.executions FROM changed x;

    SELECT count(*) INTO llm_reprice.running
      FROM llm_calls c JOIN executions e ON e.id = c.execution_id AND e.finished_at IS NULL
     WHERE c.started_at >= llm_reprice.since AND c.started_at < llm_reprice.until;
END
$$;

-- A budget bounds what many executions use together. tenant is there for the
-- day when there are several.
CREATE TABLE budgets (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant          text NOT NULL DEFAULT 'default',
    scope           text NOT NULL CHECK (scope = 'all' OR scope LIKE 'chain:_%'), -- which executions
    period          text NOT NULL CHECK (period IN ('hour', 'day', 'month', 'total')), -- in UTC, by the clock of the database
    limit_usd       numeric CHECK (limit_usd >= 0),
    limit_tokens    bigint CHECK (limit_tokens >= 0), -- input and output together
    period_start    timestamptz NOT NULL, -- which period the figures below are of
    spent_usd       numeric NOT NULL DEFAULT 0,
    spent_tokens    bigint NOT NULL DEFAULT 0,
    reserved_usd    numeric NOT NULL DEFAULT 0, -- the worst that the calls that are under way can cost
    reserved_tokens bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (tenant, scope, period),
    CHECK (limit_usd IS NOT NULL OR limit_tokens IS NOT NULL)
) WITH (fillfactor = 50); -- a few rows that move with every call

-- What a call holds of each budget that counts it. It has no reference to the
-- ledger, because it comes before the call is on record.
CREATE TABLE budget_reservations (
    request_id   uuid NOT NULL,
    budget_id    bigint NOT NULL REFERENCES budgets (id) ON DELETE CASCADE,
    execution_id bigint NOT NULL,
    lease_epoch  bigint NOT NULL, -- of the process that reserved
    period_start timestamptz NOT NULL, -- a call counts in the period in which it was reserved
    usd          numeric NOT NULL,
    tokens       bigint NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (request_id, budget_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE INDEX budget_reservations_budget_idx ON budget_reservations (budget_id);

-- budget_period is when the period that holds a moment began.
CREATE FUNCTION budget_period(period text, at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE period WHEN 'total' THEN '-infinity' ELSE date_trunc(period, at, 'UTC') END
$$;

-- budget_reserve holds the worst case of a call in all budgets that count it, or
-- in none. Of the answer, it holds as many tokens as every budget has room for,
-- at most want and at least minimum. The budgets are locked in the order of
-- their ids, which everybody does, so that nobody waits for a waiting one. A
-- reservation need not be on the disk: the append that puts the call on record
-- comes later in the same write-ahead log and is waited for.
--
-- granted is the number of tokens that the answer may have, or null when a
-- budget refuses, and then the rest says which one and why. held tells whether
-- there was any budget to reserve in.
CREATE FUNCTION budget_reserve(request uuid, execution bigint, epoch bigint, owner_tenant text, scopes text[],
                               input_usd numeric, output_usd numeric, input_tokens bigint, want bigint, minimum bigint,
                               OUT granted bigint, OUT held boolean, OUT scope text, OUT period text, OUT unpriced boolean,
                               OUT limit_usd numeric, OUT spent_usd numeric, OUT reserved_usd numeric,
                               OUT limit_tokens bigint, OUT spent_tokens bigint, OUT reserved_tokens bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    b budgets;
    room bigint := want;
    fits bigint;
    ids bigint[] := '{}';
    start timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    held := false;
    IF EXISTS (SELECT FROM budget_reservations r WHERE r.request_id = request) THEN
        PERFORM budget_release(request); -- asked again, because the answer was lost
    END IF;
    FOR b IN SELECT * FROM budgets x WHERE x.tenant = owner_tenant AND x.scope = ANY(scopes) ORDER BY x.id FOR NO KEY UPDATE LOOP
        start := budget_period(b.period, clock_timestamp());
        IF start > b.period_start THEN
            UPDATE budgets x SET period_start = start, spent_usd = 0, spent_tokens = 0, reserved_usd = 0, reserved_tokens = 0
             WHERE x.id = b.id RETURNING x.* INTO b;
        END IF;
        fits := want;
        IF b.limit_tokens IS NOT NULL THEN
            fits := least(fits, b.limit_tokens - b.spent_tokens - b.reserved_tokens - input_tokens);
        END IF;
        unpriced := b.limit_usd IS NOT NULL AND input_usd IS NULL;
        IF unpriced THEN
            fits := -1;
        ELSIF b.limit_usd IS NOT NULL AND b.limit_usd - b.spent_usd - b.reserved_usd < input_usd + output_usd * fits THEN
            fits := CASE WHEN output_usd > 0 THEN
                greatest(-1, least(fits, div(b.limit_usd - b.spent_usd - b.reserved_usd - input_usd, output_usd))) ELSE -1 END;
        END IF;
        IF fits < minimum THEN
            scope := b.scope; period := b.period;
            limit_usd := b.limit_usd; spent_usd := b.spent_usd; reserved_usd := b.reserved_usd;
            limit_tokens := b.limit_tokens; spent_tokens := b.spent_tokens; reserved_tokens := b.reserved_tokens;
            granted := NULL;
            RETURN;
        END IF;
        room := least(room, fits);
        ids := ids || b.id;
    END LOOP;
    granted := room;
    unpriced := false;
    held := ids <> '{}';
    WITH reserved AS (
        UPDATE budgets x
           SET reserved_usd = x.reserved_usd + coalesce(input_usd + output_usd * room, 0),
               reserved_tokens = x.reserved_tokens + input_tokens + room
         WHERE x.id = ANY(ids)
        RETURNING x.id, x.period_start
    )
    INSERT INTO budget_reservations (request_id, budget_id, execution_id, lease_epoch, period_start, usd, tokens)
    SELECT request, r.id, execution, epoch, r.period_start, coalesce(input_usd + output_usd * room, 0), input_tokens + room FROM reserved r;
END
$$;

-- budget_settle puts what calls really cost in the place of what they held, once
-- for each call, and answers how many reservations have gone. What is given is
-- looked at; without requests, all that are older than an age are. A reservation is
-- settled
--   with what the ledger says, when its call is closed there, but with all that it
--   held when the call was lost, because nobody knows what it really cost;
--   with nothing, when its call never came on record and cannot any more, because
--   the execution has ended or is another process's;
--   with all that it held, when its execution has been erased.
CREATE FUNCTION budget_settle(requests uuid[], age interval DEFAULT '0') RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true); -- what a crash undoes is done again
    IF requests IS NULL THEN
        -- Only what can be settled: budgets are not locked for the others.
        requests := ARRAY(SELECT DISTINCT h.request_id
                            FROM budget_reservations h
                            LEFT JOIN executions e ON e.id = h.execution_id
                            LEFT JOIN llm_calls c ON c.request_id = h.request_id
                           WHERE h.created_at <= clock_timestamp() - age
                             AND (e.id IS NULL OR c.status <> 'open' OR e.finished_at IS NOT NULL
                                  OR c.request_id IS NULL AND e.lease_epoch > h.lease_epoch));
    END IF;
    PERFORM FROM budgets b
      WHERE b.id IN (SELECT r.budget_id FROM budget_reservations r WHERE r.request_id = ANY(requests))
      ORDER BY b.id FOR NO KEY UPDATE;
    WITH settled AS (
        DELETE FROM budget_reservations r
         USING (SELECT h.request_id, h.budget_id,
                       CASE WHEN e.id IS NULL OR c.lost OR c.status = 'open' THEN greatest(h.usd, c.cost_usd) ELSE coalesce(c.cost_usd, 0) END AS usd,
                       CASE WHEN e.id IS NULL OR c.lost OR c.status = 'open' THEN greatest(h.tokens, c.input_tokens + c.output_tokens)
                            ELSE coalesce(c.input_tokens + c.output_tokens, 0) END AS tokens
                  FROM budget_reservations h
                  LEFT JOIN executions e ON e.id = h.execution_id
                  LEFT JOIN llm_calls c ON c.request_id = h.request_id
                 WHERE h.request_id = ANY(requests)
                   AND (e.id IS NULL OR c.status <> 'open' OR e.finished_at IS NOT NULL
                        OR c.request_id IS NULL AND e.lease_epoch > h.lease_epoch)) s
         WHERE r.request_id = s.request_id AND r.budget_id = s.budget_id
        RETURNING r.budget_id, r.period_start, r.usd AS held_usd, r.tokens AS held_tokens, s.usd, s.tokens
    ), sums AS (
        SELECT s.budget_id, s.period_start, count(*) AS n, sum(s.held_usd) AS held_usd, sum(s.held_tokens)::bigint AS held_tokens,
               sum(s.usd) AS usd, sum(s.tokens)::bigint AS tokens
          FROM settled s GROUP BY 1, 2
    ), booked AS (
        UPDATE budgets b
           SET reserved_usd = b.reserved_usd - s.held_usd, reserved_tokens = b.reserved_tokens - s.held_tokens,
               spent_usd = b.spent_usd + s.usd, spent_tokens = b.spent_tokens + s.tokens
          FROM sums s
         WHERE b.id = s.budget_id AND b.period_start = s.period_start -- a period that is over counts nothing any more
    )
    SELECT coalesce(sum(s.n), 0) INTO gone FROM sums s;
    RETURN gone;
END
$$;

-- budget_release gives back what a call held that will not be made.
CREATE FUNCTION budget_release(request uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM FROM budgets b
      WHERE b.id IN (SELECT r.budget_id FROM budget_reservations r WHERE r.request_id = request)
      ORDER BY b.id FOR NO KEY UPDATE;
    WITH gone AS (
        DELETE FROM budget_reservations r WHERE r.request_id = request RETURNING r.budget_id, r.period_start, r.usd, r.tokens
    )
    UPDATE budgets b SET reserved_usd = b.reserved_usd - g.usd, reserved_tokens = b.reserved_tokens - g.tokens
      FROM gone g WHERE b.id = g.budget_id AND b.period_start = g.period_start;
END
$$;

-- Stable views for analysts; the first three as they were.

CREATE VIEW v_executions AS
SELECT e.id AS execution_id,
       e.chain_id,
       e.chain_name,
       e.chain_version,
       e.status,
       e.error_code,
       e.error,
       e.input_tokens,
       e.output_tokens,
       e.input_tokens + e.output_tokens AS total_tokens,
       e.cost_usd,
       e.last_seq AS events,
       e.created_at,
       e.started_at,
       e.finished_at,
       round(extract(epoch FROM e.started_at - e.created_at) * 1000)::bigint AS queued_ms,
       round(extract(epoch FROM e.finished_at - e.started_at) * 1000)::bigint AS duration_ms,
       e.parent_execution_id,
       e.origin,
       coalesce(reused.prompts, 0) AS reused_prompts,
       coalesce(reused.tokens, 0) AS reused_tokens,
       reused.cost_usd AS reused_cost_usd
  FROM executions e
  LEFT JOIN LATERAL (
        SELECT count(*) AS prompts,
               sum(r.reused_input_tokens + r.reused_output_tokens)::bigint AS tokens,
               sum(r.reused_cost_usd) AS cost_usd
          FROM prompt_results r
         WHERE r.execution_id = e.id AND r.reused_from_execution_id IS NOT NULL) reused
    ON e.parent_execution_id IS NOT NULL; -- the others have nothing to look for

CREATE VIEW v_prompt_runs AS
SELECT r.execution_id,
       e.chain_id,
       e.chain_name,
       e.chain_version,
       r.prompt_id,
       r.name AS prompt_name,
       r.position,
       r.status,
       r.attempt AS attempts,
       r.model_id,
       split_part(r.model_id, '/', 1) AS provider,
       r.input_tokens,
       r.output_tokens,
       r.cached_tokens,
       r.reasoning_tokens,
       r.usage_estimated,
       r.cost_usd,
       r.cached,
       r.finish_reason,
       r.error_code,
       r.error,
       r.duration_ms,
       r.started_at,
       r.finished_at,
       r.reused_from_execution_id,
       r.reused_input_tokens,
       r.reused_output_tokens,
       r.reused_cost_usd,
       r.cache_write_tokens
  FROM prompt_results r
  JOIN executions e ON e.id = r.execution_id;

-- The ledger with what it is about. The three kinds of input_tokens are
-- uncached_tokens, cached_tokens and cache_write_tokens; reasoning_tokens is a
-- part of output_tokens.
CREATE VIEW v_llm_calls AS
SELECT c.request_id,
       c.execution_id,
       e.chain_id,
       e.chain_name,
       e.chain_version,
       c.prompt_id,
       r.name AS prompt_name,
       c.attempt,
       c.provider || '/' || c.model AS model_id,
       c.provider,
       c.model,
       c.status::text AS status,
       c.input_tokens,
       c.output_tokens,
       c.input_tokens + c.output_tokens AS total_tokens,
       c.input_tokens - c.cached_tokens - c.cache_write_tokens AS uncached_tokens,
       c.cached_tokens,
       c.cache_write_tokens,
       c.reasoning_tokens,
       c.usage_source,
       c.raw_usage,
       c.cost_usd,
       c.error_code,
       c.http_status,
       c.finish_reason,
       c.response_id,
       c.duration_ms,
       c.time_to_first_token_ms,
       c.started_at,
       c.finished_at
  FROM llm_calls c
  JOIN executions e ON e.id = c.execution_id
  LEFT JOIN prompt_results r ON r.execution_id = c.execution_id AND r.prompt_id = c.prompt_id;

-- Tokens and cost are of the calls that began in the hour, at the model that was
-- called; prompts, failed and what was reused are of the prompts that began in it,
-- at the model of their last attempt.
CREATE VIEW v_costs_hourly AS
SELECT x.hour,
       e.chain_name,
       x.model_id,
       count(*) FILTER (WHERE x.ran) AS prompts,
       count(*) FILTER (WHERE x.gave_up) AS failed,
       coalesce(sum(x.input_tokens), 0) AS input_tokens,
       coalesce(sum(x.output_tokens), 0) AS output_tokens,
       sum(x.cost_usd) AS cost_usd,
       count(*) FILTER (WHERE x.reused) AS reused_prompts,
       coalesce(sum(x.reused_tokens), 0)::bigint AS reused_tokens,
       sum(x.reused_cost_usd) AS reused_cost_usd,
       count(*) FILTER (WHERE x.called) AS calls,
       count(*) FILTER (WHERE x.call_failed) AS failed_calls,
       count(*) FILTER (WHERE x.estimated) AS estimated_calls,
       coalesce(sum(x.cached_tokens), 0) AS cached_tokens,
       coalesce(sum(x.cache_write_tokens), 0) AS cache_write_tokens,
       coalesce(sum(x.reasoning_tokens), 0) AS reasoning_tokens
  FROM (SELECT date_trunc('hour', c.started_at) AS hour, c.execution_id, c.provider || '/' || c.model AS model_id,
               false AS ran, false AS gave_up, false AS reused, true AS called,
               c.status IN ('failed', 'cancelled') AS call_failed, c.usage_source IS NOT DISTINCT FROM 'estimated' AS estimated,
               c.input_tokens, c.output_tokens, c.cached_tokens, c.cache_write_tokens, c.reasoning_tokens, c.cost_usd,
               NULL::bigint AS reused_tokens, NULL::numeric AS reused_cost_usd
          FROM llm_calls c
        UNION ALL
        SELECT date_trunc('hour', r.started_at), r.execution_id, r.model_id,
               r.reused_from_execution_id IS NULL, r.status = 'failed', r.reused_from_execution_id IS NOT NULL, false, false, false,
               NULL, NULL, NULL, NULL, NULL, CASE WHEN r.reused_from_execution_id IS NOT NULL THEN 0 END, r.reused_input_tokens + r.reused_output_tokens, r.reused_cost_usd
          FROM prompt_results r) x
  JOIN executions e ON e.id = x.execution_id
 GROUP BY 1, 2, 3;

CREATE VIEW v_model_costs_daily AS
SELECT (c.started_at AT TIME ZONE 'UTC')::date AS day, -- in UTC
       c.provider || '/' || c.model AS model_id,
       count(*) AS calls,
       count(*) FILTER (WHERE c.status IN ('failed', 'cancelled')) AS failed_calls,
       count(*) FILTER (WHERE c.usage_source = 'estimated') AS estimated_calls,
       sum(c.input_tokens) AS input_tokens,
       sum(c.output_tokens) AS output_tokens,
       sum(c.cached_tokens) AS cached_tokens,
       sum(c.cache_write_tokens) AS cache_write_tokens,
       sum(c.reasoning_tokens) AS reasoning_tokens,
       sum(c.cost_usd) AS cost_usd
  FROM llm_calls c
 GROUP BY 1, 2;
