package knowledge

import (
	"cmp"
	"container/list"
	"crypto/sha256"
	"slices"
	"sync"
)

// cachedNumbers bounds the memory of a vectorCache: 16 MB, which are 2700 vectors of
// 1536 numbers.
const cachedNumbers = 4 << 20

// vectorKey names the vector of a text by a model.
type vectorKey struct {
	model      string
	dimensions int
	text       [sha256.Size]byte
}

func vectorKeyOf(space Space, text string) vectorKey {
	return vectorKey{space.Model, space.Dimensions, sha256.Sum256([]byte(text))}
}

// vectorCache keeps the vectors that were used last. The zero value is empty. It is
// safe for concurrent use.
type vectorCache struct {
	mu      sync.Mutex
	entries map[vectorKey]*list.Element
	order   list.List // of cachedVector, the last used first
	numbers int
	most    int // numbers of all vectors together; 0 = cachedNumbers
}

type cachedVector struct {
	key    vectorKey
	vector []float32
	cut    bool // it stands for the beginning of its text alone
}

// get answers a vector; nobody may change it.
func (c *vectorCache) get(key vectorKey) ([]float32, bool) {
	known, ok := c.lookup(key)
	return known.vector, ok
}

// lookup is get, and answers what is known of the vector.
func (c *vectorCache) lookup(key vectorKey) (cachedVector, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return cachedVector{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(cachedVector), true //nolint:errcheck,forcetypeassert // put stores nothing else
}

// put keeps a vector, in place of those that were not used for longest.
func (c *vectorCache) put(key vectorKey, vector []float32) {
	c.keep(cachedVector{key: key, vector: vector})
}

// keep is put, with what is known of the vector.
func (c *vectorCache) keep(v cachedVector) {
	most := cmp.Or(c.most, cachedNumbers)
	if len(v.vector) > most {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.entries[v.key]; known {
		return
	}
	if c.entries == nil {
		c.entries = make(map[vectorKey]*list.Element)
	}
	v.vector = slices.Clone(v.vector)
	c.entries[v.key] = c.order.PushFront(v)
	c.numbers += len(v.vector)
	for c.numbers > most {
		last := c.order.Back()
		old := c.order.Remove(last).(cachedVector) //nolint:errcheck,forcetypeassert // put stores nothing else
		delete(c.entries, old.key)
		c.numbers -= len(old.vector)
	}
}
