package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/executor"
)

func question(n byte, chainID int64, documents ...int64) executor.CacheQuestion {
	return executor.CacheQuestion{Key: executor.CacheKey{n}, ChainID: chainID, PromptID: 1, Model: "test/m", Documents: documents}
}

// Of many who ask at the same moment one becomes the holder, and all others are
// told who it is. When its lease has run out, or it gives up, there is one again.
func TestCacheHolder(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	ex := claimed(t, s)
	conn := connect(t, url)
	q := question(1, ex.ChainID)
	race := func() uuid.UUID {
		t.Helper()
		var mu sync.Mutex
		var wait sync.WaitGroup
		var leads atomic.Int32
		told := make(map[uuid.UUID]int)
		for range 20 {
			wait.Go(func() {
				me := uuid.New()
				state, err := s.AskCache(t.Context(), q, me, time.Minute)
				if err != nil || state.Answer != nil {
					t.Errorf("asked: %+v, %v", state, err)
				}
				if state.Holder == me {
					leads.Add(1)
				}
				mu.Lock()
				told[state.Holder]++
				mu.Unlock()
			})
		}
		wait.Wait()
		if leads.Load() != 1 || len(told) != 1 {
			t.Fatalf("%d holders, told of %d", leads.Load(), len(told))
		}
		for holder := range told {
			return holder
		}
		return uuid.Nil
	}
	first := race()
	if err := s.ReleaseCache(t.Context(), q.Key, uuid.New()); err != nil { // a stranger
		t.Fatal(err)
	}
	if state, err := s.AskCache(t.Context(), q, uuid.New(), time.Minute); err != nil || state.Holder != first {
		t.Errorf("after a stranger's release: %+v, %v", state, err)
	}
	if err := s.ReleaseCache(t.Context(), q.Key, first); err != nil {
		t.Fatal(err)
	}
	second := race()
	run(t, conn, "UPDATE response_cache SET expires_at = clock_timestamp() + interval '50 milliseconds'")
	if err := s.RenewCache(t.Context(), map[executor.CacheKey]uuid.UUID{q.Key: first}, time.Hour); err != nil { // not its any more
		t.Fatal(err)
	}
	run(t, conn, "SELECT pg_sleep(0.1)")
	third := race()
	if second == first || third == second {
		t.Errorf("holders %s, %s, %s", first, second, third)
	}
	if err := s.RenewCache(t.Context(), map[executor.CacheKey]uuid.UUID{q.Key: third}, time.Hour); err != nil {
		t.Fatal(err)
	}
	var renewed bool
	if err := conn.QueryRow(t.Context(), "SELECT bool_and(expires_at > clock_timestamp() + interval '50 minutes') FROM response_cache").Scan(&renewed); err != nil || !renewed {
		t.Errorf("renewed: %v, %v", renewed, err)
	}
}

// An answer comes back as it was kept, wins over a holder, and is removed with
// its documents, its execution and its time.
func TestCacheAnswers(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	ex := claimed(t, s)
	conn := connect(t, url)
	cost := "0.0012"
	keep := func(n byte, ttl time.Duration, documents ...int64) {
		t.Helper()
		err := s.KeepAnswer(t.Context(), question(n, ex.ChainID, documents...), executor.CachedAnswer{
			Text: "answer", FinishReason: "stop", InputTokens: 3, OutputTokens: 4, CostUSD: &cost, ExecutionID: ex.ID, RequestID: uuid.UUID{9},
		}, ttl)
		if err != nil {
			t.Fatal(err)
		}
	}
	ask := func(n byte) *executor.CachedAnswer {
		t.Helper()
		state, err := s.AskCache(t.Context(), question(n, ex.ChainID), uuid.New(), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return state.Answer
	}
	if ask(1) != nil {
		t.Fatal("an answer before there is one")
	}
	keep(1, time.Hour, 5, 6)
	keep(2, time.Hour, 6)
	keep(3, time.Hour)
	keep(4, time.Millisecond)
	a := ask(1)
	if a == nil || a.Text != "answer" || a.FinishReason != "stop" || a.InputTokens != 3 || a.OutputTokens != 4 || a.CostUSD == nil || *a.CostUSD != cost ||
		a.ExecutionID != ex.ID || a.RequestID != (uuid.UUID{9}) || a.Age < 0 || a.Age > time.Minute {
		t.Errorf("answer %+v", a)
	}
	run(t, conn, "SELECT pg_sleep(0.01)")
	if ask(4) != nil {
		t.Error("an answer whose time is over")
	}
	if err := s.CountCacheHits(t.Context(), map[executor.CacheKey]int64{{1}: 2, {3}: 1, {77}: 5}); err != nil {
		t.Fatal(err)
	}
	var hits int
	if err := conn.QueryRow(t.Context(), "SELECT sum(hits) FROM response_cache").Scan(&hits); err != nil || hits != 3 {
		t.Errorf("%d hits, %v", hits, err)
	}
	if n, err := s.ForgetDocuments(t.Context(), 5, 99); err != nil || n != 1 || ask(1) != nil || ask(2) == nil {
		t.Errorf("%d answers forgotten, %v", n, err)
	}
	if err := s.KeepAnswer(t.Context(), question(8, ex.ChainID+1), executor.CachedAnswer{Text: "x", ExecutionID: ex.ID}, time.Hour); err == nil {
		t.Error("an answer of a chain that is not there was kept")
	}
	if err := s.KeepAnswer(t.Context(), question(8, ex.ChainID), executor.CachedAnswer{Text: "x", ExecutionID: ex.ID + 1}, time.Hour); err == nil {
		t.Error("an answer of an execution that is not there was kept")
	}
	run(t, conn, "UPDATE executions SET status = 'completed', finished_at = now()")
	if err := s.DeleteExecution(t.Context(), ex.ID); err != nil {
		t.Fatal(err)
	}
	if ask(2) != nil || ask(3) != nil {
		t.Error("the answers of an erased execution are there")
	}
}

// What has expired goes portion by portion, and only that; two servers may be at
// it at once.
func TestExpireCache(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	ex := claimed(t, s)
	conn := connect(t, url)
	run(t, conn, fmt.Sprintf(`
INSERT INTO response_cache (key, chain_id, prompt_id, model_id, expires_at, output, execution_id)
SELECT sha256(n::text::bytea), 1, 1, 'm', clock_timestamp() + (CASE WHEN n <= 2500 THEN '-1 s' ELSE '1 h' END)::interval, 'x', %d FROM generate_series(1, 2600) n;
INSERT INTO response_cache (key, chain_id, prompt_id, model_id, expires_at, holder) VALUES
    ('\x01', 1, 1, 'm', clock_timestamp() - interval '1 s', gen_random_uuid()), ('\x02', 1, 1, 'm', clock_timestamp() + interval '1 h', gen_random_uuid())`, ex.ID))
	var removed atomic.Int64
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			n, err := s.ExpireCache(context.WithoutCancel(t.Context()))
			if err != nil {
				t.Error(err)
			}
			removed.Add(n)
		})
	}
	wait.Wait()
	rest, err := s.ExpireCache(t.Context()) // what one of them held while the other looked
	if err != nil {
		t.Fatal(err)
	}
	var left int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM response_cache").Scan(&left); err != nil || left != 101 || removed.Load()+rest != 2501 {
		t.Errorf("%d removed, %d left, %v", removed.Load()+rest, left, err)
	}
}
