package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/knowledge/extract"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/postgres"
)

// hasher embeds texts as the sums of the directions of their words.
type hasher struct {
	mu    sync.Mutex
	texts int   // that it has embedded
	most  int   // words of a text that it takes; 0 = any
	fail  error // what it answers instead
	bend  func(v []float32) []float32
}

func (h *hasher) Embed(_ context.Context, _ string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return nil, llm.Usage{}, h.fail
	}
	for _, text := range texts {
		if h.most > 0 && len(strings.Fields(text)) > h.most {
			return nil, llm.Usage{}, llm.NewError(llm.CodeContextTooLong, nil)
		}
	}
	h.texts += len(texts)
	out := make([][]float32, len(texts))
	for i, text := range texts {
		v := make([]float32, dimensions)
		v[0] = 0.01
		for word := range strings.FieldsSeq(strings.ToLower(text)) {
			f := fnv.New64a()
			_, _ = f.Write([]byte(strings.Trim(word, ".,#")))
			r := rand.New(rand.NewPCG(f.Sum64(), 1))
			for j := range v {
				v[j] += float32(r.NormFloat64())
			}
		}
		var square float64
		for _, x := range v {
			square += float64(x) * float64(x)
		}
		for j := range v {
			v[j] /= float32(math.Sqrt(square))
		}
		if h.bend != nil {
			v = h.bend(v)
		}
		out[i] = v
	}
	return out, llm.Usage{}, nil
}

// Embedding implements knowledge.Embeddings.
func (h *hasher) Embedding(id string) (knowledge.Embedding, error) {
	return knowledge.Embedding{Embedder: h, Model: id, Batch: 2, Count: func(text string) int64 { return int64(len(strings.Fields(text))) }}, nil
}

// reader takes files apart in this process.
type reader struct{}

func (reader) Extract(ctx context.Context, name, mediaType string, data []byte) ([]extract.Block, error) {
	format, err := extract.Detect(name, mediaType, data)
	if err != nil {
		return nil, err
	}
	return extract.Blocks(ctx, format, data, nil)
}

// library is a store with an ingester and a searcher.
type library struct {
	*postgres.Store
	t        *testing.T
	url      string
	embedder *hasher
	ingester *knowledge.Ingester
	searcher *knowledge.Searcher
}

func newLibrary(t *testing.T) *library {
	t.Helper()
	s, url := open(t)
	h := &hasher{}
	quiet := slog.New(slog.DiscardHandler)
	return &library{
		Store: s, t: t, url: url, embedder: h,
		ingester: &knowledge.Ingester{Store: s, Extractor: reader{}, Embeddings: h, Retry: llm.RetryPolicy{Attempts: 1}, Logger: quiet},
		searcher: &knowledge.Searcher{Store: s, Embeddings: h, Retry: llm.RetryPolicy{Attempts: 1}, Logger: quiet},
	}
}

func (l *library) repository(name, model string, dimensions int) knowledge.Repository {
	l.t.Helper()
	r, err := l.CreateRepository(l.t.Context(), knowledge.Repository{
		Name: name, Language: "english", ChunkTokens: 20, Space: knowledge.Space{Model: model, Dimensions: dimensions},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *library) save(repository int64, name, text, metadata string) knowledge.Document {
	l.t.Helper()
	u := knowledge.Upload{Name: name, Data: []byte(text)}
	if metadata != "" {
		u.Metadata = []byte(metadata)
	}
	d, _, err := l.SaveUpload(l.t.Context(), repository, u)
	if err != nil {
		l.t.Fatal(err)
	}
	return d
}

// add uploads a document and processes it.
func (l *library) add(repository int64, name, text, metadata string) knowledge.Document {
	l.t.Helper()
	d := l.save(repository, name, text, metadata)
	if again, err := l.ingester.Process(l.t.Context(), d.ID, d.Uploaded); err != nil || again {
		l.t.Fatal(again, err)
	}
	return l.document(d)
}

func (l *library) document(d knowledge.Document) knowledge.Document {
	l.t.Helper()
	d, err := l.Document(l.t.Context(), d.RepositoryID, d.ID)
	if err != nil {
		l.t.Fatal(err)
	}
	return d
}

func (l *library) count(sql string) (n int) {
	l.t.Helper()
	pgtest.Query(l.t, l.url, sql, &n)
	return n
}

// checkWords compares the counted words with those that searches can see, or will.
func (l *library) checkWords() {
	l.t.Helper()
	if n := l.count(`SELECT count(*) FROM (SELECT repository_id, word, chunks FROM repository_words WHERE chunks <> 0) a
		FULL JOIN (SELECT c.repository_id, u.lexeme AS word, count(*) AS chunks FROM chunks c, unnest(c.words) u GROUP BY 1, 2
			UNION ALL SELECT repository_id, '', count(*) FROM chunks GROUP BY 1) b
		USING (repository_id, word) WHERE a.chunks IS DISTINCT FROM b.chunks`); n != 0 {
		l.t.Errorf("%d words are miscounted", n)
	}
}

func TestRepositories(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	if r.Space.Model != "test/a" || r.Space.Dimensions != 8 || r.Building != nil {
		t.Errorf("made %+v", r)
	}
	for _, c := range []struct {
		name, language string
		want           error
	}{{"docs", "english", knowledge.ErrNameTaken}, {"other", "klingon", knowledge.ErrLanguage}} {
		_, err := l.CreateRepository(t.Context(), knowledge.Repository{Name: c.name, Language: c.language, ChunkTokens: 9, Space: r.Space})
		if !errors.Is(err, c.want) {
			t.Errorf("%s in %s: %v", c.name, c.language, err)
		}
	}
	b := l.repository("more", "test/b", 4)
	r.Name = "more"
	if _, err := l.UpdateRepository(t.Context(), r); !errors.Is(err, knowledge.ErrNameTaken) {
		t.Errorf("renamed to a taken name: %v", err)
	}
	if list, err := l.Repositories(t.Context(), r.ID, 10); err != nil || len(list) != 1 || list[0].ID != b.ID {
		t.Errorf("listed %+v, %v", list, err)
	}
	l.add(b.ID, "a.txt", "rivers flow", "")
	if missing, err := l.Missing(t.Context(), []int64{r.ID, 999, b.ID}); err != nil || len(missing) != 1 || missing[0] != 999 {
		t.Errorf("missing %v, %v", missing, err)
	}
	if err := l.DeleteRepository(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	if n := l.count("SELECT count(*) FROM chunks") + l.count("SELECT count(*) FROM chunk_vectors") + l.count("SELECT count(*) FROM repository_words"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if n := l.count(fmt.Sprintf("SELECT count(*) FROM pg_class WHERE relname = 'chunk_vectors_%d'", b.Space.ID)); n != 0 {
		t.Error("the partition is left")
	}
	if err := l.DeleteRepository(t.Context(), b.ID); !errors.Is(err, knowledge.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestUploads(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	d := l.add(r.ID, "a.txt", "Rivers flow.", `{"k": 1}`)
	if d.Version != 1 || d.Status != knowledge.StatusReady || d.Chunks != 1 || d.Progress != 100 {
		t.Fatalf("added %+v", d)
	}
	if _, same, err := l.SaveUpload(t.Context(), r.ID, knowledge.Upload{Name: "a.txt", Data: []byte("Rivers flow."), Metadata: []byte(`{"k":1}`)}); err != nil || !same {
		t.Errorf("the same file: %v, %v", same, err)
	}
	// A version that fails leaves the one before.
	if d = l.add(r.ID, "a.txt", "  ", ""); d.Status != knowledge.StatusFailed || d.Version != 1 || d.Uploaded != 2 || d.Error == "" {
		t.Errorf("an empty version: %+v", d)
	}
	if got := l.find(knowledge.Query{Repositories: []int64{r.ID}, Text: "rivers", Search: knowledge.SearchKeyword, Limit: 5}); len(got.Passages) != 1 {
		t.Errorf("found %+v", got)
	}
	// So does one that fails after another was given up half-way, of which nothing stays.
	half := l.save(r.ID, "a.txt", "Brooks run.", "")
	if err := l.SaveChunks(t.Context(), half.ID, half.Uploaded, []knowledge.Chunk{{Text: "Brooks run.", ContentHash: []byte("brooks")}}); err != nil {
		t.Fatal(err)
	}
	if d = l.add(r.ID, "a.txt", "  ", ""); d.Status != knowledge.StatusFailed || d.Version != 1 {
		t.Errorf("an empty version after one half-way: %+v", d)
	}
	if n := l.count("SELECT count(*) FROM chunks"); n != 1 {
		t.Errorf("%d passages, not the one of the version that searches see", n)
	}
	l.checkWords()
	// One that is superseded while it is processed does nothing.
	old := l.save(r.ID, "a.txt", "Old.", "")
	d = l.save(r.ID, "a.txt", "Lakes stand.", "")
	if _, err := l.ingester.Process(t.Context(), old.ID, old.Uploaded); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ingester.Process(t.Context(), d.ID, d.Uploaded); err != nil {
		t.Fatal(err)
	}
	if d = l.document(d); d.Version != d.Uploaded || d.Status != knowledge.StatusReady {
		t.Errorf("the newest: %+v", d)
	}
	l.checkWords()
	if err := l.DeleteDocument(t.Context(), r.ID, d.ID); err != nil {
		t.Fatal(err)
	}
	if n := l.count("SELECT count(*) FROM chunks") + l.count("SELECT count(*) FROM chunk_vectors") + l.count("SELECT count(*) FROM document_uploads"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	l.checkWords()
	if _, _, err := l.SaveUpload(t.Context(), 999, knowledge.Upload{Name: "a.txt", Data: []byte("x")}); !errors.Is(err, knowledge.ErrNotFound) {
		t.Errorf("in no repository: %v", err)
	}
}

// It is forgotten after a time which documents were there.
func TestDeletionsExpire(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	var gone []int64
	for _, name := range []string{"old.txt", "new.txt"} {
		d := l.add(r.ID, name, "Rivers flow.", "")
		if err := l.DeleteDocument(t.Context(), r.ID, d.ID); err != nil {
			t.Fatal(err)
		}
		gone = append(gone, d.ID)
	}
	sql := pgtest.Session(t, l.url)
	sql(fmt.Sprintf("UPDATE document_deletions SET deleted_at = deleted_at - interval '9 days' WHERE document_id = %d", gone[0]))
	if n, err := l.ExpireDeletions(t.Context()); err != nil || n != 1 {
		t.Errorf("forgot %d, %v", n, err)
	}
	if kept := l.count("SELECT sum(document_id)::integer FROM document_deletions"); int64(kept) != gone[1] {
		t.Errorf("%d is kept, not %d", kept, gone[1])
	}
}

func (l *library) find(q knowledge.Query) knowledge.Result {
	l.t.Helper()
	got, err := l.searcher.Retrieve(l.t.Context(), q)
	if err != nil {
		l.t.Fatal(err)
	}
	return got
}

// Vectors that cannot be right never reach the table, and the document says why.
func TestBadVectors(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	l.embedder.bend = func(v []float32) []float32 { return v[:5] }
	if d := l.add(r.ID, "a.txt", "Rivers flow.", ""); d.Status != knowledge.StatusFailed || !strings.Contains(d.Error, "another length") {
		t.Errorf("five numbers: %+v", d)
	}
	l.embedder.bend = func(v []float32) []float32 { v[1] = float32(math.NaN()); return v }
	d := l.save(r.ID, "b.txt", "Lakes stand.", "")
	_, err := l.ingester.Process(t.Context(), d.ID, d.Uploaded)
	if d = l.document(d); d.Status == knowledge.StatusReady || err == nil && d.Status != knowledge.StatusFailed {
		t.Errorf("NaN: %v, %+v", err, d)
	}
	if n := l.count("SELECT count(*) FROM chunk_vectors"); n != 0 {
		t.Errorf("%d vectors", n)
	}
}

// Words are counted exactly, whatever happens to documents in whatever order.
func TestWordCounts(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	random := rand.New(rand.NewPCG(7, 7))
	vocabulary := strings.Fields("river lake sea mountain valley forest desert island")
	for range 60 {
		name := fmt.Sprintf("%d.txt", random.IntN(4))
		var text strings.Builder
		for range random.IntN(60) { // sometimes empty, which fails
			text.WriteString(vocabulary[random.IntN(len(vocabulary))] + " ")
		}
		d := l.save(r.ID, name, text.String(), "")
		switch random.IntN(4) {
		case 0:
			if err := l.DeleteDocument(t.Context(), r.ID, d.ID); err != nil {
				t.Fatal(err)
			}
		case 1: // the next upload supersedes it
		default:
			if _, err := l.ingester.Process(t.Context(), d.ID, d.Uploaded); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.checkWords()
	if l.count("SELECT count(*) FROM chunks") == 0 {
		t.Error("nothing was counted")
	}
}

var errCut = errors.New("cut off")

// cutting is a store whose calls fail from a number on, before or after they took effect.
type cutting struct {
	knowledge.IngestStore
	left  int
	after bool
}

func (c *cutting) do(f func() error) error {
	c.left--
	if c.left > 0 {
		return f()
	}
	if c.left == 0 && c.after {
		return errors.Join(errCut, f())
	}
	return errCut
}

func (c *cutting) SaveChunks(ctx context.Context, d int64, v int, chunks []knowledge.Chunk) error {
	return c.do(func() error { return c.IngestStore.SaveChunks(ctx, d, v, chunks) })
}

func (c *cutting) SaveVectors(ctx context.Context, s knowledge.Space, vectors map[int64]knowledge.Vector) error {
	return c.do(func() error { return c.IngestStore.SaveVectors(ctx, s, vectors) })
}

func (c *cutting) Progress(ctx context.Context, d int64, v, percent int) error {
	return c.do(func() error { return c.IngestStore.Progress(ctx, d, v, percent) })
}

func (c *cutting) Publish(ctx context.Context, d int64, v int) error {
	return c.do(func() error { return c.IngestStore.Publish(ctx, d, v) })
}

func essay(sections int) string {
	var b strings.Builder
	for i := range sections {
		fmt.Fprintf(&b, "# Part %d\n\nThis is what part number%d says about rivers.\n\n", i, i)
	}
	return b.String()
}

// What was cut off at any step goes on, and ends with each chunk and vector once.
func TestIngestionGoesOn(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		l := newLibrary(t)
		r := l.repository("docs", "test/a", 8)
		for step := 1; ; step++ {
			name := fmt.Sprintf("%d.md", step)
			d := l.save(r.ID, name, strings.ReplaceAll(essay(5), "number", name), "")
			before := l.embedder.texts
			g := *l.ingester
			g.Store = &cutting{IngestStore: l.Store, left: step, after: after}
			_, err := g.Process(t.Context(), d.ID, d.Uploaded)
			if err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			if _, again := l.ingester.Process(t.Context(), d.ID, d.Uploaded); again != nil {
				t.Fatal(again)
			}
			if d = l.document(d); d.Status != knowledge.StatusReady || d.Chunks != 5 {
				t.Fatalf("cut off at step %d: %+v", step, d)
			}
			if n := l.count(fmt.Sprintf("SELECT count(*) FROM chunk_vectors v JOIN chunks c ON c.id = v.chunk_id WHERE c.document_id = %d", d.ID)); n != 5 {
				t.Errorf("cut off at step %d: %d vectors", step, n)
			}
			if n := l.embedder.texts - before; n < 5 || n > 7 { // a batch of two may have been lost
				t.Errorf("cut off at step %d: %d texts were embedded", step, n)
			}
			if err == nil {
				if step < 8 {
					t.Errorf("only %d steps", step)
				}
				break
			}
		}
		l.checkWords()
	}
}

// Two workers on one version do it once.
func TestTwoWorkers(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	d := l.save(r.ID, "a.md", essay(20), "")
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			if _, err := l.ingester.Process(t.Context(), d.ID, d.Uploaded); err != nil {
				t.Error(err)
			}
		})
	}
	workers.Wait()
	if d = l.document(d); d.Status != knowledge.StatusReady || d.Chunks != 20 || l.count("SELECT count(*) FROM chunk_vectors") != 20 {
		t.Errorf("made %+v", d)
	}
	l.checkWords()
}

// The same text is embedded once by a model, in whatever repository it stands.
func TestVectorsAreTakenOver(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	a, b, other := l.repository("a", "test/a", 8), l.repository("b", "test/a", 8), l.repository("c", "test/b", 8)
	for _, c := range []struct {
		repository int64
		text       string
		want       int
	}{{a.ID, essay(4), 4}, {a.ID, essay(5), 5}, {b.ID, essay(5), 5}, {other.ID, essay(2), 7}} {
		if l.add(c.repository, "x.md", c.text, ""); l.embedder.texts != c.want {
			t.Errorf("%d texts embedded, want %d", l.embedder.texts, c.want)
		}
	}
}

// Whoever searches while a version takes the place of another sees one of them.
func TestVersionsSwitchAtOnce(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	l.add(r.ID, "a.txt", "rivers version0", "")
	done := make(chan struct{})
	var searches sync.WaitGroup
	for _, search := range []string{knowledge.SearchVector, knowledge.SearchKeyword, knowledge.SearchHybrid} {
		searches.Go(func() {
			for {
				got, err := l.searcher.Retrieve(t.Context(), knowledge.Query{Repositories: []int64{r.ID}, Text: "rivers", Search: search, Limit: 10})
				if err != nil || len(got.Passages) != 1 {
					t.Errorf("%s: %d passages, %v", search, len(got.Passages), err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := 1; i <= 15; i++ {
		l.add(r.ID, "a.txt", fmt.Sprint("rivers version", i), "")
	}
	close(done)
	searches.Wait()
}

// Changing, deleting or dropping a document forgets the answers that held its text.
func TestAnswersAboutDocumentsAreForgotten(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	d := l.add(r.ID, "a.txt", "rivers", "")
	remember := func() {
		t.Helper()
		l.count(fmt.Sprintf(`WITH x AS (INSERT INTO response_cache (key, chain_id, prompt_id, model_id, expires_at, holder, document_ids)
			VALUES ('\x01', 1, 1, 'm', now() + interval '1h', gen_random_uuid(), '{%d}'), ('\x02', 1, 1, 'm', now() + interval '1h', gen_random_uuid(), '{123456}')
			ON CONFLICT DO NOTHING RETURNING 1) SELECT count(*) FROM x`, d.ID))
		if n := l.count("SELECT count(*) FROM response_cache"); n != 2 {
			t.Fatalf("%d answers", n)
		}
	}
	remember()
	l.add(r.ID, "a.txt", "lakes", "")
	if n := l.count("SELECT count(*) FROM response_cache"); n != 1 {
		t.Errorf("%d answers after a new version", n)
	}
	remember()
	if err := l.DeleteDocument(t.Context(), r.ID, d.ID); err != nil || l.count("SELECT count(*) FROM response_cache") != 1 {
		t.Errorf("after the deletion of the document: %v", err)
	}
	d = l.add(r.ID, "a.txt", "rivers", "")
	remember()
	if err := l.DeleteRepository(t.Context(), r.ID); err != nil || l.count("SELECT count(*) FROM response_cache") != 1 {
		t.Errorf("after the deletion of the repository: %v", err)
	}
}

// While a repository changes its model, searches find what they found before, and
// documents that come meanwhile are found as well. Then no trace of the old model is
// left.
func TestModelChangesUnderSearches(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("tides", "test/old", 8)
	for i := range 20 {
		l.add(r.ID, fmt.Sprintf("%d.txt", i), fmt.Sprintf("ebb%d and flood%d and the moon", i, i), "")
	}
	searcher := l.searcher
	search := func() (int, error) {
		found, err := searcher.Retrieve(t.Context(), knowledge.Query{Repositories: []int64{r.ID}, Text: "ebb7 and flood7", Search: knowledge.SearchVector, Limit: 5})
		// With few dimensions another one may come first by chance.
		there := slices.ContainsFunc(found.Passages, func(p knowledge.Passage) bool { return p.Document == "7.txt" })
		if err == nil && (len(found.Passages) != 5 || found.Degraded != "" || !there) {
			err = fmt.Errorf("found %+v", found)
		}
		return len(found.Passages), err
	}
	if _, err := search(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var searches sync.WaitGroup
	for range 4 {
		searches.Go(func() {
			for n := 0; ; n++ {
				if _, err := search(); err != nil {
					t.Errorf("search %d: %v", n, err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	remodeller := &knowledge.Remodeller{Store: l, Embeddings: l.embedder, Logger: slog.New(slog.DiscardHandler)}
	for turn, model := range []knowledge.Space{{Model: "test/new", Dimensions: 16}, {Model: "test/newer", Dimensions: 4}, {Model: "test/new", Dimensions: 16}} {
		abandoned, err := l.ChangeModel(t.Context(), r.ID, knowledge.Space{Model: "test/abandoned", Dimensions: 32})
		if err != nil || abandoned.Building == nil {
			t.Fatal(abandoned, err)
		}
		changing, err := l.ChangeModel(t.Context(), r.ID, model)
		if err != nil || changing.Building == nil || changing.Building.Model != model.Model {
			t.Fatal(changing, err)
		}
		if again, err := remodeller.Process(t.Context(), r.ID, abandoned.Building.ID); again || err != nil {
			t.Errorf("what was changed again: %v, %v", again, err)
		}
		l.add(r.ID, fmt.Sprintf("late%d.txt", turn), fmt.Sprintf("late words of turn %d", turn), "")
		if again, err := remodeller.Process(t.Context(), r.ID, changing.Building.ID); again || err != nil {
			t.Fatal(again, err)
		}
		now, err := l.Repository(t.Context(), r.ID)
		if err != nil || now.Building != nil || now.Space.Model != model.Model || now.Space.Dimensions != model.Dimensions {
			t.Fatalf("%+v, %v", now, err)
		}
	}
	close(done)
	searches.Wait()
	if n := l.count("SELECT count(*) FROM embedding_spaces"); n != 1 {
		t.Errorf("%d spaces are left", n)
	}
	if n := l.count("SELECT count(*) FROM chunks c WHERE NOT EXISTS (SELECT FROM chunk_vectors v JOIN repositories r ON r.space_id = v.space_id WHERE v.chunk_id = c.id)"); n != 0 {
		t.Errorf("%d passages have no vector", n)
	}
	// Naming the model that it has ends a change; a model that cannot be called says why.
	if _, err := l.ChangeModel(t.Context(), r.ID, knowledge.Space{Model: "test/other", Dimensions: 8}); err != nil {
		t.Fatal(err)
	}
	ended, err := l.ChangeModel(t.Context(), r.ID, knowledge.Space{Model: "test/new", Dimensions: 16})
	if err != nil || ended.Building != nil {
		t.Errorf("ended: %+v, %v", ended, err)
	}
	failing, err := l.ChangeModel(t.Context(), r.ID, knowledge.Space{Model: "test/other", Dimensions: 8})
	if err != nil {
		t.Fatal(err)
	}
	nobody := &knowledge.Remodeller{Store: l, Embeddings: nobody{}, Logger: slog.New(slog.DiscardHandler)}
	if again, err := nobody.Process(t.Context(), r.ID, failing.Building.ID); again || err != nil {
		t.Errorf("failing: %v, %v", again, err)
	}
	if now, err := l.Repository(t.Context(), r.ID); err != nil || now.Building == nil || !strings.Contains(now.Building.Error, "cannot be called") || now.Space.Model != "test/new" {
		t.Errorf("failed: %+v, %v", now, err)
	}
}

// nobody has no models.
type nobody struct{}

func (nobody) Embedding(id string) (knowledge.Embedding, error) {
	return knowledge.Embedding{}, fmt.Errorf("no such model %s", id)
}

// Of equal files that are uploaded at the same time one is taken; for all others
// nothing changes.
func TestUploadsAtOnce(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	const uploads = 20
	var taken atomic.Int32
	var wait sync.WaitGroup
	for range uploads {
		wait.Go(func() {
			d, unchanged, err := l.SaveUpload(t.Context(), r.ID, knowledge.Upload{Name: "a.txt", Data: []byte("Tides turn.")})
			if err != nil || d.Uploaded != 1 {
				t.Errorf("version %d, %v", d.Uploaded, err)
			}
			if !unchanged {
				taken.Add(1)
			}
		})
	}
	wait.Wait()
	if got := taken.Load(); got != 1 {
		t.Errorf("%d of %d were taken", got, uploads)
	}
}

// onceReader counts what it is given to read.
type onceReader struct {
	reader
	read int
}

func (r *onceReader) Extract(ctx context.Context, name, mediaType string, data []byte) ([]extract.Block, error) {
	r.read++
	return r.reader.Extract(ctx, name, mediaType, data)
}

// A document that takes many turns is read in the first of them only.
func TestTurnsReadOnce(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 8)
	files := &onceReader{}
	l.ingester.Extractor, l.ingester.Turn = files, time.Nanosecond
	d := l.save(r.ID, "essay.md", essay(9), "")
	turns := 1
	for ; ; turns++ {
		again, err := l.ingester.Process(t.Context(), d.ID, d.Uploaded)
		if err != nil {
			t.Fatal(err)
		}
		if !again {
			break
		}
	}
	if got := l.document(d); turns < 4 || files.read != 1 || got.Status != knowledge.StatusReady || got.Chunks != 9 {
		t.Errorf("%d turns, read %d times, %+v", turns, files.read, got)
	}
	l.checkWords()
}
