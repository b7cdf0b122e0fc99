// Command stuck measures what one reader that has stopped reading does to the
// others.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/chainstream/chainstream/bench/internal/crowd"
	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/bench/internal/subscriber"
)

const about = `
One reader among many stops reading. Events come at a fixed rate, first to the
others alone, then with the one that does not read. The others should notice
nothing; the one is to be cut, and to lose nothing when it comes back with the
id of the last event that it has.

The spread is the time from the first reader that has an event to each other:
what storing the event takes, and with it the disk, is not in it.`

func main() {
	os.Exit(rig.Main(func() int { return program.Main("stuck", about, define) }))
}

// config is what is measured.
type config struct {
	readers     int
	rate, bytes int
	alone, with time.Duration
	repeats     int
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	flags.IntVar(&c.readers, "readers", 99, "subscribers that read")
	flags.IntVar(&c.rate, "rate", 250, "events a second")
	flags.IntVar(&c.bytes, "bytes", 2048, "data of an event")
	flags.DurationVar(&c.alone, "alone", 5*time.Second, "without the reader that is stuck")
	flags.DurationVar(&c.with, "with", 14*time.Second, "with it")
	flags.IntVar(&c.repeats, "repeats", 1, "how often each pair is measured")
	return c.run
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
	fmt.Fprintf(w, "%d readers and one that is stuck, %d events of %d bytes a second.\n\n", c.readers, c.rate, c.bytes)
	table := measure.NewTable("server", "p50 alone", "p99 alone", "p50 with one stuck", "p99 with one stuck", "spread p99 alone", "with one stuck", "delivered to the others", "cut after", "resumed", "foreign load")
	for range c.repeats {
		for _, kind := range []rig.Kind{rig.Ours, rig.R3labs} {
			r, err := c.measure(ctx, database, kind)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			table.Row(string(kind), measure.Millis(r.alone.Latency.Quantile(0.5)), measure.Millis(r.alone.Latency.Quantile(0.99)),
				measure.Millis(r.with.Latency.Quantile(0.5)), measure.Millis(r.with.Latency.Quantile(0.99)),
				measure.Millis(r.alone.Spread.Quantile(0.99)), measure.Millis(r.with.Spread.Quantile(0.99)),
				fmt.Sprintf("%.1f %%", 100*r.delivered), r.cut, r.resumed, measure.Percent(r.foreign))
		}
	}
	_, err = table.WriteTo(w)
	return err
}

// result is one measurement.
type result struct {
	alone, with  *crowd.Figures
	delivered    float64 // share of what was published while one was stuck
	cut, resumed string
	foreign      float64
}

// warm is the time before the measurement.
const warm = time.Second

func (c *config) measure(ctx context.Context, database *rig.Database, kind rig.Kind) (r result, err error) {
	streamer, err := rig.StartStreamer(ctx, rig.StreamerConfig{Kind: kind, Database: database.URL, Bytes: c.bytes})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, streamer.Close()) }()
	readers, err := crowd.Open(ctx, c.readers, streamer.Addr, streamer.Path, subscriber.Options{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, readers.Close()) }()
	load := crowd.NewLoad(readers, streamer.Publish)
	if err := load.Pace(ctx, c.rate, warm); err != nil {
		return r, err
	}
	foreign, err := measure.WatchForeign()
	if err != nil {
		return r, err
	}
	readers.Reset()
	if err := load.Pace(ctx, c.rate, c.alone); err != nil {
		return r, err
	}
	// Small buffers on its side, so that it is soon stuck.
	stuck, err := subscriber.Open(ctx, streamer.Addr, streamer.Path, subscriber.Options{ReceiveBuffer: 16 << 10})
	if err != nil {
		return r, err
	}
	defer stuck.Close() //nolint:errcheck // the server has closed it, or is closed
	r.alone = readers.Reset()
	sent, before := load.Sent(), readers.Completed()

	var watching sync.WaitGroup
	if kind == rig.Ours {
		watching.Go(func() { r.cut = c.watch(ctx, streamer) })
	}
	err = load.Pace(ctx, c.rate, c.with)
	watching.Wait()
	if err != nil {
		return r, err
	}
	r.with = readers.Reset()
	r.delivered = min(1, float64(readers.Completed()-before)/float64(load.Sent()-sent))
	if r.foreign, err = foreign.Share(); err != nil {
		return r, err
	}
	if kind != rig.Ours {
		r.cut, r.resumed = "never", "–"
		return r, nil
	}
	if err := load.Drain(ctx); err != nil {
		return r, err
	}
	r.resumed, err = resume(ctx, streamer, stuck, load.Sent())
	return r, err
}

// watch waits until the server has cut the reader and answers after what time.
func (c *config) watch(ctx context.Context, streamer *rig.Streamer) string {
	begin := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "unknown"
		}
		since := time.Since(begin)
		stats, err := streamer.Stats()
		switch {
		case err != nil:
			return "unknown"
		case stats.Subscribers <= c.readers:
			return fmt.Sprintf("%.1f s", since.Seconds())
		case since > c.with:
			return fmt.Sprintf("not in %.0f s", since.Seconds())
		}
	}
}

// resumeTimeout bounds the reading of what the stuck reader has missed.
const resumeTimeout = 10 * time.Second

// resume reads what reached the stuck reader, comes back after that, and checks
// that every event up to the last one is there once.
func resume(ctx context.Context, streamer *rig.Streamer, stuck *subscriber.Stream, last int64) (string, error) {
	var at int64
	var wrong error
	follow := func(e subscriber.Event) {
		if e.ID != at+1 && wrong == nil {
			wrong = fmt.Errorf("after event %d came %d", at, e.ID)
		}
		at = e.ID
	}
	if err := stuck.SetReadDeadline(time.Now().Add(resumeTimeout)); err != nil {
		return "", err
	}
	for stuck.Read(follow) == nil {
	}
	kept := at
	again, err := subscriber.Open(ctx, streamer.Addr, streamer.Path, subscriber.Options{LastEventID: at})
	if err != nil {
		return "", err
	}
	defer again.Close() //nolint:errcheck // it has done what it was for
	if err := again.SetReadDeadline(time.Now().Add(resumeTimeout)); err != nil {
		return "", err
	}
	for at < last {
		if err := again.Read(follow); err != nil {
			return "", fmt.Errorf("resume after event %d: %w", kept, err)
		}
	}
	if wrong != nil {
		return "", fmt.Errorf("resume after event %d: %w", kept, wrong)
	}
	return fmt.Sprintf("%s missed, all read", measure.Thousands(float64(last-kept))), nil
}
