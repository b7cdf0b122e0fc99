package gemini

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// errStopped reports that the reader of the sequence left it.
var errStopped = errors.New("reader left")

// wireAnswer is an answer, or a piece of one. See Google's reference of the
// Gemini API, "GenerateContentResponse".
type wireAnswer struct {
	Candidates []struct {
		Index   int `json:"index"`
		Content struct {
			Parts []answerPart `json:"parts"`
		} `json:"content"`
		FinishReason wire.Text `json:"finishReason"`
	} `json:"candidates"`
	PromptFeedback struct {
		BlockReason        wire.Text `json:"blockReason"`
		BlockReasonMessage wire.Text `json:"blockReasonMessage"`
	} `json:"promptFeedback"`
	Usage      json.RawMessage `json:"usageMetadata"`
	ResponseID wire.Text       `json:"responseId"`
	Error      json.RawMessage `json:"error"`
}

// answerPart is a part of the content. Pictures, and the code that Gemini runs
// by itself, are not asked for and passed over.
type answerPart struct {
	Text         wire.Text `json:"text"`
	Thought      bool      `json:"thought"`
	Signature    wire.Text `json:"thoughtSignature"`
	FunctionCall *struct {
		ID   wire.Text       `json:"id"`
		Name wire.Text       `json:"name"`
		Args json.RawMessage `json:"args"`
	} `json:"functionCall"`
}

// answer reads one response and yields its chunks.
type answer struct {
	events *wire.EventReader
	yield  func(llm.Chunk, error) bool

	text, reasoning       llm.Repairer
	textSoFar, thinkSoFar strings.Builder // for an estimate, until usage came
	usage                 *llm.Usage      // the last that can be believed
	doubtful              bool            // the last that came cannot
	calls                 map[string]bool // by their ids
	id                    string          // of the response
	reason                string          // why the answer ended, once it is known
	done                  bool            // nothing more can come
}

// read reads to the end of the body, or to the first error. Once the model has
// finished, errors of the connection do not count, and the rest is waited for no
// longer than settleTime.
func (a *answer) read(ctx context.Context, hangUp context.CancelFunc) error {
	first, err := a.events.Leading()
	switch {
	case err == io.EOF: //nolint:errorlint // bufio returns io.EOF itself
		return wire.ErrTruncated
	case err != nil:
		return err
	case first == '{', first == '[':
		return a.readWhole(first == '[')
	case first == '<':
		return fmt.Errorf("%w: it is a web page", wire.ErrMalformed)
	}
	var settle *time.Timer
	for {
		if err := ctx.Err(); err != nil && !a.finished() { // what is in the buffer does not count any more
			return err
		}
		name, data, err := a.events.Next()
		if len(data) > 0 && (err == nil || errors.Is(err, io.EOF)) {
			eventErr := a.event(name, data)
			if eventErr != nil && errors.Is(err, io.EOF) && errors.Is(eventErr, wire.ErrMalformed) {
				eventErr = wire.ErrTruncated // the event was cut off
			}
			if eventErr != nil && (!a.finished() || errors.Is(eventErr, errStopped)) {
				return eventErr
			}
		}
		switch {
		case a.done:
			return nil
		case err == nil:
		case a.finished():
			return nil
		case errors.Is(err, io.EOF):
			return wire.ErrTruncated
		default:
			return err
		}
		if a.finished() && settle == nil {
			settle = time.AfterFunc(settleTime, hangUp)
			defer settle.Stop()
		}
	}
}

// readWhole reads an answer that does not stream: an object, or an array of the
// pieces that would have been events.
func (a *answer) readWhole(array bool) error {
	body, err := a.events.Rest()
	if err != nil {
		return err
	}
	if bytes.IndexByte(body, 0) >= 0 {
		body = bytes.ReplaceAll(body, []byte{0}, []byte(`\u0000`))
	}
	pieces := json.NewDecoder(bytes.NewReader(body))
	if array {
		if _, err := pieces.Token(); err != nil {
			return fmt.Errorf("%w: %w", wire.ErrMalformed, err)
		}
	}
	for pieces.More() {
		var piece json.RawMessage
		err := pieces.Decode(&piece)
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			err = wire.ErrTruncated
		case err != nil:
			err = fmt.Errorf("%w: %w", wire.ErrMalformed, err)
		default:
			err = a.piece(nil, piece)
		}
		if err != nil && (!a.finished() || errors.Is(err, errStopped)) {
			return err
		}
		if err != nil {
			break
		}
	}
	if !a.finished() {
		return wire.ErrTruncated
	}
	a.done = true
	return nil
}

func (a *answer) finished() bool { return a.reason != "" }

// event handles the data of one event: a piece of the answer, or an array of them.
func (a *answer) event(name, data []byte) error {
	if data = bytes.TrimSpace(data); len(data) == 0 {
		return nil
	}
	if string(data) == "[DONE]" { // of gateways; Gemini has no such mark
		a.done = a.finished()
		return nil
	}
	if bytes.IndexByte(data, 0) >= 0 { // JSON has no raw NUL; as an escape it is repaired as text
		data = bytes.ReplaceAll(data, []byte{0}, []byte(`\u0000`))
	}
	pieces := []json.RawMessage{data}
	if data[0] == '[' {
		var list []json.RawMessage
		if json.Unmarshal(data, &list) == nil {
			pieces = list
		}
	}
	for _, piece := range pieces {
		if err := a.piece(name, piece); err != nil {
			return err
		}
	}
	return nil
}

// piece handles one piece of the answer.
func (a *answer) piece(name, data []byte) error {
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
	if len(got.Usage) > 0 { // each counts from the beginning
		usage, ok := parseUsage(got.Usage)
		if a.doubtful = !ok; ok {
			a.usage = &usage
		}
	}
	if reason := got.PromptFeedback.BlockReason; reason != "" && reason != "BLOCK_REASON_UNSPECIFIED" {
		return blocked{reason: string(reason), message: string(got.PromptFeedback.BlockReasonMessage)}
	}
	var chunk llm.Chunk
	if a.id == "" && got.ResponseID != "" {
		a.id = word(string(got.ResponseID))
		chunk.ResponseID = a.id
	}
	for _, candidate := range got.Candidates {
		if candidate.Index != 0 { // only one answer is asked for
			continue
		}
		for _, part := range candidate.Content.Parts {
			if part.FunctionCall != nil && part.FunctionCall.Name == "" {
				return fmt.Errorf("%w: it calls a function without a name", wire.ErrMalformed)
			}
			if part.FunctionCall != nil && len(a.calls) == llm.MaxToolCalls {
				return wire.ErrTooLarge
			}
			a.add(&chunk, part)
		}
		a.end(string(candidate.FinishReason))
	}
	if !a.yield(chunk, nil) {
		return errStopped
	}
	return nil
}

// end notes a finish reason. It is passed on at the end only: there were models
// that sent STOP with every piece.
func (a *answer) end(reason string) {
	if reason == "" || reason == "FINISH_REASON_UNSPECIFIED" {
		return
	}
	if a.reason == "" || a.reason == llm.FinishStop {
		a.reason = finishReason(reason)
	}
}

// add appends a part to the chunk.
func (a *answer) add(chunk *llm.Chunk, part answerPart) {
	var text, think string
	var repairedText, repairedThink bool
	if part.Thought {
		think, repairedThink = a.reasoning.Text(string(part.Text))
	} else {
		text, repairedText = a.text.Text(string(part.Text))
	}
	a.append(chunk, text, think, repairedText || repairedThink)
	if part.FunctionCall == nil {
		return
	}
	var name, args llm.Repairer
	call := llm.ToolCall{Signature: signature(string(part.Signature))}
	call.Name = whole(&name, string(part.FunctionCall.Name), chunk)
	call.Arguments = whole(&args, arguments(part.FunctionCall.Args), chunk)
	call.ID = a.callID(word(string(part.FunctionCall.ID)))
	chunk.ToolCalls = append(chunk.ToolCalls, call)
	a.textSoFar.WriteString(call.Name + call.Arguments)
}

// whole repairs a text that comes in one piece.
func whole(r *llm.Repairer, text string, chunk *llm.Chunk) string {
	text, repaired := r.Text(text)
	tail, cut := r.Flush()
	chunk.Repaired = chunk.Repaired || repaired || cut
	return text + tail
}

// arguments answers the JSON of arguments in its shortest form. Some gateways
// send it in a string.
func arguments(args json.RawMessage) string {
	var out bytes.Buffer
	switch {
	case len(args) > 0 && args[0] == '"':
		var text wire.Text
		_ = text.UnmarshalJSON(args) // never fails
		return string(text)
	case len(args) == 0, string(args) == "null", json.Compact(&out, args) != nil:
		return "{}"
	}
	return out.String()
}

// callID answers the id of a call: Gemini's own, or one made up.
func (a *answer) callID(id string) string {
	if id == "" || a.calls[id] {
		id = "call_" + rand.Text()
	}
	if a.calls == nil {
		a.calls = map[string]bool{}
	}
	a.calls[id] = true
	return id
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

// finish yields the last chunk: why the answer ended, and its usage. It reports
// whether the reader took it.
func (a *answer) finish(req llm.Request) bool {
	var last llm.Chunk
	a.flush(&last)
	last.FinishReason = a.reason
	if len(a.calls) > 0 && a.reason == llm.FinishStop {
		last.FinishReason = llm.FinishToolCalls
	}
	last.Usage = a.usage
	// Some servers send zeros instead of nothing.
	if a.usage == nil || a.doubtful || (a.usage.OutputTokens == 0 && a.textSoFar.Len()+a.thinkSoFar.Len() > 0) {
		estimate := llm.EstimateUsage(req, a.textSoFar.String(), a.thinkSoFar.String())
		last.Usage = &estimate
	}
	return a.yield(last, nil)
}

// finishReason translates Gemini's words; those without a fixed meaning are
// passed on in lower case.
func finishReason(reason string) string {
	switch reason {
	case "STOP":
		return llm.FinishStop
	case "MAX_TOKENS":
		return llm.FinishLength
	case "FUNCTION_CALL": // of imitations; Gemini says STOP
		return llm.FinishToolCalls
	case "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
		"IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION":
		return llm.FinishContentFilter
	}
	if reason = strings.ToLower(word(reason)); reason != "" {
		return reason
	}
	return llm.FinishUnknown
}

// maxWord bounds words and names of the provider that are passed through.
const maxWord = 128

// word answers a name of the provider as it can be stored, or nothing.
func word(s string) string {
	var r llm.Repairer
	if len(s) > maxWord {
		return ""
	}
	s, _ = r.Text(s)
	tail, _ := r.Flush()
	return s + tail
}

// maxSignature bounds a signature; they take a few kilobytes.
const maxSignature = 256 << 10

// signature answers a signature if it can be one: base64.
func signature(s string) string {
	if len(s) > maxSignature || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return ""
	}
	return s
}

// parseUsage reads a usage object; one that cannot be read, or be true, counts
// as absent. What Gemini's own tools put into the prompt is counted apart from
// the prompt, and thoughts apart from the answer.
func parseUsage(data json.RawMessage) (llm.Usage, bool) {
	var counts *struct {
		Prompt     int64 `json:"promptTokenCount"`
		ToolUse    int64 `json:"toolUsePromptTokenCount"`
		Cached     int64 `json:"cachedContentTokenCount"`
		Candidates int64 `json:"candidatesTokenCount"`
		Thoughts   int64 `json:"thoughtsTokenCount"`
	}
	if len(data) == 0 || !utf8.Valid(data) || json.Unmarshal(data, &counts) != nil || counts == nil {
		return llm.Usage{}, false
	}
	for _, n := range []int64{counts.Prompt, counts.ToolUse, counts.Cached, counts.Candidates, counts.Thoughts} {
		if n < 0 || n > llm.MaxTokenCount { // before they are added
			return llm.Usage{}, false
		}
	}
	usage := llm.Usage{
		InputTokens:     counts.Prompt + counts.ToolUse,
		OutputTokens:    counts.Candidates + counts.Thoughts,
		CachedTokens:    counts.Cached,
		ReasoningTokens: counts.Thoughts,
		Raw:             bytes.Clone(data),
	}
	return usage, usage.Plausible() && usage.InputTokens+usage.OutputTokens > 0
}
