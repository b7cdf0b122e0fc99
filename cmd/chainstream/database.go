package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/postgres/embedded"
)

// databaseFlags say where chains, executions and events are kept.
type databaseFlags struct {
	DatabaseURL string `help:"PostgreSQL database to use. Without one, an embedded PostgreSQL runs in the data directory." placeholder:"postgres://…" environ:"DATABASE_URL"`
	ListenURL   string `name:"listen-database-url" help:"The same database without a connection pooler, for LISTEN and migrations. Default: the database URL." placeholder:"postgres://…" environ:"CHAINSTREAM_LISTEN_DATABASE_URL"`
	DataDir     string `help:"Data directory of the embedded database. Default: /var/lib/chainstream for root, else a folder of your own." type:"path" placeholder:"DIR" environ:"CHAINSTREAM_DATA_DIR"`
}

// directory answers the data directory.
func (f databaseFlags) directory(getenv func(string) string) (string, error) {
	if f.DataDir != "" {
		return f.DataDir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/chainstream", nil
	}
	home := getenv("HOME")
	if runtime.GOOS == "darwin" && home != "" {
		return filepath.Join(home, "Library", "Application Support", "chainstream"), nil
	}
	if data := getenv("XDG_DATA_HOME"); filepath.IsAbs(data) { // the XDG specification ignores other paths
		return filepath.Join(data, "chainstream"), nil
	}
	if home == "" {
		return "", usage("there is no home directory to keep data in; name a directory with --data-dir (CHAINSTREAM_DATA_DIR)")
	}
	return filepath.Join(home, ".local", "share", "chainstream"), nil
}

// database is a PostgreSQL database that is ready to be connected to.
type database struct {
	url     string
	direct  string            // url without a connection pooler in transaction mode
	where   string            // for messages, without a password
	cluster *embedded.Cluster // nil when the database is somebody else's
}

// open answers the database of the flags and starts the embedded one if need be.
func (f databaseFlags) open(ctx context.Context, getenv func(string) string, logger *slog.Logger) (*database, error) {
	if f.DatabaseURL != "" {
		return f.given(), nil
	}
	dir, err := f.directory(getenv)
	if err != nil {
		return nil, err
	}
	cluster, err := embedded.Start(ctx, embedded.Config{DataDir: dir, Logger: logger, StopTimeout: clusterStop})
	if err != nil {
		return nil, databaseError(err, "the embedded database in "+dir)
	}
	return &database{url: cluster.SocketURL(), direct: cluster.SocketURL(), where: "the embedded database in " + dir, cluster: cluster}, nil
}

// running answers the embedded database that another process runs. The error
// says that it is not known or is somebody else's.
func (f databaseFlags) running(getenv func(string) string) (*database, error) {
	dir, err := f.directory(getenv)
	if err != nil {
		return nil, err
	}
	address, err := embedded.Address(dir)
	if err != nil {
		return nil, err
	}
	return &database{url: address, direct: address, where: "the embedded database in " + dir}, nil
}

// given is the database that the flags name.
func (f databaseFlags) given() *database {
	return &database{url: f.DatabaseURL, direct: cmp.Or(f.ListenURL, f.DatabaseURL), where: describeURL(f.DatabaseURL)}
}

// clusterStop bounds a clean stop of the embedded database. A database that
// needs longer is stopped hard and recovers at its next start; nothing that was
// committed is lost either way.
const clusterStop = 5 * time.Second

// close stops the embedded database.
func (d *database) close() error {
	if d.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*clusterStop)
	defer cancel()
	if err := d.cluster.Stop(ctx); err != nil && d.cluster.Err() == nil {
		return fmt.Errorf("stop the embedded database: %w", err)
	}
	return nil
}

// died is closed when the embedded database has ended; it is nil, and so never
// ready, for a database that is somebody else's.
func (d *database) died() <-chan struct{} {
	if d.cluster == nil {
		return nil
	}
	return d.cluster.Done()
}

// migrate brings the schema up to date.
func (d *database) migrate(ctx context.Context, logger *slog.Logger) error {
	applied, err := postgres.Migrate(ctx, d.direct)
	if err != nil {
		return databaseError(err, d.where)
	}
	if len(applied) > 0 {
		logger.InfoContext(ctx, "schema brought up to date", "versions", applied)
	}
	return nil
}

// describeURL names a database by host and name. A connection string in the
// keyword form is not taken apart, because it may hold a password.
func describeURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return "the database of --database-url (DATABASE_URL)"
	}
	return "the database " + u.Host + u.Path
}

// errDatabaseDied says that PostgreSQL ended under a running server.
var errDatabaseDied = errors.New("the embedded database ended unexpectedly")

// failure says why the embedded database ended.
func (d *database) failure() error {
	if diskFull(d.cluster.Err()) {
		return databaseError(d.cluster.Err(), d.where)
	}
	return fmt.Errorf("%w: %w; its log is server.log in the data directory, and the next start recovers what was committed", errDatabaseDied, d.cluster.Err())
}
