package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/test/internal/program"
)

// replica is one server with a proxy before and a proxy behind it. When its
// process ends, a new one takes its place, as under a supervisor.
type replica struct {
	w     *world
	index int
	front *proxy // between clients and the server
	back  *proxy // between the server and PostgreSQL

	turn      chan struct{} // held by the fault that works on the process
	launching sync.Mutex    // held while a process is being started

	mu        sync.Mutex
	process   *program.Process          // nil while there is none
	url       string                    // of the process itself, without the proxy
	doomed    map[*program.Process]bool // their end is a fault of the harness's own
	records   []*program.Record
	failpoint string                    // what the next process is told to do to itself
	armed     map[*program.Process]bool // were told to end or stop themselves
}

// newReplica makes a replica that does not run yet.
func newReplica(w *world, index int) (*replica, error) {
	r := &replica{w: w, index: index, turn: make(chan struct{}, 1), doomed: make(map[*program.Process]bool), armed: make(map[*program.Process]bool)}
	var err error
	if r.back, err = newProxy(fmt.Sprintf("database of %d", index), w.database.url(w.name).Host, true); err != nil {
		return nil, err
	}
	// Leads nowhere until there is a server.
	if r.front, err = newProxy(fmt.Sprintf("server %d", index), "127.0.0.1:1", false); err != nil {
		r.back.close()
		return nil, err
	}
	return r, nil
}

// addr is where clients find the replica, whatever has become of its process.
func (r *replica) addr() string { return r.front.addr() }

// start starts a process and waits until it is ready. While it is not, for want
// of a database, further ones follow.
func (r *replica) start(ctx context.Context) error {
	for {
		err := r.launch(ctx)
		if err == nil {
			return nil
		}
		if !wait(ctx, 100*time.Millisecond) {
			return fmt.Errorf("server %d does not start: %w", r.index, err)
		}
	}
}

func (r *replica) launch(ctx context.Context) error {
	u := r.w.database.url(r.w.name)
	u.Host = r.back.addr()
	r.mu.Lock()
	point := r.failpoint
	r.failpoint = ""
	r.mu.Unlock()
	path, env := plainProgram, []string{"OPENAI_BASE_URL=" + r.w.model.url, "OPENAI_API_KEY=" + r.w.canary}
	if point != "" || r.w.failpoints {
		path = failpointProgram
		env = append(env, failpoint.EnvActions+"="+point, failpoint.EnvVisits+"="+r.w.visits)
	}
	args := append([]string{"serve", "--addr", "127.0.0.1:0", "--log-format", "json", "--no-example-docs", "--database-url", u.String()}, r.w.args...)
	p, err := program.Start(path, io.Discard, env, args...)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.records = append(r.records, p.Stderr)
	r.process, r.armed[p] = p, point != ""
	r.mu.Unlock()
	r.w.count("server processes")
	begin, cancel := context.WithTimeout(ctx, 15*time.Second) // with a database that swallows everything it waits long
	defer cancel()
	url, err := p.Ready(begin)
	if err == nil {
		err = r.front.lead(strings.TrimPrefix(url, "http://"))
	}
	if err != nil {
		if point != "" && p.Ended() && p.Code() == -1 {
			r.w.count("died at a failpoint")
		}
		_ = p.Signal(syscall.SIGKILL)
		<-p.Exited
		r.mu.Lock()
		r.process = nil
		r.mu.Unlock()
		return err
	}
	r.mu.Lock()
	r.url = url
	r.mu.Unlock()
	r.w.watchers.Go(func() { r.watch(p) })
	return nil
}

// watch looks at how a process ends. One that ends by itself is what the whole
// harness looks for, unless it was told to.
func (r *replica) watch(p *program.Process) {
	<-p.Exited
	at := time.Now()
	r.mu.Lock()
	wanted := r.doomed[p]
	r.mu.Unlock()
	if r.atFailpoint(p) {
		r.w.orphaned(p.PID(), at)
	}
	if wanted {
		return
	}
	switch {
	case r.atFailpoint(p):
		r.w.count("died at a failpoint")
	case p.Code() == -1:
		r.w.violate("server %d was killed by somebody else", r.index)
	default:
		r.w.violate("server %d ended by itself with code %d:\n%s", r.index, p.Code(), p.Stderr.Tail())
	}
	r.restart(p)
}

// restart starts a process in the place of one that has ended. A fault and the
// supervisor may both see its end.
func (r *replica) restart(ended *program.Process) {
	r.launching.Lock()
	defer r.launching.Unlock()
	r.mu.Lock()
	replaced := r.process != ended
	r.mu.Unlock()
	if replaced || r.w.ctx.Err() != nil {
		return
	}
	if err := r.start(r.w.ctx); err != nil && r.w.ctx.Err() == nil {
		r.w.violate("%v", err)
	}
}

// take claims the replica's process for one fault. It answers nil when another
// fault works on it, or when it does not run.
func (r *replica) take() *program.Process {
	select {
	case r.turn <- struct{}{}:
	default:
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == nil || r.process.Ended() {
		<-r.turn
		return nil
	}
	return r.process
}

// give ends take.
func (r *replica) give() { <-r.turn }

// atFailpoint tells whether a process that has ended did so as it was told.
func (r *replica) atFailpoint(p *program.Process) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.armed[p] && p.Code() == -1
}

// doom says that the end of a process is wanted.
func (r *replica) doom(p *program.Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doomed[p] = true
}

// kill ends a process that was taken the hard way.
func (r *replica) kill(p *program.Process) {
	r.doom(p)
	at := time.Now()
	_ = p.Signal(syscall.SIGKILL)
	<-p.Exited
	r.w.orphaned(p.PID(), at)
}

// pause stops a process where it is and lets it go on after a while. What it
// held has been taken over in between.
func (r *replica) pause(ctx context.Context, p *program.Process, d time.Duration) {
	at := time.Now()
	_ = p.Signal(syscall.SIGSTOP)
	if d > leaseTime {
		r.w.orphaned(p.PID(), at)
	}
	wait(ctx, d)
	_ = p.Signal(syscall.SIGCONT)
}

// terminate stops a process that was taken the polite way and answers how long
// that took.
func (r *replica) terminate(p *program.Process) (time.Duration, error) {
	r.doom(p)
	begin := time.Now()
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	select {
	case <-p.Exited:
	case <-time.After(drainPatience):
		_ = p.Signal(syscall.SIGKILL)
		return time.Since(begin), errors.New("it did not end and was killed")
	}
	if r.atFailpoint(p) {
		r.w.count("died at a failpoint")
		return time.Since(begin), nil
	}
	if p.Code() != 0 {
		return time.Since(begin), fmt.Errorf("it ended with code %d:\n%s", p.Code(), p.Stderr.Tail())
	}
	return time.Since(begin), nil
}

const (
	leaseTime     = 10 * time.Second // of an execution, as the server has it
	drainTime     = 30 * time.Second // in which a server that is told to must have ended
	drainPatience = 2 * time.Minute  // runs out only when something is broken
)

// direct sends a request to the process itself, past the proxy.
func (r *replica) direct(ctx context.Context, path string) (status int, body string, err error) {
	r.mu.Lock()
	url := r.url
	r.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := r.w.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// close ends what is left of the replica.
func (r *replica) close() {
	r.mu.Lock()
	p := r.process
	r.doomed[p] = true
	r.mu.Unlock()
	if p != nil && !p.Ended() {
		_ = p.Signal(syscall.SIGCONT)
		_ = p.Signal(syscall.SIGKILL)
		<-p.Exited
	}
	r.front.close()
	r.back.close()
}

// wait waits and tells whether the context let it.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
