package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a process that works in the cluster's data directory.
type process struct {
	pid        int
	postmaster bool
	ours       bool // started by this package
}

// clearOrphans ends what a killed predecessor left behind: its server, server
// processes whose postmaster was killed, the socket folder, and a pid file
// whose number now belongs to a stranger. We hold the data directory's lock,
// so no server of a living predecessor can be among them. A server that
// somebody started by hand is not touched: ErrInUse.
func (c *Cluster) clearOrphans(ctx context.Context) error {
	found, err := processesOf(ctx, c.paths.data)
	if err != nil {
		return fmt.Errorf("look for a left-over server: %w", err)
	}
	for _, p := range found {
		if p.postmaster && !p.ours {
			return fmt.Errorf("%w: a PostgreSQL that was not started by Chainstream (pid %d) runs on %s; stop it with: %s -D %q stop",
				ErrInUse, p.pid, c.paths.data, c.bin.program("pg_ctl"), c.paths.data)
		}
	}
	if len(found) > 0 {
		if err := c.endOrphans(ctx, found); err != nil {
			return err
		}
	}
	if err := c.clearSockets(); err != nil {
		return err
	}
	return c.clearPidFile()
}

// endOrphans asks the postmaster, or what is left of it, to leave, ever less
// politely. A fast shutdown writes a checkpoint and gets the same patience as
// our own stop.
func (c *Cluster) endOrphans(ctx context.Context, found []process) error {
	for _, step := range []struct {
		sig      syscall.Signal
		patience time.Duration
	}{
		{fastShutdown, c.config.StopTimeout},
		{immediateShutdown, quitTimeout},
		{syscall.SIGKILL, quitTimeout},
	} {
		if step.sig == fastShutdown && !hasPostmaster(found) {
			continue // a request to a postmaster; others take it for something else
		}
		deadline := time.Now().Add(step.patience)
		signalled := make(map[int]bool)
		for len(found) > 0 && time.Now().Before(deadline) {
			headless := !hasPostmaster(found)
			for _, p := range found {
				// A postmaster ends its own children.
				if signalled[p.pid] || !p.postmaster && !headless {
					continue
				}
				signalled[p.pid] = true
				c.logger.Warn("stopping a database process that a killed server left behind", "pid", p.pid, "signal", step.sig.String())
				if err := syscall.Kill(p.pid, step.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("stop the left-over database process %d: %w", p.pid, err)
				}
			}
			select {
			case <-time.After(pollInterval):
			case <-ctx.Done():
				return fmt.Errorf("wait for a left-over server: %w", context.Cause(ctx))
			}
			var err error
			if found, err = processesOf(ctx, c.paths.data); err != nil {
				return fmt.Errorf("look for a left-over server: %w", err)
			}
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: the left-over database process %d does not end", ErrInUse, found[0].pid)
	}
	return nil
}

// clearSockets removes the sockets of a killed server and their lock files. No
// process works on our data any more, yet PostgreSQL refuses to start while the
// number in a lock file belongs to any process, even to a killed one that its
// parent has not waited for.
func (c *Cluster) clearSockets() error {
	stale, err := filepath.Glob(filepath.Join(escapeGlob(c.paths.run), ".s.PGSQL.*"))
	if err != nil {
		return fmt.Errorf("look for left-over sockets: %w", err)
	}
	for _, path := range stale {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a left-over socket: %w", err)
		}
	}
	return nil
}

func hasPostmaster(found []process) bool {
	for _, p := range found {
		if p.postmaster {
			return true
		}
	}
	return false
}

// clearPidFile deals with the pid file of a server that was killed. PostgreSQL
// ignores a file whose process is gone, but refuses to start while the number
// belongs to any process of its user. No such process works on our data, as
// clearOrphans has seen, so the file is stale either way. Shared memory that
// is still in use is found by PostgreSQL without the file.
func (c *Cluster) clearPidFile() error {
	path := filepath.Join(c.paths.data, "postmaster.pid")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the pid file: %w", err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) > 4 { // pid, data directory, start time, port, socket folder, …
		dir := lines[4]
		if filepath.Dir(dir) == "/tmp" && strings.HasPrefix(filepath.Base(dir), socketDirPrefix) {
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("remove a left-over socket folder: %w", err)
			}
		}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return nil
	}
	c.logger.Warn("removing the pid file of a killed server", "path", path, "pid", pid)
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove a stale pid file: %w", err)
	}
	return nil
}
