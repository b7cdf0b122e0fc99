// Command gateway measures what a call of a model costs more when it goes through
// the server's OpenAI-compatible API.
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
POST /v1/chat/completions of the whole program, as users start it, to a fake model
behind OpenAI's API that answers at once with 20 chunks in one write, against the
same request by the same client to the fake itself. Each call through the server
is an execution: it is queued, claimed, run, and every event is stored before its
text is sent on. Each answer is read to its end and checked.

Both ways alternate. Load, model, server and PostgreSQL share the machine; the
processor time is that of the server and of its PostgreSQL.`

func main() {
	if code, isModel := fakemodel.Main(); isModel {
		os.Exit(code)
	}
	os.Exit(program.Main("gateway", about, define))
}

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

// subject is one way to make one kind of call, so many at a time.
type subject struct {
	caller   *caller
	stream   bool
	inFlight int

	first, whole      measure.Latencies
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
	parallel := []int{1, 16}
	direct, through := newCaller(model.URL, "fake", 16), newCaller("http://"+server.Addr+"/v1", "openai/fake", 16)
	var pairs [][2]*subject
	for _, stream := range []bool{true, false} {
		for _, n := range parallel {
			pairs = append(pairs, [2]*subject{{caller: direct, stream: stream, inFlight: n}, {caller: through, stream: stream, inFlight: n}})
		}
	}
	for _, c := range []*caller{direct, through} { // warm
		warm := subject{caller: c, stream: true, inFlight: 4}
		if err := warm.measure(ctx, server, time.Second); err != nil {
			return err
		}
	}
	for range c.repeats {
		for _, pair := range pairs {
			for _, s := range pair {
				if err := s.measure(ctx, server, c.take); err != nil {
					return err
				}
			}
		}
	}
	return report(w, pairs)
}

// measure makes calls one after the other, by so many clients.
func (s *subject) measure(ctx context.Context, server *rig.Server, take time.Duration) error {
	foreign, err := measure.WatchForeign()
	if err != nil {
		return err
	}
	process, postgres, err := used(server)
	if err != nil {
		return err
	}
	begin := time.Now()
	errs := make([]error, s.inFlight)
	var running sync.WaitGroup
	for i := range s.inFlight {
		running.Go(func() {
			for time.Since(begin) < take && errs[i] == nil {
				began := time.Now()
				errs[i] = s.caller.call(ctx, s.stream, func() { s.first.Add(time.Since(began), 1) })
				s.whole.Add(time.Since(began), 1)
			}
		})
	}
	running.Wait()
	s.took += time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	processAfter, postgresAfter, err := used(server)
	if err != nil {
		return err
	}
	s.process += processAfter - process
	s.postgres += postgresAfter - postgres
	share, err := foreign.Share()
	s.foreign = max(s.foreign, share)
	return err
}

// used answers the processor time of the server and of its database.
func used(server *rig.Server) (process, postgres time.Duration, err error) {
	tree, treeErr := measure.TreeCPU(server.PID)
	process, err = measure.ProcessCPU(server.PID)
	return process, tree - process, errors.Join(err, treeErr)
}

func report(w io.Writer, pairs [][2]*subject) error {
	table := measure.NewTable("answer", "at a time", "direct p50", "p99", "gateway p50", "p99", "ratio p50", "p99",
		"first token added p50", "p99", "calls/s", "CPU µs/call process", "PostgreSQL", "foreign load")
	for _, pair := range pairs {
		direct, through := pair[0], pair[1]
		name := "whole"
		added := []string{"–", "–"}
		if direct.stream {
			name = "stream"
			for i, q := range []float64{0.5, 0.99} {
				added[i] = measure.Millis(through.first.Quantile(q) - direct.first.Quantile(q))
			}
		}
		ratio := func(q float64) string {
			return measure.Figures(float64(through.whole.Quantile(q)) / float64(direct.whole.Quantile(q)))
		}
		calls := float64(through.whole.Count())
		micros := func(d time.Duration) string { return measure.Figures(float64(d.Microseconds()) / calls) }
		table.Row(name, fmt.Sprint(direct.inFlight),
			measure.Millis(direct.whole.Quantile(0.5)), measure.Millis(direct.whole.Quantile(0.99)),
			measure.Millis(through.whole.Quantile(0.5)), measure.Millis(through.whole.Quantile(0.99)),
			ratio(0.5), ratio(0.99), added[0], added[1], measure.Figures(calls/through.took.Seconds()),
			micros(through.process), micros(through.postgres), measure.Percent(max(direct.foreign, through.foreign)))
	}
	_, err := table.WriteTo(w)
	return err
}
