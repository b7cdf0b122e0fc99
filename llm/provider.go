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
	RoleTool      Role = "tool" // the result of a tool call
)

// Message is one turn of a conversation.
type Message struct {
	Role Role
	Text string
	// Images are shown to the model before the text; of a user only.
	Images []Image
	// ToolCalls are what an assistant asked for.
	ToolCalls []ToolCall
	// ToolCallID names the call that a RoleTool message answers.
	ToolCallID string
}

// Image is a picture for a model that can see: at an address that the provider
// fetches, or its bytes.
type Image struct {
	URL      string // http or https; empty when the bytes are given
	MIMEType string // of the bytes, such as image/png
	Data     []byte
	Detail   string // low, high or auto, where a provider has it; empty is its default
}

// Tool is something that the model may ask to be called.
type Tool struct {
	Name        string
	Description string
	Parameters  json.RawMessage // JSON Schema of the arguments; nil = none
	Strict      bool            // arguments must follow the schema, where the provider can enforce it
}

// ToolCall is a model's wish to have a tool called.
type ToolCall struct {
	ID        string // of the provider, or made up where it gives none; unique in an answer
	Name      string
	Arguments string // as the model wrote them: meant to be a JSON object, and not checked
	Signature string // of the thinking that led to it, which some providers want back with it; may be empty
}

// MaxToolCalls is how many calls an answer may ask for; one with more is
// CodeResponseTooLarge.
const MaxToolCalls = 256

// The choices of tools that have a fixed meaning; any other names the one tool
// that has to be called.
const (
	ToolChoiceAuto     = ""         // as the model likes
	ToolChoiceNone     = "none"     // no tool
	ToolChoiceRequired = "required" // at least one
)

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
	// Tools are what the model may ask for, and ToolChoice says whether it must;
	// ParallelTools allows several at once, nil is the model's default.
	Tools         []Tool
	ToolChoice    string
	ParallelTools *bool
	// Effort asks for more or less thinking, in the provider's words such as
	// low, medium or high; empty is the model's default.
	Effort string
}

// Chunk is a piece of an answer. Its fields are independent: the last text may
// come together with the finish reason and the usage. A chunk with nothing in it
// is a sign of life of the provider, which deadlines count and readers ignore.
type Chunk struct {
	// Text is the next part of the visible answer.
	Text string
	// Reasoning is the next part of the model's thinking, where it shows it.
	Reasoning string
	// ToolCalls are complete calls; each comes once, before the finish reason.
	ToolCalls []ToolCall
	// ResponseID is the provider's name of the answer, for its support; it may be
	// set more than once, always the same.
	ResponseID string
	// FinishReason is set once: FinishStop, FinishLength, FinishToolCalls,
	// FinishContentFilter or another word of the provider.
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
	FinishToolCalls     = "tool_calls"     // the model waits for the results of its tool calls
	FinishContentFilter = "content_filter" // the provider held text back
	FinishUnknown       = "unknown"        // the end marker came without a reason
)

// Usage is what a call consumed, in tokens. The fields mean the same for every
// provider, whichever way it counts; Raw is what it said.
type Usage struct {
	// InputTokens counts the whole prompt, CachedTokens and CacheWriteTokens
	// included.
	InputTokens int64
	// OutputTokens counts the whole answer, ReasoningTokens included.
	OutputTokens int64
	// CachedTokens is the part of the prompt the provider had in its cache.
	CachedTokens int64
	// CacheWriteTokens is the part of the prompt the provider put into its cache.
	CacheWriteTokens int64
	// ReasoningTokens is the part of the answer that was thinking.
	ReasoningTokens int64
	// Estimated reports that the provider gave no figures and these are counted
	// by EstimateTokens.
	Estimated bool
	// Raw is the provider's own usage object, nil when it sent none.
	Raw json.RawMessage
}

// MaxTokenCount bounds every count of a Usage. No model comes near it, and all
// counts of an execution together stay far below what the database's numbers
// hold.
const MaxTokenCount = 1 << 32

// Plausible tells whether the counts can be true: none is negative, none beyond
// MaxTokenCount, and no part larger than its whole. A provider that reports
// others is treated as if it had reported nothing.
func (u Usage) Plausible() bool {
	least := min(u.InputTokens, u.OutputTokens, u.CachedTokens, u.CacheWriteTokens, u.ReasoningTokens)
	return least >= 0 && u.InputTokens <= MaxTokenCount && u.OutputTokens <= MaxTokenCount &&
		u.CachedTokens <= u.InputTokens && u.CacheWriteTokens <= u.InputTokens-u.CachedTokens && u.ReasoningTokens <= u.OutputTokens
}
