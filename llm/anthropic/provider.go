// Package anthropic speaks to Anthropic's Messages API and to servers that offer
// the same.
//
// Requests, headers and names of errors are those of the official SDK. Its stream
// reader is not used, because it cannot keep the rules of package llm: it takes a
// body that merely ends for a complete answer, reads lines of 32 MB, knows neither
// CR line ends nor a byte order mark, and has the JSON decoder replace broken text
// without a word. Package anthropic reads the response body by itself. Nor does
// the SDK retry or look at the environment here: llm.RetryPolicy decides, and
// Config says all.
package anthropic

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// DefaultBaseURL is the address of Anthropic itself.
const DefaultBaseURL = "https://api.anthropic.com"

// DefaultMaxBytes is the default of Config.MaxBytes. A streamed answer takes
// some two hundred bytes a token.
const DefaultMaxBytes = 256 << 20

// Config says where and how a provider is reached.
type Config struct {
	// BaseURL is the address without the version, such as
	// "https://api.anthropic.com"; one that ends in /v1 is understood too. Empty is
	// DefaultBaseURL.
	BaseURL string
	// Key is sent as x-api-key; servers on one's own machine need none.
	Key string
	// MaxTokens limits answers whose request does not, because the API demands a
	// limit. 0 is 32,000 for Claude 3.7 and later, 8,192 for 3.5 and for names that
	// are not Claude's, and 4,096 before.
	MaxTokens int
	// CachePrompts asks the provider to keep the tools, the system prompt and the
	// history of a request for five minutes, where they are longer than some 1,024
	// tokens. What is read from there costs a tenth, but what is put there costs a
	// quarter more; so it is off unless prompts are known to repeat.
	CachePrompts bool
	// MaxBytes bounds the body of one response as it comes over the wire. 0 is
	// DefaultMaxBytes.
	MaxBytes int64
	// Client is the shared HTTP client, usually llm.NewHTTPClient. It is
	// required. Redirects are not followed, whatever its policy.
	Client *http.Client
}

// Provider is a server with Anthropic's API. It is safe for concurrent use.
type Provider struct {
	messages     anthropic.MessageService
	key          string
	maxTokens    int
	maxBytes     int64
	cachePrompts bool
}

// New returns the provider of a configuration. It fails when the base URL is not
// an http or https address, the key cannot be one, or the client is missing. It
// sends nothing.
func New(c Config) (*Provider, error) {
	if c.Client == nil {
		return nil, errors.New("anthropic provider: no HTTP client")
	}
	base := strings.TrimSuffix(strings.TrimRight(c.BaseURL, "/"), "/v1")
	if base == "" {
		base = DefaultBaseURL
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// Neither the address nor url's error is quoted: it may hold a password.
		return nil, errors.New("anthropic provider: the base URL is not an http or https address")
	}
	if strings.ContainsFunc(c.Key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("anthropic provider: the key has spaces or characters that no key has")
	}
	client := *c.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	options := []option.RequestOption{
		option.WithBaseURL(base),
		option.WithHTTPClient(doer{client: &client}),
		option.WithMaxRetries(0),
		option.WithoutOpenTelemetry(),
	}
	if c.Key != "" {
		options = append(options, option.WithAPIKey(c.Key))
	}
	maxBytes := c.MaxBytes
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	return &Provider{
		messages: anthropic.NewMessageService(options...),
		key:      c.Key, maxTokens: c.MaxTokens, maxBytes: maxBytes, cachePrompts: c.CachePrompts,
	}, nil
}

// Stream implements llm.Provider. Success needs the message_stop event. A server
// that ignores the wish to stream and answers at once is understood too. Errors
// carry the usage that was known when they came.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		if err := llm.ContextError(ctx); err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		call, err := p.prepare(req)
		if err != nil {
			e := llm.NewError(llm.CodeInvalidRequest, err)
			e.Detail = llm.Redact(err.Error(), p.key)
			yield(llm.Chunk{}, e)
			return
		}
		wireCtx, hangUp := context.WithCancel(ctx)
		defer hangUp()
		var response *http.Response
		stream := p.messages.NewStreaming(wireCtx, call.params, option.WithResponseInto(&response))
		err = stream.Err()
		if response != nil {
			defer response.Body.Close()
		}
		if err != nil || response.StatusCode < 200 || response.StatusCode > 299 {
			yield(llm.Chunk{}, p.openError(ctx, response, err))
			return
		}

		a := answer{
			events: wire.NewEventReader(response.Body, p.maxBytes), yield: yield,
			structure: call.structure, cutter: cutter{stops: call.cutAt},
		}
		err = a.read(ctx)
		if err == nil {
			err = a.finish(req)
		}
		switch {
		case errors.Is(err, errStopped):
		case err != nil:
			e := p.readError(ctx, response, err)
			e.Usage = a.partialUsage()
			yield(llm.Chunk{}, e)
		case a.done:
			a.events.Drain(hangUp)
		}
	}
}

// maxFailureBody is how much of an error's body is read.
const maxFailureBody = 64 << 10

// doer is the HTTP client that the SDK is given. The SDK reads the whole body of
// a failure, which is bounded here.
type doer struct{ client *http.Client }

// Do implements option.HTTPClient.
func (d doer) Do(req *http.Request) (*http.Response, error) {
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 400 {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxFailureBody), resp.Body}
	}
	return resp, nil
}
