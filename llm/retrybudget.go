package llm

import (
	"sync"
	"time"
)

// Defaults of RetryBudget.
const (
	retryShare   = 0.1              // of a retry that a first try earns
	retryReserve = 10               // retries that are there from the start
	retryMost    = 100              // retries that can be saved up
	retryRefill  = 10 * time.Second // after which one comes back while fewer than the reserve are there
)

// RetryBudget keeps retries from multiplying the load of a provider that is in
// trouble: every first try of a call earns a tenth of a retry, and a retry that
// is not earned is not made. Ten are there from the start, and come back one by
// one every ten seconds, so that a server with few calls can retry as well. At
// most a hundred are saved up. It is safe for concurrent use.
type RetryBudget struct {
	now func() time.Time

	mu       sync.Mutex
	retries  float64
	refilled time.Time
}

// NewRetryBudget returns a budget with the reserve in it. now may be nil.
func NewRetryBudget(now func() time.Time) *RetryBudget {
	if now == nil {
		now = time.Now
	}
	return &RetryBudget{now: now, retries: retryReserve, refilled: now()}
}

// Earn books a first try.
func (b *RetryBudget) Earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.retries = min(b.retries+retryShare, retryMost)
}

// Take takes one retry and tells whether there was one.
func (b *RetryBudget) Take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if n := int64(now.Sub(b.refilled) / retryRefill); n > 0 {
		b.refilled = b.refilled.Add(time.Duration(n) * retryRefill)
		if b.retries < retryReserve {
			b.retries = min(b.retries+float64(n), retryReserve)
		}
	}
	const dust = 1e-9 // ten tenths are one
	if b.retries < 1-dust {
		return false
	}
	b.retries = max(b.retries-1, 0)
	return true
}
