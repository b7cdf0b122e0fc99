package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start makes a broker and a log over a store and stops them with the test.
func start(t testing.TB, m *memory, cfg events.LogConfig, bcfg events.BrokerConfig) (*events.Log, *events.Broker) {
	t.Helper()
	broker := events.NewBroker(m, bcfg)
	log := events.NewLog(m, broker, cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := log.Close(ctx); err != nil {
			t.Error(err)
		}
		broker.Close()
	})
	return log, broker
}

func progress(n int) events.Draft {
	return events.Draft{Payload: events.Progress{CurrentStep: n, TotalSteps: 100, Message: fmt.Sprint(n)}}
}

func done() events.Draft { return events.Draft{Payload: events.ExecutionComplete{Success: true}} }

func batch(drafts ...events.Draft) events.Batch { return events.Batch{Events: drafts} }

func seqs(records []events.Record) []int64 {
	var out []int64
	for _, r := range records {
		out = append(out, r.Seq)
	}
	return out
}

func TestAppendNumbersAndLinksEvents(t *testing.T) {
	t.Parallel()
	m := newMemory(7)
	clock := time.Date(2026, 11, 22, 4, 0, 0, 123456789, time.UTC)
	log, _ := start(t, m, events.LogConfig{Now: func() time.Time { return clock }}, events.BrokerConfig{})
	w := log.Writer(7, 1, 0, nil)
	defer w.Close()
	branch := events.Draft{Stream: "branch:a", Payload: events.PromptDelta{PromptID: 1, Attempt: 1, Text: "x"}}
	if err := w.Append(batch(progress(0), branch, branch, progress(1))).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := m.stored(7)
	if diff := cmp.Diff([]int64{1, 2, 3, 4}, seqs(got)); diff != "" {
		t.Fatal(diff)
	}
	if got[0].Parent.Valid {
		t.Error("the first event has a parent")
	}
	for i, parent := range map[int]int{1: 0, 2: 1, 3: 0} { // a branch hangs on main, and main goes on beside it
		if got[i].Parent.UUID != got[parent].ID {
			t.Errorf("event %d: parent is %v, want event %d", i+1, got[i].Parent, parent+1)
		}
	}
	for i := 1; i < len(got); i++ {
		if !got[i].Time.After(got[i-1].Time) {
			t.Errorf("event %d is not later than the one before, though the clock stood", i+1)
		}
	}
	var data map[string]any
	if err := json.Unmarshal(got[1].Data, &data); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"executionId": 7.0, "seq": 2.0, "eventId": got[1].ID.String(), "parentId": got[0].ID.String(), "streamId": "branch:a",
		"timestamp": "2026-11-22T04:00:00.123Z", "promptId": 1.0, "attempt": 1.0, "text": "x", "offset": 0.0,
	}
	if diff := cmp.Diff(want, data); diff != "" {
		t.Error(diff)
	}
	if v := got[1].ID.Version(); v != 7 {
		t.Errorf("event id is a UUIDv%d", v)
	}
}

func TestCommitGathersWhatArrivesMeanwhile(t *testing.T) {
	t.Parallel()
	m := newMemory(1, 2, 3, 4)
	m.gate = make(chan struct{}, 10)
	log, _ := start(t, m, events.LogConfig{Committers: 1}, events.BrokerConfig{})
	writers := make([]*events.Writer, 4)
	for i := range writers {
		writers[i] = log.Writer(int64(i+1), 1, 0, nil)
		defer writers[i].Close()
	}
	// The first append holds the committer at the gate, or travels with the
	// others; whatever came behind it shares one commit.
	var pending []*events.Pending
	for n := range 6 {
		for _, w := range writers {
			pending = append(pending, w.Append(batch(progress(n))))
		}
	}
	for range cap(m.gate) {
		m.gate <- struct{}{}
	}
	for _, p := range pending {
		if err := p.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.commits); n > 2 {
		t.Errorf("24 appends took %d commits", n)
	}
}

func TestAppendIsFenced(t *testing.T) {
	t.Parallel()
	m := newMemory(1, 2)
	log, _ := start(t, m, events.LogConfig{Committers: 1}, events.BrokerConfig{})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	if err := w.Append(batch(progress(0))).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.logs[1].epoch = 2 // somebody else has claimed it
	m.mu.Unlock()
	if err := w.Append(batch(progress(1))).Wait(t.Context()); !errors.Is(err, events.ErrFenced) {
		t.Fatalf("append of a zombie: %v", err)
	}
	m.mu.Lock()
	m.logs[1].epoch = 1
	m.mu.Unlock()
	if err := w.Append(batch(progress(1))).Wait(t.Context()); !errors.Is(err, events.ErrFenced) {
		t.Fatalf("a spent writer wrote again: %v", err)
	}
	if got := seqs(m.stored(1)); len(got) != 1 {
		t.Errorf("stored %v", got)
	}
}

func TestTerminalEventIsTheLast(t *testing.T) {
	t.Parallel()
	m := newMemory(1)
	log, _ := start(t, m, events.LogConfig{}, events.BrokerConfig{})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	if err := w.Append(batch(progress(0), done())).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(batch(progress(1))).Wait(t.Context()); !errors.Is(err, events.ErrFenced) {
		t.Errorf("append after the end: %v", err)
	}
}

// A commit whose acknowledgement is lost is neither repeated nor forgotten,
// whether it had happened or not.
func TestLostAcknowledgement(t *testing.T) {
	t.Parallel()
	for _, happened := range []bool{true, false} {
		t.Run(fmt.Sprint("happened=", happened), func(t *testing.T) {
			t.Parallel()
			m := newMemory(1, 2, 3)
			fails := 3
			m.fault = func([]events.Append) (error, bool) {
				if fails--; fails < 0 {
					return nil, false
				}
				return events.Transient(errors.New("connection reset")), happened
			}
			log, broker := start(t, m, events.LogConfig{Committers: 1}, events.BrokerConfig{})
			for id := int64(1); id <= 3; id++ {
				w := log.Writer(id, 1, 0, nil)
				defer w.Close()
				for n := range 4 {
					if err := w.Append(batch(progress(n), progress(n))).Wait(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Append(batch(done())).Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				want := []int64{1, 2, 3, 4, 5, 6, 7, 8, 9}
				if diff := cmp.Diff(want, seqs(m.stored(id))); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(want, read(t, broker, id, 0)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// One append that the database refuses must not take others with it.
func TestPoisonedAppendFailsAlone(t *testing.T) {
	t.Parallel()
	m := newMemory(1, 2, 3)
	poison := errors.New("value too large")
	m.fault = func(appends []events.Append) (error, bool) {
		for _, a := range appends {
			if a.ExecutionID == 2 {
				return poison, false
			}
		}
		return nil, false
	}
	m.gate = make(chan struct{}, 100)
	log, _ := start(t, m, events.LogConfig{Committers: 1}, events.BrokerConfig{})
	var pending []*events.Pending
	for id := int64(1); id <= 3; id++ {
		w := log.Writer(id, 1, 0, nil)
		defer w.Close()
		pending = append(pending, w.Append(batch(progress(0))))
	}
	for range 10 {
		m.gate <- struct{}{}
	}
	for i, p := range pending {
		err := p.Wait(t.Context())
		if poisoned := i == 1; errors.Is(err, poison) != poisoned || !poisoned && err != nil {
			t.Errorf("append %d: %v", i+1, err)
		}
	}
}

func TestLogWaitsForTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		begin := time.Now()
		m.fault = func([]events.Append) (error, bool) {
			if time.Since(begin) < time.Minute {
				return events.Transient(errors.New("no connection")), false
			}
			return nil, false
		}
		broker := events.NewBroker(m, events.BrokerConfig{})
		defer broker.Close()
		log := events.NewLog(m, broker, events.LogConfig{})
		w := log.Writer(1, 1, 0, nil)
		defer w.Close()
		if err := w.Append(batch(progress(0))).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 62*time.Second {
			t.Errorf("stored %v after the store went away for a minute", took)
		}
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCloseGivesUpOnADeadStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		m.fault = func([]events.Append) (error, bool) { return events.Transient(errors.New("no connection")), false }
		broker := events.NewBroker(m, events.BrokerConfig{})
		defer broker.Close()
		log := events.NewLog(m, broker, events.LogConfig{})
		w := log.Writer(1, 1, 0, nil)
		defer w.Close()
		p := w.Append(batch(progress(0)))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := log.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(t.Context()); !errors.Is(err, events.ErrClosed) {
			t.Errorf("pending append: %v", err)
		}
		if err := w.Append(batch(progress(1))).Wait(t.Context()); !errors.Is(err, events.ErrClosed) {
			t.Errorf("append after Close: %v", err)
		}
	})
}

// Branches of one execution append at once; their events interleave, but the
// numbers have no gap and each branch keeps its own order.
func TestConcurrentBranches(t *testing.T) {
	t.Parallel()
	m := newMemory(1)
	log, _ := start(t, m, events.LogConfig{}, events.BrokerConfig{})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	var wg sync.WaitGroup
	for b := range 8 {
		wg.Go(func() {
			for n := range 50 {
				d := events.Draft{Stream: fmt.Sprint("branch:", b), Payload: events.PromptDelta{PromptID: int64(b), Offset: int64(n)}}
				if err := w.Append(batch(d)).Wait(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := make(map[string]int64)
	for i, r := range m.stored(1) {
		var data struct{ Offset int64 }
		if err := json.Unmarshal(r.Data, &data); err != nil {
			t.Fatal(err)
		}
		if r.Seq != int64(i+1) || data.Offset != next[r.Stream] {
			t.Fatalf("event %d of %s: seq %d, offset %d, want %d", i+1, r.Stream, r.Seq, data.Offset, next[r.Stream])
		}
		next[r.Stream]++
	}
}
