package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// shelf is a server with a repository of some short texts.
func shelf(t *testing.T) (a *api, search func(more string) map[string]any) {
	t.Helper()
	a = newAPI(t, setup{models: map[string]llm.Entry{
		"big": {Models: []string{"model"}, Info: map[string]llm.Info{"model": {Count: func(text string) int64 { return int64(len(strings.Fields(text))) }}}},
	}})
	a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	for i, text := range []string{"Pelicans eat fish near the coast.", "Gulls eat what pelicans leave.", "Tides follow the moon, and pelicans the tides."} {
		d := a.do(call{method: "POST", path: repositories + "/1/documents", body: fmt.Sprintf(`{"name":"%d.txt","text":%q,"metadata":{"odd":%t}}`, i, text, i%2 == 1)}).want(http.StatusAccepted).object()
		a.process(d)
	}
	return a, func(more string) map[string]any {
		t.Helper()
		return a.do(call{method: "POST", path: repositories + "/search", body: `{"repositories":[1],"query":"what do pelicans eat?"` + more + `}`}).want(http.StatusOK).object()
	}
}

func list(v any) (out []map[string]any) {
	items, _ := v.([]any)
	for _, i := range items {
		out = append(out, i.(map[string]any))
	}
	return out
}

// The tokens of the results are counted by the tokenizer of the named model, exactly,
// and what has no room is left out and counted.
func TestSearchTokens(t *testing.T) {
	t.Parallel()
	_, search := shelf(t)
	all := search(`,"model":"big/model"`)
	if n := len(list(all["results"])); n != 3 || all["tokenCount"] != "exact" {
		t.Fatalf("%d results, %v", n, all["tokenCount"])
	}
	whole := all["tokens"].(float64)
	words := 0
	for i, p := range list(all["results"]) {
		words += len(strings.Fields(fmt.Sprintf("[%d] %s\n%s", i+1, p["documentName"], p["text"])))
	}
	if int(whole) != words {
		t.Errorf("%v tokens, want %d", whole, words)
	}
	some := search(fmt.Sprintf(`,"model":"big/model","maxTokens":%d`, int(whole)-1))
	if left := some["left"].(map[string]any); len(list(some["results"])) != 2 || left["maxTokens"] != 1.0 || some["tokens"].(float64) >= whole {
		t.Errorf("%v results, %v", len(list(some["results"])), some["left"])
	}
	if got := search(`,"maxTokens":1`); len(list(got["results"])) != 0 || got["tokenCount"] != "estimated" {
		t.Errorf("%v", got)
	}
	if got := search(`,"model":"nobody/x"`); got["tokenCount"] != "estimated" {
		t.Errorf("a model that nobody knows counts %v", got["tokenCount"])
	}
}

// An explanation shows every passage that was found, with the words that were looked
// for, and why it is not among the results.
func TestSearchExplained(t *testing.T) {
	t.Parallel()
	a, search := shelf(t)
	plain := search(`,"limit":1`)
	if plain["explanation"] != nil {
		t.Error("nobody asked for an explanation")
	}
	got := search(`,"limit":1,"explain":true,"filter":{"odd":false}`)
	x := got["explanation"].(map[string]any)
	reasons := make(map[string]string)
	for _, r := range list(x["removed"]) {
		reasons[r["documentName"].(string)] = r["reason"].(string)
		if r["text"] == "" || r["signals"] == nil {
			t.Errorf("removed %v", r)
		}
	}
	if reasons["1.txt"] != "filter" || reasons["2.txt"] != "limit" || len(reasons) != 2 {
		t.Errorf("removed %v", reasons)
	}
	var words []string
	for _, term := range list(x["keyword"].(map[string]any)["terms"]) {
		words = append(words, term["word"].(string))
	}
	slices.Sort(words)
	if !slices.Equal(words, []string{"eat", "pelican"}) {
		t.Errorf("words %v", words)
	}
	if n := len(list(x["matched"])); n != 3 {
		t.Errorf("the words of %d passages", n)
	}
	vector := x["vector"].(map[string]any)
	query := list(vector["queries"])[0]
	if query["model"] != "test/words" || query["dimensions"] != 64.0 || fmt.Sprint(query["parts"]) != "[what do pelicans eat?]" || query["cached"] != true {
		t.Errorf("query %v", query)
	}
	if scan := list(vector["scans"])[0]; scan["answered"] != "exact" || scan["index"] != false {
		t.Errorf("scan %v", scan)
	}
	if x["timingsMs"].(map[string]any)["search"].(float64) <= 0 {
		t.Errorf("%v", x["timingsMs"])
	}
	x = search(`,"explain":true,"maxTokens":20`)["explanation"].(map[string]any)
	for _, r := range list(x["removed"]) {
		if r["reason"] != "maxTokens" {
			t.Errorf("removed %v", r)
		}
	}
	for field, value := range map[string]string{"explain": `"yes"`, "maxTokens": "0", "model": "7"} {
		a.do(call{method: "POST", path: repositories + "/search", body: `{"repositories":[1],"query":"x","` + field + `":` + value + `}`}).problem(http.StatusUnprocessableEntity, "invalid_request")
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
	embed(`{"text": "one two three four", "model": "openai/short"}`).problem(http.StatusBadRequest, "context_length_exceeded")

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
	got := a.do(call{method: "POST", path: "/v1/embeddings", body: `{"model": "openai/e", "input": [` + strings.Join(texts, ",") + `]}`}).want(http.StatusOK).object()
	data := list(got["data"])
	if len(data) != 150 || got["usage"].(map[string]any)["prompt_tokens"] != 300.0 {
		t.Fatalf("%d vectors, %v", len(data), got["usage"])
	}
	for i, d := range data {
		first := d["embedding"].([]any)[0].(float64)
		if want := llmtest.Embedding(fmt.Sprint("text ", i), llmtest.Dimensions)[0]; d["index"] != float64(i) || first-want > 1e-6 || want-first > 1e-6 {
			t.Fatalf("vector %d: %v", i, d["index"])
		}
	}
	for _, c := range fake.EmbedCalls() {
		if len(c.Texts) > 100 {
			t.Errorf("a call of %d texts", len(c.Texts))
		}
	}
}
