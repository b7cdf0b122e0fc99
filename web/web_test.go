package web_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/web"
)

// files reads every embedded file.
func files(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	err := fs.WalkDir(web.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(web.FS(), name)
		texts[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatalf("read the embedded page: %v", err)
	}
	return texts
}

func TestFSServesThePage(t *testing.T) {
	t.Parallel()
	server := http.FileServerFS(web.FS())
	tests := []struct{ path, contentType string }{
		{"/", "text/html; charset=utf-8"},
		{"/app.css", "text/css; charset=utf-8"},
		{"/app.js", "text/javascript; charset=utf-8"},
		{"/icon.svg", "image/svg+xml"},
	}
	for _, test := range tests {
		t.Run(test.path, func(t *testing.T) {
			t.Parallel()
			answer := httptest.NewRecorder()
			server.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, test.path, nil))
			if answer.Code != http.StatusOK {
				t.Fatalf("status = %d, want 200", answer.Code)
			}
			if got := answer.Header().Get("Content-Type"); got != test.contentType {
				t.Errorf("Content-Type = %q, want %q", got, test.contentType)
			}
		})
	}
}

// Every file that the page names is embedded, and nothing else is.
func TestReferencesResolve(t *testing.T) {
	t.Parallel()
	texts := files(t)
	reference := regexp.MustCompile(`(?:href|src)="([^"#][^"]*)"|(?:from|import) '\./([^']+)'`)
	named := map[string]bool{"index.html": true}
	for name, text := range texts {
		if path.Ext(name) != ".html" && path.Ext(name) != ".js" {
			continue
		}
		for _, match := range reference.FindAllStringSubmatch(text, -1) {
			target := match[1] + match[2]
			named[target] = true
			if _, ok := texts[target]; !ok {
				t.Errorf("%s names %q, which is not embedded", name, target)
			}
		}
	}
	for name := range texts {
		if !named[name] {
			t.Errorf("%s is embedded, but no file names it", name)
		}
	}
}

// The page runs under "default-src 'self'", and text never becomes markup.
func TestContentSecurityPolicyHolds(t *testing.T) {
	t.Parallel()
	inline := map[string][]*regexp.Regexp{
		".html": {
			regexp.MustCompile(`<script(?:>| [^>]*>)[^<]`),
			regexp.MustCompile(`<style`),
			regexp.MustCompile(`\s(?:style|on[a-z]+)=`),
		},
		".js": {
			regexp.MustCompile(`\b(?:inner|outer)HTML\b|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTMLUnsafe`),
			regexp.MustCompile(`\beval\(|new Function\b`),
			regexp.MustCompile(`setAttribute\('style'|\bstyle:`),
		},
		".css": {regexp.MustCompile(`@import|url\(`)},
	}
	elsewhere := regexp.MustCompile(`(?:href|src)="(?:https?:)?//|from '(?:https?:)?//`)
	for name, text := range files(t) {
		for _, pattern := range append(inline[path.Ext(name)], elsewhere) {
			if found := pattern.FindString(text); found != "" {
				t.Errorf("%s contains %q", name, strings.TrimSpace(found))
			}
		}
	}
}
