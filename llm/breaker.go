package llm

import (
	"errors"
	"sync"
	"time"
)

// Defaults of BreakerPolicy.
const (
	DefaultBreakerConsecutive = 5
	DefaultBreakerRatio       = 0.5
	DefaultBreakerCalls       = 20
	DefaultBreakerWindow      = time.Minute
	DefaultBreakerPause       = 10 * time.Second
	DefaultBreakerPauseMax    = time.Minute
)

// BreakerPolicy says when the calls of a model are stopped. Zero fields are
// the defaults.
type BreakerPolicy struct {
	// Consecutive failures in a row open the breaker; negative = it never opens.
	Consecutive int
	// Ratio of failures among at least Calls calls within a Window opens it too.
	Ratio  float64
	Calls  int
	Window time.Duration
	// Pause is how long it stays open; it doubles with every probe that fails,
	// up to PauseMax.
	Pause, PauseMax time.Duration
}

// BreakerState is how a breaker stands.
type BreakerState int

// The states of a breaker.
const (
	BreakerClosed   BreakerState = iota // calls are made
	BreakerHalfOpen                     // one call is let through to see
	BreakerOpen                         // no calls are made
)

// String is the state for logs.
func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerHalfOpen:
		return "half-open"
	case BreakerOpen:
		return "open"
	}
	return "unknown"
}

// Breaker stops the calls of one model while its provider is sick, so that
// nobody waits for what will fail. It has no timer: what time it is, is asked
// when a call is to be made. It is safe for concurrent use.
type Breaker struct {
	policy   BreakerPolicy
	now      func() time.Time
	onChange func(BreakerState)

	mu         sync.Mutex
	state      BreakerState
	generation int64 // grows with every change, so that verdicts about older times do not count
	row        int   // failures in a row
	calls      int   // of the window
	failures   int
	windowEnds time.Time
	reopens    time.Time // when an open breaker lets a probe through
	pause      time.Duration
	probing    bool
}

// NewBreaker returns a closed breaker. onChange is called at every change of
// state, under the breaker's lock, and may be nil; so may now.
func NewBreaker(p BreakerPolicy, now func() time.Time, onChange func(BreakerState)) *Breaker {
	p.Consecutive = orDefaultSigned(p.Consecutive, DefaultBreakerConsecutive)
	if p.Ratio <= 0 {
		p.Ratio = DefaultBreakerRatio
	}
	p.Calls = orDefault(p.Calls, DefaultBreakerCalls)
	p.Window = orDefault(p.Window, DefaultBreakerWindow)
	p.Pause = orDefault(p.Pause, DefaultBreakerPause)
	p.PauseMax = max(orDefault(p.PauseMax, DefaultBreakerPauseMax), p.Pause)
	if now == nil {
		now = time.Now
	}
	return &Breaker{policy: p, now: now, onChange: onChange, pause: p.Pause}
}

// orDefaultSigned leaves negative values as they are.
func orDefaultSigned(v, def int) int {
	if v == 0 {
		return def
	}
	return v
}

// Allow asks for leave to make a call. With it, done must be called once with
// how the call ended. Without, the error has CodeCircuitOpen and says in
// RetryAfter when the next probe is due; while one is under way, whose end nobody
// knows, that is after another pause.
func (b *Breaker) Allow() (done func(err error), refused *Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.state == BreakerOpen && !now.Before(b.reopens) {
		b.change(BreakerHalfOpen)
	}
	switch {
	case b.state == BreakerOpen:
		return nil, circuitOpen(b.reopens.Sub(now))
	case b.state == BreakerHalfOpen && b.probing:
		return nil, circuitOpen(b.pause)
	case b.state == BreakerHalfOpen:
		b.probing = true
	case !now.Before(b.windowEnds):
		b.calls, b.failures, b.windowEnds = 0, 0, now.Add(b.policy.Window)
	}
	generation := b.generation
	var once sync.Once
	return func(err error) { once.Do(func() { b.done(generation, err) }) }, nil
}

func circuitOpen(wait time.Duration) *Error {
	e := NewError(CodeCircuitOpen, nil)
	e.RetryAfter = max(wait, time.Millisecond)
	return e
}

// State answers how the breaker stands now.
func (b *Breaker) State() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == BreakerOpen && !b.now().Before(b.reopens) {
		return BreakerHalfOpen
	}
	return b.state
}

// done takes the verdict of a call that was begun in a generation.
func (b *Breaker) done(generation int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if generation != b.generation || b.policy.Consecutive < 0 {
		return
	}
	v := verdictOf(err)
	if b.state == BreakerHalfOpen {
		b.probing = false
		switch v {
		case sick:
			b.pause = min(2*b.pause, b.policy.PauseMax)
			b.open()
		case sound:
			b.pause = b.policy.Pause
			b.change(BreakerClosed)
		case silent: // the next call is the probe
		}
		return
	}
	switch v {
	case silent:
		return
	case sound:
		b.row = 0
		b.calls++
	case sick:
		b.row++
		b.calls++
		b.failures++
	}
	if b.row >= b.policy.Consecutive || b.calls >= b.policy.Calls && float64(b.failures) >= b.policy.Ratio*float64(b.calls) {
		b.open()
	}
}

func (b *Breaker) open() {
	b.reopens = b.now().Add(b.pause)
	b.change(BreakerOpen)
}

func (b *Breaker) change(to BreakerState) {
	b.state = to
	b.generation++
	b.row, b.calls, b.failures, b.windowEnds, b.probing = 0, 0, 0, time.Time{}, false
	if b.onChange != nil {
		b.onChange(to)
	}
}

// verdict is what the end of a call says about the health of the provider.
type verdict int

const (
	sound  verdict = iota // it answered, if only that the request is wrong
	sick                  // it did not do its work
	silent                // nothing: the caller gave up, or the provider regulates its load
)

func verdictOf(err error) verdict {
	if err == nil {
		return sound
	}
	var e *Error
	if !errors.As(err, &e) {
		return silent
	}
	if e.Status >= 400 && e.Status < 500 && e.Code != CodeRateLimited {
		return sound // 408 and 409 are tried again, and yet somebody has answered
	}
	switch e.Code { //nolint:exhaustive // the rest are answers
	case CodeOverloaded, CodeUnavailable, CodeConnectionFailed, CodeTruncatedStream, CodeTimeoutFirstByte, CodeTimeoutIdle:
		return sick
	case CodeCancelled, CodeCircuitOpen, CodeTimeoutTotal, CodeResponseTooLarge, CodeRateLimited:
		return silent
	}
	return sound
}
