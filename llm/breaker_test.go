package llm_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
)

// clock is a time that moves by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// watched is a breaker with a clock and a record of its changes.
func watched(p llm.BreakerPolicy) (*llm.Breaker, *clock, *[]llm.BreakerState) {
	c, changes := newClock(), &[]llm.BreakerState{}
	return llm.NewBreaker(p, c.Now, func(s llm.BreakerState) { *changes = append(*changes, s) }), c, changes
}

// ends makes a call that ends with err.
func ends(t *testing.T, b *llm.Breaker, err error) {
	t.Helper()
	done, refused := b.Allow()
	if refused != nil {
		t.Fatalf("refused: %v", refused)
	}
	done(err)
}

var down = llm.NewError(llm.CodeUnavailable, nil)

func TestBreakerOpensAndCloses(t *testing.T) {
	t.Parallel()
	b, c, changes := watched(llm.BreakerPolicy{})
	for range llm.DefaultBreakerConsecutive - 1 {
		ends(t, b, down)
	}
	ends(t, b, nil) // in a row means in a row
	for range llm.DefaultBreakerConsecutive {
		ends(t, b, down)
	}
	done, refused := b.Allow()
	if done != nil || refused == nil || refused.Code != llm.CodeCircuitOpen || !refused.Retryable || refused.RetryAfter != llm.DefaultBreakerPause {
		t.Fatalf("open: %+v", refused)
	}
	c.add(llm.DefaultBreakerPause - time.Second)
	if _, refused := b.Allow(); refused == nil || refused.RetryAfter != time.Second {
		t.Errorf("a second before the probe: %+v", refused)
	}
	c.add(time.Second)
	if b.State() != llm.BreakerHalfOpen {
		t.Errorf("state %v", b.State())
	}
	probe, refused := b.Allow()
	if refused != nil {
		t.Fatal(refused)
	}
	for range 3 { // exactly one
		if _, refused := b.Allow(); refused == nil || refused.Code != llm.CodeCircuitOpen || refused.RetryAfter <= 0 {
			t.Errorf("beside the probe: %+v", refused)
		}
	}
	probe(down)
	if _, refused := b.Allow(); refused == nil || refused.RetryAfter != 2*llm.DefaultBreakerPause {
		t.Errorf("after a probe that failed: %+v", refused)
	}
	c.add(2 * llm.DefaultBreakerPause)
	ends(t, b, nil)
	ends(t, b, nil)
	want := []llm.BreakerState{llm.BreakerOpen, llm.BreakerHalfOpen, llm.BreakerOpen, llm.BreakerHalfOpen, llm.BreakerClosed}
	if diff := cmp.Diff(want, *changes); diff != "" {
		t.Error(diff)
	}
	for range llm.DefaultBreakerConsecutive {
		ends(t, b, down)
	}
	if _, refused := b.Allow(); refused == nil || refused.RetryAfter != llm.DefaultBreakerPause {
		t.Errorf("the pause begins anew after a success: %+v", refused)
	}
}

func TestBreakerPauseIsBounded(t *testing.T) {
	t.Parallel()
	b, c, _ := watched(llm.BreakerPolicy{Consecutive: 1})
	ends(t, b, down)
	for range 10 {
		c.add(llm.DefaultBreakerPauseMax)
		ends(t, b, down)
	}
	if _, refused := b.Allow(); refused == nil || refused.RetryAfter != llm.DefaultBreakerPauseMax {
		t.Errorf("%+v", refused)
	}
}

// A probe whose caller gives up says nothing; the next call is the probe.
func TestBreakerProbeWithoutVerdict(t *testing.T) {
	t.Parallel()
	b, c, _ := watched(llm.BreakerPolicy{Consecutive: 1})
	ends(t, b, down)
	c.add(llm.DefaultBreakerPause)
	ends(t, b, llm.NewError(llm.CodeCancelled, nil))
	if b.State() != llm.BreakerHalfOpen {
		t.Errorf("state %v", b.State())
	}
	ends(t, b, nil)
	if b.State() != llm.BreakerClosed {
		t.Errorf("state %v", b.State())
	}
}

// What began before the breaker opened says nothing about the time after.
func TestBreakerIgnoresOlderCalls(t *testing.T) {
	t.Parallel()
	b, c, _ := watched(llm.BreakerPolicy{Consecutive: 1})
	old, refused := b.Allow()
	if refused != nil {
		t.Fatal(refused)
	}
	ends(t, b, down)
	old(nil)
	if b.State() != llm.BreakerOpen {
		t.Errorf("state %v after an old success", b.State())
	}
	c.add(llm.DefaultBreakerPause)
	probe, refused := b.Allow()
	if refused != nil {
		t.Fatal(refused)
	}
	old(down)
	probe(nil)
	probe(down) // only the first verdict counts
	if b.State() != llm.BreakerClosed {
		t.Errorf("state %v", b.State())
	}
}

func TestBreakerRatio(t *testing.T) {
	t.Parallel()
	b, c, _ := watched(llm.BreakerPolicy{})
	half := func(pairs int) {
		for range pairs {
			ends(t, b, nil)
			ends(t, b, down)
		}
	}
	half(llm.DefaultBreakerCalls/2 - 1)
	c.add(llm.DefaultBreakerWindow) // these are forgotten
	half(llm.DefaultBreakerCalls/2 - 1)
	if b.State() != llm.BreakerClosed {
		t.Fatalf("state %v before %d calls in a window", b.State(), llm.DefaultBreakerCalls)
	}
	half(1)
	if b.State() != llm.BreakerOpen {
		t.Errorf("state %v after half of the calls have failed", b.State())
	}
}

// Which ends of a call speak against the provider.
func TestBreakerVerdicts(t *testing.T) {
	t.Parallel()
	status := func(n int) error { return llm.StatusError(n, nil, time.Time{}) }
	tests := map[string]struct {
		err  error
		sick bool
	}{
		"500": {status(500), true}, "502": {status(502), true}, "503": {status(503), true}, "529": {status(529), true},
		"400": {status(400), false}, "401": {status(401), false}, "404": {status(404), false}, "408": {status(408), false},
		"409": {status(409), false}, "429": {status(429), false},
		"connection":     {llm.NewError(llm.CodeConnectionFailed, nil), true},
		"first byte":     {llm.NewError(llm.CodeTimeoutFirstByte, nil), true},
		"idle":           {llm.NewError(llm.CodeTimeoutIdle, nil), true},
		"truncated":      {llm.NewError(llm.CodeTruncatedStream, nil), true},
		"in the stream":  {llm.NewError(llm.CodeOverloaded, nil), true},
		"total":          {llm.NewError(llm.CodeTimeoutTotal, nil), false},
		"cancelled":      {llm.NewError(llm.CodeCancelled, nil), false},
		"filtered":       {llm.NewError(llm.CodeContentFiltered, nil), false},
		"another's open": {llm.NewError(llm.CodeCircuitOpen, nil), false},
		"foreign":        {errors.New("the log is closed"), false},
		"success":        {nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _, _ := watched(llm.BreakerPolicy{Consecutive: 1})
			ends(t, b, tt.err)
			if got := b.State() == llm.BreakerOpen; got != tt.sick {
				t.Errorf("opens: %t, want %t", got, tt.sick)
			}
		})
	}
}

func TestBreakerThatNeverOpens(t *testing.T) {
	t.Parallel()
	b, _, _ := watched(llm.BreakerPolicy{Consecutive: -1})
	for range 100 {
		ends(t, b, down)
	}
}

// However many ask at the same moment, one probes.
func TestBreakerRace(t *testing.T) {
	t.Parallel()
	b, c, _ := watched(llm.BreakerPolicy{Consecutive: 1})
	ends(t, b, down)
	c.add(llm.DefaultBreakerPause)
	var wait sync.WaitGroup
	var mu sync.Mutex
	let := 0
	for range 100 {
		wait.Go(func() {
			if _, refused := b.Allow(); refused == nil {
				mu.Lock()
				let++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if let != 1 {
		t.Errorf("%d probes", let)
	}
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	c := newClock()
	b := llm.NewRetryBudget(c.Now)
	take := func() (n int) {
		for b.Take() {
			n++
		}
		return n
	}
	if n := take(); n != 10 {
		t.Errorf("the reserve is %d", n)
	}
	for range 100 {
		b.Earn()
	}
	if n := take(); n != 10 {
		t.Errorf("100 first tries earn %d", n)
	}
	for range 100_000 {
		b.Earn()
	}
	if n := take(); n != 100 {
		t.Errorf("%d were saved up", n)
	}
	c.add(25 * time.Second)
	if n := take(); n != 2 {
		t.Errorf("%d came back after 25 s", n)
	}
	c.add(5 * time.Second)
	if n := take(); n != 1 {
		t.Errorf("%d came back after 30 s", n)
	}
	c.add(time.Hour)
	if n := take(); n != 10 {
		t.Errorf("%d came back after an hour", n)
	}
}
