package measure

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Latencies is a distribution of durations, exact to about 3 %. Its methods may
// be called from several goroutines. The zero value is empty.
type Latencies struct {
	buckets [64 * steps]atomic.Int64
	count   atomic.Int64
	sum     atomic.Int64
}

// steps is how many buckets there are between a power of two and the next.
const (
	stepBits = 5
	steps    = 1 << stepBits
)

// Add counts n durations of the same length.
func (l *Latencies) Add(d time.Duration, n int) {
	ns := uint64(max(d, 0))
	l.buckets[bucket(ns)].Add(int64(n))
	l.count.Add(int64(n))
	l.sum.Add(int64(ns) * int64(n))
}

func bucket(ns uint64) int {
	if ns < steps {
		return int(ns)
	}
	shift := bits.Len64(ns) - stepBits - 1
	return shift<<stepBits + int(ns>>shift)
}

// upper answers the largest duration of a bucket.
func upper(b int) time.Duration {
	if b < 2*steps {
		return time.Duration(b)
	}
	shift := b>>stepBits - 1
	return time.Duration((uint64(b&(steps-1)|steps)+1)<<shift - 1)
}

// Count answers how many durations there are.
func (l *Latencies) Count() int64 { return l.count.Load() }

// Mean answers the mean, 0 for an empty distribution.
func (l *Latencies) Mean() time.Duration {
	n := l.count.Load()
	if n == 0 {
		return 0
	}
	return time.Duration(l.sum.Load() / n)
}

// Quantile answers the duration that the share q of all did not exceed: 0.5 is
// the median, 0.99 the 99th percentile.
func (l *Latencies) Quantile(q float64) time.Duration {
	rank := int64(math.Ceil(q * float64(l.count.Load())))
	seen := int64(0)
	for b := range l.buckets {
		if seen += l.buckets[b].Load(); seen >= rank && seen > 0 {
			return upper(b)
		}
	}
	return 0
}

// Merge adds another distribution.
func (l *Latencies) Merge(other *Latencies) {
	for b := range other.buckets {
		l.buckets[b].Add(other.buckets[b].Load())
	}
	l.count.Add(other.count.Load())
	l.sum.Add(other.sum.Load())
}
