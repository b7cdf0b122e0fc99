package events_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
)

// read follows an execution to its end and answers the seqs it saw.
func read(t testing.TB, b *events.Broker, execution, after int64) []int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	sub, err := b.Subscribe(ctx, execution, after)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	var out []int64
	for {
		frames, err := sub.Next(ctx)
		for _, f := range frames {
			out = append(out, f.Seq)
		}
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Errorf("after %d events: %v", len(out), err)
			return out
		}
	}
}

func upTo(n int64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(i + 1)
	}
	return out
}

// Whoever subscribes, whenever and behind whatever cursor, sees what is stored
// behind it, each event once and in order, with rings of any size.
func TestEverySubscriberSeesTheLog(t *testing.T) {
	t.Parallel()
	const total = 2000
	for _, ring := range []int{1, 7, 100, 10 * total} {
		t.Run(fmt.Sprint("ring=", ring), func(t *testing.T) {
			t.Parallel()
			m := newMemory(1)
			log, broker := start(t, m, events.LogConfig{}, events.BrokerConfig{RingFrames: ring, PageRows: 13, RingBytes: 1 << 30})
			w := log.Writer(1, 1, 0, nil)
			defer w.Close()
			var readers sync.WaitGroup
			for range 20 {
				readers.Go(func() {
					head, err := m.Heads(t.Context(), []int64{1})
					if err != nil {
						t.Error(err)
					}
					after := rand.Int64N(head[1].LastSeq + 1)
					if diff := cmp.Diff(upTo(total)[after:], read(t, broker, 1, after)); diff != "" {
						t.Errorf("from %d: %s", after, diff)
					}
				})
				for range total / 20 / 5 {
					var drafts []events.Draft
					for n := range 5 {
						drafts = append(drafts, progress(n))
					}
					if last := w.Seq() + 5; last == total {
						drafts[4] = done()
					}
					if err := w.Append(batch(drafts...)).Wait(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			readers.Wait()
			if diff := cmp.Diff(upTo(total), read(t, broker, 1, 0)); diff != "" {
				t.Errorf("afterwards: %s", diff)
			}
			if n := broker.Subscribers(); n != 0 {
				t.Errorf("%d subscribers are left", n)
			}
		})
	}
}

func TestLiveReadersDoNotReadTheStore(t *testing.T) {
	t.Parallel()
	m := newMemory(1)
	log, broker := start(t, m, events.LogConfig{}, events.BrokerConfig{})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	sub, err := broker.Subscribe(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	for n := range 500 {
		if err := w.Append(batch(progress(n))).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if frames, err := sub.Next(t.Context()); err != nil || len(frames) != 1 {
			t.Fatalf("frames %d, error %v", len(frames), err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pages != 0 {
		t.Errorf("%d pages were read for a reader that kept up", m.pages)
	}
}

func TestSubscribeErrors(t *testing.T) {
	t.Parallel()
	m := newMemory(1, 2, 3)
	log, broker := start(t, m, events.LogConfig{}, events.BrokerConfig{})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	if err := w.Append(batch(progress(0), done())).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Subscribe(t.Context(), 99, 0); !errors.Is(err, events.ErrNotFound) {
		t.Errorf("unknown execution: %v", err)
	}
	if _, err := broker.Subscribe(t.Context(), 1, 3); !errors.Is(err, events.ErrFutureCursor) {
		t.Errorf("future cursor: %v", err)
	}
	sub, err := broker.Subscribe(t.Context(), 1, 2)
	if err != nil || !sub.Ended() {
		t.Fatalf("at the end: %v, ended %v", err, sub.Ended())
	}
	if _, _, err := sub.Poll(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	sub.Close()
	sub.Close() // twice is once

	gone := log.Writer(2, 1, 0, nil)
	if err := gone.Append(batch(progress(0), progress(1), progress(2), done())).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone.Close() // and with it the ring
	m.mu.Lock()
	m.logs[2].first, m.logs[2].records = 3, m.logs[2].records[2:]
	m.mu.Unlock()
	sub, err = broker.Subscribe(t.Context(), 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if _, _, err := sub.Poll(t.Context()); !errors.Is(err, events.ErrGone) {
		t.Errorf("history that is gone: %v", err)
	}
}

// What another process writes is seen with the next poll.
func TestRemoteExecutionIsPolled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1)
		here := events.NewBroker(m, events.BrokerConfig{Poll: time.Second})
		there := events.NewBroker(m, events.BrokerConfig{})
		log := events.NewLog(m, there, events.LogConfig{})
		w := log.Writer(1, 1, 0, nil)
		sub, err := here.Subscribe(t.Context(), 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 5 {
			begin := time.Now()
			if err := w.Append(batch(progress(n))).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			frames, err := sub.Next(t.Context())
			if err != nil || len(frames) != 1 || frames[0].Seq != int64(n+1) {
				t.Fatalf("frames %v, error %v", frames, err)
			}
			if d := time.Since(begin); d > time.Second {
				t.Errorf("seen after %v", d)
			}
		}
		sub.Close()
		w.Close()
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		there.Close()
		here.Close()
	})
}

func TestDrainEndsSubscriptions(t *testing.T) {
	t.Parallel()
	m := newMemory(1)
	broker := events.NewBroker(m, events.BrokerConfig{})
	sub, err := broker.Subscribe(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	ended := make(chan error)
	go func() {
		_, err := sub.Next(context.Background())
		ended <- err
	}()
	broker.Close()
	if err := <-ended; !errors.Is(err, events.ErrClosed) {
		t.Errorf("a waiting reader got %v", err)
	}
	if _, err := broker.Subscribe(t.Context(), 1, 0); !errors.Is(err, events.ErrClosed) {
		t.Errorf("a new reader got %v", err)
	}
	broker.Close() // twice is once
}

// The ring is bounded however long an execution gets.
func TestRingIsBounded(t *testing.T) {
	t.Parallel()
	m := newMemory(1)
	log, broker := start(t, m, events.LogConfig{}, events.BrokerConfig{RingFrames: 10})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	for n := range 1000 {
		if err := w.Append(batch(progress(n))).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sub, err := broker.Subscribe(t.Context(), 1, 1000-20)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if _, _, err := sub.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := m.pages
	late, err := broker.Subscribe(t.Context(), 1, 1000-21)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, _, err := late.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.pages == before {
		t.Error("more than twice the bound is kept in memory")
	}
}
