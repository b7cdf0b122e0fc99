// Package gemini speaks to Google's Gemini models by their own REST API:
// streamGenerateContent of the Generative Language API, and everything that
// offers the same.
//
// It uses neither the official SDK nor Gemini's OpenAI-compatible endpoint.
//
// google.golang.org/genai v1.77.0 cannot keep the rules of package llm. Its stream
// reader takes an answer that merely ends for a complete one, fails at comments,
// at fields other than data, at CR line ends, at a byte order mark, at data of two
// lines and at errors in a JSON array, reads an event of 20 MB without a word, and
// has encoding/json replace broken text and characters that are split between
// events. Its types cannot be had without the rest: 198 more packages, among them
// grpc, OpenTelemetry and Google's authentication, and 4.2 MB in a stripped
// binary of 24 MB, where this package takes 0.1 MB.
//
// The OpenAI-compatible endpoint keeps the rules through llm/openai, but is
// narrower: thoughts come as tagged text, a tool call's signature, without which
// Gemini 3 refuses the next request, has no field in that format, and the seed has
// been refused there. It remains reachable by an address with /openai in it.
package gemini

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// DefaultBaseURL is the address of the Gemini API itself.
const DefaultBaseURL = "https://generativelanguage.googleapis.com/v1beta"

// DefaultMaxBytes is the default of Config.MaxBytes. A streamed answer takes
// some four hundred bytes an event.
const DefaultMaxBytes = 256 << 20

// Config says where and how Gemini is reached.
type Config struct {
	// BaseURL is the address up to and including the version. Empty is
	// DefaultBaseURL.
	BaseURL string
	// Key is sent as x-goog-api-key, never in an address.
	Key string
	// MaxBytes bounds the body of one response as it comes over the wire. 0 is
	// DefaultMaxBytes.
	MaxBytes int64
	// Client is the shared HTTP client, usually llm.NewHTTPClient. It is
	// required. Redirects are not followed, whatever its policy.
	Client *http.Client
}

// Provider is a server with Gemini's API. It is safe for concurrent use.
type Provider struct {
	client   *http.Client
	base     string
	key      string
	maxBytes int64
}

// New returns the provider of a configuration. It fails when the base URL is not
// an http or https address, the key cannot be one, or the client is missing. It
// sends nothing.
func New(c Config) (*Provider, error) {
	if c.Client == nil {
		return nil, errors.New("gemini provider: no HTTP client")
	}
	base := strings.TrimRight(c.BaseURL, "/")
	if base == "" {
		base = DefaultBaseURL
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// Neither the address nor url's error is quoted: it may hold a password.
		return nil, errors.New("gemini provider: the base URL is not an http or https address")
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, errors.New("gemini provider: the base URL has a query; a key belongs into the key's variable")
	}
	if strings.ContainsFunc(c.Key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("gemini provider: the key has spaces or characters that no key has")
	}
	client := *c.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	maxBytes := c.MaxBytes
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	return &Provider{client: &client, base: base, key: c.Key, maxBytes: maxBytes}, nil
}

// settleTime bounds how long a finished answer is waited for to be followed by
// the end of the stream. Without it the answer is complete all the same.
const settleTime = 5 * time.Second

// Stream implements llm.Provider. Success needs a finishReason. A server that
// does not stream, and answers by an object or an array of them, is understood
// too. ParallelTools is not passed on: Gemini has no such choice.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		if err := llm.ContextError(ctx); err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		body, err := encode(req)
		if err != nil {
			yield(llm.Chunk{}, p.withDetail(llm.NewError(llm.CodeInvalidRequest, nil), err.Error()))
			return
		}
		wireCtx, hangUp := context.WithCancel(ctx)
		defer hangUp()
		resp, failed := p.open(ctx, wireCtx, req.Model, ":streamGenerateContent?alt=sse", body)
		if failed != nil {
			yield(llm.Chunk{}, failed)
			return
		}
		defer resp.Body.Close() // nothing is lost: the answer has been read, or is abandoned

		a := answer{events: wire.NewEventReader(resp.Body, p.maxBytes), yield: yield}
		err = a.read(ctx, hangUp)
		switch {
		case errors.Is(err, errStopped):
			return
		case err != nil:
			e := p.readError(ctx, err)
			e.Usage = a.usage
			yield(llm.Chunk{}, e)
			return
		}
		if a.finish(req) {
			a.events.Drain(hangUp)
		}
	}
}

// open sends a request to a method of a model and returns the response of a
// success.
func (p *Provider) open(ctx, wireCtx context.Context, model, method string, body []byte) (*http.Response, *llm.Error) {
	path, err := modelPath(model)
	if err != nil {
		return nil, p.withDetail(llm.NewError(llm.CodeInvalidRequest, nil), err.Error())
	}
	address := p.base + path + method
	req, err := http.NewRequestWithContext(wireCtx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, p.withDetail(llm.NewError(llm.CodeInvalidRequest, nil), err.Error())
	}
	req.Header.Set("Content-Type", "application/json")
	if method == embedMethod {
		req.Header.Set("Accept", "application/json")
	} else {
		req.Header.Set("Accept", "text/event-stream")
	}
	if p.key != "" {
		req.Header.Set("X-Goog-Api-Key", p.key)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		if e := llm.ContextError(ctx); e != nil {
			return nil, e
		}
		return nil, p.withDetail(llm.NewError(llm.CodeConnectionFailed, nil), err.Error())
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close() // nothing has been written
	// A body that broke off still leaves the status, which says enough.
	failure, _ := io.ReadAll(io.LimitReader(resp.Body, maxFailureBody))
	if e := llm.ContextError(ctx); e != nil {
		return nil, e
	}
	return nil, p.statusError(resp, failure)
}

// modelPath answers where a model is below the base URL. A name may come with
// its collection, such as tunedModels/mine.
func modelPath(model string) (string, error) {
	if !strings.Contains(model, "/") {
		model = "models/" + model
	}
	var path strings.Builder
	for part := range strings.SplitSeq(model, "/") {
		if part == "" || part == "." || part == ".." {
			return "", fmt.Errorf("%q is not the name of a model", model)
		}
		path.WriteByte('/')
		path.WriteString(url.PathEscape(part))
	}
	return path.String(), nil
}
