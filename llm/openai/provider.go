// Package openai speaks to OpenAI and to everything that offers the same chat
// completions API: Ollama, LM Studio, vLLM, gateways.
//
// Requests and error bodies are those of go-openai. Its stream reader is not
// used, because it cannot keep the rules of package llm: it takes a body that
// merely ends for a complete answer, reads lines without a limit, knows neither
// CR line ends nor a byte order mark, reports an error event only in one exact
// spelling, and has the JSON decoder replace broken text without a word. Package
// openai reads the response body by itself, below go-openai, at its HTTP client.
package openai

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sashabaranov/go-openai"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// DefaultBaseURL is the address of OpenAI itself.
const DefaultBaseURL = "https://api.openai.com/v1"

// DefaultMaxBytes is the default of Config.MaxBytes. A streamed answer takes
// some three hundred bytes a token.
const DefaultMaxBytes = 256 << 20

// Config says where and how a provider is reached.
type Config struct {
	// BaseURL is the address up to and including the version, such as
	// "http://127.0.0.1:11434/v1" for Ollama. Empty is DefaultBaseURL.
	BaseURL string
	// Key is sent as bearer token; servers on one's own machine need none.
	Key string
	// MaxCompletionTokens sends the token limit as max_completion_tokens, which
	// OpenAI's newer models insist on, instead of max_tokens, which everybody
	// else understands. It is always so when BaseURL is OpenAI's.
	MaxCompletionTokens bool
	// MaxBytes bounds the body of one response as it comes over the wire. 0 is
	// DefaultMaxBytes.
	MaxBytes int64
	// Client is the shared HTTP client, usually llm.NewHTTPClient. It is
	// required. Redirects are not followed, whatever its policy.
	Client *http.Client
}

// Provider is a server with OpenAI's API. It is safe for concurrent use.
type Provider struct {
	client              *openai.Client
	doer                doer
	base                string
	key                 string
	maxCompletionTokens bool
	maxBytes            int64
}

// New returns the provider of a configuration. It fails when the base URL is not
// an http or https address, the key cannot be one, or the client is missing. It sends nothing.
func New(c Config) (*Provider, error) {
	if c.Client == nil {
		return nil, errors.New("openai provider: no HTTP client")
	}
	base := strings.TrimRight(c.BaseURL, "/")
	if base == "" {
		base = DefaultBaseURL
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// Neither the address nor url's error is quoted: it may hold a password.
		return nil, errors.New("openai provider: the base URL is not an http or https address")
	}
	if strings.ContainsFunc(c.Key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("openai provider: the key has spaces or characters that no key has")
	}
	client := *c.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	wire := openai.DefaultConfig(c.Key)
	wire.BaseURL = base
	sender := doer{client: &client}
	wire.HTTPClient = sender
	maxBytes := c.MaxBytes
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	return &Provider{
		client:              openai.NewClientWithConfig(wire),
		doer:                sender,
		base:                base,
		key:                 c.Key,
		maxCompletionTokens: c.MaxCompletionTokens || base == DefaultBaseURL,
		maxBytes:            maxBytes,
	}, nil
}

// settleTime bounds how long a finished answer is waited for to be followed by
// its usage and the end of the stream. Without them it is complete all the same.
const settleTime = 5 * time.Second

// Stream implements llm.Provider. Success needs a finish_reason or [DONE]. A
// server that ignores the wish to stream and answers at once is understood too.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		if err := llm.ContextError(ctx); err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		request, err := wireRequest(req)
		if err != nil {
			yield(llm.Chunk{}, llm.NewError(llm.CodeInvalidRequest, err))
			return
		}
		extra, err := p.extraFields(req)
		if err != nil {
			yield(llm.Chunk{}, llm.NewError(llm.CodeInvalidRequest, err))
			return
		}
		c := &call{extra: extra}
		wireCtx, hangUp := context.WithCancel(context.WithValue(ctx, callKey{}, c))
		defer hangUp()
		stream, err := p.client.CreateChatCompletionStream(wireCtx, request)
		if err != nil {
			yield(llm.Chunk{}, p.openError(ctx, c, err))
			return
		}
		defer stream.Close() //nolint:errcheck // nothing is lost: the answer has been read, or is abandoned

		a := answer{events: wire.NewEventReader(c.body, p.maxBytes), yield: yield}
		err = a.read(ctx, hangUp)
		if err == nil {
			err = a.finish(req)
		}
		switch {
		case errors.Is(err, errStopped):
		case err != nil:
			e := p.readError(ctx, err)
			e.Usage = a.usage // some servers send it with every event
			yield(llm.Chunk{}, e)
		default:
			a.events.Drain(hangUp)
		}
	}
}
