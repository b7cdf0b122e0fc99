package postgres

import (
	"context"
	"fmt"
	"time"
)

// Partition is a part of the event log.
type Partition struct {
	Name         string `json:"name"`
	Lower, Upper int64  `json:"-"` // execution ids, Upper exclusive
	Bytes        int64  `json:"bytes"`
}

// Holder is an open transaction that retention waits for.
type Holder struct {
	PID         int32   `json:"pid"`
	Application string  `json:"application"`
	State       string  `json:"state"`
	Seconds     float64 `json:"seconds"` // since it began
}

// LogReport is what an operator wants to know of the event log.
type LogReport struct {
	Bytes           int64            `json:"bytes"`
	Partitions      []Partition      `json:"partitions"`
	PartitionsAhead int              `json:"partitionsAhead"` // behind the one that is being filled
	Oldest          *time.Time       `json:"oldestEvent"`     // nil when the log is empty
	Newest          *time.Time       `json:"newestEvent"`
	Executions      map[string]int64 `json:"executions"`               // by state
	FoldDue         int64            `json:"foldDue"`                  // executions behind the policy
	FoldLag         float64          `json:"foldLagSeconds"`           // of the oldest of them
	DropDue         int              `json:"dropDue"`                  // partitions behind the policy
	Pending         string           `json:"pendingDetach,omitempty"`  // partition whose removal was begun
	Holder          *Holder          `json:"oldTransaction,omitempty"` // the oldest that holds retention back
}

// LogReport looks at the log and at how far it is behind the policy.
func (s *Store) LogReport(ctx context.Context, policy RetentionPolicy) (r LogReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("look at the event log: %w", translate(err))
		}
	}()
	bounds, err := s.queries.EventBounds(ctx)
	if err != nil {
		return r, err
	}
	if bounds.Oldest.Unix() != 0 {
		r.Oldest, r.Newest = &bounds.Oldest, &bounds.Newest
	}
	sizes, err := s.queries.EventPartitionSizes(ctx)
	if err != nil {
		return r, err
	}
	r.Partitions = make([]Partition, 0, len(sizes))
	for _, p := range sizes {
		r.Bytes += p.Bytes
		r.Partitions = append(r.Partitions, Partition{Name: p.Name, Lower: p.LowerID, Upper: p.UpperID, Bytes: p.Bytes})
		if p.LowerID > bounds.NewestID {
			r.PartitionsAhead++
		}
	}
	states, err := s.queries.ExecutionsByStatus(ctx)
	if err != nil {
		return r, err
	}
	r.Executions = make(map[string]int64, len(states))
	for _, c := range states {
		r.Executions[c.Status] = c.Total
	}
	begun, err := s.queries.EventPartitionsPending(ctx)
	if err != nil {
		return r, err
	}
	if len(begun) > 0 && (begun[0].Pending || !begun[0].Attached) {
		r.Pending = begun[0].PartitionName
	}
	if err := s.lag(ctx, policy, &r); err != nil {
		return r, err
	}
	return r, s.holder(ctx, &r)
}

func (s *Store) lag(ctx context.Context, policy RetentionPolicy, r *LogReport) error {
	if policy.Fold > 0 {
		due, err := s.queries.ExecutionFoldLag(ctx, policy.Fold)
		if err != nil {
			return err
		}
		r.FoldDue, r.FoldLag = due.Waiting, max(due.Seconds-policy.Fold.Seconds(), 0)
	}
	if policy.Keep > 0 {
		due, err := s.queries.EventPartitionsExpired(ctx, policy.Keep)
		if err != nil {
			return err
		}
		r.DropDue = len(due)
	}
	return nil
}

// holders are the client transactions that have touched the log, or may still
// look at an older state of it; the oldest first. The generator of package db
// does not know the statistics views.
const holders = `
SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.state, ''), extract(epoch FROM clock_timestamp() - a.xact_start)::double precision
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend' AND a.xact_start IS NOT NULL
   AND (a.backend_xmin IS NOT NULL OR a.pid IN (
        SELECT l.pid FROM pg_locks l
         WHERE l.locktype = 'relation' AND l.relation IN (SELECT 'events'::regclass::oid UNION ALL SELECT p.oid FROM events_partitions() p)))
 ORDER BY a.xact_start
 LIMIT 1`

func (s *Store) holder(ctx context.Context, r *LogReport) error {
	rows, err := s.pool.Query(ctx, holders)
	if err != nil {
		return err
	}
	defer rows.Close()
	if rows.Next() {
		r.Holder = &Holder{}
		if err := rows.Scan(&r.Holder.PID, &r.Holder.Application, &r.Holder.State, &r.Holder.Seconds); err != nil {
			return err
		}
	}
	return rows.Err()
}
