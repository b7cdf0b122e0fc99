// Package chaos_test runs several real servers on one real PostgreSQL with a
// scripted model, breaks everything that can break, and checks afterwards that
// nothing that was promised was lost: docs/reliability.md has the method.
//
// What the faults are and when they come follows from a seed, which every run
// prints. TestSelection is short and part of make test; the rest has the build
// tag "chaos" and is make chaos.
package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chainstream/chainstream/test/internal/program"
)

// Flags of the tests.
var (
	seedFlag       = flag.Uint64("seed", 1, "the first seed, of which the schedule of faults follows")
	seedsFlag      = flag.Int("seeds", 3, "how many seeds make chaos runs, counted up from -seed")
	executionsFlag = flag.Int("executions", 500, "executions of each seed")
	tableFlag      = flag.String("table", "", "file that takes the table of TestSeeds as well")
	serveFlag      = flag.String("serve", "", "more flags for every server, separated by spaces")
	loadFlag       = flag.Duration("load", 40*time.Second, "time over which the executions of a seed begin")
)

// The programs under test. TestMain sets them before any test runs.
var (
	plainProgram     string // what is shipped
	failpointProgram string // with the tag failpoint
)

func TestMain(m *testing.M) {
	flag.Parse()
	registerToxics()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chainstream-chaos-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	const source = "../../cmd/chainstream"
	ctx := context.Background()
	if plainProgram, err = program.Build(ctx, dir, "chainstream", source); err == nil {
		failpointProgram, err = program.Build(ctx, dir, "chainstream-failpoint", source, "failpoint")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
