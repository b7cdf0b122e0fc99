// Command replica measures how soon an event that one server stores reaches a
// subscriber on another.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/replica"
	"github.com/chainstream/chainstream/replica/nats"
)

const about = `
Time from the commit of an event by one server to a subscriber on another one,
with every way in which the two can be told of each other. Both are in this
process, each with connections, log, broker and bus of its own, and share a
PostgreSQL. Every execution has one subscriber on the other server and writes
its events with random pauses of the given mean; nobody waits for anybody.

The time begins when PostgreSQL has acknowledged the commit and ends when the
subscriber holds the event. Every event must reach its subscriber once and in
order. Processor time is that of both servers and of PostgreSQL for everything,
commits included; the NATS server is in this process as well. What the hints
cost is the difference to the row without.`

func main() { os.Exit(program.Main("replica", about, define)) }

// config is what is measured.
type config struct {
	executions int
	rate       float64
	take       time.Duration
	repeats    int
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	flags.IntVar(&c.executions, "executions", 200, "live executions")
	flags.Float64Var(&c.rate, "rate", 20, "events a second of each")
	flags.DurationVar(&c.take, "duration", 10*time.Second, "of each measurement")
	flags.IntVar(&c.repeats, "repeats", 2, "how often each is measured")
	return c.run
}

// way is how servers tell each other.
type way struct {
	name    string
	connect func() (replica.Transport, error)
}

func (c *config) run(ctx context.Context, w io.Writer) (err error) {
	database, err := rig.StartDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	broker, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		return fmt.Errorf("start NATS: %w", err)
	}
	broker.Start()
	defer broker.Shutdown()
	const natsWait = 10 * time.Second
	if !broker.ReadyForConnections(natsWait) {
		return errors.New("start NATS: it does not get ready")
	}
	version, err := rig.Chain(ctx, database.Store)
	if err != nil {
		return err
	}
	b := bench{config: *c, database: database, version: version}
	ways := []way{
		{"NOTIFY", func() (replica.Transport, error) { return postgres.NewHints(postgres.HintsConfig{URL: database.URL}) }},
		{"NATS", func() (replica.Transport, error) {
			return nats.Connect(nats.Config{URL: broker.ClientURL(), Subject: "bench"})
		}},
		{"none (poll)", func() (replica.Transport, error) { return dead{}, nil }},
	}
	results := make(map[string]*result)
	for range c.repeats {
		for _, way := range ways {
			if results[way.name] == nil {
				results[way.name] = &result{latency: new(measure.Latencies)}
			}
			if err := b.measure(ctx, way, results[way.name]); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
		}
	}
	fmt.Fprintf(w, "PostgreSQL %s; %d executions with %g events/s each.\n\n", database.Version, c.executions, c.rate)
	table := measure.NewTable("hints", "events/s", "p50", "p99", "longest", "messages/s", "servers µs/event", "PostgreSQL µs/event", "foreign load")
	for _, way := range ways {
		r := results[way.name]
		perEvent := func(d time.Duration) string {
			return measure.Figures(float64(d.Microseconds()) / float64(r.events))
		}
		table.Row(way.name, measure.Thousands(float64(r.events)/r.took.Seconds()), measure.Millis(r.latency.Quantile(0.5)),
			measure.Millis(r.latency.Quantile(0.99)), measure.Millis(r.latency.Quantile(1)), measure.Figures(float64(r.messages)/r.took.Seconds()),
			perEvent(r.process), perEvent(r.postgres), measure.Percent(r.foreign))
	}
	if _, err := table.WriteTo(w); err != nil {
		return err
	}
	messages, process, postgresCPU, err := b.notify(ctx, notifyTime)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	perMessage := func(d time.Duration) string { return measure.Figures(float64(d.Microseconds()) / float64(messages)) }
	fmt.Fprintf(w, "\nA message through NOTIFY, heard by two servers: %s µs in the servers, %s µs in PostgreSQL (%s messages, one after the other).\n",
		perMessage(process), perMessage(postgresCPU), measure.Thousands(float64(messages)))
	const hinted, polled = 60 * time.Millisecond, 1200 * time.Millisecond
	for i, way := range ways {
		target := hinted
		if i == len(ways)-1 {
			target = polled
		}
		verdict := "met"
		if results[way.name].latency.Quantile(0.99) > target {
			verdict = "missed"
		}
		fmt.Fprintf(w, "\nTarget of %s: p99 %v: %s", way.name, target, verdict)
	}
	fmt.Fprintln(w)
	return nil
}

// notifyTime is how long messages are sent to see what one costs.
const notifyTime = 3 * time.Second

// dead is a transport that carries nothing.
type dead struct{}

// Send implements replica.Transport.
func (dead) Send(context.Context, []byte) error { return nil }

// Listen implements replica.Transport.
func (dead) Listen(ctx context.Context, _ func([]byte), _ func()) { <-ctx.Done() }

// Close implements replica.Transport.
func (dead) Close() {}
