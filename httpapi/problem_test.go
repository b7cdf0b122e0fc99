package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/httpapi"
)

// Every kind of bad input to every route that takes a body or parameters: the
// whole problem document is a golden file.
func TestProblems(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{queued: 1, config: func(c *httpapi.Config) { c.MaxBody = 8 << 10 }})
	a.chain(twoPrompts)
	a.chain(strings.Replace(twoPrompts, "name: two", "name: other", 1))
	a.queue()
	deep := strings.Repeat("[", chain.MaxDepth+1) + strings.Repeat("]", chain.MaxDepth+1)
	trigger := func(name, body string, status int) problemCase {
		return problemCase{"trigger-" + name, call{method: "POST", path: "/api/v1/executions", body: body}, status}
	}
	doc := func(name, body string, status int) problemCase {
		return problemCase{"chain-" + name, call{method: "POST", path: "/api/v1/chains", media: "application/yaml", body: body}, status}
	}
	head := "name: new\ninputs: {topic: {type: short_text}}\nprompts:\n"
	for _, c := range []problemCase{
		{"no-route", call{method: "GET", path: "/api/v1/nothing"}, 404},
		{"later-route", call{method: "POST", path: "/api/v1/executions/1/later"}, 404},
		{"method", call{method: "PATCH", path: "/api/v1/chains"}, 405},
		{"odd-method", call{method: "BREW", path: "/healthz"}, 405},

		trigger("empty", " ", 400),
		trigger("no-json", `{"chain": two}`, 400),
		trigger("truncated", `{"chain": "two`, 400),
		trigger("rest", `{"chain": "two"} {}`, 400),
		trigger("nul", "{\"chain\": \"two\", \"inputs\": {\"topic\": \"a\x00b\"}}", 400),
		trigger("nul-escape", `{"chain": "two", "inputs": {"topic": "a\u0000b"}}`, 400),
		trigger("utf8", "{\"chain\": \"two\", \"inputs\": {\"topic\": \"\xff\"}}", 400),
		trigger("surrogate", `{"chain": "two", "inputs": {"topic": "\ud800"}}`, 400),
		trigger("duplicate-key", `{"chain": "two", "inputs": {"a/b": 1, "a/b": 2}}`, 400),
		trigger("depth", `{"chain": "two", "metadata": {"deep": `+deep+`}}`, 400),
		trigger("huge-number", `{"chain": "two", "inputs": {"n": 1e400000}}`, 400),
		trigger("beyond-float", `{"chain": "two", "inputs": {"n": -1e309}}`, 400),
		trigger("list", `[]`, 422),
		trigger("null", `null`, 422),
		trigger("no-chain", `{}`, 422),
		trigger("everything-wrong", `{"chain": true, "version": 0, "inputs": [], "metadata": "x", "limits": {"timeout": 5, "maxCostUsd": "1", "x": 1}, "Chain": 1, "priority": 11}`, 422),
		trigger("chain-beyond-64-bits", `{"chain": 9223372036854775808}`, 422),
		trigger("chain-name", `{"chain": "No such name'; --"}`, 422),
		trigger("unknown-chain", `{"chain": "three"}`, 404),
		trigger("unknown-version", `{"chain": "two", "version": 9}`, 404),
		trigger("missing-input", `{"chain": "two"}`, 422),
		trigger("surplus-input", `{"chain": "two", "inputs": {"topic": "x", "colour": "red"}}`, 422),
		trigger("wrong-input", `{"chain": "two", "inputs": {"topic": 7}}`, 422),
		trigger("long-input", `{"chain": "two", "inputs": {"topic": "`+strings.Repeat("x", 51)+`"}}`, 422),
		trigger("too-fine-cost", `{"chain": "two", "inputs": {"topic": "x"}, "limits": {"maxCostUsd": 0.0000000001}}`, 422),
		trigger("too-long-timeout", `{"chain": "two", "inputs": {"topic": "x"}, "limits": {"timeout": "25h"}}`, 422),
		trigger("queue-full", `{"chain": "two", "inputs": {"topic": "x"}}`, 429),
		{"trigger-no-media-type", call{method: "POST", path: "/api/v1/executions", media: " ", body: "{}"}, 415},
		{"trigger-yaml", call{method: "POST", path: "/api/v1/executions", media: "application/yaml", body: "chain: two"}, 415},
		{"trigger-form", call{method: "POST", path: "/api/v1/executions", media: "application/x-www-form-urlencoded", body: "chain=two"}, 415},
		{"trigger-charset", call{method: "POST", path: "/api/v1/executions", media: "application/json; charset=latin1", body: "{}"}, 415},
		{"trigger-compressed", call{method: "POST", path: "/api/v1/executions", body: "x", header: map[string]string{"Content-Encoding": "gzip"}}, 415},
		{"trigger-key", call{method: "POST", path: "/api/v1/executions", body: "{}", header: map[string]string{"Idempotency-Key": "with space"}}, 400},
		{"trigger-long-key", call{method: "POST", path: "/api/v1/executions", body: "{}", header: map[string]string{"Idempotency-Key": strings.Repeat("k", 256)}}, 400},
		{"too-large", call{method: "POST", path: "/api/v1/executions", body: `"` + strings.Repeat("x", 8<<10-1) + `"`}, 413},

		doc("unknown-field", head+"  - {name: A, model: offline/echo, content: x, colour: red}\n", 422),
		doc("wrong-types", "name: 7\nprompts: {}\n", 422),
		doc("nothing-resolves", head+"  - {name: A, model: offline/echo, content: \"${nothing} ${b}\"}\n  - {name: B, model: offline/echo, content: x}\n", 422),
		doc("sibling", head+"  - {name: A, position: 1, model: offline/echo, content: x}\n  - {name: B, position: 1, model: offline/echo, content: \"${a}\"}\n", 422),
		doc("two-slugs", head+"  - {name: A b, model: offline/echo, content: x}\n  - {name: a-B, model: offline/echo, content: x}\n", 422),
		doc("unknown-model", head+"  - {name: A, model: nobody/x, content: x}\n", 422),
		doc("duplicate-key", "name: a\nname: b\n", 400),
		doc("no-yaml", "name: [\n", 400),
		doc("cycle", "name: &a [*a]\n", 400),
		doc("exists", twoPrompts, 409),
		{"chain-json-depth", call{method: "POST", path: "/api/v1/chains", body: deep}, 400},
		{"chain-json-million-deep", call{method: "POST", path: "/api/v1/chains", body: strings.Repeat(`{"a":`, 1500)}, 400},
		{"chain-json-nul", call{method: "POST", path: "/api/v1/chains/validate", body: `{"name": "\u0000"}`}, 400},
		{"chain-text", call{method: "POST", path: "/api/v1/chains", media: "text/plain", body: "name: x"}, 415},
		{"validate-unknown-field", call{method: "POST", path: "/api/v1/chains/validate", body: `{"name": "x", "prompts": [], "colour": 1}`}, 422},
		{"put-unknown", call{method: "PUT", path: "/api/v1/chains/77", media: "application/yaml", body: twoPrompts}, 404},
		{"put-name-taken", call{method: "PUT", path: "/api/v1/chains/other", media: "application/yaml", body: twoPrompts}, 409},
		{"import-no-assistants", call{method: "POST", path: "/api/v1/chains/import", body: `{"version": "1.0", "assistants": 7}`}, 422},
		{"import-replace", call{method: "POST", path: "/api/v1/chains/import?replace=yes", body: `{}`}, 400},
		{"chain-unknown", call{method: "GET", path: "/api/v1/chains/three"}, 404},
		{"chain-odd-name", call{method: "GET", path: "/api/v1/chains/%00%27"}, 404},
		{"chain-named-like-a-route", call{method: "GET", path: "/api/v1/chains/import"}, 404},
		{"chain-version", call{method: "GET", path: "/api/v1/chains/two?version=9"}, 404},
		{"chain-bad-version", call{method: "GET", path: "/api/v1/chains/two?version=0"}, 400},
		{"chain-delete-unknown", call{method: "DELETE", path: "/api/v1/chains/three"}, 404},
		{"chains-limit", call{method: "GET", path: "/api/v1/chains?limit=0"}, 400},
		{"chains-cursor", call{method: "GET", path: "/api/v1/chains?cursor=-1"}, 400},
		{"versions-unknown", call{method: "GET", path: "/api/v1/chains/three/versions"}, 404},
		{"versions-limit", call{method: "GET", path: "/api/v1/chains/two/versions?limit=x"}, 400},
		{"export-format", call{method: "GET", path: "/api/v1/chains/two/export?format=xml"}, 400},
		{"export-unknown", call{method: "GET", path: "/api/v1/chains/three/export"}, 404},

		{"execution-unknown", call{method: "GET", path: "/api/v1/executions/999"}, 404},
		{"execution-text", call{method: "GET", path: "/api/v1/executions/abc"}, 404},
		{"executions-status", call{method: "GET", path: "/api/v1/executions?status=done"}, 400},
		{"executions-chain", call{method: "GET", path: "/api/v1/executions?chain=%00"}, 400},
		{"executions-from", call{method: "GET", path: "/api/v1/executions?from=yesterday"}, 400},
		{"executions-limit", call{method: "GET", path: "/api/v1/executions?limit=201"}, 400},
		{"cancel-unknown", call{method: "POST", path: "/api/v1/executions/999/cancel"}, 404},
		{"delete-unknown", call{method: "DELETE", path: "/api/v1/executions/999"}, 404},
		{"delete-queued", call{method: "DELETE", path: "/api/v1/executions/1"}, 409},
		{"events-unknown", call{method: "GET", path: "/api/v1/executions/999/events"}, 404},
		{"events-future", call{method: "GET", path: "/api/v1/executions/1/events?after=1"}, 400},
		{"events-cursor", call{method: "GET", path: "/api/v1/executions/1/events?after=x"}, 400},
		{"events-type", call{method: "GET", path: "/api/v1/executions/1/events?type=nope"}, 400},
		{"events-limit", call{method: "GET", path: "/api/v1/executions/1/events?limit=1001"}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := a.do(c.call).want(c.status)
			golden(t, "problems/"+c.name+".json", string(got.body))
			if c.status == http.StatusMethodNotAllowed && !strings.Contains(got.header.Get("Allow"), "GET") {
				t.Errorf("Allow %q", got.header.Get("Allow"))
			}
			if c.status == http.StatusTooManyRequests && got.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		})
	}
}

type problemCase struct {
	name   string
	call   call
	status int
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	a := newFake(t, &scriptedStore{}, nil)
	full := `"` + strings.Repeat("x", limit-2) + `"` // JSON, and no trigger
	a.do(call{method: "POST", path: "/api/v1/executions", body: full}).problem(http.StatusUnprocessableEntity, "invalid_request")
	a.do(call{method: "POST", path: "/api/v1/executions", body: full + " "}).problem(http.StatusRequestEntityTooLarge, "body_too_large")
	chunked := a.request(call{method: "POST", path: "/api/v1/executions", media: "application/json"})
	chunked.Body, chunked.ContentLength = io.NopCloser(strings.NewReader(full+" ")), -1
	a.send(chunked).problem(http.StatusRequestEntityTooLarge, "body_too_large")
	chunked = a.request(call{method: "POST", path: "/api/v1/executions", media: "application/json"})
	chunked.Body, chunked.ContentLength = io.NopCloser(strings.NewReader(full)), -1
	a.send(chunked).problem(http.StatusUnprocessableEntity, "invalid_request")

	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := z.Write(make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	got := a.do(call{method: "POST", path: "/api/v1/executions", body: bomb.String(), header: map[string]string{"Content-Encoding": "gzip"}})
	got.problem(http.StatusUnsupportedMediaType, "unsupported_encoding")
	if got.header.Get("Accept-Encoding") != "identity" {
		t.Errorf("Accept-Encoding %q", got.header.Get("Accept-Encoding"))
	}
}

func TestSlowBody(t *testing.T) {
	t.Parallel()
	a := newFake(t, &scriptedStore{}, func(c *httpapi.Config) { c.BodyTimeout = 200 * time.Millisecond })
	u, err := url.Parse(a.url)
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, "POST /api/v1/executions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(all); !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, `"request_timeout"`) {
		t.Errorf("answer %q", got)
	}
}

// What went wrong inside is for the operator's log, once, with the request id.
func TestInternalErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		store *scriptedStore
	}{
		{"error", &scriptedStore{err: errors.New("SELECT secret FROM table")}},
		{"panic", &scriptedStore{panic: "secret"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := newFake(t, c.store, nil)
			got := a.do(call{method: "GET", path: "/api/v1/executions/1?token=hidden", header: map[string]string{"X-Request-Id": "my-id.1"}})
			if p := got.problem(http.StatusInternalServerError, "internal"); p.Detail != "" || strings.Contains(string(got.body), "secret") {
				t.Errorf("the answer tells too much: %s", got.body)
			}
			if got.header.Get("X-Request-Id") != "my-id.1" {
				t.Errorf("request id %q", got.header.Get("X-Request-Id"))
			}
			if lines := a.logs.lines("secret"); len(lines) != 1 || !strings.Contains(lines[0], "request_id=my-id.1") {
				t.Errorf("log: %q", lines)
			}
			eventually(t, func() bool { return len(a.logs.lines("status=500")) == 2 }) // the error and the access
			if lines := a.logs.lines("hidden"); len(lines) != 0 {
				t.Errorf("the query is logged: %q", lines)
			}
		})
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	a := newFake(t, &scriptedStore{}, nil)
	for _, bad := range []string{"", "with space", strings.Repeat("x", 65), `a"b`, "é"} {
		got := a.do(call{method: "GET", path: "/healthz", header: map[string]string{"X-Request-Id": bad}})
		if id := got.header.Get("X-Request-Id"); id == bad || id == "" {
			t.Errorf("%q became %q", bad, id)
		}
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	a := newFake(t, &scriptedStore{err: events.ErrUnavailable}, nil)
	for _, path := range []string{"/api/v1/executions/1", "/api/v1/executions/1/events", "/readyz"} {
		got := a.do(call{method: "GET", path: path})
		got.problem(http.StatusServiceUnavailable, "unavailable")
		if got.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
	}
	a.do(call{method: "GET", path: "/healthz"}).want(http.StatusOK)
}

// A full disk refuses what would be written and says so; the server is not sent
// any more requests meanwhile.
func TestFull(t *testing.T) {
	t.Parallel()
	a := newFake(t, &scriptedStore{err: errors.Join(events.ErrUnavailable, events.ErrNoSpace)}, nil)
	a.do(call{method: "GET", path: "/api/v1/executions/1"}).problem(http.StatusInsufficientStorage, "storage_full")
	a.do(call{method: "GET", path: "/readyz"}).problem(http.StatusServiceUnavailable, "unavailable")
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	a := newFake(t, &scriptedStore{}, nil)
	a.do(call{method: "GET", path: "/readyz"}).want(http.StatusOK)
	a.server.Drain()
	a.do(call{method: "GET", path: "/readyz"}).problem(http.StatusServiceUnavailable, "stopping")
	a.do(call{method: "GET", path: "/healthz"}).want(http.StatusOK)
	if lines := a.logs.lines("level=ERROR"); len(lines) != 0 {
		t.Errorf("an orderly stop is logged as an error: %q", lines)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	a := newFake(t, &scriptedStore{}, nil)
	got := a.do(call{method: "OPTIONS", path: "/api/v1/executions"}).want(http.StatusNoContent)
	if allow := got.header.Get("Allow"); !strings.Contains(allow, "POST") || got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers %v", got.header)
	}
}

// A client that closes its own half of the connection still gets what there is
// to say. Where its leaving is what made the request fail, it gets no answer;
// never an empty 200, which would look like success.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	post := "POST /api/v1/executions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	for _, c := range []struct{ name, request, answer string }{
		{"body cut short", post + "Content-Length: 100\r\n\r\n{", "HTTP/1.1 400 "},
		{"chunk cut short", post + "Transfer-Encoding: chunked\r\n\r\n40\r\n{", "HTTP/1.1 400 "},
		{"unknown address", "GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 "},
		{"request that waits for its client", "GET /api/v1/executions/1 HTTP/1.1\r\nHost: localhost\r\n\r\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := newFake(t, &scriptedStore{hang: true}, nil)
			u, err := url.Parse(a.url)
			if err != nil {
				t.Fatal(err)
			}
			var d net.Dialer
			conn, err := d.DialContext(t.Context(), "tcp", u.Host)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			if tcp, ok := conn.(*net.TCPConn); !ok || tcp.CloseWrite() != nil {
				t.Fatal("the connection cannot be closed by half")
			}
			all, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(all); !strings.HasPrefix(got, c.answer) || c.answer == "" && got != "" {
				t.Errorf("answer %q", got)
			}
		})
	}
}
