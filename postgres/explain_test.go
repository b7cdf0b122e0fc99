package postgres_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

func (l *library) explain(q knowledge.Query) *knowledge.Explanation {
	l.t.Helper()
	x, err := l.searcher.Explain(l.t.Context(), q)
	if err != nil {
		l.t.Fatal(err)
	}
	return x
}

func removed(x *knowledge.Explanation) map[string][]string {
	out := make(map[string][]string)
	for _, r := range x.Removed {
		out[r.Reason] = append(out[r.Reason], r.Document)
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

// An explanation has the result of the search, the words with their weights, the
// query as it was embedded, and every passage that was left out with the reason.
func TestExplain(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 16)
	l.add(r.ID, "rivers.md", "# Rivers\n\nRivers carry water into the sea.", `{"kind": "water"}`)
	l.add(r.ID, "lakes.md", "# Lakes\n\nLakes hold water between mountains.", `{"kind": "water"}`)
	l.add(r.ID, "rocks.md", "# Rocks\n\nGranite is a hard rock in water.", `{"kind": "stone"}`)
	q := knowledge.Query{Repositories: []int64{r.ID}, Search: "hybrid", Text: "the water of rivers", Limit: 1, Filter: []byte(`{"kind": "water"}`)}
	x := l.explain(q)
	plain := l.find(q)
	if diff := cmp.Diff(plain, x.Result); diff != "" {
		t.Errorf("another result than that of the search (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]string{"limit": {"lakes.md"}, "filter": {"rocks.md"}}, removed(x)); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	var words []string
	for _, term := range x.Terms[r.ID] {
		words = append(words, term.Word)
	}
	if diff := cmp.Diff([]string{"river", "water"}, words); diff != "" || x.Terms[r.ID][0].Weight <= x.Terms[r.ID][1].Weight {
		t.Errorf("terms %+v", x.Terms)
	}
	best := x.Result.Passages[0]
	if diff := cmp.Diff(x.Terms[r.ID], x.Matched[best.ChunkID]); diff != "" || best.Document != "rivers.md" {
		t.Errorf("%s matched (-want +got):\n%s", best.Document, diff)
	}
	for _, p := range x.Removed {
		if m := x.Matched[p.ChunkID]; len(m) != 1 || m[0].Word != "water" {
			t.Errorf("%s matched %+v", p.Document, m)
		}
	}
	if e := x.Queries; len(e) != 1 || e[0].Space.Model != "test/a" || !slices.Equal(e[0].Parts, []string{q.Text}) || e[0].Err != nil || e[0].Cached {
		t.Errorf("embedded %+v", e)
	}
	if diff := cmp.Diff([]knowledge.IndexUse{{RepositoryID: r.ID}}, x.Indexes); diff != "" {
		t.Errorf("indexes (-want +got):\n%s", diff)
	}
	if x.Timings.Search <= 0 || x.Timings.Explain <= 0 || x.Candidates < 50 {
		t.Errorf("%+v, %d candidates", x.Timings, x.Candidates)
	}
	q.Filter, q.Threshold = nil, 1
	if diff := cmp.Diff(map[string][]string{"threshold": {"lakes.md", "rivers.md", "rocks.md"}}, removed(l.explain(q))); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	// One side only, and one that is down.
	q.Threshold, q.Search = 0, "vector"
	if x = l.explain(q); x.Terms != nil || len(x.Matched) != 0 {
		t.Errorf("vector: %+v", x.Terms)
	}
	q.Search = "keyword"
	if x = l.explain(q); x.Queries != nil || x.Indexes != nil || len(x.Terms[r.ID]) != 2 {
		t.Errorf("keyword: %+v, %+v, %+v", x.Queries, x.Indexes, x.Terms)
	}
	l.embedder.fail = llm.NewError(llm.CodeUnavailable, nil)
	q.Search, q.Text = "hybrid", "water and something new"
	if x = l.explain(q); x.Queries[0].Err == nil || !strings.Contains(x.Result.Degraded, "words alone") || len(x.Result.Passages) != 1 {
		t.Errorf("without the model: %+v", x)
	}
}

// Whether an index answered is asked of the transaction that searched.
func TestExplainIndex(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 8)
	l.fill(r.ID, 4000, "'word' || i")
	l.fillVectors(r)
	q := knowledge.Query{Repositories: []int64{r.ID}, Search: "vector", Text: "a question", Limit: 5}
	if x := l.explain(q); len(x.Result.Passages) != 5 || x.Indexes[0].Exists || x.Indexes[0].Used {
		t.Errorf("without an index: %+v", x.Indexes)
	}
	if n, err := l.IndexSpaces(t.Context(), l.url); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	pgtest.Query(t, l.url, "ANALYZE")
	for range 2 { // another search of the same connection does not count
		if x := l.explain(q); !x.Indexes[0].Exists || !x.Indexes[0].Used {
			t.Errorf("with an index: %+v", x.Indexes)
		}
	}
	pgtest.Query(t, l.url, "DELETE FROM chunk_vectors WHERE chunk_id % 1000 <> 0")
}

// The vector of a query is made once, for each model and length.
func TestQueryVectorsAreKept(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	a, same, other := l.repository("a", "test/a", 16), l.repository("b", "test/a", 16), l.repository("c", "test/a", 8)
	l.add(a.ID, "a.txt", "Rivers flow.", "")
	before := l.embedder.texts
	search := func(text string, repositories ...int64) {
		t.Helper()
		l.find(knowledge.Query{Repositories: repositories, Search: "vector", Text: text, Limit: 3})
	}
	for i, c := range []struct {
		text         string
		repositories []int64
		want         int // texts embedded so far
	}{
		{"rivers", []int64{a.ID}, 1}, {"rivers", []int64{a.ID}, 1}, {"rivers", []int64{same.ID}, 1}, {"rivers", []int64{a.ID, same.ID}, 1},
		{"rivers", []int64{other.ID}, 2}, {"lakes", []int64{a.ID, other.ID}, 4}, {"rivers", []int64{other.ID}, 4},
	} {
		if search(c.text, c.repositories...); l.embedder.texts-before != c.want {
			t.Errorf("search %d: %d texts embedded, want %d", i, l.embedder.texts-before, c.want)
		}
	}
	x := l.explain(knowledge.Query{Repositories: []int64{a.ID}, Search: "vector", Text: "rivers", Limit: 3})
	if !x.Queries[0].Cached || x.Queries[0].Tokens != 0 {
		t.Errorf("%+v", x.Queries)
	}
	// A failure is not kept.
	l.embedder.fail = llm.NewError(llm.CodeUnavailable, nil)
	if _, err := l.searcher.Retrieve(t.Context(), knowledge.Query{Repositories: []int64{a.ID}, Search: "vector", Text: "new", Limit: 3}); err == nil {
		t.Error("no error")
	}
	l.embedder.fail = nil
	search("new", a.ID)
}

// A query whose vector points nowhere finds nothing by vectors, instead of anything.
func TestQueryWithoutMeaning(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 16)
	l.add(r.ID, "a.txt", "Rivers flow.", "")
	l.embedder.bend = func(v []float32) []float32 { return make([]float32, len(v)) }
	l.add(r.ID, "b.txt", "?!", "") // a document may be like that, too
	q := knowledge.Query{Repositories: []int64{r.ID}, Search: "vector", Text: "???", Limit: 3}
	if got := l.find(q); len(got.Passages) != 0 || !strings.Contains(got.Degraded, "nothing that test/a could embed") {
		t.Errorf("vector: %+v", got)
	}
	q.Search, q.Text = "hybrid", "rivers?"
	if got := l.find(q); len(got.Passages) != 1 || got.Degraded == "" {
		t.Errorf("hybrid: %+v", got)
	}
	l.embedder.bend = nil
	for _, p := range l.find(knowledge.Query{Repositories: []int64{r.ID}, Search: "vector", Text: "Rivers flow.", Limit: 3}).Passages {
		if s := p.Signals.VectorScore; s < 0 || s > 1 || p.Document == "b.txt" && s > 0.9 {
			t.Errorf("%s: %v", p.Document, s)
		}
	}
}

// The same text within one document is embedded once too, and an upload whose text
// stands in an older version costs nothing.
func TestTextsAreEmbeddedOnce(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	a, b := l.repository("a", "test/a", 8), l.repository("b", "test/a", 8)
	twice := "# Notice\n\nAll rights are reserved by nobody at all.\n\n# Notice\n\nAll rights are reserved by nobody at all.\n"
	if d := l.add(a.ID, "x.md", twice, ""); d.Chunks != 2 || l.embedder.texts != 1 {
		t.Errorf("%d chunks by %d texts", d.Chunks, l.embedder.texts)
	}
	l.add(a.ID, "x.md", twice+"\n", "")
	l.add(a.ID, "y.md", twice, "")
	l.add(b.ID, "x.md", twice, "")
	if l.embedder.texts != 1 || l.count("SELECT count(*) FROM chunk_vectors") != 6 {
		t.Errorf("%d texts were embedded", l.embedder.texts)
	}
}

// reorder is a rerank hook.
type reorder struct {
	given []knowledge.Passage
	order func(n int) []knowledge.Ranked
	err   error
}

func (r *reorder) Rerank(_ context.Context, _ string, passages []knowledge.Passage) ([]knowledge.Ranked, error) {
	r.given = passages
	if r.err != nil {
		return nil, r.err
	}
	return r.order(len(passages)), nil
}

// The order of the hook is that of the result, with its scores; a hook that fails or
// answers nonsense changes nothing, and the result says so.
func TestRerank(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 16)
	for _, name := range []string{"one", "two", "three"} {
		l.add(r.ID, name, "Rivers "+strings.Repeat(name+" ", len(name)), "")
	}
	q := knowledge.Query{Repositories: []int64{r.ID}, Search: "hybrid", Text: "rivers one", Limit: 2}
	plain := names(l.find(knowledge.Query{Repositories: []int64{r.ID}, Search: "hybrid", Text: "rivers one", Limit: 3}))
	backwards := func(n int) (order []knowledge.Ranked) {
		for i := n - 1; i >= 0; i-- {
			order = append(order, knowledge.Ranked{Passage: i, Score: float64(i+1) / 10})
		}
		return order
	}
	hook := &reorder{order: backwards}
	l.searcher.Reranker = hook
	got := l.find(q)
	slices.Reverse(plain)
	if diff := cmp.Diff(plain[:2], names(got)); diff != "" || len(hook.given) != 3 || got.Left.Limit != 1 || got.Degraded != "" {
		t.Errorf("(-want +got):\n%s%+v", diff, got)
	}
	for i, p := range got.Passages {
		if p.Signals.RerankRank != i+1 || p.Score != p.Signals.RerankScore || p.Score != float64(3-i)/10 {
			t.Errorf("passage %d: %v, %+v", i, p.Score, p.Signals)
		}
	}
	slices.Reverse(plain)
	for name, broken := range map[string]*reorder{
		"fails":    {err: errors.New("no")},
		"too few":  {order: func(int) []knowledge.Ranked { return []knowledge.Ranked{{Passage: 1, Score: 1}} }},
		"twice":    {order: func(n int) []knowledge.Ranked { return append(backwards(n)[1:], knowledge.Ranked{Passage: 0}) }},
		"beyond":   {order: func(n int) []knowledge.Ranked { return append(backwards(n)[1:], knowledge.Ranked{Passage: n}) }},
		"negative": {order: func(n int) []knowledge.Ranked { return append(backwards(n)[1:], knowledge.Ranked{Passage: -1}) }},
	} {
		l.searcher.Reranker = broken
		x := l.explain(q)
		if diff := cmp.Diff(plain[:2], names(x.Result)); diff != "" || !strings.Contains(x.Result.Degraded, "better order") || x.RerankErr == nil || x.Result.Passages[0].Signals.RerankRank != 0 {
			t.Errorf("%s (-want +got):\n%s%+v", name, diff, x.Result)
		}
	}
}
