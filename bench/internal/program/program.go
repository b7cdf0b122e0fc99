// Package program is what all benchmarks have in common as programs: flags, a
// bound on their time, a clean end at Ctrl-C, and the head of their report.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/internal/heap"
)

// Limit is when a benchmark gives up, unless its flags say otherwise.
const Limit = 5 * time.Minute

// Run measures and writes tables to w.
type Run func(ctx context.Context, w io.Writer) error

// Main runs the benchmark of a name and answers the exit code. define declares
// its flags and answers what runs after they have been read.
func Main(name, about string, define func(*flag.FlagSet) Run) int {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "%s\n\nUsage: go run ./bench/%s [flags]\n\n", strings.TrimSpace(about), name)
		flags.PrintDefaults()
	}
	run := define(flags)
	limit := flags.Duration("limit", Limit, "after which it gives up")
	profile := flags.String("cpuprofile", "", "`file` for a profile of this process")
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "%s: unexpected argument %q\n", name, flags.Arg(0))
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("not done after %v", *limit))
	defer cancel()

	defer heap.Floor(heap.DefaultFloor, os.Getenv)() // as chainstream serve does, for the parts of the server that run in here
	begin := time.Now()
	command := strings.Join(append([]string{"go run ./bench/" + name}, os.Args[1:]...), " ")
	fmt.Printf("`%s`\n\n%s; %s; load before %s.\n\n", command, begin.UTC().Format("2006-01-02 15:04 MST"), measure.Machine(), measure.Load())
	if err := Profiled(*profile, func() error { return run(ctx, os.Stdout) }); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	fmt.Printf("\nTook %.0f s.\n\n", time.Since(begin).Seconds())
	return 0
}

// Profiled calls f and writes a profile of its processor time to a file, if one is named.
func Profiled(name string, f func() error) (err error) {
	if name == "" {
		return f()
	}
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("make the profile: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return fmt.Errorf("start the profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	return f()
}
