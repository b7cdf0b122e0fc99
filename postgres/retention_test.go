package postgres_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/postgres"
)

// connect opens a connection of the test's own.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

// run executes statements, which may span transactions of their own.
func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

const partitions = "SELECT name || ' ' || lower_id || '-' || upper_id FROM events_partitions() ORDER BY lower_id"

// fill makes finished executions, each with one event, that were made and ended
// at a time, up to the id before last.
func fill(t *testing.T, conn *pgx.Conn, n int, ago string) {
	t.Helper()
	run(t, conn, fmt.Sprintf(`
WITH made AS (
    INSERT INTO executions (chain_id, chain_version, chain_name, inputs, total_prompts, status, last_seq, created_at, finished_at)
    SELECT (SELECT min(id) FROM chains), 1, 'c', '{}', 1, 'completed', 1, now() - interval '%[2]s', now() - interval '%[2]s' FROM generate_series(1, %[1]d)
    RETURNING id)
INSERT INTO events SELECT id, 1, gen_random_uuid(), NULL, 'main', 'execution-complete', '{}', 1, now() - interval '%[2]s' FROM made`, n, ago))
}

func appendOne(t *testing.T, s *postgres.Store, ex executor.Execution, seq int64) {
	t.Helper()
	stored, err := s.AppendEvents(t.Context(), []events.Append{{ExecutionID: ex.ID, Epoch: ex.Epoch, PrevSeq: seq - 1, Records: []events.Record{
		{Seq: seq, ID: uuid.New(), Stream: "main", Type: events.TypeProgress, Data: []byte("{}"), Time: time.Now()},
	}}})
	if err != nil || len(stored) != 1 {
		t.Fatalf("append to execution %d: %v, %v", ex.ID, stored, err)
	}
}

// A partition holds about a day of executions, keeps within its neighbours, and
// several servers may make them at once.
func TestPartitionsFollowTheRate(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	first := claimed(t, s)
	conn := connect(t, url)
	if got := list(t, url, partitions); len(got) < 5 || got[0] != "events_p000000000000 0-1000" {
		t.Fatalf("at first: %v", got)
	}
	before := len(list(t, url, partitions))
	run(t, conn, "INSERT INTO executions (chain_id, chain_version, chain_name, inputs, total_prompts) SELECT chain_id, 1, 'c', '{}', 1 FROM executions, generate_series(1, 20499)")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := s.EnsurePartitions(t.Context(), 10_000); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := list(t, url, partitions)
	if last := got[len(got)-1]; !strings.HasSuffix(last, "-63000") || len(got) > before+6 {
		t.Errorf("after a burst: %v", got[before:])
	}
	if made, err := s.EnsurePartitions(t.Context(), 10_000); err != nil || made != 0 {
		t.Errorf("again: made %d, %v", made, err)
	}
	appendOne(t, s, first, 1)
}

// Wherever ids go, an append finds or makes its partition.
func TestNoAppendLacksAPartition(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	conn := connect(t, url)
	claimed(t, s)
	run(t, conn, "ALTER TABLE executions ALTER COLUMN id RESTART WITH 7654321")
	far := claimed(t, s)
	appendOne(t, s, far, 1)
	appendOne(t, s, far, 2)
	run(t, conn, "ALTER TABLE executions ALTER COLUMN id RESTART WITH 500000")
	between := claimed(t, s)
	var wg sync.WaitGroup
	for range 2 {
		if _, err := s.EnsurePartitions(t.Context(), 10_000); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	appendOne(t, s, between, 1)
	for _, id := range []int64{far.ID, between.ID} {
		if got, err := s.Events(t.Context(), id, 0, 10); err != nil || len(got) == 0 {
			t.Errorf("events of %d: %d, %v", id, len(got), err)
		}
	}
	var lower, upper, end int64
	for _, p := range list(t, url, partitions) {
		if _, err := fmt.Sscanf(p[strings.IndexByte(p, ' ')+1:], "%d-%d", &lower, &upper); err != nil || lower < end || upper <= lower {
			t.Errorf("%s after %d, %v", p, end, err)
		}
		end = upper
	}
}

const day = 24 * time.Hour

// old answers a store whose first two partitions hold executions of three days
// ago, but for the one that is still running.
func old(t *testing.T, runs bool) (s *postgres.Store, conn *pgx.Conn, url string, live executor.Execution) {
	t.Helper()
	s, url = open(t)
	ex := claimed(t, s)
	appendOne(t, s, ex, 1)
	conn = connect(t, url)
	if !runs {
		run(t, conn, "UPDATE executions SET status = 'completed', created_at = now() - interval '3 days', finished_at = now() - interval '3 days'")
	}
	fill(t, conn, 2500, "3 days")
	return s, conn, url, claimed(t, s)
}

func TestRetentionDropsWhatHasEnded(t *testing.T) {
	t.Parallel()
	for _, runs := range []bool{false, true} {
		s, _, url, live := old(t, runs)
		if got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{}); err != nil || got != (postgres.Trimmed{}) {
			t.Errorf("without a policy: %+v, %v", got, err)
		}
		if got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Keep: 30 * day}); err != nil || got != (postgres.Trimmed{}) {
			t.Errorf("under a long policy: %+v, %v", got, err)
		}
		want := 2
		if runs { // execution 1 keeps its partition
			want = 1
		}
		if got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Keep: day}); err != nil || got.Partitions != want {
			t.Errorf("running %v: %+v, %v", runs, got, err)
		}
		heads, err := s.Heads(t.Context(), []int64{1, 1500, 2400, live.ID})
		if err != nil {
			t.Fatal(err)
		}
		got := []bool{heads[1].Removed, heads[1500].Removed, heads[2400].Removed, heads[live.ID].Removed}
		if diff := cmp.Diff([]bool{!runs, true, false, false}, got); diff != "" {
			t.Errorf("running %v: %s", runs, diff)
		}
		if ex, err := s.Execution(t.Context(), 1500); err != nil || ex.Status != executor.StatusCompleted {
			t.Errorf("the execution's row: %v, %v", ex.Status, err)
		}
		if err := s.DeleteExecution(t.Context(), 1500); err != nil {
			t.Errorf("erase an execution whose events are gone: %v", err)
		}
		appendOne(t, s, live, 1)
		if got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Keep: day}); err != nil || got != (postgres.Trimmed{}) {
			t.Errorf("again: %+v, %v", got, err)
		}
	}
}

// Open transactions that have read the log hold retention back and nobody else.
// What was begun is finished when they end.
func TestOpenTransactionsDoNotStall(t *testing.T) {
	t.Parallel()
	s, conn, url, live := old(t, false)
	idle, reading := connect(t, url), connect(t, url)
	run(t, idle, "BEGIN", "SELECT count(*) FROM events")
	run(t, reading, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM events")

	turn := make(chan error, 1)
	go func() {
		_, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Keep: day})
		turn <- err
	}()
	broker := events.NewBroker(s, events.BrokerConfig{})
	defer broker.Close()
	const lockWait = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chainstream retention' AND wait_event_type = 'Lock' AND datname = current_database()"
	seq, during := int64(0), 0
	var err error
	for ended := false; !ended; {
		var waiting int
		if err := conn.QueryRow(t.Context(), lockWait).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		seq++
		appendOne(t, s, live, seq)
		sub, serr := broker.Subscribe(t.Context(), live.ID, 0)
		if serr != nil {
			t.Fatal(serr)
		}
		if frames, _, perr := sub.Poll(t.Context()); perr != nil || len(frames) == 0 {
			t.Fatalf("%d frames, %v", len(frames), perr)
		}
		sub.Close()
		if waiting > 0 {
			during++
		}
		select {
		case err = <-turn:
			ended = true
		default:
		}
	}
	if !errors.Is(err, postgres.ErrHeldBack) || during == 0 {
		t.Fatalf("%v after %d appends, %d of them while it waited", err, seq, during)
	}
	// Both may read on what they saw.
	run(t, reading, "SELECT count(*) FROM events")
	if report, err := s.LogReport(t.Context(), postgres.RetentionPolicy{Keep: day}); err != nil || report.Pending == "" {
		t.Errorf("nothing is pending: %+v, %v", report, err)
	}
	run(t, idle, "ROLLBACK")
	if _, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Keep: day}); !errors.Is(err, postgres.ErrHeldBack) {
		t.Errorf("with one of them open: %v", err)
	}
	appendOne(t, s, live, seq+1)
	run(t, reading, "COMMIT")
	if got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Keep: day}); err != nil || got.Partitions != 2 {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
}

// A crash between any two steps is repaired by the next turn, whatever the
// policy is then.
func TestInterruptedRemovalIsFinished(t *testing.T) {
	t.Parallel()
	const note = "INSERT INTO events_removed (lower_id, upper_id, partition_name) VALUES (0, 1000, 'events_p000000000000')"
	for name, begun := range map[string][]string{
		"noted":    {note},
		"detached": {note, "ALTER TABLE events DETACH PARTITION events_p000000000000 CONCURRENTLY"},
		"pending":  {note},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, conn, url, live := old(t, false)
			run(t, conn, begun...)
			keep := day
			if name == "detached" {
				keep = 0
			}
			if name == "pending" {
				keep = 0
				reader := connect(t, url)
				run(t, reader, "BEGIN", "SELECT count(*) FROM events")
				killed := connect(t, url)
				done := make(chan error, 1)
				go func() {
					_, err := killed.Exec(t.Context(), "ALTER TABLE events DETACH PARTITION events_p000000000000 CONCURRENTLY")
					done <- err
				}()
				for pending := false; !pending; {
					if err := conn.QueryRow(t.Context(), "SELECT bool_or(detach_pending) FROM events_partitions()").Scan(&pending); err != nil {
						t.Fatal(err)
					}
				}
				run(t, conn, fmt.Sprintf("SELECT pg_terminate_backend(%d)", killed.PgConn().PID()))
				if err := <-done; err == nil {
					t.Fatal("the detaching was not interrupted")
				}
				run(t, reader, "COMMIT")
			}
			heads, err := s.Heads(t.Context(), []int64{5})
			if err != nil || !heads[5].Removed {
				t.Errorf("before the repair: %+v, %v", heads[5], err)
			}
			got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Keep: keep})
			if want := 1 + int(keep/day); err != nil || got.Partitions != want { // and the other one that is due
				t.Errorf("%+v, %v, want %d", got, err, want)
			}
			if left := list(t, url, "SELECT relname FROM pg_class WHERE relname = 'events_p000000000000'"); len(left) != 0 {
				t.Error("the table is still there")
			}
			appendOne(t, s, live, 1)
		})
	}
}

func TestRetentionIsDoneOnce(t *testing.T) {
	t.Parallel()
	s, _, url, _ := old(t, false)
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for range 4 {
		wg.Go(func() {
			got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Keep: day})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			total += got.Partitions
			mu.Unlock()
		})
	}
	wg.Wait()
	if total != 2 {
		t.Errorf("%d partitions were dropped", total)
	}
}

// The text of a folded log is never lost, and replays before are the same bytes.
func TestFold(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	conn := connect(t, url)
	broker := events.NewBroker(s, events.BrokerConfig{})
	defer broker.Close()
	log := events.NewLog(s, broker, events.LogConfig{})
	long := strings.Repeat("ä€ long ", 20_000)
	now := time.Now()
	delta := func(prompt int64, attempt int, text string) events.Draft {
		return events.Draft{Payload: events.PromptDelta{PromptID: prompt, Attempt: attempt, Text: text}}
	}
	result := func(prompt int64, status string, attempt int, output string) events.PromptState {
		return events.PromptState{PromptID: prompt, Name: "P", Position: 1, Status: status, Attempt: attempt, Output: output, StartedAt: now, FinishedAt: &now}
	}
	ex := claimed(t, s)
	w := log.Writer(ex.ID, ex.Epoch, 0, nil)
	write := func(b events.Batch) {
		t.Helper()
		if err := w.Append(b).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	write(events.Batch{Events: []events.Draft{
		{Payload: events.ExecutionStart{ToolName: "c"}},
		delta(1, 1, "void "), delta(1, 1, "text"), // 2, 3: an attempt that failed
		{Payload: events.PromptRetry{PromptID: 1, Attempt: 2}},
		delta(1, 2, long[:70_001]), delta(1, 2, long[70_001:]), // 5, 6: over 64 kB
		{Payload: events.ReasoningDelta{PromptID: 1, Attempt: 2, Text: "Hm."}},
		{Payload: events.PromptComplete{PromptID: 1, Output: "cut", Attempt: 2}},
		delta(2, 1, "fail"), delta(2, 1, "ed"), // 9, 10
		{Payload: events.PromptError{PromptID: 2, Attempt: 1, Code: "x"}},
		delta(3, 1, "cancelled"), // 12
		{Payload: events.PromptError{PromptID: 3, Attempt: 1, Code: "cancelled"}},
		delta(4, 1, "nowhere else"), // 14: its result does not have it
		{Payload: events.ExecutionError{Error: "x", Code: "cancelled"}},
	}, Prompts: []events.PromptState{
		result(1, "completed", 2, long), result(2, "failed", 1, "failed"), result(3, "cancelled", 1, "cancelled"), result(4, "cancelled", 1, "now"),
	}, Outcome: events.Outcome{Status: "cancelled", FinishedAt: &now}})
	w.Close()
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	replay := func(after int64) []string {
		t.Helper()
		sub, err := broker.Subscribe(t.Context(), ex.ID, after)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		frames, _, err := sub.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, f := range frames {
			out = append(out, string(f.Wire()))
		}
		return out
	}
	before := replay(0)
	if _, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, replay(0)); diff != "" {
		t.Errorf("a turn without a policy changed the replay: %s", diff)
	}
	if got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Fold: day}); err != nil || got.Executions != 0 {
		t.Errorf("too early: %+v, %v", got, err)
	}
	run(t, conn, "UPDATE executions SET finished_at = now() - interval '2 days'")
	if report, err := s.LogReport(t.Context(), postgres.RetentionPolicy{Fold: day}); err != nil || report.FoldDue != 1 {
		t.Errorf("before: %+v, %v", report, err)
	}
	if got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Fold: day}); err != nil || got != (postgres.Trimmed{Executions: 1, Events: 7}) {
		t.Errorf("%+v, %v", got, err)
	}
	want := slices.Concat(before[:1], []string{": folded 2-3\n\n"}, before[3:4], []string{": folded 5-6\n\n"}, before[6:8],
		[]string{": folded 9-10\n\n"}, before[10:11], []string{": folded 12-12\n\n"}, before[12:])
	if diff := cmp.Diff(want, replay(0)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(slices.Concat([]string{": folded 6-6\n\n"}, before[6:8]), replay(5)[:3]); diff != "" {
		t.Errorf("from inside a fold: %s", diff)
	}
	states, err := s.PromptStates(t.Context(), ex.ID)
	if err != nil || len(states[ex.ID]) != 4 || states[ex.ID][0].Output != long || states[ex.ID][1].Output != "failed" || states[ex.ID][2].Output != "cancelled" {
		t.Errorf("results: %v", err)
	}
	if got, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Fold: day}); err != nil || got != (postgres.Trimmed{}) {
		t.Errorf("again: %+v, %v", got, err)
	}
	// A hole that is no fold is no fold in a folded log either.
	run(t, conn, "DELETE FROM events WHERE seq = 8")
	sub, err := broker.Subscribe(t.Context(), ex.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if _, _, err := sub.Poll(t.Context()); !errors.Is(err, events.ErrGone) {
		t.Errorf("a hole: %v", err)
	}
}

// A stream that pages through history while it is dropped does not look complete.
func TestStreamOfVanishingHistory(t *testing.T) {
	t.Parallel()
	s, conn, url, _ := old(t, false)
	run(t, conn, "INSERT INTO events SELECT 7, seq, gen_random_uuid(), NULL, 'main', 'progress', '{}', 1, now() FROM generate_series(2, 30) AS seq", "UPDATE executions SET last_seq = 30 WHERE id = 7")
	broker := events.NewBroker(s, events.BrokerConfig{PageRows: 10})
	defer broker.Close()
	sub, err := broker.Subscribe(t.Context(), 7, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if frames, _, err := sub.Poll(t.Context()); err != nil || len(frames) != 10 {
		t.Fatalf("%d, %v", len(frames), err)
	}
	if _, err := s.Trim(t.Context(), url, postgres.RetentionPolicy{Keep: day}); err != nil {
		t.Fatal(err)
	}
	if frames, _, err := sub.Poll(t.Context()); !errors.Is(err, events.ErrGone) {
		t.Errorf("%d frames, %v", len(frames), err)
	}
	if _, err := broker.Subscribe(t.Context(), 7, 10); !errors.Is(err, events.ErrGone) {
		t.Errorf("when it comes back: %v", err)
	}
}

// Neither policy reads all of a large table when it looks for what is due.
func TestPolicyPlans(t *testing.T) {
	t.Parallel()
	_, conn, url, _ := old(t, false)
	run(t, conn, "SELECT events_cover(100000 + n * 1000, 1000) FROM generate_series(1, 300) AS n",
		"SELECT events_cover(n * 1000, 1000) FROM generate_series(0, 30) AS n")
	fill(t, conn, 20_000, "1 hour")
	run(t, conn, "ANALYZE executions")
	plan := func(query string) string {
		return strings.Join(list(t, url, "EXPLAIN (ANALYZE, TIMING OFF) "+query), "\n")
	}
	due := plan("SELECT id FROM executions WHERE finished_at < now() - interval '90 days' AND folded_at IS NULL ORDER BY finished_at LIMIT 200")
	if !strings.Contains(due, "executions_unfolded_idx") || strings.Contains(due, "Seq Scan") {
		t.Error(due)
	}
	deltas := plan("DELETE FROM events WHERE execution_id = 5 AND event_type = 'prompt-delta'")
	if strings.Count(deltas, "events_p") > 4 || strings.Contains(deltas, "Seq Scan") {
		t.Error(deltas)
	}
	expired := plan(`SELECT p.name FROM events_partitions() p
 WHERE coalesce((SELECT e.finished_at < now() - interval '90 days' FROM executions e WHERE e.id >= p.lower_id AND e.id < p.upper_id ORDER BY e.id DESC LIMIT 1), true) IS TRUE
   AND NOT EXISTS (SELECT FROM executions e WHERE e.id >= p.lower_id AND e.id < p.upper_id AND (e.finished_at IS NULL OR e.finished_at >= now() - interval '90 days'))`)
	if !strings.Contains(expired, "executions_pkey") || strings.Contains(expired, "Seq Scan on executions") {
		t.Error(expired)
	}
}
