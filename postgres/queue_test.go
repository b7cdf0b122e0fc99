package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

// limited stores a chain with a limit of executions at once; 0 is none.
func limited(t *testing.T, s *postgres.Store, name string, concurrency int) *chain.Version {
	t.Helper()
	v, err := s.CreateChain(t.Context(), plain(t, name, concurrency))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func plain(t *testing.T, name string, concurrency int) *chain.Chain {
	t.Helper()
	document := "name: " + name + "\nprompts: [{name: A, model: offline/echo, content: a}]\n"
	if concurrency > 0 {
		document += fmt.Sprintf("limits: {concurrency: %d}\n", concurrency)
	}
	c, err := chain.Parse([]byte(document), chain.FormatYAML)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// enqueue queues n executions.
func enqueue(t *testing.T, s *postgres.Store, v *chain.Version, n, priority int) {
	t.Helper()
	for range n {
		if _, _, err := s.Enqueue(t.Context(), executor.Trigger{Version: v, Priority: priority}); err != nil {
			t.Fatal(err)
		}
	}
}

// flood queues executions by the thousand.
func flood(t *testing.T, conn *pgx.Conn, v *chain.Version, n int) {
	t.Helper()
	change(t, conn, `INSERT INTO executions (chain_id, chain_version, chain_name, inputs, total_prompts)
		SELECT $1, $2, 'flood', '{}', 1 FROM generate_series(1, $3)`, v.ChainID, v.Version, n)
}

func change(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// claim answers the chains of what is claimed, sorted.
func claim(t *testing.T, s *postgres.Store, limit int) []int64 {
	t.Helper()
	list, err := s.Claim(t.Context(), "test", limit, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	chains := make([]int64, len(list))
	for i, ex := range list {
		chains[i] = ex.ChainID
	}
	slices.Sort(chains)
	return chains
}

// finish ends everything that runs.
func finish(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	change(t, conn, `UPDATE executions SET status = 'completed', finished_at = now() WHERE status = 'running'`)
}

// A chain with a long queue starves no other one, whether many are claimed at a
// time or each by itself, and the chain of which less runs goes first.
func TestClaimIsFair(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	conn := dial(t, url)
	long, short, other := limited(t, s, "long", 0), limited(t, s, "short", 0), limited(t, s, "other", 0)
	flood(t, conn, long, 10_000)
	enqueue(t, s, short, 1, 0)
	if diff := cmp.Diff([]int64{long.ChainID, long.ChainID, long.ChainID, short.ChainID}, claim(t, s, 4)); diff != "" {
		t.Errorf("one claim of four (-want +got):\n%s", diff)
	}

	// Three of the long chain run, so the others go first until they are level.
	enqueue(t, s, short, 3, 0)
	enqueue(t, s, other, 3, 0)
	if diff := cmp.Diff([]int64{short.ChainID, short.ChainID, other.ChainID, other.ChainID, other.ChainID}, claim(t, s, 5)); diff != "" {
		t.Errorf("three of the long chain and one of the short one run (-want +got):\n%s", diff)
	}

	// One worker, and whatever it runs has ended before it claims again: then the
	// chains take turns.
	finish(t, conn)
	enqueue(t, s, short, 3, 0)
	enqueue(t, s, other, 4, 0)
	turns := make(map[int64]int)
	for range 12 {
		got := claim(t, s, 1)
		turns[got[0]]++
		finish(t, conn)
	}
	if diff := cmp.Diff(map[int64]int{long.ChainID: 4, short.ChainID: 4, other.ChainID: 4}, turns); diff != "" {
		t.Errorf("twelve turns (-want +got):\n%s", diff)
	}
}

// Many lanes are looked at by their heads only, and few of them in depth: no
// claim leaves workers idle.
func TestClaimFillsItsPortion(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	conn := dial(t, url)
	flood(t, conn, limited(t, s, "long", 0), 500)
	for i := range 9 {
		enqueue(t, s, limited(t, s, fmt.Sprint("short-", i), 0), 1, 0)
	}
	got := 0
	for claims := 0; got < 509; claims++ {
		n := len(claim(t, s, 100))
		if n <= 4 || claims > 20 { // an executor takes so few for the end of the queue
			t.Fatalf("claim %d answers %d after %d", claims, n, got)
		}
		got += n
	}
}

func TestClaimByPriority(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	conn := dial(t, url)
	low, normal, high := limited(t, s, "low", 0), limited(t, s, "normal", 0), limited(t, s, "high", 0)
	enqueue(t, s, low, 2, -10)
	enqueue(t, s, normal, 2, 0)
	enqueue(t, s, high, 2, 10)
	enqueue(t, s, low, 1, 10)
	if diff := cmp.Diff([]int64{low.ChainID, high.ChainID}, claim(t, s, 2)); diff != "" {
		t.Errorf("the highest priority (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{normal.ChainID, high.ChainID}, claim(t, s, 2)); diff != "" {
		t.Errorf("the next one (-want +got):\n%s", diff)
	}

	// What waits rises by one for each minute: 19 minutes are not enough to catch
	// up with 20 levels, 20 are. It never gets ahead of the highest that waits.
	finish(t, conn)
	enqueue(t, s, high, 3, 10)
	wait := func(minutes int) {
		change(t, conn, `UPDATE executions SET created_at = clock_timestamp() - make_interval(mins => $1) WHERE status = 'queued' AND chain_id = $2`, minutes, low.ChainID)
	}
	change(t, conn, `UPDATE executions SET status = 'completed' WHERE status = 'queued' AND chain_id = $1`, normal.ChainID)
	wait(19)
	if diff := cmp.Diff([]int64{high.ChainID}, claim(t, s, 1)); diff != "" {
		t.Errorf("after 19 minutes (-want +got):\n%s", diff)
	}
	wait(20)
	if diff := cmp.Diff([]int64{low.ChainID}, claim(t, s, 1)); diff != "" {
		t.Errorf("after 20 minutes one of the other chain runs, which decides (-want +got):\n%s", diff)
	}
	wait(24 * 60)
	finish(t, conn)
	if diff := cmp.Diff([]int64{low.ChainID, high.ChainID}, claim(t, s, 2)); diff != "" {
		t.Errorf("after a day (-want +got):\n%s", diff)
	}
}

// The limit of a chain holds when several servers claim at the same moment, and
// what a dead server leaves behind counts until somebody has ended it.
func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	const limit, replicas = 5, 4
	first, url := open(t)
	v, free := limited(t, first, "limited", limit), limited(t, first, "free", 0)
	enqueue(t, first, v, 60, 0)
	enqueue(t, first, free, 60, 0)
	conn := dial(t, url)
	stores := []*postgres.Store{first}
	for range replicas - 1 {
		s, err := postgres.Open(t.Context(), postgres.Config{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		stores = append(stores, s)
	}
	running := func() (n int) {
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM executions WHERE status = 'running' AND chain_id = $1`, v.ChainID).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var total int
	for round := 0; total < 60; round++ {
		if round > 200 {
			t.Fatalf("only %d of 60 were claimed", total)
		}
		begin := make(chan struct{})
		var wait sync.WaitGroup
		var mu sync.Mutex
		claimed := 0
		for i, s := range stores {
			wait.Go(func() {
				<-begin
				list, err := s.Claim(t.Context(), fmt.Sprint("replica-", i), 7, time.Minute)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, ex := range list {
					if ex.ChainID == v.ChainID {
						claimed++
					}
				}
			})
		}
		close(begin)
		wait.Wait()
		total += claimed
		if n := running(); n > limit || n < claimed || claimed == 0 {
			t.Fatalf("round %d: %d run at once, %d claimed", round, n, claimed)
		}
		// Some end and some do not.
		change(t, conn, `UPDATE executions SET status = 'completed', finished_at = now() WHERE id IN
			(SELECT id FROM executions WHERE status = 'running' AND chain_id = $1 ORDER BY random() LIMIT $2)`, v.ChainID, 1+round%limit)
	}

	// The servers die. Their executions keep the places, and come first.
	finish(t, conn)
	enqueue(t, first, v, 10, 0)
	if got := claim(t, first, 50); len(got) < limit || running() != limit {
		t.Fatalf("claimed %d, %d run", len(got), running())
	}
	change(t, conn, `UPDATE executions SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE status = 'running' AND chain_id = $1`, v.ChainID)
	again, err := stores[1].Claim(t.Context(), "next", 50, time.Minute)
	if err != nil || running() != limit {
		t.Errorf("%d run after the takeover, %v", running(), err)
	}
	for _, ex := range again {
		if ex.ChainID == v.ChainID && ex.Epoch < 2 {
			t.Errorf("execution %d was claimed beside %d others", ex.ID, limit)
		}
	}

	// The newest version's limit counts for all that waits.
	finish(t, conn)
	if _, err := first.UpdateChain(t.Context(), v.ChainID, plain(t, "limited", 2)); err != nil {
		t.Fatal(err)
	}
	claim(t, first, 50)
	if n := running(); n != 2 {
		t.Errorf("%d run under the new limit of 2", n)
	}
	if _, err := first.UpdateChain(t.Context(), v.ChainID, plain(t, "limited", 0)); err != nil {
		t.Fatal(err)
	}
	claim(t, first, 50)
	if n := running(); n != 5 {
		t.Errorf("%d run without a limit, want all", n)
	}
}

// A chain at its limit does not hold up others, whatever their priority.
func TestLimitHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	v, free := limited(t, s, "limited", 1), limited(t, s, "free", 0)
	enqueue(t, s, v, 20, 10)
	enqueue(t, s, free, 3, -10)
	if diff := cmp.Diff([]int64{v.ChainID, free.ChainID, free.ChainID, free.ChainID}, claim(t, s, 10)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := claim(t, s, 10); len(got) != 0 {
		t.Errorf("claimed beyond the limit: %v", got)
	}
}

// A claim reads by the lanes and not by what waits, also where the statistics are
// from before a burst.
func TestClaimReadsLittle(t *testing.T) {
	t.Parallel()
	for _, chains := range []int{1, 1000} {
		for _, stale := range []bool{true, false} {
			t.Run(fmt.Sprintf("chains=%d,stale=%t", chains, stale), func(t *testing.T) {
				t.Parallel()
				conn := dial(t, pgtest.Database(t))
				fill := func(status string, n int) {
					change(t, conn, `INSERT INTO executions (chain_id, chain_version, chain_name, inputs, total_prompts, status)
						SELECT 1 + n % $1, 1, 'x', '{}', 1, $2::execution_status FROM generate_series(1, $3) n`, chains, status, n)
				}
				change(t, conn, `ALTER TABLE executions SET (autovacuum_enabled = off)`)
				change(t, conn, `INSERT INTO chains (name, version) SELECT 'c' || n, 1 FROM generate_series(1, $1) n`, chains)
				change(t, conn, `INSERT INTO chain_versions SELECT id, 1, '', '{}', '{}' FROM chains WHERE deleted_at IS NULL`)
				fill("completed", 20_000)
				if stale {
					change(t, conn, `ANALYZE executions, chains`)
				}
				fill("queued", 100_000)
				// These wait for a time that has not come, but for a few.
				change(t, conn, `INSERT INTO executions (chain_id, chain_version, chain_name, inputs, total_prompts, status, wake_at)
					SELECT 1 + n % $1, 1, 'x', '{}', 1, 'waiting', now() + CASE WHEN n % 500 = 0 THEN interval '-1 second' ELSE interval '1 hour' END
					  FROM generate_series(1, 20000) n`, chains)
				if !stale {
					change(t, conn, `ANALYZE executions, chains`)
				}
				change(t, conn, postgres.LogSettings)
				for _, portion := range []int{1, 100} {
					read, seq := buffers(t, conn, func(q *db.Queries) {
						_, _ = q.ExecutionClaim(t.Context(), db.ExecutionClaimParams{Owner: "o", Lease: time.Minute, MaxRows: int32(portion), Held: []int64{}})
					})
					t.Logf("a claim of %d reads %d pages", portion, read)
					// Some pages for each lane, and for each execution that is claimed.
					if most := 12*chains + 60*portion + 200; read > most || seq {
						t.Errorf("a claim of %d reads %d pages, at most %d expected; reads the whole table: %t", portion, read, most, seq)
					}
				}
			})
		}
	}
}

// What waits for a time is taken when it has come, before the queue, the longest
// overdue first, whatever it asks for by hand.
func TestClaimOfWaits(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	conn := dial(t, url)
	v := limited(t, s, "waits", 0)
	enqueue(t, s, v, 4, 0)
	first, err := s.Claim(t.Context(), "test", 3, time.Minute)
	if err != nil || len(first) != 3 {
		t.Fatal(len(first), err)
	}
	for i, ex := range first {
		for try, want := range []bool{true, false} { // nobody waits twice
			if waits, err := s.Wait(t.Context(), "test", ex.ID, ex.Epoch, time.Hour); err != nil || waits != want {
				t.Errorf("try %d of execution %d: %t, %v", try+1, i+1, waits, err)
			}
		}
	}
	if got, err := s.Execution(t.Context(), first[0].ID); err != nil || got.Status != executor.StatusWaiting || got.Claims != 0 || got.WakeAt == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if held, err := s.Renew(t.Context(), "test", []int64{first[0].ID}, time.Minute); err != nil || len(held) != 0 {
		t.Errorf("the lease is still held: %v, %v", held, err)
	}
	change(t, conn, `UPDATE executions SET wake_at = now() - make_interval(secs => id) WHERE id <> $1 AND status = 'waiting'`, first[0].ID)
	ids := func(list []executor.Execution) (out []int64) {
		for _, ex := range list {
			out = append(out, ex.ID)
		}
		return out
	}
	woken, err := s.Claim(t.Context(), "test", 1, time.Minute)
	if diff := cmp.Diff([]int64{first[2].ID}, ids(woken)); diff != "" || err != nil {
		t.Errorf("the longest overdue (-want +got):\n%s%v", diff, err)
	}
	if woken[0].Status != executor.StatusRunning || woken[0].WakeAt != nil || woken[0].Epoch != 2 || woken[0].Claims != 1 {
		t.Errorf("woken: %+v", woken[0])
	}
	rest, err := s.Claim(t.Context(), "test", 10, time.Minute, woken[0].ID)
	got := ids(rest)
	slices.Sort(got)
	if diff := cmp.Diff([]int64{first[1].ID, first[2].ID + 1}, got); diff != "" || err != nil {
		t.Errorf("the other one that is due, and the queue (-want +got):\n%s%v", diff, err)
	}

	// A wish to cancel makes an end of the wait, and keeps others from waiting.
	if status, err := s.RequestCancel(t.Context(), first[0].ID); err != nil || status != executor.StatusWaiting {
		t.Errorf("%s, %v", status, err)
	}
	if got, err := s.Claim(t.Context(), "test", 10, time.Minute); err != nil || len(got) != 1 || !got[0].CancelRequested {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.RequestCancel(t.Context(), woken[0].ID); err != nil {
		t.Fatal(err)
	}
	if waits, err := s.Wait(t.Context(), "test", woken[0].ID, woken[0].Epoch, time.Hour); err != nil || waits {
		t.Errorf("what is to be cancelled waits: %t, %v", waits, err)
	}
	if got, err := s.Execution(t.Context(), woken[0].ID); err != nil || got.WakeAt != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// A place of a chain is kept through a wait: nobody else gets it, and it is the
// same one afterwards.
func TestWaitKeepsItsSlot(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	conn := dial(t, url)
	v := limited(t, s, "limited", 2)
	enqueue(t, s, v, 5, 0)
	begun, err := s.Claim(t.Context(), "test", 10, time.Minute)
	if err != nil || len(begun) != 2 {
		t.Fatal(len(begun), err)
	}
	for _, ex := range begun {
		if waits, err := s.Wait(t.Context(), "test", ex.ID, ex.Epoch, time.Hour); err != nil || !waits {
			t.Fatal(waits, err)
		}
	}
	if got := claim(t, s, 10); len(got) != 0 {
		t.Errorf("%d were claimed beside two that wait", len(got))
	}
	change(t, conn, `UPDATE executions SET wake_at = now() WHERE status = 'waiting'`)
	if got := claim(t, s, 10); len(got) != 2 {
		t.Errorf("%d were claimed, want the two whose time has come", len(got))
	}
	finish(t, conn)
	if got := claim(t, s, 10); len(got) != 2 {
		t.Errorf("%d were claimed behind them", len(got))
	}
}

// buffers runs the statement of a call and answers how many pages it read, and
// whether it read all of executions.
func buffers(t *testing.T, conn *pgx.Conn, call func(q *db.Queries)) (read int, seq bool) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	statement := &recorder{}
	call(db.New(statement))
	var raw []byte
	if err := tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+statement.sql, statement.args...).Scan(&raw); err != nil {
		t.Fatal(err)
	}
	var plan []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(raw, &plan); err != nil || len(plan) != 1 {
		t.Fatalf("%v: %s", err, raw)
	}
	return plan[0].Plan.Hit + plan[0].Plan.Read, seqOnExecutions(raw)
}

// seqOnExecutions tells whether a plan has a sequential scan of executions.
func seqOnExecutions(raw []byte) bool {
	var found func(v any) bool
	found = func(v any) bool {
		switch v := v.(type) {
		case map[string]any:
			if v["Node Type"] == "Seq Scan" && v["Relation Name"] == "executions" {
				return true
			}
			for _, member := range v {
				if found(member) {
					return true
				}
			}
		case []any:
			return slices.ContainsFunc(v, found)
		}
		return false
	}
	var plan any
	return json.Unmarshal(raw, &plan) == nil && found(plan)
}

// recorder is a database that keeps the statement it is asked to run.
type recorder struct {
	db.DBTX
	sql  string
	args []any
}

func (r *recorder) Query(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
	r.sql, r.args = sql, args
	return nil, context.Canceled
}
