//go:build chaos && linux

package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestDiskFull fills the disk under the tables while executions run, and then
// the one under the write-ahead log. The first refuses what would be written;
// the second ends PostgreSQL.
func TestDiskFull(t *testing.T) {
	t.Run("tables", func(t *testing.T) {
		root := folder(t)
		small := filepath.Join(root, "small")
		mount(t, small, 160)
		d := startDatabaseIn(t, small, false)
		moveLog(t, d, filepath.Join(root, "wal"))
		w := fillDisk(t, d, small, nil)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.counts["server processes"] != len(w.replicas) {
			t.Errorf("%d processes of %d servers: one has ended", w.counts["server processes"], len(w.replicas))
		}
		if w.counts["answers 507"]+w.counts["answers 503"] == 0 {
			t.Error("no trigger was refused")
		}
	})
	t.Run("write-ahead log", func(t *testing.T) {
		root := folder(t)
		d := startDatabaseIn(t, filepath.Join(root, "data"), false)
		small := filepath.Join(root, "small")
		mount(t, small, 80)
		moveLog(t, d, filepath.Join(small, "wal"))
		w := fillDisk(t, d, small, func() error {
			// PostgreSQL has perhaps given up meanwhile. Its operator starts it again.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if d.runs(2 * time.Second) {
				return nil
			}
			if err := d.abandon(ctx); err != nil {
				return err
			}
			return d.start(ctx)
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.counts["server processes"] != len(w.replicas) {
			t.Errorf("%d processes of %d servers: one has ended", w.counts["server processes"], len(w.replicas))
		}
	})
}

// fillDisk lets executions run, fills a small disk under the database, makes
// room again, and checks everything.
func fillDisk(t *testing.T, d *database, small string, mend func() error) *world {
	t.Helper()
	w := newWorld(t, d, settings{seed: *seedFlag, replicas: 2})
	w.load(rand.New(rand.NewPCG(w.seed, 9)), 200, 14*time.Second)
	var disk sync.WaitGroup
	disk.Go(func() {
		wait(w.ctx, 2*time.Second)
		filler := filepath.Join(small, "filler")
		if err := fill(filler); err != nil {
			w.violate("the disk was not filled: %v", err)
		}
		unready := make(map[int]bool)
		for end := time.Now().Add(time.Minute); len(unready) < len(w.replicas) && time.Now().Before(end); wait(w.ctx, 100*time.Millisecond) {
			if err := fill(filler); err != nil { // what PostgreSQL gave back in between
				w.violate("the disk was not filled: %v", err)
			}
			if mend != nil { // the log has room in what it reuses, until that is used up
				_, _ = w.pool.Exec(w.ctx, `SELECT pg_logical_emit_message(false, 'chaos', repeat('x', 4000000))`)
			}
			for _, r := range w.replicas {
				if status, text, err := r.direct(w.ctx, "/readyz"); err == nil && status == http.StatusServiceUnavailable {
					unready[r.index] = true
					w.keep([]byte(text))
				}
				if status, _, err := r.direct(w.ctx, "/healthz"); err != nil || status != http.StatusOK {
					w.violate("server %d does not live on beside a full disk: status %d %v", r.index, status, err)
				}
			}
		}
		if len(unready) < len(w.replicas) {
			w.violate("the disk is full, and only servers %v say that they are not ready", unready)
		}
		wait(w.ctx, 3*time.Second) // so that requests meet it
		if err := os.Remove(filler); err != nil {
			w.violate("%v", err)
		}
		if mend != nil {
			if err := mend(); err != nil {
				w.violate("the database did not come back: %v", err)
			}
		}
		for _, r := range w.replicas {
			for try := 0; ; try++ {
				if status, _, err := r.direct(w.ctx, "/readyz"); err == nil && status == http.StatusOK {
					break
				}
				if try == 300 || !wait(w.ctx, 100*time.Millisecond) {
					w.violate("server %d is not ready again after room was made", r.index)
					break
				}
			}
		}
	})
	w.run(nil, 3*time.Minute)
	disk.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := w.check(ctx)
	t.Logf("\n%s", table([]result{r}))
	r.report(t)
	return w
}

// mount mounts a small file system that goes with the test.
func mount(t *testing.T, dir string, mebibytes int) {
	t.Helper()
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0711", mebibytes)); err != nil {
		t.Fatalf("a small disk cannot be mounted here, which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// moveLog moves the write-ahead log of a database to another disk.
func moveLog(t *testing.T, d *database, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := d.abandon(ctx); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(d.dir, "postgres", "data", "pg_wal")
	if output, err := exec.CommandContext(ctx, "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy the write-ahead log: %v: %s", err, output)
	}
	if err := errors.Join(os.RemoveAll(from), os.Symlink(to, from)); err != nil {
		t.Fatal(err)
	}
	if err := d.start(ctx); err != nil {
		t.Fatal(err)
	}
}

// fill appends to a file until the disk has no room for another page.
func fill(name string) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	for size := 1 << 20; err == nil && size >= 4096; {
		if _, werr := file.Write(make([]byte, size)); errors.Is(werr, syscall.ENOSPC) || errors.Is(werr, io.ErrShortWrite) {
			size /= 4
		} else {
			err = werr
		}
	}
	return errors.Join(err, file.Close())
}
