package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/postgres/embedded"
)

const (
	dirPrefix = "chainstream-pgtest-"
	// staleAge is how old a folder must be before it counts as left behind; a
	// younger one may belong to a process that is about to lock it.
	staleAge = time.Minute
)

// StartCluster starts a throw-away cluster and returns its connection string
// and what stops and removes it. Tests use Database; this is for programs that
// start tests.
func StartCluster(ctx context.Context) (url string, stop func(context.Context) error, err error) {
	if err := sweep(os.TempDir()); err != nil {
		return "", nil, fmt.Errorf("remove clusters of killed test runs: %w", err)
	}
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		return "", nil, fmt.Errorf("make a folder for the test cluster: %w", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL's account passes through where we are root
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	cluster, err := embedded.Start(ctx, embedded.Config{
		DataDir: dir,
		Settings: map[string]string{
			"fsync":              "off",
			"full_page_writes":   "off",
			"max_connections":    "400",
			"shared_buffers":     "128MB",
			"min_wal_size":       "80MB",
			"max_wal_size":       "1GB",
			"checkpoint_timeout": "1h",
		},
	})
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return cluster.SocketURL(), func(ctx context.Context) error {
		return errors.Join(cluster.Err(), cluster.Stop(ctx), os.RemoveAll(dir))
	}, nil
}

// sweep removes the folders of clusters whose process was killed: those whose
// lock nobody holds.
func sweep(temp string) error {
	stale, err := filepath.Glob(filepath.Join(temp, dirPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range stale {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < staleAge {
			continue // gone already, or young
		}
		lock, err := os.Open(filepath.Join(dir, "postgres.lock"))
		if err != nil {
			continue // another user's
		}
		free := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
		if free {
			err = os.RemoveAll(dir)
		}
		if err := errors.Join(err, lock.Close()); err != nil {
			return err
		}
	}
	return nil
}
