// Package program runs the real program for tests, as a process of its own,
// and reads what it writes and streams. Nothing in it fails a test: it answers
// errors, so that a test with hundreds of clients can use it as well.
package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Build builds the program into a folder and answers its path: as make build
// does it, without the race detector, so that what is shipped is tested. source
// is the path of its package.
func Build(ctx context.Context, dir, name, source string, tags ...string) (string, error) {
	path := dir + "/" + name
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", strings.Join(tags, ","), "-o", path, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, output)
	}
	return path, nil
}

// Process is a running program.
type Process struct {
	Stderr *Record
	Exited <-chan struct{} // closed when it has ended

	cmd  *exec.Cmd
	code int
}

// Start starts a program with nothing of what configures it on this machine.
func Start(path string, stdout io.Writer, env []string, args ...string) (*Process, error) {
	exited := make(chan struct{})
	p := &Process{cmd: exec.Command(path, args...), Stderr: NewRecord(), Exited: exited} //nolint:noctx // it lives until it is stopped, on purpose
	p.cmd.Stdout, p.cmd.Stderr = stdout, p.Stderr
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.Getenv("TMPDIR")}, env...)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(exited)
		if err := p.cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			p.Stderr.Note(err.Error())
		}
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	return p, nil
}

// PID answers the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended tells whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.Exited:
		return true
	default:
		return false
	}
}

// Code answers the exit code, -1 when a signal ended it. It waits for the end.
func (p *Process) Code() int {
	<-p.Exited
	return p.code
}

// Signal sends a signal. One that has ended already is an error.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Wait answers the exit code, or an error when the context ends first.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.Exited:
		return p.code, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("the program does not end: %w", context.Cause(ctx))
	}
}

// Ready waits until a server has said that it is ready and answers its address.
// It must have been started with --log-format json.
func (p *Process) Ready(ctx context.Context) (url string, err error) {
	err = p.Stderr.Await(ctx, p, "a server that is ready", func(line string) bool {
		var entry struct{ Msg, URL string }
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "server ready" {
			return false
		}
		url = entry.URL
		return true
	})
	return url, err
}

// Stop stops the program the polite way and answers its exit code. When it has
// not ended after the patience, it is killed, which is an error.
func (p *Process) Stop(patience time.Duration) (int, error) {
	if !p.Ended() {
		_ = p.Signal(syscall.SIGTERM) // it may end by itself just now
	}
	select {
	case <-p.Exited:
		return p.code, nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		return p.Code(), errors.New("the program did not stop and was killed")
	}
}

// Record keeps what a process writes, line by line.
type Record struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced with every write
}

// NewRecord makes an empty record.
func NewRecord() *Record { return &Record{changed: make(chan struct{})} }

// Write implements io.Writer.
func (r *Record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(b)
	close(r.changed)
	r.changed = make(chan struct{})
	return len(b), nil
}

// Note adds a line.
func (r *Record) Note(s string) { _, _ = r.Write([]byte(s + "\n")) }

// String answers everything that was written.
func (r *Record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// Lines answers the complete lines so far, and a channel that is closed when
// there is more.
func (r *Record) Lines() ([]string, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := strings.Split(r.text.String(), "\n")
	return lines[:len(lines)-1], r.changed
}

// Tail answers the last lines.
func (r *Record) Tail() string {
	lines, _ := r.Lines()
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// Await waits for a line that find accepts, which the process that writes the
// record owes.
func (r *Record) Await(ctx context.Context, p *Process, what string, find func(line string) bool) error {
	for {
		lines, changed := r.Lines()
		if slices.ContainsFunc(lines, find) {
			return nil
		}
		select {
		case <-changed:
		case <-p.Exited:
			if lines, _ := r.Lines(); !slices.ContainsFunc(lines, find) {
				return fmt.Errorf("the program ended with code %d, not with %s:\n%s", p.code, what, p.Stderr.Tail())
			}
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s", what)
		}
	}
}
