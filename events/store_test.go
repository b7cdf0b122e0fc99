package events_test

import (
	"context"
	"slices"
	"sync"

	"github.com/chainstream/chainstream/events"
)

// memory is a store for tests that can be told to fail.
type memory struct {
	mu      sync.Mutex
	logs    map[int64]*memoryLog
	commits [][]events.Append
	// fault is asked before every commit; a non-nil answer is what the call
	// returns, and lost says that the commit happened all the same.
	fault func(appends []events.Append) (err error, lost bool)
	gate  chan struct{} // when set, every commit takes a token first
	pages int
	news  int

	afterHeads func() // called once, when set, after heads were read
}

type memoryLog struct {
	epoch   int64
	records []events.Record
	first   int64 // seq of records[0], for logs whose beginning is gone
}

func newMemory(executions ...int64) *memory {
	m := &memory{logs: make(map[int64]*memoryLog)}
	for _, id := range executions {
		m.logs[id] = &memoryLog{epoch: 1, first: 1}
	}
	return m
}

func (l *memoryLog) last() int64 { return l.first + int64(len(l.records)) - 1 }

func (l *memoryLog) finished() bool {
	n := len(l.records)
	return n > 0 && l.records[n-1].Type.Terminal()
}

func (m *memory) AppendEvents(ctx context.Context, appends []events.Append) (map[int64]struct{}, error) {
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return nil, events.Transient(ctx.Err())
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.fault != nil {
		var lost bool
		if err, lost = m.fault(appends); err != nil && !lost {
			return nil, err
		}
	}
	m.commits = append(m.commits, appends)
	stored := make(map[int64]struct{})
	for _, a := range appends {
		l := m.logs[a.ExecutionID]
		if l == nil || l.epoch != a.Epoch || l.last() != a.PrevSeq || l.finished() {
			continue
		}
		l.records = append(l.records, a.Records...)
		stored[a.ExecutionID] = struct{}{}
	}
	return stored, err
}

func (m *memory) ProbeAppends(_ context.Context, appends []events.Append) (map[int64]events.Probe, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[int64]events.Probe)
	for _, a := range appends {
		if l := m.logs[a.ExecutionID]; l != nil {
			p := events.Probe{Epoch: l.epoch, LastSeq: l.last()}
			if i := a.PrevSeq + 1 - l.first; i >= 0 && i < int64(len(l.records)) {
				p.EventID = l.records[i].ID
			}
			out[a.ExecutionID] = p
		}
	}
	return out, nil
}

func (m *memory) Events(_ context.Context, execution, after int64, limit int) ([]events.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pages++
	l := m.logs[execution]
	if l == nil {
		return nil, nil
	}
	from := min(max(after+1-l.first, 0), int64(len(l.records)))
	to := min(from+int64(limit), int64(len(l.records)))
	return slices.Clone(l.records[from:to]), nil
}

func (m *memory) Heads(_ context.Context, executions []int64) (map[int64]events.Head, error) {
	heads, then := m.heads(executions)
	if then != nil {
		then()
	}
	return heads, nil
}

func (m *memory) heads(executions []int64) (_ map[int64]events.Head, then func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	then, m.afterHeads = m.afterHeads, nil
	out := make(map[int64]events.Head)
	for _, id := range executions {
		if l := m.logs[id]; l != nil {
			out[id] = events.Head{LastSeq: l.last(), Finished: l.finished()}
		}
	}
	return out, then
}

func (m *memory) News(_ context.Context, cursors []events.Cursor, limit int) (map[int64]events.News, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.news++
	out := make(map[int64]events.News)
	for _, c := range cursors {
		l := m.logs[c.Execution]
		if l == nil || l.last() <= c.After {
			continue
		}
		from := min(max(c.After+1-l.first, 0), int64(len(l.records)))
		to := min(from+int64(limit), int64(len(l.records)))
		out[c.Execution] = events.News{LastSeq: l.last(), Records: slices.Clone(l.records[from:to])}
	}
	return out, nil
}

// readings answers how often News was called.
func (m *memory) readings() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.news
}

// stored answers a copy of an execution's log.
func (m *memory) stored(execution int64) []events.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.logs[execution].records)
}
