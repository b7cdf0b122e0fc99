//go:build chaos

package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chainstream/chainstream/internal/failpoint"
)

// TestFailpoints kills a server at every named point, while executions run,
// and fails where a point is never come by.
func TestFailpoints(t *testing.T) {
	d := startDatabase(t, true)
	t.Run("points", func(t *testing.T) {
		for i, point := range failpoint.Points() {
			t.Run(point.String(), func(t *testing.T) {
				t.Parallel()
				failAt(t, d, *seedFlag+uint64(i), point, "kill")
			})
		}
		t.Run("zombie", func(t *testing.T) {
			t.Parallel()
			w := failAt(t, d, *seedFlag, failpoint.AppendBefore, "stop")
			var said strings.Builder
			for _, r := range w.replicas {
				for _, record := range r.records {
					said.WriteString(record.String())
				}
			}
			if !strings.Contains(said.String(), "execution lost to another process") {
				t.Error("no server noticed that it had lost an execution")
			}
		})
	})
}

// failAt lets a server kill or stop itself at a point while executions run.
func failAt(t *testing.T, d *database, seed uint64, point failpoint.Point, action string) *world {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 8))
	w := newWorld(t, d, settings{seed: seed, replicas: 2, failpoints: true, args: []string{"--shutdown-timeout", "500ms"}})
	over := 6 * time.Second
	w.load(random, 30, over)
	for range 4 { // long calls and calls without an end, so that leases are renewed and executions cancelled
		w.errands = append(w.errands, &errand{
			chain: chainEndless, topic: fmt.Sprintf("endless %d", random.Uint64()), key: fmt.Sprintf("endless-%d", random.Uint64()), at: time.Duration(random.Int64N(int64(over / 2))),
			cancel: time.Duration(3500+random.IntN(1000)) * time.Millisecond, readers: []reader{newReader(random)},
		})
	}
	visit := 1 + random.IntN(3)
	f := fault{kind: faultFailpoint, at: 300 * time.Millisecond}
	switch point {
	case failpoint.UpkeepBefore, failpoint.UpkeepAfter: // come by at the start
		visit = 1
	}
	f.detail = fmt.Sprintf("%s=%s@%d", point, action, visit)
	faults := []fault{f}
	switch point {
	case failpoint.ReleaseBefore, failpoint.ReleaseAfter: // come by when a server is told to stop
		f.detail = point.String() + "=kill@1"
		faults = []fault{f, {kind: faultTerm, at: 4 * time.Second}}
	}
	w.run(faults, 2*time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := w.check(ctx)
	r.report(t)
	text, err := os.ReadFile(w.visits)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "fire "+point.String()+" ") {
		t.Errorf("no server died at %s; there were: %s", point, text)
	}
	return w
}
