package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/postgres/embedded"
)

// database is a PostgreSQL of the harness's own: it dies, freezes and comes back
// as a test likes.
type database struct {
	dir      string
	settings map[string]string

	mu      sync.Mutex
	cluster *embedded.Cluster
}

// startDatabase starts a cluster that ends with the test. durable keeps fsync
// on, as the product does.
func startDatabase(t *testing.T, durable bool) *database {
	t.Helper()
	return startDatabaseIn(t, folder(t), durable)
}

// startDatabaseIn is startDatabase with a folder for the cluster.
func startDatabaseIn(t *testing.T, dir string, durable bool) *database {
	t.Helper()
	settings := map[string]string{"max_connections": "300", "shared_buffers": "128MB", "min_wal_size": "32MB", "max_wal_size": "1GB"}
	if !durable {
		settings["fsync"], settings["full_page_writes"] = "off", "off"
	}
	d := &database{dir: dir, settings: settings}
	if err := d.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := d.abandon(ctx); err != nil {
			t.Error(err)
		}
	})
	return d
}

// folder makes a folder that PostgreSQL's account can pass through.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chainstream-chaos-pg-*")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// abandon stops the cluster the polite way, or tidies up after it has ended.
func (d *database) abandon(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cluster.Stop(ctx)
}

// runs tells whether PostgreSQL still runs after a while.
func (d *database) runs(after time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.cluster.Done():
		return false
	case <-time.After(after):
		return true
	}
}

// start starts the cluster, also after it was broken.
func (d *database) start(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	cluster, err := embedded.Start(ctx, embedded.Config{DataDir: d.dir, Settings: d.settings, MaxRestarts: -1})
	if err != nil {
		return err
	}
	d.cluster = cluster
	return nil
}

// crash ends PostgreSQL at once, as the loss of power does to it: the next start
// recovers from its write-ahead log.
func (d *database) crash(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	pid, err := d.postmaster()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	select {
	case <-d.cluster.Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_ = d.cluster.Stop(ctx) // gives its lock back; how it ended is known
	return nil
}

// freeze stops every process of PostgreSQL where it is and answers what lets
// them go on.
func (d *database) freeze(ctx context.Context) (thaw func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pid, err := d.postmaster()
	if err != nil {
		return nil, err
	}
	frozen := []int{pid}
	_ = syscall.Kill(pid, syscall.SIGSTOP) // first, so that it makes no more
	children, err := childrenOf(ctx, pid)
	frozen = append(frozen, children...)
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGSTOP) // it may have ended just now
	}
	return func() {
		for _, p := range frozen {
			_ = syscall.Kill(p, syscall.SIGCONT)
		}
	}, err
}

func (d *database) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(d.dir, "postgres", "data", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

// childrenOf answers the processes that a process has started.
func childrenOf(ctx context.Context, parent int) ([]int, error) {
	list, err := exec.CommandContext(ctx, "ps", "-axo", "pid=,ppid=").Output()
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var children []int
	for line := range strings.Lines(string(list)) {
		fields := strings.Fields(line)
		if len(fields) != 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		pid, err := strconv.Atoi(fields[0])
		if err != nil {
			return nil, err
		}
		children = append(children, pid)
	}
	return children, nil
}

// url is the address of a database of the cluster.
func (d *database) url(name string) *url.URL {
	d.mu.Lock()
	defer d.mu.Unlock()
	u, err := url.Parse(d.cluster.URL())
	if err != nil {
		panic(err) // we wrote it
	}
	u.Path = "/" + name
	return u
}

// create makes an empty database.
func (d *database) create(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, d.url("chainstream").String())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	return errors.Join(err, conn.Close(ctx))
}

// drop removes a database, whoever is connected. Autovacuum may be at work in
// it, whose process is not ours to end; it leaves soon.
func (d *database) drop(ctx context.Context, name string) error {
	for {
		err := d.tryDrop(ctx, name)
		if err == nil || !wait(ctx, 200*time.Millisecond) {
			return err
		}
	}
}

func (d *database) tryDrop(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, d.url("chainstream").String())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	return errors.Join(err, conn.Close(ctx))
}
