package rerank_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/knowledge/rerank"
	"github.com/chainstream/chainstream/llm"
)

const key = "sk-rerank-canary"

// client is the client of a server that answers every request by a handler.
func client(t *testing.T, answer http.HandlerFunc, change ...func(*rerank.Config)) *rerank.Client {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	config := rerank.Config{URL: server.URL + "/v1/rerank", Key: key, Model: "m", Client: server.Client()}
	for _, f := range change {
		f(&config)
	}
	c, err := rerank.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var passages = []knowledge.Passage{{Headings: "Sea", Text: "Tides rise."}, {Text: "Gulls eat."}, {Text: "Rocks stay."}}

// The server is given the query and the passages with their headings, and its scores
// make the order, whatever order they come in.
func TestRerank(t *testing.T) {
	t.Parallel()
	var asked map[string]any
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != "/v1/rerank" || r.Header.Get("Authorization") != "Bearer "+key {
			t.Errorf("%s %v %v", r.URL.Path, r.Header, err)
		}
		_, _ = io.WriteString(w, `{"id": "x", "results": [{"index": 1, "relevance_score": 0.2}, {"index": 2, "relevance_score": 0.9, "document": {"text": "x"}}, {"index": 0, "relevance_score": 0.2}]}`)
	})
	got, err := c.Rerank(t.Context(), "what stays?", passages)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]knowledge.Ranked{{Passage: 2, Score: 0.9}, {Passage: 0, Score: 0.2}, {Passage: 1, Score: 0.2}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := map[string]any{
		"model": "m", "query": "what stays?", "documents": []any{"Sea\n\nTides rise.", "Gulls eat.", "Rocks stay."}, "top_n": 3.0, "return_documents": false,
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if _, err := c.Rerank(t.Context(), strings.Repeat("ä", 3000)+strings.Repeat("ö", 3000), passages); err != nil {
		t.Fatal(err)
	}
	if query, _ := asked["query"].(string); strings.Count(query, "ä") != 2000 || strings.Count(query, "ö") != 2000 {
		t.Errorf("a long query arrived with %d bytes", len(query))
	}
}

// Scores that are not from 0 to 1 are brought there, in the same order.
func TestRawScores(t *testing.T) {
	t.Parallel()
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"results": [{"index": 0, "relevance_score": -4.5}, {"index": 1, "relevance_score": 3}, {"index": 2, "relevance_score": 0}]}`)
	})
	got, err := c.Rerank(t.Context(), "x", passages)
	if err != nil || got[0].Passage != 1 || got[1].Passage != 2 || got[2].Passage != 0 || math.Abs(got[1].Score-0.5) > 1e-9 || got[2].Score <= 0 || got[0].Score >= 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Answers that are no order are errors, and no error has the key.
func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	body := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	status := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://elsewhere.example")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "no, "+key)
		}
	}
	full := func(third string) string {
		return `{"results": [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.2}, ` + third + `]}`
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   llm.Code
	}{
		"too few":     {body(`{"results": [{"index": 0, "relevance_score": 1}]}`), llm.CodeMalformedResponse},
		"none":        {body(`{}`), llm.CodeMalformedResponse},
		"too many":    {body(full(`{"index": 2, "relevance_score": 1}, {"index": 2, "relevance_score": 1}`)), llm.CodeMalformedResponse},
		"twice":       {body(full(`{"index": 1, "relevance_score": 1}`)), llm.CodeMalformedResponse},
		"beyond":      {body(full(`{"index": 3, "relevance_score": 1}`)), llm.CodeMalformedResponse},
		"negative":    {body(full(`{"index": -1, "relevance_score": 1}`)), llm.CodeMalformedResponse},
		"no index":    {body(full(`{"relevance_score": 1}`)), llm.CodeMalformedResponse},
		"no score":    {body(full(`{"index": 2}`)), llm.CodeMalformedResponse},
		"null score":  {body(full(`{"index": 2, "relevance_score": null}`)), llm.CodeMalformedResponse},
		"text score":  {body(full(`{"index": 2, "relevance_score": "1"}`)), llm.CodeMalformedResponse},
		"huge score":  {body(full(`{"index": 2, "relevance_score": 1e999}`)), llm.CodeMalformedResponse},
		"nan":         {body(full(`{"index": 2, "relevance_score": NaN}`)), llm.CodeMalformedResponse},
		"no json":     {body(`<html>`), llm.CodeMalformedResponse},
		"cut":         {body(`{"results": [{"ind`), llm.CodeMalformedResponse},
		"empty":       {body(""), llm.CodeMalformedResponse},
		"flood":       {body(`{"results": [` + strings.Repeat(" ", 5<<20)), llm.CodeMalformedResponse},
		"refused":     {status(401), llm.CodeUnauthorized},
		"busy":        {status(429), llm.CodeRateLimited},
		"failed":      {status(500), llm.CodeUnavailable},
		"redirect":    {status(302), llm.CodeMalformedResponse},
		"reset":       {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, llm.CodeConnectionFailed},
		"not in time": {func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }, llm.CodeTimeoutFirstByte},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := client(t, c.answer, func(c *rerank.Config) {
				if name == "not in time" {
					c.Timeout = 50 * time.Millisecond
				}
			}).Rerank(t.Context(), "x", passages)
			e, ok := errors.AsType[*llm.Error](err)
			if !ok || e.Code != c.want || got != nil || strings.Contains(err.Error(), key) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// Who gave up is told so; a server that fails again and again is left alone.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var calls atomic.Int32
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	})
	if _, err := c.Rerank(ctx, "x", passages); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	var last error
	for range 20 {
		_, last = c.Rerank(t.Context(), "x", passages)
	}
	if e, ok := errors.AsType[*llm.Error](last); !ok || e.Code != llm.CodeCircuitOpen || calls.Load() != llm.DefaultBreakerConsecutive {
		t.Errorf("%v after %d calls", last, calls.Load())
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	for _, c := range []rerank.Config{
		{URL: "", Client: &http.Client{}},
		{URL: "ftp://user:secret@host/rerank"}, {URL: "http://"}, {URL: "http://host", Key: "a b"}, {URL: "http://host"},
	} {
		if _, err := rerank.New(c); err == nil || strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
