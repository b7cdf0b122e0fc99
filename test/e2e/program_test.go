package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds everything that a test waits for. It only ever runs out when
// something is broken.
const patience = 2 * time.Minute

// within answers a context that ends with the test or with the patience.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until a condition holds.
func eventually(ctx context.Context, t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// process is a running chainstream.
type process struct {
	cmd    *exec.Cmd
	stderr *record
	exited chan struct{} // closed when it has ended
	code   int           // its exit code, -1 when a signal ended it; read after exited
}

// start starts the program. It is stopped with the test, unless it has ended.
func start(t *testing.T, stdout io.Writer, env []string, args ...string) *process {
	t.Helper()
	return startOther(t, program, stdout, env, args...)
}

// startOther is start for another program.
func startOther(t *testing.T, path string, stdout io.Writer, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(path, args...), stderr: newRecord(), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = stdout, p.stderr
	// Nothing of what configures the program on this machine.
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.Getenv("TMPDIR")}, env...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		if err := p.cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			p.stderr.note(err.Error())
		}
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s %s wrote:\n%s", filepath.Base(path), strings.Join(args, " "), p.stderr.tail())
		}
		if p.ended() {
			return
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may end by itself just now
		select {
		case <-p.exited:
		case <-time.After(patience / 2):
			_ = p.cmd.Process.Kill()
			<-p.exited
			t.Error("the program did not stop and was killed")
		}
	})
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// wait answers the exit code.
func (p *process) wait(ctx context.Context, t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-ctx.Done():
		t.Fatal("the program does not end")
	}
	return p.code
}

// record keeps what a process writes, line by line.
type record struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced with every write
}

func newRecord() *record { return &record{changed: make(chan struct{})} }

// Write implements io.Writer.
func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(b)
	close(r.changed)
	r.changed = make(chan struct{})
	return len(b), nil
}

func (r *record) note(s string) { _, _ = r.Write([]byte(s + "\n")) }

// lines answers the complete lines so far, and a channel that is closed when
// there is more.
func (r *record) lines() ([]string, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := strings.Split(r.text.String(), "\n")
	return lines[:len(lines)-1], r.changed
}

func (r *record) tail() string {
	lines, _ := r.lines()
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// await waits for a line that find accepts.
func (r *record) await(ctx context.Context, t *testing.T, p *process, what string, find func(line string) bool) {
	t.Helper()
	for {
		lines, changed := r.lines()
		if slices.ContainsFunc(lines, find) {
			return
		}
		select {
		case <-changed:
		case <-p.exited:
			if lines, _ := r.lines(); !slices.ContainsFunc(lines, find) {
				t.Fatalf("the program ended with code %d, not with %s:\n%s", p.code, what, p.stderr.tail())
			}
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// server is a running chainstream serve that has said it is ready.
type server struct {
	*process
	url    string
	client *http.Client

	authorization string                                  // sent with every request, if any
	dial          func(context.Context) (net.Conn, error) // for streams; nil = TCP to the url
}

// settings say how a server is started.
type settings struct {
	addr string   // default: a free port
	env  []string // beside the few variables that every program needs
	args []string
}

// serve starts a server.
func serve(ctx context.Context, t *testing.T, cfg settings) *server {
	t.Helper()
	if cfg.addr == "" {
		cfg.addr = "127.0.0.1:0"
	}
	args := append([]string{"serve", "--addr", cfg.addr, "--log-format", "json"}, cfg.args...)
	s := &server{process: start(t, io.Discard, cfg.env, args...), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	t.Cleanup(s.client.CloseIdleConnections)
	s.stderr.await(ctx, t, s.process, "a server that is ready", func(line string) bool {
		var entry struct{ Msg, URL string }
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "server ready" {
			return false
		}
		s.url = entry.URL
		return true
	})
	return s
}

// addr is the address to give to a server that takes this one's place.
func (s *server) addr() string {
	_, addr, _ := strings.Cut(s.url, "://")
	return addr
}

// stop stops the server the polite way and checks how it ends.
func (s *server) stop(ctx context.Context, t *testing.T) {
	t.Helper()
	s.signal(t, syscall.SIGTERM)
	if code := s.wait(ctx, t); code != 0 {
		t.Fatalf("the server ended with code %d, want 0", code)
	}
}

// kill ends the server the hard way.
func (s *server) kill(ctx context.Context, t *testing.T) {
	t.Helper()
	s.signal(t, syscall.SIGKILL)
	if code := s.wait(ctx, t); code != -1 {
		t.Fatalf("the server ended with code %d before it was killed", code)
	}
}

// openDir is a folder for a data directory. PostgreSQL runs under an account of
// its own where the tests run as root, and t.TempDir is closed to it.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chainstream-e2e-*")
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
