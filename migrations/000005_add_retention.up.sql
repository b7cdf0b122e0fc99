-- Retention: partitions whose size follows the rate, a note of what was removed,
-- and the folding of text deltas.

ALTER TABLE executions
    ADD COLUMN folded_at timestamptz, -- when the text deltas of the log were folded away; null = they are all there
    ADD COLUMN folded_seqs bigint[]; -- the events that are gone with it: first, last, first, last …

-- What a fold policy still has to look at. Without one it holds every finished execution.
CREATE INDEX executions_unfolded_idx ON executions (finished_at) WHERE folded_at IS NULL AND finished_at IS NOT NULL;

-- The parts of the log that retention has removed. A row is written before the
-- partition goes, so that whoever finds no events also finds the reason, and
-- so that a removal that was interrupted is finished by the next turn.
CREATE TABLE events_removed (
    lower_id       bigint PRIMARY KEY, -- of the execution ids, inclusive
    upper_id       bigint NOT NULL, -- exclusive
    partition_name text NOT NULL,
    removed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- events_partitions answers the partitions of the log with the execution ids
-- they hold, the upper one exclusive.
CREATE FUNCTION events_partitions() RETURNS TABLE (name text, oid oid, lower_id bigint, upper_id bigint, detach_pending boolean)
LANGUAGE plpgsql STABLE ROWS 100 AS $$
BEGIN
    RETURN QUERY
    SELECT c.relname::text,
           c.oid,
           (regexp_match(b.bound, 'FROM \(''?(\d+)''?\)'))[1]::bigint,
           (regexp_match(b.bound, 'TO \(''?(\d+)''?\)'))[1]::bigint,
           i.inhdetachpending
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b (bound)
     WHERE i.inhparent = 'events'::regclass;
END
$$;

-- events_partition_size is how many executions a new partition holds: about
-- one day of them, so that an age can be kept by dropping whole partitions.
CREATE FUNCTION events_partition_size() RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT least(greatest((coalesce(pg_sequence_last_value(pg_get_serial_sequence('executions', 'id')), 0)
                           - coalesce((SELECT e.id FROM executions e
                                        WHERE e.created_at >= now() - interval '1 day'
                                        ORDER BY e.created_at LIMIT 1) - 1,
                                      pg_sequence_last_value(pg_get_serial_sequence('executions', 'id')), 0) + 999) / 1000 * 1000,
                          1000), 1000000)
$$;

-- events_cover makes the partition that holds the events of one execution,
-- unless there is one, and answers the id behind the partition. It keeps within
-- its neighbours. A partition is attached, not created in place, because
-- attaching does not lock out readers and writers of the table. Rows are never
-- updated and deleted only by a fold, which is worth a vacuum sooner than the
-- default of a fifth of a large table.
CREATE FUNCTION events_cover(execution bigint, size bigint, OUT upper_bound bigint, OUT made boolean) RETURNS record
LANGUAGE plpgsql AS $$
DECLARE
    lower_bound bigint;
    child text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('chainstream.events_partitions'));
    SELECT p.upper_id INTO upper_bound FROM events_partitions() p
     WHERE execution >= p.lower_id AND execution < p.upper_id;
    made := upper_bound IS NULL;
    IF NOT made THEN
        RETURN;
    END IF;
    SELECT greatest(execution / size * size, coalesce(max(p.upper_id), 0)) INTO lower_bound
      FROM events_partitions() p WHERE p.upper_id <= execution;
    SELECT least(execution / size * size + size, min(p.lower_id)) INTO upper_bound
      FROM events_partitions() p WHERE p.lower_id > execution;
    child := format('events_p%s', lpad(lower_bound::text, 12, '0'));
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION) '
                   'WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000)', child);
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', child, lower_bound, upper_bound);
END
$$;

-- events_ensure_partitions makes the partitions for at least the next "ahead"
-- executions and for the next two days, and answers how many it made. Where ids
-- have jumped it leaves the gap alone: events_cover fills it when it is needed.
CREATE OR REPLACE FUNCTION events_ensure_partitions(ahead bigint) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    size   constant bigint := events_partition_size();
    newest constant bigint := coalesce(pg_sequence_last_value(pg_get_serial_sequence('executions', 'id')), 0);
    reach  constant bigint := newest + least(greatest(ahead, 2 * size), 50 * size);
    next   bigint := newest;
    made   integer := 0;
    cover  record;
BEGIN
    WHILE next <= reach LOOP
        cover := events_cover(next, size);
        next := cover.upper_bound;
        made := made + cover.made::integer;
    END LOOP;
    RETURN made;
END
$$;

-- Partitions that nothing was written to yet are cut anew, in the right size.
DO $$
DECLARE
    newest constant bigint := coalesce(pg_sequence_last_value(pg_get_serial_sequence('executions', 'id')), 0);
    child record;
BEGIN
    FOR child IN SELECT name FROM events_partitions() WHERE lower_id > newest OR newest = 0 LOOP
        EXECUTE format('DROP TABLE %I', child.name);
    END LOOP;
    PERFORM events_ensure_partitions(10000);
END
$$;
