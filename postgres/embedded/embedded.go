// Package embedded runs a PostgreSQL cluster of our own, from the PostgreSQL
// that is installed on the machine, so that the server needs no database to be
// set up by hand.
//
// # What it guarantees
//
// The cluster lives in the subfolder "postgres" of a data directory. It is
// made whole or not at all: initdb and everything after it work in a staging
// folder that is synced to disk and then renamed. It listens on a port of
// 127.0.0.1 and on a socket in a private folder, nowhere else, and asks every
// connection for a generated password (SCRAM) that is kept in a file with mode
// 0600. The role that the password belongs to owns the database and may create
// others, but is no superuser: row-level security applies to it. The
// superuser has no password and therefore cannot log in.
//
// Commits are durable (fsync and synchronous_commit stay on), so nothing that
// was committed is lost when this process, PostgreSQL or the machine dies.
//
// # Life of the PostgreSQL process
//
// PostgreSQL runs as a child in a process group of its own: a Ctrl-C in the
// terminal reaches us and not it, and we stop it in our order. When this
// process dies without stopping it, Linux sends the child SIGINT (a fast
// shutdown). That parent-death signal belongs to the thread that made the
// child, so the child is started and awaited on one locked thread. Where the
// signal does not exist, or did not come in time, the next Start finds the
// orphan by its data directory and stops it before it starts its own. It is
// stopped and not adopted: an adopted server would keep old settings, and its
// exit could not be awaited.
//
// When PostgreSQL ends without being asked to, it is started again, as a service
// manager would do it, up to Config.MaxRestarts times within a minute; it recovers what was committed, and clients connect
// again. It keeps its socket and its port; should the port have been taken in
// between, it serves the socket alone until the next start.
//
// A process started as root runs PostgreSQL, which refuses root, as another
// user: the owner of an existing cluster, else Config.User.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	database = "chainstream" // the database, and the role that owns it
	role     = "chainstream"

	defaultUser        = "postgres"
	defaultStopTimeout = 30 * time.Second
	defaultMaxRestarts = 3
	crashWindow        = time.Minute     // in which restarts are counted
	quitTimeout        = 5 * time.Second // from an immediate shutdown to SIGKILL
	pollInterval       = 10 * time.Millisecond
	silenceLimit       = time.Minute
	launchTries        = 5 // ports tried before giving up

	cannotConnectNow = "57P03" // SQLSTATE of a server that starts, recovers or stops
)

// Config says where the cluster lives and how it runs. Only DataDir is needed.
type Config struct {
	// DataDir is the data directory of the server; the cluster is its
	// subfolder "postgres". It is made when absent.
	DataDir string
	// BinDir is the folder that holds initdb and postgres. Empty: the newest
	// suitable installation of the machine, or the one whose major version an
	// existing cluster was made with.
	BinDir string
	// User is the account that PostgreSQL runs as when this process is root.
	// Empty: "postgres". Without effect for other users.
	User string
	// Logger receives starts, stops and what had to be cleaned up. Nil: nobody.
	Logger *slog.Logger
	// Settings are PostgreSQL parameters that win over the built-in ones.
	// Where the server listens cannot be set.
	Settings map[string]string
	// StopTimeout is how long Stop waits for a fast shutdown before it makes
	// an immediate one. Zero: 30 s.
	StopTimeout time.Duration
	// MaxRestarts is how many times within a minute PostgreSQL is started again
	// when it ends unexpectedly. Zero: 3. Negative: never.
	MaxRestarts int
}

// Cluster is a running PostgreSQL cluster. Its methods may be called from
// several goroutines.
type Cluster struct {
	config    Config
	paths     paths
	bin       Installation
	account   account
	lock      *lock
	socketDir string
	listen    string // the address that it listens on; empty = the socket alone
	port      int
	password  string
	logger    *slog.Logger

	done      chan struct{} // closed when nothing is watched over any more
	stopWatch context.CancelFunc
	stopOnce  sync.Once
	stopErr   error

	mu       sync.Mutex
	server   *server
	stopping bool
	failed   error // why PostgreSQL was given up
}

// Start starts the cluster of a data directory, making it first where there is
// none, and returns when it accepts connections. The context bounds the start
// alone; the cluster runs until Stop.
//
// Errors: ErrNotInstalled, ErrVectorMissing, ErrVersion, ErrInUse,
// ErrNotTraversable, ErrNoAccount; anything else carries what PostgreSQL said.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	c := &Cluster{config: config, logger: config.Logger, listen: "127.0.0.1"}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if c.config.User == "" {
		c.config.User = defaultUser
	}
	if c.config.MaxRestarts == 0 {
		c.config.MaxRestarts = defaultMaxRestarts
	}
	if c.config.StopTimeout <= 0 {
		c.config.StopTimeout = defaultStopTimeout
	}
	if err := c.start(ctx); err != nil {
		c.release()
		return nil, fmt.Errorf("start embedded database: %w", err)
	}
	var watch context.Context
	watch, c.stopWatch = context.WithCancel(context.WithoutCancel(ctx))
	c.done = make(chan struct{})
	go c.supervise(watch)
	return c, nil
}

// URL is the connection string of the cluster's database, with the password,
// over TCP on the loopback interface.
func (c *Cluster) URL() string { return connection(c.port, c.password) }

func connection(port int, password string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(role, password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Address is the URL of the cluster that was last started in a data directory,
// perhaps by another process; it says nothing about whether it runs. The error
// matches fs.ErrNotExist where no cluster ever ran, and fs.ErrPermission where it
// is somebody else's.
func Address(dataDir string) (string, error) {
	p, err := locate(dataDir)
	if err != nil {
		return "", err
	}
	port, err := os.ReadFile(p.port)
	if err != nil {
		return "", fmt.Errorf("read the database's port: %w", err)
	}
	password, err := os.ReadFile(p.password)
	if err != nil {
		return "", fmt.Errorf("read the database's password: %w", err)
	}
	number, err := strconv.Atoi(strings.TrimSpace(string(port)))
	if err != nil {
		return "", fmt.Errorf("read the database's port: %w", err)
	}
	return connection(number, strings.TrimSpace(string(password))), nil
}

// SocketURL is URL over the cluster's private socket. It reaches the same
// database at less cost, but only from the account of this process.
func (c *Cluster) SocketURL() string {
	query := url.Values{"host": {c.socketDir}, "port": {strconv.Itoa(c.port)}, "sslmode": {"disable"}}
	u := url.URL{
		Scheme: "postgres",
		User:   url.UserPassword(role, c.password),
		Path:   "/" + database,
		// Connection strings know no plus sign for a space.
		RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20"),
	}
	return u.String()
}

// Done is closed when PostgreSQL runs no more, by Stop or because it ended and
// could not be started again.
func (c *Cluster) Done() <-chan struct{} { return c.done }

// Err says why PostgreSQL was given up: how it ended and the last complaint of
// its log. It is nil while the cluster runs and after Stop.
func (c *Cluster) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// Stop shuts the cluster down: a fast shutdown (open transactions are rolled
// back, everything is written), then, when that takes longer than
// Config.StopTimeout or ctx lasts, an immediate one, after which the next start
// has to recover. It returns an error only where the shutdown was not a fast
// one. Further calls return what the first one did.
func (c *Cluster) Stop(ctx context.Context) error {
	c.stopOnce.Do(func() {
		c.mu.Lock()
		c.stopping = true
		srv := c.server
		c.mu.Unlock()
		c.stopWatch()
		c.stopErr = srv.stop(ctx, c.config.StopTimeout)
		<-c.done
		c.release()
		c.logger.Info("embedded database stopped", "data_dir", c.paths.root)
	})
	return c.stopErr
}

// release gives back what start acquired around the server process.
func (c *Cluster) release() {
	if c.socketDir != "" && c.socketDir != c.paths.run {
		if err := os.RemoveAll(c.socketDir); err != nil {
			c.logger.Warn("remove socket folder", "path", c.socketDir, "error", err)
		}
	}
	if c.lock != nil {
		c.lock.release()
	}
}

func (c *Cluster) start(ctx context.Context) error {
	begin := time.Now()
	_, err := renderSettings(c.config.Settings) // before anything is touched
	if err != nil {
		return err
	}
	if c.paths, err = locate(c.config.DataDir); err != nil {
		return err
	}
	if c.bin, err = c.installation(); err != nil {
		return err
	}
	if err := c.paths.make(); err != nil {
		return err
	}
	if c.lock, err = acquire(c.paths); err != nil {
		return err
	}
	if c.account, err = accountFor(c.paths, c.config.User); err != nil {
		return err
	}
	if err := c.account.reach(ctx, c.bin, c.paths.root); err != nil {
		return err
	}
	fresh, err := c.initialise(ctx)
	if err != nil {
		return err
	}
	if err := c.clearOrphans(ctx); err != nil {
		return err
	}
	password, err := os.ReadFile(c.paths.password)
	if err != nil {
		return fmt.Errorf("read the cluster's password: %w", err)
	}
	c.password = strings.TrimSpace(string(password))
	if err := c.configure(ctx); err != nil {
		return err
	}
	if c.socketDir, err = c.makeSocketDir(); err != nil {
		return err
	}
	if err := c.launch(ctx); err != nil {
		return err
	}
	c.logger.Info("embedded database ready", "data_dir", c.paths.root, "version", c.bin.Version,
		"port", c.port, "first_start", fresh, "duration_ms", time.Since(begin).Milliseconds())
	return nil
}

// installation finds the PostgreSQL that can run this cluster.
func (c *Cluster) installation() (Installation, error) {
	major, err := c.paths.major()
	if err != nil {
		return Installation{}, err
	}
	var bin Installation
	switch {
	case c.config.BinDir != "":
		if bin, err = inspect(c.config.BinDir); err != nil {
			return Installation{}, fmt.Errorf("%w in %s: %w", ErrNotInstalled, c.config.BinDir, err)
		}
	case major == 0:
		if bin, err = Find(); err != nil {
			return Installation{}, err
		}
	default:
		if bin, err = findMajor(major); err != nil {
			return Installation{}, err
		}
	}
	switch {
	case major != 0 && bin.Major != major:
		return Installation{}, versionError(c.paths.data, major, bin.Version)
	case !bin.HasVector:
		return Installation{}, vectorError(bin)
	}
	return bin, nil
}

// launch starts the server process on a free port and waits until it accepts
// connections. Another program may take the port between the choice and the
// start; then the next port is tried.
func (c *Cluster) launch(ctx context.Context) error {
	for try := 1; ; try++ {
		port, err := c.choosePort(try == 1)
		if err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		c.port = port
		err = c.up(ctx)
		if err == nil {
			return c.rememberPort()
		}
		if c.current() == nil {
			return err // there was no process
		}
		if stopErr := c.current().stop(context.WithoutCancel(ctx), c.config.StopTimeout); stopErr != nil {
			c.logger.Warn("stop after a failed start", "error", stopErr)
		}
		if try == launchTries || !errors.Is(err, errPortTaken) {
			return err
		}
		c.logger.Warn("port was taken, trying another", "port", port)
	}
}

// awaitReady connects until the server lets us in, exits or ctx ends. Recovery
// after a crash may take minutes, in which it answers that it is busy; a server
// that does not even answer is given up after silenceLimit.
func (c *Cluster) awaitReady(ctx context.Context) error {
	config, err := pgx.ParseConfig(c.SocketURL())
	if err != nil {
		return fmt.Errorf("parse own address: %w", err)
	}
	config.ConnectTimeout = 5 * time.Second
	srv := c.current()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	answered := time.Now()
	for {
		conn, err := pgx.ConnectConfig(ctx, config)
		if err == nil {
			return conn.Close(ctx)
		}
		if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == cannotConnectNow {
			answered = time.Now()
		} else if pgErr != nil || time.Since(answered) > silenceLimit {
			return fmt.Errorf("connect to the started database: %w", err)
		}
		select {
		case <-ticker.C:
		case <-srv.exited:
			return srv.failure()
		case <-ctx.Done():
			return fmt.Errorf("wait for the database: %w", context.Cause(ctx))
		}
	}
}

// choosePort prefers the port of the last run, so that saved connections of
// other tools stay valid, and else lets the system choose.
func (c *Cluster) choosePort(previous bool) (int, error) {
	if previous {
		if text, err := os.ReadFile(c.paths.port); err == nil {
			port, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err == nil && port > 0 && port < 1<<16 {
				if port, err := tryPort(port); err == nil {
					return port, nil
				}
			}
		}
	}
	return tryPort(0)
}

func tryPort(port int) (int, error) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return 0, err
	}
	addr, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("unexpected address %v", listener.Addr())
	}
	return addr.Port, listener.Close()
}

func (c *Cluster) rememberPort() error {
	if err := replaceFile(c.paths.port, strconv.Itoa(c.port)+"\n", 0o600); err != nil {
		return fmt.Errorf("remember the port: %w", err)
	}
	return nil
}

// maxSocketPath is the shortest sun_path of the supported systems (macOS),
// without the closing NUL. Linux has 107.
const maxSocketPath = 103

// makeSocketDir returns the private folder for the socket: "run" beside the
// cluster, or a folder under /tmp where that path is too long for a socket
// address or holds characters that the lists of PostgreSQL and of connection
// strings give a meaning.
func (c *Cluster) makeSocketDir() (string, error) {
	dir := c.paths.run
	plain := strings.IndexFunc(dir, func(r rune) bool {
		return !strings.ContainsRune("/._-+ ", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
	if !plain || len(filepath.Join(dir, ".s.PGSQL.65535")) > maxSocketPath {
		var err error
		if dir, err = os.MkdirTemp("/tmp", socketDirPrefix+"*"); err != nil {
			return "", fmt.Errorf("make a folder for the socket: %w", err)
		}
	} else if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make the socket folder: %w", err)
	}
	if err := c.account.own(dir); err != nil {
		return "", err
	}
	return dir, nil
}

const socketDirPrefix = "chainstream-pg-"

// Signals to a postmaster. A fast shutdown rolls back and writes everything; an
// immediate one leaves recovery to the next start.
const (
	fastShutdown      = syscall.SIGINT
	immediateShutdown = syscall.SIGQUIT
)
