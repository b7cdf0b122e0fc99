package measure_test

import (
	"math"
	"testing"
	"time"

	"github.com/chainstream/chainstream/bench/internal/measure"
)

func TestLatencies(t *testing.T) {
	t.Parallel()
	var l measure.Latencies
	for i := 1; i <= 1000; i++ {
		l.Add(time.Duration(i)*time.Millisecond, 1)
	}
	tests := map[float64]time.Duration{
		0: time.Millisecond, 0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond, 1: time.Second,
	}
	for q, want := range tests {
		if got := l.Quantile(q); math.Abs(float64(got-want)) > 0.033*float64(want) {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	if got, want := l.Mean(), 500500*time.Microsecond; got != want {
		t.Errorf("mean is %v, want %v", got, want)
	}
}

func TestLatenciesExtremes(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{0, 1, 31, 32, 33, 63, 64, 65, math.MaxInt64} {
		var l measure.Latencies
		l.Add(d, 3)
		if got := l.Quantile(0.5); got < d || float64(got-d) > 0.033*float64(d) {
			t.Errorf("the median of %d is %d", d, got)
		}
	}
	var empty measure.Latencies
	if empty.Quantile(0.99) != 0 || empty.Mean() != 0 {
		t.Error("an empty distribution has figures")
	}
}

func TestLatenciesMerge(t *testing.T) {
	t.Parallel()
	var a, b measure.Latencies
	a.Add(time.Second, 2)
	b.Add(3*time.Second, 2)
	a.Merge(&b)
	if a.Count() != 4 || a.Mean() != 2*time.Second {
		t.Errorf("merged: %d of mean %v", a.Count(), a.Mean())
	}
}
