package knowledge

import (
	"context"
	"errors"
	"time"
)

// Reasons why a passage that was found is not in the result.
const (
	RemovedFilter    = "filter"      // its document has other metadata
	RemovedThreshold = "threshold"   // it is not relevant enough
	RemovedDocument  = "perDocument" // enough passages of its document are better
	RemovedLimit     = "limit"       // enough passages are better
	RemovedRerank    = "rerank"      // it was too far behind to be looked at by the hook
	RemovedTokens    = "maxTokens"   // no room was left
)

// Term is a word that a search by words looks for.
type Term struct {
	Word   string
	Weight float64 // the rarer in the repository, the more
}

// Removed is a passage that was found and is not in the result.
type Removed struct {
	Passage
	Reason string
}

// IndexUse says how the vectors of a repository were searched.
type IndexUse struct {
	RepositoryID int64
	Exists       bool // there is an index over its vectors
	Used         bool // it answered; otherwise every vector was looked at
}

// Timings say how long the parts of a search took.
type Timings struct{ Embed, Search, Rerank, Neighbours, Explain time.Duration }

// Explanation tells why a search answered what it did.
type Explanation struct {
	Mode         string // how was searched
	Repositories []int64
	Result       Result
	Queries      []EmbeddedQuery  // for each model; none when vectors were not searched
	Terms        map[int64][]Term // of each repository, the weightiest first
	Matched      map[int64][]Term // of each passage by its chunk: the terms that are in it
	Indexes      []IndexUse
	Candidates   int // of each way of searching
	Removed      []Removed
	RerankErr    error
	Timings      Timings
}

// ExplainStore is a SearchStore that tells how it searched.
type ExplainStore interface {
	SearchStore
	// SearchExplained is SearchChunks, and tells how vectors were searched.
	SearchExplained(ctx context.Context, s Search) ([]Found, []IndexUse, error)
	// Terms answers what a search by words looks for in repositories, and which of it
	// is in chunks.
	Terms(ctx context.Context, repositories []int64, parts []string, chunks []int64) (terms, matched map[int64][]Term, err error)
}

// errNoExplanation says that a store cannot tell.
var errNoExplanation = errors.New("the store does not explain searches")

// Explain is Retrieve, and tells why.
func (s *Searcher) Explain(ctx context.Context, q Query) (*Explanation, error) {
	store, ok := s.Store.(ExplainStore)
	if !ok {
		return nil, errNoExplanation
	}
	for try := 1; ; try++ {
		x, err := s.explain(ctx, store, q)
		if !errors.Is(err, ErrSpaceChanged) || try == mostChanges {
			return x, err
		}
	}
}

func (s *Searcher) explain(ctx context.Context, store ExplainStore, q Query) (*Explanation, error) {
	x := &Explanation{Mode: q.Search, Repositories: q.Repositories}
	var err error
	if x.Result, err = s.retrieve(ctx, q, x); err != nil {
		return nil, err
	}
	begin := time.Now()
	if q.Filter != nil {
		if err := s.filtered(ctx, q, x); err != nil {
			return nil, err
		}
	}
	var chunks []int64
	for _, p := range x.Result.Passages {
		chunks = append(chunks, p.ChunkID)
	}
	for _, r := range x.Removed {
		chunks = append(chunks, r.ChunkID)
	}
	if q.Search != SearchVector {
		if x.Terms, x.Matched, err = store.Terms(ctx, q.Repositories, parts(q.Text), chunks); err != nil {
			return nil, err
		}
	}
	x.took(&x.Timings.Explain, begin)
	return x, nil
}

// filtered finds what the filter has kept away: what is found without it, and was
// not with it.
func (s *Searcher) filtered(ctx context.Context, q Query, x *Explanation) error {
	asked := parts(q.Text)
	vectors, _, err := s.queryVectors(ctx, q, asked, nil)
	if err != nil {
		return err
	}
	found, err := s.Store.SearchChunks(ctx, Search{
		Repositories: q.Repositories, Mode: q.Search, Parts: asked, Vectors: vectors, Candidates: x.Candidates,
	})
	if err != nil {
		return err
	}
	passed := make(map[int64]bool)
	for _, p := range x.Result.Passages {
		passed[p.ChunkID] = true
	}
	for _, r := range x.Removed {
		passed[r.ChunkID] = true
	}
	for _, f := range found {
		// What the filter lets through may be beyond the candidates without it, but not
		// the other way round: what comes before those is kept away.
		if !passed[f.ChunkID] {
			x.removed(f, RemovedFilter)
		}
	}
	return nil
}

// The methods that note something do nothing without an explanation.

func (x *Explanation) timings() *Timings {
	if x == nil {
		return &Timings{}
	}
	return &x.Timings
}

// took notes how long a part took and answers when the next begins.
func (x *Explanation) took(part *time.Duration, begin time.Time) time.Time {
	now := time.Now()
	if x != nil {
		*part += now.Sub(begin)
	}
	return now
}

func (x *Explanation) embedded(q EmbeddedQuery) {
	if x != nil {
		x.Queries = append(x.Queries, q)
	}
}

// again forgets what was noted of a search that begins anew.
func (x *Explanation) again() {
	if x != nil {
		x.Queries = nil
	}
}

func (x *Explanation) removed(f Found, reason string) {
	if x != nil {
		x.Removed = append(x.Removed, Removed{f.Passage, reason})
	}
}

func (x *Explanation) rerankFailed(err error) {
	if x != nil {
		x.RerankErr = err
	}
}
