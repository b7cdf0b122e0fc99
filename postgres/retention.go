package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/failpoint"
)

// RetentionPolicy says how long the log is kept. Zero keeps it for ever.
type RetentionPolicy struct {
	Keep time.Duration // after which partitions of finished executions are dropped
	Fold time.Duration // after which the text deltas of finished executions are folded away
}

// Trimmed is what one turn of Trim did.
type Trimmed struct {
	Partitions int   // dropped
	Executions int   // folded
	Events     int64 // deleted by folding
}

// upkeepLock tells whether this transaction is the one that does the upkeep.
const upkeepLock = "SELECT pg_try_advisory_xact_lock(hashtext('chainstream.events_upkeep'))"

// Bounds of a turn.
const (
	foldBatch = 200 // executions that are folded in one turn; each in a transaction of its own
	// detachWait is how long a removal waits for an open transaction, and for a
	// lock. Nobody waits for the removal meanwhile; the next turn goes on.
	detachWait = 2 * time.Second
)

// ErrHeldBack says that an open transaction keeps a partition from being
// dropped. The next turn tries again.
var ErrHeldBack = errors.New("an open transaction holds the removal of old events back")

// EnsurePartitions makes the log's partitions for at least the next ahead
// executions and answers how many were made. Their size follows the rate.
func (s *Store) EnsurePartitions(ctx context.Context, ahead int64) (int, error) {
	failpoint.Reach(failpoint.UpkeepBefore)
	made, err := s.queries.EventPartitionsEnsure(ctx, ahead)
	failpoint.Reach(failpoint.UpkeepAfter)
	if err != nil {
		return 0, fmt.Errorf("make partitions of the log: %w", translate(err))
	}
	return int(made), nil
}

// noPartition tells whether a row found no partition of a table. The code is that of a
// check constraint, which such tables leave to their partitions.
func noPartition(err error, table string) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "23514" && pgErr.TableName == table
}

// Trim does one turn of upkeep of the log: it drops partitions and folds text
// deltas as the policy says, and finishes removals that were interrupted. When
// another process is at it, it does nothing. url leads to PostgreSQL itself,
// not to a connection pooler, because detaching a partition spans transactions.
func (s *Store) Trim(ctx context.Context, url string, policy RetentionPolicy) (done Trimmed, err error) {
	// The lock is held by a transaction that does nothing else: a lock of the
	// session would go astray behind a connection pooler. The simple protocol
	// leaves no portal behind, whose snapshot would hold the removal back.
	err = translate(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var mine bool
		err := tx.QueryRow(ctx, upkeepLock, pgx.QueryExecModeSimpleProtocol).Scan(&mine)
		if err != nil || !mine {
			return err
		}
		dropErr := s.drop(ctx, url, policy.Keep, &done)
		return errors.Join(dropErr, s.fold(ctx, policy.Fold, &done))
	}))
	if err != nil {
		return done, fmt.Errorf("trim the log: %w", err)
	}
	return done, nil
}

// drop removes partitions in three steps, each of which the next turn can go
// on from: a note that they are gone, which is what readers are told from then
// on, detaching, which waits for open transactions without anybody waiting for
// it, and dropping.
func (s *Store) drop(ctx context.Context, url string, keep time.Duration, done *Trimmed) error {
	var expired []string
	if keep > 0 {
		list, err := s.queries.EventPartitionsExpired(ctx, keep)
		if err != nil {
			return translate(err)
		}
		for _, p := range list {
			if err := s.queries.EventRemovedInsert(ctx, db.EventRemovedInsertParams{LowerID: p.LowerID, UpperID: p.UpperID, PartitionName: p.Name}); err != nil {
				return translate(err)
			}
			expired = append(expired, p.Name)
		}
	}
	begun, err := s.queries.EventPartitionsPending(ctx)
	if err != nil || len(begun) == 0 {
		return translate(err)
	}
	conn, err := directConn(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, p := range begun {
		if p.Attached && !p.Pending && !slices.Contains(expired, p.PartitionName) {
			continue // noted under a shorter policy than today's
		}
		table := pgx.Identifier{p.PartitionName}.Sanitize()
		switch {
		case p.Pending:
			err = execHeld(ctx, conn, "ALTER TABLE events DETACH PARTITION "+table+" FINALIZE")
		case p.Attached:
			err = execHeld(ctx, conn, "ALTER TABLE events DETACH PARTITION "+table+" CONCURRENTLY")
		}
		if err == nil {
			err = execHeld(ctx, conn, "DROP TABLE "+table)
		}
		if err != nil {
			return fmt.Errorf("remove %s: %w", p.PartitionName, err)
		}
		done.Partitions++
	}
	return nil
}

// directConn opens one connection whose statements do not wait for others for long.
func directConn(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := parseConn(url)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["application_name"] = "chainstream retention"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, translate(err)
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = %d", detachWait.Milliseconds())); err != nil {
		return nil, errors.Join(translate(err), conn.Close(ctx))
	}
	return conn, nil
}

func execHeld(ctx context.Context, conn *pgx.Conn, statement string) error {
	_, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "55P03" {
		return fmt.Errorf("%w: %s", ErrHeldBack, pgErr.Message) // the database is there, so its error stays here
	}
	return translate(err)
}

func (s *Store) fold(ctx context.Context, age time.Duration, done *Trimmed) error {
	if age <= 0 {
		return nil
	}
	ids, err := s.queries.ExecutionsUnfolded(ctx, db.ExecutionsUnfoldedParams{Age: age, MaxRows: foldBatch})
	if err != nil {
		return translate(err)
	}
	for _, id := range ids {
		n, err := s.queries.ExecutionFold(ctx, id)
		if err != nil {
			return fmt.Errorf("fold execution %d: %w", id, translate(err))
		}
		done.Executions++
		done.Events += n
	}
	return nil
}

// seqRanges reads ranges that are stored as first, last, first, last …
func seqRanges(bounds []int64) []events.SeqRange {
	var list []events.SeqRange
	for pair := range slices.Chunk(bounds, 2) {
		list = append(list, events.SeqRange{First: pair[0], Last: pair[len(pair)-1]})
	}
	return list
}
