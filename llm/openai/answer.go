package openai

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// errStopped reports that the reader of the sequence left it.
var errStopped = errors.New("reader left")

// wireAnswer is a chat completion, or a chunk of one. See OpenAI's API
// reference, "The chat completion chunk object"; reasoning_content is DeepSeek's
// field, reasoning that of Ollama, OpenRouter and others.
type wireAnswer struct {
	ID      wire.Text `json:"id"`
	Choices []struct {
		Index        int       `json:"index"`
		Delta        wireText  `json:"delta"`
		Message      wireText  `json:"message"` // of an answer that does not stream
		FinishReason wire.Text `json:"finish_reason"`
	} `json:"choices"`
	Usage json.RawMessage `json:"usage"`
	Error json.RawMessage `json:"error"`
}

type wireText struct {
	Content          wire.Text `json:"content"`
	Refusal          wire.Text `json:"refusal"`
	ReasoningContent wire.Text `json:"reasoning_content"`
	Reasoning        wire.Text `json:"reasoning"`

	ToolCalls    []wireCall    `json:"tool_calls"`
	FunctionCall *wireFunction `json:"function_call"` // what tool calls were before
}

// answer reads one response and yields its chunks.
type answer struct {
	events *wire.EventReader
	yield  func(llm.Chunk, error) bool

	text, reasoning       llm.Repairer
	textSoFar, thinkSoFar strings.Builder // for an estimate, until usage came
	callsSoFar            strings.Builder
	usage                 *llm.Usage
	calls                 toolCalls
	called                bool // tool calls were yielded
	id                    string
	finished              bool // a finish reason was seen
	done                  bool // [DONE] was seen, or the answer came in one piece
}

// read reads to the end marker and to the end of the body, or to the first
// error. Once the model has finished, errors of the connection do not count, and
// the rest is waited for no longer than settleTime.
func (a *answer) read(ctx context.Context, hangUp context.CancelFunc) error {
	first, err := a.events.Leading()
	switch {
	case err == io.EOF: //nolint:errorlint // bufio returns io.EOF itself
		return wire.ErrTruncated
	case err != nil:
		return err
	case first == '{':
		return a.readWhole()
	case first == '<':
		return fmt.Errorf("%w: it is a web page", wire.ErrMalformed)
	}
	var settle *time.Timer
	for {
		if err := ctx.Err(); err != nil && !a.finished { // what is in the buffer does not count any more
			return err
		}
		name, data, err := a.events.Next()
		if len(data) > 0 && (err == nil || errors.Is(err, io.EOF)) {
			eventErr := a.event(name, data)
			if eventErr != nil && errors.Is(err, io.EOF) && errors.Is(eventErr, wire.ErrMalformed) {
				eventErr = wire.ErrTruncated // the event was cut off
			}
			if eventErr != nil && (!a.finished || errors.Is(eventErr, errStopped)) {
				return eventErr
			}
		}
		switch {
		case a.done:
			return nil
		case err == nil:
		case a.finished:
			return nil
		case errors.Is(err, io.EOF):
			return wire.ErrTruncated
		default:
			return err
		}
		if a.finished && settle == nil {
			settle = time.AfterFunc(settleTime, hangUp)
			defer settle.Stop()
		}
	}
}

// readWhole reads an answer that does not stream.
func (a *answer) readWhole() error {
	body, err := a.events.Rest()
	if err != nil {
		return err
	}
	if err := a.event(nil, body); err != nil {
		if errors.Is(err, wire.ErrMalformed) && endsEarly(body) {
			return wire.ErrTruncated
		}
		return err
	}
	if !a.finished {
		return wire.ErrTruncated
	}
	a.done = true
	return nil
}

// endsEarly reports whether a JSON text is broken only in that it stops.
func endsEarly(body []byte) bool {
	var v json.RawMessage
	return errors.Is(json.NewDecoder(bytes.NewReader(body)).Decode(&v), io.ErrUnexpectedEOF)
}

// event handles the data of one event.
func (a *answer) event(name, data []byte) error {
	data = bytes.TrimSpace(data)
	if string(data) == "[DONE]" {
		a.done = true
		return nil
	}
	if bytes.IndexByte(data, 0) >= 0 { // JSON has no raw NUL; as an escape it is repaired as text
		data = bytes.ReplaceAll(data, []byte{0}, []byte(`\u0000`))
	}
	var got wireAnswer
	if err := json.Unmarshal(data, &got); err != nil {
		if string(name) == "error" {
			return streamError{data: bytes.Clone(data)}
		}
		return fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	if failure := bytes.TrimSpace(got.Error); len(failure) > 0 && string(failure) != "null" {
		return streamError{data: bytes.Clone(failure)}
	}
	if string(name) == "error" {
		return streamError{data: bytes.Clone(data)}
	}
	if usage, ok := parseUsage(got.Usage); ok {
		a.usage = &usage
	}
	var chunk llm.Chunk
	if a.id == "" {
		a.id = responseID(string(got.ID))
		chunk.ResponseID = a.id
	}
	for _, choice := range got.Choices {
		if choice.Index != 0 { // only one answer is asked for
			continue
		}
		for _, part := range []wireText{choice.Delta, choice.Message} {
			if err := a.add(&chunk, part); err != nil {
				return err
			}
		}
		if choice.FinishReason != "" && !a.finished {
			a.flush(&chunk)
			reason := finishReason(string(choice.FinishReason))
			if err := a.takeCalls(&chunk, cutOff(reason)); err != nil {
				return err
			}
			a.finished = true
			chunk.FinishReason = a.outcome(reason)
		}
	}
	return a.pass(chunk)
}

// pass yields a chunk; what comes with the finish reason, but belongs before it,
// in a chunk of its own.
func (a *answer) pass(chunk llm.Chunk) error {
	if chunk.FinishReason != "" && len(chunk.ToolCalls) > 0 {
		last := llm.Chunk{FinishReason: chunk.FinishReason}
		chunk.FinishReason = ""
		if !a.yield(chunk, nil) {
			return errStopped
		}
		chunk = last
	}
	if !a.yield(chunk, nil) {
		return errStopped
	}
	return nil
}

// takeCalls puts the tool calls into the chunk.
func (a *answer) takeCalls(chunk *llm.Chunk, cut bool) error {
	calls, repaired, err := a.calls.take(cut)
	if err != nil {
		return err
	}
	chunk.ToolCalls = calls
	chunk.Repaired = chunk.Repaired || repaired
	a.called = a.called || len(calls) > 0
	for _, c := range calls {
		a.callsSoFar.WriteString(c.Name)
		a.callsSoFar.WriteString(c.Arguments)
	}
	return nil
}

// cutOff tells whether an answer with this finish reason may end in the middle
// of a tool call.
func cutOff(reason string) bool {
	switch reason {
	case llm.FinishStop, llm.FinishToolCalls, functionCall:
		return false
	}
	return true
}

// functionCall is the older word for FinishToolCalls.
const functionCall = "function_call"

// outcome is the finish reason, in agreement with whether there are tool calls:
// some servers say stop although the model waits for the results of some.
func (a *answer) outcome(reason string) string {
	switch reason {
	case llm.FinishStop, llm.FinishToolCalls, functionCall, llm.FinishUnknown:
		if a.called {
			return llm.FinishToolCalls
		}
		if reason != llm.FinishUnknown {
			return llm.FinishStop
		}
	}
	return reason
}

// add appends the text of a part to the chunk, and keeps its tool calls.
func (a *answer) add(chunk *llm.Chunk, part wireText) error {
	thinking := part.ReasoningContent
	if thinking == "" { // some servers send the same text in both fields
		thinking = part.Reasoning
	}
	text, repairedText := a.text.Text(string(part.Content + part.Refusal))
	think, repairedThink := a.reasoning.Text(string(thinking))
	a.append(chunk, text, think, repairedText || repairedThink)
	if a.finished { // calls are complete by then
		return nil
	}
	if part.FunctionCall != nil {
		index := 0 // there is only one
		part.ToolCalls = append(part.ToolCalls, wireCall{Index: &index, Function: *part.FunctionCall})
	}
	for _, call := range part.ToolCalls {
		if err := a.calls.add(call); err != nil {
			return err
		}
	}
	return nil
}

// flush appends what the repairers hold back.
func (a *answer) flush(chunk *llm.Chunk) {
	text, repairedText := a.text.Flush()
	think, repairedThink := a.reasoning.Flush()
	a.append(chunk, text, think, repairedText || repairedThink)
}

func (a *answer) append(chunk *llm.Chunk, text, think string, repaired bool) {
	chunk.Text += text
	chunk.Reasoning += think
	chunk.Repaired = chunk.Repaired || repaired
	a.textSoFar.WriteString(text)
	a.thinkSoFar.WriteString(think)
}

// finish yields what is missing: tool calls and a finish reason where the server
// gave none, and the usage.
func (a *answer) finish(req llm.Request) error {
	var last llm.Chunk
	a.flush(&last)
	if !a.finished {
		if err := a.takeCalls(&last, false); err != nil {
			return err
		}
		last.FinishReason = a.outcome(llm.FinishUnknown)
		if err := a.pass(last); err != nil {
			return err
		}
		last = llm.Chunk{}
	}
	last.Usage = a.usage
	said := a.textSoFar.String() + a.callsSoFar.String()
	// Some servers send zeros instead of nothing.
	if a.usage == nil || (a.usage.OutputTokens == 0 && len(said)+a.thinkSoFar.Len() > 0) {
		estimate := llm.EstimateUsage(req, said, a.thinkSoFar.String())
		last.Usage = &estimate
	}
	return a.pass(last)
}

// maxWord bounds words and names of the provider that are passed through.
const maxWord = 256

func finishReason(word string) string {
	word, _ = repair(word)
	if word == "" || len(word) > maxWord {
		return llm.FinishUnknown
	}
	return word
}

// responseID returns the provider's name of the answer, as far as it is one.
func responseID(id string) string {
	id, repaired := repair(id)
	if repaired || len(id) > maxWord {
		return ""
	}
	return id
}

// wireUsage is the usage object of OpenAI; the last two fields are those of
// DeepSeek and of Moonshot.
type wireUsage struct {
	PromptTokens        int64 `json:"prompt_tokens"`
	CompletionTokens    int64 `json:"completion_tokens"`
	TotalTokens         int64 `json:"total_tokens"`
	PromptTokensDetails struct {
		CachedTokens     int64 `json:"cached_tokens"`
		CacheWriteTokens int64 `json:"cache_write_tokens"` // of OpenRouter
	} `json:"prompt_tokens_details"`
	CompletionTokensDetails struct {
		ReasoningTokens int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
	CacheHitTokens int64 `json:"prompt_cache_hit_tokens"`
	CachedTokens   int64 `json:"cached_tokens"`
}

// parseUsage reads a usage object; one that cannot be read, or be true, counts
// as absent.
func parseUsage(data json.RawMessage) (llm.Usage, bool) {
	var counts *wireUsage
	if len(data) == 0 || json.Unmarshal(data, &counts) != nil || counts == nil {
		return llm.Usage{}, false
	}
	usage := llm.Usage{
		InputTokens:      counts.PromptTokens,
		OutputTokens:     counts.CompletionTokens,
		CachedTokens:     cmp.Or(counts.PromptTokensDetails.CachedTokens, counts.CacheHitTokens, counts.CachedTokens),
		CacheWriteTokens: counts.PromptTokensDetails.CacheWriteTokens,
		ReasoningTokens:  counts.CompletionTokensDetails.ReasoningTokens,
	}
	// xAI leaves reasoning out of the completion, which its total shows.
	if beside := counts.TotalTokens - counts.PromptTokens - counts.CompletionTokens; usage.ReasoningTokens > 0 && beside == usage.ReasoningTokens {
		usage.OutputTokens += usage.ReasoningTokens
	}
	usage.Raw = bytes.Clone(data)
	return usage, usage.Plausible()
}
