package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// event is one event, in a stream or in the table.
type event struct {
	ID   int64
	Type string
	Data string
}

func (e event) terminal() bool { return e.Type == "execution-complete" || e.Type == "execution-error" }

// stream is one connection to an event stream, without any client in between.
type stream struct {
	conn   net.Conn
	reader *bufio.Reader
	retry  int // value of the last retry field, in ms; -1 after an event
}

// cursor is how a client says where to go on.
type cursor struct {
	after  int64 // 0 = from the beginning, and nothing is said
	query  bool  // in the query, not in Last-Event-ID
	buffer int   // of the receiving socket, in bytes; 0 = the system's default
}

// errNothingFollows says that the server answered 204.
var errNothingFollows = errors.New("204: nothing follows")

// open opens the stream of an execution. Close it.
func (s *server) open(ctx context.Context, execution int64, c cursor) (*stream, error) {
	dialer := net.Dialer{}
	if c.buffer > 0 {
		dialer.Control = func(_, _ string, raw syscall.RawConn) error {
			var failure error
			err := raw.Control(func(fd uintptr) {
				failure = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, c.buffer)
			})
			return errors.Join(err, failure)
		}
	}
	dial := s.dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", s.addr()) }
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.subscribe(ctx, conn, execution, c)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return st, nil
}

func (s *server) subscribe(ctx context.Context, conn net.Conn, execution int64, c cursor) (*stream, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	request := fmt.Sprintf("GET /events/%d", execution)
	if c.after > 0 && c.query {
		request += fmt.Sprintf("?after=%d", c.after)
	}
	request += fmt.Sprintf(" HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n", s.addr())
	if s.authorization != "" {
		request += "Authorization: " + s.authorization + "\r\n"
	}
	if c.after > 0 && !c.query {
		request += fmt.Sprintf("Last-Event-ID: %d\r\n", c.after)
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 4096), nil) //nolint:bodyclose // the connection is closed, which ends it
	if err != nil {
		return nil, err
	}
	switch {
	case res.StatusCode == http.StatusNoContent:
		return nil, errNothingFollows
	case res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream":
		return nil, fmt.Errorf("the stream was answered with %s, %s", res.Status, res.Header.Get("Content-Type"))
	}
	return &stream{conn: conn, reader: bufio.NewReaderSize(res.Body, 4096), retry: -1}, nil
}

// next answers the next event. It is stricter than the standard asks of a
// client: everything that this server does not send is an error. io.EOF is a
// clean end between two events, anything else a broken connection.
func (st *stream) next() (event, error) {
	var e event
	for {
		line, err := st.reader.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) && (line != "" || e != (event{})) {
				err = io.ErrUnexpectedEOF
			}
			return event{}, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			if e != (event{}) {
				st.retry = -1
				return e, nil
			}
			continue
		}
		name, value, ok := strings.Cut(line, ": ")
		switch {
		case strings.HasPrefix(line, ":"): // a comment
		case !ok:
			return event{}, fmt.Errorf("a line of the stream cannot be read: %q", line)
		case name == "id":
			if e.ID, err = strconv.ParseInt(value, 10, 64); err != nil {
				return event{}, err
			}
		case name == "event":
			e.Type = value
		case name == "data" && e.Data == "":
			e.Data = value
		case name == "retry":
			if st.retry, err = strconv.Atoi(value); err != nil {
				return event{}, err
			}
		default:
			return event{}, fmt.Errorf("a line of the stream is unexpected: %q", line)
		}
	}
}

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

// close hangs up. A connection that is not at its end is reset, as when a
// machine disappears.
func (st *stream) close() {
	if tcp, ok := st.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // RST, not FIN
	}
	_ = st.conn.Close()
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
		if errors.Is(err, errNothingFollows) {
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
