package knowledge

import (
	"sync"

	"github.com/chainstream/chainstream/llm"
)

// EmbeddingState is what a process has learned of an embedding model: whether its
// calls are stopped for a while, how many retries it is given, and which limits it
// has. It is safe for concurrent use, and nil is one that learns nothing.
type EmbeddingState struct {
	breaker *llm.Breaker
	budget  *llm.RetryBudget

	mu       sync.Mutex
	most     int  // texts of one call that went through when more were refused; 0 = unknown
	omit     bool // the length of vectors is not to be told
	accepted bool // the length of vectors was told and taken
}

// NewEmbeddingState returns a state with a breaker and a budget of retries like
// those of a model for prompts.
func NewEmbeddingState(breaker *llm.Breaker, budget *llm.RetryBudget) *EmbeddingState {
	return &EmbeddingState{breaker: breaker, budget: budget}
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
	if s.most > 0 {
		return min(s.most, known)
	}
	return known
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
