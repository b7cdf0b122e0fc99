package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
)

// errKeyExists ends a transaction whose idempotency key belongs to an earlier trigger.
var errKeyExists = errors.New("the idempotency key exists")

// Enqueue implements executor.Queue.
func (s *Store) Enqueue(ctx context.Context, t executor.Trigger) (ex executor.Execution, replayed bool, err error) {
	params, err := insertParams(t)
	if err != nil {
		return ex, false, err
	}
	if t.Key.Key == "" && t.Parent == 0 {
		row, err := insert(ctx, s.queries, t, params)
		if err != nil {
			return ex, false, fmt.Errorf("queue an execution: %w", translate(err))
		}
		ex, err = queued(params, row)
		ex.Lineage = t.Lineage
		return ex, false, err
	}
	var row db.ExecutionInsertRow
	err = s.inTx(ctx, func(q *db.Queries) error {
		if row, err = insert(ctx, q, t, params); err != nil {
			return err
		}
		if err := setLineage(ctx, q, row.ID, t.Lineage); err != nil || t.Key.Key == "" {
			return err
		}
		n, err := q.IdempotencyKeyInsert(ctx, db.IdempotencyKeyInsertParams{
			Key: t.Key.Key, RequestHash: t.Key.Hash[:], ExecutionID: row.ID, TTL: executor.KeyTTL,
		})
		if err == nil && n == 0 {
			err = errKeyExists
		}
		return err
	})
	if errors.Is(err, errKeyExists) {
		var found bool
		if ex, found, err = s.Keyed(ctx, t.Key); err == nil && !found {
			// The key expired between the statements, or its execution was erased.
			err = unavailable{errKeyExists}
		}
		return ex, true, err
	}
	if err != nil {
		return ex, false, fmt.Errorf("queue an execution: %w", err)
	}
	ex, err = queued(params, row)
	ex.Lineage = t.Lineage
	return ex, false, err
}

// setLineage says where a new execution comes from, if it comes from another one.
func setLineage(ctx context.Context, q *db.Queries, id int64, l executor.Lineage) error {
	if l.Parent == 0 {
		return nil
	}
	p := db.ExecutionLineageSetParams{
		ID: id, ParentExecutionID: &l.Parent, Origin: optional(string(l.Origin)), ForkFromPrompt: optional(l.FromPrompt), ReusePromptIds: l.Reuse,
	}
	if len(l.Models) > 0 {
		var err error
		if p.Models, err = document(l.Models); err != nil {
			return fmt.Errorf("encode the models: %w", err)
		}
	}
	return q.ExecutionLineageSet(ctx, p)
}

// Keyed implements executor.Queue.
func (s *Store) Keyed(ctx context.Context, key executor.IdempotencyKey) (ex executor.Execution, found bool, err error) {
	row, err := s.queries.IdempotencyKeyByKey(ctx, db.IdempotencyKeyByKeyParams{Key: key.Key, TTL: executor.KeyTTL})
	if errors.Is(err, pgx.ErrNoRows) {
		return ex, false, nil
	}
	if err != nil {
		return ex, false, fmt.Errorf("look up an idempotency key: %w", translate(err))
	}
	if !bytes.Equal(row.RequestHash, key.Hash[:]) {
		return ex, false, executor.ErrKeyReused
	}
	ex, err = s.Execution(ctx, row.ExecutionID)
	if errors.Is(err, executor.ErrNotFound) { // erased between the two statements
		return ex, false, nil
	}
	return ex, err == nil, err
}

func insertParams(t executor.Trigger) (db.ExecutionInsertParams, error) {
	c := t.Version.Chain
	if t.Inputs == nil {
		t.Inputs = map[string]any{}
	}
	inputs, err := document(t.Inputs)
	if err != nil {
		return db.ExecutionInsertParams{}, fmt.Errorf("encode the inputs: %w", err)
	}
	l := executor.Narrow(c.Limits, t.Limits)
	limits := limitsDocument{TimeoutMS: l.Timeout.Milliseconds(), MaxCostUSD: l.MaxCostUSD, MaxTokens: l.MaxTokens}
	limitsJSON, err := json.Marshal(limits)
	if err != nil {
		return db.ExecutionInsertParams{}, fmt.Errorf("encode the limits: %w", err)
	}
	p := db.ExecutionInsertParams{
		ChainID: t.Version.ChainID, ChainVersion: int32(t.Version.Version), ChainName: c.Name,
		Inputs: inputs, Limits: limitsJSON, TotalPrompts: int32(len(c.Prompts)), Priority: int16(t.Priority),
		CacheMode: optional(string(t.Cache)),
	}
	if len(t.Metadata) > 0 {
		if p.Metadata, err = events.AppendJSONB(nil, t.Metadata); err != nil {
			return p, fmt.Errorf("encode the metadata: %w", err)
		}
	}
	return p, nil
}

func queued(p db.ExecutionInsertParams, row db.ExecutionInsertRow) (executor.Execution, error) {
	return execution(db.Execution{
		ID: row.ID, CreatedAt: row.CreatedAt, Status: db.ExecutionStatusQueued,
		ChainID: p.ChainID, ChainVersion: p.ChainVersion, ChainName: p.ChainName,
		Inputs: p.Inputs, Metadata: p.Metadata, Limits: p.Limits, TotalPrompts: p.TotalPrompts, Priority: p.Priority, CacheMode: p.CacheMode,
	})
}

// Claim implements executor.Queue. It runs on the connections of the log: there
// the statement is planned once, which otherwise takes longer than the claim.
func (s *Store) Claim(ctx context.Context, owner string, limit int, lease time.Duration, held ...int64) ([]executor.Execution, error) {
	if held == nil {
		held = []int64{} // nil would be NULL, and nothing is unlike NULL
	}
	turn := s.turn.Load()
	params := db.ExecutionClaimParams{Owner: owner, Lease: lease, MaxRows: int32(limit), Turn: turn, Held: held}
	rows, err := s.log.ExecutionClaim(ctx, params)
	for try := 1; isSlotTaken(err) && try < claimTries; try++ {
		rows, err = s.log.ExecutionClaim(ctx, params)
	}
	if isSlotTaken(err) {
		err = unavailable{err}
	}
	if err != nil {
		return nil, fmt.Errorf("claim executions: %w", translate(err))
	}
	s.turn.Store(lastServed(rows, turn))
	return executions(rows)
}

// claimTries is how often a claim is tried that another server's claim gets in
// the way of.
const claimTries = 5

// isSlotTaken tells whether another server has given the slot of a chain away
// between the look at it and the claim.
func isSlotTaken(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.ConstraintName == "executions_slot_key"
}

// lastServed answers the chain that had its turn last in a claim: the last one,
// in the order that begins behind turn, of those that were served most often.
func lastServed(rows []db.Execution, turn int64) int64 {
	served := make(map[int64]int)
	most := 0
	for _, r := range rows {
		served[r.ChainID]++
		most = max(most, served[r.ChainID])
	}
	before, behind := int64(0), int64(0) // the last of either side
	for id, n := range served {
		switch {
		case n < most:
		case id <= turn:
			before = max(before, id)
		default:
			behind = max(behind, id)
		}
	}
	return cmp.Or(before, behind, turn)
}

// ClaimQueued implements executor.Queue.
func (s *Store) ClaimQueued(ctx context.Context, id int64, owner string, lease time.Duration) (ex executor.Execution, claimed bool, err error) {
	rows, err := s.queries.ExecutionClaimQueued(ctx, db.ExecutionClaimQueuedParams{ID: id, Owner: owner, Lease: lease})
	if err != nil {
		return ex, false, fmt.Errorf("claim execution %d: %w", id, translate(err))
	}
	if len(rows) == 0 {
		return ex, false, nil
	}
	ex, err = execution(rows[0])
	return ex, err == nil, err
}

// Renew implements executor.Queue.
func (s *Store) Renew(ctx context.Context, owner string, ids []int64, lease time.Duration) (map[int64]executor.Lease, error) {
	rows, err := s.log.ExecutionRenew(ctx, db.ExecutionRenewParams{Owner: owner, Ids: ids, Lease: lease})
	if err != nil {
		return nil, fmt.Errorf("renew leases: %w", translate(err))
	}
	held := make(map[int64]executor.Lease, len(rows))
	for _, r := range rows {
		held[r.ID] = executor.Lease{Epoch: r.LeaseEpoch, CancelRequested: r.Cancelled}
	}
	return held, nil
}

// Release implements executor.Queue.
func (s *Store) Release(ctx context.Context, owner string, ids []int64) error {
	if err := s.queries.ExecutionRelease(ctx, db.ExecutionReleaseParams{Owner: owner, Ids: ids}); err != nil {
		return fmt.Errorf("release leases: %w", translate(err))
	}
	return nil
}

// Wait implements executor.Leases.
func (s *Store) Wait(ctx context.Context, owner string, id, epoch int64, delay time.Duration) (bool, error) {
	n, err := s.queries.ExecutionWait(ctx, db.ExecutionWaitParams{ID: id, Owner: owner, LeaseEpoch: epoch, Delay: delay})
	if err != nil {
		return false, fmt.Errorf("let execution %d wait: %w", id, translate(err))
	}
	return n > 0, nil
}

// CancelRequests implements executor.Queue.
func (s *Store) CancelRequests(ctx context.Context, owner string) ([]int64, error) {
	ids, err := s.queries.ExecutionsToCancel(ctx, owner)
	if err != nil {
		return nil, fmt.Errorf("read cancel requests: %w", translate(err))
	}
	return ids, nil
}

// RequestCancel implements executor.Queue.
func (s *Store) RequestCancel(ctx context.Context, id int64) (executor.Status, error) {
	row, err := s.queries.ExecutionRequestCancel(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = executor.ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("request the cancellation of execution %d: %w", id, translate(err))
	}
	return executor.Status(row.Status), nil
}

// CountQueued implements executor.Queue.
func (s *Store) CountQueued(ctx context.Context, limit int) (int, error) {
	n, err := s.queries.ExecutionCountQueued(ctx, int32(limit))
	if err != nil {
		return 0, fmt.Errorf("count queued executions: %w", translate(err))
	}
	return int(n), nil
}

// ExpireKeys forgets idempotency keys that are older than executor.KeyTTL and
// answers how many there were.
func (s *Store) ExpireKeys(ctx context.Context) (int64, error) {
	n, err := s.queries.IdempotencyKeyExpire(ctx, executor.KeyTTL)
	if err != nil {
		return 0, fmt.Errorf("expire idempotency keys: %w", translate(err))
	}
	return n, nil
}
