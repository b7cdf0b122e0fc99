package replica_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

// Two processes reach the database through PgBouncer in transaction mode, all
// but their listeners: trigger, run, stream, cancel and resume work, and no
// session of the database keeps a setting or a prepared statement of theirs.
func TestReplicasBehindPgBouncer(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pooled := pgtest.NewPooler(t, database)
	hints := postgres.HintsConfig{ListenURL: database}
	g := newGated()
	edge := start(t, "edge", options{database: pooled, poll: never, hints: hints})
	first := start(t, "first", options{database: pooled, workers: 5, poll: never, hints: hints, models: g.entry()})
	if !edge.store.Pooled() {
		t.Error("the pooler was not noticed")
	}
	v := edge.chain(gatedChain)

	id := edge.trigger(v)
	seen, text := texts(t)
	journal := edge.follow(id, seen)
	for n := range 20 {
		word := fmt.Sprintf("word %d ", n)
		g.say(t, word)
		if got := wait(t, "the word", text); got != word {
			t.Fatalf("text %q, want %q", got, word)
		}
	}

	// The first worker is stopped in the middle; another one resumes.
	next := newGated()
	journal2 := first.follow(id, nil)
	first.interrupt()
	start(t, "second", options{database: pooled, workers: 5, poll: 100 * time.Millisecond, hints: hints, models: next.entry()})
	next.say(t, "again")
	for wait(t, "the word", text) != "again" {
		continue
	}
	if _, err := edge.exec.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the call", next.closed)
	edge.sameLogs(id, journal, journal2)
	if ex, err := edge.store.Execution(t.Context(), id); err != nil || ex.Status != executor.StatusCancelled || ex.Epoch != 2 {
		t.Errorf("execution: %s, epoch %d, error %v", ex.Status, ex.Epoch, err)
	}

	// Whatever session the pooler gives us, it is as new.
	conn := pgtest.Connect(t, pooled+"&default_query_exec_mode=simple_protocol")
	for range 50 {
		var seqscan, plans string
		var prepared int
		if err := conn.QueryRow(t.Context(), "SELECT current_setting('enable_seqscan'), current_setting('plan_cache_mode'), (SELECT count(*) FROM pg_prepared_statements)").Scan(&seqscan, &plans, &prepared); err != nil {
			t.Fatal(err)
		}
		if seqscan != "on" || plans != "auto" || prepared > 0 {
			t.Fatalf("a session was left with enable_seqscan=%s, plan_cache_mode=%s and %d prepared statements", seqscan, plans, prepared)
		}
	}
}

// A listener that goes through the pooler by mistake is told of in a sentence,
// and everything works all the same, with the polls.
func TestListenerBehindPgBouncer(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pooled := pgtest.NewPooler(t, database)
	hints := postgres.HintsConfig{Ping: 100 * time.Millisecond, Timeout: time.Second}
	g := newGated()
	const poll = 100 * time.Millisecond
	edge := start(t, "edge", options{database: pooled, poll: poll, hints: hints})
	start(t, "worker", options{database: pooled, workers: 5, poll: poll, hints: hints, models: g.entry()})
	id := edge.trigger(edge.chain(gatedChain))
	seen, text := texts(t)
	journal := edge.follow(id, seen)
	edge.logs.await(t, "--listen-database-url")
	g.say(t, "slowly")
	wait(t, "the word", text)
	close(g.words)
	edge.sameLogs(id, journal)
}
