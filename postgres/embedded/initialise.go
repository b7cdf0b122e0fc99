package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const stagingPrefix = "postgres.new-"

// initialise makes the cluster if there is none and reports whether it did.
// Everything happens in a staging folder beside it, is synced to disk, and then
// appears by one rename: a kill at any moment leaves a complete cluster or
// none, and leftovers of earlier attempts are removed.
func (c *Cluster) initialise(ctx context.Context) (bool, error) {
	stale, err := filepath.Glob(filepath.Join(escapeGlob(c.paths.root), stagingPrefix+"*"))
	if err != nil {
		return false, fmt.Errorf("look for an interrupted set-up: %w", err)
	}
	for _, dir := range stale {
		if err := os.RemoveAll(dir); err != nil {
			c.logger.Warn("remove an interrupted set-up", "path", dir, "error", err)
		}
	}
	if _, err := os.Stat(c.paths.cluster); err == nil {
		return false, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("look for the cluster: %w", err)
	}

	c.logger.Info("setting up the embedded database", "data_dir", c.paths.root, "version", c.bin.Version)
	dir, err := os.MkdirTemp(c.paths.root, stagingPrefix)
	if err != nil {
		return false, fmt.Errorf("make a staging folder: %w", err)
	}
	if err := c.stage(ctx, c.paths.within(dir)); err != nil {
		return false, errors.Join(fmt.Errorf("set up the database: %w", err), os.RemoveAll(dir))
	}
	if err := os.Rename(dir, c.paths.cluster); err != nil {
		return false, fmt.Errorf("put the new cluster in place: %w", err)
	}
	if err := syncDir(c.paths.root); err != nil {
		return false, fmt.Errorf("put the new cluster in place: %w", err)
	}
	return true, nil
}

// stage makes a complete cluster in a folder.
func (c *Cluster) stage(ctx context.Context, p paths) error {
	// The folder itself stays ours: what we keep in it is safe from the account
	// that PostgreSQL runs as, which only has to pass through.
	if err := os.Chmod(p.cluster, p.mode()); err != nil {
		return fmt.Errorf("open the staging folder: %w", err)
	}
	if err := os.Mkdir(p.data, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if err := c.account.own(p.data); err != nil {
		return err
	}
	// Sorting is by bytes, so that no upgrade of the system's locale data can
	// break an index; letters and their case are Unicode's.
	letters := "C.UTF-8"
	if runtime.GOOS == "darwin" {
		letters = "en_US.UTF-8"
	}
	if err := c.account.run(ctx, p.data, "", c.bin.program("initdb"),
		"--pgdata", p.data, "--username", defaultUser, "--auth", "reject",
		"--encoding", "UTF8", "--locale", "C", "--lc-ctype", letters,
		"--data-checksums", "--no-sync", "--no-instructions"); err != nil {
		return err
	}
	password := rand.Text()
	if err := writeSynced(p.password, password+"\n"); err != nil {
		return fmt.Errorf("write the cluster's password: %w", err)
	}
	// In single-user mode there is no network, no password of the superuser
	// and no server to stop again. A line is a statement.
	statements := strings.Join([]string{
		"CREATE EXTENSION vector", // only a superuser may; here every new database inherits it
		"CREATE ROLE " + role + " LOGIN CREATEDB PASSWORD '" + password + "'",
		// Looking at the server, and ending what is in the way: a session that holds
		// retention back, or a worker of autovacuum in a database that is dropped.
		"GRANT pg_monitor, pg_checkpoint, pg_signal_backend TO " + role,
		"CREATE DATABASE " + database + " OWNER " + role,
	}, "\n") + "\n"
	if err := c.account.run(ctx, p.data, statements, c.bin.program("postgres"),
		"--single", "-D", p.data, "-c", "exit_on_error=on", "-c", "fsync=off",
		"-c", "log_checkpoints=off", "template1"); err != nil {
		return err
	}
	if c.config.Settings["fsync"] == "off" {
		return nil
	}
	err := c.account.run(ctx, p.data, "", c.bin.program("initdb"), "--sync-only", "--pgdata", p.data)
	return err
}

// writeSynced writes a file that only we read and makes it durable.
func writeSynced(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// syncDir makes a rename inside a folder durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// escapeGlob makes a path match itself in a glob pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
