package events

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Draft is an event that is about to be written.
type Draft struct {
	Stream   string // empty = MainStream
	Payload  Payload
	Repaired bool // the text held NUL or broken UTF-8 that was replaced; marks the event's metadata
}

// PromptState is the newest state of a prompt inside an execution, a projection
// that is stored with the events that change it.
type PromptState struct {
	PromptID         int64      `json:"prompt_id"`
	Ordinal          int        `json:"ordinal"` // 0-based index in the chain's document
	Name             string     `json:"name"`
	Position         int        `json:"position"` // 1-based
	Status           string     `json:"status"`   // running, completed, failed or cancelled
	Attempt          int        `json:"attempt"`
	ModelID          string     `json:"model_id"`
	UserMessage      string     `json:"user_message"`
	Output           string     `json:"output"`
	FinishReason     string     `json:"finish_reason,omitempty"`
	InputTokens      int64      `json:"input_tokens"`
	OutputTokens     int64      `json:"output_tokens"`
	CachedTokens     int64      `json:"cached_tokens"`
	CacheWriteTokens int64      `json:"cache_write_tokens"`
	ReasoningTokens  int64      `json:"reasoning_tokens"`
	UsageEstimated   bool       `json:"usage_estimated"`
	CostUSD          *string    `json:"cost_usd,omitempty"` // of all its calls, decimal; nil when the price of one is unknown
	Cached           bool       `json:"cached"`
	DurationMS       *int64     `json:"duration_ms,omitempty"`
	Error            string     `json:"error,omitempty"`
	ErrorCode        string     `json:"error_code,omitempty"`
	FirstSeq         int64      `json:"first_seq"`             // seq of the newest attempt's first event; 0 = the first event of this append
	StartedAt        time.Time  `json:"started_at"`            // zero = the time of its prompt-start in this append
	FinishedAt       *time.Time `json:"finished_at,omitempty"` // given = the time of the event in this append that closes it
	Reused           *Reused    `json:"reused,omitempty"`      // nil = it ran here
	ToolCalls        []ToolCall `json:"tool_calls,omitempty"`  // what the newest attempt wanted to have called
	Cache            string     `json:"cache,omitempty"`       // what the response cache told the newest attempt: CacheTold…; "" = it was not asked
	Saved            *Reused    `json:"saved,omitempty"`       // of a hit: who had paid for the answer, and what
}

// What the response cache tells.
const (
	CacheToldHit  = "hit"
	CacheToldMiss = "miss"
)

// Reused is where the result of a prompt was taken from, and what it had cost
// there. The prompt's own figures say only what it has paid itself.
type Reused struct {
	ExecutionID  int64   `json:"execution_id"`
	InputTokens  int64   `json:"input_tokens"`
	OutputTokens int64   `json:"output_tokens"`
	CostUSD      *string `json:"cost_usd,omitempty"` // decimal; nil while unknown
}

// The states of a call, as they are stored.
const (
	CallOpen      = "open"
	CallSucceeded = "succeeded"
	CallFailed    = "failed"
	CallCancelled = "cancelled"
)

// Where the figures of a call come from.
const (
	UsageProvider  = "provider"
	UsageEstimated = "estimated"
)

// CallState is the newest state of one call of a provider, a projection that is
// stored with the event that opens or closes it.
type CallState struct {
	RequestID          string          `json:"request_id"`
	PromptID           int64           `json:"prompt_id"`
	Attempt            int             `json:"attempt"`
	Provider           string          `json:"provider"`
	Model              string          `json:"model"`
	Status             string          `json:"status"`
	PromptTokens       int64           `json:"prompt_tokens"`             // counted before the call
	ReservedUSD        *string         `json:"reserved_usd,omitempty"`    // the worst it can cost; nil without a limit
	ReservedTokens     *int64          `json:"reserved_tokens,omitempty"` // the same in tokens
	Lost               bool            `json:"lost"`                      // closed by another process than the one that called
	InputTokens        int64           `json:"input_tokens"`
	OutputTokens       int64           `json:"output_tokens"`
	CachedTokens       int64           `json:"cached_tokens"`
	CacheWriteTokens   int64           `json:"cache_write_tokens"`
	ReasoningTokens    int64           `json:"reasoning_tokens"`
	RawUsage           json.RawMessage `json:"raw_usage,omitempty"`    // the provider's own figures
	UsageSource        string          `json:"usage_source,omitempty"` // given when it is closed
	CostUSD            *string         `json:"cost_usd,omitempty"`     // decimal; nil when the price is unknown
	ErrorCode          string          `json:"error_code,omitempty"`
	HTTPStatus         int             `json:"http_status,omitempty"`
	FinishReason       string          `json:"finish_reason,omitempty"`
	ResponseID         string          `json:"response_id,omitempty"`
	DurationMS         *int64          `json:"duration_ms,omitempty"`            // given when it is closed
	TimeToFirstTokenMS *int64          `json:"time_to_first_token_ms,omitempty"` // nil when no token came
	StartedAt          time.Time       `json:"started_at"`                       // zero = the time of its llm-request in this append
	FinishedAt         *time.Time      `json:"finished_at,omitempty"`            // given = the time of the event in this append that closes it
}

// Outcome is the change of the execution's own row that goes with an append.
type Outcome struct {
	Progressed    bool       `json:"progressed,omitempty"` // a prompt has finished: crashes are counted anew
	Status        string     `json:"status,omitempty"`     // completed, failed or cancelled
	Error         string     `json:"error,omitempty"`
	ErrorCode     string     `json:"error_code,omitempty"`
	ErrorPromptID int64      `json:"error_prompt_id,omitempty"`
	InputTokens   *int64     `json:"input_tokens,omitempty"`
	OutputTokens  *int64     `json:"output_tokens,omitempty"`
	CostUSD       *string    `json:"cost_usd,omitempty"`
	FinishedAt    *time.Time `json:"finished_at,omitempty"` // given exactly when the append holds the terminal event; becomes its time
}

// merge lets the fields of a later outcome win.
func (o Outcome) merge(later Outcome) Outcome {
	progressed := o.Progressed || later.Progressed
	if later.Status != "" || o.Status == "" {
		o = later
	}
	o.Progressed = progressed
	return o
}

// Batch is what one append writes: events in order and the projections that
// become true with them.
type Batch struct {
	Events  []Draft
	Prompts []PromptState
	Calls   []CallState
	Outcome Outcome
}

// Tail is the newest event of one stream of an execution.
type Tail struct {
	Stream string
	Seq    int64
	ID     uuid.UUID
	Time   time.Time
}

// Writer appends to the log of one execution under one lease epoch. It is safe
// for concurrent use: parallel branches share it. When an append fails, the
// writer is spent, because the seqs after it can no longer be true.
type Writer struct {
	log       *Log
	execution int64
	epoch     int64
	committer *committer

	mu       sync.Mutex
	seq      int64
	time     time.Time
	tails    map[string]uuid.UUID
	terminal bool
	err      error // why the writer is spent
}

// Seq answers the seq of the newest event that was handed in.
func (w *Writer) Seq() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq
}

// Append hands a batch to the next commit and answers at once; the Pending
// tells when it is stored. Appends of one writer are stored in the order of the
// calls, and never one without those before it.
func (w *Writer) Append(batch Batch) *Pending {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &Pending{writer: w, done: make(chan struct{})}
	if w.err != nil {
		p.finish(w.err)
		return p
	}
	if w.terminal {
		p.finish(fmt.Errorf("append after the terminal event of execution %d: %w", w.execution, ErrFenced))
		return p
	}
	p.prev = w.seq
	p.epoch = w.epoch
	p.outcome = batch.Outcome
	p.records = make([]Record, len(batch.Events))
	p.frames = make([]Frame, len(batch.Events))
	for i, d := range batch.Events {
		if err := w.record(d, &p.records[i], &p.frames[i]); err != nil {
			w.err = fmt.Errorf("encode %s of execution %d: %w", d.Payload.EventType(), w.execution, err)
			p.finish(w.err)
			return p
		}
		p.bytes += len(p.records[i].Data)
	}
	p.prompts = slices.Clone(batch.Prompts)
	for i := range p.prompts {
		if p.prompts[i].FirstSeq == 0 {
			p.prompts[i].FirstSeq = p.prev + 1
		}
		p.bytes += len(p.prompts[i].Output) + len(p.prompts[i].UserMessage)
	}
	p.calls = slices.Clone(batch.Calls)
	for i := range p.calls {
		p.bytes += len(p.calls[i].RawUsage)
	}
	p.date(batch.Events)
	if err := w.committer.enqueue(p); err != nil {
		w.err = err
		p.finish(err)
	}
	return p
}

// record numbers and encodes an event. The caller holds w.mu.
func (w *Writer) record(d Draft, rec *Record, frame *Frame) error {
	stream := d.Stream
	if stream == "" {
		stream = MainStream
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("new event id: %w", err)
	}
	now := w.log.now().UTC().Truncate(time.Microsecond)
	if !now.After(w.time) {
		now = w.time.Add(time.Microsecond)
	}
	parent, branched := w.tails[stream]
	if !branched {
		parent = w.tails[MainStream] // a new branch hangs on the main stream
	}
	*rec = Record{
		Seq: w.seq + 1, ID: id, Parent: uuid.NullUUID{UUID: parent, Valid: parent != uuid.Nil},
		Stream: stream, Type: d.Payload.EventType(), Epoch: w.epoch, Time: now,
	}
	if *frame, err = newRecordFrame(w.execution, rec, d); err != nil {
		return err
	}
	w.seq, w.time, w.tails[stream] = rec.Seq, now, id
	w.terminal = rec.Type.Terminal()
	return nil
}

// spend marks the writer as unusable from now on.
func (w *Writer) spend(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// Close ends the writing. Subscribers of an execution that has not ended keep
// waiting for whoever goes on with it.
func (w *Writer) Close() {
	w.spend(ErrClosed)
	w.log.broker.detach(w.execution)
}

// Pending is an append on its way to the disk.
type Pending struct {
	writer  *Writer
	prev    int64
	epoch   int64
	records []Record
	frames  []Frame
	prompts []PromptState
	calls   []CallState
	found   []RetrievalState
	outcome Outcome
	bytes   int

	done chan struct{}
	err  error // set before done is closed
}

// Done is closed when the append is stored or has failed.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Wait blocks until the append is stored. It answers ErrFenced when the lease
// was lost, ErrClosed when the log was shut down, or the error of the context,
// in which case the append may still be stored.
func (p *Pending) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// date gives the projections the times of the events that they follow from, so
// that whoever folds the log comes to the same ones, and makes those that are
// nothing but an event.
func (p *Pending) date(drafts []Draft) {
	for n, d := range drafts {
		at := p.records[n].Time
		switch payload := d.Payload.(type) {
		case PromptStart:
			s := p.prompt(payload.PromptID)
			if s != nil && s.StartedAt.IsZero() {
				s.StartedAt = at
			}
			if s != nil && s.Reused != nil {
				s.FirstSeq = p.records[n].Seq // several of them begin in one append
			}
		case PromptComplete:
			p.prompt(payload.PromptID).finish(at)
		case PromptError:
			p.prompt(payload.PromptID).finish(at)
		case KnowledgeRetrieved:
			p.found = append(p.found, retrievals(payload, p.records[n].Seq)...)
		case LLMRequest:
			if c := p.call(payload.RequestID); c != nil && c.StartedAt.IsZero() {
				c.StartedAt = at
			}
		case LLMResponse:
			p.call(payload.RequestID).finish(at)
		case LLMError:
			p.call(payload.RequestID).finish(at)
		case ExecutionComplete, ExecutionError:
			if p.outcome.FinishedAt != nil {
				p.outcome.FinishedAt = &at
			}
		}
	}
}

// prompt answers the projection of a prompt, nil when there is none.
func (p *Pending) prompt(id int64) *PromptState {
	for i := range p.prompts {
		if p.prompts[i].PromptID == id {
			return &p.prompts[i]
		}
	}
	return nil
}

// call answers the projection of a call, nil when there is none.
func (p *Pending) call(id string) *CallState {
	for i := range p.calls {
		if p.calls[i].RequestID == id {
			return &p.calls[i]
		}
	}
	return nil
}

func (c *CallState) finish(at time.Time) {
	if c != nil && c.FinishedAt != nil {
		c.FinishedAt = &at
	}
}

func (s *PromptState) finish(at time.Time) {
	if s != nil && s.FinishedAt != nil {
		s.FinishedAt = &at
	}
}

// Time answers the time of the append's first event.
func (p *Pending) Time() time.Time { return p.records[0].Time }

// LastTime answers the time of the append's last event.
func (p *Pending) LastTime() time.Time { return p.records[len(p.records)-1].Time }

// FirstSeq answers the seq of the append's first event.
func (p *Pending) FirstSeq() int64 { return p.prev + 1 }

// LastSeq answers the seq of the append's last event.
func (p *Pending) LastSeq() int64 { return p.prev + int64(len(p.records)) }

func (p *Pending) finish(err error) {
	p.err = err
	close(p.done)
}
