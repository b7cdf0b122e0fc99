package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// prepareConn teaches a new connection to encode the arrays of the append
// statement in one go.
func prepareConn(_ context.Context, conn *pgx.Conn) error {
	registerArrays(conn.TypeMap())
	return nil
}

// logSettings are explained with prepareLogConn.
const logSettings = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_sort = off; SET jit = off"

// prepareLogConn is prepareConn for the connections of the log and the queue, whose
// few statements find their rows by key. Left to itself PostgreSQL plans the append
// anew for every commit, which can take longer than the append, and in a database
// without statistics it reads all of executions for it. Where the statistics are
// from before a burst, it would read and sort the whole queue for a claim; without
// sorting, it goes along the index that has the order. What cannot do without is
// only made to look expensive, which must not set off the compiler.
func prepareLogConn(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, logSettings); err != nil {
		return fmt.Errorf("set up a connection of the log: %w", err)
	}
	return prepareConn(ctx, conn)
}
