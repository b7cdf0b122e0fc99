package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/httpapi"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	a := newFake(t, &scriptedStore{}, nil)
	for host, allowed := range map[string]bool{
		"localhost": true, "localhost:8080": true, "LOCALHOST:1": true, "localhost.": true, "app.localhost:3000": true,
		"127.0.0.1": true, "127.0.0.1:8080": true, "127.8.9.1": true, "[::1]": true, "[::1]:8080": true, "[::ffff:127.0.0.1]:80": true,
		"example.com": false, "example.com:8080": false, "localhost.example.com": false, "127.0.0.1.example.com": false,
		"10.0.0.1": false, "0.0.0.0:8080": false, "[::]": false, "169.254.169.254": false, "notlocalhost": false,
		"[fe80::1%25lo]": false, "2130706433": false, "127.1": false, "localhost:8080.example.com": false,
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			got := a.do(call{method: "GET", path: "/healthz", host: host})
			if allowed {
				got.want(http.StatusOK)
			} else {
				got.problem(http.StatusForbidden, "host_not_allowed")
			}
		})
	}
}

// Every route is closed to foreign pages, streams and files included.
func TestForeignPages(t *testing.T) {
	t.Parallel()
	a := newFake(t, &scriptedStore{head: events.Head{LastSeq: 1, Finished: true}, first: 1}, nil)
	own := a.url
	routes, err := httpapi.Routes(a.server)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		header map[string]string
		code   string
	}{
		{"foreign origin", map[string]string{"Origin": "https://example.com"}, "origin_not_allowed"},
		{"opaque origin", map[string]string{"Origin": "null"}, "origin_not_allowed"},
		{"other port", map[string]string{"Origin": "http://127.0.0.1:1"}, "origin_not_allowed"},
		{"origin with our name in front", map[string]string{"Origin": own + ".example.com"}, "origin_not_allowed"},
		{"origin that is an extension", map[string]string{"Origin": "chrome-extension://abc"}, "origin_not_allowed"},
		{"cross-site", map[string]string{"Sec-Fetch-Site": "cross-site"}, "origin_not_allowed"},
		{"another port of this machine", map[string]string{"Sec-Fetch-Site": "same-site"}, "origin_not_allowed"},
		{"unknown site", map[string]string{"Sec-Fetch-Site": "same-planet"}, "origin_not_allowed"},
		{"cross-site frame", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, "origin_not_allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, r := range routes {
				path := strings.NewReplacer(":id", "1", ":executionId", "1", "/*", "/chain/one").Replace(r.Path)
				got := a.do(call{method: r.Method, path: path, header: c.header}).want(http.StatusForbidden)
				if r.Method != http.MethodHead {
					got.problem(http.StatusForbidden, c.code)
				}
			}
		})
	}
	for name, header := range map[string]map[string]string{
		"no browser":  nil,
		"same origin": {"Origin": own, "Sec-Fetch-Site": "same-origin"},
		"typed":       {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a.do(call{method: "GET", path: "/", header: header}).want(http.StatusOK)
			a.do(call{method: "GET", path: "/events/1?after=1", header: header}).want(http.StatusNoContent)
		})
	}
	link := map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
	a.do(call{method: "GET", path: "/", header: link}).want(http.StatusOK)
	a.do(call{method: "GET", path: "/docs", header: link}).want(http.StatusOK)
	a.do(call{method: "GET", path: "/events/1", header: link}).problem(http.StatusForbidden, "origin_not_allowed")
	a.do(call{method: "POST", path: "/api/v1/executions/1/cancel", header: link}).problem(http.StatusForbidden, "origin_not_allowed")
}

func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	a := newFake(t, &scriptedStore{err: events.ErrUnavailable}, nil)
	for _, path := range []string{"/", "/docs", "/healthz", "/nothing", "/readyz", "/metrics", "/openapi.json"} {
		h := a.do(call{method: "GET", path: path}).header
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") ||
			!strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src '") || h.Get("X-Request-Id") == "" {
			t.Errorf("%s: %v", path, h)
		}
		if strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("%s: policy %q", path, h.Get("Content-Security-Policy"))
		}
	}
}
