package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
)

// media is how a body is written.
type media int

const (
	mediaJSON media = iota
	mediaYAML
)

// body reads the whole body of a request in one of the accepted media. JSON is
// checked strictly: see checkJSON.
func (s *Server) body(c echo.Context, accepted ...media) ([]byte, media, error) {
	req := c.Request()
	m, err := mediaOf(req.Header, accepted)
	if err != nil {
		return nil, 0, err
	}
	if enc := req.Header.Get(echo.HeaderContentEncoding); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, 0, &problem{kind: kindEncoding, detail: "Send the body without Content-Encoding."}
	}
	data, err := s.read(c, s.cfg.MaxBody)
	if err != nil {
		return nil, 0, err
	}
	if m == mediaJSON {
		if err := checkJSON(data); err != nil {
			return nil, 0, err
		}
	}
	return data, m, nil
}

// read reads the body up to a limit. A body that is announced as larger is
// refused before it is sent.
func (s *Server) read(c echo.Context, most int64) ([]byte, error) {
	return s.readFrom(c, c.Request().Body, most)
}

// readFrom is read for what stands for the body. It must not take its place in the request,
// where net/http looks whether there is more to come.
func (s *Server) readFrom(c echo.Context, body io.ReadCloser, most int64) ([]byte, error) {
	tooLarge := &problem{kind: kindTooLarge, detail: "A body may have up to " + bytesInWords(most) + "."}
	if c.Request().ContentLength > most {
		return nil, tooLarge
	}
	data, err := io.ReadAll(http.MaxBytesReader(c.Response(), body, most))
	var exceeded *http.MaxBytesError
	switch {
	case err == nil:
		return data, nil
	case errors.As(err, &exceeded):
		return nil, tooLarge
	case errors.Is(err, errCrowded):
		return nil, crowded()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &problem{kind: kindSlowBody, detail: fmt.Sprintf("A request must arrive within %s.", s.cfg.BodyTimeout)}
	default:
		return nil, &problem{kind: kindMalformedBody, detail: "The body ended before it was complete.", cause: err}
	}
}

// countedBody is a body whose bytes count, together with those of others, until they are
// released.
type countedBody struct {
	io.ReadCloser
	all  *atomic.Int64
	most int64
	own  int64 // that count: what was announced, or more where more has come
	read int64
}

// errCrowded says that there are too many bytes together.
var errCrowded = errors.New("too many bytes are on their way")

func crowded() *problem {
	return &problem{kind: kindCrowded, detail: "Others send so much at the moment that there is no room for more. Try again soon.", retryAfter: busyRetry}
}

// take lets bytes count, and tells whether there is room for them.
func (b *countedBody) take(n int64) bool {
	b.own += n
	return b.all.Add(n) <= b.most
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if b.read > b.own && !b.take(b.read-b.own) {
		return n, errCrowded
	}
	return n, err
}

func (b *countedBody) release() { b.all.Add(-b.own) }

// bytesInWords is a bound as people read it: large ones in MiB too, rounded down.
func bytesInWords(n int64) string {
	const mebibyte = 1 << 20
	if n < mebibyte {
		return fmt.Sprintf("%d bytes", n)
	}
	whole, tenths := n/mebibyte, n%mebibyte*10/mebibyte
	if tenths == 0 {
		return fmt.Sprintf("%d bytes (%d MiB)", n, whole)
	}
	return fmt.Sprintf("%d bytes (%d.%d MiB)", n, whole, tenths)
}

// mediaOf reads the Content-Type.
func mediaOf(h http.Header, accepted []media) (media, error) {
	names := map[string]media{
		"application/json": mediaJSON,
		"application/yaml": mediaYAML, "application/x-yaml": mediaYAML, "text/yaml": mediaYAML, "text/x-yaml": mediaYAML,
	}
	wanted := "application/json"
	if slices.Contains(accepted, mediaYAML) {
		wanted = "application/json or application/yaml"
	}
	given := h.Get(echo.HeaderContentType)
	if given == "" {
		return 0, &problem{kind: kindMediaType, detail: "The request has no Content-Type; send " + wanted + "."}
	}
	name, params, err := mime.ParseMediaType(given)
	if err != nil {
		return 0, &problem{kind: kindMediaType, detail: "The Content-Type cannot be read; send " + wanted + "."}
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii") {
		return 0, &problem{kind: kindMediaType, detail: "The text must be UTF-8."}
	}
	m, known := names[name]
	if known && slices.Contains(accepted, m) {
		return m, nil
	}
	return 0, &problem{kind: kindMediaType, detail: "Send " + wanted + "."}
}

// unhurried lifts the deadlines of the server from a request that may take its
// time: a stream, a download, a wait. Its own writes need a deadline then.
func unhurried(rc *http.ResponseController) error {
	for _, err := range []error{rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})} {
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("lift deadlines: %w", err)
		}
	}
	return nil
}
