package events

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Cursor is a place in the log of an execution: behind the event with that seq.
type Cursor struct {
	Execution int64
	After     int64
}

// News is what stands behind a cursor.
type News struct {
	LastSeq int64    // of the log
	Records []Record // with Seq, Type and Data; none when the next events have been removed
}

// hints are the executions that other processes say to have written.
type hints struct {
	wake chan struct{} // holds one token: there is a hint

	mu    sync.Mutex
	grown map[int64]struct{}
	all   bool
}

func (h *hints) add(executions ...int64) {
	if len(executions) == 0 {
		return
	}
	h.mu.Lock()
	if h.grown == nil {
		h.grown = make(map[int64]struct{}, len(executions))
	}
	for _, id := range executions {
		h.grown[id] = struct{}{}
	}
	h.mu.Unlock()
	h.signal()
}

func (h *hints) addAll() {
	h.mu.Lock()
	h.all = true
	h.mu.Unlock()
	h.signal()
}

func (h *hints) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// take answers the hints since the last time; all says that they are about
// every execution.
func (h *hints) take() (grown map[int64]struct{}, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	grown, all = h.grown, h.all
	h.grown, h.all = nil, false
	return grown, all
}

// Hint says that another process may have written to the logs of executions. It
// may be wrong: the logs are looked at, and only those that have subscribers
// here. It does not block.
func (b *Broker) Hint(executions ...int64) {
	b.mu.Lock()
	executions = slices.DeleteFunc(slices.Clone(executions), func(id int64) bool { return !b.topics[id].remote() })
	b.mu.Unlock()
	b.hints.add(executions...)
}

// HintAll says that other processes may have written to any log.
func (b *Broker) HintAll() { b.hints.addAll() }

// remote tells whether a topic has readers here and its writer, if any, elsewhere.
// The caller holds Broker.mu.
func (t *topic) remote() bool { return t != nil && t.subscribers > 0 && t.writers == 0 }

const (
	// newsExecutions is how many logs are read in one statement.
	newsExecutions = 200
	// newsEvents is how many events of one log are; a log that has more is read again.
	newsEvents = 100
	// newsTimeout bounds the statement.
	newsTimeout = 5 * time.Second
)

// follow reads what other processes write: at a hint the logs that it names,
// and with every poll all of them. One reading serves all subscribers.
func (b *Broker) follow(ctx context.Context) {
	poll := time.NewTicker(b.cfg.Poll)
	defer poll.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-b.hints.wake:
		case <-poll.C:
			b.HintAll()
			continue
		case <-ctx.Done():
			return
		}
		pause.Reset(b.cfg.Pause)
		grown, all := b.hints.take()
		if err := b.readNews(ctx, b.behind(grown, all)); err != nil && ctx.Err() == nil {
			b.logger.WarnContext(ctx, "logs that other servers write not read, trying again", "error", err)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// behind answers the cursors of topics that are to be read: how far they are known.
func (b *Broker) behind(grown map[int64]struct{}, all bool) []Cursor {
	topics := make(map[int64]*topic, len(grown))
	b.mu.Lock()
	if all {
		for id, t := range b.topics {
			if t.remote() {
				topics[id] = t
			}
		}
	} else {
		for id := range grown {
			if t := b.topics[id]; t.remote() {
				topics[id] = t
			}
		}
	}
	b.mu.Unlock()
	cursors := make([]Cursor, 0, len(topics))
	for _, id := range slices.Sorted(maps.Keys(topics)) {
		cursors = append(cursors, Cursor{Execution: id, After: topics[id].known()})
	}
	return cursors
}

// known answers the newest seq that is known to be stored.
func (t *topic) known() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.head
}

// readNews reads what stands behind the cursors and shows it. Logs that have
// more are hinted at again.
func (b *Broker) readNews(ctx context.Context, cursors []Cursor) error {
	for part := range slices.Chunk(cursors, newsExecutions) {
		try, cancel := context.WithTimeout(ctx, newsTimeout)
		news, err := b.store.News(try, part, newsEvents)
		cancel()
		if err != nil {
			return err
		}
		for _, c := range part {
			if n, found := news[c.Execution]; found && !b.showNews(c, n) {
				b.Hint(c.Execution)
			}
		}
	}
	return nil
}

// showNews shows what was read and tells whether that was all.
func (b *Broker) showNews(c Cursor, n News) bool {
	frames := make([]Frame, len(n.Records))
	for i, r := range n.Records {
		if r.Seq != c.After+int64(i)+1 {
			frames = nil
			break
		}
		frames[i] = NewFrame(r.Seq, r.Type, r.Data)
	}
	if len(frames) > 0 {
		b.show(c.Execution, frames)
		return frames[len(frames)-1].Seq >= n.LastSeq
	}
	// Events are missing: each reader finds out by itself what became of them.
	b.mu.Lock()
	t := b.topics[c.Execution]
	b.mu.Unlock()
	if t != nil {
		t.advance(n.LastSeq)
	}
	return true
}
