package e2e_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chainstream/chainstream/test/internal/program"
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
type process struct{ *program.Process }

// start starts the program. It is stopped with the test, unless it has ended.
func start(t *testing.T, stdout io.Writer, env []string, args ...string) *process {
	t.Helper()
	return startOther(t, binary, stdout, env, args...)
}

// startOther is start for another program.
func startOther(t *testing.T, path string, stdout io.Writer, env []string, args ...string) *process {
	t.Helper()
	p, err := program.Start(path, stdout, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s %s wrote:\n%s", filepath.Base(path), strings.Join(args, " "), p.Stderr.Tail())
		}
		if p.Ended() {
			return
		}
		if _, err := p.Stop(patience / 2); err != nil {
			t.Error(err)
		}
	})
	return &process{p}
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// wait answers the exit code.
func (p *process) wait(ctx context.Context, t *testing.T) int {
	t.Helper()
	code, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// record keeps what a process writes, line by line.
type record struct{ *program.Record }

func newRecord() *record { return &record{program.NewRecord()} }

func (r *record) lines() ([]string, <-chan struct{}) { return r.Lines() }

// await waits for a line that find accepts.
func (r *record) await(ctx context.Context, t *testing.T, p *process, what string, find func(line string) bool) {
	t.Helper()
	if err := r.Await(ctx, p.Process, what, find); err != nil {
		t.Fatal(err)
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
	args := append([]string{"serve", "--addr", cfg.addr, "--log-format", "json", "--no-example-docs"}, cfg.args...)
	s := &server{process: start(t, io.Discard, cfg.env, args...), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	t.Cleanup(s.client.CloseIdleConnections)
	var err error
	if s.url, err = s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
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
