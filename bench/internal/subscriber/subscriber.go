// Package subscriber is a client of event streams that costs little: it reads
// the ids and types of events straight from the connection and does not decode
// their data. A client that does more would be what a benchmark measures.
package subscriber

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Event is what is read of one event.
type Event struct {
	ID   int64
	Type []byte // valid until the next read
	Size int    // of the frame on the wire, in bytes
}

// Stream is an open stream. It is used by one goroutine.
type Stream struct {
	conn    net.Conn
	in      []byte // bytes as they come from the connection
	at, end int    // what of in has not been used

	chunked bool
	left    int    // bytes of the current chunk that are still to come
	state   state  // of the chunked coding
	frames  []byte // the part of a frame that has come
}

// state is where the reader of the chunked transfer coding stands (RFC 9112,
// section 7.1).
type state int

const (
	inSize state = iota
	inData
	inEnd // the line end after the data
)

// Options say how to connect.
type Options struct {
	Buffer        int // bytes of the read buffer; default 16 KiB
	ReceiveBuffer int // of the kernel, bytes; 0 = its choice
	LastEventID   int64
	Method        string // default GET
	Body          string // JSON
}

// openTimeout bounds the wait for the header of an answer.
const openTimeout = 30 * time.Second

// Open asks for a stream and returns when the server has answered 200.
func Open(ctx context.Context, addr, path string, o Options) (*Stream, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	if o.Buffer == 0 {
		o.Buffer = 16 << 10
	}
	s := &Stream{conn: conn, in: make([]byte, o.Buffer)}
	err = conn.SetReadDeadline(time.Now().Add(openTimeout))
	if err == nil {
		err = s.open(addr, path, o)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a stream: %w", err), conn.Close())
	}
	return s, nil
}

func (s *Stream) open(addr, path string, o Options) error {
	if tcp, ok := s.conn.(*net.TCPConn); ok && o.ReceiveBuffer > 0 {
		if err := tcp.SetReadBuffer(o.ReceiveBuffer); err != nil {
			return err
		}
	}
	if o.Method == "" {
		o.Method = "GET"
	}
	request := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n", o.Method, path, addr)
	if o.LastEventID > 0 {
		request = fmt.Appendf(request, "Last-Event-ID: %d\r\n", o.LastEventID)
	}
	if o.Body != "" {
		request = fmt.Appendf(request, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(o.Body))
	}
	request = append(append(request, "\r\n"...), o.Body...)
	if _, err := s.conn.Write(request); err != nil {
		return err
	}
	for {
		if s.end == len(s.in) {
			return errors.New("the header of the answer is too long")
		}
		n, err := s.conn.Read(s.in[s.end:])
		s.end += n
		if head, _, ok := bytes.Cut(s.in[:s.end], []byte("\r\n\r\n")); ok {
			s.at = len(head) + 4
			return s.accept(head)
		}
		if err != nil {
			return fmt.Errorf("read the header of the answer: %w", err)
		}
	}
}

func (s *Stream) accept(head []byte) error {
	status, _, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.Contains(status, []byte(" 200 ")) {
		return fmt.Errorf("the server answered %q: %s", status, s.in[s.at:s.end])
	}
	s.chunked = bytes.Contains(bytes.ToLower(head), []byte("\r\ntransfer-encoding: chunked"))
	return nil
}

// Close closes the connection; a Read in another goroutine ends.
func (s *Stream) Close() error { return s.conn.Close() }

// SetReadDeadline bounds the reads.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// Read reads what has come, at least one byte, and calls f for every complete
// event. It answers io.EOF at the end of the stream.
func (s *Stream) Read(f func(Event)) error {
	if s.at == s.end {
		n, err := s.conn.Read(s.in)
		if n == 0 {
			return err
		}
		s.at, s.end = 0, n
	}
	data := s.in[s.at:s.end]
	s.at = s.end
	if !s.chunked {
		s.scan(data, f)
		return nil
	}
	return s.unchunk(data, f)
}

func (s *Stream) unchunk(data []byte, f func(Event)) error {
	for len(data) > 0 {
		switch s.state {
		case inSize:
			c := data[0]
			data = data[1:]
			switch {
			case c >= '0' && c <= '9':
				s.left = s.left<<4 | int(c-'0')
			case c|0x20 >= 'a' && c|0x20 <= 'f':
				s.left = s.left<<4 | int(c|0x20-'a'+10)
			case c == '\n' && s.left == 0:
				return io.EOF
			case c == '\n':
				s.state = inData
			case c != '\r':
				return fmt.Errorf("chunk size with the byte %q", c)
			}
		case inData:
			n := min(s.left, len(data))
			s.scan(data[:n], f)
			data = data[n:]
			if s.left -= n; s.left == 0 {
				s.state = inEnd
			}
		case inEnd:
			if data[0] == '\n' {
				s.state = inSize
			}
			data = data[1:]
		}
	}
	return nil
}

// scan finds the frames in data and what came before it.
func (s *Stream) scan(data []byte, f func(Event)) {
	rest := data
	if len(s.frames) > 0 {
		s.frames = append(s.frames, data...)
		rest = s.frames
	}
	for {
		i := bytes.Index(rest, []byte("\n\n"))
		if i < 0 {
			break
		}
		if e, ok := parse(rest[:i+1]); ok {
			e.Size = i + 2
			f(e)
		}
		rest = rest[i+2:]
	}
	s.frames = append(s.frames[:0], rest...)
}

// parse reads the id and the type of a frame; what has no id is a comment or a
// heartbeat. Both measured servers begin their frames with the id.
func parse(frame []byte) (e Event, ok bool) {
	id, found := bytes.CutPrefix(frame, []byte("id: "))
	if !found {
		return e, false
	}
	i := 0
	for ; i < len(id) && id[i] >= '0' && id[i] <= '9'; i++ {
		e.ID = e.ID*10 + int64(id[i]-'0')
	}
	if rest, found := bytes.CutPrefix(id[i:], []byte("\nevent: ")); found {
		e.Type, _, _ = bytes.Cut(rest, []byte("\n"))
	}
	return e, i > 0
}

// String shows an event in messages.
func (e Event) String() string { return strconv.FormatInt(e.ID, 10) + " " + string(e.Type) }
