package replica_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chainstream/chainstream/replica"
)

// air carries messages between the buses of a test.
type air struct {
	mu       sync.Mutex
	ears     []func([]byte)
	messages []string
	times    []time.Time
	err      error
	took     time.Duration // by each message
}

// place is one process on the air.
type place struct{ *air }

func (p place) Send(ctx context.Context, message []byte) error {
	select {
	case <-time.After(p.took):
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.messages = append(p.messages, string(message))
	p.times = append(p.times, time.Now())
	for _, hear := range p.ears {
		hear(message)
	}
	return nil
}

func (p place) Listen(ctx context.Context, receive func([]byte), missed func()) {
	p.mu.Lock()
	p.ears = append(p.ears, receive)
	p.mu.Unlock()
	missed()
	<-ctx.Done()
}

func (place) Close() {}

// ear keeps what a bus hears.
type ear struct {
	mu    sync.Mutex
	heard []replica.Hint
}

func (e *ear) Receive(h replica.Hint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, h)
}

func (e *ear) take() []replica.Hint {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.heard
	e.heard = nil
	return h
}

func equal(t *testing.T, want, got []replica.Hint) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("hints (-want +got):\n%s", diff)
	}
}

// A lone hint leaves at once; many leave together, 10 ms after the message
// before. The others hear them, the sender does not.
func TestBusGathers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &air{}
		var own, other ear
		here, there := replica.NewBus(place{a}, replica.Config{}), replica.NewBus(place{a}, replica.Config{})
		here.Start(&own)
		there.Start(&other)
		synctest.Wait()
		equal(t, []replica.Hint{{All: true}}, other.take()) // what went before was not heard
		begin := time.Now()
		here.Grown(7)
		synctest.Wait()
		equal(t, []replica.Hint{{Grown: []int64{7}}}, other.take())
		if d := time.Since(begin); d > 0 {
			t.Errorf("a lone hint waited for %v", d)
		}
		for range 1000 {
			here.Grown(7)
			here.Grown(9)
			here.Queued()
			here.Cancelled(8)
		}
		synctest.Wait()
		equal(t, nil, other.take())
		<-time.After(10 * time.Millisecond)
		synctest.Wait()
		equal(t, []replica.Hint{{Grown: []int64{7, 9}, Queue: true, Cancel: []int64{8}}}, other.take())
		for range 100 {
			here.Grown(1)
			<-time.After(time.Millisecond)
		}
		synctest.Wait()
		if n := len(other.take()); n > 11 {
			t.Errorf("%d messages in 100 ms", n)
		}
		for i, at := range a.times[1:] {
			if gap := at.Sub(a.times[i]); gap < 10*time.Millisecond {
				t.Errorf("a message %v after the one before", gap)
			}
		}
		equal(t, []replica.Hint{{All: true}}, own.take())
		here.Cancelled(5) // sent by the close
		here.Close(t.Context())
		here.Close(t.Context()) // twice is once
		equal(t, []replica.Hint{{Cancel: []int64{5}}}, other.take())
		there.Close(t.Context())
	})
}

// What cannot be sent holds nobody up, grows no further than "everything", and
// is not sent in a hurry again and again.
func TestBusWithoutConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &air{err: errors.New("no connection")}
		var other ear
		here, there := replica.NewBus(place{a}, replica.Config{}), replica.NewBus(place{a}, replica.Config{})
		here.Start(&ear{})
		there.Start(&other)
		for n := range int64(100_000) {
			here.Grown(n + 1)
			if n%1000 == 0 {
				<-time.After(50 * time.Millisecond)
			}
		}
		a.mu.Lock()
		a.err = nil
		a.mu.Unlock()
		<-time.After(3 * time.Second)
		other.take()
		here.Queued()
		synctest.Wait()
		equal(t, []replica.Hint{{Queue: true}}, other.take())

		a.took = time.Hour // a connection that leads nowhere
		begin := time.Now()
		here.Grown(1)
		here.Close(t.Context())
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("closing took %v", d)
		}
		there.Close(t.Context())
	})
}

// Messages of nobody, or of another version, reach nobody.
func TestBusIgnoresNoise(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &air{}
		var e ear
		bus := replica.NewBus(place{a}, replica.Config{})
		bus.Start(&e)
		synctest.Wait()
		e.take()
		for _, noise := range []string{"", "hello", "1", "9 x all", "1 x grown:,"} {
			if err := (place{a}).Send(t.Context(), []byte(noise)); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, nil, e.take())
		bus.Close(t.Context())
	})
}
