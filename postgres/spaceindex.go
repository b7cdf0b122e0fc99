package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainstream/chainstream/db"
)

// indexLock lets one process make indexes at a time. It is of the session, which
// goes straight to PostgreSQL, and ends with it.
const indexLock = "SELECT pg_try_advisory_lock(hashtext('chainstream knowledge indexes'))"

// IndexSpaces makes the indexes of the spaces that have grown so large that they
// need one, without locking them, and answers how many it made. What was broken off
// is made anew. When another process is at it, it does nothing. url leads to
// PostgreSQL itself, not to a connection pooler.
func (s *Store) IndexSpaces(ctx context.Context, url string) (made int, err error) {
	ids, err := s.queries.SpaceIDs(ctx)
	if err != nil {
		return 0, fmt.Errorf("list the spaces of vectors: %w", translate(err))
	}
	var due []int64
	for _, id := range ids {
		statement, err := s.queries.SpaceIndex(ctx, id)
		if err != nil {
			return 0, fmt.Errorf("look at the vectors of space %d: %w", id, translate(err))
		}
		if statement != "" {
			due = append(due, id)
		}
	}
	if len(due) == 0 {
		return 0, nil
	}
	cfg, err := parseConn(url)
	if err != nil {
		return 0, err
	}
	cfg.RuntimeParams["application_name"] = "chainstream indexes"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, fmt.Errorf("make indexes: %w", translate(err))
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var mine bool
	if err := conn.QueryRow(ctx, indexLock).Scan(&mine); err != nil || !mine {
		return 0, translate(err)
	}
	for _, id := range due {
		// Another process may have made it before this one got the lock.
		statement, err := db.New(conn).SpaceIndex(ctx, id)
		if err != nil {
			return made, fmt.Errorf("look at the vectors of space %d: %w", id, translate(err))
		}
		if statement == "" {
			continue
		}
		if err := makeIndex(ctx, conn, id, statement); err != nil {
			return made, fmt.Errorf("make the index of space %d: %w", id, translate(err))
		}
		made++
	}
	return made, nil
}

// graphElement is about what a vector takes, in bytes, in a graph that is being made,
// beside its numbers: its neighbours, and what is noted of it.
const graphElement = 1000

// makeIndex makes the index of a space. The graph is made in memory as far as that
// suffices, and many times more slowly from there on. So it gets what it needs, up to
// half of what PostgreSQL was told that the machine keeps of its files. Where
// processes cannot share so much, as in containers with a small /dev/shm, one process
// makes it alone, and where there is not so much at all, with what the operator allows.
func makeIndex(ctx context.Context, conn db.DBTX, space int64, statement string) error {
	size, err := db.New(conn).SpaceSize(ctx, space)
	if err != nil {
		return err
	}
	needed := size.Vectors * (2*int64(size.Dimensions) + graphElement)
	const (
		given   = "SELECT set_config('maintenance_work_mem', greatest(least($1::bigint, pg_size_bytes(current_setting('effective_cache_size')) / 2) / 1024, 65536) || 'kB', false)"
		alone   = "SET max_parallel_maintenance_workers = 0"
		allowed = "RESET maintenance_work_mem"
	)
	if _, err := conn.Exec(ctx, "RESET max_parallel_maintenance_workers"); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, given, needed); err != nil {
		return err
	}
	for _, fallback := range []string{alone, allowed, ""} {
		// One that is there is not valid: its making was broken off.
		left := pgx.Identifier{fmt.Sprintf("chunk_vectors_%d_hnsw", space)}.Sanitize()
		if _, err := conn.Exec(ctx, "DROP INDEX CONCURRENTLY IF EXISTS "+left, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol)
		if err == nil || fallback == "" || !isShortOfMemory(err) {
			return err
		}
		if _, err := conn.Exec(ctx, fallback); err != nil {
			return err
		}
	}
	return nil
}

// isShortOfMemory tells whether PostgreSQL lacked memory, its own or such as
// processes share, which is a file to it.
func isShortOfMemory(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "53200" || e.Code == "53100" && strings.Contains(e.Message, "shared memory"))
}
