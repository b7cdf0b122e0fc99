package openai

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// call is what one request and its doer tell each other, past go-openai.
type call struct {
	limit    int64          // most bytes of a success that are read; 0 = the reader counts itself
	extra    []byte         // a JSON object whose fields belong into the request
	response *http.Response // headers and status, nil until they came
	body     io.Reader      // of a success
	failure  []byte         // the start of the body of a failure
}

// callKey finds the call in a request's context.
type callKey struct{}

// maxFailureBody is how much of an error's body is read.
const maxFailureBody = 64 << 10

// doer is the HTTP client that go-openai is given. It completes requests and
// keeps the response for the provider.
type doer struct{ client *http.Client }

// Do implements openai.HTTPDoer.
func (d doer) Do(req *http.Request) (*http.Response, error) {
	c, ok := req.Context().Value(callKey{}).(*call)
	if !ok {
		return nil, fmt.Errorf("send to %s: not a streaming call", req.URL.Host)
	}
	if err := addFields(req, c.extra); err != nil {
		return nil, err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	c.response = resp
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		if c.limit > 0 {
			resp.Body = http.MaxBytesReader(nil, resp.Body, c.limit)
		}
		c.body = resp.Body
		return resp, nil
	}
	// go-openai reads the whole body of a failure and never closes it.
	c.failure, err = io.ReadAll(io.LimitReader(resp.Body, maxFailureBody))
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	if req.Context().Err() != nil {
		return nil, err
	}
	// A body that broke off still leaves the status, which says enough.
	resp.Body = io.NopCloser(bytes.NewReader(c.failure))
	if resp.StatusCode < 400 {
		return nil, fmt.Errorf("status %d is neither a success nor an error", resp.StatusCode)
	}
	return resp, nil
}

// addFields puts the fields of the JSON object extra into the one of the body.
func addFields(req *http.Request, extra []byte) error {
	if len(extra) <= len("{}") || req.Body == nil {
		return nil
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	body = bytes.TrimSpace(body)
	if len(body) <= len("{}") || body[len(body)-1] != '}' {
		return fmt.Errorf("the request is not a JSON object of fields")
	}
	joined := make([]byte, 0, len(body)+len(extra))
	joined = append(joined, body[:len(body)-1]...)
	joined = append(joined, ',')
	joined = append(joined, extra[1:]...)
	req.ContentLength = int64(len(joined))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(joined)), nil }
	req.Body, err = req.GetBody()
	return err
}
