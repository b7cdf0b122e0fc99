// Package e2e_test tests the real program from outside: child processes, TCP
// connections, signals, and the table that everything has to agree with. The
// files *.test.mjs beside it do the same with clients from the world of Node
// and with a browser; make e2e runs all of them.
package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
)

// program is the path of the binary under test. TestMain sets it before any
// test runs.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chainstream-e2e-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	program = filepath.Join(dir, "chainstream")
	// As make build does it, without the race detector: what is shipped is tested.
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "../../cmd/chainstream")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, output)
		return 1
	}
	return pgtest.Run(m)
}
