// Package postgres keeps chains, executions and the event log in PostgreSQL. It
// implements what the executor, the event log and the HTTP layer declare, and
// translates at that border: rows to domain types, database errors to the
// sentinel errors of the packages that own the facts. It is the only user of
// the generated package db.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/events"
)

// Store is a connection to one database. It is safe for concurrent use. The log
// is written through connections of its own, so that readers, however many,
// never keep it waiting.
type Store struct {
	pool    *pgxpool.Pool
	queries *db.Queries
	logPool *pgxpool.Pool
	log     *db.Queries
	pooled  bool
	turn    atomic.Int64 // id of the chain that was served last by a claim
	space   *space
	jobs    *inserter
}

// logConns is enough for the committers of a log, the looking up of an outcome,
// the renewal of leases, the claims and the reading of what other processes write.
const logConns = 6

// Config says how to reach the database.
type Config struct {
	URL            string        // postgres:// or keyword form; pool_max_conns, default_query_exec_mode and the like are understood
	MaxConns       int32         // of readers and triggers; default 20, unless the URL asks for more
	ConnectTimeout time.Duration // of one connection; default 5 s
}

// Open connects to a database whose schema Migrate has brought up to date. It
// answers an error matching events.ErrUnavailable when the database cannot be
// reached.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	if cfg.MaxConns > 0 {
		pc.MaxConns = cfg.MaxConns
	} else if pc.MaxConns < 20 {
		pc.MaxConns = 20
	}
	pc.ConnConfig.ConnectTimeout = 5 * time.Second
	if cfg.ConnectTimeout > 0 {
		pc.ConnConfig.ConnectTimeout = cfg.ConnectTimeout
	}
	nameConn(pc.ConnConfig)
	pooled, err := throughPooler(ctx, pc.ConnConfig)
	if err != nil {
		return nil, err
	}
	pc.AfterConnect = prepareConn
	room := &space{}
	pc.ConnConfig.Tracer = room
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", translate(err))
	}
	lc := pc.Copy()
	lc.MaxConns, lc.MinConns, lc.MinIdleConns = logConns, 0, 0
	if !pooled {
		lc.AfterConnect = prepareLogConn
	}
	logPool, err := pgxpool.NewWithConfig(ctx, lc)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("open the database: %w", translate(err))
	}
	s := &Store{pool: pool, queries: db.New(pool), logPool: logPool, log: db.New(logPool), pooled: pooled, space: room}
	if s.jobs, err = newInserter(s); err != nil {
		s.Close()
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if err := s.Ping(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// parseConn reads the address of a database for a single connection.
func parseConn(url string) (*pgx.ConnConfig, error) {
	pc, err := pgxpool.ParseConfig(url) // which understands pool_max_conns and the like
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	nameConn(pc.ConnConfig)
	return pc.ConnConfig, nil
}

// nameConn tells PostgreSQL whose connection it is.
func nameConn(c *pgx.ConnConfig) {
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "chainstream"
	}
}

// Close gives the connections back.
func (s *Store) Close() {
	s.pool.Close()
	s.logPool.Close()
}

// Ping tells whether the database answers and has room on its disk.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("reach the database: %w", translate(err))
	}
	return s.space.check()
}

// inTx runs f in one transaction, and again in another one when PostgreSQL has chosen it to
// end a deadlock.
func (s *Store) inTx(ctx context.Context, f func(q *db.Queries) error) error {
	return s.begin(ctx, func(tx pgx.Tx) error { return f(s.queries.WithTx(tx)) })
}

// mostTries bounds how often the same is done that others came in the way of.
const mostTries = 4

func (s *Store) begin(ctx context.Context, f func(tx pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, s.pool, f)
	for try := 1; isCode(err, deadlockDetected) && try < mostTries; try++ {
		err = pgx.BeginFunc(ctx, s.pool, f)
	}
	return translate(err)
}

// unavailable is an error after which the same call may succeed later.
type unavailable struct{ err error }

func (e unavailable) Error() string   { return "the database is unavailable: " + e.err.Error() }
func (e unavailable) Unwrap() []error { return []error{events.ErrUnavailable, e.err} }

// translate marks errors that pass by themselves: a lost or refused connection,
// a server that starts or stops, a deadlock, a lock timeout, a full disk.
// Everything else goes through unchanged.
func translate(err error) error {
	var pgErr *pgconn.PgError
	var gone unavailable
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, pgx.ErrNoRows), errors.As(err, &gone):
		return err
	case isDiskFull(err):
		return full(err)
	case errors.As(err, &pgErr):
		if passing(pgErr.Code) {
			return unavailable{err}
		}
		return err
	case isConnectionError(err):
		return unavailable{err}
	}
	return err
}

// SQLSTATEs that stand for errors of the domain.
const (
	foreignKeyViolation = "23503"
	uniqueViolation     = "23505"
	deadlockDetected    = "40P01"
	undefinedTable      = "42P01"
)

// isCode tells whether PostgreSQL answered an SQLSTATE.
func isCode(err error, sqlState string) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == sqlState
}

// passing tells whether an SQLSTATE stands for a condition that may pass
// (PostgreSQL documentation, appendix A).
func passing(sqlState string) bool {
	switch class := sqlState[:min(2, len(sqlState))]; class {
	case "08", "53", "57", "58": // connection, resources such as disk, operator, system
		return true
	}
	switch sqlState {
	case "40001", deadlockDetected, "55P03", "25006": // serialization, deadlock, lock timeout, read-only while failing over
		return true
	}
	return false
}

// isConnectionError tells whether an error came from the connection rather than
// from the server or from a wrong argument.
func isConnectionError(err error) bool {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	return isNetworkError(err)
}
