// Command eval measures how well searches find the passages that answer questions.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/knowledge/extract"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/llm/openai"
	"github.com/chainstream/chainstream/llm/uselite"
)

const about = `
Manuals that Debian packages ship (scripts/fetch-eval.sh) are cut into their
sections, and each becomes a document of a repository. Some sections answer a
question: an entry of a list of questions and answers, whose title is the question,
and the page of a command, whose first line says what it is for. That title or line
is taken out of the document, and so are all lists of contents; then it is looked
for, and the one right document has to come among the first ten. Its place is what
is measured. Documents go through the product's own ingestion into PostgreSQL, and
questions through its search.

debian-faq, python   questions of the Debian FAQ and of Python's FAQ, the latter
                     among tutorial, guides and reference
postgresql           purposes of SQL commands and programs among the whole manual
all                  all questions, over the three repositories as one
... in a prompt      the question within a prompt of 100 to 170 words, which as a
                     whole is the query`

func main() { os.Exit(program.Main("eval", about, define)) }

// config is what is measured.
type config struct {
	dir    string
	models string
	model  string
	only   string
	json   bool
	check  bool
	misses string
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	flags.StringVar(&c.dir, "dir", "build/eval", "`folder` with the unpacked packages")
	flags.StringVar(&c.models, "models", "build/models", "`folder` with the files of offline/use-lite")
	flags.StringVar(&c.model, "model", "offline/use-lite", "embedding `model`: offline/use-lite, offline/hash, or openai/… of OPENAI_API_KEY and OPENAI_BASE_URL")
	flags.StringVar(&c.only, "only", "", "`corpora` to measure, separated by commas; all without")
	flags.BoolVar(&c.json, "json", false, "write one line of JSON for each measurement")
	flags.BoolVar(&c.check, "check", false, "fail when something is worse than it was")
	flags.StringVar(&c.misses, "misses", "", "`mode` of which to list the questions whose document was not found")
	return c.run
}

// modes are the ways of searching, as they are shown.
var modes = []string{knowledge.SearchVector, knowledge.SearchKeyword, knowledge.SearchHybrid}

// result is one line of the report.
type result struct {
	Corpus string `json:"corpus"`
	Model  string `json:"model"`
	Search string `json:"search"`
	quality
	Milliseconds float64 `json:"millisecondsPerSearch"`
}

func (c *config) run(ctx context.Context, w io.Writer) (err error) {
	embedding, err := c.embedding()
	if err != nil {
		return err
	}
	kept, err := remember(embedding.Embedder, c.model, c.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	embedding.Embedder = kept
	database, err := rig.StartDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	l := library{config: *c, database: database, embedding: embedding, searcher: &knowledge.Searcher{
		Store: database.Store, Embeddings: fixed(embedding), Logger: slog.New(slog.DiscardHandler),
	}}
	var every []question
	for _, s := range sources() {
		if c.only != "" && !strings.Contains(","+c.only+",", ","+s.name+",") {
			continue
		}
		loaded, err := s.load(c.dir)
		if err != nil {
			return err
		}
		id, err := l.add(ctx, w, loaded)
		if err != nil {
			return err
		}
		l.all, every = append(l.all, id), append(every, loaded.questions...)
		if err := l.measure(ctx, loaded.name, []int64{id}, loaded.questions); err != nil {
			return err
		}
	}
	if len(l.all) > 1 {
		if err := l.measure(ctx, "all", l.all, every); err != nil {
			return err
		}
	}
	if err := l.report(w); err != nil || !c.check {
		return err
	}
	return check(l.results)
}

// embedding answers the model as a server uses it.
func (c *config) embedding() (knowledge.Embedding, error) {
	provider, model, _ := strings.Cut(c.model, "/")
	e := knowledge.Embedding{Model: model, Batch: 32, Count: llm.EstimateTokens}
	switch {
	case c.model == "offline/use-lite":
		sentences := uselite.NewEmbedder(os.DirFS(filepath.Join(c.models, uselite.Name)))
		loaded, err := sentences.Model()
		if err != nil {
			return knowledge.Embedding{}, fmt.Errorf("%w: %s", err, uselite.Remedy)
		}
		e.Embedder, e.MaxTokens = sentences, uselite.MaxTokens
		e.Count = func(text string) int64 { return int64(loaded.Count(text)) }
	case c.model == "offline/hash":
		e.Embedder = offline.Provider{}
	case provider == "openai":
		remote, err := openai.New(openai.Config{Key: os.Getenv("OPENAI_API_KEY"), BaseURL: os.Getenv("OPENAI_BASE_URL"), Client: llm.NewHTTPClient()})
		if err != nil {
			return knowledge.Embedding{}, err
		}
		e.Embedder, e.MaxTokens = remote, 8191
	default:
		return knowledge.Embedding{}, fmt.Errorf("-model %q is none of offline/use-lite, offline/hash, openai/…", c.model)
	}
	return e, nil
}

// fixed answers the same model for every id.
type fixed knowledge.Embedding

// Embedding implements knowledge.Embeddings.
func (f fixed) Embedding(string) (knowledge.Embedding, error) { return knowledge.Embedding(f), nil }

// reader takes the documents apart in this process: they are not from strangers.
type reader struct{}

// Extract implements knowledge.Extractor.
func (reader) Extract(ctx context.Context, name, mediaType string, data []byte) ([]extract.Block, error) {
	format, err := extract.Detect(name, mediaType, data)
	if err != nil {
		return nil, err
	}
	return extract.Blocks(ctx, format, data, nil)
}

// library is what is searched, and what came of it.
type library struct {
	config
	database  *rig.Database
	embedding knowledge.Embedding
	searcher  *knowledge.Searcher
	all       []int64
	results   []result
}

// add makes a repository of a corpus.
func (l *library) add(ctx context.Context, w io.Writer, c corpus) (int64, error) {
	begin := time.Now()
	size, err := knowledge.Measure(ctx, l.embedding, 0, llm.RetryPolicy{})
	if err != nil {
		return 0, err
	}
	store := l.database.Store
	r, err := store.CreateRepository(ctx, knowledge.Repository{
		Name: c.name, Language: "english", ChunkTokens: 400, ChunkOverlap: 50, // as the API's defaults are
		Space: knowledge.Space{Model: l.model, Dimensions: size},
	})
	if err != nil {
		return 0, err
	}
	ingester := &knowledge.Ingester{Store: store, Extractor: reader{}, Embeddings: fixed(l.embedding), Logger: slog.New(slog.DiscardHandler)}
	for _, document := range c.documents {
		d, _, err := store.SaveUpload(ctx, r.ID, knowledge.Upload{Name: document.name, MediaType: "text/html", Data: document.html})
		if err != nil {
			return 0, err
		}
		if _, err := ingester.Process(ctx, d.ID, d.Uploaded); err != nil {
			return 0, err
		}
	}
	if _, err := store.IndexSpaces(ctx, l.database.URL); err != nil {
		return 0, err
	}
	if r, err = store.Repository(ctx, r.ID); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	recall, indexed, err := l.indexRecall(ctx, r, c.questions)
	if err != nil {
		return 0, err
	}
	index := "no index"
	if indexed {
		index = fmt.Sprintf("the index finds %.3f of the ten nearest", recall)
	}
	if indexed && recall < leastIndexRecall && l.check {
		return 0, fmt.Errorf("%s: %s, at least %.2f is expected", c.name, index, leastIndexRecall)
	}
	if !l.json {
		_, err = fmt.Fprintf(w, "%s: %d documents, %d chunks, %d questions; %.0f s; %s.\n", c.name, r.Documents, r.Chunks, len(c.questions), took.Seconds(), index)
	}
	return r.ID, err
}

// measure asks the questions in every way.
func (l *library) measure(ctx context.Context, name string, repositories []int64, questions []question) error {
	for _, form := range []struct {
		name      string
		questions []question
	}{{name, questions}, {name + " in a prompt", wrapped(questions)}} {
		for _, mode := range modes {
			begin := time.Now()
			places := make([]int, len(form.questions))
			for i, q := range form.questions {
				place, err := l.place(ctx, mode, repositories, q)
				if err != nil {
					return err
				}
				if places[i] = place; place == 0 && l.misses == mode {
					fmt.Fprintf(os.Stderr, "%s: %s\n", q.answer, questions[i].text)
				}
			}
			l.results = append(l.results, result{
				Corpus: form.name, Model: l.model, Search: mode, quality: measureOf(places),
				Milliseconds: float64(time.Since(begin).Microseconds()) / 1000 / float64(max(len(places), 1)),
			})
		}
	}
	return nil
}

// place answers at which place of the documents found the right one is; 0 = not
// among them.
func (l *library) place(ctx context.Context, mode string, repositories []int64, q question) (int, error) {
	found, err := l.searcher.Retrieve(ctx, knowledge.Query{
		Repositories: repositories, Text: q.text, Search: mode, Limit: depth, PerDocument: 1,
	})
	if err != nil {
		return 0, err
	}
	if found.Degraded != "" {
		return 0, errors.New(found.Degraded)
	}
	for i, p := range found.Passages {
		if p.Document == q.answer {
			return i + 1, nil
		}
	}
	return 0, nil
}

func (l *library) report(w io.Writer) error {
	if l.json {
		for _, r := range l.results {
			if err := json.NewEncoder(w).Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	table := measure.NewTable("questions", "search", "number", "recall@10", "MRR", "nDCG@10", "ms")
	for _, r := range l.results {
		table.Row(r.Corpus, r.Search, fmt.Sprint(r.Questions), fmt.Sprintf("%.3f", r.Recall), fmt.Sprintf("%.3f", r.MRR),
			fmt.Sprintf("%.3f", r.NDCG), fmt.Sprintf("%.1f", r.Milliseconds))
	}
	if _, err := fmt.Fprintf(w, "\nEmbedding model %s.\n\n", l.model); err != nil {
		return err
	}
	_, err := table.WriteTo(w)
	return err
}
