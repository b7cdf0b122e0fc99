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
}

// get answers a vector; nobody may change it.
func (c *vectorCache) get(key vectorKey) ([]float32, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(cachedVector).vector, true //nolint:errcheck,forcetypeassert // put stores nothing else
}

// put keeps a vector, in place of those that were not used for longest.
func (c *vectorCache) put(key vectorKey, vector []float32) {
	most := cmp.Or(c.most, cachedNumbers)
	if len(vector) > most {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.entries[key]; known {
		return
	}
	if c.entries == nil {
		c.entries = make(map[vectorKey]*list.Element)
	}
	c.entries[key] = c.order.PushFront(cachedVector{key, slices.Clone(vector)})
	c.numbers += len(vector)
	for c.numbers > most {
		last := c.order.Back()
		old := c.order.Remove(last).(cachedVector) //nolint:errcheck,forcetypeassert // put stores nothing else
		delete(c.entries, old.key)
		c.numbers -= len(old.vector)
	}
}
