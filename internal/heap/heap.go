// Package heap keeps the garbage collector of a server from running all the
// time while there is next to nothing to keep.
//
// Left to itself the collector runs whenever the heap has doubled. A server of
// event streams keeps a few megabytes and makes tens of megabytes of garbage a
// second, so that it would be collected ten times a second and more, and spend a
// third of its processor time on that.
package heap

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// DefaultFloor is how far the heap of a server may grow without being
// collected, in bytes.
const DefaultFloor = 32 << 20

// Percents of the collector: Go's own, and the one of which the heap's least
// size, 4 MiB at GOGC=100, is the floor.
const (
	goPercent  = 100
	goLeastMiB = 4
)

// Floor lets the heap grow to so many bytes before it is collected; a heap that
// has to be larger than half of that is treated as Go does by itself. It leaves
// the collector alone where the operator has set GOGC or GOMEMLIMIT. stop ends
// it.
func Floor(bytes uint64, getenv func(string) string) (stop func()) {
	if getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	f := &floor{bytes: bytes, percent: goPercent}
	f.watch()
	return f.stop
}

// floor is adjusted after every collection.
type floor struct {
	bytes uint64

	mu      sync.Mutex
	percent int // what the collector is set to
	stopped bool
}

// marker is garbage from the start: its cleanup tells of a collection.
type marker struct{ _ *marker }

// watch adjusts now and after the next collection.
func (f *floor) watch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return
	}
	runtime.AddCleanup(new(marker), (*floor).watch, f)
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	live := samples[0].Value.Uint64()
	percent := Percent(f.bytes, live, live+samples[1].Value.Uint64()+samples[2].Value.Uint64())
	// Setting it stops the world for a moment, which a small change is not worth.
	if change := percent - f.percent; change > f.percent/8 || change < -f.percent/8 {
		f.set(percent)
	}
}

func (f *floor) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.set(goPercent)
}

func (f *floor) set(percent int) {
	debug.SetGCPercent(percent)
	f.percent = percent
}

// Percent answers the GOGC with which a heap of so many live bytes is collected
// at the floor, and 100 where that would be sooner. scanned is what the
// collector counts as work: the live bytes, the stacks and the globals.
func Percent(floor, live, scanned uint64) int {
	most := floor / (goLeastMiB << 20) * goPercent
	if live >= floor || scanned == 0 {
		return goPercent
	}
	return int(max(min((floor-live)*100/scanned, most), goPercent))
}
