// Package rerank has a server put the passages of a search into a better order, by
// the API that Cohere, Jina and the servers made after them have:
// {query, documents, top_n} → {results: [{index, relevance_score}]}.
package rerank

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// DefaultTimeout bounds a call. A search waits for it.
const DefaultTimeout = 5 * time.Second

// Config says where the server is.
type Config struct {
	URL     string // of the call itself, such as https://api.example.com/v1/rerank
	Key     string // sent as bearer token; empty = none
	Model   string // empty = the server's own
	Timeout time.Duration
	Client  *http.Client // required; redirects are not followed, whatever its policy
}

// Client asks the server. It is safe for concurrent use.
type Client struct {
	config  Config
	client  *http.Client
	breaker *llm.Breaker
}

// New returns the client of a configuration. It sends nothing.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		// Not quoted: it may hold a password.
		return nil, errors.New("the address of the rerank server is not an http or https address")
	}
	if strings.ContainsFunc(c.Key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("the key of the rerank server has spaces or characters that no key has")
	}
	if c.Client == nil {
		return nil, errors.New("no HTTP client for the rerank server")
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	client := *c.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{config: c, client: &client, breaker: llm.NewBreaker(llm.BreakerPolicy{}, nil, nil)}, nil
}

// request is what is sent.
type request struct {
	Model           string   `json:"model,omitempty"`
	Query           string   `json:"query"`
	Documents       []string `json:"documents"`
	TopN            int      `json:"top_n"`
	ReturnDocuments bool     `json:"return_documents"`
}

// response is what comes. A number that is missing must not be taken for 0.
type response struct {
	Results []struct {
		Index *int     `json:"index"`
		Score *float64 `json:"relevance_score"`
	} `json:"results"`
}

// Rerank implements knowledge.Reranker. It does not try again: a search that waits is
// worse than one in the order it had. A server that fails again and again is left
// alone for a while.
func (c *Client) Rerank(ctx context.Context, query string, passages []knowledge.Passage) ([]knowledge.Ranked, error) {
	done, open := c.breaker.Allow()
	if open != nil {
		return nil, open
	}
	within, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	ranked, err := c.ask(within, query, passages)
	if err != nil && ctx.Err() == nil && within.Err() != nil {
		err = llm.NewError(llm.CodeTimeoutFirstByte, context.DeadlineExceeded)
	}
	done(err)
	return ranked, err
}

// Bounds of what is sent and read.
const (
	mostQueryRunes = 4000
	maxAnswer      = 4 << 20
	maxFailure     = 64 << 10
)

func (c *Client) ask(ctx context.Context, query string, passages []knowledge.Passage) ([]knowledge.Ranked, error) {
	r := request{Model: c.config.Model, Query: ends(query, mostQueryRunes), TopN: len(passages)}
	for _, p := range passages {
		r.Documents = append(r.Documents, strings.TrimSpace(p.Headings+"\n\n"+p.Text))
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write the rerank request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.config.URL, bytes.NewReader(body))
	if err != nil {
		return nil, c.failure(llm.CodeInvalidRequest, "the address cannot be called")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if c.config.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.config.Key)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		if e := llm.ContextError(ctx); e != nil {
			return nil, e
		}
		return nil, c.failure(llm.CodeConnectionFailed, "the rerank server does not answer")
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxFailure)) // the status says enough
		e := llm.StatusError(resp.StatusCode, resp.Header, time.Now())
		e.Detail = llm.Redact(string(text), c.config.Key)
		return nil, e
	}
	var got response
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxAnswer)).Decode(&got); err != nil {
		if e := llm.ContextError(ctx); e != nil {
			return nil, e
		}
		return nil, c.failure(llm.CodeMalformedResponse, err.Error())
	}
	return c.order(got, len(passages))
}

// order reads the answer. Scores beyond 0 to 1 are those that models make before they
// are brought there, which is done here.
func (c *Client) order(got response, passages int) ([]knowledge.Ranked, error) {
	if len(got.Results) != passages {
		return nil, c.failure(llm.CodeMalformedResponse, fmt.Sprintf("%d results came for %d passages", len(got.Results), passages))
	}
	ranked := make([]knowledge.Ranked, 0, passages)
	seen := make([]bool, passages)
	beyond := false
	for _, r := range got.Results {
		if r.Index == nil || r.Score == nil || *r.Index < 0 || *r.Index >= passages || seen[*r.Index] {
			return nil, c.failure(llm.CodeMalformedResponse, "a result has no score, or its index is twice there or beyond the passages")
		}
		seen[*r.Index] = true
		beyond = beyond || *r.Score < 0 || *r.Score > 1
		ranked = append(ranked, knowledge.Ranked{Passage: *r.Index, Score: *r.Score})
	}
	if beyond {
		for i, r := range ranked {
			ranked[i].Score = 1 / (1 + math.Exp(-r.Score))
		}
	}
	slices.SortStableFunc(ranked, func(a, b knowledge.Ranked) int {
		switch {
		case a.Score != b.Score:
			if a.Score > b.Score {
				return -1
			}
			return 1
		}
		return a.Passage - b.Passage
	})
	return ranked, nil
}

func (c *Client) failure(code llm.Code, detail string) *llm.Error {
	e := llm.NewError(code, nil)
	e.Detail = llm.Redact(detail, c.config.Key)
	return e
}

// ends answers the first and the last half of so many characters of a text that has
// more: a prompt says at its ends what it wants.
func ends(text string, most int) string {
	n := utf8.RuneCountInString(text)
	if n <= most {
		return text
	}
	runes := []rune(text)
	return string(runes[:most/2]) + "\n…\n" + string(runes[n-most/2:])
}
