package sseclient

import (
	"bytes"
	"io"
)

// wholeEvents passes the body of a stream on up to its last complete event. What
// stands after it when the body ends is an event that was cut off, which the
// HTML standard (section 9.2.6) says to discard.
type wholeEvents struct {
	body  io.ReadCloser
	max   int    // bytes of an event
	alive func() // told whenever something arrives

	buf     []byte // read and not passed on
	ready   int    // bytes of buf that hold complete events
	scanned int    // bytes of buf that hold no further end of an event
	err     error
}

// readSize is how much is read at once.
const readSize = 32 << 10

// Read implements io.Reader.
func (w *wholeEvents) Read(p []byte) (int, error) {
	for w.ready == 0 {
		if w.err != nil {
			return 0, w.err
		}
		w.fill()
	}
	n := copy(p, w.buf[:w.ready])
	w.ready -= n
	w.scanned -= n
	w.buf = w.buf[n:]
	return n, nil
}

// fill reads once.
func (w *wholeEvents) fill() {
	piece := make([]byte, readSize)
	n, err := w.body.Read(piece)
	if n > 0 {
		w.alive()
		w.buf = append(w.buf, piece[:n]...)
		w.scan()
	}
	w.err = err
	if w.ready == 0 && len(w.buf) > w.max {
		w.err = ErrTooLarge
	}
}

// scan looks for the end of the last complete event: an empty line. The line
// ends may be LF, CR or CRLF.
func (w *wholeEvents) scan() {
	from := max(w.scanned-2, 0) // the longest end is three bytes
	for _, end := range []string{"\n\n", "\r\r", "\n\r\n"} {
		if at := bytes.LastIndex(w.buf[from:], []byte(end)); at >= 0 {
			w.ready = max(w.ready, from+at+len(end))
		}
	}
	w.scanned = len(w.buf)
}

// Close implements io.Closer.
func (w *wholeEvents) Close() error { return w.body.Close() }
