package replica_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/replica"
)

// An execution that is triggered on a process without workers runs on the other
// one and is seen on both, word by word, though nobody ever polls.
func TestReplicasWithoutPolls(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	g := newGated()
	edge := start(t, "edge", options{database: database, poll: never})
	start(t, "worker", options{database: database, workers: 5, poll: never, models: g.entry()})
	id := edge.trigger(edge.chain(gatedChain))
	seen, text := texts(t)
	journal := edge.follow(id, seen)
	for n := range 20 {
		word := fmt.Sprintf("word %d ", n)
		g.say(t, word)
		if got := wait(t, "the word", text); got != word {
			t.Fatalf("text %q, want %q", got, word)
		}
	}
	close(g.words)
	edge.sameLogs(id, journal)
}

// A cancel that is asked of one process stops the execution on the other at
// once, and its end is seen here.
func TestCancelAcrossReplicas(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	g := newGated()
	edge := start(t, "edge", options{database: database, poll: never})
	start(t, "worker", options{database: database, workers: 5, poll: never, models: g.entry()})
	id := edge.trigger(edge.chain(gatedChain))
	seen, text := texts(t)
	journal := edge.follow(id, seen)
	g.say(t, "part of an answer")
	wait(t, "the word", text)
	begin := time.Now()
	if _, err := edge.exec.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the call", g.closed)
	t.Logf("the model's connection was closed after %v", time.Since(begin))
	edge.sameLogs(id, journal)
	t.Logf("the terminal event was seen after %v", time.Since(begin))
	ex, err := edge.store.Execution(t.Context(), id)
	if err != nil || ex.Status != executor.StatusCancelled {
		t.Errorf("status %s, error %v", ex.Status, err)
	}
	states, err := edge.store.PromptStates(t.Context(), id)
	if err != nil || states[id][0].Output != "part of an answer" {
		t.Errorf("states %+v, error %v", states, err)
	}
	if _, err := edge.exec.Cancel(t.Context(), id); err != nil {
		t.Errorf("cancelling twice: %v", err)
	}
}

// deaf is a transport that carries nothing.
type deaf struct{}

func (deaf) Send(context.Context, []byte) error { return nil }

func (deaf) Listen(ctx context.Context, _ func([]byte), _ func()) { <-ctx.Done() }

func (deaf) Close() {}

// Without any hint everything still happens, with the polls.
func TestReplicasWithoutHints(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	g := newGated()
	const poll = 100 * time.Millisecond
	edge := start(t, "edge", options{database: database, poll: poll, transport: deaf{}})
	start(t, "worker", options{database: database, workers: 5, poll: poll, transport: deaf{}, models: g.entry()})
	v := edge.chain(gatedChain)
	id := edge.trigger(v)
	seen, text := texts(t)
	journal := edge.follow(id, seen)
	for n := range 5 {
		word := fmt.Sprintf("word %d ", n)
		g.say(t, word)
		if got := wait(t, "the word", text); got != word {
			t.Fatalf("text %q, want %q", got, word)
		}
	}
	if _, err := edge.exec.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the call", g.closed)
	edge.sameLogs(id, journal)
}

// noisy is a transport that loses, repeats, delays, garbles and invents.
type noisy struct {
	replica.Transport
	dice chan int // random numbers below 100
}

func newNoisy(t *testing.T, inner replica.Transport) *noisy {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	n := &noisy{Transport: inner, dice: make(chan int)}
	go func() {
		for {
			select {
			case n.dice <- r.IntN(100):
			case <-t.Context().Done():
				return
			}
		}
	}()
	return n
}

func (n *noisy) Send(ctx context.Context, message []byte) error {
	dice := 0
	select {
	case dice = <-n.dice:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case dice < 30:
		return nil // lost
	case dice < 45:
		if err := n.Transport.Send(ctx, message); err != nil {
			return err
		}
	case dice < 60:
		message[dice%len(message)] ^= byte(1 + dice%7)
	case dice < 75:
		message = []byte("1 nobody all")
	case dice < 90:
		message = []byte("1 nobody queue grown:1,1,1,1,1 cancel:1,1,1,1,1")
	}
	return n.Transport.Send(ctx, message)
}

// However badly hints are carried, every subscriber on every process sees each
// event once and in order, every execution runs once, and none is cancelled by
// a message alone.
func TestReplicasWithNoise(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	var processes []*process
	for i := range 3 {
		name := fmt.Sprint("process ", i)
		carrier := newNoisy(t, listenNotify(t, postgres.HintsConfig{URL: database}))
		processes = append(processes, start(t, name, options{database: database, workers: 4, poll: 50 * time.Millisecond, transport: carrier}))
	}
	v := processes[0].chain(`
name: noise
prompts:
  - {name: A, position: 1, model: offline/echo, content: "Tell me about deltas."}
  - {name: B, position: 2, model: offline/echo, content: "Expand ${a}"}
  - {name: C, position: 2, model: offline/echo, content: "Contrast ${a}"}
`)
	for n := range 20 {
		id := processes[n%3].trigger(v)
		processes[0].sameLogs(id, processes[0].follow(id, nil), processes[1].follow(id, nil), processes[2].follow(id, nil))
		if ex, err := processes[0].store.Execution(t.Context(), id); err != nil || ex.Status != executor.StatusCompleted || ex.Epoch != 1 {
			t.Errorf("execution %d is %s, epoch %d, error %v", id, ex.Status, ex.Epoch, err)
		}
	}
}

// A listener whose connection is terminated comes back, and with it the hints.
func TestListenerIsKilled(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	g := newGated()
	edge := start(t, "edge", options{database: database, poll: never})
	worker := start(t, "worker", options{database: database, workers: 5, poll: never, models: g.entry()})
	id := edge.trigger(edge.chain(gatedChain))
	seen, text := texts(t)
	journal := edge.follow(id, seen)
	g.say(t, "before ")
	wait(t, "the word", text)
	admin := pgtest.Connect(t, database)
	for range 3 {
		var killed int
		if err := admin.QueryRow(t.Context(), `
			SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
			 WHERE datname = current_database() AND application_name = 'chainstream listener'`).Scan(&killed); err != nil || killed == 0 {
			t.Fatalf("%d listeners killed, error %v", killed, err)
		}
		// What is said meanwhile is seen as soon as somebody listens again.
		g.say(t, "meanwhile ")
		wait(t, "the word", text)
		g.say(t, "after ")
		wait(t, "the word", text)
	}
	edge.logs.await(t, "hints of other servers are heard again")
	worker.logs.await(t, "is replaced")
	close(g.words)
	edge.sameLogs(id, journal)
}

// A listener whose packets get lost on the way is noticed and replaced; until
// then the poll shows what happens.
func TestListenerInABlackHole(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	proxy := pgtest.NewProxy(t, database)
	g := newGated()
	edge := start(t, "edge", options{database: database, poll: time.Second, hints: postgres.HintsConfig{
		ListenURL: proxy.URL, Ping: 200 * time.Millisecond, Timeout: 500 * time.Millisecond,
	}})
	start(t, "worker", options{database: database, workers: 5, poll: never, models: g.entry()})
	id := edge.trigger(edge.chain(gatedChain))
	seen, text := texts(t)
	journal := edge.follow(id, seen)
	g.say(t, "before ")
	wait(t, "the word", text)
	proxy.BlackHole()
	for n := range 3 {
		begin := time.Now()
		g.say(t, fmt.Sprint("dark ", n))
		wait(t, "the word", text)
		t.Logf("without hints a word was seen after %v", time.Since(begin))
	}
	edge.logs.await(t, "is replaced")
	proxy.Restore()
	edge.logs.await(t, "hints of other servers are heard again")
	close(g.words)
	edge.sameLogs(id, journal)
}
