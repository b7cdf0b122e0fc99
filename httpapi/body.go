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
	req := c.Request()
	tooLarge := &problem{kind: kindTooLarge, detail: "A body may have up to " + bytesInWords(most) + "."}
	if req.ContentLength > most {
		return nil, tooLarge
	}
	data, err := io.ReadAll(http.MaxBytesReader(c.Response(), req.Body, most))
	var exceeded *http.MaxBytesError
	switch {
	case err == nil:
		return data, nil
	case errors.As(err, &exceeded):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &problem{kind: kindSlowBody, detail: fmt.Sprintf("A request must arrive within %s.", s.cfg.BodyTimeout)}
	default:
		return nil, &problem{kind: kindMalformedBody, detail: "The body ended before it was complete.", cause: err}
	}
}

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
