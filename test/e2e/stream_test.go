package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/chainstream/chainstream/test/internal/program"
)

// event is one event, in a stream or in the table.
type event = program.Event

// stream is one connection to an event stream, without any client in between.
type stream struct{ *program.Stream }

// cursor is how a client says where to go on.
type cursor struct {
	after  int64 // 0 = from the beginning, and nothing is said
	query  bool  // in the query, not in Last-Event-ID
	buffer int   // of the receiving socket, in bytes; 0 = the system's default
}

// open opens the stream of an execution. Close it.
func (s *server) open(ctx context.Context, execution int64, c cursor) (*stream, error) {
	st, err := program.Open(ctx, s.addr(), execution, program.Cursor{
		After: c.after, Query: c.query, Buffer: c.buffer, Dial: s.dial, Authorization: s.authorization,
	})
	if err != nil {
		return nil, err
	}
	return &stream{st}, nil
}

func (st *stream) next() (event, error) { return st.Next() }

func (st *stream) close() { st.Close() }

// drain answers the whole events that are left on a connection whose other end
// is gone. That must not look like the end of the log.
func (st *stream) drain(t *testing.T) []event {
	t.Helper()
	var list []event
	for {
		e, err := st.next()
		if errors.Is(err, io.EOF) {
			t.Error("a stream that was cut off ended as if it were complete")
		}
		if err != nil {
			return list
		}
		list = append(list, e)
	}
}

// follow reads what stands behind a cursor through any number of connections,
// until the server says that nothing follows.
func (s *server) follow(ctx context.Context, execution, after int64) ([]event, error) {
	return s.followBy(ctx, execution, cursor{after: after}, 0)
}

// followBy is follow with a choice of how the place is told, and hangs up after
// so many events of each connection; 0 never.
func (s *server) followBy(ctx context.Context, execution int64, c cursor, hangUp int) ([]event, error) {
	var journal []event
	for {
		st, err := s.open(ctx, execution, c)
		if errors.Is(err, program.ErrNothingFollows) {
			return journal, nil
		}
		if err != nil {
			return journal, fmt.Errorf("follow execution %d after %d: %w", execution, c.after, err)
		}
		for n := 0; hangUp == 0 || n < hangUp; n++ {
			var e event
			if e, err = st.next(); err != nil {
				break
			}
			if e.ID != c.after+1 {
				st.close()
				return journal, fmt.Errorf("follow execution %d: event %d came after %d", execution, e.ID, c.after)
			}
			journal = append(journal, e)
			c.after = e.ID
		}
		st.close()
		if err != nil && !errors.Is(err, io.EOF) {
			return journal, fmt.Errorf("follow execution %d after %d: %w", execution, c.after, err)
		}
	}
}
