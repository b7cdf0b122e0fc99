package llmtest

import (
	"context"
	"io"
	"net/http"
	"strings"
)

// Silence is a transport that answers every request with this body, which then stays
// open without a word until the request is given up. It needs no network, so that
// deadlines can be tested by a clock that is not the real one.
type Silence string

// RoundTrip implements http.RoundTripper.
func (s Silence) RoundTrip(req *http.Request) (*http.Response, error) {
	body := io.MultiReader(strings.NewReader(string(s)), silentBody{ctx: req.Context()})
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(body), Request: req}, nil
}

type silentBody struct{ ctx context.Context } //nolint:containedctx // a body ends with its request

func (s silentBody) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}
