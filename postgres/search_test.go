package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

func names(r knowledge.Result) []string {
	var out []string
	for _, p := range r.Passages {
		out = append(out, p.Document)
	}
	return out
}

func TestSearch(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	a, b := l.repository("a", "test/a", 16), l.repository("b", "test/b", 24)
	l.add(a.ID, "rivers.md", "# Rivers\n\nRivers carry water into the sea.", `{"kind": "water"}`)
	l.add(a.ID, "lakes.md", "# Lakes\n\nLakes hold water between mountains.", `{"kind": "water"}`)
	l.add(a.ID, "rocks.md", "# Rocks\n\nGranite is a hard rock.", `{"kind": "stone"}`)
	l.add(b.ID, "boats.md", "# Boats\n\nBoats cross rivers and lakes.", "")
	one, both := []int64{a.ID}, []int64{a.ID, b.ID}
	long := strings.Repeat("please answer the question of the user as well as you can and ", 40) + "what is granite"
	for name, c := range map[string]struct {
		q    knowledge.Query
		want []string // in any order behind the first
	}{
		"keyword":        {knowledge.Query{Repositories: one, Search: "keyword", Text: "granite"}, []string{"rocks.md"}},
		"long prompt":    {knowledge.Query{Repositories: one, Search: "keyword", Text: long}, []string{"rocks.md"}},
		"stop words":     {knowledge.Query{Repositories: one, Search: "keyword", Text: "the of and is"}, nil},
		"no hit":         {knowledge.Query{Repositories: one, Search: "keyword", Text: "zeppelin"}, nil},
		"phrase":         {knowledge.Query{Repositories: one, Search: "keyword", Text: `"hold water"`}, []string{"lakes.md"}},
		"not":            {knowledge.Query{Repositories: one, Search: "keyword", Text: `water -sea`}, []string{"lakes.md"}},
		"or":             {knowledge.Query{Repositories: one, Search: "keyword", Text: `granite OR sea`}, []string{"rivers.md", "rocks.md"}},
		"several":        {knowledge.Query{Repositories: both, Search: "keyword", Text: "lakes"}, []string{"boats.md", "lakes.md"}},
		"vector first":   {knowledge.Query{Repositories: one, Search: "vector", Text: "Granite is a hard rock.", Limit: 1}, []string{"rocks.md"}},
		"vector several": {knowledge.Query{Repositories: both, Search: "vector", Text: "boats"}, []string{"boats.md", "lakes.md", "rivers.md", "rocks.md"}},
		"filter":         {knowledge.Query{Repositories: one, Search: "hybrid", Text: "water", Filter: []byte(`{"kind": "stone"}`)}, []string{"rocks.md"}},
		"no document":    {knowledge.Query{Repositories: one, Search: "hybrid", Text: "water", Filter: []byte(`{"kind": "air"}`)}, nil},
	} {
		if c.q.Limit == 0 {
			c.q.Limit = 10
		}
		got := names(l.find(c.q))
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	// Fusion: the score follows from both ranks.
	for _, p := range l.find(knowledge.Query{Repositories: both, Search: "hybrid", Text: "granite rock", Limit: 10}).Passages {
		want := 0.0
		for _, rank := range []int{p.Signals.VectorRank, p.Signals.KeywordRank} {
			if rank > 0 {
				want += 1 / float64(60+rank)
			}
		}
		if want /= 2.0 / 61; p.Score < want-1e-9 || p.Score > want+1e-9 || p.Score <= 0 || p.Score > 1 {
			t.Errorf("%s: score %v of ranks %+v, want %v", p.Document, p.Score, p.Signals, want)
		}
	}
}

// What is left out is counted, and neighbours are put to one passage only.
func TestSearchLeaves(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 16)
	l.add(r.ID, "essay.md", essay(6), "")
	l.add(r.ID, "other.md", "# Other\n\nThis is about rivers too.", "")
	q := knowledge.Query{Repositories: []int64{r.ID}, Search: "keyword", Text: "rivers", Limit: 10}
	if got := l.find(q); len(got.Passages) != 7 || got.Left != (knowledge.Left{}) {
		t.Errorf("%d passages, %+v", len(got.Passages), got.Left)
	}
	first := l.find(q)
	for range 5 { // ties have one order
		if got := l.find(q); !slices.EqualFunc(got.Passages, first.Passages, func(a, b knowledge.Passage) bool { return a.ChunkID == b.ChunkID }) {
			t.Fatal("another order")
		}
	}
	q.PerDocument = 2
	if got := l.find(q); len(got.Passages) != 3 || got.Left.Document != 4 {
		t.Errorf("two of a document: %d passages, %+v", len(got.Passages), got.Left)
	}
	q.PerDocument, q.Limit = 0, 4
	if got := l.find(q); len(got.Passages) != 4 || got.Left.Limit != 3 {
		t.Errorf("four at most: %d passages, %+v", len(got.Passages), got.Left)
	}
	q.Threshold = 1
	if got := l.find(q); len(got.Passages) != 0 || got.Left.Threshold != 7 {
		t.Errorf("only perfect ones: %d passages, %+v", len(got.Passages), got.Left)
	}
	got := l.find(knowledge.Query{Repositories: []int64{r.ID}, Search: "keyword", Text: "number2 OR number3", Limit: 2, Neighbours: 1})
	all := ""
	for _, p := range got.Passages {
		all += p.Text + "\n"
	}
	for i, want := range []int{0, 1, 1, 1, 1, 0} {
		if n := strings.Count(all, fmt.Sprintf("number%d ", i)); n != want {
			t.Errorf("part %d is there %d times, want %d", i, n, want)
		}
	}
}

// A document that has nothing but headings is found by them.
func TestHeadingsAlone(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	d := l.add(r.ID, "agenda.md", "# Agenda\n\n## Budget\n\n## Elections\n", "")
	if d.Status != knowledge.StatusReady || d.Chunks != 1 {
		t.Fatalf("%s with %d chunks", d.Status, d.Chunks)
	}
	for _, search := range []string{knowledge.SearchKeyword, knowledge.SearchVector} {
		found, err := l.searcher.Retrieve(t.Context(), knowledge.Query{Repositories: []int64{r.ID}, Text: "elections", Search: search, Limit: 5})
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Passages) != 1 || found.Passages[0].Headings != "Agenda" || found.Passages[0].Text != "Budget\n\nElections" {
			t.Errorf("%s: %+v", search, found.Passages)
		}
	}
}

// Without the model a hybrid search goes by words and says so, a vector one fails.
func TestSearchWithoutModel(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 16)
	l.add(r.ID, "a.txt", "Rivers flow.", "")
	l.embedder.fail = llm.NewError(llm.CodeUnavailable, nil)
	q := knowledge.Query{Repositories: []int64{r.ID}, Search: "hybrid", Text: "rivers", Limit: 3}
	if got := l.find(q); len(got.Passages) != 1 || !strings.Contains(got.Degraded, "words alone") {
		t.Errorf("hybrid: %+v", got)
	}
	q.Search = "vector"
	if _, err := l.searcher.Retrieve(t.Context(), q); err == nil {
		t.Error("vector: no error")
	}
}

// With many vectors the statements of a search use their indexes, and a filter that few
// documents pass still has as many rows as were asked for.
func TestSearchUsesIndexes(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 8)
	pgtest.Query(t, l.url, fmt.Sprintf(`WITH d AS (
			INSERT INTO documents (repository_id, name, version, status, bytes, content_hash, metadata)
			SELECT %[1]d, 'd' || i, 1, 'ready', 1, '', jsonb_build_object('rare', i %% 100 = 0) FROM generate_series(1, 1000) i RETURNING id
		)
		INSERT INTO chunks (repository_id, document_id, version, ordinal, headings, text, tokens, content_hash, language)
		SELECT %[1]d, d.id, 1, o, '', 'word' || (d.id * 20 + o) || ' river', 2, '', 'english' FROM d, generate_series(1, 20) o`, r.ID))
	l.fillVectors(r)
	pgtest.Query(t, l.url, fmt.Sprintf("INSERT INTO repository_words SELECT %[1]d, u.lexeme, count(*) FROM chunks c, unnest(c.words) u GROUP BY 2 UNION ALL SELECT %[1]d, '', 20000", r.ID))
	index := fmt.Sprintf("chunk_vectors_%d_hnsw", r.Space.ID)
	// An index that was broken off is made anew, by one of several servers.
	conn := pgtest.Connect(t, l.url)
	if _, err := conn.Exec(t.Context(), fmt.Sprintf("CREATE UNIQUE INDEX CONCURRENTLY %s ON chunk_vectors_%d (space_id)", index, r.Space.ID)); err == nil {
		t.Fatal("the index is valid")
	}
	var servers sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 3 {
		servers.Go(func() {
			n, err := l.IndexSpaces(t.Context(), l.url)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			made += n
		})
	}
	servers.Wait()
	if made != 1 || l.count(fmt.Sprintf("SELECT count(*) FROM pg_index WHERE indexrelid = '%s'::regclass AND indisvalid", index)) != 1 {
		t.Errorf("%d indexes were made", made)
	}
	if n, err := l.IndexSpaces(t.Context(), l.url); n != 0 || err != nil {
		t.Errorf("made once more: %d, %v", n, err)
	}
	pgtest.Query(t, l.url, "ANALYZE")
	query := "[1,0,0,0,0,0,0,0]"
	if n := l.count(fmt.Sprintf(`SELECT count(*) FROM knowledge_nearest(%d, '%s', 50, '{"rare": true}')`, r.Space.ID, query)); n != 50 {
		t.Errorf("%d rows behind a filter", n)
	}
	// Of the ten nearest, the index finds nearly all.
	if n := l.count(fmt.Sprintf(`WITH q AS MATERIALIZED (SELECT embedding FROM chunk_vectors_%[1]d ORDER BY chunk_id LIMIT 40)
		SELECT count(*) FROM q
		 CROSS JOIN LATERAL (SELECT chunk_id FROM knowledge_nearest(%[1]d, q.embedding::text, 50, NULL) LIMIT 10) found
		  JOIN LATERAL (SELECT chunk_id FROM chunk_vectors_%[1]d v ORDER BY v.embedding <=> q.embedding, chunk_id LIMIT 10) truth USING (chunk_id)`, r.Space.ID)); n < 380 {
		t.Errorf("the index finds %d of 400", n)
	}
	// The statements inside of the functions: what they scanned is counted.
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	used := func(name string) (n int) {
		t.Helper()
		exec("SELECT pg_stat_force_next_flush()")
		if err := conn.QueryRow(t.Context(), "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $1", name).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, sql := range map[string]string{
		index:                         fmt.Sprintf("SELECT count(*) FROM knowledge_nearest(%d, '%s', 50, NULL)", r.Space.ID, query),
		"chunks_repository_words_idx": fmt.Sprintf("SELECT count(*) FROM knowledge_matching(%d, 'what is word77 doing', 50, NULL)", r.ID),
	} {
		before := used(name)
		exec(sql)
		if used(name) == before {
			t.Errorf("%s is not used", name)
		}
	}
}

// fill stores passages without vectors, each a document of its own. text is an
// expression over their number i.
func (l *library) fill(repository int64, passages int, text string) {
	l.t.Helper()
	pgtest.Query(l.t, l.url, fmt.Sprintf(`WITH d AS (
			INSERT INTO documents (repository_id, name, version, status, bytes, content_hash)
			SELECT %[1]d, 'filled ' || i, 1, 'ready', 1, '' FROM generate_series(1, %[2]d) i RETURNING id, substr(name, 8)::integer AS i
		)
		INSERT INTO chunks (repository_id, document_id, version, ordinal, headings, text, tokens, content_hash, language)
		SELECT %[1]d, id, 1, 0, '', %[3]s, 1, '', 'english' FROM d`, repository, passages, text))
	pgtest.Query(l.t, l.url, fmt.Sprintf(`INSERT INTO repository_words
		SELECT repository_id, lexeme, count(*) FROM chunks, unnest(words) WHERE repository_id = %[1]d GROUP BY 1, 2
		UNION ALL SELECT %[1]d, '', %[2]d`, repository, passages))
	pgtest.Query(l.t, l.url, "ANALYZE chunks, documents")
}

// fillVectors gives every passage of a repository a vector of its own.
func (l *library) fillVectors(r knowledge.Repository) {
	l.t.Helper()
	pgtest.Query(l.t, l.url, fmt.Sprintf(`INSERT INTO chunk_vectors
		SELECT c.id, %d, (SELECT array_agg(random() - 0.5) FROM generate_series(1, %d + 0 * c.id::integer))::real[]::vector::halfvec
		  FROM chunks c WHERE c.repository_id = %d`, r.Space.ID, r.Space.Dimensions, r.ID))
}

// What other repositories have of a word is not looked at.
func TestSearchReadsItsRepository(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	large, small := l.repository("large", "test/a", 8), l.repository("small", "test/b", 8)
	l.add(small.ID, "a.txt", "A river.", "")
	l.fill(large.ID, 4000, "'river ' || i")
	conn := pgtest.Connect(t, l.url)
	read := func() (n int) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), "SELECT pg_stat_force_next_flush()"); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'chunks'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := read()
	var found int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM knowledge_matching($1, 'river', 50, NULL)", small.ID).Scan(&found); err != nil {
		t.Fatal(err)
	}
	if n := read() - before; found != 1 || n > 10 {
		t.Errorf("%d passages were found after %d were read", found, n)
	}
}

// Of words that are nearly everywhere, the passages that have all of them come first,
// and where these are few, others follow.
func TestSearchOfCommonWords(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 8)
	l.fill(r.ID, 18_000, "CASE WHEN i IN (17, 17999) THEN 'water stone' WHEN i % 2 = 0 THEN 'water' ELSE 'stone' END")
	got := l.find(knowledge.Query{Repositories: []int64{r.ID}, Search: "keyword", Text: "is water a stone?", Limit: 20})
	if len(got.Passages) != 20 {
		t.Fatalf("%d passages", len(got.Passages))
	}
	for i, p := range got.Passages {
		if both := p.Text == "water stone"; both != (i < 2) {
			t.Errorf("place %d: %q", i+1, p.Text)
		}
	}
	// Enough have both: what has one of them is not ranked at all.
	all := l.repository("b", "test/a", 8)
	l.fill(all.ID, 18_000, "CASE WHEN i % 90 = 0 THEN 'water stone' WHEN i % 2 = 0 THEN 'water' ELSE 'stone' END")
	if n := l.count(fmt.Sprintf("SELECT count(*) FROM knowledge_matching(%d, 'is water a stone?', 500, NULL) m JOIN chunks c ON c.id = m.chunk_id WHERE c.text <> 'water stone'", all.ID)); n == 0 {
		t.Error("fewer than were asked for")
	}
	if n := l.count(fmt.Sprintf("SELECT count(*) FROM knowledge_matching(%d, 'is water a stone?', 150, NULL) m JOIN chunks c ON c.id = m.chunk_id WHERE c.text = 'water stone'", all.ID)); n != 150 {
		t.Errorf("%d have both", n)
	}
}

// Many words that hardly any passage has are searched for, however they are written.
func TestSearchOfIdentifiers(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 8)
	l.fill(r.ID, 3000, "'request ' || md5(i::text) || ' of ' || md5('a' || i)::uuid")
	list := func(separator, value string) (text string) {
		pgtest.Query(t, l.url, fmt.Sprintf("SELECT string_agg(%s, '%s') FROM generate_series(1, 300) i", value, separator), &text)
		return text
	}
	for name, text := range map[string]string{
		"a list": list(",", "md5(i::text)"), "identifiers": list(" ", "md5('a' || i)::uuid::text"),
	} {
		for _, mode := range []string{"keyword", "hybrid"} {
			got, err := l.searcher.Retrieve(t.Context(), knowledge.Query{Repositories: []int64{r.ID}, Search: mode, Text: text, Limit: 50})
			if err != nil || len(got.Passages) < 20 {
				t.Errorf("%s, %s: %d passages, %v", name, mode, len(got.Passages), err)
			}
		}
	}
}
