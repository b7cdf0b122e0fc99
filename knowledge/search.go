package knowledge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"

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
	Vectors      [][]float32 // of the query, one for each repository; nil = could not be made
	Mode, Text   string
	Candidates   int             // of each way of searching
	Filter       json.RawMessage // nil = none
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
	// Missing answers which of the repositories do not exist.
	Missing(ctx context.Context, repositories []int64) ([]int64, error)
	// SearchChunks answers what was found, best first.
	SearchChunks(ctx context.Context, s Search) ([]Found, error)
	// Around answers the chunks that stand up to reach places from others.
	Around(ctx context.Context, places []Place, reach int) (map[Place]Chunk, error)
}

// Reranker puts passages into a better order, for example by asking a model. It
// answers the numbers of the passages, best first, and may leave some out.
type Reranker interface {
	Rerank(ctx context.Context, query string, passages []Passage) ([]int, error)
}

// Searcher finds passages in repositories.
type Searcher struct {
	Store      SearchStore
	Embeddings Embeddings
	Reranker   Reranker // nil = the order of the search
	Retry      llm.RetryPolicy
	Logger     *slog.Logger
}

// Missing answers which of the repositories do not exist.
func (s *Searcher) Missing(ctx context.Context, repositories []int64) ([]int64, error) {
	return s.Store.Missing(ctx, repositories)
}

// Bounds of a search.
const (
	leastCandidates = 50
	mostCandidates  = 400
)

// Retrieve answers the passages for a query, best first. Where one of the two
// searches of a hybrid one fails, the other answers alone and the result says so.
func (s *Searcher) Retrieve(ctx context.Context, q Query) (Result, error) {
	vectors, degraded, err := s.queryVectors(ctx, &q)
	if err != nil {
		return Result{}, err
	}
	found, err := s.Store.SearchChunks(ctx, Search{
		Repositories: q.Repositories, Vectors: vectors, Mode: q.Search, Text: q.Text, Filter: q.Filter,
		Candidates: min(max(leastCandidates, 4*q.Limit), mostCandidates),
	})
	if err != nil {
		return Result{}, err
	}
	result := Result{Degraded: degraded}
	if s.Reranker != nil {
		found = s.rerank(ctx, q, found, &result)
	}
	found = choose(found, q, &result.Left)
	if result.Passages, err = s.withNeighbours(ctx, found, q.Neighbours); err != nil {
		return Result{}, err
	}
	return result, nil
}

// queryVectors embeds the query for every repository, once for each model.
func (s *Searcher) queryVectors(ctx context.Context, q *Query) (vectors [][]float32, degraded string, err error) {
	vectors = make([][]float32, len(q.Repositories))
	if q.Search == SearchKeyword {
		return vectors, "", nil
	}
	type made struct {
		vector []float32
		err    error
	}
	models := make(map[Space]made)
	for i, id := range q.Repositories {
		r, err := s.Store.Repository(ctx, id)
		if err != nil {
			return nil, "", err
		}
		key := Space{Model: r.Space.Model, Dimensions: r.Space.Dimensions}
		m, ok := models[key]
		if !ok {
			m.vector, m.err = s.embedQuery(ctx, key, q.Text)
			models[key] = m
		}
		switch {
		case m.err == nil:
			vectors[i] = m.vector
		case ctx.Err() != nil:
			return nil, "", context.Cause(ctx)
		case q.Search == SearchVector:
			return nil, "", m.err
		default:
			s.Logger.WarnContext(ctx, "a query could not be embedded, words are searched alone", "model", key.Model, "error", m.err)
			degraded = "The query could not be embedded by " + key.Model + "; the search went by words alone."
			var e *llm.Error
			if errors.As(m.err, &e) {
				degraded += " " + e.Message
			}
		}
	}
	return vectors, degraded, nil
}

// maxWindows bounds how many parts of a long query are embedded.
const maxWindows = 4

// embedQuery answers the vector of a query. One that is longer than the model takes
// is cut into parts, and the mean of their vectors stands for it: of very long ones
// the first and the last parts, where a prompt says what it wants.
func (s *Searcher) embedQuery(ctx context.Context, space Space, text string) ([]float32, error) {
	e, err := s.Embeddings.Embedding(space.Model)
	if err != nil {
		return nil, fmt.Errorf("embed the query: %w", err)
	}
	parts := []string{text}
	if e.MaxTokens > 0 && e.Count(text) > int64(e.MaxTokens) {
		parts = windows(text, e)
	}
	vectors, err := Embed(ctx, e, parts, space.Dimensions, s.Retry)
	if err != nil {
		return nil, err
	}
	return mean(vectors), nil
}

// windows cuts a text at spaces into parts that the model takes.
func windows(text string, e Embedding) []string {
	words := strings.Fields(text)
	var parts []string
	for len(words) > 0 {
		n, low, high := 0, 1, min(len(words), e.MaxTokens)
		for low <= high {
			middle := (low + high) / 2
			if e.Count(strings.Join(words[:middle], " ")) <= int64(e.MaxTokens) {
				n, low = middle, middle+1
			} else {
				high = middle - 1
			}
		}
		n = max(n, 1) // a single word that is too long is cut by the model
		parts = append(parts, strings.Join(words[:n], " "))
		words = words[n:]
	}
	if len(parts) > maxWindows {
		parts = append(parts[:maxWindows/2:maxWindows/2], parts[len(parts)-maxWindows/2:]...)
	}
	return parts
}

// mean answers the middle of vectors, with the length 1.
func mean(vectors [][]float32) []float32 {
	if len(vectors) == 1 {
		return vectors[0]
	}
	out := make([]float32, len(vectors[0]))
	for _, v := range vectors {
		for i, x := range v {
			out[i] += x
		}
	}
	var square float64
	for _, x := range out {
		square += float64(x) * float64(x)
	}
	if square == 0 {
		return out
	}
	scale := float32(1 / math.Sqrt(square))
	for i := range out {
		out[i] *= scale
	}
	return out
}

// rerank lets the hook order what was found. A hook that fails changes nothing.
func (s *Searcher) rerank(ctx context.Context, q Query, found []Found, result *Result) []Found {
	passages := make([]Passage, len(found))
	for i, f := range found {
		passages[i] = f.Passage
	}
	order, err := s.Reranker.Rerank(ctx, q.Text, passages)
	if err != nil {
		s.Logger.WarnContext(ctx, "passages were not put into a better order", "error", err)
		result.Degraded = strings.TrimSpace(result.Degraded + " The passages could not be put into a better order.")
		return found
	}
	out, used := make([]Found, 0, len(order)), make(map[int]bool)
	for _, i := range order {
		if i >= 0 && i < len(found) && !used[i] {
			used[i] = true
			out = append(out, found[i])
		}
	}
	return out
}

// choose keeps what the query allows, and counts the rest.
func choose(found []Found, q Query, left *Left) []Found {
	var kept []Found
	of := make(map[int64]int)
	for _, f := range found {
		switch {
		case f.Signals.Relevance() < q.Threshold:
			left.Threshold++
		case q.PerDocument > 0 && of[f.DocumentID] >= q.PerDocument:
			left.Document++
		case len(kept) >= q.Limit:
			left.Limit++
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
		texts := []string{passages[i].Text}
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
					texts = append([]string{c.Text}, texts...)
				} else {
					texts = append(texts, c.Text)
				}
			}
		}
		passages[i].Text = strings.Join(texts, "\n\n")
	}
	return passages, nil
}
