package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/labstack/echo/v4"
)

// pagePolicy lets a page use what this server itself serves and nothing else.
const pagePolicy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// asset is a file that does not change while the server runs.
type asset struct {
	body   []byte
	media  string
	policy string // Content-Security-Policy; empty = nothing may be loaded
	etag   string
}

func newAsset(body []byte, media, policy string) asset {
	sum := sha256.Sum256(body)
	return asset{body: body, media: media, policy: policy, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

// serve answers with the asset, or with 304 when the client has it.
func (a asset) serve(c echo.Context) error {
	h := c.Response().Header()
	h.Set(echo.HeaderCacheControl, "no-cache") // ask each time; the answer is mostly 304
	h.Set("ETag", a.etag)
	if a.policy != "" {
		h.Set(echo.HeaderContentSecurityPolicy, a.policy)
	}
	if matches(c.Request().Header, a.etag) {
		return c.NoContent(http.StatusNotModified)
	}
	return c.Blob(http.StatusOK, a.media, a.body)
}

// matches tells whether If-None-Match names the etag.
func matches(h http.Header, etag string) bool {
	for _, line := range h.Values("If-None-Match") {
		for tag := range strings.SplitSeq(line, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}

// loadPages reads the files of the web page, by the path they are served at.
func loadPages(files fs.FS) (map[string]asset, error) {
	pages := make(map[string]asset)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		at := "/" + name
		if name == "index.html" {
			at = "/"
		}
		pages[at] = newAsset(body, mediaOfFile(name), pagePolicy)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load the web page: %w", err)
	}
	if _, ok := pages["/"]; !ok {
		return nil, fmt.Errorf("load the web page: %w: index.html", fs.ErrNotExist)
	}
	return pages, nil
}

// mediaOfFile does not ask the system, whose tables differ.
func mediaOfFile(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".json", ".map":
		return "application/json"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".ico":
		return "image/x-icon"
	case ".woff2":
		return "font/woff2"
	case ".txt":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}
