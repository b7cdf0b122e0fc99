package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// replica starts a server on a database that other servers use as well.
func replica(ctx context.Context, t *testing.T, database string, fake *llmtest.Server, args ...string) *server {
	t.Helper()
	return serve(ctx, t, settings{env: openAI(fake), args: append([]string{"--database-url", database}, args...)})
}

// checkEpochs checks that the lease epoch never falls along a log, and ends
// where it should.
func checkEpochs(ctx context.Context, t *testing.T, conn *pgx.Conn, execution, last int64) {
	t.Helper()
	result, err := conn.Query(ctx, `SELECT lease_epoch FROM events WHERE execution_id = $1 ORDER BY seq`, execution)
	if err != nil {
		t.Fatal(err)
	}
	epochs, err := pgx.CollectRows(result, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	before := int64(1)
	for i, epoch := range epochs {
		if epoch < before {
			t.Errorf("event %d has epoch %d behind %d", i+1, epoch, before)
		}
		before = epoch
	}
	if before != last {
		t.Errorf("the log ends in epoch %d, want %d", before, last)
	}
}

// TestTakeover kills the server that runs an execution while another one stands
// by on the same database, with a client on that other one.
func TestTakeover(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	database, fake := pgtest.Database(t), fragileModel(t)
	owner := replica(ctx, t, database, fake)
	owner.createChain(ctx, t, fragileChain)
	id := owner.begin(ctx, t, "fragile", nil)
	st, err := owner.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	seen := readUntilStuck(t, st)
	other := replica(ctx, t, database, fake)
	owner.kill(ctx, t)
	begin := time.Now()
	seen = append(seen, st.drain(t)...)
	if _, err := fake.Await(ctx, 4); err != nil { // the outline, both texts, and one of them again
		t.Fatal(err)
	}
	took := time.Since(begin)
	t.Logf("taken over %s after the kill", took.Round(10*time.Millisecond))
	if took > time.Minute {
		t.Errorf("the takeover took %s", took)
	}
	rest, err := other.follow(ctx, id, int64(len(seen)))
	if err != nil {
		t.Fatal(err)
	}
	conn := connect(ctx, t, database)
	table := rows(ctx, t, conn, id)
	sameLog(t, table, append(seen, rest...))
	checkFragile(t, fake, other.execution(ctx, t, id), table)
	checkEpochs(ctx, t, conn, id, 2)
}

// TestZombie stops a server in the middle of two model calls for longer than its
// lease. When it goes on, another one has done its work: it ends its calls and
// writes nothing.
func TestZombie(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	database, fake, gate := pgtest.Database(t), llmtest.NewServer(t), make(chan struct{})
	fake.Script("outline", llmtest.Text("An ", "outline."))
	for _, name := range []string{"left", "right"} {
		fake.Script(name,
			llmtest.Reply{llmtest.Role(), llmtest.Delta("lost "), llmtest.Gate(gate), llmtest.Delta("more"), llmtest.Stall()},
			llmtest.Text("what ", "is ", name))
	}
	zombie := replica(ctx, t, database, fake)
	zombie.createChain(ctx, t, fragileChain)
	id := zombie.begin(ctx, t, "fragile", nil)
	st, err := zombie.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	readUntilStuck(t, st)
	zombie.signal(t, syscall.SIGSTOP)
	other := replica(ctx, t, database, fake)
	log := other.ends(ctx, t, id)
	close(gate) // its models have more to say when it wakes up
	zombie.signal(t, syscall.SIGCONT)
	if err := zombie.Stderr.Await(ctx, zombie.Process, "a server that has lost its execution", func(line string) bool {
		return strings.Contains(line, "execution lost to another process")
	}); err != nil {
		t.Fatal(err)
	}
	for _, call := range fake.Calls()[1:3] {
		select {
		case <-call.Gone:
		case <-ctx.Done():
			t.Errorf("the zombie's call of %s goes on", call.Request.Model)
		}
	}
	conn := connect(ctx, t, database)
	table := rows(ctx, t, conn, id)
	sameLog(t, table, log)
	checkFragile(t, fake, other.execution(ctx, t, id), table)
	checkEpochs(ctx, t, conn, id, 2)
	// A stream that was open on it all the while goes on to the same end.
	seen, err := zombie.follow(ctx, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	sameLog(t, table, seen)
	if n := fake.Count(""); n != 5 {
		t.Errorf("%d calls of models, want 5", n)
	}
}

// TestCrashLoop kills every server that runs an execution. The fourth gives it
// up, and others run on.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	database, fake := pgtest.Database(t), llmtest.NewServer(t)
	fake.Script("fatal", llmtest.Reply{llmtest.Role(), llmtest.Delta("x"), llmtest.Stall()})
	fake.Script("fine", llmtest.Text("fine"))
	conn := connect(ctx, t, database)
	var id int64
	for kill := 1; kill <= 3; kill++ {
		s := replica(ctx, t, database, fake)
		if kill == 1 {
			s.createChain(ctx, t, "name: fatal\nprompts: [{name: A, model: openai/fatal, content: a}]\n")
			s.createChain(ctx, t, "name: fine\nprompts: [{name: A, model: openai/fine, content: a}]\n")
			id = s.begin(ctx, t, "fatal", nil)
		}
		if _, err := fake.Await(ctx, kill); err != nil {
			t.Fatal(err)
		}
		s.kill(ctx, t)
		// Nobody needs to wait for the lease in each round.
		if _, err := conn.Exec(ctx, `UPDATE executions SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE id = $1`, id); err != nil {
			t.Fatal(err)
		}
	}
	last := replica(ctx, t, database, fake)
	log := last.ends(ctx, t, id)
	if d := decode(t, log[len(log)-1]); lastType(log) != "execution-error" || d.Code != "crash_loop" {
		t.Errorf("it ended with %s, %s", lastType(log), d.Code)
	}
	sameLog(t, rows(ctx, t, conn, id), log)
	checkEpochs(ctx, t, conn, id, 4)
	if fine := last.ends(ctx, t, last.begin(ctx, t, "fine", nil)); lastType(fine) != "execution-complete" {
		t.Errorf("another execution ended with %s", lastType(fine))
	}
	if n := fake.Count("fatal"); n != 3 {
		t.Errorf("the model was called %d times", n)
	}
}

// TestOneKeyOneExecution sends one trigger a hundred times at once to two
// servers, one of which is killed meanwhile. Who gets no answer asks the other.
func TestOneKeyOneExecution(t *testing.T) {
	t.Parallel()
	const requests = 100
	ctx := within(t)
	database := pgtest.Database(t)
	args := []string{"--database-url", database, "--offline-pace", "0s"}
	servers := []*server{serve(ctx, t, settings{args: args}), serve(ctx, t, settings{args: args})}
	servers[0].createChain(ctx, t, "name: once\ninputs: {topic: {type: short_text}}\nprompts: [{name: A, model: offline/echo, content: \"${topic}\"}]\n")
	send := func(ctx context.Context, s *server, topic string) (answer, error) {
		return s.do(ctx, call{
			method: http.MethodPost, path: "/api/v1/executions", body: fmt.Sprintf(`{"chain": "once", "inputs": {"topic": %q}}`, topic),
			header: map[string]string{"Idempotency-Key": "the-only-one"},
		})
	}
	var mu sync.Mutex
	answers := make(map[string]int)
	answered := make(chan struct{}, requests)
	group, gctx := errgroup.WithContext(ctx)
	for i := range requests {
		group.Go(func() error {
			a, err := send(gctx, servers[i%2], "x")
			if err != nil && i%2 == 0 { // it was killed
				a, err = send(gctx, servers[1], "x")
			}
			if err != nil {
				return err
			}
			if a.status != http.StatusAccepted {
				return fmt.Errorf("status %d: %s", a.status, a.body)
			}
			mu.Lock()
			defer mu.Unlock()
			answers[a.header.Get("Execution-Id")]++
			answered <- struct{}{}
			return nil
		})
	}
	<-answered
	servers[0].kill(ctx, t)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(answers) != 1 {
		t.Errorf("one key has several executions: %v", answers)
	}
	conn := connect(ctx, t, database)
	count := func() (n int) {
		if err := conn.QueryRow(ctx, `SELECT count(*) FROM executions`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 1 {
		t.Errorf("%d executions in the table", n)
	}
	if a, err := send(ctx, servers[1], "y"); err != nil || a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, "idempotency_key_reused") {
		t.Errorf("another request under the key: %d, %v, %s", a.status, err, a.body)
	}
	for executions, age := range []string{"71 hours 59 minutes", "72 hours 1 minute"} {
		if _, err := conn.Exec(ctx, `UPDATE idempotency_keys SET created_at = clock_timestamp() - $1::interval`, age); err != nil {
			t.Fatal(err)
		}
		if a, err := send(ctx, servers[1], "x"); err != nil || a.status != http.StatusAccepted {
			t.Errorf("after %s: %d, %v", age, a.status, err)
		}
		if n := count(); n != executions+1 {
			t.Errorf("after %s there are %d executions", age, n)
		}
	}
}
