package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
)

// committers is the number of connections that commit, on both sides.
const committers = 2

// bench holds what all measurements share.
type bench struct {
	database *rig.Database
	version  *chain.Version
	duration time.Duration
	size     int
	sample   []byte // data of an event as the log stored it
	conns    [committers]*pgx.Conn
	lastID   int64 // of the executions that the ceiling invents
}

// onePartition gives both sides the same partition, as large as the server makes
// it at such a rate.
const onePartition = `
DO $$
DECLARE
    part record;
BEGIN
    FOR part IN SELECT name FROM events_partitions() LOOP
        EXECUTE format('DROP TABLE %I', part.name);
    END LOOP;
END
$$;
CREATE TABLE events_p000000000000 PARTITION OF events FOR VALUES FROM (0) TO (1000000)`

// prepare stores a chain and one event, whose data the ceiling copies.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.version, err = rig.Chain(ctx, b.database.Store); err != nil {
		return err
	}
	for i := range b.conns {
		if b.conns[i], err = pgx.Connect(ctx, b.database.URL); err != nil {
			return fmt.Errorf("connect for the ceiling: %w", err)
		}
	}
	if _, err := b.conns[0].Exec(ctx, onePartition); err != nil {
		return fmt.Errorf("make one partition: %w", err)
	}
	text := ""
	// The first event tells how much the fields around the text take.
	for range 2 {
		if text, err = b.pad(ctx, text); err != nil {
			return err
		}
	}
	b.lastID = 500_000 // in the same partition as ours, and far from our ids
	return nil
}

// pad stores an event with the text and answers the text that gives an event
// the wanted size.
func (b *bench) pad(ctx context.Context, text string) (string, error) {
	stored := &counter{AppendStore: b.database.Store}
	broker := events.NewBroker(b.database.Store, events.BrokerConfig{})
	defer broker.Close()
	log := events.NewLog(stored, broker, events.LogConfig{})
	defer log.Close(ctx) //nolint:errcheck // never fails
	executions, err := rig.Execute(ctx, b.database.Store, b.version, 1)
	if err != nil {
		return "", err
	}
	ex := executions[0]
	writer := log.Writer(ex.ID, ex.Epoch, 0, nil)
	defer writer.Close()
	if err := writer.Append(events.Batch{Events: []events.Draft{delta(text)}}).Wait(ctx); err != nil {
		return "", err
	}
	records, err := b.database.Store.Events(ctx, ex.ID, 0, 1)
	if err != nil {
		return "", err
	}
	b.sample = records[0].Data
	missing := b.size - len(b.sample)
	if len(text)+missing < 0 {
		return "", fmt.Errorf("an event has at least %d bytes", len(b.sample)-len(text))
	}
	return strings.Repeat("x", len(text)+missing), nil
}

func (b *bench) close(ctx context.Context) {
	for _, c := range b.conns {
		_ = c.Close(ctx) // the database is removed
	}
}

func delta(text string) events.Draft {
	return events.Draft{Payload: events.PromptDelta{PromptID: 1, Attempt: 1, Text: text}}
}

// counter counts commits.
type counter struct {
	events.AppendStore
	commits atomic.Int64
}

// AppendEvents implements events.AppendStore.
func (c *counter) AppendEvents(ctx context.Context, appends []events.Append) (map[int64]struct{}, error) {
	c.commits.Add(1)
	return c.AppendStore.AppendEvents(ctx, appends)
}

// pair measures our side and then the ceiling with commits of the same size.
func (b *bench) pair(ctx context.Context, s scenario) (p pair, err error) {
	foreign, err := measure.WatchForeign()
	if err != nil {
		return p, err
	}
	if p.ours, err = b.ours(ctx, s); err != nil {
		return p, fmt.Errorf("append for %v: %w", s, err)
	}
	if p.ceiling, err = b.ceiling(ctx, s, int(max(1, p.ours.events/p.ours.commits))); err != nil {
		return p, fmt.Errorf("insert for %v: %w", s, err)
	}
	p.foreign, err = foreign.Share()
	return p, err
}

// ours appends through the log.
func (b *bench) ours(ctx context.Context, s scenario) (result, error) {
	store := &counter{AppendStore: b.database.Store}
	broker := events.NewBroker(b.database.Store, events.BrokerConfig{})
	defer broker.Close()
	log := events.NewLog(store, broker, events.LogConfig{Committers: committers})
	defer log.Close(ctx) //nolint:errcheck // never fails
	executions, err := rig.Execute(ctx, b.database.Store, b.version, s.executions)
	if err != nil {
		return result{}, err
	}
	text := strings.Repeat("x", strings.Count(string(b.sample), "x"))
	batch := events.Batch{}
	for range s.perAppend {
		batch.Events = append(batch.Events, delta(text))
	}
	r, err := b.measure(ctx, s.executions, func(ctx context.Context, i int, stored func(time.Duration, int)) error {
		w := log.Writer(executions[i].ID, executions[i].Epoch, 0, nil)
		defer w.Close()
		for ctx.Err() == nil {
			begin := time.Now()
			if err := w.Append(batch).Wait(context.WithoutCancel(ctx)); err != nil {
				return err
			}
			stored(time.Since(begin), s.perAppend)
		}
		return nil
	})
	r.commits = store.commits.Load()
	if err != nil {
		return r, err
	}
	return r, b.check(ctx, executions[0].ID, executions[len(executions)-1].ID, r.events)
}

// check counts what is stored.
func (b *bench) check(ctx context.Context, from, to, want int64) error {
	var rows int64
	if err := b.conns[0].QueryRow(ctx, "SELECT count(*) FROM events WHERE execution_id BETWEEN $1 AND $2", from, to).Scan(&rows); err != nil {
		return fmt.Errorf("count the events: %w", err)
	}
	if rows != want {
		return fmt.Errorf("%d events were acknowledged and %d are stored", want, rows)
	}
	return nil
}

const plainInsert = `
INSERT INTO events (execution_id, seq, event_id, parent_id, stream_id, event_type, event_data, lease_epoch, created_at)
SELECT unnest($1::bigint[]), unnest($2::bigint[]), unnest($3::uuid[]), unnest($4::uuid[]), unnest($5::text[]),
       unnest($6::text[])::assistant_event_type, unnest($7::jsonb[]), 1, unnest($8::timestamptz[])`

// ceiling inserts the same rows in commits of so many events.
func (b *bench) ceiling(ctx context.Context, s scenario, rows int) (result, error) {
	connections := min(committers, s.executions)
	var commits atomic.Int64
	first := b.lastID + 1
	b.lastID += int64(s.executions)
	r, err := b.measure(ctx, connections, func(ctx context.Context, i int, stored func(time.Duration, int)) error {
		mine := s.executions / connections
		seqs := make([]int64, mine)
		next := 0
		c := newColumns(rows)
		for ctx.Err() == nil {
			begin := time.Now()
			c.clear()
			for len(c.seqs) < rows {
				ex := next % mine
				for range min(s.perAppend, rows-len(c.seqs)) {
					seqs[ex]++
					c.add(first+int64(ex*connections+i), seqs[ex], b.sample)
				}
				next++
			}
			if _, err := b.conns[i].Exec(context.WithoutCancel(ctx), plainInsert,
				c.executions, c.seqs, c.ids, c.parents, c.streams, c.types, c.data, c.times); err != nil {
				return err
			}
			commits.Add(1)
			stored(time.Since(begin), rows)
		}
		return nil
	})
	r.commits = commits.Load()
	if err != nil {
		return r, err
	}
	return r, b.check(ctx, first, b.lastID, r.events)
}

// columns are the arrays of one insert.
type columns struct {
	executions, seqs []int64
	ids, parents     [][16]byte // which the driver encodes fastest
	streams, types   []string
	data             [][]byte
	times            []time.Time
}

func newColumns(rows int) *columns {
	return &columns{
		executions: make([]int64, 0, rows), seqs: make([]int64, 0, rows), ids: make([][16]byte, 0, rows), parents: make([][16]byte, 0, rows),
		streams: make([]string, 0, rows), types: make([]string, 0, rows), data: make([][]byte, 0, rows), times: make([]time.Time, 0, rows),
	}
}

func (c *columns) clear() {
	c.executions, c.seqs, c.ids, c.parents = c.executions[:0], c.seqs[:0], c.ids[:0], c.parents[:0]
	c.streams, c.types, c.data, c.times = c.streams[:0], c.types[:0], c.data[:0], c.times[:0]
}

func (c *columns) add(execution, seq int64, data []byte) {
	id := uuid.Must(uuid.NewV7())
	c.executions, c.seqs = append(c.executions, execution), append(c.seqs, seq)
	c.ids, c.parents = append(c.ids, id), append(c.parents, id)
	c.streams, c.types = append(c.streams, events.MainStream), append(c.types, string(events.TypePromptDelta))
	c.data, c.times = append(c.data, data), append(c.times, time.Now())
}

// measure lets n workers work for the time of a measurement. Each works until
// its context ends and reports what it stored, and how long that took.
func (b *bench) measure(ctx context.Context, n int, work func(ctx context.Context, i int, stored func(time.Duration, int)) error) (result, error) {
	r := result{latency: new(measure.Latencies)}
	process, postgres, err := b.cpu()
	if err != nil {
		return r, err
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, b.duration)
	defer cancel()
	var total atomic.Int64
	errs := make([]error, n)
	var workers sync.WaitGroup
	for i := range n {
		workers.Go(func() {
			errs[i] = work(ctx, i, func(took time.Duration, events int) {
				total.Add(int64(events))
				r.latency.Add(took, 1)
			})
		})
	}
	workers.Wait()
	r.took, r.events = time.Since(begin), total.Load()
	for _, err := range errs {
		if err != nil {
			return r, err
		}
	}
	if r.process, r.postgres, err = b.cpu(); err != nil {
		return r, err
	}
	r.process -= process
	r.postgres -= postgres
	return r, nil
}

// cpu answers the processor time of this process and of PostgreSQL so far.
func (b *bench) cpu() (process, postgres time.Duration, err error) {
	if process, err = measure.ProcessCPU(os.Getpid()); err != nil {
		return 0, 0, err
	}
	postgres, err = measure.TreeCPU(b.database.PID)
	return process, postgres, err
}
