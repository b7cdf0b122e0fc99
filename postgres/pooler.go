package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

const execModeParameter = "default_query_exec_mode"

// throughPooler finds out whether connections go through a pooler, such as
// PgBouncer, and prepares the configuration for one: in transaction mode two
// statements of a connection may run in different sessions of the database, so
// nothing may be left behind in a session, neither prepared statements nor
// settings. Whoever names a default_query_exec_mode in the URL has decided for
// himself; cache_statement says that there is no such pooler.
func throughPooler(ctx context.Context, config *pgx.ConnConfig) (bool, error) {
	switch mode := config.DefaultQueryExecMode; mode {
	case pgx.QueryExecModeCacheStatement:
		if strings.Contains(config.ConnString(), execModeParameter) {
			return false, nil
		}
	case pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec:
		return true, nil
	default: // these guess what type a parameter has, and take JSON for bytes
		return false, fmt.Errorf("read the database URL: %s must be cache_statement, cache_describe or describe_exec", execModeParameter)
	}
	probe := config.Copy()
	probe.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(ctx, probe)
	if err != nil {
		return false, fmt.Errorf("reach the database: %w", translate(err))
	}
	defer hangUp(conn, config.ConnectTimeout)
	var session uint32
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&session); err != nil {
		return false, fmt.Errorf("reach the database: %w", translate(err))
	}
	if session == conn.PgConn().PID() {
		return false, nil
	}
	// Who answered is not who has been connected to. Descriptions of statements
	// are cached on this side; a statement is parsed, bound and run in one go.
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	return true, nil
}

// Identity is a name of the database that all who use it agree on, however they
// reach it, and that no other database has: letters, digits and hyphens.
func (s *Store) Identity(ctx context.Context) (string, error) {
	// The cluster keeps its identifier for life and over replication. sqlc knows
	// no system catalogue.
	const query = "SELECT (SELECT system_identifier FROM pg_control_system()) || '-' || (SELECT oid FROM pg_database WHERE datname = current_database())"
	var name string
	if err := s.pool.QueryRow(ctx, query).Scan(&name); err != nil {
		return "", fmt.Errorf("identify the database: %w", translate(err))
	}
	return name, nil
}

// Pooled tells whether the database is reached through a connection pooler.
func (s *Store) Pooled() bool { return s.pooled }
