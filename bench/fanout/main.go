// Command fanout measures what it costs to send one event to many subscribers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/chainstream/chainstream/bench/internal/crowd"
	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/bench/internal/subscriber"
)

const about = `
Fan-out of Server-Sent Events: many subscribers of one execution, saturated, so
many events under way at once. Every delivery is counted and its id checked.

chainstream  GET /events/ID of the HTTP layer, over the broker; every event is
             appended through the log and stored before it is sent
r3labs/sse   the server of github.com/r3labs/sse, replay off; stores nothing

The server has core 0 to itself; the subscribers, and PostgreSQL, have core 1.
Both servers alternate, so that both see the same machine.`

func main() {
	os.Exit(rig.Main(func() int { return program.Main("fanout", about, define) }))
}

// config is what is measured.
type config struct {
	sizes       []int
	repeats     int
	outstanding int
	bytes       int
	warm, take  time.Duration
	profile     string
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	sizes := flags.String("subscribers", "100,1000,5000", "numbers of subscribers")
	flags.IntVar(&c.repeats, "repeats", 2, "how often each pair is measured")
	flags.IntVar(&c.outstanding, "outstanding", 16, "events under way at once")
	flags.IntVar(&c.bytes, "bytes", 256, "data of an event")
	flags.DurationVar(&c.warm, "warm", time.Second, "before each measurement")
	flags.DurationVar(&c.take, "duration", 3*time.Second, "of each measurement")
	flags.StringVar(&c.profile, "serverprofile", "", "`file` for a profile of the server chainstream, the last time it is measured")
	return func(ctx context.Context, w io.Writer) error {
		for s := range strings.SplitSeq(*sizes, ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return fmt.Errorf("-subscribers: %q is no number of subscribers", s)
			}
			c.sizes = append(c.sizes, n)
		}
		return c.run(ctx, w)
	}
}

func (c *config) run(ctx context.Context, w io.Writer) (err error) {
	database, err := rig.StartDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	if _, err := rig.Chain(ctx, database.Store); err != nil {
		return err
	}
	table := measure.NewTable("server", "subscribers", "deliveries/s", "CPU µs/delivery", "each repeat", "p50", "p99", "bytes/event", "PostgreSQL µs/delivery", "foreign load")
	for _, size := range c.sizes {
		kinds := []rig.Kind{rig.Ours, rig.R3labs}
		results := make([][]result, len(kinds))
		for range c.repeats {
			for i, kind := range kinds {
				r, err := c.measure(ctx, database, kind, size)
				if err != nil {
					return fmt.Errorf("%s with %d subscribers: %w", kind, size, err)
				}
				results[i] = append(results[i], r)
			}
		}
		for i, kind := range kinds {
			addRow(table, kind, size, results[i])
		}
	}
	_, err = table.WriteTo(w)
	return err
}

// result is one measurement.
type result struct {
	delivered, bytes int64
	took             time.Duration
	server, postgres time.Duration // processor time
	latencies        *measure.Latencies
	foreign          float64
}

func (r result) micros() float64 { return float64(r.server.Microseconds()) / float64(r.delivered) }

func addRow(table *measure.Table, kind rig.Kind, size int, repeats []result) {
	sum := result{latencies: new(measure.Latencies)}
	var each []string
	for _, r := range repeats {
		sum.delivered += r.delivered
		sum.bytes += r.bytes
		sum.took += r.took
		sum.server += r.server
		sum.postgres += r.postgres
		sum.latencies.Merge(r.latencies)
		sum.foreign = max(sum.foreign, r.foreign)
		each = append(each, measure.Figures(r.micros()))
	}
	postgres := "–"
	if kind == rig.Ours {
		postgres = measure.Figures(float64(sum.postgres.Microseconds()) / float64(sum.delivered))
	}
	table.Row(string(kind), measure.Thousands(float64(size)), measure.Thousands(float64(sum.delivered)/sum.took.Seconds()),
		measure.Figures(sum.micros()), strings.Join(each, ", "),
		measure.Millis(sum.latencies.Quantile(0.5)), measure.Millis(sum.latencies.Quantile(0.99)),
		strconv.FormatInt(sum.bytes/sum.delivered, 10), postgres, measure.Percent(sum.foreign))
}

func (c *config) measure(ctx context.Context, database *rig.Database, kind rig.Kind, size int) (r result, err error) {
	server := rig.StreamerConfig{Kind: kind, Database: database.URL, Bytes: c.bytes}
	if kind == rig.Ours {
		server.Profile = c.profile
	}
	streamer, err := rig.StartStreamer(ctx, server)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, streamer.Close()) }()
	readers, err := crowd.Open(ctx, size, streamer.Addr, streamer.Path, subscriber.Options{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, readers.Close()) }()
	load := crowd.NewLoad(readers, streamer.Publish)
	if err := load.Saturate(ctx, c.outstanding, c.warm); err != nil {
		return r, err
	}
	read := func() (s result, err error) {
		s.delivered, s.bytes = readers.Totals()
		var cpuErr error
		s.server, err = streamer.CPU()
		s.postgres, cpuErr = measure.TreeCPU(database.PID)
		return s, errors.Join(err, cpuErr)
	}
	before, err := read()
	if err != nil {
		return r, err
	}
	readers.Reset()
	foreign, err := measure.WatchForeign()
	if err != nil {
		return r, err
	}
	begin := time.Now()
	if err := load.Saturate(ctx, 0, c.take); err != nil {
		return r, err
	}
	if r, err = read(); err != nil {
		return r, err
	}
	r.took, r.latencies = time.Since(begin), &readers.Reset().Latency
	if r.foreign, err = foreign.Share(); err != nil {
		return r, err
	}
	r.delivered, r.bytes = r.delivered-before.delivered, r.bytes-before.bytes
	r.server, r.postgres = r.server-before.server, r.postgres-before.postgres
	return r, load.Drain(ctx)
}
