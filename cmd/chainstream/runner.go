package main

import (
	"context"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/executor"
)

// runner is the executor as the HTTP API sees it.
type runner struct{ *executor.Executor }

// checkTimeout bounds the look-up of repositories.
const checkTimeout = 10 * time.Second

// Check implements httpapi.Runner.
func (r runner) Check(c *chain.Chain) error {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	return r.Executor.Check(ctx, c)
}
