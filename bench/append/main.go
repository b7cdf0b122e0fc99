// Command append measures how many events a second are stored durably, beside
// what the same PostgreSQL stores of the same rows without our statement.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
)

const about = `
Durable append throughput of the event log, beside the ceiling of the same
PostgreSQL in the same run.

ours     so many executions write through events.Log and postgres.Store; each
         waits until its append is stored before it makes the next
ceiling  the same rows into the same partitioned table by plain multi-row
         INSERT … SELECT unnest(…), over two connections, in transactions as
         large as ours were; no fence, no UPDATE of executions, no encoding

Both alternate, so that both see the same machine. Commits wait for the disk.`

func main() { os.Exit(program.Main("append", about, define)) }

// scenario is a load.
type scenario struct {
	executions int
	perAppend  int // events of one append
}

func define(flags *flag.FlagSet) program.Run {
	duration := flags.Duration("duration", 3*time.Second, "of each measurement")
	repeats := flags.Int("repeats", 2, "how often each pair is measured")
	size := flags.Int("bytes", 300, "data of an event, at least 250")
	return func(ctx context.Context, w io.Writer) error {
		database, err := rig.StartDatabase(ctx)
		if err != nil {
			return err
		}
		defer database.Close() //nolint:errcheck // what was measured stands
		b := &bench{database: database, duration: *duration, size: *size}
		if err := b.prepare(ctx); err != nil {
			return err
		}
		defer b.close(ctx)
		fmt.Fprintf(w, "PostgreSQL %s, fsync and synchronous_commit on, events of %d bytes.\n\n", database.Version, *size)

		table := measure.NewTable("load", "events/s", "ceiling", "ratio", "mean append", "p99", "events/commit",
			"CPU µs/event ours", "+ PostgreSQL", "ceiling, + PostgreSQL", "foreign load")
		for _, s := range []scenario{{1, 1}, {100, 1}, {1000, 1}, {1000, 5}} {
			var pairs []pair
			for range *repeats {
				p, err := b.pair(ctx, s)
				if err != nil {
					return err
				}
				pairs = append(pairs, p)
			}
			p := join(pairs)
			table.Row(s.String(), measure.Thousands(p.ours.rate()), measure.Thousands(p.ceiling.rate()), measure.Figures(p.ours.rate()/p.ceiling.rate()),
				measure.Millis(p.ours.latency.Mean()), measure.Millis(p.ours.latency.Quantile(0.99)),
				measure.Figures(float64(p.ours.events)/float64(p.ours.commits)),
				p.ours.micros(p.ours.process), p.ours.micros(p.ours.postgres), p.ceiling.micros(p.ceiling.process)+", "+p.ceiling.micros(p.ceiling.postgres),
				measure.Percent(p.foreign))
		}
		_, err = table.WriteTo(w)
		return err
	}
}

func (s scenario) String() string {
	switch {
	case s.executions == 1:
		return "1 execution"
	case s.perAppend == 1:
		return measure.Thousands(float64(s.executions)) + " executions"
	default:
		return fmt.Sprintf("%s executions, %d events an append", measure.Thousands(float64(s.executions)), s.perAppend)
	}
}

// result is what one side did in one measurement.
type result struct {
	events, commits   int64
	took              time.Duration
	process, postgres time.Duration // processor time
	latency           *measure.Latencies
}

func (r result) rate() float64 { return float64(r.events) / r.took.Seconds() }

// micros answers processor time per event in µs.
func (r result) micros(cpu time.Duration) string {
	return measure.Figures(float64(cpu.Microseconds()) / float64(r.events))
}

// pair is our side and the ceiling, measured one after the other.
type pair struct {
	ours, ceiling result
	foreign       float64
}

// join sums repeats; the foreign load is the highest.
func join(pairs []pair) pair {
	sum := pairs[0]
	for _, p := range pairs[1:] {
		sum.ours, sum.ceiling = sum.ours.plus(p.ours), sum.ceiling.plus(p.ceiling)
		sum.foreign = max(sum.foreign, p.foreign)
	}
	return sum
}

func (r result) plus(o result) result {
	r.latency.Merge(o.latency)
	return result{
		events: r.events + o.events, commits: r.commits + o.commits, took: r.took + o.took,
		process: r.process + o.process, postgres: r.postgres + o.postgres, latency: r.latency,
	}
}
