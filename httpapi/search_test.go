package httpapi_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
)

type passageReply struct {
	DocumentName, Text, Reason string
	Truncated                  bool
	Signals                    map[string]any
}

type searchReply struct {
	Results     []passageReply
	Left        map[string]int
	Tokens      int
	TokenCount  string
	Explanation *struct {
		Vector struct {
			Queries []struct {
				Model      string
				Dimensions int
				Parts      []string
				Cached     bool
			}
			Scans []struct {
				Answered string
				Index    bool
			}
		}
		Keyword struct {
			Terms []struct{ Word string }
		}
		Matched   []struct{ ChunkID int }
		Removed   []passageReply
		TimingsMs map[string]float64
	}
}

// shelf is a server with a repository of some short texts.
func shelf(t *testing.T) (a *api, search func(more string) searchReply) {
	t.Helper()
	a = newAPI(t, setup{models: map[string]llm.Entry{
		"big": {Models: []string{"model"}, Info: map[string]llm.Info{"model": {Count: func(text string) int64 { return int64(len(strings.Fields(text))) }}}},
	}})
	a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	for i, text := range []string{"Pelicans eat fish near the coast.", "Gulls eat what pelicans leave.", "Tides follow the moon, and pelicans the tides."} {
		d := a.do(call{method: "POST", path: repositories + "/1/documents", body: fmt.Sprintf(`{"name":"%d.txt","text":%q,"metadata":{"odd":%t}}`, i, text, i%2 == 1)}).want(http.StatusAccepted).object()
		a.process(d)
	}
	return a, func(more string) (got searchReply) {
		t.Helper()
		a.do(call{method: "POST", path: repositories + "/search", body: `{"repositories":[1],"query":"what do pelicans eat?"` + more + `}`}).want(http.StatusOK).decode(&got)
		return got
	}
}

// The tokens of the results are counted by the tokenizer of the named model, exactly,
// and what has no room is left out and counted.
func TestSearchTokens(t *testing.T) {
	t.Parallel()
	_, search := shelf(t)
	all := search(`,"model":"big/model"`)
	if n := len(all.Results); n != 3 || all.TokenCount != "exact" {
		t.Fatalf("%d results, %v", n, all.TokenCount)
	}
	words := 0
	for i, p := range all.Results {
		words += len(strings.Fields(fmt.Sprintf("[%d] %s\n%s", i+1, p.DocumentName, p.Text)))
	}
	if all.Tokens != words {
		t.Errorf("%d tokens, want %d", all.Tokens, words)
	}
	some := search(fmt.Sprintf(`,"model":"big/model","maxTokens":%d`, all.Tokens-1))
	if len(some.Results) != 2 || some.Left["maxTokens"] != 1 || some.Tokens >= all.Tokens {
		t.Errorf("%d results, %v", len(some.Results), some.Left)
	}
	if got := search(`,"maxTokens":1`); len(got.Results) != 0 || got.TokenCount != "estimated" {
		t.Errorf("%+v", got)
	}
	if got := search(`,"model":"nobody/x"`); got.TokenCount != "estimated" {
		t.Errorf("a model that nobody knows counts %s", got.TokenCount)
	}
}

// An explanation shows every passage that was found, with the words that were looked
// for, and why it is not among the results.
func TestSearchExplained(t *testing.T) {
	t.Parallel()
	a, search := shelf(t)
	if plain := search(`,"limit":1`); plain.Explanation != nil {
		t.Error("nobody asked for an explanation")
	}
	x := search(`,"limit":1,"explain":true,"filter":{"odd":false}`).Explanation
	reasons := make(map[string]string)
	for _, r := range x.Removed {
		reasons[r.DocumentName] = r.Reason
		if r.Text == "" || r.Signals == nil {
			t.Errorf("removed %v", r)
		}
	}
	if diff := cmp.Diff(map[string]string{"1.txt": "filter", "2.txt": "limit"}, reasons); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	var words []string
	for _, term := range x.Keyword.Terms {
		words = append(words, term.Word)
	}
	slices.Sort(words)
	if !slices.Equal(words, []string{"eat", "pelican"}) || len(x.Matched) != 3 {
		t.Errorf("words %v of %d passages", words, len(x.Matched))
	}
	if q := x.Vector.Queries[0]; q.Model != "test/words" || q.Dimensions != 64 || !slices.Equal(q.Parts, []string{"what do pelicans eat?"}) || !q.Cached {
		t.Errorf("query %+v", q)
	}
	if scan := x.Vector.Scans[0]; scan.Answered != "exact" || scan.Index {
		t.Errorf("scan %+v", scan)
	}
	if x.TimingsMs["search"] <= 0 || len(x.TimingsMs) != 5 {
		t.Errorf("%v", x.TimingsMs)
	}
	removed := search(`,"explain":true,"maxTokens":20`).Explanation.Removed
	for _, r := range removed {
		if r.Reason != "maxTokens" {
			t.Errorf("removed %v", r)
		}
	}
	if len(removed) == 0 {
		t.Error("nothing was without room")
	}
	for field, value := range map[string]string{"explain": `"yes"`, "maxTokens": "0", "model": "7"} {
		a.do(call{method: "POST", path: repositories + "/search", body: `{"repositories":[1],"query":"x","` + field + `":` + value + `}`}).problem(http.StatusUnprocessableEntity, "invalid_request")
	}
}

// A search by vectors whose model fails tells so in the words of other failed calls.
func TestSearchFails(t *testing.T) {
	t.Parallel()
	var failure *llm.Error
	failing := func() error { return failure }
	a := newAPI(t, setup{config: func(c *httpapi.Config) {
		if s, ok := c.Search.(*knowledge.Searcher); ok {
			s.Embeddings, s.Retry = failingEmbeddings{failing}, llm.RetryPolicy{Attempts: 1}
		}
	}})
	a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	for _, tt := range []struct {
		code   llm.Code
		status int
		is     string
		title  string
	}{
		{llm.CodeUnavailable, http.StatusBadGateway, "unavailable", "The embedding call failed"},
		{llm.CodeQuotaExceeded, http.StatusTooManyRequests, "insufficient_quota", "The embedding call failed"},
		{llm.CodeNotFound, http.StatusNotFound, "model_not_found", "There is no such model"},
	} {
		failure = llm.NewError(tt.code, nil)
		got := a.do(call{method: "POST", path: repositories + "/search", body: `{"repositories":[1],"query":"x","search":"vector"}`})
		got.problem(tt.status, tt.is)
		if o := got.object(); o["title"] != tt.title || o["detail"] != failure.Message {
			t.Errorf("%s: %v", tt.code, o)
		}
	}
}

// failingEmbeddings is a model whose calls fail.
type failingEmbeddings struct{ failure func() error }

func (f failingEmbeddings) Embedding(id string) (knowledge.Embedding, error) {
	return knowledge.Embedding{Embedder: f, Model: id, Batch: 8, Count: llm.EstimateTokens}, nil
}

func (f failingEmbeddings) Embed(context.Context, string, []string, int) ([][]float32, llm.Usage, error) {
	return nil, llm.Usage{}, f.failure()
}

// Of what was left out an explanation tells the beginning, cut between characters.
func TestSearchExplainsShortly(t *testing.T) {
	t.Parallel()
	a, search := shelf(t)
	for name, n := range map[string]int{"exact.txt": 592, "over.txt": 593} {
		d := a.do(call{method: "POST", path: repositories + "/1/documents", body: fmt.Sprintf(`{"name":%q,"text":%q}`, name, "pelican "+strings.Repeat("é", n))}).want(http.StatusAccepted).object()
		a.process(d)
	}
	seen := 0
	for _, r := range search(`,"limit":1,"explain":true`).Explanation.Removed {
		switch r.DocumentName {
		case "exact.txt":
			if seen++; r.Truncated || r.Text != "pelican "+strings.Repeat("é", 592) {
				t.Errorf("all of it: %t, %q", r.Truncated, r.Text)
			}
		case "over.txt":
			if seen++; !r.Truncated || r.Text != "pelican "+strings.Repeat("é", 592)+"…" {
				t.Errorf("one character more: %t, %q", r.Truncated, r.Text)
			}
		}
	}
	if seen != 2 {
		t.Errorf("%d of 2 were left out", seen)
	}
}

// One text, with the fields that clients of other assistants know.
func TestEmbedText(t *testing.T) {
	t.Parallel()
	s, fake := withFake(t, nil)
	a := newAPI(t, s)
	embed := func(body string) answer { return a.do(call{method: "POST", path: "/api/v1/ai/embeddings", body: body}) }
	for body, model := range map[string]string{
		`{"text": "high tide"}`: "openai/text-embedding-3-small",
		`{"text": "high tide", "model": "text-embedding-ada-002"}`: "openai/text-embedding-ada-002",
		`{"text": "high tide", "model": "openai/org/e"}`:           "openai/org/e",
	} {
		got := embed(body).want(http.StatusOK).object()
		vector, _ := got["embedding"].([]any)
		if len(got) != 3 || got["model"] != model || got["tokens"] != 2.0 || len(vector) != llmtest.Dimensions {
			t.Errorf("%s: %v", body, got)
		}
	}
	for body, want := range map[string]string{
		`{}`: "/text", `{"text": " "}`: "/text", `{"text": 7}`: "/text", `{"text": "x", "input": "y"}`: "/input", `{"text": "x", "model": []}`: "/model",
	} {
		got := embed(body)
		if got.status != http.StatusUnprocessableEntity || !strings.Contains(string(got.body), want) {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
	embed(`{"text": "x", "model": "offline/echo"}`).problem(http.StatusNotFound, "model_not_found")
	embed(`{"text": "x", "model": "nobody/x"}`).problem(http.StatusNotFound, "model_not_found")

	// A short wait is made here, a long one is passed on.
	fake.ScriptEmbeddings("busy", llmtest.EmbedReply{Status: http.StatusServiceUnavailable}, llmtest.EmbedReply{})
	embed(`{"text": "x", "model": "openai/busy"}`).want(http.StatusOK)
	fake.ScriptEmbeddings("limited", llmtest.EmbedReply{Status: http.StatusTooManyRequests, Headers: []string{"Retry-After", "9"}})
	limited := embed(`{"text": "x", "model": "openai/limited"}`)
	limited.problem(http.StatusTooManyRequests, "rate_limit_exceeded")
	if limited.header.Get("Retry-After") == "" {
		t.Error("nobody is told when to come back")
	}
	// A text that is too long is an error here, not cut in silence.
	fake.OtherwiseEmbed(llmtest.EmbedRefuse(0, 3))
	long := embed(`{"text": "one two three four", "model": "openai/short"}`)
	long.problem(http.StatusBadRequest, "context_length_exceeded")
	if o := long.object(); o["detail"] != "The text is too long for this model." {
		t.Errorf("%v", o)
	}

	// What failed is named, and no execution is: there was none.
	fake.ScriptEmbeddings("locked", llmtest.EmbedReply{Status: http.StatusUnauthorized})
	got := embed(`{"text": "x", "model": "openai/locked"}`)
	got.problem(http.StatusBadGateway, "provider_unauthorized")
	if o := got.object(); o["title"] != "The embedding call failed" || o["detail"] != "The model provider refused the credentials." {
		t.Errorf("%v", o)
	}

	// Without OpenAI it is a model that needs none.
	offline := newAPI(t, setup{config: func(c *httpapi.Config) { c.Embeddings = vocabulary{} }})
	offline.do(call{method: "POST", path: "/api/v1/ai/embeddings", body: `{"text": "x"}`}).problem(http.StatusNotFound, "model_not_found")
}

// More texts than one call of the provider takes are sent by several.
func TestEmbeddingsBySeveralCalls(t *testing.T) {
	t.Parallel()
	s, fake := withFake(t, nil)
	fake.OtherwiseEmbed(llmtest.EmbedRefuse(40, 0))
	a := newAPI(t, s)
	var texts []string
	for i := range 150 {
		texts = append(texts, fmt.Sprintf("%q", fmt.Sprint("text ", i)))
	}
	var got struct {
		Data []struct {
			Index     int
			Embedding []float64
		}
		Usage map[string]int
	}
	a.do(call{method: "POST", path: "/v1/embeddings", body: `{"model": "openai/e", "input": [` + strings.Join(texts, ",") + `]}`}).want(http.StatusOK).decode(&got)
	if len(got.Data) != 150 || got.Usage["prompt_tokens"] != 300 {
		t.Fatalf("%d vectors, %v", len(got.Data), got.Usage)
	}
	for i, d := range got.Data {
		if want := llmtest.Embedding(fmt.Sprint("text ", i), llmtest.Dimensions)[0]; d.Index != i || math.Abs(d.Embedding[0]-want) > 1e-6 {
			t.Fatalf("vector %d: %+v", i, d)
		}
	}
	for _, c := range fake.EmbedCalls() {
		if len(c.Texts) > 100 {
			t.Errorf("a call of %d texts", len(c.Texts))
		}
	}
}
