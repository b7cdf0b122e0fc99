package llm

import (
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Defaults of RetryPolicy.
const (
	DefaultAttempts      = 3
	DefaultBackoffBase   = 500 * time.Millisecond
	DefaultBackoffMax    = 20 * time.Second
	DefaultMaxRetryAfter = 60 * time.Second
)

// RetryPolicy says whether and when a failed call is tried again. It is the only
// place that decides so. The zero value is the default policy.
type RetryPolicy struct {
	// Attempts counts all tries, the first included. 0 is DefaultAttempts.
	Attempts int
	// Base is the longest wait before the second try; it doubles with every
	// further one up to Max. 0 is DefaultBackoffBase and DefaultBackoffMax.
	Base, Max time.Duration
	// MaxRetryAfter is the longest wait a provider may ask for that is still
	// waited for here. 0 is DefaultMaxRetryAfter.
	MaxRetryAfter time.Duration
	// Rand returns a number in [0, 1) for the jitter; nil is math/rand/v2.
	Rand func() float64
}

// Next decides after attempt tries (1 after the first) that ended in err.
//
// With retry, the caller waits for delay and calls again. The delay is random
// between zero and the doubled base (full jitter), so that callers who failed
// together do not come back together; where the provider named a time, the
// delay is that time and up to Base more.
//
// Without retry, a delay above zero means that the call is worth another try,
// but only after that time, which is longer than MaxRetryAfter: too long to hold
// a worker. It is spread over up to a tenth more, and at most a minute. A delay
// of zero means that the failure is final: the error is not an
// *Error, it is not Retryable, or the attempts are used up.
func (p RetryPolicy) Next(attempt int, err error) (delay time.Duration, retry bool) {
	var e *Error
	if !errors.As(err, &e) || !e.Retryable {
		return 0, false
	}
	attempts := orDefault(p.Attempts, DefaultAttempts)
	if e.Code == CodeUnexpectedToolCall {
		attempts = min(attempts, 2)
	}
	if attempt >= attempts {
		return 0, false
	}
	random := p.Rand
	if random == nil {
		random = rand.Float64
	}
	base := orDefault(p.Base, DefaultBackoffBase)
	switch after := e.RetryAfter; {
	case after > maxBelievableRetryAfter: // nonsense is as good as nothing
	case after > orDefault(p.MaxRetryAfter, DefaultMaxRetryAfter):
		return min(after+fraction(min(after/longSpread, maxLongSpread), random()), maxBelievableRetryAfter), false
	case after > 0:
		return after + fraction(base, random()), true
	}
	return fraction(backoffCeiling(base, orDefault(p.Max, DefaultBackoffMax), attempt), random()), true
}

// Held returns the longest delay that Next lets a caller wait for with retry.
func (p RetryPolicy) Held() time.Duration {
	base := orDefault(p.Base, DefaultBackoffBase)
	return max(orDefault(p.MaxRetryAfter, DefaultMaxRetryAfter)+base, orDefault(p.Max, DefaultBackoffMax))
}

// Long waits are spread over a part of them, so that callers who were sent away
// together do not come back together.
const (
	longSpread    = 10
	maxLongSpread = time.Minute
)

// backoffCeiling doubles base for every attempt after the first, up to limit,
// without overflowing.
func backoffCeiling(base, limit time.Duration, attempt int) time.Duration {
	ceiling := min(base, limit)
	for i := 1; i < attempt && ceiling < limit; i++ {
		if ceiling > limit/2 {
			return limit
		}
		ceiling *= 2
	}
	return ceiling
}

func fraction(d time.Duration, f float64) time.Duration {
	return time.Duration(float64(d) * f)
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// maxBelievableRetryAfter bounds what a Retry-After header may say: monthly
// quotas exist, longer waits are nonsense and are ignored.
const maxBelievableRetryAfter = 31 * 24 * time.Hour

// RetryAfter reads how long a provider asks to wait, from retry-after-ms
// (milliseconds) or else Retry-After (seconds or a date, RFC 9110 section
// 10.2.3; fractions are accepted). Values that are negative, not finite, in the
// past, longer than a month or not readable count as absent, which is 0.
func RetryAfter(header http.Header, now time.Time) time.Duration {
	if d, ok := positiveDuration(header.Get("Retry-After-Ms"), time.Millisecond); ok {
		return d
	}
	value := strings.TrimSpace(header.Get("Retry-After"))
	if d, ok := positiveDuration(value, time.Second); ok {
		return d
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if d := at.Sub(now); d > 0 && d <= maxBelievableRetryAfter {
		return d
	}
	return 0
}

func positiveDuration(value string, unit time.Duration) (time.Duration, bool) {
	n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || math.IsNaN(n) || n <= 0 || n > float64(maxBelievableRetryAfter/unit) {
		return 0, false
	}
	return time.Duration(n * float64(unit)), true
}
