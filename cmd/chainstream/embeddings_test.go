package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// note is a file with a short text.
func note(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every provider fills a repository and is asked for the vector of a query, in its
// own format, once for each text; the calls are counted and priced.
func TestEmbeddingProviders(t *testing.T) {
	t.Parallel()
	fake, database := llmtest.NewServer(t), pgtest.Database(t)
	models := file(t, "models.yaml", fmt.Sprintf(`
providers:
  mine: {baseUrl: %q}
embeddings:
  mine/e5: {dimensions: 16, maxTokens: 20, batch: 2, prices: [{input: "1000000"}]}
`, fake.URL))
	s := serve(t, map[string]string{
		"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": fake.URL, "GEMINI_API_KEY": "k", "GEMINI_BASE_URL": fake.Root,
		"OLLAMA_BASE_URL": fake.Root, "LMSTUDIO_BASE_URL": fake.Root,
	}, "--database-url", database, "--models-file", models)
	step := func(args ...string) string {
		t.Helper()
		return succeed(t, s.client(), append([]string{"knowledge"}, args...)...)
	}
	for model, want := range map[string]struct{ wire, document, query string }{
		"openai/text-embedding-3-small": {llmtest.OpenAI, "", ""},
		"gemini/gemini-embedding-001":   {llmtest.Gemini, "RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"},
		"ollama/nomic-embed-text":       {llmtest.OpenAI, "", ""},
		"lmstudio/any-embedding":        {llmtest.OpenAI, "", ""},
		"mine/e5":                       {llmtest.OpenAI, "", ""},
	} {
		name := strings.ReplaceAll(strings.ReplaceAll(model, "/", "-"), ".", "-")
		_, short, _ := strings.Cut(model, "/")
		step("create", name, "--model", model, "--dimensions", "16")
		step("add", name, note(t, "a.md", "# Tides\n\nTides of "+name+" rise.\n"))
		for range 2 {
			step("search", name, "when do tides of "+name+" rise?", "--search", "vector")
		}
		var document, query int
		for _, c := range fake.EmbedCalls() {
			if c.Model != short {
				continue
			}
			if c.Wire != want.wire {
				t.Errorf("%s is asked in the format of %s", model, c.Wire)
			}
			for _, text := range c.Texts {
				switch {
				case strings.HasPrefix(text, "when do"):
					query++
					if c.TaskType != want.query {
						t.Errorf("%s: a query is %q", model, c.TaskType)
					}
				case strings.Contains(text, "rise."):
					document++
					if c.TaskType != want.document {
						t.Errorf("%s: a document is %q", model, c.TaskType)
					}
				}
			}
		}
		if document != 1 || query != 1 {
			t.Errorf("%s: the document was sent %d times and the query %d times", model, document, query)
		}
	}

	// What is longer than the model takes is cut, and the document is there all the
	// same; the metrics tell, and what the calls cost.
	step("search", "mine-e5", strings.Repeat("a long question about tides ", 40), "--search", "vector")
	metrics := fetchText(t, s.url+"/metrics")
	for _, want := range []string{
		`chainstream_embedding_calls_total{provider="gemini",purpose="query",result="answered"} 1`,
		`chainstream_embedding_calls_total{provider="mine",purpose="document",result="answered"}`,
		`chainstream_embedding_cost_usd_total{provider="mine",purpose="query"}`,
		`chainstream_model_circuit_state{model="e5",provider="mine"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s among the metrics", want)
		}
	}

	// Every call is in the ledger, with what it was for.
	var repositories []struct {
		ID   int
		Name string
	}
	if err := json.Unmarshal([]byte(step("list", "--json")), &repositories); err != nil {
		t.Fatal(err)
	}
	id := repositories[slices.IndexFunc(repositories, func(r struct {
		ID   int
		Name string
	}) bool {
		return r.Name == "mine-e5"
	})].ID
	succeed(t, s.client(), "run", file(t, "retrieving.yaml", fmt.Sprintf(`
name: retrieving
prompts:
  - {name: A, position: 1, model: offline/echo, content: "echo: what of tides?", knowledge: {repositories: [%d], search: vector}}
`, id)))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/embeddings", strings.NewReader(`{"model":"mine/e5","input":["a text","another text"]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	answerText(t, req)
	row := func(what string, of string) (n int) {
		t.Helper()
		pgtest.Row(t, database, "SELECT "+what+" FROM v_llm_calls WHERE "+of, nil, &n)
		return n
	}
	priced := " AND model_id = 'mine/e5' AND status = 'succeeded' AND cost_usd = total_tokens AND total_tokens > 0 AND duration_ms >= 0"
	for of, want := range map[string]int{
		"purpose = 'query' AND chain_name = 'retrieving' AND prompt_id IS NOT NULL" + priced:                                1,
		"purpose = 'query' AND execution_id IS NULL AND document_id IS NULL" + priced:                                       4, // the long query is asked in parts, two of them by a call
		"purpose = 'document' AND document_id = (SELECT id FROM documents WHERE repository_id = " + itoa(id) + ")" + priced: 1,
		"purpose = 'request' AND texts = 2" + priced:                                                                        1,
		"purpose = 'query' AND model_id = 'ollama/nomic-embed-text' AND cost_usd = 0":                                       1,
		"purpose <> 'prompt' AND cost_usd IS NULL AND provider <> 'lmstudio'":                                               0,
	} {
		if n := row("count(*)", of); n != want {
			t.Errorf("%d calls, not %d, where %s", n, want, of)
		}
	}
	if n := row("count(*)", "purpose <> 'prompt'"); n != len(fake.EmbedCalls()) {
		t.Errorf("%d calls are in the ledger of %d", n, len(fake.EmbedCalls()))
	}
	// A ledger that fails stands in nobody's way.
	pgtest.Session(t, database)("ALTER TABLE embedding_calls ADD CHECK (texts < 0) NOT VALID")
	if got := step("search", "mine-e5", "who books this?", "--search", "vector"); !strings.Contains(got, "rise.") {
		t.Errorf("found %s", got)
	}

	// They are no models for prompts.
	refused := execute(t, s.client(), "run", file(t, "chain.yaml", "name: wrong\nprompts:\n  - {name: A, position: 1, model: openai/text-embedding-3-small, content: x}\n"))
	if refused.code == 0 || !strings.Contains(refused.stdout+refused.stderr, "answers no prompts") {
		t.Errorf("a prompt with an embedding model: %d %s%s", refused.code, refused.stdout, refused.stderr)
	}
	var listed struct {
		Items, Embeddings []struct {
			ID        string
			Available bool
		}
	}
	if err := json.Unmarshal([]byte(succeed(t, s.client(), "models", "--server", s.url, "--json")), &listed); err != nil {
		t.Fatal(err)
	}
	for _, m := range listed.Items {
		if strings.Contains(m.ID, "embed") || m.ID == "mine/e5" {
			t.Errorf("%s is among the models for prompts", m.ID)
		}
	}
	var available []string
	for _, m := range listed.Embeddings {
		if m.Available {
			available = append(available, m.ID)
		}
	}
	for _, id := range []string{"openai/text-embedding-3-small", "gemini/gemini-embedding-001", "mine/e5", "offline/hash"} {
		if !slices.Contains(available, id) {
			t.Errorf("%s is not among the embedding models %v", id, available)
		}
	}
}

// A provider that fails for a while costs a document nothing but time, and one text
// that is too long is cut.
func TestEmbeddingFaults(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	refuse := llmtest.EmbedRefuse(3, 30)
	turn := 0
	fake.OtherwiseEmbed(func(req llmtest.EmbedRequest) llmtest.EmbedReply {
		if turn++; turn == 3 || turn == 8 {
			return llmtest.EmbedReply{Status: http.StatusServiceUnavailable, Headers: []string{"Retry-After-Ms", "1"}}
		}
		return refuse(req)
	})
	s := serve(t, map[string]string{"LMSTUDIO_BASE_URL": fake.Root}, "--database-url", pgtest.Database(t))
	step := func(args ...string) string {
		t.Helper()
		return succeed(t, s.client(), append([]string{"knowledge"}, args...)...)
	}
	step("create", "notes", "--model", "lmstudio/e")
	var text strings.Builder
	for i := range 12 {
		fmt.Fprintf(&text, "# Part %d\n\n%s\n\n", i, strings.Repeat(fmt.Sprintf("word%d ", i), 40))
	}
	if got := step("add", "notes", note(t, "a.md", text.String())); !strings.Contains(got, "ready") {
		t.Errorf("add: %s", got)
	}
	if metrics := fetchText(t, s.url+"/metrics"); !strings.Contains(metrics, `chainstream_embedding_texts_cut_total{provider="lmstudio",purpose="document"}`) ||
		strings.Contains(metrics, `chainstream_embedding_texts_cut_total{provider="lmstudio",purpose="document"} 0`) {
		t.Error("nobody is told that texts were cut")
	}
}

// A search tells how it came to its result, also with a rerank server, whose failure
// changes nothing but the order.
func TestSearchExplained(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	database := pgtest.Database(t)
	s := serve(t, map[string]string{"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": fake.URL}, "--database-url", database, "--rerank-url", fake.Root+"/v1/rerank")
	step := func(args ...string) string {
		t.Helper()
		return succeed(t, s.client(), append([]string{"knowledge"}, args...)...)
	}
	step("create", "sea", "--model", "openai/text-embedding-3-small", "--dimensions", "16")
	step("add", "sea", note(t, "tides.md", "# Tides\n\nTides follow the moon.\n"), note(t, "gulls.md", "# Gulls\n\nGulls follow the boats.\n"), note(t, "rocks.md", "# Rocks\n\nRocks stay.\n"))
	got := step("search", "sea", "who follow the moon", "--explain", "--limit", "1", "--max-tokens", "100")
	for _, want := range []string{
		"embedded by openai/text-embedding-3-small, 16 dimensions, in 1 part (now)", "vectors of repository 1: exact", "words: moon", "milliseconds: embed",
		"1 passages, ", "tokens (exact)", "LEFT OUT BY", "limit", "tides.md", "moon ", "0.750 (1.)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	if first := strings.Index(got, "tides.md"); first < 0 || first > strings.Index(got, "gulls.md") {
		t.Errorf("another order:\n%s", got)
	}

	broken := serve(t, map[string]string{"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": fake.URL}, "--database-url", database, "--rerank-url", "http://127.0.0.1:1/rerank")
	if got := succeed(t, broken.client(), "knowledge", "search", "sea", "moon", "--explain"); !strings.Contains(got, "could not be put into a better order") || !strings.Contains(got, "tides.md") {
		t.Errorf("without the rerank server:\n%s", got)
	}
	if r := execute(t, nil, "serve", "--addr", "127.0.0.1:0", "--database-url", database, "--rerank-url", "nowhere"); r.code != 1 || !strings.Contains(r.stderr, "--rerank-url") {
		t.Errorf("%d %s", r.code, r.stderr)
	}
}
