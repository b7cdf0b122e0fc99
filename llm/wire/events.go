// Package wire reads what model providers send, as forgivingly as the standards
// allow and within bounds: event streams, and texts in JSON that may be broken.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"time"
)

// Errors of reading a body.
var (
	// ErrTooLarge says that a body, or one event of it, is larger than it may be.
	ErrTooLarge = errors.New("response is too large")
	// ErrTruncated says that an answer stopped before its end marker.
	ErrTruncated = errors.New("response ended without its end marker")
	// ErrMalformed says that an answer is not what its provider sends.
	ErrMalformed = errors.New("response cannot be understood")
)

// maxEvent bounds one event, and with it the memory a call needs.
const maxEvent = 4 << 20

// EventReader takes a text/event-stream apart as the WHATWG HTML standard,
// section 9.2.6, describes it: lines end in LF, CRLF or CR, a byte order mark
// may lead, data lines of one event are joined by LF, comments are skipped. It
// differs in one point: an event that the end of the stream cuts off before its
// blank line is delivered, because some servers end without one.
type EventReader struct {
	r     *bufio.Reader
	left  int64  // bytes that may still be read
	begun bool   // a byte order mark has been looked for
	cr    bool   // the last line ended in CR: a LF that follows belongs to it
	line  []byte // reused
	data  []byte // reused
	name  []byte // reused
}

// NewEventReader reads a body of at most maxBytes.
func NewEventReader(body io.Reader, maxBytes int64) *EventReader {
	return &EventReader{r: bufio.NewReaderSize(body, 4<<10), left: maxBytes}
}

// Leading returns the first byte of the body that is not white space, without
// consuming it; a byte order mark counts as white space.
func (e *EventReader) Leading() (byte, error) {
	e.begin()
	for {
		b, err := e.r.Peek(1)
		if err != nil {
			return 0, err
		}
		switch b[0] {
		case ' ', '\t', '\r', '\n':
			e.skip(1)
		default:
			return b[0], nil
		}
	}
}

// begin skips a byte order mark at the start.
func (e *EventReader) begin() {
	if e.begun {
		return
	}
	e.begun = true
	if mark, err := e.r.Peek(1); err != nil || mark[0] != 0xEF {
		return
	}
	if mark, err := e.r.Peek(3); err == nil && string(mark) == "\uFEFF" {
		e.skip(3)
	}
}

func (e *EventReader) skip(n int) {
	discarded, _ := e.r.Discard(n) // has just been peeked at
	e.left -= int64(discarded)
}

// Next returns the name and the data of the next event that has data; both are
// valid until the next call. At the end of the body it returns io.EOF, with an
// event if one was cut off.
func (e *EventReader) Next() (name, data []byte, err error) {
	e.data, e.name = e.data[:0], e.name[:0]
	e.begin()
	found := false
	for {
		line, err := e.readLine()
		if err != nil && (err != io.EOF || len(line) == 0) { //nolint:errorlint // readLine returns io.EOF itself
			if err == io.EOF && !found { //nolint:errorlint // as above
				return nil, nil, io.EOF
			}
			return e.name, e.data, err
		}
		if len(line) == 0 {
			if found {
				return e.name, e.data, nil
			}
			e.name = e.name[:0]
			continue
		}
		field, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(field) {
		case "data":
			if found {
				e.data = append(e.data, '\n')
			}
			found = true
			e.data = append(e.data, value...)
			if len(e.data) > maxEvent {
				return nil, nil, ErrTooLarge
			}
		case "event":
			e.name = append(e.name[:0], value...)
		}
	}
}

// readLine returns the next line without its end. The last line may come
// together with io.EOF.
func (e *EventReader) readLine() ([]byte, error) {
	e.line = e.line[:0]
	for {
		if e.r.Buffered() == 0 {
			if _, err := e.r.Peek(1); err != nil {
				return e.line, err
			}
		}
		view, _ := e.r.Peek(e.r.Buffered()) // all of it is there
		if e.cr {
			e.cr = false
			if view[0] == '\n' {
				e.skip(1)
				continue
			}
		}
		end := bytes.IndexAny(view, "\r\n")
		part := view
		if end >= 0 {
			part = view[:end]
			e.cr = view[end] == '\r'
		}
		e.line = append(e.line, part...)
		consumed := len(part)
		if end >= 0 {
			consumed++
		}
		e.skip(consumed)
		if e.left < 0 || len(e.line) > maxEvent {
			return nil, ErrTooLarge
		}
		if end >= 0 {
			return e.line, nil
		}
	}
}

// Rest returns the whole remaining body.
func (e *EventReader) Rest() ([]byte, error) {
	limit := min(e.left, maxEvent)
	body, err := io.ReadAll(io.LimitReader(e.r, limit+1))
	if int64(len(body)) > limit {
		return nil, ErrTooLarge
	}
	return body, err
}

// drainTime and drainBytes bound Drain.
const (
	drainTime  = 50 * time.Millisecond
	drainBytes = 4 << 10
)

// Drain reads to the end of a body whose end marker was seen, so that the
// connection can be used again; nearly always the end is there already. A server
// that keeps it open is hung up on.
func (e *EventReader) Drain(hangUp context.CancelFunc) {
	timer := time.AfterFunc(drainTime, hangUp)
	defer timer.Stop()
	_, _ = io.CopyN(io.Discard, e.r, drainBytes) // the answer is complete whatever comes
}
