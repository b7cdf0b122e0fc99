// Command trigger measures the time from a POST to the first event of the
// execution that it starts.
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

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/bench/internal/subscriber"
	"github.com/chainstream/chainstream/events"
)

const about = `
Time from the trigger to the first event, and to the first text of the model,
over HTTP with the whole program as users start it. The chain has one prompt for
the demo model, which answers at once. Everything that is shown is stored.

one request   POST /api/v1/executions with Accept: text/event-stream
two requests  POST /api/v1/executions, then GET /events/ID

Each stream has a connection of its own, whose opening is in the time.`

const document = `
name: trigger
prompts:
- name: Greeting
  model: offline/echo
  content: "Echo: Hello, this is a short answer of some ten words in all."
`

func main() { os.Exit(program.Main("trigger", about, define)) }

// config is what is measured.
type config struct {
	take    time.Duration
	repeats int
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	flags.DurationVar(&c.take, "duration", 3*time.Second, "of each measurement")
	flags.IntVar(&c.repeats, "repeats", 2, "how often each is measured")
	return c.run
}

// way is how an execution is started and watched.
type way struct {
	name string
	open func(ctx context.Context, server *rig.Server) (*subscriber.Stream, error)
}

// result is the sum of all repeats.
type result struct {
	event, text, whole measure.Latencies
	took               time.Duration
	foreign            float64
}

func (c *config) run(ctx context.Context, w io.Writer) (err error) {
	server, err := rig.StartServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if err := server.CreateChain(ctx, document); err != nil {
		return err
	}
	ways := []way{{"one request", oneRequest}, {"two requests", twoRequests}}
	parallel := []int{1, 16}
	results := make([]result, len(ways)*len(parallel))
	if err := new(result).measure(ctx, server, ways[0], 4, time.Second); err != nil { // warm
		return err
	}
	for range c.repeats {
		for i := range results {
			if err := results[i].measure(ctx, server, ways[i%len(ways)], parallel[i/len(ways)], c.take); err != nil {
				return err
			}
		}
	}
	table := measure.NewTable("trigger", "at a time", "first event p50", "p99", "first text p50", "p99", "whole execution p50", "p99", "executions/s", "foreign load")
	for i := range results {
		r := &results[i]
		table.Row(ways[i%len(ways)].name, fmt.Sprint(parallel[i/len(ways)]),
			measure.Millis(r.event.Quantile(0.5)), measure.Millis(r.event.Quantile(0.99)),
			measure.Millis(r.text.Quantile(0.5)), measure.Millis(r.text.Quantile(0.99)),
			measure.Millis(r.whole.Quantile(0.5)), measure.Millis(r.whole.Quantile(0.99)),
			measure.Figures(float64(r.whole.Count())/r.took.Seconds()), measure.Percent(r.foreign))
	}
	_, err = table.WriteTo(w)
	return err
}

func oneRequest(ctx context.Context, server *rig.Server) (*subscriber.Stream, error) {
	return server.Run(ctx, "trigger")
}

func twoRequests(ctx context.Context, server *rig.Server) (*subscriber.Stream, error) {
	path, err := server.Trigger(ctx, "trigger")
	if err != nil {
		return nil, err
	}
	return subscriber.Open(ctx, server.Addr, path, subscriber.Options{})
}

// measure starts executions one after the other, by so many clients.
func (r *result) measure(ctx context.Context, server *rig.Server, way way, clients int, take time.Duration) error {
	foreign, err := measure.WatchForeign()
	if err != nil {
		return err
	}
	begin := time.Now()
	errs := make([]error, clients)
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			for time.Since(begin) < take && errs[i] == nil {
				errs[i] = r.once(ctx, server, way)
			}
		})
	}
	running.Wait()
	r.took += time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	share, err := foreign.Share()
	r.foreign = max(r.foreign, share)
	return err
}

func (r *result) once(ctx context.Context, server *rig.Server, way way) error {
	begin := time.Now()
	stream, err := way.open(ctx, server)
	if err != nil {
		return fmt.Errorf("%s: %w", way.name, err)
	}
	defer stream.Close() //nolint:errcheck // it has ended
	_, err = rig.Follow(stream, func(eventType string) {
		switch events.Type(eventType) {
		case events.TypeExecutionStart:
			r.event.Add(time.Since(begin), 1)
		case events.TypePromptDelta:
			r.text.Add(time.Since(begin), 1)
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("%s: %w", way.name, err)
	}
	r.whole.Add(time.Since(begin), 1)
	return nil
}
