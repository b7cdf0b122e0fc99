package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/chainstream/chainstream/postgres"
)

// retentionFlags say how long the event log is kept.
type retentionFlags struct {
	Retention       time.Duration `help:"Age of finished executions at which their events are removed, such as 720h; 0s keeps them for ever. Results, totals and costs stay." default:"0s" placeholder:"AGE" environ:"CHAINSTREAM_RETENTION"`
	FoldDeltasAfter time.Duration `help:"Age of finished executions at which their text deltas are folded away, such as 24h; 0s keeps them. The text stays in the results." default:"0s" placeholder:"AGE" environ:"CHAINSTREAM_FOLD_DELTAS_AFTER"`
}

// shortestRetention is far longer than a trigger takes to be stored.
const shortestRetention = time.Hour

func (f retentionFlags) validate() error {
	switch {
	case f.Retention != 0 && f.Retention < shortestRetention:
		return errors.New("--retention must be at least 1h, or 0s to keep events for ever")
	case f.FoldDeltasAfter < 0:
		return errors.New("--fold-deltas-after must not be negative")
	}
	return nil
}

func (f retentionFlags) policy() postgres.RetentionPolicy {
	return postgres.RetentionPolicy{Keep: f.Retention, Fold: f.FoldDeltasAfter}
}

// Upkeep of the database.
const (
	partitionsAhead = 10_000 // executions whose part of the log is made beforehand, at least
	upkeepEvery     = time.Minute
	keysEvery       = time.Hour
)

// upkeep makes partitions of the log ahead of time, removes and folds what the
// policy says, and forgets expired answers, old idempotency keys and documents that are
// gone for long. Every server does so; those that find another one at it do nothing. What fails is tried again at the next
// turn, and told once.
func (s *server) upkeep(ctx context.Context) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	keys := time.NewTicker(keysEvery)
	defer keys.Stop()
	told := complaints{logger: s.logger, last: make(map[string]string)}
	for {
		select {
		case <-tick.C:
			_, err := s.store.EnsurePartitions(ctx, partitionsAhead)
			told.note(ctx, "partitions", err)
			s.trim(ctx, told)
			_, err = s.store.ExpireCache(ctx)
			told.note(ctx, "response cache", err)
		case <-keys.C:
			_, err := s.store.ExpireKeys(ctx)
			told.note(ctx, "idempotency keys", err)
			_, err = s.store.ExpireDeletions(ctx)
			told.note(ctx, "deleted documents", err)
		case <-ctx.Done():
			return
		}
	}
}

// indexes makes the indexes over vectors that searches need. Large ones take
// minutes, so that nothing else of the upkeep waits for them.
func (s *server) indexes(ctx context.Context) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	told := complaints{logger: s.logger, last: make(map[string]string)}
	for {
		select {
		case <-tick.C:
			n, err := s.store.IndexSpaces(ctx, s.database.direct)
			if n > 0 {
				s.logger.InfoContext(ctx, "vectors indexed", "repositories", n)
			}
			told.note(ctx, "indexes of vectors", err)
		case <-ctx.Done():
			return
		}
	}
}

// trim applies the policy until nothing is due, or something fails.
func (s *server) trim(ctx context.Context, told complaints) {
	for ctx.Err() == nil {
		done, err := s.store.Trim(ctx, s.database.direct, s.flags.policy())
		if done != (postgres.Trimmed{}) {
			s.logger.InfoContext(ctx, "old events removed", "partitions", done.Partitions, "folded_executions", done.Executions, "folded_events", done.Events)
		}
		told.note(ctx, "retention", err)
		if err != nil || done == (postgres.Trimmed{}) {
			return
		}
	}
}

// complaints tells of the failure of a task once, and of its end.
type complaints struct {
	logger *slog.Logger
	last   map[string]string // by task
}

func (c complaints) note(ctx context.Context, task string, err error) {
	if ctx.Err() != nil {
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch before := c.last[task]; {
	case before == "" && text != "":
		c.logger.WarnContext(ctx, "upkeep of the database failed, trying again until it succeeds", "task", task, "error", err)
	case before != "" && text == "":
		c.logger.InfoContext(ctx, "upkeep of the database works again", "task", task)
	}
	c.last[task] = text
}
