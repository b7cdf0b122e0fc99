-- The queue is fair: executions have a priority, chains take turns, and a chain
-- may bound how many of its executions run at once.

ALTER TABLE executions
    ADD COLUMN priority smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -10 AND 10), -- higher first
    ADD COLUMN slot integer; -- which of its chain's places it holds while it runs; null where the chain has no limit

-- How many executions of the chain run at once on all servers, as its newest
-- version says; null = as many as there are workers.
ALTER TABLE chains ADD COLUMN concurrency integer CHECK (concurrency > 0);

-- The queue, lane by lane: the executions of one chain and one priority stand
-- together, in the order of their arrival. Who claims goes from the head of a
-- lane to the head of the next one, so a claim costs by the lanes and not by
-- the executions that wait. Tenants, when there are some, stand before the chain.
CREATE INDEX executions_lanes_idx ON executions ((-priority), chain_id, id) WHERE status = 'queued';
DROP INDEX executions_queued_idx;

-- What runs, by chain. That no two executions share a slot is what keeps the
-- limit of a chain when several servers claim at the same moment.
CREATE UNIQUE INDEX executions_slot_key ON executions (chain_id, slot) WHERE status = 'running';

-- The few chains that have a limit.
CREATE INDEX chains_limited_idx ON chains (id) INCLUDE (concurrency) WHERE concurrency IS NOT NULL;
