package knowledge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// Found is a chunk that a search found.
type Found struct {
	Passage
	Ordinal int
	Tokens  int
}

// Search is what the store is asked for.
type Search struct {
	Repositories []int64
	Mode         string
	Parts        []string        // of the query
	Vectors      []SpaceVectors  // of the parts, for the repositories that they could be made for
	Candidates   int             // of each way of searching
	Filter       json.RawMessage // nil = none
}

// SpaceVectors are what is looked for in a space.
type SpaceVectors struct {
	Space   int64
	Vectors [][]float32
}

// Place names a chunk by its place in a document.
type Place struct {
	DocumentID int64
	Version    int
	Ordinal    int
}

// SearchStore finds chunks.
type SearchStore interface {
	// Repository answers a repository, or ErrNotFound.
	Repository(ctx context.Context, id int64) (Repository, error)
	// Spaces answers the spaces that searches of repositories use; those of none that
	// does not exist.
	Spaces(ctx context.Context, repositories []int64) (map[int64]Space, error)
	// Missing answers which of the repositories do not exist.
	Missing(ctx context.Context, repositories []int64) ([]int64, error)
	// SearchChunks answers what was found, best first. ErrSpaceChanged says that a
	// space is gone.
	SearchChunks(ctx context.Context, s Search) ([]Found, error)
	// Around answers the chunks that stand up to reach places from others.
	Around(ctx context.Context, places []Place, reach int) (map[Place]Chunk, error)
}

// Ranked is the place of a passage in a better order.
type Ranked struct {
	Passage int     // its number in what was to be put into order
	Score   float64 // 0–1
}

// Reranker puts passages into a better order, for example by asking a model. It
// answers each of them once, best first.
type Reranker interface {
	Rerank(ctx context.Context, query string, passages []Passage) ([]Ranked, error)
}

// Searcher finds passages in repositories.
type Searcher struct {
	Store      SearchStore
	Embeddings Embeddings
	Reranker   Reranker // nil = the order of the search
	Retry      llm.RetryPolicy
	Logger     *slog.Logger

	queries vectorCache // of queries that were embedded lately
}

// Missing answers which of the repositories do not exist.
func (s *Searcher) Missing(ctx context.Context, repositories []int64) ([]int64, error) {
	return s.Store.Missing(ctx, repositories)
}

// Bounds of a search.
const (
	leastCandidates = 50
	mostCandidates  = 400
	// mostReranked is how many passages the hook is given.
	mostReranked = 100
	// embedQueryWithin bounds how long a search waits for the vector of its query,
	// and patience how long for another try.
	embedQueryWithin = 20 * time.Second
	patience         = 2 * time.Second
)

// Retrieve answers the passages for a query, best first. Where one of the two
// searches of a hybrid one fails, the other answers alone and the result says so.
func (s *Searcher) Retrieve(ctx context.Context, q Query) (Result, error) {
	return s.retrieve(ctx, q, nil)
}

// mostChanges bounds how often a search begins again because the model of a repository
// has changed under it.
const mostChanges = 3

// retrieve is Retrieve; x, which may be nil, notes how it went.
func (s *Searcher) retrieve(ctx context.Context, q Query, x *Explanation) (Result, error) {
	var found []Found
	var degraded string
	begin := time.Now()
	for try := 1; ; try++ {
		asked := parts(q.Text)
		vectors, without, err := s.queryVectors(ctx, q, asked, x)
		if err != nil {
			return Result{}, err
		}
		degraded = without
		begin = x.took(&x.timings().Embed, begin)
		found, err = s.find(ctx, Search{
			Repositories: q.Repositories, Mode: q.Search, Parts: asked, Vectors: vectors, Filter: q.Filter,
			Candidates: min(max(leastCandidates, 4*q.Limit), mostCandidates),
		}, x)
		begin = x.took(&x.timings().Search, begin)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrSpaceChanged) || try == mostChanges {
			return Result{}, err
		}
		x.again()
	}
	var err error
	result := Result{Degraded: degraded}
	if s.Reranker != nil && len(found) > 0 {
		found = s.rerank(ctx, q, found, &result, x)
		begin = x.took(&x.timings().Rerank, begin)
	}
	found = choose(found, q, &result.Left, x)
	if result.Passages, err = s.withNeighbours(ctx, found, q.Neighbours); err != nil {
		return Result{}, err
	}
	x.took(&x.timings().Neighbours, begin)
	if len(result.Passages) == 0 {
		err = s.explainNothing(ctx, q, &result)
	}
	return result, err
}

// explainNothing says that documents are still on their way, where nothing was found.
func (s *Searcher) explainNothing(ctx context.Context, q Query, result *Result) error {
	var pending int64
	for _, id := range q.Repositories {
		r, err := s.Store.Repository(ctx, id)
		if err != nil {
			return err
		}
		pending += r.Pending
	}
	if pending > 0 {
		result.Degraded = strings.TrimSpace(fmt.Sprintf("%s Documents are still being processed (%d), so not all could be found.", result.Degraded, pending))
	}
	return nil
}

// queryVectors embeds the query for every repository, once for each model.
func (s *Searcher) queryVectors(ctx context.Context, q Query, asked []string, x *Explanation) (vectors []SpaceVectors, degraded string, err error) {
	if q.Search == SearchKeyword {
		return nil, "", nil
	}
	spaces, err := s.Store.Spaces(ctx, q.Repositories)
	if err != nil {
		return nil, "", err
	}
	models := make(map[Space]EmbeddedQuery)
	for _, id := range q.Repositories {
		space, ok := spaces[id]
		if !ok {
			return nil, "", fmt.Errorf("repository %d: %w", id, ErrNotFound)
		}
		key := Space{Model: space.Model, Dimensions: space.Dimensions}
		m, ok := models[key]
		if !ok {
			m = s.embedQuery(ctx, key, asked)
			models[key] = m
			x.embedded(m)
		}
		switch {
		case m.Err == nil:
			vectors = append(vectors, SpaceVectors{space.ID, m.vectors})
		case ctx.Err() != nil:
			return nil, "", context.Cause(ctx)
		case errors.Is(m.Err, errNoMeaning):
			degraded = "The query has nothing that " + key.Model + " could embed, so that no vectors were compared."
		case q.Search == SearchVector:
			return nil, "", m.Err
		default:
			s.Logger.WarnContext(ctx, "a query could not be embedded, words are searched alone", "model", key.Model, "error", m.Err)
			degraded = "The query could not be embedded by " + key.Model + "; the search went by words alone."
			if e, ok := errors.AsType[*llm.Error](m.Err); ok {
				degraded += " " + e.Message
			}
		}
	}
	return vectors, degraded, nil
}

// EmbeddedQuery is a query as a model was given it.
type EmbeddedQuery struct {
	Space  Space    // without an id
	Parts  []string // more than one of a long query
	Cached bool     // all vectors were known
	Tokens int64    // that the model was given now
	Err    error

	vectors [][]float32
}

// embedQuery answers the vectors of the parts of a query, without those that mean
// nothing to the model. A part that is too long for it is cut.
func (s *Searcher) embedQuery(ctx context.Context, space Space, parts []string) EmbeddedQuery {
	out := EmbeddedQuery{Space: space, Parts: parts}
	e, err := s.Embeddings.Embedding(space.Model)
	if err != nil {
		e := llm.NewError(llm.CodeNotFound, err)
		e.Message = fmt.Sprintf("The embedding model %s cannot be called from this server: %s.", space.Model, llm.Redact(err.Error()))
		out.Err = e
		return out
	}
	known := make([][]float32, len(parts))
	var missing []string
	for i, part := range parts {
		var ok bool
		if known[i], ok = s.queries.get(vectorKeyOf(space, part)); !ok {
			missing = append(missing, part)
		}
	}
	if out.Cached = len(missing) == 0; !out.Cached {
		within, cancel := context.WithTimeout(ctx, embedQueryWithin)
		defer cancel()
		retry := s.Retry
		if retry.MaxRetryAfter <= 0 || retry.MaxRetryAfter > patience {
			retry.MaxRetryAfter = patience // a search by words alone is better than one that comes late
		}
		got, err := EmbedTexts(within, e, missing, EmbedOptions{Dimensions: space.Dimensions, Purpose: llm.PurposeQuery, Cut: true, Retry: retry})
		if err != nil {
			if within.Err() != nil && ctx.Err() == nil {
				err = llm.NewError(llm.CodeTimeoutTotal, err)
			}
			out.Err = err
			return out
		}
		out.Tokens = got.Usage.InputTokens
		for i, part := range missing {
			if length(got.Vectors[i]) > 0 {
				unit(got.Vectors[i]) // as those of documents are: what is longer may be too much for the numbers of the database
			}
			s.queries.put(vectorKeyOf(space, part), got.Vectors[i])
			known[slices.Index(parts, part)] = got.Vectors[i]
		}
	}
	for _, v := range known {
		if length(v) > 0 {
			out.vectors = append(out.vectors, v)
		}
	}
	if len(out.vectors) == 0 {
		out.Err = errNoMeaning
	}
	return out
}

// errNoMeaning says that the vector of a query points nowhere.
var errNoMeaning = errors.New("the query has nothing that the model could embed")

// find searches the store, and with x asks it how.
func (s *Searcher) find(ctx context.Context, wanted Search, x *Explanation) ([]Found, error) {
	store, ok := s.Store.(ExplainStore)
	if x == nil || !ok {
		return s.Store.SearchChunks(ctx, wanted)
	}
	found, indexes, err := store.SearchExplained(ctx, wanted)
	x.Indexes, x.Candidates = indexes, wanted.Candidates
	return found, err
}

// rerank lets the hook order what was found. A hook that fails changes nothing.
func (s *Searcher) rerank(ctx context.Context, q Query, found []Found, result *Result, x *Explanation) []Found {
	given := found[:min(len(found), mostReranked)]
	passages := make([]Passage, len(given))
	for i, f := range given {
		passages[i] = f.Passage
	}
	order, err := s.Reranker.Rerank(ctx, q.Text, passages)
	if err == nil {
		err = checkOrder(order, len(given))
	}
	if err != nil {
		s.Logger.WarnContext(ctx, "passages were not put into a better order", "error", err)
		result.Degraded = strings.TrimSpace(result.Degraded + " The passages could not be put into a better order; theirs is that of the search.")
		x.rerankFailed(err)
		return found
	}
	for _, f := range found[len(given):] {
		result.Left.Limit++
		x.removed(f, RemovedRerank)
	}
	out := make([]Found, len(order))
	for place, r := range order {
		f := given[r.Passage]
		f.Signals.RerankRank, f.Signals.RerankScore, f.Score = place+1, r.Score, r.Score
		out[place] = f
	}
	return out
}

// checkOrder tells whether an order has every passage once.
func checkOrder(order []Ranked, passages int) error {
	if len(order) != passages {
		return fmt.Errorf("%d of %d passages were put into an order", len(order), passages)
	}
	seen := make([]bool, passages)
	for _, r := range order {
		if r.Passage < 0 || r.Passage >= passages || seen[r.Passage] {
			return fmt.Errorf("passage %d is in the order twice, or does not exist", r.Passage)
		}
		seen[r.Passage] = true
	}
	return nil
}

// choose keeps what the query allows, and counts the rest.
func choose(found []Found, q Query, left *Left, x *Explanation) []Found {
	var kept []Found
	of := make(map[int64]int)
	for _, f := range found {
		switch {
		case f.Signals.Relevance() < q.Threshold:
			left.Threshold++
			x.removed(f, RemovedThreshold)
		case q.PerDocument > 0 && of[f.DocumentID] >= q.PerDocument:
			left.Document++
			x.removed(f, RemovedDocument)
		case len(kept) >= q.Limit:
			left.Limit++
			x.removed(f, RemovedLimit)
		default:
			of[f.DocumentID]++
			kept = append(kept, f)
		}
	}
	return kept
}

// withNeighbours puts the chunks around passages to them. A chunk that stands
// around two, or is one itself, is put to the better one only.
func (s *Searcher) withNeighbours(ctx context.Context, found []Found, reach int) ([]Passage, error) {
	passages := make([]Passage, len(found))
	for i, f := range found {
		passages[i] = f.Passage
	}
	if reach <= 0 || len(found) == 0 {
		return passages, nil
	}
	places, taken := make([]Place, len(found)), make(map[Place]bool)
	for i, f := range found {
		places[i] = Place{f.DocumentID, int(f.DocumentVersion), f.Ordinal}
		taken[places[i]] = true
	}
	around, err := s.Store.Around(ctx, places, reach)
	if err != nil {
		return nil, err
	}
	for i, at := range places {
		for _, step := range []int{-1, 1} {
			for distance := 1; distance <= reach; distance++ {
				place := at
				place.Ordinal += step * distance
				c, ok := around[place]
				if !ok || taken[place] {
					break
				}
				taken[place] = true
				if step < 0 {
					passages[i].Text = joined(c.Text, passages[i].Text)
				} else {
					passages[i].Text = joined(passages[i].Text, c.Text)
				}
			}
		}
	}
	return passages, nil
}

// joined puts the text of a chunk behind that of the chunk before it, whose last
// sentences it may begin with.
func joined(before, after string) string {
	repeated := overlap(before, after)
	if repeated == len(after) {
		return before
	}
	if repeated > 0 {
		return before + after[repeated:] // what stood between them there stands in it
	}
	return before + "\n\n" + after
}

// overlap answers how many bytes of the end of a text another one begins with, in whole
// words.
func overlap(before, after string) int {
	edge := func(text string, at int) bool {
		return at < 0 || at >= len(text) || text[at] == ' ' || text[at] == '\n'
	}
	for n := min(len(before), len(after)); n > 0; n-- {
		if edge(after, n) && edge(before, len(before)-n-1) && strings.HasSuffix(before, after[:n]) {
			return n
		}
	}
	return 0
}
