package executor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/chainstream/chainstream/chain"
)

// admission refuses triggers while too many executions wait. The queue is
// counted at most every countEvery; in between, what was admitted is added. A
// count that failed fails those who waited for it too: one after the other, they
// would each wait for a database that does not answer.
type admission struct {
	queue Queue
	limit int
	now   func() time.Time
	turn  chan struct{} // held by whoever uses the fields below

	counted  time.Time
	estimate int
	err      error // of the last count
}

const countEvery = 250 * time.Millisecond

func (a *admission) admit(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-a.turn }()
	if a.now().Sub(a.counted) >= countEvery {
		n, err := a.queue.CountQueued(ctx, a.limit)
		if ctx.Err() != nil {
			return context.Cause(ctx) // says nothing about the database
		}
		a.counted, a.estimate, a.err = a.now(), n, err
	}
	if a.err != nil {
		return a.err
	}
	if a.estimate >= a.limit {
		return fmt.Errorf("%w: the limit is %d", ErrQueueFull, a.limit)
	}
	a.estimate++
	return nil
}

// definitions keeps chain versions, which never change, so that an execution
// does not read its chain again.
type definitions struct {
	mu   sync.Mutex
	kept map[definitionKey]*chain.Version
}

type definitionKey struct {
	chain   int64
	version int
}

// maxDefinitions bounds the memory; past it all are forgotten and read again.
const maxDefinitions = 500

func (d *definitions) keep(v *chain.Version) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept == nil || len(d.kept) >= maxDefinitions {
		d.kept = make(map[definitionKey]*chain.Version)
	}
	d.kept[definitionKey{v.ChainID, v.Version}] = v
}

func (d *definitions) load(ctx context.Context, h History, id int64, version int) (*chain.Version, error) {
	d.mu.Lock()
	v := d.kept[definitionKey{id, version}]
	d.mu.Unlock()
	if v != nil {
		return v, nil
	}
	v, err := h.PinnedVersion(ctx, id, version)
	if err != nil {
		return nil, err
	}
	d.keep(v)
	return v, nil
}
