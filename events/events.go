// Package events is the log of an execution: what may be written to it, how it
// is numbered, and how it is read while it grows.
//
// An execution is its log. A Writer, held by whoever holds the execution's
// lease, gives every event the next seq and hands it to the Log, which commits
// the appends of all executions of the process together. Only after the commit
// does the Broker see an event, so nothing is ever shown that is not stored. A
// Subscription is a cursor over that log: it reads from the broker's ring of
// recent frames, falls back to pages from the store, and then waits.
//
// The data of an event has one encoding: the text that PostgreSQL prints for
// the stored jsonb value. Live frames are encoded to exactly these bytes, so a
// replay, an export and a SELECT show what the live stream showed.
package events

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

// Type is the name of an event.
type Type string

// The event names, as they stand in the stream and in the table.
const (
	TypeExecutionStart          Type = "execution-start"
	TypePromptStart             Type = "prompt-start"
	TypeKnowledgeRetrievalStart Type = "knowledge-retrieval-start"
	TypeKnowledgeRetrieved      Type = "knowledge-retrieved"
	TypeVariableSubstitution    Type = "variable-substitution"
	TypePromptDelta             Type = "prompt-delta"
	TypeReasoningDelta          Type = "reasoning-delta"
	TypeToolExecutionStart      Type = "tool-execution-start"
	TypeToolExecutionComplete   Type = "tool-execution-complete"
	TypePromptRetry             Type = "prompt-retry"
	TypePromptComplete          Type = "prompt-complete"
	TypePromptError             Type = "prompt-error"
	TypeProgress                Type = "progress"
	TypeApprovalRequested       Type = "approval-requested"
	TypeApprovalResolved        Type = "approval-resolved"
	TypeLLMRequest              Type = "llm-request"
	TypeLLMResponse             Type = "llm-response"
	TypeLLMError                Type = "llm-error"
	TypeCacheHit                Type = "cache-hit"
	TypeCacheMiss               Type = "cache-miss"
	TypeExecutionComplete       Type = "execution-complete"
	TypeExecutionError          Type = "execution-error"
)

// Types answers every event name in the order in which a reader meets them.
func Types() []Type {
	return []Type{
		TypeExecutionStart, TypePromptStart, TypeKnowledgeRetrievalStart, TypeKnowledgeRetrieved,
		TypeVariableSubstitution, TypePromptDelta, TypeReasoningDelta, TypeToolExecutionStart,
		TypeToolExecutionComplete, TypePromptRetry, TypePromptComplete, TypePromptError, TypeProgress,
		TypeApprovalRequested, TypeApprovalResolved, TypeLLMRequest, TypeLLMResponse, TypeLLMError,
		TypeCacheHit, TypeCacheMiss, TypeExecutionComplete, TypeExecutionError,
	}
}

// Terminal tells whether the event ends its execution. Exactly one terminal
// event stands in a log, and it is the last.
func (t Type) Terminal() bool { return t == TypeExecutionComplete || t == TypeExecutionError }

// Delta tells whether the event carries a piece of text.
func (t Type) Delta() bool { return t == TypePromptDelta || t == TypeReasoningDelta }

// MainStream is the stream of everything that is not a parallel branch.
const MainStream = "main"

// Errors of the log.
var (
	// ErrFenced says that another writer owns the execution, or that it has
	// ended: nothing of the append was written, and nothing more can be.
	ErrFenced = errors.New("the lease of the execution was lost")
	// ErrClosed says that the log or the broker has been shut down.
	ErrClosed = errors.New("the event log is closed")
	// ErrNotFound says that there is no such execution.
	ErrNotFound = errors.New("no such execution")
	// ErrFutureCursor says that a cursor points past the newest event.
	ErrFutureCursor = errors.New("the cursor is ahead of the log")
	// ErrGone says that retention has removed events that the cursor asks for.
	ErrGone = errors.New("the events after the cursor have been removed")
	// ErrUnavailable says that the store cannot be reached at the moment.
	ErrUnavailable = errors.New("the event store is unavailable")
	// ErrNoSpace says that the store is full. It comes together with
	// ErrUnavailable: room may be made.
	ErrNoSpace = errors.New("the event store is full")
)

// Record is one stored event.
type Record struct {
	Seq    int64         // 1, 2, 3 … inside the execution
	ID     uuid.UUID     // UUIDv7
	Parent uuid.NullUUID // the event before it in the same stream
	Stream string        // MainStream or the name of a parallel branch
	Type   Type
	Data   []byte    // the event's data as jsonb text
	Epoch  int64     // lease epoch of the writer
	Time   time.Time // microseconds, strictly growing with Seq
}

// Head tells how far the log of an execution reaches.
type Head struct {
	LastSeq  int64
	Finished bool       // the terminal event is stored
	Removed  bool       // retention has removed the events, or is about to
	Folded   []SeqRange // text deltas that were folded away, in order
}

// SeqRange is a range of seqs, both ends included.
type SeqRange struct{ First, Last int64 }

// Missing tells whether every event of a range was folded away.
func (h Head) Missing(r SeqRange) bool {
	for _, f := range h.Folded {
		if f.First <= r.First && r.First <= f.Last {
			return r.Last <= f.Last
		}
	}
	return false
}
