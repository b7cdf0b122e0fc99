package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/replica"
)

// bench is what the measurements share.
type bench struct {
	config
	database *rig.Database
	version  *chain.Version
}

// result sums over the repetitions of a measurement.
type result struct {
	latency           *measure.Latencies
	events            int64
	messages          int64
	took              time.Duration
	process, postgres time.Duration // processor time
	foreign           float64       // the largest share
}

// counting counts the messages that are sent.
type counting struct {
	replica.Transport
	sent *atomic.Int64
}

// Send implements replica.Transport.
func (c counting) Send(ctx context.Context, message []byte) error {
	c.sent.Add(1)
	return c.Transport.Send(ctx, message)
}

// stamped notes when appends were acknowledged.
type stamped struct {
	events.AppendStore
	began time.Time
	at    map[int64][]atomic.Int64 // by execution and seq: nanoseconds since began
}

// AppendEvents implements events.AppendStore.
func (s *stamped) AppendEvents(ctx context.Context, appends []events.Append) (map[int64]struct{}, error) {
	stored, err := s.AppendStore.AppendEvents(ctx, appends)
	now := int64(time.Since(s.began))
	for _, a := range appends {
		for _, r := range a.Records {
			s.at[a.ExecutionID][r.Seq].Store(now)
		}
	}
	return stored, err
}

// receiver gives hints to a broker.
type receiver struct{ broker *events.Broker }

// Receive implements replica.Receiver.
func (r receiver) Receive(h replica.Hint) {
	if h.All {
		r.broker.HintAll()
		return
	}
	r.broker.Hint(h.Grown...)
}

// side is one of the two servers, without HTTP and executor.
type side struct {
	store  *postgres.Store
	bus    *replica.Bus
	broker *events.Broker
}

func (b *bench) side(ctx context.Context, w way, sent *atomic.Int64) (*side, error) {
	store, err := postgres.Open(ctx, postgres.Config{URL: b.database.URL})
	if err != nil {
		return nil, err
	}
	transport, err := w.connect()
	if err != nil {
		store.Close()
		return nil, err
	}
	s := &side{store: store, bus: replica.NewBus(counting{transport, sent}, replica.Config{})}
	s.broker = events.NewBroker(store, events.BrokerConfig{Announcer: s.bus})
	s.bus.Start(receiver{s.broker})
	return s, nil
}

func (s *side) close(ctx context.Context) {
	s.broker.Close()
	s.bus.Close(ctx)
	s.store.Close()
}

// measure adds one measurement of a way to its result.
func (b *bench) measure(ctx context.Context, w way, r *result) (err error) {
	var sent atomic.Int64
	writing, err := b.side(ctx, w, &sent)
	if err != nil {
		return err
	}
	defer writing.close(ctx)
	reading, err := b.side(ctx, w, new(atomic.Int64))
	if err != nil {
		return err
	}
	defer reading.close(ctx)
	executions, err := rig.Execute(ctx, b.database.Store, b.version, b.executions)
	if err != nil {
		return err
	}
	most := int(3*b.rate*b.take.Seconds()) + 100
	store := &stamped{AppendStore: writing.store, began: time.Now(), at: make(map[int64][]atomic.Int64)}
	for _, ex := range executions {
		store.at[ex.ID] = make([]atomic.Int64, most+2)
	}
	log := events.NewLog(store, writing.broker, events.LogConfig{})
	defer func() { err = errors.Join(err, log.Close(ctx)) }()

	foreign, err := measure.WatchForeign()
	if err != nil {
		return err
	}
	process, postgresCPU, err := b.cpu()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make([]error, 2*len(executions))
	for i, ex := range executions {
		sub, err := reading.broker.Subscribe(ctx, ex.ID, 0)
		if err != nil {
			return err
		}
		all.Go(func() {
			defer sub.Close()
			errs[2*i] = follow(ctx, sub, store, r.latency)
		})
		all.Go(func() { errs[2*i+1] = b.write(ctx, log, ex, most) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	processNow, postgresNow, err := b.cpu()
	if err != nil {
		return err
	}
	share, err := foreign.Share()
	if err != nil {
		return err
	}
	r.process += processNow - process
	r.postgres += postgresNow - postgresCPU
	r.foreign = max(r.foreign, share)
	r.took += time.Since(store.began)
	r.messages += sent.Load()
	r.events = r.latency.Count()
	return nil
}

// notify sends messages through NOTIFY as fast as it goes, with two servers
// listening, and answers how many and what they cost.
func (b *bench) notify(ctx context.Context, take time.Duration) (messages int, process, postgresCPU time.Duration, err error) {
	var hints [2]*postgres.Hints
	listening, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	ready := make(chan struct{}, len(hints))
	for i := range hints {
		if hints[i], err = postgres.NewHints(postgres.HintsConfig{URL: b.database.URL}); err != nil {
			stop()
			return 0, 0, 0, err
		}
		all.Go(func() {
			hints[i].Listen(listening, func([]byte) {}, func() { ready <- struct{}{} })
			hints[i].Close()
		})
	}
	defer all.Wait()
	defer stop()
	for range hints {
		<-ready
	}
	processBefore, postgresBefore, err := b.cpu()
	if err != nil {
		return 0, 0, 0, err
	}
	message := []byte(strings.Repeat("x", notifyBytes))
	for begin := time.Now(); time.Since(begin) < take; messages++ {
		if err := hints[0].Send(ctx, message); err != nil {
			return 0, 0, 0, err
		}
	}
	process, postgresCPU, err = b.cpu()
	return messages, process - processBefore, postgresCPU - postgresBefore, err
}

// notifyBytes is about what a message about 40 executions has.
const notifyBytes = 150

// write writes the events of one execution, for the time of a measurement.
func (b *bench) write(ctx context.Context, log *events.Log, ex executor.Execution, most int) error {
	w := log.Writer(ex.ID, ex.Epoch, 0, nil)
	defer w.Close()
	end := time.Now().Add(b.take)
	mean := time.Duration(float64(time.Second) / b.rate)
	for n := 0; n < most && time.Now().Before(end); n++ {
		select {
		case <-time.After(rand.N(2 * mean)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		w.Append(events.Batch{Events: []events.Draft{{Payload: events.PromptDelta{PromptID: 1, Attempt: 1, Text: "a few words of an answer ", Offset: int64(n)}}}})
	}
	now := time.Now()
	last := w.Append(events.Batch{
		Events:  []events.Draft{{Payload: events.ExecutionComplete{Success: true}}},
		Outcome: events.Outcome{Status: string(executor.StatusCompleted), FinishedAt: &now},
	})
	return last.Wait(ctx)
}

// follow reads a log to its end and notes how long each event took.
func follow(ctx context.Context, sub *events.Subscription, store *stamped, latency *measure.Latencies) error {
	at := store.at[sub.Execution()]
	for want := int64(1); ; {
		frames, err := sub.Next(ctx)
		now := int64(time.Since(store.began))
		for _, f := range frames {
			if f.Seq != want {
				return fmt.Errorf("event %d of execution %d came as number %d", f.Seq, sub.Execution(), want)
			}
			if stored := at[f.Seq].Load(); stored > 0 {
				latency.Add(time.Duration(now-stored), 1)
			} else {
				latency.Add(0, 1) // here before the acknowledgement was there
			}
			want++
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// cpu answers the processor time of this process and of PostgreSQL so far.
func (b *bench) cpu() (process, postgres time.Duration, err error) {
	if process, err = measure.ProcessCPU(os.Getpid()); err != nil {
		return 0, 0, err
	}
	postgres, err = measure.TreeCPU(b.database.PID)
	return process, postgres, err
}
