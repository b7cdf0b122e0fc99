//go:build chaos

package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestCancel cancels executions in the middle of calls that would never end,
// through any server, while nothing else goes wrong.
func TestCancel(t *testing.T) {
	d := startDatabase(t, true)
	w := newWorld(t, d, settings{seed: *seedFlag, replicas: 3})
	w.model.faulty = 0
	random := rand.New(rand.NewPCG(w.seed, 10))
	for i := range 120 {
		e := &errand{
			chain: chainEndless, topic: fmt.Sprintf("topic %d", i), key: fmt.Sprintf("key-%d", i), at: time.Duration(i) * 50 * time.Millisecond,
			cancel: time.Duration(random.IntN(3000)) * time.Millisecond, readers: []reader{newReader(random)},
		}
		w.errands = append(w.errands, e)
	}
	w.run(nil, time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := w.check(ctx)
	t.Logf("\n%s", table([]result{r}))
	r.report(t)
	// Two seconds are the promise, and the figure is in the table; a machine
	// that is busy may need longer, a server that has missed it for ever.
	if p99 := quantile(r.cancels, 0.99); p99 > 10*time.Second {
		t.Errorf("cancelled executions ended after %s (p99)", p99)
	}
}
