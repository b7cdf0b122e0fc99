package events

import "encoding/json"

// Payload is the part of an event's data that its type defines. The fields
// common to all events (executionId, seq, eventId, parentId, streamId,
// timestamp, metadata) are added by the Writer.
type Payload interface {
	EventType() Type
}

// ExecutionStart opens an execution.
type ExecutionStart struct {
	TotalPrompts int    `json:"totalPrompts"`
	ToolName     string `json:"toolName"` // the chain's name
	ChainID      int64  `json:"chainId"`
	ChainVersion int    `json:"chainVersion"`

	// What a retry or a fork begins with.
	ParentExecutionID int64  `json:"parentExecutionId,omitempty"`
	Origin            string `json:"origin,omitempty"`     // retry or fork
	FromPrompt        string `json:"fromPrompt,omitempty"` // slug of the first prompt that a fork runs again
}

// ReusedFrom marks a prompt that was not run but taken over, and what it had
// cost where it ran.
type ReusedFrom struct {
	ExecutionID  int64   `json:"executionId"` // that paid for it
	InputTokens  int64   `json:"inputTokens"`
	OutputTokens int64   `json:"outputTokens"`
	CostUSD      *string `json:"costUsd,omitempty"` // decimal; absent when it is unknown
}

// PromptStart opens an attempt of a prompt.
type PromptStart struct {
	PromptID     int64  `json:"promptId"`
	PromptName   string `json:"promptName"`
	Position     int    `json:"position"` // 1-based
	TotalPrompts int    `json:"totalPrompts"`
	ModelID      string `json:"modelId"` // the model that is really called
	HasKnowledge bool   `json:"hasKnowledge"`
	HasTools     bool   `json:"hasTools"`
	Attempt      int    `json:"attempt"` // 1-based

	ReusedFrom *ReusedFrom `json:"reusedFrom,omitempty"` // the prompt is not run: its result follows
}

// KnowledgeRetrievalStart says which repositories are about to be searched.
type KnowledgeRetrievalStart struct {
	PromptID     int64   `json:"promptId"`
	Repositories []int64 `json:"repositories"`
	SearchType   string  `json:"searchType"` // vector, keyword or hybrid
}

// KnowledgeRetrieved follows every KnowledgeRetrievalStart, also when nothing
// was found or the search failed.
type KnowledgeRetrieved struct {
	PromptID       int64      `json:"promptId"`
	DocumentsFound int        `json:"documentsFound"`
	RelevanceScore float64    `json:"relevanceScore"` // mean over the chunks, 0–1
	Tokens         int64      `json:"tokens"`         // of the context that was placed
	Chunks         []ChunkRef `json:"chunks,omitempty"`
	Cut            []ChunkRef `json:"cut,omitempty"`   // found, and left out because the context was full
	Error          string     `json:"error,omitempty"` // why the search failed, or what it had to do without
}

// ChunkRef names a retrieved chunk and says why it was found.
type ChunkRef struct {
	ChunkID         int64   `json:"chunkId"`
	DocumentID      int64   `json:"documentId"`
	Score           float64 `json:"score"` // 0–1
	RepositoryID    int64   `json:"repositoryId,omitempty"`
	DocumentVersion int64   `json:"documentVersion,omitempty"`
	Document        string  `json:"document,omitempty"` // its name
	Citation        int     `json:"citation,omitempty"` // its number in the context; absent when it was cut
	Headings        string  `json:"headings,omitempty"` // from the title to the section
	Page            int     `json:"page,omitempty"`     // from 1; absent in formats without pages

	// What the score was made of; absent when it was not found that way.
	VectorRank   int     `json:"vectorRank,omitempty"` // from 1
	VectorScore  float64 `json:"vectorScore,omitempty"`
	KeywordRank  int     `json:"keywordRank,omitempty"` // from 1
	KeywordScore float64 `json:"keywordScore,omitempty"`
	RerankRank   int     `json:"rerankRank,omitempty"` // from 1, in the order of the rerank hook
	RerankScore  float64 `json:"rerankScore,omitempty"`
}

// VariableSubstitution lists every name that was substituted in a prompt.
type VariableSubstitution struct {
	PromptID      int64             `json:"promptId"`
	Variables     map[string]string `json:"variables"` // values cut at 500 characters
	SourcePrompts []int64           `json:"sourcePrompts"`
}

// PromptDelta is a piece of a prompt's text.
type PromptDelta struct {
	PromptID int64  `json:"promptId"`
	Attempt  int    `json:"attempt"`
	Text     string `json:"text"`
	Offset   int64  `json:"offset"` // characters (code points) of this attempt before Text
}

// ReasoningDelta is a piece of a model's reasoning, counted by itself.
type ReasoningDelta PromptDelta

// ToolExecutionStart says that a tool is about to be called.
type ToolExecutionStart struct {
	PromptID   int64           `json:"promptId"`
	ToolName   string          `json:"toolName"`
	ToolCallID string          `json:"toolCallId"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
}

// ToolExecutionComplete is what became of a tool call.
type ToolExecutionComplete struct {
	PromptID   int64           `json:"promptId"`
	ToolName   string          `json:"toolName"`
	ToolCallID string          `json:"toolCallId"`
	Success    bool            `json:"success"`
	Result     json.RawMessage `json:"result,omitempty"`
	Error      string          `json:"error,omitempty"`
	Duration   int64           `json:"duration"` // ms
}

// ToolCall is a model's wish to have a tool called.
type ToolCall struct {
	ID        string `json:"id"` // unique in the answer
	Name      string `json:"name"`
	Arguments string `json:"arguments"`           // as the model wrote them: meant to be a JSON object, and not checked
	Signature string `json:"signature,omitempty"` // some providers want it back with the call
}

// PromptRetry opens a new attempt and voids the text of the older ones.
type PromptRetry struct {
	PromptID          int64  `json:"promptId"`
	Attempt           int    `json:"attempt"` // the new one
	SupersedesFromSeq int64  `json:"supersedesFromSeq"`
	Reason            string `json:"reason"`
	Delay             int64  `json:"delay"` // ms until the new attempt

	ModelID string `json:"modelId,omitempty"` // that the new attempt calls; absent when that is not decided
	Try     int    `json:"try,omitempty"`     // of that model, from 1; corrective rounds do not count
}

// PromptComplete closes a prompt that succeeded.
type PromptComplete struct {
	PromptID     int64   `json:"promptId"`
	OutputTokens int64   `json:"outputTokens"`
	InputTokens  int64   `json:"inputTokens"`
	Duration     int64   `json:"duration"` // ms, over all attempts
	Cached       bool    `json:"cached"`
	Output       string  `json:"output"` // the whole text, or its first 64 kB
	Truncated    bool    `json:"truncated,omitempty"`
	CostUSD      *string `json:"costUsd,omitempty"` // decimal; absent when the price is unknown
	ModelID      string  `json:"modelId"`
	FinishReason string  `json:"finishReason"`
	Attempt      int     `json:"attempt"`

	ToolCalls  []ToolCall  `json:"toolCalls,omitempty"`  // the model waits for their results
	ReusedFrom *ReusedFrom `json:"reusedFrom,omitempty"` // then tokens, cost and duration are 0: nothing was paid here
}

// PromptError closes a prompt that failed for good.
type PromptError struct {
	PromptID int64  `json:"promptId"`
	Error    string `json:"error"` // safe for users
	Code     string `json:"code"`
	Attempt  int    `json:"attempt"`
	Duration int64  `json:"duration"` // ms, over all attempts
}

// Progress is a statement for people and progress bars.
type Progress struct {
	CurrentStep int     `json:"currentStep"` // finished prompts
	TotalSteps  int     `json:"totalSteps"`
	Percentage  float64 `json:"percentage"` // 0–100, never falling
	Message     string  `json:"message"`
}

// ApprovalRequested says that an execution waits for a person.
type ApprovalRequested struct {
	PromptID   int64  `json:"promptId"`
	ApprovalID string `json:"approvalId"`
}

// ApprovalResolved is the person's decision: approved, rejected or expired.
type ApprovalResolved struct {
	PromptID   int64  `json:"promptId"`
	ApprovalID string `json:"approvalId"`
	Decision   string `json:"decision"`
}

// LLMRequest is written before a provider is called.
type LLMRequest struct {
	PromptID  int64  `json:"promptId"`
	RequestID string `json:"requestId"`
	Provider  string `json:"provider"`
	Model     string `json:"model"`
	Attempt   int    `json:"attempt"`

	HistoryDropped int `json:"historyDropped,omitempty"` // earlier turns that did not fit into the context window
}

// LLMResponse is written when a provider's call succeeded.
type LLMResponse struct {
	PromptID           int64  `json:"promptId"`
	RequestID          string `json:"requestId"`
	Provider           string `json:"provider"`
	Model              string `json:"model"`
	Attempt            int    `json:"attempt"`
	InputTokens        int64  `json:"inputTokens"`
	OutputTokens       int64  `json:"outputTokens"`
	CachedTokens       int64  `json:"cachedTokens"`
	CacheWriteTokens   int64  `json:"cacheWriteTokens"`
	ReasoningTokens    int64  `json:"reasoningTokens"`
	DurationMS         int64  `json:"durationMs"`
	TimeToFirstTokenMS int64  `json:"timeToFirstTokenMs"`
	FinishReason       string `json:"finishReason"`
	UsageSource        string `json:"usageSource"`          // provider or estimated
	ResponseID         string `json:"responseId,omitempty"` // the provider's name of the answer

	CostUSD   *string    `json:"costUsd,omitempty"`   // of the call, decimal; absent when the price is unknown
	ToolCalls []ToolCall `json:"toolCalls,omitempty"` // the model waits for their results
}

// LLMError is written when a provider's call failed or was cancelled.
type LLMError struct {
	PromptID         int64  `json:"promptId"`
	RequestID        string `json:"requestId"`
	Provider         string `json:"provider"`
	Model            string `json:"model"`
	Attempt          int    `json:"attempt"`
	Error            string `json:"error"` // safe for users
	Code             string `json:"code"`
	DurationMS       int64  `json:"durationMs"`
	Retryable        bool   `json:"retryable"`
	InputTokens      int64  `json:"inputTokens"`
	OutputTokens     int64  `json:"outputTokens"`
	CachedTokens     int64  `json:"cachedTokens"`
	CacheWriteTokens int64  `json:"cacheWriteTokens"`
	ReasoningTokens  int64  `json:"reasoningTokens"`
	UsageSource      string `json:"usageSource"`          // provider or estimated
	ResponseID       string `json:"responseId,omitempty"` // the provider's name of the answer, as far as it came

	Details string `json:"details,omitempty"` // the provider's own text, secrets removed

	CostUSD *string `json:"costUsd,omitempty"` // of the call, decimal; absent when the price is unknown
}

// CacheHit says that an answer came from the response cache, and takes the place
// of LLMRequest and LLMResponse.
type CacheHit struct {
	PromptID          int64  `json:"promptId"`
	RequestID         string `json:"requestId"` // of no other event
	Provider          string `json:"provider"`
	Model             string `json:"model"`
	Attempt           int    `json:"attempt"`
	SourceExecutionID int64  `json:"sourceExecutionId"` // that paid for the answer
	SourceRequestID   string `json:"sourceRequestId"`   // of its LLMRequest
	AgeMS             int64  `json:"ageMs"`

	// What the answer had cost there.
	SavedInputTokens  int64   `json:"savedInputTokens"`
	SavedOutputTokens int64   `json:"savedOutputTokens"`
	SavedCostUSD      *string `json:"savedCostUsd,omitempty"` // decimal; absent when it is unknown
}

// CacheMiss says that the response cache was asked and had no answer; the call
// follows.
type CacheMiss struct {
	PromptID  int64  `json:"promptId"`
	RequestID string `json:"requestId"` // of the LLMRequest that follows
	Provider  string `json:"provider"`
	Model     string `json:"model"`
	Attempt   int    `json:"attempt"`
}

// ExecutionComplete ends an execution that succeeded.
type ExecutionComplete struct {
	TotalTokens int64   `json:"totalTokens"` // input and output that this execution paid, over all prompts
	Duration    int64   `json:"duration"`    // ms
	Success     bool    `json:"success"`     // always true
	CostUSD     *string `json:"costUsd,omitempty"`

	ReusedTokens int64   `json:"reusedTokens,omitempty"` // of the prompts that were taken over
	SavedTokens  int64   `json:"savedTokens,omitempty"`  // of the answers that came from the cache
	SavedCostUSD *string `json:"savedCostUsd,omitempty"` // and what both had cost; absent when that is unknown
}

// ExecutionError ends an execution that failed or was cancelled.
type ExecutionError struct {
	Error       string `json:"error"` // safe for users
	PromptID    int64  `json:"promptId,omitempty"`
	Recoverable bool   `json:"recoverable"` // a retry of the execution may succeed
	Details     string `json:"details,omitempty"`
	Code        string `json:"code"`
}

// EventType implements Payload.
func (ExecutionStart) EventType() Type          { return TypeExecutionStart }
func (PromptStart) EventType() Type             { return TypePromptStart }
func (KnowledgeRetrievalStart) EventType() Type { return TypeKnowledgeRetrievalStart }
func (KnowledgeRetrieved) EventType() Type      { return TypeKnowledgeRetrieved }
func (VariableSubstitution) EventType() Type    { return TypeVariableSubstitution }
func (PromptDelta) EventType() Type             { return TypePromptDelta }
func (ReasoningDelta) EventType() Type          { return TypeReasoningDelta }
func (ToolExecutionStart) EventType() Type      { return TypeToolExecutionStart }
func (ToolExecutionComplete) EventType() Type   { return TypeToolExecutionComplete }
func (PromptRetry) EventType() Type             { return TypePromptRetry }
func (PromptComplete) EventType() Type          { return TypePromptComplete }
func (PromptError) EventType() Type             { return TypePromptError }
func (Progress) EventType() Type                { return TypeProgress }
func (ApprovalRequested) EventType() Type       { return TypeApprovalRequested }
func (ApprovalResolved) EventType() Type        { return TypeApprovalResolved }
func (LLMRequest) EventType() Type              { return TypeLLMRequest }
func (LLMResponse) EventType() Type             { return TypeLLMResponse }
func (LLMError) EventType() Type                { return TypeLLMError }
func (CacheHit) EventType() Type                { return TypeCacheHit }
func (CacheMiss) EventType() Type               { return TypeCacheMiss }
func (ExecutionComplete) EventType() Type       { return TypeExecutionComplete }
func (ExecutionError) EventType() Type          { return TypeExecutionError }
