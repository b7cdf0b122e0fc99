package executor

import (
	"sync"

	"github.com/google/uuid"
)

// flights lets prompts of this process that ask the same get one answer: one of
// them talks to the cache, or makes the call, and the others wait for it here.
// The zero value is ready.
type flights struct {
	mu    sync.Mutex
	byKey map[CacheKey]*flight
	hits  map[CacheKey]int64 // since counted was called
}

// flight is the getting of one answer. The mutex of flights guards its fields.
type flight struct {
	users   int
	busy    bool          // somebody has the turn
	holder  uuid.UUID     // of the lease, while the call is made here
	failed  int           // calls that came to nothing, here and elsewhere
	answers int           // answers that came
	answer  *CachedAnswer // the newest
	changed chan struct{} // closed when something of the above changes
}

// seat is the place of a prompt in a flight.
type seat struct {
	flights         *flights
	flight          *flight
	key             CacheKey
	turn            bool
	failed, answers int // of the flight when the seat was taken
}

// join takes a seat in the flight of a key.
func (l *flights) join(key CacheKey) *seat {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.byKey[key]
	if f == nil {
		if l.byKey == nil {
			l.byKey = make(map[CacheKey]*flight)
		}
		f = &flight{changed: make(chan struct{})}
		l.byKey[key] = f
	}
	f.users++
	return &seat{flights: l, flight: f, key: key, failed: f.failed, answers: f.answers}
}

// next says what the seat's owner does: take the answer, wait for a change, go
// alone because too many calls of others came to nothing, or, when it is none of
// these, use the turn that it has now.
func (s *seat) next() (answer *CachedAnswer, changed <-chan struct{}, alone bool) {
	s.flights.mu.Lock()
	defer s.flights.mu.Unlock()
	f := s.flight
	switch {
	case f.answers > s.answers:
		return f.answer, nil, false
	case f.failed-s.failed >= maxHolders:
		return nil, nil, true
	case f.busy:
		return nil, f.changed, false
	}
	f.busy, s.turn = true, true
	return nil, nil, false
}

// lead says that the seat's owner makes the call, under this lease.
func (s *seat) lead(holder uuid.UUID) {
	s.flights.mu.Lock()
	defer s.flights.mu.Unlock()
	s.flight.holder = holder
}

// gaveUp says that a call in another process came to nothing, and answers
// whether that was one too many.
func (s *seat) gaveUp() (alone bool) {
	s.flights.mu.Lock()
	defer s.flights.mu.Unlock()
	s.flight.failed++
	s.flight.change()
	return s.flight.failed-s.failed >= maxHolders
}

// leave gives the seat up, and the turn if it had it: with the answer for the
// others, or with the news that the call came to nothing.
func (s *seat) leave(answer *CachedAnswer, failed bool) {
	s.flights.mu.Lock()
	defer s.flights.mu.Unlock()
	f := s.flight
	if f.users--; f.users == 0 {
		delete(s.flights.byKey, s.key)
	}
	if !s.turn {
		return
	}
	f.busy, f.holder = false, uuid.Nil
	if answer != nil {
		f.answers++
		f.answer = answer
	}
	if failed {
		f.failed++
	}
	f.change()
}

// change wakes those who wait. The caller holds the mutex.
func (f *flight) change() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// held answers the leases of calls that are made here.
func (l *flights) held() map[CacheKey]uuid.UUID {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(map[CacheKey]uuid.UUID)
	for key, f := range l.byKey {
		if f.holder != uuid.Nil {
			held[key] = f.holder
		}
	}
	return held
}

// count notes that an answer was used.
func (l *flights) count(key CacheKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hits == nil {
		l.hits = make(map[CacheKey]int64)
	}
	l.hits[key]++
}

// counted answers how often answers were used since it was called last.
func (l *flights) counted() map[CacheKey]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	hits := l.hits
	l.hits = nil
	return hits
}
