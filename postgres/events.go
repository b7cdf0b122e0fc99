package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/failpoint"
)

// AppendEvents implements events.AppendStore with one statement, and so in one
// transaction.
func (s *Store) AppendEvents(ctx context.Context, appends []events.Append) (map[int64]struct{}, error) {
	params, err := appendParams(appends)
	if err != nil {
		return nil, err
	}
	failpoint.Reach(failpoint.AppendBefore)
	ids, err := s.log.EventAppend(ctx, params)
	if noPartition(err, "events") {
		if err = s.log.EventPartitionCover(ctx, params.ExecutionIds); err == nil {
			ids, err = s.log.EventAppend(ctx, params)
		}
	}
	if err != nil {
		if err = translate(err); errors.Is(err, events.ErrUnavailable) {
			return nil, events.Transient(err)
		}
		return nil, err
	}
	failpoint.Reach(failpoint.AppendAfter)
	stored := make(map[int64]struct{}, len(ids))
	for _, id := range ids {
		stored[id] = struct{}{}
	}
	return stored, nil
}

func appendParams(appends []events.Append) (db.EventAppendParams, error) {
	rows := 0
	for _, a := range appends {
		rows += len(a.Records)
	}
	p := db.EventAppendParams{
		ExecutionIds: make([]int64, 0, len(appends)), LeaseEpochs: make([]int64, 0, len(appends)),
		PrevSeqs: make([]int64, 0, len(appends)), LastSeqs: make([]int64, 0, len(appends)), Outcomes: make([][]byte, 0, len(appends)),
		EventExecutionIds: make([]int64, 0, rows), Seqs: make([]int64, 0, rows), EventIds: make([]uuid.UUID, 0, rows),
		ParentIds: make([]uuid.UUID, 0, rows), StreamIds: make([]string, 0, rows), EventTypes: make([]string, 0, rows),
		EventData: make([][]byte, 0, rows), CreatedAt: make([]time.Time, 0, rows),
		ResultExecutionIds: []int64{}, Results: [][]byte{}, CallExecutionIds: []int64{}, Calls: [][]byte{},
		RetrievalExecutionIds: []int64{}, Retrievals: [][]byte{},
	}
	for _, a := range appends {
		var outcome []byte // NULL, as of most appends: then the statement has nothing to look for
		if a.Outcome != (events.Outcome{}) {
			var err error
			if outcome, err = document(a.Outcome); err != nil {
				return p, fmt.Errorf("encode the outcome of execution %d: %w", a.ExecutionID, err)
			}
		}
		p.ExecutionIds = append(p.ExecutionIds, a.ExecutionID)
		p.LeaseEpochs = append(p.LeaseEpochs, a.Epoch)
		p.PrevSeqs = append(p.PrevSeqs, a.PrevSeq)
		p.LastSeqs = append(p.LastSeqs, a.LastSeq())
		p.Outcomes = append(p.Outcomes, outcome)
		for _, r := range a.Records {
			p.EventExecutionIds = append(p.EventExecutionIds, a.ExecutionID)
			p.Seqs = append(p.Seqs, r.Seq)
			p.EventIds = append(p.EventIds, r.ID)
			p.ParentIds = append(p.ParentIds, r.Parent.UUID) // the zero UUID stands for none
			p.StreamIds = append(p.StreamIds, r.Stream)
			p.EventTypes = append(p.EventTypes, string(r.Type))
			p.EventData = append(p.EventData, r.Data)
			p.CreatedAt = append(p.CreatedAt, r.Time)
		}
		for _, state := range a.Prompts {
			doc, err := document(state)
			if err != nil {
				return p, fmt.Errorf("encode the state of prompt %d of execution %d: %w", state.PromptID, a.ExecutionID, err)
			}
			p.ResultExecutionIds = append(p.ResultExecutionIds, a.ExecutionID)
			p.Results = append(p.Results, doc)
		}
		for _, call := range a.Calls {
			doc, err := document(call)
			if err != nil {
				return p, fmt.Errorf("encode call %s of execution %d: %w", call.RequestID, a.ExecutionID, err)
			}
			p.CallExecutionIds = append(p.CallExecutionIds, a.ExecutionID)
			p.Calls = append(p.Calls, doc)
		}
		if len(a.Retrievals) > 0 {
			doc, err := document(a.Retrievals)
			if err != nil {
				return p, fmt.Errorf("encode what was retrieved for execution %d: %w", a.ExecutionID, err)
			}
			p.RetrievalExecutionIds = append(p.RetrievalExecutionIds, a.ExecutionID)
			p.Retrievals = append(p.Retrievals, doc)
		}
	}
	return p, nil
}

// document encodes a projection; like event data it is made safe for jsonb.
func document(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return events.AppendJSONB(make([]byte, 0, len(raw)+len(raw)/8), raw)
}

// ProbeAppends implements events.AppendStore.
func (s *Store) ProbeAppends(ctx context.Context, appends []events.Append) (map[int64]events.Probe, error) {
	p := db.EventProbeParams{ExecutionIds: make([]int64, len(appends)), Seqs: make([]int64, len(appends))}
	for i, a := range appends {
		p.ExecutionIds[i], p.Seqs[i] = a.ExecutionID, a.PrevSeq+1
	}
	rows, err := s.log.EventProbe(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("probe appends: %w", translate(err))
	}
	probes := make(map[int64]events.Probe, len(rows))
	for _, r := range rows {
		probes[r.ID] = events.Probe{Epoch: r.LeaseEpoch, LastSeq: r.LastSeq, EventID: r.EventID.UUID}
	}
	return probes, nil
}

// Events implements events.ReadStore.
func (s *Store) Events(ctx context.Context, execution, after int64, limit int) ([]events.Record, error) {
	rows, err := s.queries.EventPage(ctx, db.EventPageParams{ExecutionID: execution, AfterSeq: after, MaxRows: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", translate(err))
	}
	out := make([]events.Record, len(rows))
	for i, r := range rows {
		out[i] = record(r)
	}
	return out, nil
}

// EventsOfTypes answers up to limit events of some types after a seq, in order.
func (s *Store) EventsOfTypes(ctx context.Context, execution, after int64, types []events.Type, limit int) ([]events.Record, error) {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = string(t)
	}
	rows, err := s.queries.EventPageByType(ctx, db.EventPageByTypeParams{ExecutionID: execution, AfterSeq: after, EventTypes: names, MaxRows: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", translate(err))
	}
	out := make([]events.Record, len(rows))
	for i, r := range rows {
		out[i] = record(db.EventPageRow(r))
	}
	return out, nil
}

func record(r db.EventPageRow) events.Record {
	return events.Record{
		Seq: r.Seq, ID: r.EventID, Parent: r.ParentID, Stream: r.StreamID, Type: events.Type(r.EventType),
		Data: []byte(r.EventData), Epoch: r.LeaseEpoch, Time: r.CreatedAt,
	}
}

// Heads implements events.ReadStore.
func (s *Store) Heads(ctx context.Context, executions []int64) (map[int64]events.Head, error) {
	rows, err := s.queries.EventHeads(ctx, executions)
	if err != nil {
		return nil, fmt.Errorf("read the heads of logs: %w", translate(err))
	}
	heads := make(map[int64]events.Head, len(rows))
	for _, r := range rows {
		heads[r.ID] = events.Head{LastSeq: r.LastSeq, Finished: r.Finished, Removed: r.Removed, Folded: seqRanges(r.FoldedSeqs)}
	}
	return heads, nil
}

// News implements events.ReadStore. It uses a connection of the log: there it
// waits for no reader, and finds its rows by key.
func (s *Store) News(ctx context.Context, cursors []events.Cursor, limit int) (map[int64]events.News, error) {
	p := db.EventNewsParams{ExecutionIds: make([]int64, len(cursors)), AfterSeqs: make([]int64, len(cursors)), MaxRows: int32(limit)}
	for i, c := range cursors {
		p.ExecutionIds[i], p.AfterSeqs[i] = c.Execution, c.After
	}
	rows, err := s.log.EventNews(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read new events: %w", translate(err))
	}
	news := make(map[int64]events.News)
	for _, r := range rows {
		n := news[r.ExecutionID]
		n.LastSeq = r.LastSeq
		if r.Seq > 0 {
			n.Records = append(n.Records, events.Record{Seq: r.Seq, Type: events.Type(r.EventType), Data: []byte(r.EventData)})
		}
		news[r.ExecutionID] = n
	}
	for _, n := range news {
		slices.SortFunc(n.Records, func(a, b events.Record) int { return cmp.Compare(a.Seq, b.Seq) })
	}
	return news, nil
}

// Tails answers the newest event of every stream of an execution.
func (s *Store) Tails(ctx context.Context, execution int64) ([]events.Tail, error) {
	rows, err := s.queries.EventTails(ctx, execution)
	if err != nil {
		return nil, fmt.Errorf("read the tails of a log: %w", translate(err))
	}
	tails := make([]events.Tail, len(rows))
	for i, r := range rows {
		tails[i] = events.Tail{Stream: r.StreamID, Seq: r.Seq, ID: r.EventID, Time: r.CreatedAt}
	}
	return tails, nil
}
