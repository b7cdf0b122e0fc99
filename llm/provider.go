// Package llm is the contract between Chainstream and language models: what a
// request is, how an answer streams, which errors exist and which of them are
// worth another try. It knows no vendor and imports nothing of Chainstream;
// llm/openai and llm/offline implement it, llm/llmtest fakes the far side.
//
// The rules every provider keeps, and the executor relies on:
//
//   - Success needs the provider's own end marker. An answer that stops
//     without one is CodeTruncatedStream, however cleanly the body ended.
//   - Cancelling the context, or leaving the range loop, closes the connection
//     at once.
//   - Every failure is an *Error with a stable Code, a Message that may be shown
//     to users and a Detail without secrets.
//   - Text is valid UTF-8 without NUL. What the model sent otherwise is replaced
//     by U+FFFD and the chunk says so.
//   - Usage is reported with every success: the provider's figures, or an
//     estimate that is marked as one. It is never silently zero.
package llm

import (
	"context"
	"encoding/json"
	"iter"
)

// Provider streams answers of language models. Implementations are safe for
// concurrent use.
type Provider interface {
	// Stream sends the request and yields the answer as it arrives. Nothing is
	// sent before the sequence is ranged over, and each range is one call to
	// the model.
	//
	// A pair holds either a chunk or an error. There is at most one error, it is
	// an *Error, and it ends the sequence. A sequence that ends without an error
	// is a complete answer: the end marker was seen, exactly one chunk carried a
	// FinishReason, and one chunk at or after it carried the Usage. An answer
	// without any text is a success too.
	//
	// When ctx ends first, the error has CodeCancelled (or CodeTimeoutTotal when
	// it was a deadline of ctx) and matches ctx.Err() and context.Cause(ctx).
	Stream(ctx context.Context, req Request) iter.Seq2[Chunk, error]
}

// Role says who speaks in a message.
type Role string

// The roles of a conversation.
const (
	RoleSystem    Role = "system"
	RoleUser      Role = "user"
	RoleAssistant Role = "assistant"
)

// Message is one turn of a conversation.
type Message struct {
	Role Role
	Text string
}

// Request is one call of a model.
type Request struct {
	// Model is the name the provider knows, without our provider prefix:
	// "gpt-4.1-mini", not "openai/gpt-4.1-mini".
	Model string
	// Messages is the conversation in order: the system message first if there
	// is one, the history, and the user message to answer last.
	Messages []Message
	// Temperature and TopP are passed on when set; nil is the model's default
	// and a pointer to zero is zero.
	Temperature, TopP *float64
	// MaxTokens limits the answer, reasoning included. 0 is the model's default.
	MaxTokens int
	// Stop holds texts at which the answer ends; they are not part of it.
	Stop []string
	// Seed asks for repeatable sampling where the provider has it.
	Seed *int64
	// Schema is a JSON Schema the answer has to follow; nil asks for plain text.
	Schema json.RawMessage
}

// Chunk is a piece of an answer. Its fields are independent: the last text may
// come together with the finish reason and the usage. A chunk with nothing in it
// is a sign of life of the provider, which deadlines count and readers ignore.
type Chunk struct {
	// Text is the next part of the visible answer.
	Text string
	// Reasoning is the next part of the model's thinking, where it shows it.
	Reasoning string
	// FinishReason is set once: FinishStop, FinishLength, FinishContentFilter or
	// another word of the provider.
	FinishReason string
	// Usage is set once, at or after the finish reason.
	Usage *Usage
	// Repaired reports that NUL or broken UTF-8 in this piece was replaced by
	// U+FFFD.
	Repaired bool
}

// Finish reasons with a fixed meaning.
const (
	FinishStop          = "stop"           // the model was done, or a stop text was reached
	FinishLength        = "length"         // MaxTokens or the context window was reached
	FinishContentFilter = "content_filter" // the provider held text back
	FinishUnknown       = "unknown"        // the end marker came without a reason
)

// Usage is what a call consumed, in tokens.
type Usage struct {
	// InputTokens counts the whole prompt, CachedTokens included.
	InputTokens int64
	// OutputTokens counts the whole answer, ReasoningTokens included.
	OutputTokens int64
	// CachedTokens is the part of the prompt the provider had in its cache.
	CachedTokens int64
	// ReasoningTokens is the part of the answer that was thinking.
	ReasoningTokens int64
	// Estimated reports that the provider gave no figures and these are counted
	// by EstimateTokens.
	Estimated bool
}
