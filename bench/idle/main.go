// Command idle measures what a stream costs on which nothing happens.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/bench/internal/crowd"
	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/bench/internal/subscriber"
)

const about = `
Memory and processor time of idle streams: many subscribers of one execution,
and nothing to tell them but heartbeats. At the end one event is published and
must reach everybody; then all leave, and the goroutines of the server must be
as many as before, within a heartbeat.

The memory is the resident set of the server's process, before the streams and
some seconds after they are open, divided by their number. The memory of the
kernel for the connections is not in it.`

func main() {
	os.Exit(rig.Main(func() int { return program.Main("idle", about, define) }))
}

// config is what is measured.
type config struct {
	streams int
	quiet   time.Duration
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	flags.IntVar(&c.streams, "streams", 10_000, "streams to open")
	flags.DurationVar(&c.quiet, "quiet", 16*time.Second, "time without events; the heartbeat of chainstream comes every 15 s")
	return c.run
}

// spareFiles are open files beside those of the streams.
const spareFiles = 200

func (c *config) run(ctx context.Context, w io.Writer) (err error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit on open files: %w", err)
	}
	// The Go runtime has raised the limit as far as it may.
	if most := int(min(limit.Max, 1<<30)) - spareFiles; c.streams > most {
		fmt.Fprintf(w, "The limit on open files (%d) allows %d streams.\n\n", limit.Max, most)
		c.streams = most
	}
	database, err := rig.StartDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	if _, err := rig.Chain(ctx, database.Store); err != nil {
		return err
	}
	table := measure.NewTable("server", "streams", "RSS before", "RSS with streams", "RSS/stream", "goroutines/stream", "CPU of a core while idle", "goroutines before", "after all left", "noticed after")
	for _, kind := range []rig.Kind{rig.Ours, rig.R3labs} {
		r, err := c.measure(ctx, database, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		table.Row(string(kind), measure.Thousands(float64(c.streams)), mebibytes(r.empty), mebibytes(r.full),
			measure.Figures(float64(r.full-r.empty)/float64(c.streams)/1000)+" kB",
			measure.Figures(float64(r.busy.Goroutines-r.before.Goroutines)/float64(c.streams)),
			fmt.Sprintf("%.1f %%", 100*float64(r.cpu)/float64(c.quiet)),
			fmt.Sprint(r.before.Goroutines), fmt.Sprint(r.after.Goroutines), fmt.Sprintf("%.1f s", r.left.Seconds()))
	}
	_, err = table.WriteTo(w)
	return err
}

func mebibytes(n int64) string { return measure.Figures(float64(n)/(1<<20)) + " MiB" }

// result is one measurement.
type result struct {
	empty, full         int64 // RSS, bytes
	before, busy, after rig.Stats
	cpu                 time.Duration // while idle
	left                time.Duration // until the goroutines were as many as before
}

// settle is how long the server has after the streams are open, before it is
// left alone.
const settle = 3 * time.Second

func (c *config) measure(ctx context.Context, database *rig.Database, kind rig.Kind) (r result, err error) {
	streamer, err := rig.StartStreamer(ctx, rig.StreamerConfig{Kind: kind, Database: database.URL, Bytes: 256})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, streamer.Close()) }()
	// A first round makes what is made once, such as connections to the database.
	if err := c.round(ctx, streamer, 10, func(*crowd.Load) error { return nil }); err != nil {
		return r, err
	}
	if err := gone(ctx, streamer, 0, &r.before); err != nil {
		return r, err
	}
	if r.empty, err = measure.RSS(streamer.PID); err != nil {
		return r, err
	}
	err = c.round(ctx, streamer, c.streams, func(load *crowd.Load) error {
		if err := pause(ctx, settle); err != nil {
			return err
		}
		before, err := streamer.CPU()
		if err != nil {
			return err
		}
		if err := pause(ctx, c.quiet); err != nil {
			return err
		}
		after, err := streamer.CPU()
		if err != nil {
			return err
		}
		r.cpu = after - before
		if r.full, err = measure.RSS(streamer.PID); err != nil {
			return err
		}
		if r.busy, err = streamer.Stats(); err != nil {
			return err
		}
		if err := load.Publish(); err != nil {
			return err
		}
		return load.Drain(ctx)
	})
	if err != nil {
		return r, err
	}
	begin := time.Now()
	err = gone(ctx, streamer, r.before.Goroutines, &r.after)
	r.left = time.Since(begin)
	return r, err
}

// round opens streams, calls f and closes them.
func (c *config) round(ctx context.Context, streamer *rig.Streamer, streams int, f func(*crowd.Load) error) (err error) {
	readers, err := crowd.Open(ctx, streams, streamer.Addr, streamer.Path, subscriber.Options{Buffer: 2048})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, readers.Close()) }()
	return f(crowd.NewLoad(readers, streamer.Publish))
}

// leaveTimeout is how long the server may take to notice that all have left:
// more than a heartbeat, because it may notice by that.
const leaveTimeout = 20 * time.Second

// gone waits until the server has no more than the given number of goroutines;
// 0 = until the number stays the same.
func gone(ctx context.Context, streamer *rig.Streamer, most int, stats *rig.Stats) (err error) {
	last := -1
	for deadline := time.Now().Add(leaveTimeout); time.Now().Before(deadline); {
		if *stats, err = streamer.Stats(); err != nil {
			return err
		}
		if stats.Subscribers == 0 && (most > 0 && stats.Goroutines <= most || most == 0 && stats.Goroutines == last) {
			return nil
		}
		last = stats.Goroutines
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil // the table tells
}

// pause lets time pass.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
