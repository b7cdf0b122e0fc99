package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/executor"
)

// Call implements executor.History.
func (s *Store) Call(ctx context.Context, id int64) (json.RawMessage, error) {
	call, err := s.queries.ExecutionCallByID(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = executor.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("load what execution %d asks: %w", id, translate(err))
	}
	return call, nil
}

// insert queues an execution, with what it asks where it is a direct call.
func insert(ctx context.Context, q *db.Queries, t executor.Trigger, p db.ExecutionInsertParams) (db.ExecutionInsertRow, error) {
	if t.Call == nil {
		return q.ExecutionInsert(ctx, p)
	}
	models, err := document(t.Models)
	if err != nil {
		return db.ExecutionInsertRow{}, fmt.Errorf("encode the model: %w", err)
	}
	row, err := q.ExecutionCallInsert(ctx, db.ExecutionCallInsertParams{
		ChainID: p.ChainID, ChainVersion: p.ChainVersion, ChainName: p.ChainName, Inputs: p.Inputs, Metadata: p.Metadata,
		Limits: p.Limits, TotalPrompts: p.TotalPrompts, Priority: p.Priority, Models: models, Call: t.Call,
	})
	return db.ExecutionInsertRow(row), err
}
