package program

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
)

// Event is one event, in a stream or in the table.
type Event struct {
	ID   int64
	Type string
	Data string
}

// Terminal tells whether nothing may follow.
func (e Event) Terminal() bool { return e.Type == "execution-complete" || e.Type == "execution-error" }

// Cursor is how a client says where to go on, and how it comes there.
type Cursor struct {
	After         int64                                       // 0 = from the beginning, and nothing is said
	Query         bool                                        // in the query, not in Last-Event-ID
	Buffer        int                                         // of the receiving socket, in bytes; 0 = the system's default
	Dial          func(ctx context.Context) (net.Conn, error) // nil = TCP to the address
	Authorization string                                      // sent if any
}

// Stream is one connection to an event stream, without any client in between.
type Stream struct {
	Retry int // value of the last retry field, in ms; -1 after an event

	conn   net.Conn
	reader *bufio.Reader
}

// ErrNothingFollows says that the server answered 204.
var ErrNothingFollows = errors.New("204: nothing follows")

// StatusError says that a stream was refused.
type StatusError struct {
	Status int
	Text   string
}

// Error says how.
func (e *StatusError) Error() string { return "the stream was answered with " + e.Text }

// Open opens the stream of an execution at an address. The context bounds the
// whole life of the stream by its deadline. Close it.
func Open(ctx context.Context, addr string, execution int64, c Cursor) (*Stream, error) {
	dialer := net.Dialer{}
	if c.Buffer > 0 {
		dialer.Control = func(_, _ string, raw syscall.RawConn) error {
			var failure error
			err := raw.Control(func(fd uintptr) {
				failure = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, c.Buffer)
			})
			return errors.Join(err, failure)
		}
	}
	dial := c.Dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	st, err := subscribe(ctx, conn, addr, execution, c)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return st, nil
}

func subscribe(ctx context.Context, conn net.Conn, addr string, execution int64, c Cursor) (*Stream, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	request := fmt.Sprintf("GET /events/%d", execution)
	if c.After > 0 && c.Query {
		request += fmt.Sprintf("?after=%d", c.After)
	}
	request += fmt.Sprintf(" HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n", addr)
	if c.Authorization != "" {
		request += "Authorization: " + c.Authorization + "\r\n"
	}
	if c.After > 0 && !c.Query {
		request += fmt.Sprintf("Last-Event-ID: %d\r\n", c.After)
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
		return nil, ErrNothingFollows
	case res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream":
		return nil, &StatusError{Status: res.StatusCode, Text: res.Status + ", " + res.Header.Get("Content-Type")}
	}
	return &Stream{conn: conn, reader: bufio.NewReaderSize(res.Body, 4096), Retry: -1}, nil
}

// Line answers the next line as it came, with its end.
func (st *Stream) Line() (string, error) { return st.reader.ReadString('\n') }

// Next answers the next event. It is stricter than the standard asks of a
// client: everything that this server does not send is an error. io.EOF is a
// clean end between two events, anything else a broken connection.
func (st *Stream) Next() (Event, error) {
	var e Event
	for {
		line, err := st.Line()
		if err != nil {
			if errors.Is(err, io.EOF) && (line != "" || e != (Event{})) {
				err = io.ErrUnexpectedEOF
			}
			return Event{}, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			if e != (Event{}) {
				st.Retry = -1
				return e, nil
			}
			continue
		}
		name, value, ok := strings.Cut(line, ": ")
		switch {
		case strings.HasPrefix(line, ":"): // a comment
		case !ok:
			return Event{}, &SyntaxError{Line: line}
		case name == "id":
			if e.ID, err = strconv.ParseInt(value, 10, 64); err != nil {
				return Event{}, &SyntaxError{Line: line}
			}
		case name == "event":
			e.Type = value
		case name == "data" && e.Data == "":
			e.Data = value
		case name == "retry":
			if st.Retry, err = strconv.Atoi(value); err != nil {
				return Event{}, &SyntaxError{Line: line}
			}
		default:
			return Event{}, &SyntaxError{Line: line}
		}
	}
}

// SyntaxError says that a whole line of a stream is none that this server sends.
type SyntaxError struct{ Line string }

// Error quotes the line.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("a line of the stream is unexpected: %q", e.Line)
}

// Close hangs up. A connection that is not at its end is reset, as when a
// machine disappears.
func (st *Stream) Close() {
	if tcp, ok := st.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // RST, not FIN
	}
	_ = st.conn.Close()
}
