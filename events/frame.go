package events

import (
	"errors"
	"fmt"
	"strconv"
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

// NewFrame encodes an event in the event stream format of the WHATWG HTML
// standard, section 9.2. data is jsonb text: its line ends are escaped, so one
// data line carries it, and seq and type cannot hold one either.
func NewFrame(seq int64, t Type, data []byte) Frame {
	wire := appendFrameStart(make([]byte, 0, frameBytes+len(t)+len(data)), seq, t)
	at := len(wire)
	wire = append(wire, data...)
	return Frame{Seq: seq, Type: t, wire: append(wire, frameEnd...), data: at, size: len(data)}
}

// appendFrameStart appends what stands before the data.
func appendFrameStart(dst []byte, seq int64, t Type) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendInt(dst, seq, 10)
	dst = append(dst, "\nevent: "...)
	dst = append(dst, t...)
	return append(dst, "\ndata: "...)
}

const (
	frameEnd   = "\n\n"
	frameBytes = len("id: \nevent: \ndata: "+frameEnd) + 20 // without type and data
)

// newFoldFrame encodes the note that events were folded away. It is a comment,
// which a client of the standard passes over, and has no id.
func newFoldFrame(r SeqRange) Frame {
	wire := strconv.AppendInt([]byte(": folded "), r.First, 10)
	wire = strconv.AppendInt(append(wire, '-'), r.Last, 10)
	return Frame{Seq: r.Last, wire: append(wire, "\n\n"...)}
}

// Folded tells whether the frame is no event but the note that events up to
// Seq were folded away.
func (f Frame) Folded() bool { return f.Type == "" }

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
