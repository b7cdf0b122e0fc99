// Command chain measures what running a chain costs beyond the calls of its
// models.
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

	"github.com/chainstream/chainstream/bench/internal/fakemodel"
	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
)

const about = `
A chain of three prompts, one after the other, by the whole program as users
start it: each chain is one POST whose answer is the stream of its events. Every
event is stored before it is shown, and every stream is read to its end and
checked.

offline       the built-in demo model without any wait
openai        a fake model behind OpenAI's API, in a process of its own, that
              answers at once with 20 chunks
bare calls    the same three calls with go-openai alone, one after the other: the
              floor, nothing is stored or streamed on

All alternate. Load, model, server and PostgreSQL share the machine; the
processor time is that of the server and its PostgreSQL alone, for the bare
calls that of the calling process.`

// document is the chain; the model is put in.
const document = `
name: %[1]s
prompts:
- {name: First, position: 1, model: %[2]s, content: "Echo: one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"}
- {name: Second, position: 2, model: %[2]s, content: "Echo: ${first}"}
- {name: Third, position: 3, model: %[2]s, content: "Echo: ${second}"}
`

// prompts is the number of prompts in document.
const prompts = 3

func main() {
	if code, isModel := fakemodel.Main(); isModel {
		os.Exit(code)
	}
	os.Exit(program.Main("chain", about, define))
}

// config is what is measured.
type config struct {
	inFlight int
	take     time.Duration
	alone    time.Duration
	repeats  int
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	flags.IntVar(&c.inFlight, "inflight", 64, "chains at a time")
	flags.DurationVar(&c.take, "duration", 5*time.Second, "of each measurement with many chains at a time")
	flags.DurationVar(&c.alone, "alone", 2*time.Second, "of each measurement with one chain at a time")
	flags.IntVar(&c.repeats, "repeats", 2, "how often each is measured")
	return c.run
}

// subject is a way to run the chain.
type subject struct {
	name string
	run  func(ctx context.Context) (events int64, err error)
	cpu  func() (process, postgres time.Duration, err error)

	many, alone result
}

// result is the sum of all repeats.
type result struct {
	latency           measure.Latencies
	events            int64
	took              time.Duration
	process, postgres time.Duration // processor time
	foreign           float64
}

func (c *config) run(ctx context.Context, w io.Writer) (err error) {
	model, err := fakemodel.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, model.Close()) }()
	server, err := rig.StartServer(ctx, "OPENAI_BASE_URL="+model.URL, "OPENAI_API_KEY=none")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	ours := func(name, modelID string) (*subject, error) {
		if err := server.CreateChain(ctx, fmt.Sprintf(document, name, modelID)); err != nil {
			return nil, err
		}
		return &subject{
			name: "chainstream, " + name,
			run:  func(ctx context.Context) (int64, error) { return throughServer(ctx, server, name) },
			cpu: func() (process, postgres time.Duration, err error) {
				tree, treeErr := measure.TreeCPU(server.PID)
				process, err = measure.ProcessCPU(server.PID)
				return process, tree - process, errors.Join(err, treeErr)
			},
		}, nil
	}
	offline, err := ours("offline", "offline/echo")
	if err != nil {
		return err
	}
	openai, err := ours("openai", "openai/fake")
	if err != nil {
		return err
	}
	floor := &subject{
		name: "bare calls",
		run:  newCaller(model.URL, c.inFlight).chain,
		cpu: func() (process, postgres time.Duration, err error) {
			process, err = measure.ProcessCPU(os.Getpid())
			return process, 0, err
		},
	}
	subjects := []*subject{floor, offline, openai}
	for _, s := range subjects {
		var warm result
		if err := s.measure(ctx, &warm, 8, time.Second/2); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for range c.repeats {
		for _, s := range subjects {
			if err := s.measure(ctx, &s.many, c.inFlight, c.take); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if err := s.measure(ctx, &s.alone, 1, c.alone); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return report(w, c.inFlight, subjects, floor)
}

func throughServer(ctx context.Context, server *rig.Server, chain string) (int64, error) {
	stream, err := server.Run(ctx, chain)
	if err != nil {
		return 0, err
	}
	defer stream.Close() //nolint:errcheck // it has ended
	return rig.Follow(stream, func(string) {})
}

// measure runs chains, so many at a time.
func (s *subject) measure(ctx context.Context, r *result, inFlight int, take time.Duration) error {
	foreign, err := measure.WatchForeign()
	if err != nil {
		return err
	}
	process, postgres, err := s.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	errs := make([]error, inFlight)
	events := make([]int64, inFlight)
	var running sync.WaitGroup
	for i := range inFlight {
		running.Go(func() {
			for time.Since(begin) < take && errs[i] == nil {
				began := time.Now()
				n, err := s.run(ctx)
				r.latency.Add(time.Since(began), 1)
				events[i] += n
				errs[i] = err
			}
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.took += time.Since(begin)
	for _, n := range events {
		r.events += n
	}
	processAfter, postgresAfter, err := s.cpu()
	if err != nil {
		return err
	}
	r.process += processAfter - process
	r.postgres += postgresAfter - postgres
	share, err := foreign.Share()
	r.foreign = max(r.foreign, share)
	return err
}

func report(w io.Writer, inFlight int, subjects []*subject, floor *subject) error {
	table := measure.NewTable("three prompts", fmt.Sprintf("chains/s at %d", inFlight), "p50", "p99", "CPU ms/chain process", "PostgreSQL", "events/chain",
		"p50 at 1", "p99 at 1", "overhead/prompt at 1", "foreign load")
	for _, s := range subjects {
		chains := float64(s.many.latency.Count())
		millis := func(d time.Duration) string { return measure.Figures(float64(d) / float64(time.Millisecond) / chains) }
		overhead := "–"
		if s != floor {
			overhead = measure.Millis((s.alone.latency.Quantile(0.5) - floor.alone.latency.Quantile(0.5)) / prompts)
		}
		table.Row(s.name, measure.Figures(chains/s.many.took.Seconds()),
			measure.Millis(s.many.latency.Quantile(0.5)), measure.Millis(s.many.latency.Quantile(0.99)),
			millis(s.many.process), millis(s.many.postgres), measure.Figures(float64(s.many.events)/chains),
			measure.Millis(s.alone.latency.Quantile(0.5)), measure.Millis(s.alone.latency.Quantile(0.99)), overhead,
			measure.Percent(max(s.many.foreign, s.alone.foreign)))
	}
	_, err := table.WriteTo(w)
	return err
}
