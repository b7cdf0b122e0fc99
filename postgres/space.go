package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainstream/chainstream/events"
)

// diskFull is the SQLSTATE of a statement that found no room on the disk.
const diskFull = "53100"

// fullFor is how long a database counts as full after a statement found it so.
// Reading works meanwhile, so nothing but the next write can tell.
const fullFor = 5 * time.Second

// space notices, as the tracer of all connections, when the database's disk is
// full.
type space struct{ found atomic.Int64 } // when, in Unix nanoseconds; 0 = never

// TraceQueryStart implements pgx.QueryTracer.
func (*space) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (s *space) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if data.Err != nil && isDiskFull(data.Err) {
		s.found.Store(time.Now().UnixNano())
	}
}

// check answers events.ErrNoSpace while the database counts as full.
func (s *space) check() error {
	if at := s.found.Load(); at != 0 && time.Since(time.Unix(0, at)) < fullFor {
		return unavailable{events.ErrNoSpace}
	}
	return nil
}

func isDiskFull(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == diskFull
}

// full marks an error of a database whose disk is full.
func full(err error) error { return unavailable{fmt.Errorf("%w: %w", events.ErrNoSpace, err)} }
