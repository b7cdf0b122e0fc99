package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/postgres/embedded"
)

// Database is a new database with the schema of the server. It is the embedded
// cluster as the server runs it, so commits wait for the disk.
type Database struct {
	URL     string
	Store   *postgres.Store
	Version string // of PostgreSQL
	PID     int    // of its first process

	cluster *embedded.Cluster
	remove  string // the folder that goes with it
}

// StartDatabase makes a database that lives until Close.
func StartDatabase(ctx context.Context) (*Database, error) {
	dir, err := temporary()
	if err != nil {
		return nil, err
	}
	return start(ctx, &Database{remove: dir}, dir)
}

// OpenDatabase starts the database of a folder, which is made where there is none and
// stays after Close.
func OpenDatabase(ctx context.Context, dir string) (*Database, error) {
	return start(ctx, &Database{}, dir)
}

func start(ctx context.Context, d *Database, dir string) (*Database, error) {
	var err error
	if d.cluster, err = embedded.Start(ctx, embedded.Config{DataDir: dir}); err != nil {
		return nil, errors.Join(err, d.removeFolder())
	}
	d.URL = d.cluster.SocketURL()
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Database) open(ctx context.Context) error {
	if _, err := postgres.Migrate(ctx, d.URL); err != nil {
		return err
	}
	var err error
	if d.Store, err = postgres.Open(ctx, postgres.Config{URL: d.URL}); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, d.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing was written
	var backend int
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid(), current_setting('server_version')").Scan(&backend, &d.Version); err != nil {
		return fmt.Errorf("read the database's version: %w", err)
	}
	d.PID, err = measure.Parent(backend)
	return err
}

// Close stops the database, and removes one that StartDatabase has made.
func (d *Database) Close() error {
	if d.Store != nil {
		d.Store.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(d.cluster.Stop(ctx), d.removeFolder())
}

func (d *Database) removeFolder() error {
	if d.remove == "" {
		return nil
	}
	return os.RemoveAll(d.remove)
}

// Execute makes n executions of a chain and claims them, without running them:
// their logs can be written by who asked. They come in the order of their ids.
func Execute(ctx context.Context, store *postgres.Store, v *chain.Version, n int) ([]executor.Execution, error) {
	for range n {
		if _, _, err := store.Enqueue(ctx, executor.Trigger{Version: v, Inputs: map[string]any{}}); err != nil {
			return nil, err
		}
	}
	claimed, err := store.Claim(ctx, "bench", n, time.Hour)
	if err == nil && len(claimed) != n {
		err = fmt.Errorf("claimed %d of %d executions", len(claimed), n)
	}
	slices.SortFunc(claimed, func(a, b executor.Execution) int { return cmp.Compare(a.ID, b.ID) })
	return claimed, err
}

// chainName is the chain of the executions that are never run.
const chainName = "bench"

// Chain stores a chain of one prompt, for executions that are never run.
func Chain(ctx context.Context, store *postgres.Store) (*chain.Version, error) {
	c, err := chain.Parse([]byte("name: "+chainName+"\nprompts:\n- {name: Text, model: offline/echo, content: text}\n"), chain.FormatYAML)
	if err != nil {
		return nil, err
	}
	return store.CreateChain(ctx, c)
}

// temporary makes a folder that the account of PostgreSQL can pass through.
func temporary() (string, error) {
	dir, err := os.MkdirTemp("", "chainstream-bench-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the database: %w", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}
