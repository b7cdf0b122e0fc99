package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/internal/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers a client of a server with one handler.
func serve(t *testing.T, handler http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := client.New(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestDo(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, `{"seen": %q}`, fmt.Sprint(r.Method, " ", r.URL, " ", r.Header.Get("Content-Type"), " ", r.Header.Get("Accept"), " ", r.Header.Get("Idempotency-Key"), " ", string(body)))
	})
	var answer struct{ Seen string }
	err := c.Do(t.Context(), client.Request{Method: http.MethodPost, Path: "/a", Query: url.Values{"q": {"1 2"}}, Body: []byte("x"), ContentType: "application/yaml", Key: "k"}, &answer)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("POST /a?q=1+2 application/yaml application/json k x", answer.Seen); diff != "" {
		t.Error(diff)
	}
	var raw json.RawMessage
	if err := c.Do(t.Context(), client.Request{Path: "/b"}, &raw); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"seen": "GET /b  application/json  "}`, string(raw)); diff != "" {
		t.Error(diff)
	}
}

// A large body waits until the server wants it.
func TestRefusedBeforeSent(t *testing.T) {
	t.Parallel()
	for size, expect := range map[int]string{1 << 20: "", 1<<20 + 1: "100-continue"} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Expect"); got != expect {
				t.Errorf("%d bytes: Expect %q", size, got)
			}
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		})
		err := c.Do(t.Context(), client.Request{Method: http.MethodPost, Path: "/a", Body: make([]byte, size)}, nil)
		var p *client.Problem
		if !errors.As(err, &p) || p.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestNoContent(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	var answer struct{}
	if err := c.Do(t.Context(), client.Request{Method: http.MethodDelete, Path: "/a"}, &answer); err != nil {
		t.Error(err)
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, contentType, body, want string }{
		{
			"one sentence", "application/problem+json", `{"title": "There is no such chain.", "detail": "No chain has this name.", "code": "chain_not_found"}`,
			"There is no such chain: No chain has this name (422 chain_not_found)",
		},
		{
			"pointers", "application/problem+json; charset=utf-8",
			`{"title": "Not valid", "detail": "2 problems, listed in errors.", "code": "invalid", "errors": [{"pointer": "/a", "detail": "first"}, {"pointer": "", "detail": "second", "line": 3}]}`,
			"Not valid: 2 problems, listed in errors (422 invalid)\n  /a: first\n  line 3: second",
		},
		{
			"said once", "application/problem+json", `{"title": "Not valid", "detail": "is required", "code": "invalid", "errors": [{"pointer": "/inputs/a", "detail": "is required"}]}`,
			"Not valid: /inputs/a: is required (422 invalid)",
		},
		{"no problem document", "text/html", "<html>", "Unprocessable Entity: What answers is perhaps no Chainstream server (422)"},
		{"a broken one", "application/problem+json", "{", "Unprocessable Entity: What answers is perhaps no Chainstream server (422)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", test.contentType)
				w.WriteHeader(http.StatusUnprocessableEntity)
				fmt.Fprint(w, test.body)
			})
			err := c.Do(t.Context(), client.Request{Path: "/"}, nil)
			var problem *client.Problem
			if !errors.As(err, &problem) || problem.Status != http.StatusUnprocessableEntity {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	c, err := client.New(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Do(t.Context(), client.Request{Path: "/"}, nil)
	var gone *client.NoServerError
	if !errors.As(err, &gone) || !strings.HasPrefix(err.Error(), "no server answers at "+server.URL+"; start one with chainstream serve") {
		t.Errorf("got %v", err)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "127.0.0.1:8080", "localhost", "ftp://host", "http://", "://"} {
		if _, err := client.New(address); err == nil {
			t.Errorf("%q was taken", address)
		}
	}
}
