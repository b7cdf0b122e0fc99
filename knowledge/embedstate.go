package knowledge

import (
	"sync"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// EmbeddingState is what a process has learned of an embedding model: whether its
// calls are stopped for a while, how many retries it is given, and which limits it
// has. It is safe for concurrent use, and nil is one that learns nothing.
type EmbeddingState struct {
	breaker *llm.Breaker
	budget  *llm.RetryBudget

	mu       sync.Mutex
	most     int                         // texts of one call that went through when more were refused; 0 = unknown
	timely   int                         // texts of one call that are answered in time; 0 = no call was late
	omit     bool                        // the length of vectors is not to be told
	accepted bool                        // the length of vectors was told and taken
	flights  map[vectorKey]chan struct{} // texts of documents that are being embedded; closed when that has ended
	recent   vectorCache                 // of documents; what is stored is found in the database
}

// NewEmbeddingState returns a state with a breaker and a budget of retries like
// those of a model for prompts.
func NewEmbeddingState(breaker *llm.Breaker, budget *llm.RetryBudget) *EmbeddingState {
	return &EmbeddingState{
		breaker: breaker, budget: budget, flights: make(map[vectorKey]chan struct{}), recent: vectorCache{most: recentNumbers},
	}
}

// recentNumbers bounds the vectors that are kept until they are surely stored: 4 MB
// for each model.
const recentNumbers = 1 << 20

// claim takes what is known of the texts that have no vector yet, and answers those
// that the caller has to embed. When there are none, others is closed as soon as one
// of those is through that somebody else embeds; nil = nothing is left.
func (s *EmbeddingState) claim(b *batches) (mine []int, others <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, text := range b.whole {
		if b.vectors[i] != nil {
			continue
		}
		key := documentKey(b.o.Dimensions, text)
		if known, ok := s.recent.lookup(key); ok {
			b.vectors[i], b.cut[i] = known.vector, known.cut
			continue
		}
		if flight := s.flights[key]; flight != nil {
			others = flight
			continue
		}
		s.flights[key] = make(chan struct{})
		mine = append(mine, i)
	}
	return mine, others
}

// settle tells those who wait that texts are embedded, or that it has failed.
func (s *EmbeddingState) settle(b *batches, mine []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range mine {
		key := documentKey(b.o.Dimensions, b.whole[i])
		if b.vectors[i] != nil {
			s.recent.keep(cachedVector{key: key, vector: b.vectors[i], cut: b.cut[i]})
		}
		close(s.flights[key])
		delete(s.flights, key)
	}
}

// documentKey names a text of a document; the model is that of the state.
func documentKey(dimensions int, text string) vectorKey {
	return vectorKeyOf(Space{Dimensions: dimensions}, text)
}

// Circuit answers how the breaker stands.
func (s *EmbeddingState) Circuit() llm.BreakerState { return s.breaker.State() }

// enter asks for leave to make a call.
func (s *EmbeddingState) enter(first bool) (done func(error), refused error) {
	if s == nil {
		return func(error) {}, nil
	}
	done, open := s.breaker.Allow()
	if open != nil {
		return nil, open
	}
	if first {
		s.budget.Earn()
	}
	return done, nil
}

// takeRetry takes a retry from the budget.
func (s *EmbeddingState) takeRetry() bool { return s == nil || s.budget.Take() }

// batch answers how many texts a call may have, of which known is what the model is
// said to take.
func (s *EmbeddingState) batch(known int) int {
	if s == nil {
		return known
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, most := range []int{s.most, s.timely} {
		if most > 0 {
			known = min(known, most)
		}
	}
	return known
}

// quick is how soon a call is answered that may have twice as many texts.
const quick = 5 * time.Second

// paced notes how long a call took, or that time was up before it was answered.
func (s *EmbeddingState) paced(texts int, took time.Duration, late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case late:
		s.timely = max(texts/2, 1)
	case s.timely > 0 && texts >= s.timely && took < quick:
		s.timely *= 2
	}
}

// limit notes how many texts of one call went through when more were refused.
func (s *EmbeddingState) limit(texts int) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most == 0 || texts < s.most {
		s.most = texts
	}
}

// untold tells that the length of vectors is not to be told.
func (s *EmbeddingState) untold() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.omit
}

// takes tells that the length of vectors was told before, and was taken.
func (s *EmbeddingState) takes() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// learn notes what became of telling the length of vectors.
func (s *EmbeddingState) learn(omit, accepted bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.omit, s.accepted = s.omit || omit, s.accepted || accepted
}
