package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
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

// connWriter writes the body of a stream to a connection that was taken over. It
// has a buffer only between the first write and the flush: most streams wait
// most of the time.
//
// The body is chunked (RFC 9112, section 7.1), so that a stream that was cut off
// does not look like one that has ended.
type connWriter struct {
	conn     net.Conn
	deadline deadline
	plain    bool        // for HTTP/1.0, which has no chunks
	gathered *chunkBytes // nil when there is nothing to send
}

// chunkBytes is room for the size of a chunk, what was gathered, and a line end.
type chunkBytes []byte

const (
	// streamBuffer is what is gathered before it is sent, in bytes.
	streamBuffer = 2 * streamPiece
	// chunkSize is the room for the size of a chunk: hexadecimal digits and a line end.
	chunkSize = 10
)

var chunkPool = sync.Pool{New: func() any {
	b := make(chunkBytes, chunkSize, chunkSize+streamBuffer+len(lineEnd))
	return &b
}}

const lineEnd = "\r\n"

func newConnWriter(conn net.Conn, timeout time.Duration, plain bool) *connWriter {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(streamSendBuffer) // a refusal costs memory, not correctness
	}
	_ = conn.SetDeadline(time.Time{}) // those of net/http; a broken connection shows at the first write
	return &connWriter{conn: conn, deadline: deadline{set: conn.SetWriteDeadline, timeout: timeout}, plain: plain}
}

// header sends the status line and the header of a stream.
func (w *connWriter) header(h http.Header) error {
	setStreamHeader(h)
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if !w.plain {
		h.Set("Transfer-Encoding", "chunked")
	}
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK" + lineEnd)
	if err := h.Write(&b); err != nil {
		return fmt.Errorf("write the header: %w", err)
	}
	b.WriteString(lineEnd)
	_, err := w.deadline.pieces(b.Bytes(), w.conn.Write)
	return err
}

// Write gathers b, and sends what was gathered when it gets much.
func (w *connWriter) Write(b []byte) (int, error) {
	if w.gathered == nil {
		w.gathered, _ = chunkPool.Get().(*chunkBytes) // which has nothing else
	}
	for n := 0; ; {
		m := min(len(b)-n, chunkSize+streamBuffer-len(*w.gathered))
		*w.gathered = append(*w.gathered, b[n:n+m]...)
		if n += m; n == len(b) {
			return n, nil
		}
		if err := w.send(); err != nil {
			return n, err
		}
	}
}

// Flush sends what was gathered.
func (w *connWriter) Flush() error {
	if w.gathered == nil {
		return nil
	}
	err := w.send()
	chunkPool.Put(w.gathered)
	w.gathered = nil
	return err
}

// send sends one chunk.
func (w *connWriter) send() error {
	all := *w.gathered
	*w.gathered = all[:chunkSize]
	chunk := all[chunkSize:]
	if len(chunk) == 0 {
		return nil
	}
	if !w.plain {
		size := append(strconv.AppendInt(make([]byte, 0, chunkSize), int64(len(chunk)), 16), lineEnd...)
		start := chunkSize - copy(all[chunkSize-len(size):], size)
		chunk = append(all, lineEnd...)[start:]
	}
	_, err := w.deadline.pieces(chunk, w.conn.Write)
	return err
}

// end says that the stream is complete.
func (w *connWriter) end() error {
	if err := w.Flush(); err != nil || w.plain {
		return err
	}
	_, err := w.deadline.pieces([]byte("0"+lineEnd+lineEnd), w.conn.Write)
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
