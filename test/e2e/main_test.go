// Package e2e_test tests the real program from outside: child processes, TCP
// connections, signals, and the table that everything has to agree with. The
// files *.test.mjs beside it do the same with clients from the world of Node
// and with a browser; make e2e runs all of them.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/test/internal/program"
)

// binary is the path of the program under test. TestMain sets it before any
// test runs.
var binary string

// failing builds the program with failpoints, once.
var failing func() (string, error)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chainstream-e2e-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	failing = sync.OnceValues(func() (string, error) {
		return program.Build(context.Background(), dir, "chainstream-failpoint", "../../cmd/chainstream", "failpoint")
	})
	if binary, err = program.Build(context.Background(), dir, "chainstream", "../../cmd/chainstream"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return pgtest.Run(m)
}
