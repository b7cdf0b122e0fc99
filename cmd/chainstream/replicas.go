package main

import (
	"context"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/replica"
	"github.com/chainstream/chainstream/replica/nats"
)

// transport answers what carries hints between the servers of the database.
func (s *server) transport(ctx context.Context) (replica.Transport, error) {
	if s.flags.NATSURL == "" {
		return postgres.NewHints(postgres.HintsConfig{URL: s.database.url, ListenURL: s.database.direct, Logger: s.logger})
	}
	identity, err := s.store.Identity(ctx)
	if err != nil {
		return nil, databaseError(err, s.database.where)
	}
	return nats.Connect(nats.Config{URL: s.flags.NATSURL, Subject: "chainstream.hints." + identity, Logger: s.logger})
}

// receiver gives the hints of other servers to those who act on them.
type receiver struct {
	broker   *events.Broker
	executor *executor.Executor
}

// Receive implements replica.Receiver.
func (r receiver) Receive(h replica.Hint) {
	if h.All {
		r.broker.HintAll()
		r.executor.HintQueued()
		r.executor.HintCancelled()
		return
	}
	if len(h.Grown) > 0 {
		r.broker.Hint(h.Grown...)
	}
	if h.Queue {
		r.executor.HintQueued()
	}
	if len(h.Cancel) > 0 {
		r.executor.HintCancelled(h.Cancel...)
	}
}
