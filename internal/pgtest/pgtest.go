// Package pgtest gives tests a real PostgreSQL.
//
// A test process starts one embedded cluster when its first test asks for a
// database, and stops it at its end. Every test gets a database of its own,
// copied from a template that has the project's schema, so tests share nothing
// and may all run in parallel. Where CHAINSTREAM_TEST_DATABASE_URL names a
// server, that one is used instead; the program in pgtest/withpg sets it, so
// that all packages of one go test run share a cluster. Its role must be
// allowed to create databases, and its template1 must have the vector
// extension where the role may not create extensions.
//
// A machine without PostgreSQL fails the tests and says how to install it.
// Durability is switched off (fsync): no test depends on surviving a crash of
// the machine.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"
)

// EnvURL is the environment variable that names a PostgreSQL server to use
// instead of a cluster of the process's own.
const EnvURL = "CHAINSTREAM_TEST_DATABASE_URL"

// opTimeout bounds every single thing done to the server.
const opTimeout = 2 * time.Minute

// process is what the tests of this process share. It has to be a variable of
// the package: testing offers no other place between TestMain and the tests.
var process server

// server is the PostgreSQL of a test process, started when first needed.
type server struct {
	mu       sync.Mutex
	running  bool // between the begin and the end of Main
	err      error
	url      string // of a database that tests do not touch
	admin    *pgxpool.Pool
	template string
	stop     func(context.Context) error
}

// Main runs the tests of a package, stops the server they used, reports
// goroutines that are left when all tests passed, and exits. Options are
// goleak's, for leaks of others that are known.
func Main(m *testing.M, options ...goleak.Option) {
	os.Exit(Run(m, options...))
}

// Run is Main for a package that has something to do after its tests: it
// answers the exit code.
func Run(m *testing.M, options ...goleak.Option) int {
	process.begin()
	code := m.Run()
	if err := process.end(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the test database:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left by the tests:", err)
			code = 1
		}
	}
	return code
}

// Database returns the connection string of a new database with the project's
// schema. It is dropped, whoever is still connected, when the test ends.
func Database(t testing.TB) string {
	t.Helper()
	return create(t, true)
}

// Empty is Database without the schema.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, false)
}

func create(t testing.TB, migrated bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), opTimeout)
	defer cancel()
	if err := process.ready(ctx); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	template := "template1"
	if migrated {
		var err error
		if template, err = process.schema(ctx); err != nil {
			t.Fatalf("pgtest: %v", err)
		}
	}
	name := databaseName(t.Name())
	// wal_log copies through the buffers; file_copy would force two checkpoints
	// on all tests that run beside this one.
	statement := fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s STRATEGY wal_log",
		pgx.Identifier{name}.Sanitize(), pgx.Identifier{template}.Sanitize())
	if _, err := process.admin.Exec(ctx, statement); err != nil {
		t.Fatalf("pgtest: create database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), opTimeout)
		defer cancel()
		if _, err := process.admin.Exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: drop database: %v", err)
		}
	})
	dsn, err := withDatabase(process.url, name)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return dsn
}

// databaseName makes a name that says which test it belongs to and that no
// other test process chooses.
func databaseName(test string) string {
	const longest = 63 // bytes of an identifier
	suffix := "_" + strings.ToLower(rand.Text()[:10])
	name := "test_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, test)
	return name[:min(len(name), longest-len(suffix))] + suffix
}

func (s *server) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = true
}

// ready makes sure that the server runs. A failure is kept: what prevented the
// first test's database prevents the others'.
func (s *server) ready(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.running:
		return errors.New("the package needs: func TestMain(m *testing.M) { pgtest.Main(m) }")
	case s.err != nil || s.admin != nil:
		return s.err
	}
	s.err = s.connect(ctx)
	return s.err
}

func (s *server) connect(ctx context.Context) error {
	s.url = os.Getenv(EnvURL)
	if s.url == "" {
		cluster, stop, err := StartCluster(ctx)
		if err != nil {
			return err
		}
		s.url, s.stop = cluster, stop
	}
	config, err := pgxpool.ParseConfig(s.url)
	if err != nil {
		return fmt.Errorf("parse %s: %w", EnvURL, err)
	}
	config.MaxConns = 4
	if s.admin, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return fmt.Errorf("connect to the test database: %w", err)
	}
	return nil
}

// schema returns the name of the migrated template database, made by the first
// test process that needs it.
func (s *server) schema(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.template == "" {
		template, err := ensureTemplate(ctx, s.admin, s.url)
		if err != nil {
			return "", err
		}
		s.template = template
	}
	return s.template, nil
}

func (s *server) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	if s.admin != nil {
		s.admin.Close()
	}
	if s.stop == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	return s.stop(ctx)
}
