package chaos_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// TestSelection is the short run that is part of make test: three servers, some
// of every kind of fault that is over soon, and all checks.
func TestSelection(t *testing.T) {
	d := startDatabase(t, false)
	w := newWorld(t, d, settings{seed: *seedFlag, replicas: 3, args: []string{"--shutdown-timeout", "2s"}})
	over := 12 * time.Second
	w.load(rand.New(rand.NewPCG(w.seed, 7)), 60, over)
	w.run(schedule(w.seed, 3, over, []string{
		faultKill, faultKill, faultKillAll, faultNap, faultTerm, faultCrash, faultFreeze, faultLostAck, faultBack, faultListen, faultFront, faultBurst, faultErase,
	}), 2*time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := w.check(ctx)
	t.Logf("\n%s", table([]result{r}))
	r.report(t)
}
