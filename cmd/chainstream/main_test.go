package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	main "github.com/chainstream/chainstream/cmd/chainstream"
	"github.com/chainstream/chainstream/internal/pgtest"
)

// TestMain lets this binary stand in for the program where the program runs itself: it
// gives way to the program as it is shipped. The race detector's own memory is more than
// the program may have that takes files apart.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "extract" {
		err := syscall.Exec(shipped(), os.Args, os.Environ())
		os.Exit(main.Report(err, os.Stderr))
	}
	if len(os.Args) > 2 && os.Args[1] == extracting {
		_, err := main.Extract(context.Background(), os.Args[2], "a.pdf", []byte("%PDF-1.7"))
		os.Exit(main.Report(err, os.Stderr))
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", shipped(), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, output)
		os.Exit(1)
	}
	code := pgtest.Run(m)
	_ = os.Remove(shipped()) // as a rule, the folder of this binary is removed as well
	os.Exit(code)
}

// shipped is where the tests keep the program, beside their own binary.
func shipped() string { return os.Args[0] + ".program" }

// patience bounds what should take moments.
const patience = 2 * time.Minute

// result is what one command line did.
type result struct {
	code           int
	stdout, stderr string
}

// environment is the environment of a test: nothing but what it says.
func environment(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

// execute runs one command line to its end.
func execute(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	err := main.Run(ctx, args, environment(env), &stdout, &stderr)
	code := main.Report(err, &stderr)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Fatalf("chainstream %s did not end\n%s", strings.Join(args, " "), stderr.String())
	}
	return result{code, stdout.String(), stderr.String()}
}

// succeed is execute for a command that must succeed; it answers its output.
func succeed(t *testing.T, env map[string]string, args ...string) string {
	t.Helper()
	r := execute(t, env, args...)
	if r.code != 0 {
		t.Fatalf("chainstream %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// watchedOutput is an output that tells when a pattern has been written to it.
type watchedOutput struct {
	mu      sync.Mutex
	text    bytes.Buffer
	pattern *regexp.Regexp
	found   chan []string // the first match
}

func newWatchedOutput(pattern string) *watchedOutput {
	return &watchedOutput{pattern: regexp.MustCompile(pattern), found: make(chan []string, 1)}
}

func (w *watchedOutput) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	w.look()
	return len(p), nil
}

// look tells of the pattern if it is there; mu is held.
func (w *watchedOutput) look() {
	if w.pattern == nil {
		return
	}
	if match := w.pattern.FindStringSubmatch(w.text.String()); match != nil {
		w.pattern = nil
		w.found <- match
	}
}

// expect tells of another pattern, in what was written before too.
func (w *watchedOutput) expect(pattern string) <-chan []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pattern, w.found = regexp.MustCompile(pattern), make(chan []string, 1)
	w.look()
	return w.found
}

func (w *watchedOutput) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// serving is a chainstream serve in the background.
type serving struct {
	t      *testing.T
	url    string
	cancel context.CancelFunc
	ended  chan error
	stderr *watchedOutput
	once   sync.Once
}

// serve starts a server on a free port and waits until it is up. It is stopped
// when the test ends.
func serve(t *testing.T, env map[string]string, args ...string) *serving {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &serving{t: t, cancel: cancel, ended: make(chan error, 1), stderr: newWatchedOutput(`$^`)}
	stdout := newWatchedOutput(`running at (http://\S+)`)
	args = append([]string{"serve", "--addr", "127.0.0.1:0", "--offline-pace", "0s", "--log-level", "warn", "--no-example-docs"}, args...)
	go func() { s.ended <- main.Run(ctx, args, environment(env), stdout, s.stderr) }()
	select {
	case match := <-stdout.found:
		s.url = match[1]
	case err := <-s.ended:
		cancel()
		t.Fatalf("chainstream serve: %v\n%s", err, s.stderr)
	case <-time.After(patience):
		cancel()
		t.Fatalf("chainstream serve is not up\n%s", s.stderr)
	}
	t.Cleanup(s.stop)
	return s
}

// stop is what a signal does; it must be followed by an orderly end.
func (s *serving) stop() {
	s.once.Do(func() {
		s.cancel()
		select {
		case err := <-s.ended:
			if err != nil {
				s.t.Errorf("chainstream serve ended with %v\n%s", err, s.stderr)
			}
		case <-time.After(patience):
			s.t.Errorf("chainstream serve did not stop\n%s", s.stderr)
		}
	})
}

// client is the environment of commands that talk to the server.
func (s *serving) client() map[string]string { return map[string]string{"CHAINSTREAM_SERVER": s.url} }

// file writes a file into a folder of the test.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What an error quotes cannot steer the terminal.
func TestReport(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	if code := main.Report(errors.New("no field \x1b[2J\u009b31m\u202e here\nnext"), &stderr); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if got, want := stderr.String(), "chainstream: no field [2J31m here\nnext\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}
