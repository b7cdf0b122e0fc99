package main

import (
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/replica"
)

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
