package postgres

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// prepareConn teaches a new connection the arrays of the append statement.
// Without it pgx encodes every UUID of them by writing it as text and reading
// that back, which took a third of the processor time of an append, and reaches
// every element by reflection.
func prepareConn(_ context.Context, conn *pgx.Conn) error {
	m := conn.TypeMap()
	m.TryWrapEncodePlanFuncs = append([]pgtype.TryWrapEncodePlanFunc{wrapArray}, m.TryWrapEncodePlanFuncs...)
	return nil
}

// prepareLogConn is prepareConn for the connections of the log, whose few
// statements find their rows by key. Left to itself PostgreSQL plans the append
// anew for every commit, which can take longer than the append, and in a database
// without statistics it reads all of executions for it.
func prepareLogConn(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"); err != nil {
		return fmt.Errorf("set up a connection of the log: %w", err)
	}
	return prepareConn(ctx, conn)
}

func wrapArray(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	switch value := value.(type) {
	case []uuid.UUID:
		return &arrayPlan[[]uuid.UUID]{wrap: uuidArray}, uuids(value), true
	case [][]byte:
		return &arrayPlan[[][]byte]{wrap: byteArray}, pgtype.FlatArray[[]byte](value), true
	default:
		return nil, nil, false
	}
}

// arrayPlan encodes a slice of type S as the array that wrap makes of it.
type arrayPlan[S any] struct {
	wrap func(S) pgtype.ArrayGetter
	next pgtype.EncodePlan
}

// SetNext implements pgtype.WrappedEncodePlanNextSetter.
func (p *arrayPlan[S]) SetNext(next pgtype.EncodePlan) { p.next = next }

// Encode implements pgtype.EncodePlan.
func (p *arrayPlan[S]) Encode(value any, buf []byte) ([]byte, error) {
	slice, ok := value.(S)
	if !ok {
		return p.next.Encode(value, buf)
	}
	return p.next.Encode(p.wrap(slice), buf)
}

func uuidArray(ids []uuid.UUID) pgtype.ArrayGetter { return uuids(ids) }

func byteArray(values [][]byte) pgtype.ArrayGetter { return pgtype.FlatArray[[]byte](values) }

// uuids is an array of UUIDs, none of them NULL.
type uuids []uuid.UUID

// Dimensions implements pgtype.ArrayGetter; nil is NULL.
func (a uuids) Dimensions() []pgtype.ArrayDimension {
	if a == nil {
		return nil
	}
	return []pgtype.ArrayDimension{{Length: int32(len(a)), LowerBound: 1}}
}

// Index implements pgtype.ArrayGetter.
func (a uuids) Index(i int) any { return [16]byte(a[i]) }

// IndexType implements pgtype.ArrayGetter.
func (a uuids) IndexType() any { return [16]byte{} }
