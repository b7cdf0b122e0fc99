package events

import (
	"context"
	"fmt"
	"io"
)

// Subscription is a cursor on the log of one execution. It is used by one
// goroutine and must be closed.
type Subscription struct {
	broker    *Broker
	topic     *topic
	execution int64
	cursor    int64
	ended     bool
	closed    bool
}

// Execution answers whose log is read.
func (s *Subscription) Execution() int64 { return s.execution }

// Cursor answers the seq of the last event that was read.
func (s *Subscription) Cursor() int64 { return s.cursor }

// Ended tells whether the terminal event lies at or before the cursor.
func (s *Subscription) Ended() bool { return s.ended }

// Poll answers what stands behind the cursor and moves the cursor over it. When
// nothing does, it answers a channel that is closed as soon as there may be
// news; wait for it and call Poll again. After the terminal event it answers
// io.EOF, for events that retention removed ErrGone.
func (s *Subscription) Poll(ctx context.Context) ([]Frame, <-chan struct{}, error) {
	if s.ended {
		return nil, nil, io.EOF
	}
	frames, more, wake := s.topic.after(s.cursor)
	if more {
		var err error
		if frames, err = s.page(ctx); err != nil {
			return nil, nil, err
		}
	}
	if len(frames) == 0 {
		return nil, wake, nil
	}
	last := frames[len(frames)-1]
	s.cursor, s.ended = last.Seq, last.Type.Terminal()
	return frames, nil, nil
}

// page reads from the store. The topic knows of more events, so an empty page
// means that events are gone, and so does a hole that is no fold.
func (s *Subscription) page(ctx context.Context) ([]Frame, error) {
	records, err := s.broker.store.Events(ctx, s.execution, s.cursor, s.broker.cfg.PageRows)
	if err != nil {
		return nil, fmt.Errorf("read events of execution %d after %d: %w", s.execution, s.cursor, err)
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("read events of execution %d after %d: %w", s.execution, s.cursor, ErrGone)
	}
	frames := make([]Frame, 0, len(records))
	at := s.cursor
	var head Head // read at the first hole
	for _, r := range records {
		if r.Seq != at+1 {
			if head.LastSeq == 0 {
				heads, err := s.broker.store.Heads(ctx, []int64{s.execution})
				if err != nil {
					return nil, fmt.Errorf("read what was folded of execution %d: %w", s.execution, err)
				}
				head = heads[s.execution]
			}
			hole := SeqRange{at + 1, r.Seq - 1}
			if !head.Missing(hole) {
				return nil, fmt.Errorf("read events of execution %d after %d: %w", s.execution, at, ErrGone)
			}
			frames = append(frames, newFoldFrame(hole))
		}
		frames = append(frames, NewFrame(r.Seq, r.Type, r.Data))
		at = r.Seq
	}
	return frames, nil
}

// Next blocks until there are events behind the cursor. It answers io.EOF after
// the terminal event and ErrClosed when the broker drains.
func (s *Subscription) Next(ctx context.Context) ([]Frame, error) {
	for {
		frames, wake, err := s.Poll(ctx)
		if err != nil || len(frames) > 0 {
			return frames, err
		}
		select {
		case <-wake:
		case <-s.broker.drain:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Close gives the subscription up.
func (s *Subscription) Close() {
	if s.closed {
		return
	}
	s.closed = true
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	s.topic.subscribers--
	b.release(s.execution, s.topic)
}
