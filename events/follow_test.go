package events_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
)

// wire is an Announcer that gives every announcement to f.
type wire func(execution int64)

func (w wire) Grown(execution int64) { w(execution) }

// never is a poll that a test does not live to see.
const never = time.Hour

// pair is a writing and a reading process on one store.
func pair(t *testing.T, m *memory, announce wire, reading events.BrokerConfig) (*events.Log, *events.Broker) {
	t.Helper()
	log, _ := start(t, m, events.LogConfig{}, events.BrokerConfig{Announcer: announce})
	here := events.NewBroker(m, reading)
	t.Cleanup(here.Close)
	return log, here
}

// What another process writes is seen with its hint, without any poll, and up to
// the terminal event.
func TestHintShowsRemoteEvents(t *testing.T) {
	t.Parallel()
	m := newMemory(1)
	var here *events.Broker
	log, here := pair(t, m, func(id int64) { here.Hint(id) }, events.BrokerConfig{Poll: never})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	sub, err := here.Subscribe(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	var live []byte
	for n := range 50 {
		draft := progress(n)
		if n == 49 {
			draft = done()
		}
		if err := w.Append(batch(draft)).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		frames, err := sub.Next(t.Context())
		if err != nil || len(frames) != 1 || frames[0].Seq != int64(n+1) {
			t.Fatalf("frames %v, error %v", frames, err)
		}
		live = append(live, frames[0].Wire()...)
	}
	if !sub.Ended() {
		t.Error("the terminal event did not end the subscription")
	}
	if m.pages > 0 {
		t.Errorf("%d pages were read for one reader", m.pages)
	}
	var replay []byte
	for _, r := range m.stored(1) {
		replay = append(replay, events.NewFrame(r.Seq, r.Type, r.Data).Wire()...)
	}
	if diff := cmp.Diff(string(replay), string(live)); diff != "" {
		t.Errorf("the live stream is not the replay (-replay +live):\n%s", diff)
	}
}

// A crowd of readers of one remote execution costs one reading per hint, and
// not one per reader.
func TestReadersShareTheNews(t *testing.T) {
	t.Parallel()
	const readers, appends = 1000, 20
	m := newMemory(1)
	var here *events.Broker
	log, here := pair(t, m, func(id int64) { here.Hint(id) }, events.BrokerConfig{Poll: never})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	subs := make([]*events.Subscription, readers)
	for i := range subs {
		var err error
		if subs[i], err = here.Subscribe(t.Context(), 1, 0); err != nil {
			t.Fatal(err)
		}
		defer subs[i].Close()
	}
	for n := range appends {
		if err := w.Append(batch(progress(n))).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for _, sub := range subs {
			all.Go(func() {
				if frames, err := sub.Next(t.Context()); err != nil || len(frames) != 1 {
					t.Errorf("frames %d, error %v", len(frames), err)
				}
			})
		}
		all.Wait()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// One for the first subscription, and one for each hint.
	if m.news > appends+1 || m.pages > 0 {
		t.Errorf("%d readings and %d pages for %d appends", m.news, m.pages, appends)
	}
}

// A backlog that no single reading covers is read to its end.
func TestNewsOfABacklog(t *testing.T) {
	t.Parallel()
	const total = 1234
	m := newMemory(1)
	log, here := pair(t, m, func(int64) {}, events.BrokerConfig{Poll: never, RingFrames: 10})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	waiting, err := here.Subscribe(t.Context(), 1, 0) // the topic knows of nothing yet
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	drafts := make([]events.Draft, total)
	for n := range drafts {
		drafts[n] = progress(n)
	}
	drafts[total-1] = done()
	if err := w.Append(batch(drafts...)).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	here.Hint(1) // once
	if diff := cmp.Diff(upTo(total), read(t, here, 1, 0)); diff != "" {
		t.Error(diff)
	}
}

// Hints that are lost, repeated, late or invented change nothing but the time:
// what is missing comes with the poll.
func TestHintsAreOnlyHints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const total = 300
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 2))
		m := newMemory(1, 2)
		var here *events.Broker
		unreliable := func(id int64) {
			switch r.IntN(6) {
			case 0: // lost
			case 1:
				here.Hint(id, id, id)
			case 2:
				time.AfterFunc(time.Duration(r.IntN(2000))*time.Millisecond, func() { here.Hint(id) })
			case 3:
				here.Hint(2, 99, -1, 0)
			case 4:
				here.HintAll()
			default:
				here.Hint(id)
			}
		}
		log, here := pair(t, m, unreliable, events.BrokerConfig{Poll: time.Second})
		w := log.Writer(1, 1, 0, nil)
		seen := make(chan []int64)
		for range 5 {
			go func() { seen <- read(t, here, 1, 0) }()
		}
		for n := range total {
			<-time.After(time.Duration(r.IntN(100)) * time.Millisecond)
			draft := progress(n)
			if n == total-1 {
				draft = done()
			}
			if err := w.Append(batch(draft)).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			if diff := cmp.Diff(upTo(total), <-seen); diff != "" {
				t.Error(diff)
			}
		}
		w.Close()
	})
}

// The first reader of a remote execution need not wait for the poll when the
// hint of an event came before it was there.
func TestFirstReaderLooks(t *testing.T) {
	t.Parallel()
	m := newMemory(1)
	log, here := pair(t, m, func(int64) {}, events.BrokerConfig{Poll: never})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	m.afterHeads = func() { // between the reading of the head and the subscription
		if err := w.Append(batch(progress(0), done())).Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(upTo(2), read(t, here, 1, 0)); diff != "" {
		t.Error(diff)
	}
}

// Events that retention removes while somebody waits for them are reported to
// each reader.
func TestNewsThatAreGone(t *testing.T) {
	t.Parallel()
	m := newMemory(1)
	log, here := pair(t, m, func(int64) {}, events.BrokerConfig{Poll: never})
	w := log.Writer(1, 1, 0, nil)
	defer w.Close()
	sub, err := here.Subscribe(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	for m.readings() == 0 { // the one that the first subscription asks for
		<-time.After(time.Millisecond)
	}
	if err := w.Append(batch(progress(0), progress(1), done())).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.logs[1].first, m.logs[1].records = 3, m.logs[1].records[2:]
	m.mu.Unlock()
	here.Hint(1)
	if frames, err := sub.Next(t.Context()); !errors.Is(err, events.ErrGone) {
		t.Errorf("frames %v, error %v", frames, err)
	}
}
