package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
)

// Execution answers one execution, or executor.ErrNotFound.
func (s *Store) Execution(ctx context.Context, id int64) (executor.Execution, error) {
	row, err := s.queries.ExecutionByID(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = executor.ErrNotFound
	}
	if err != nil {
		return executor.Execution{}, fmt.Errorf("load execution %d: %w", id, translate(err))
	}
	return execution(row)
}

// Executions answers a page of executions, newest first, without their inputs.
func (s *Store) Executions(ctx context.Context, f executor.Filter) ([]executor.Execution, error) {
	rows, err := s.queries.ExecutionList(ctx, db.ExecutionListParams{
		Before: optional(f.Before), ChainID: optional(f.ChainID), ChainName: optional(f.ChainName),
		Status: optional(db.ExecutionStatus(f.Status)), CreatedFrom: optionalTime(f.From), CreatedTo: optionalTime(f.To),
		ParentExecutionID: optional(f.Parent), MaxRows: int32(f.Limit),
	})
	if err != nil {
		return nil, fmt.Errorf("list executions: %w", translate(err))
	}
	out := make([]executor.Execution, len(rows))
	for i, r := range rows {
		if out[i], err = execution(db.Execution(r)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// PromptStates answers the prompts of executions that have started, by execution
// and in the order of their positions.
func (s *Store) PromptStates(ctx context.Context, ids ...int64) (map[int64][]events.PromptState, error) {
	rows, err := s.queries.PromptResultList(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("load prompt results: %w", translate(err))
	}
	out := make(map[int64][]events.PromptState, len(ids))
	for _, r := range rows {
		out[r.ExecutionID] = append(out[r.ExecutionID], promptState(r))
	}
	return out, nil
}

// DeleteExecution erases an execution that has ended, with its events. It
// answers executor.ErrNotFound or executor.ErrRunning.
func (s *Store) DeleteExecution(ctx context.Context, id int64) error {
	err := s.inTx(ctx, func(q *db.Queries) error {
		if err := q.BudgetSettleExecution(ctx, id); err != nil {
			return err
		}
		n, err := q.ExecutionDelete(ctx, id)
		if err != nil {
			return err
		}
		if n == 0 {
			if _, err := q.ExecutionByID(ctx, id); errors.Is(err, pgx.ErrNoRows) {
				return executor.ErrNotFound
			} else if err != nil {
				return err
			}
			return executor.ErrRunning
		}
		return q.EventDelete(ctx, id)
	})
	if err != nil {
		return fmt.Errorf("delete execution %d: %w", id, err)
	}
	return nil
}

// limitsDocument is how limits are stored.
type limitsDocument struct {
	TimeoutMS  int64  `json:"timeoutMs,omitempty"`
	MaxCostUSD string `json:"maxCostUsd,omitempty"`
	MaxTokens  int    `json:"maxTokens,omitempty"`
}

func execution(r db.Execution) (executor.Execution, error) {
	var limits limitsDocument
	if len(r.Limits) > 0 {
		if err := json.Unmarshal(r.Limits, &limits); err != nil {
			return executor.Execution{}, fmt.Errorf("limits of execution %d: %w", r.ID, err)
		}
	}
	lineage := executor.Lineage{
		Parent: deref(r.ParentExecutionID), Origin: executor.Origin(deref(r.Origin)), FromPrompt: deref(r.ForkFromPrompt), Reuse: r.ReusePromptIds,
	}
	if len(r.Models) > 0 {
		if err := json.Unmarshal(r.Models, &lineage.Models); err != nil {
			return executor.Execution{}, fmt.Errorf("models of execution %d: %w", r.ID, err)
		}
	}
	return executor.Execution{
		Lineage: lineage,
		ID:      r.ID, ChainID: r.ChainID, ChainVersion: int(r.ChainVersion), ChainName: r.ChainName, Status: executor.Status(r.Status),
		Inputs: r.Inputs, Metadata: r.Metadata,
		Limits:       chain.Limits{Timeout: time.Duration(limits.TimeoutMS) * time.Millisecond, MaxCostUSD: limits.MaxCostUSD, MaxTokens: limits.MaxTokens},
		TotalPrompts: int(r.TotalPrompts), LastSeq: r.LastSeq,
		Error: deref(r.Error), ErrorCode: deref(r.ErrorCode), ErrorPrompt: deref(r.ErrorPromptID),
		InputTokens: r.InputTokens, OutputTokens: r.OutputTokens, CostUSD: decimalText(r.CostUSD),
		CreatedAt: r.CreatedAt, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, FoldedAt: r.FoldedAt, WakeAt: r.WakeAt,
		CancelRequested: r.CancelRequestedAt != nil, Epoch: r.LeaseEpoch, Claims: int(r.Claims), Priority: int(r.Priority),
		CacheMode: executor.CacheMode(deref(r.CacheMode)),
	}, nil
}

func executions(rows []db.Execution) ([]executor.Execution, error) {
	out := make([]executor.Execution, len(rows))
	for i, r := range rows {
		var err error
		if out[i], err = execution(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func promptState(r db.PromptResult) events.PromptState {
	state := events.PromptState{
		PromptID: r.PromptID, Ordinal: int(r.Ordinal), Name: r.Name, Position: int(r.Position), Status: string(r.Status),
		Attempt: int(r.Attempt), ModelID: r.ModelID, UserMessage: deref(r.UserMessage), Output: deref(r.Output),
		FinishReason: deref(r.FinishReason), InputTokens: r.InputTokens, OutputTokens: r.OutputTokens,
		CachedTokens: r.CachedTokens, CacheWriteTokens: r.CacheWriteTokens, ReasoningTokens: r.ReasoningTokens, UsageEstimated: r.UsageEstimated, Cached: r.Cached, Cache: deref(r.Cache),
		DurationMS: r.DurationMs, Error: deref(r.Error), ErrorCode: deref(r.ErrorCode), FirstSeq: r.FirstSeq,
		StartedAt: r.StartedAt, FinishedAt: r.FinishedAt,
	}
	state.CostUSD = decimalText(r.CostUSD)
	if len(r.ToolCalls) > 0 {
		_ = json.Unmarshal(r.ToolCalls, &state.ToolCalls) // this package wrote it from the same type
	}
	if r.ReusedFromExecutionID != nil {
		state.Reused = &events.Reused{
			ExecutionID: *r.ReusedFromExecutionID, InputTokens: r.ReusedInputTokens, OutputTokens: r.ReusedOutputTokens, CostUSD: decimalText(r.ReusedCostUSD),
		}
	}
	if r.SavedFromExecutionID != nil {
		state.Saved = &events.Reused{
			ExecutionID: *r.SavedFromExecutionID, InputTokens: r.SavedInputTokens, OutputTokens: r.SavedOutputTokens, CostUSD: decimalText(r.SavedCostUSD),
		}
	}
	return state
}

// decimalText writes an amount exactly and without superfluous zeros.
func decimalText(d *decimal.Decimal) *string {
	if d == nil {
		return nil
	}
	text := d.String()
	return &text
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// optional makes the zero value NULL.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
