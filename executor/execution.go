// Package executor runs executions: it claims them from the queue under a
// lease, calls the models of their chain position by position, and writes every
// step to the event log. The log is also what it starts from again when an
// execution changes hands: finished prompts are reused, unfinished ones get a
// new attempt.
//
// There is one Executor per process and it is the only way to run a chain,
// whoever asks: HTTP, the command line or a schedule.
package executor

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
)

// Status is where an execution stands.
type Status string

// The states of an execution; the last three are final.
const (
	StatusQueued    Status = "queued"
	StatusRunning   Status = "running"
	StatusWaiting   Status = "waiting" // for a time, without a worker
	StatusCompleted Status = "completed"
	StatusFailed    Status = "failed"
	StatusCancelled Status = "cancelled"
)

// Statuses answers every state.
func Statuses() []Status {
	return []Status{StatusQueued, StatusRunning, StatusWaiting, StatusCompleted, StatusFailed, StatusCancelled}
}

// Final tells whether the state is never left again.
func (s Status) Final() bool {
	return s == StatusCompleted || s == StatusFailed || s == StatusCancelled
}

// Execution is one run of a chain.
type Execution struct {
	ID           int64
	ChainID      int64
	ChainVersion int
	ChainName    string
	Status       Status
	Inputs       json.RawMessage // object: checked, defaults applied
	Metadata     json.RawMessage // as the caller gave it; nil when there is none
	Limits       chain.Limits    // of the chain, narrowed by the trigger
	Priority     int             // higher first
	CacheMode    CacheMode
	TotalPrompts int
	LastSeq      int64
	Error        string // safe for users
	ErrorCode    string
	ErrorPrompt  int64 // id of the prompt that failed; 0 when none
	InputTokens  int64 // summed over the prompts when the execution has ended
	OutputTokens int64
	CostUSD      *string // decimal, exact; nil while unknown
	CreatedAt    time.Time
	StartedAt    *time.Time
	FinishedAt   *time.Time
	WakeAt       *time.Time // until when it waits; nil when it does not
	FoldedAt     *time.Time // when the text deltas of the log were folded away; nil when they are there

	Lineage // zero unless it is a retry or a fork

	CancelRequested bool
	Epoch           int64 // of the lease
	Claims          int   // since the last finished prompt
}

// At answers the execution as it stood after the events of a fold from the
// beginning of its log. What never changes, such as its inputs, is as it is.
func (ex Execution) At(past *events.Fold) Execution {
	if past.LastSeq() < ex.LastSeq {
		ex.CancelRequested = false // a wish is in no event
	}
	o := past.Outcome()
	ex.WakeAt = nil // nor is a time to wait for
	ex.LastSeq, ex.FinishedAt = past.LastSeq(), o.FinishedAt
	ex.Error, ex.ErrorCode, ex.ErrorPrompt = o.Error, o.ErrorCode, o.ErrorPromptID
	ex.InputTokens, ex.OutputTokens, ex.CostUSD = 0, 0, nil
	switch {
	case past.Terminal() != "":
		ex.Status, ex.InputTokens, ex.OutputTokens = Status(o.Status), *o.InputTokens, *o.OutputTokens
		ex.CostUSD = o.CostUSD
	case past.LastSeq() > 0:
		ex.Status = StatusRunning
	default:
		ex.Status, ex.StartedAt = StatusQueued, nil
	}
	return ex
}

// Trigger is the wish to run a chain.
type Trigger struct {
	Version  *chain.Version
	Inputs   map[string]any  // checked by chain.Chain.CheckInputs
	Metadata json.RawMessage // object or nil
	Limits   chain.Limits    // narrow the chain's; zero fields leave them as they are
	Priority int             // in the queue, from MinPriority to MaxPriority; higher first
	Cache    CacheMode       // "" = as the prompts say
	Key      IdempotencyKey  // zero = every trigger makes an execution
	Call     json.RawMessage // what a direct call asks, see Direct; nil = a chain is run
	Lineage                  // zero = nothing is taken over; see Executor.Derive
}

// The bounds of priorities. A waiting execution rises by one for every minute,
// until it is among the highest that wait.
const (
	MinPriority = -10
	MaxPriority = 10
)

// IdempotencyKey names a trigger so that sending it again has no effect.
type IdempotencyKey struct {
	Key  string
	Hash [32]byte // of the request; the same key with another hash is ErrKeyReused
}

// KeyTTL is how long an idempotency key is kept.
const KeyTTL = 72 * time.Hour

// Errors about executions.
var (
	// ErrNotFound says that there is no such execution.
	ErrNotFound = errors.New("no such execution")
	// ErrFinished says that the execution has ended and cannot be changed any more.
	ErrFinished = errors.New("the execution has ended")
	// ErrRunning says that the execution must end first.
	ErrRunning = errors.New("the execution is still running")
	// ErrCompleted says that an execution has completed and there is nothing to retry.
	ErrCompleted = errors.New("the execution has completed")
	// ErrResultsGone says that the results of an execution's prompts were removed.
	ErrResultsGone = errors.New("the results of the prompts have been removed")
	// ErrKeyReused says that an idempotency key came with another request before.
	ErrKeyReused = errors.New("the idempotency key was used for another request")
	// ErrQueueFull says that too many executions wait; trying later may help.
	ErrQueueFull = errors.New("too many executions are waiting")
	// ErrNoBudget says that there is no such budget.
	ErrNoBudget = errors.New("no such budget")
	// ErrStopping says that the executor is shutting down.
	ErrStopping = errors.New("the server is shutting down")
)

// Filter selects executions of a list, newest first. Zero fields select all.
type Filter struct {
	ChainID   int64
	ChainName string
	Status    Status
	From, To  time.Time // of CreatedAt, To exclusive
	Parent    int64     // only retries and forks of this execution
	Before    int64     // only ids below; the cursor of the next page
	Limit     int       // at most so many
}
