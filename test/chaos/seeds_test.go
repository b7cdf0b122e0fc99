//go:build chaos

package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// TestSeeds is the long run: one seed after the other, every kind of fault in
// each of them, and the table for docs/reliability.md.
func TestSeeds(t *testing.T) {
	d := startDatabase(t, true)
	var results []result
	for i := range *seedsFlag {
		seed := *seedFlag + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := runSeed(t, d, seed)
			results = append(results, r)
			r.report(t)
		})
	}
	text := table(results)
	t.Logf("\n%s", text)
	if *tableFlag != "" {
		if err := os.WriteFile(*tableFlag, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
	var total result
	for _, r := range results {
		total.add(r)
	}
	if len(total.takeovers) == 0 {
		t.Error("no execution was ever taken over: the faults missed")
	}
}

func runSeed(t *testing.T, d *database, seed uint64) result {
	t.Helper()
	w := newWorld(t, d, settings{seed: seed, replicas: 3, args: []string{"--shutdown-timeout", "5s"}})
	w.load(rand.New(rand.NewPCG(seed, 7)), *executionsFlag, *loadFlag)
	w.run(schedule(seed, 3, *loadFlag, allFaults()), 2*time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return w.check(ctx)
}
