package knowledge_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// shelf is a store with one list of what is found.
type shelf struct {
	found   []knowledge.Found
	around  map[knowledge.Place]knowledge.Chunk
	pending int64
	changes int // how often the space changes before an answer
	asked   []knowledge.Search
}

func (s *shelf) Repository(_ context.Context, id int64) (knowledge.Repository, error) {
	return knowledge.Repository{ID: id, Pending: s.pending}, nil
}

func (s *shelf) Spaces(_ context.Context, repositories []int64) (map[int64]knowledge.Space, error) {
	spaces := make(map[int64]knowledge.Space)
	for _, id := range repositories {
		if id < 9 {
			spaces[id] = knowledge.Space{ID: 10 + id, Model: "test/m", Dimensions: 2}
		}
	}
	return spaces, nil
}

func (s *shelf) Missing(context.Context, []int64) ([]int64, error) { return nil, nil }

func (s *shelf) SearchChunks(_ context.Context, q knowledge.Search) ([]knowledge.Found, error) {
	s.asked = append(s.asked, q)
	if s.changes > 0 {
		s.changes--
		return nil, fmt.Errorf("search: %w", knowledge.ErrSpaceChanged)
	}
	return s.found, nil
}

func (s *shelf) Around(context.Context, []knowledge.Place, int) (map[knowledge.Place]knowledge.Chunk, error) {
	return s.around, nil
}

// model makes the same vector of every text, or fails.
type model struct {
	fail   error
	vector []float32 // {1, 0} when it is nil
	hangs  bool
}

func (m model) Embedding(string) (knowledge.Embedding, error) {
	return knowledge.Embedding{Embedder: m, Model: "m", Batch: 100, Count: llm.EstimateTokens}, nil
}

func (m model) Embed(ctx context.Context, _ string, texts []string, _ int) ([][]float32, llm.Usage, error) {
	if m.hangs {
		<-ctx.Done()
		return nil, llm.Usage{}, llm.NewError(llm.CodeCancelled, ctx.Err())
	}
	if m.fail != nil {
		return nil, llm.Usage{}, m.fail
	}
	vectors := slices.Repeat([][]float32{{1, 0}}, len(texts))
	for i := range vectors {
		if m.vector != nil {
			vectors[i] = slices.Clone(m.vector)
		}
	}
	return vectors, llm.Usage{}, nil
}

func passage(document int64, ordinal int, vector, keyword float64) knowledge.Found {
	f := knowledge.Found{Ordinal: ordinal, Passage: knowledge.Passage{
		ChunkID: 100*document + int64(ordinal), DocumentID: document, DocumentVersion: 1, Text: fmt.Sprintf("%d.%d", document, ordinal), Score: max(vector, keyword),
	}}
	f.Signals.VectorScore, f.Signals.KeywordScore = vector, keyword
	return f
}

func searcher(s *shelf, m model) *knowledge.Searcher {
	return &knowledge.Searcher{Store: s, Embeddings: m, Retry: llm.RetryPolicy{Attempts: 1}, Logger: slog.New(slog.DiscardHandler)}
}

func foundTexts(r knowledge.Result) (out []string) {
	for _, p := range r.Passages {
		out = append(out, p.Text)
	}
	return out
}

// What a query allows is kept in order, and the rest is counted by its reason.
func TestSearchChooses(t *testing.T) {
	t.Parallel()
	found := []knowledge.Found{passage(1, 0, 0.9, 0), passage(1, 1, 0.8, 0.1), passage(2, 0, 0.2, 0.7), passage(1, 2, 0.6, 0), passage(3, 0, 0.1, 0.3)}
	for _, tt := range []struct {
		name  string
		query knowledge.Query
		want  []string
		left  knowledge.Left
	}{
		{"everything", knowledge.Query{Limit: 9}, []string{"1.0", "1.1", "2.0", "1.2", "3.0"}, knowledge.Left{}},
		{"the better signal counts", knowledge.Query{Limit: 9, Threshold: 0.65}, []string{"1.0", "1.1", "2.0"}, knowledge.Left{Threshold: 2}},
		{"one of a document", knowledge.Query{Limit: 9, PerDocument: 1}, []string{"1.0", "2.0", "3.0"}, knowledge.Left{Document: 2}},
		{"limit", knowledge.Query{Limit: 2}, []string{"1.0", "1.1"}, knowledge.Left{Limit: 3}},
		{"all of them", knowledge.Query{Limit: 1, PerDocument: 1, Threshold: 0.65}, []string{"1.0"}, knowledge.Left{Threshold: 2, Document: 1, Limit: 1}},
	} {
		tt.query.Repositories, tt.query.Text, tt.query.Search = []int64{1}, "x", knowledge.SearchHybrid
		got, err := searcher(&shelf{found: found}, model{}).Retrieve(t.Context(), tt.query)
		if err != nil || !slices.Equal(foundTexts(got), tt.want) || got.Left != tt.left {
			t.Errorf("%s: %v, %+v, %v", tt.name, foundTexts(got), got.Left, err)
		}
	}
}

// A chunk between two passages is put to the better one, and no passage to another.
func TestSearchNeighbours(t *testing.T) {
	t.Parallel()
	around := make(map[knowledge.Place]knowledge.Chunk)
	for _, ordinal := range []int{0, 2, 4, 5, 6} {
		around[knowledge.Place{DocumentID: 1, Version: 1, Ordinal: ordinal}] = knowledge.Chunk{Text: fmt.Sprintf("n%d", ordinal)}
	}
	s := &shelf{found: []knowledge.Found{passage(1, 3, 0.9, 0), passage(1, 1, 0.8, 0), passage(2, 7, 0.7, 0)}, around: around}
	got, err := searcher(s, model{}).Retrieve(t.Context(), knowledge.Query{Repositories: []int64{1}, Text: "x", Search: knowledge.SearchVector, Limit: 9, Neighbours: 2})
	if want := []string{"n2\n\n1.3\n\nn4\n\nn5", "n0\n\n1.1", "2.7"}; err != nil || !slices.Equal(foundTexts(got), want) {
		t.Errorf("%q, %v", foundTexts(got), err)
	}
}

// What a chunk repeats of the one before it stands once in a passage with neighbours.
func TestSearchNeighboursOverlap(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ before, found, after, want string }{
		{"One. Two.", "Two. Three.", "Three. Four.", "One. Two. Three. Four."},
		{"One.\n\nTwo. Three.", "Two. Three.\n\nFour.", "Five.", "One.\n\nTwo. Three.\n\nFour.\n\nFive."},
		{"It is a", "a", "a banana", "It is a banana"},
		{"cat", "at sea", "seal", "cat\n\nat sea\n\nseal"}, // no whole words
		{"a a b", "a b a a b", "a b c", "a a b a a b c"},
		{"Größe ß.", "ß. Übrig.", "", "Größe ß. Übrig."},
	} {
		f := passage(1, 1, 0.9, 0)
		f.Text = tt.found
		around := map[knowledge.Place]knowledge.Chunk{{DocumentID: 1, Version: 1, Ordinal: 0}: {Text: tt.before}}
		if tt.after != "" {
			around[knowledge.Place{DocumentID: 1, Version: 1, Ordinal: 2}] = knowledge.Chunk{Text: tt.after}
		}
		s := &shelf{found: []knowledge.Found{f}, around: around}
		got, err := searcher(s, model{}).Retrieve(t.Context(), knowledge.Query{Repositories: []int64{1}, Text: "x", Search: knowledge.SearchVector, Limit: 9, Neighbours: 1})
		if err != nil || !slices.Equal(foundTexts(got), []string{tt.want}) {
			t.Errorf("%q, want %q, %v", foundTexts(got), tt.want, err)
		}
	}
}

// The vector of a query has the length 1, whatever the model answers: the database has
// no room for large numbers.
func TestSearchUnit(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	query := knowledge.Query{Repositories: []int64{1}, Text: "x", Search: knowledge.SearchVector, Limit: 9}
	if _, err := searcher(s, model{vector: []float32{3e6, 4e6}}).Retrieve(t.Context(), query); err != nil {
		t.Fatal(err)
	}
	if got := s.asked[0].Vectors[0].Vectors; len(got) != 1 || !slices.Equal(got[0], []float32{0.6, 0.8}) {
		t.Errorf("asked for %v", got)
	}
}

// One side of a hybrid search that fails is told, and the other answers; vectors alone
// cannot do without it.
func TestSearchDegraded(t *testing.T) {
	t.Parallel()
	down := model{fail: llm.NewError(llm.CodeUnavailable, errors.New("down"))}
	s := &shelf{found: []knowledge.Found{passage(1, 0, 0, 0.5)}}
	query := knowledge.Query{Repositories: []int64{1, 2}, Text: "x", Search: knowledge.SearchHybrid, Limit: 9}
	got, err := searcher(s, down).Retrieve(t.Context(), query)
	if err != nil || len(got.Passages) != 1 || !strings.Contains(got.Degraded, "went by words alone") || len(s.asked[0].Vectors) != 0 {
		t.Errorf("hybrid: %+v, %v", got, err)
	}
	query.Search = knowledge.SearchVector
	if _, err := searcher(s, down).Retrieve(t.Context(), query); !errors.Is(err, down.fail) {
		t.Errorf("vector: %v", err)
	}
	query.Search = knowledge.SearchKeyword
	if got, err := searcher(s, down).Retrieve(t.Context(), query); err != nil || got.Degraded != "" {
		t.Errorf("keyword: %+v, %v", got, err)
	}
	query.Search, query.Repositories = knowledge.SearchVector, []int64{1, 9}
	if _, err := searcher(s, model{}).Retrieve(t.Context(), query); !errors.Is(err, knowledge.ErrNotFound) {
		t.Errorf("an unknown repository: %v", err)
	}
	query.Repositories = []int64{1, 2}
	if got, err := searcher(&shelf{pending: 2}, model{}).Retrieve(t.Context(), query); err != nil || !strings.Contains(got.Degraded, "still being processed (4)") {
		t.Errorf("nothing yet: %+v, %v", got, err)
	}
}

// A model that does not answer is what a search waited for in vain, not the database.
func TestSearchWaitsInVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		query := knowledge.Query{Repositories: []int64{1}, Text: "x", Search: knowledge.SearchVector, Limit: 9}
		_, err := searcher(&shelf{}, model{hangs: true}).Retrieve(t.Context(), query)
		if failed, ok := errors.AsType[*llm.Error](err); !ok || failed.Code != llm.CodeTimeoutTotal {
			t.Errorf("%v", err)
		}
	})
}

// A search begins again when a space is gone, but not for ever.
func TestSearchSpaceChanges(t *testing.T) {
	t.Parallel()
	query := knowledge.Query{Repositories: []int64{1}, Text: "x", Search: knowledge.SearchVector, Limit: 9}
	s := &shelf{found: []knowledge.Found{passage(1, 0, 0.5, 0)}, changes: 2}
	if got, err := searcher(s, model{}).Retrieve(t.Context(), query); err != nil || len(got.Passages) != 1 || len(s.asked) != 3 {
		t.Errorf("%+v, %v after %d", got, err, len(s.asked))
	}
	s = &shelf{changes: 99}
	if _, err := searcher(s, model{}).Retrieve(t.Context(), query); !errors.Is(err, knowledge.ErrSpaceChanged) || len(s.asked) != 3 {
		t.Errorf("%v after %d", err, len(s.asked))
	}
}

// explaining is a shelf that tells how it searched.
type explaining struct{ *shelf }

func (e explaining) SearchExplained(context.Context, knowledge.Search) ([]knowledge.Found, []knowledge.IndexUse, error) {
	return e.found, nil, nil
}

func (explaining) Terms(context.Context, []int64, []string, []int64) (terms, matched map[int64][]knowledge.Term, err error) {
	return nil, nil, nil
}

// So does an explanation whose second search, without the filter, finds the space gone.
func TestExplainSpaceChanges(t *testing.T) {
	t.Parallel()
	query := knowledge.Query{Repositories: []int64{1}, Text: "x", Search: knowledge.SearchVector, Limit: 1, Filter: []byte("{}")}
	for changes, want := range map[int]error{2: nil, 99: knowledge.ErrSpaceChanged} {
		s := &shelf{found: []knowledge.Found{passage(1, 0, 0.5, 0), passage(2, 0, 0.4, 0)}, changes: changes}
		search := searcher(s, model{})
		search.Store = explaining{s}
		x, err := search.Explain(t.Context(), query)
		if !errors.Is(err, want) || err == nil && (len(x.Queries) != 1 || len(x.Removed) != 1) || len(s.asked) != 3 {
			t.Errorf("%d changes: %+v, %v after %d", changes, x, err, len(s.asked))
		}
	}
}
