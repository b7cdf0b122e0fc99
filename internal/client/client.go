// Package client speaks to the HTTP API of a Chainstream server. It knows how a
// request is sent and how a refusal reads, and leaves the documents themselves
// to its callers.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Client is a client of one server. It is safe for concurrent use.
type Client struct {
	base string // without a slash at the end
	http *http.Client
}

// New makes a client of the server at an address such as http://127.0.0.1:8080.
func New(server string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the server address %q is not of the form http://host:port", server)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute, ExpectContinueTimeout: time.Second}
	return &Client{base: strings.TrimRight(server, "/"), http: &http.Client{Transport: transport}}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// HTTP is the client underneath, without an overall timeout.
func (c *Client) HTTP() *http.Client { return c.http }

// URL is the address of a path on the server.
func (c *Client) URL(path string, query url.Values) string {
	if len(query) == 0 {
		return c.base + path
	}
	return c.base + path + "?" + query.Encode()
}

// Request is one call.
type Request struct {
	Method      string // default GET
	Path        string // begins with a slash; escape what is put into it
	Query       url.Values
	Body        []byte // nil = none
	ContentType string // of Body; default application/json
	Accept      string // default application/json
	Key         string // idempotency key; "" = none
}

// askedFor is the size of a body, in bytes, from which on the server is asked first: it
// refuses what is too large before it is sent, and a connection that it closes
// meanwhile might lose the refusal.
const askedFor = 1 << 20

// Open sends a request and answers the response of a success, whose body the
// caller closes. Errors: *NoServerError and *Problem.
func (c *Client) Open(ctx context.Context, r Request) (*http.Response, error) {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	var body io.Reader
	if r.Body != nil {
		body = bytes.NewReader(r.Body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL(r.Path, r.Query), body)
	if err != nil {
		return nil, fmt.Errorf("prepare the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if r.Accept != "" {
		req.Header.Set("Accept", r.Accept)
	}
	if r.Body != nil {
		req.Header.Set("Content-Type", "application/json")
		if r.ContentType != "" {
			req.Header.Set("Content-Type", r.ContentType)
		}
	}
	if r.Key != "" {
		req.Header.Set("Idempotency-Key", r.Key)
	}
	if len(r.Body) > askedFor {
		req.Header.Set("Expect", "100-continue")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.Unreachable(err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		mediaType = ""
	}
	return nil, NewProblem(resp.StatusCode, mediaType, text)
}

// Do is Open that reads the answer into v, a pointer; nil drops it. A
// *json.RawMessage takes the text as it came.
func (c *Client) Do(ctx context.Context, r Request, v any) error {
	resp, err := c.Open(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	if v == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if raw, ok := v.(*json.RawMessage); ok {
		*raw = text
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	return nil
}

// NoServerError says that nothing answers at the address of a server.
type NoServerError struct {
	Server string
	Err    error
}

// Error says what to do.
func (e *NoServerError) Error() string {
	if errors.Is(e.Err, syscall.ECONNREFUSED) {
		return fmt.Sprintf("no server answers at %s; start one with chainstream serve, or name another one with --server (CHAINSTREAM_SERVER)", e.Server)
	}
	return fmt.Sprintf("the server at %s cannot be reached: %s", e.Server, e.Err)
}

// Unwrap answers the cause.
func (e *NoServerError) Unwrap() error { return e.Err }

// Unreachable makes an error of a failed connection readable. Other errors pass
// unchanged.
func (c *Client) Unreachable(err error) error {
	var sent *url.Error
	if errors.As(err, &sent) && !errors.Is(err, context.Canceled) {
		return &NoServerError{Server: c.base, Err: sent.Err}
	}
	return err
}
