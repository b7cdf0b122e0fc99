package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

// streamPiece is the most that has to be taken by the reader within one
// deadline, in bytes: a large event reaches a slow reader in several.
const streamPiece = 16 << 10

// deadline moves the write deadline of a stream on while its client reads. It
// looks at the clock once per piece, and moves the deadline at most once a
// second, because that costs a system timer.
type deadline struct {
	set     func(time.Time) error
	timeout time.Duration
	armed   time.Time
}

func (d *deadline) arm() error {
	now := time.Now()
	if now.Sub(d.armed) < min(time.Second, d.timeout/4) {
		return nil
	}
	d.armed = now
	if err := d.set(now.Add(d.timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set write deadline: %w", err)
	}
	return nil
}

// pieces calls write for b in pieces, each under the deadline.
func (d *deadline) pieces(b []byte, write func([]byte) (int, error)) (int, error) {
	n := 0
	for {
		if err := d.arm(); err != nil {
			return n, err
		}
		m, err := write(b[n:min(n+streamPiece, len(b))])
		n += m
		if err != nil || n == len(b) {
			return n, err
		}
	}
}

// connWriter writes to a connection that was taken over. It has a buffer only
// between the first write and the flush: most streams wait most of the time.
type connWriter struct {
	conn     net.Conn
	deadline deadline
	buffer   *bytes.Buffer // nil when there is nothing to send
}

// streamBuffer is what is gathered before it is sent, in bytes.
const streamBuffer = 2 * streamPiece

var streamBuffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, streamBuffer)) }}

func newConnWriter(conn net.Conn, timeout time.Duration) *connWriter {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(streamSendBuffer) // a refusal costs memory, not correctness
	}
	_ = conn.SetDeadline(time.Time{}) // those of net/http; a broken connection shows at the first write
	return &connWriter{conn: conn, deadline: deadline{set: conn.SetWriteDeadline, timeout: timeout}}
}

// Write gathers b, and sends what was gathered when it gets much.
func (w *connWriter) Write(b []byte) (int, error) {
	if w.buffer == nil {
		w.buffer, _ = streamBuffers.Get().(*bytes.Buffer)
	}
	if w.buffer.Len()+len(b) > streamBuffer {
		if err := w.send(); err != nil {
			return 0, err
		}
		if len(b) > streamBuffer {
			return w.deadline.pieces(b, w.conn.Write)
		}
	}
	return w.buffer.Write(b)
}

// Flush sends what was gathered.
func (w *connWriter) Flush() error {
	if w.buffer == nil {
		return nil
	}
	err := w.send()
	streamBuffers.Put(w.buffer)
	w.buffer = nil
	return err
}

func (w *connWriter) send() error {
	if w.buffer.Len() == 0 {
		return nil
	}
	_, err := w.deadline.pieces(w.buffer.Bytes(), w.conn.Write)
	w.buffer.Reset()
	return err
}

// writeHeader sends the status line and the header of a stream. The body ends
// with the connection.
func writeHeader(out sink, h http.Header) error {
	setStreamHeader(h)
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	if err := h.Write(&b); err != nil {
		return fmt.Errorf("write the header: %w", err)
	}
	b.WriteString("\r\n")
	_, err := out.Write(b.Bytes())
	return err
}

// streamHeader sends the header of a stream through net/http.
func streamHeader(res *echo.Response) {
	setStreamHeader(res.Header())
	res.WriteHeader(http.StatusOK)
}

func setStreamHeader(h http.Header) {
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set(echo.HeaderCacheControl, "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set(echo.HeaderConnection, "close") // the end of the stream is the end of the connection
}

// responseWriter writes through net/http.
type responseWriter struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	deadline deadline
}

func newResponseWriter(w http.ResponseWriter, rc *http.ResponseController, timeout time.Duration) *responseWriter {
	return &responseWriter{w: w, rc: rc, deadline: deadline{set: rc.SetWriteDeadline, timeout: timeout}}
}

func (w *responseWriter) Write(b []byte) (int, error) { return w.deadline.pieces(b, w.w.Write) }

// Flush sends what net/http has buffered, which can block like a write.
func (w *responseWriter) Flush() error {
	if err := w.deadline.arm(); err != nil {
		return err
	}
	return w.rc.Flush()
}
