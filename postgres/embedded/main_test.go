package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/postgres/embedded"
)

// ownerEnv makes the test program an owner of a cluster in the named data
// directory instead: the process that tests kill.
const ownerEnv = "CHAINSTREAM_EMBEDDED_TEST_OWNER"

// lengthy bounds waits for things that normally take well under a second.
const lengthy = 30 * time.Second

// quick is for tests in which processes are killed, but not the machine.
var quick = map[string]string{"fsync": "off"}

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		os.Exit(own(dir))
	}
	goleak.VerifyTestMain(m)
}

// own starts a cluster, prints its address on one line, or the error, and stops
// it when its input ends.
func own(dir string) int {
	ctx := context.Background()
	cluster, err := embedded.Start(ctx, embedded.Config{DataDir: dir, Settings: quick})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println(cluster.URL())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		fmt.Println("error:", err)
	}
	if err := cluster.Stop(ctx); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// owner is the test program running as an owner.
type owner struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	answer string // its first line
}

func startOwner(t *testing.T, dir string, credential *syscall.Credential) *owner {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if credential != nil { // the build folder is closed to others
		program = copyProgram(t, program)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), ownerEnv+"="+dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	o := &owner{cmd: cmd, stdin: stdin}
	t.Cleanup(func() { o.kill(t) })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("read the owner's answer: %v", err)
	}
	o.answer = strings.TrimSpace(line)
	return o
}

// kill ends the owner without any chance to clean up.
func (o *owner) kill(t *testing.T) {
	t.Helper()
	if err := o.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	_ = o.cmd.Wait() // "signal: killed" is what is wanted
}

// finish lets the owner stop its cluster and end.
func (o *owner) finish(t *testing.T) {
	t.Helper()
	if err := o.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := o.cmd.Wait(); err != nil {
		t.Fatalf("the owner: %v", err)
	}
}

func copyProgram(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(openDir(t), "owner")
	if err := os.WriteFile(target, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return target
}

// openDir is a temporary folder that every account may enter; t.TempDir's is
// closed to the account that PostgreSQL runs as where the tests run as root.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "embedded-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start starts a cluster that stops with the test. Without settings it is a
// quick one.
func start(t *testing.T, config embedded.Config) *embedded.Cluster {
	t.Helper()
	if config.Settings == nil {
		config.Settings = quick
	}
	config.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	cluster, err := embedded.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// stop stops a cluster before its test ends.
func stop(t *testing.T, cluster *embedded.Cluster) {
	t.Helper()
	if err := cluster.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// query runs statements and returns the single value of the last one, as text.
func query(t *testing.T, url string, statements ...string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var value string
	for _, statement := range statements {
		rows, err := conn.Query(t.Context(), statement, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			value = string(rows.RawValues()[0])
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return value
}

// postmaster is the process id of the cluster's server.
func postmaster(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(pidFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func pidFile(dir string) string { return filepath.Join(dir, "postgres", "data", "postmaster.pid") }

// eventually polls a condition of another process, which has no way to tell us.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(lengthy)
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", lengthy, what)
		}
	}
}

// state is what PostgreSQL's control file says about the cluster.
func state(t *testing.T, dir string) string {
	t.Helper()
	installation, err := embedded.Find()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(installation.BinDir, "pg_controldata"),
		filepath.Join(dir, "postgres", "data")).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if value, ok := strings.CutPrefix(line, "Database cluster state:"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no state in %s", out)
	return ""
}
