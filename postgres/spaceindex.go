package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

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
	// A graph that does not fit into this is made many times more slowly.
	if _, err := conn.Exec(ctx, "SET maintenance_work_mem = '256MB'"); err != nil {
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
		// One that is there is not valid: its making was broken off.
		left := pgx.Identifier{fmt.Sprintf("chunk_vectors_%d_hnsw", id)}.Sanitize()
		if _, err := conn.Exec(ctx, "DROP INDEX CONCURRENTLY IF EXISTS "+left, pgx.QueryExecModeSimpleProtocol); err != nil {
			return made, fmt.Errorf("remove the broken index of space %d: %w", id, translate(err))
		}
		if _, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			return made, fmt.Errorf("make the index of space %d: %w", id, translate(err))
		}
		made++
	}
	return made, nil
}
