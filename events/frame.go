package events

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Frame is one event encoded for a Server-Sent-Events stream. Its bytes are
// shared by all readers and never changed.
type Frame struct {
	Seq  int64
	Type Type
	wire []byte // id, event and data lines and the empty line
	data int    // where the data starts in wire
	size int    // length of the data
}

// Wire answers the frame as it goes over the wire. The caller must not change it.
func (f Frame) Wire() []byte { return f.wire }

// Data answers the event's JSON. The caller must not change it.
func (f Frame) Data() []byte { return f.wire[f.data : f.data+f.size] }

// NewFrame encodes an event. data is jsonb text, which never holds a line end.
func NewFrame(seq int64, t Type, data []byte) Frame {
	const fields = "id: \nevent: \ndata: \n\n"
	wire := make([]byte, 0, len(fields)+20+len(t)+len(data))
	wire = append(wire, "id: "...)
	wire = strconv.AppendInt(wire, seq, 10)
	wire = append(wire, "\nevent: "...)
	wire = append(wire, t...)
	wire = append(wire, "\ndata: "...)
	at := len(wire)
	wire = append(wire, data...)
	wire = append(wire, "\n\n"...)
	return Frame{Seq: seq, Type: t, wire: wire, data: at, size: len(data)}
}

// errFrameField refuses what the event stream format cannot carry in a field.
var errFrameField = errors.New("a line end or NUL cannot stand in an id or event field")

// AppendSSE appends one event in the event stream format of the WHATWG HTML
// standard, section 9.2, for any id, name and data: data is split into one
// line per CR, LF or CRLF; an id or a name that holds CR, LF or NUL is refused.
// Empty id or name leave their field out.
func AppendSSE(dst []byte, id, event string, data []byte) ([]byte, error) {
	if strings.ContainsAny(id, "\r\n\x00") || strings.ContainsAny(event, "\r\n\x00") {
		return dst, errFrameField
	}
	if id != "" {
		dst = append(append(append(dst, "id: "...), id...), '\n')
	}
	if event != "" {
		dst = append(append(append(dst, "event: "...), event...), '\n')
	}
	for {
		end := bytes.IndexAny(data, "\r\n")
		if end < 0 {
			break
		}
		dst = append(append(append(dst, "data: "...), data[:end]...), '\n')
		if data[end] == '\r' && end+1 < len(data) && data[end+1] == '\n' {
			end++
		}
		data = data[end+1:]
	}
	return append(append(append(dst, "data: "...), data...), "\n\n"...), nil
}

// ErrBadCursor says that a cursor is not a seq.
var ErrBadCursor = errors.New("a cursor is a whole number from 0 on, the id of the last event that was received")

// ParseCursor reads a cursor: the seq after which reading goes on, in plain
// decimal digits. Anything else is ErrBadCursor.
func ParseCursor(s string) (int64, error) {
	if s == "" || len(s) > 19 {
		return 0, ErrBadCursor
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, ErrBadCursor
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrBadCursor, err)
	}
	return n, nil
}
