package heap_test

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/chainstream/chainstream/internal/heap"
)

const mib = 1 << 20

func TestPercent(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		live, scanned uint64
		want          int
	}{
		"nothing collected yet":       {live: 0, scanned: mib, want: 1600},
		"a small server":              {live: 6 * mib, scanned: 8 * mib, want: 725},
		"stacks count":                {live: 6 * mib, scanned: 29 * mib, want: 200},
		"a heap that is half of it":   {live: 32 * mib, scanned: 33 * mib, want: 100},
		"a heap of the floor":         {live: 64 * mib, scanned: 70 * mib, want: 100},
		"a heap far above the floor":  {live: 900 * mib, scanned: 901 * mib, want: 100},
		"before anything was counted": {live: 0, scanned: 0, want: 100},
	}
	for name, tt := range tests {
		if got := heap.Percent(64*mib, tt.live, tt.scanned); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// The collector is the process's, so the tests of it are not parallel.
func TestFloor(t *testing.T) {
	stop := heap.Floor(64*mib, func(string) string { return "" })
	defer stop()
	collect(t, "a small heap", func(percent uint64) bool { return percent > 200 })
	large := make([]byte, 80*mib)
	collect(t, "a heap above the floor", func(percent uint64) bool { return percent < 113 })
	runtime.KeepAlive(large)
	collect(t, "a heap that is small again", func(percent uint64) bool { return percent > 200 })
	stop()
	collect(t, "after the end", func(percent uint64) bool { return percent == 100 })
}

// collect collects until the percent is as it should be.
func collect(t *testing.T, what string, good func(percent uint64) bool) {
	t.Helper()
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		runtime.GC()
		runtime.Gosched()
		if metrics.Read(sample); good(sample[0].Value.Uint64()) {
			return
		}
	}
	t.Fatalf("%s: GOGC is %d", what, sample[0].Value.Uint64())
}

func TestFloorLeavesTheOperatorsSetting(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Run(name, func(t *testing.T) {
			before := debug.SetGCPercent(77)
			t.Cleanup(func() { debug.SetGCPercent(before) })
			defer heap.Floor(64*mib, func(key string) string { return map[string]string{name: "50"}[key] })()
			if got := debug.SetGCPercent(77); got != 77 {
				t.Errorf("GOGC is %d although %s is set", got, name)
			}
		})
	}
}
