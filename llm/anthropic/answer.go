package anthropic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// errStopped reports that the reader of the sequence left it.
var errStopped = errors.New("reader left")

// wireEvent is an event of a stream. See Anthropic's API reference, "Streaming
// messages".
type wireEvent struct {
	Type         string          `json:"type"`
	Message      wireMessage     `json:"message"`
	Index        int             `json:"index"`
	ContentBlock wireBlock       `json:"content_block"`
	Delta        wireDelta       `json:"delta"`
	Usage        json.RawMessage `json:"usage"`
}

// wireMessage is an answer: its start, or the whole of one that does not stream.
type wireMessage struct {
	ID         wire.Text       `json:"id"`
	Content    []wireBlock     `json:"content"`
	StopReason wire.Text       `json:"stop_reason"`
	Usage      json.RawMessage `json:"usage"`
}

type wireBlock struct {
	Type     wire.Text       `json:"type"`
	Text     wire.Text       `json:"text"`
	Thinking wire.Text       `json:"thinking"`
	ID       wire.Text       `json:"id"`
	Name     wire.Text       `json:"name"`
	Input    json.RawMessage `json:"input"`
}

type wireDelta struct {
	Type        wire.Text `json:"type"`
	Text        wire.Text `json:"text"`
	Thinking    wire.Text `json:"thinking"`
	PartialJSON wire.Text `json:"partial_json"`
	StopReason  wire.Text `json:"stop_reason"`
}

// maxArguments bounds the tool calls of an answer, all together, in bytes.
const maxArguments = 4 << 20

// answer reads one response and yields its chunks.
type answer struct {
	events    *wire.EventReader
	yield     func(llm.Chunk, error) bool
	structure structure
	cutter    cutter

	text, reasoning       llm.Repairer
	textSoFar, thinkSoFar strings.Builder // with tool calls, for an estimate
	blocks                map[int]*toolUse
	ids                   map[string]bool // of tool calls
	calls, arguments      int             // tool calls, and their bytes
	usage                 usage
	id                    string
	reason                string // the provider's word
	aside                 llm.Chunk
	structured            bool // the answer came as the input of the answer tool
	done                  bool // the end marker was seen
}

// toolUse is a block in which the model asks for a tool.
type toolUse struct {
	id, name string
	whole    json.RawMessage // the input as far as the start of the block had it
	pieces   strings.Builder
	repairer llm.Repairer
	repaired bool
	answer   bool // it is the answer itself, see structure
}

// read reads to the end marker, or to the first error.
func (a *answer) read(ctx context.Context) error {
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
	for {
		if err := ctx.Err(); err != nil { // what is in the buffer does not count any more
			return err
		}
		name, data, err := a.events.Next()
		if len(data) > 0 && (err == nil || errors.Is(err, io.EOF)) {
			eventErr := a.event(string(name), data)
			if eventErr != nil && errors.Is(err, io.EOF) && errors.Is(eventErr, wire.ErrMalformed) {
				eventErr = wire.ErrTruncated // the event was cut off
			}
			if eventErr != nil {
				return eventErr
			}
		}
		switch {
		case a.done, a.cutter.cut:
			return nil
		case err == nil:
		case errors.Is(err, io.EOF):
			return wire.ErrTruncated
		default:
			return err
		}
	}
}

// readWhole reads an answer that does not stream.
func (a *answer) readWhole() error {
	body, err := a.events.Rest()
	if err != nil {
		return err
	}
	var got struct {
		wireMessage
		Error json.RawMessage `json:"error"`
	}
	body = escapeNUL(body)
	if err := json.Unmarshal(body, &got); err != nil {
		if endsEarly(body) {
			return wire.ErrTruncated
		}
		return fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	if len(got.Error) > 0 && string(got.Error) != "null" {
		return streamError{data: body}
	}
	if err := a.emit(llm.Chunk{ResponseID: a.start(got.wireMessage)}); err != nil {
		return err
	}
	for i, block := range got.Content {
		if err := a.startBlock(i, block); err != nil {
			return err
		}
		if err := a.stopBlock(i); err != nil {
			return err
		}
	}
	a.usage.merge(got.Usage, true)
	a.reason = string(got.StopReason)
	if a.reason == "" {
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

// escapeNUL makes raw NUL, which JSON does not have, an escape, which is repaired
// as text.
func escapeNUL(data []byte) []byte {
	if bytes.IndexByte(data, 0) < 0 {
		return data
	}
	return bytes.ReplaceAll(data, []byte{0}, []byte(`\u0000`))
}

// event handles one event. Each gives at least one chunk, and be it an empty one:
// pings and events of a kind that is not known are signs of life.
func (a *answer) event(name string, data []byte) error {
	data = escapeNUL(data)
	var got wireEvent
	if err := json.Unmarshal(data, &got); err != nil {
		if name == "error" {
			return streamError{data: bytes.Clone(data)}
		}
		var kind struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(data, &kind) != nil || known(kind.Type) {
			return fmt.Errorf("%w: %w", wire.ErrMalformed, err)
		}
		got = wireEvent{Type: kind.Type}
	}
	if got.Type == "" {
		got.Type = name
	}
	switch got.Type {
	case "message_start":
		return a.emit(llm.Chunk{ResponseID: a.start(got.Message)})
	case "content_block_start":
		return a.startBlock(got.Index, got.ContentBlock)
	case "content_block_delta":
		return a.delta(got.Index, got.Delta)
	case "content_block_stop":
		return a.stopBlock(got.Index)
	case "message_delta":
		a.usage.merge(got.Usage, true)
		if got.Delta.StopReason != "" {
			a.reason = string(got.Delta.StopReason)
		}
	case "message_stop":
		a.done = true
		return nil
	case "error":
		return streamError{data: bytes.Clone(data)}
	}
	return a.emit(llm.Chunk{})
}

// known tells the events that cannot be left out.
func known(kind string) bool {
	switch kind {
	case "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop", "error":
		return true
	}
	return false
}

// emit hands a chunk over.
func (a *answer) emit(chunk llm.Chunk) error {
	if !a.yield(chunk, nil) {
		return errStopped
	}
	return nil
}

// start takes what is known at the start and returns the id of the answer.
func (a *answer) start(m wireMessage) string {
	a.usage.merge(m.Usage, false)
	var r llm.Repairer
	if id, _ := r.Text(string(m.ID)); a.id == "" && len(id) <= maxName {
		a.id = id
	}
	return a.id
}

// maxName bounds ids and words of the provider that are passed through.
const maxName = 256

// startBlock begins a block of content. Kinds that are not known, and thinking
// that the provider has encrypted, have nothing for the reader.
func (a *answer) startBlock(index int, b wireBlock) error {
	if b.Type != "tool_use" {
		return a.content(string(b.Text), string(b.Thinking))
	}
	if a.calls++; a.calls > llm.MaxToolCalls {
		return wire.ErrTooLarge
	}
	if a.blocks == nil {
		a.blocks, a.ids = map[int]*toolUse{}, map[string]bool{}
	}
	var id, name llm.Repairer
	t := &toolUse{whole: bytes.Clone(b.Input), answer: a.structure.tool && b.Name == answerTool}
	t.id, _ = id.Text(string(b.ID))
	for n := a.calls; t.id == "" || a.ids[t.id]; n++ {
		t.id = fmt.Sprintf("call_%d", n)
	}
	a.ids[t.id] = true
	t.name, _ = name.Text(string(b.Name))
	if t.name == "" {
		return fmt.Errorf("%w: it calls a tool without a name", wire.ErrMalformed)
	}
	a.structured = a.structured || t.answer
	a.blocks[index] = t
	return a.grow(t.name, len(t.id)+len(t.whole))
}

// grow counts what tool calls need: a piece of text, and some bytes more.
func (a *answer) grow(piece string, more int) error {
	a.arguments += len(piece) + more
	if a.arguments > maxArguments {
		return wire.ErrTooLarge
	}
	a.textSoFar.WriteString(piece)
	return a.emit(llm.Chunk{})
}

// delta adds to a block.
func (a *answer) delta(index int, d wireDelta) error {
	switch d.Type {
	case "text_delta", "thinking_delta":
		return a.content(string(d.Text), string(d.Thinking))
	case "input_json_delta":
		t := a.blocks[index]
		if t == nil {
			break
		}
		piece, repaired := t.repairer.Text(string(d.PartialJSON))
		t.repaired = t.repaired || repaired
		if t.answer && !a.structure.wrapped {
			t.whole = nil
			return a.say(piece, repaired)
		}
		t.pieces.WriteString(piece)
		return a.grow(piece, 0)
	}
	return a.emit(llm.Chunk{}) // signatures, citations and what is to come
}

// content passes text and thinking on. Text beside a structured answer is none of
// it; it is kept back until it is known whether there is one.
func (a *answer) content(text, thinking string) error {
	text, repairedText := a.text.Text(text)
	thinking, repairedThinking := a.reasoning.Text(thinking)
	chunk := llm.Chunk{Text: text, Reasoning: thinking, Repaired: repairedText || repairedThinking}
	a.thinkSoFar.WriteString(thinking)
	if a.structure.tool {
		if a.aside.Text += text; len(a.aside.Text) > maxArguments {
			return wire.ErrTooLarge
		}
		a.aside.Repaired = a.aside.Repaired || repairedText
		chunk.Text, chunk.Repaired = "", repairedThinking
		return a.emit(chunk)
	}
	chunk.Text = a.cutter.text(chunk.Text)
	a.textSoFar.WriteString(chunk.Text)
	return a.emit(chunk)
}

// say passes on a piece of the answer that has been repaired.
func (a *answer) say(text string, repaired bool) error {
	text = a.cutter.text(text)
	a.textSoFar.WriteString(text)
	return a.emit(llm.Chunk{Text: text, Repaired: repaired})
}

// stopBlock ends a block: a tool call is complete.
func (a *answer) stopBlock(index int) error {
	t := a.blocks[index]
	if t == nil {
		return a.flush()
	}
	delete(a.blocks, index)
	rest, repaired := t.repairer.Flush()
	t.pieces.WriteString(rest)
	t.repaired = t.repaired || repaired
	input := t.pieces.String()
	if input == "" && len(t.whole) > 0 {
		var r llm.Repairer
		input, repaired = r.Text(string(t.whole))
		t.repaired = t.repaired || repaired
	}
	if t.answer {
		if a.structure.wrapped {
			a.textSoFar.Reset() // say counts it
			input = unwrap(input)
		}
		return a.say(input, t.repaired)
	}
	if strings.TrimSpace(input) == "" || input == "null" {
		input = "{}"
	}
	return a.emit(llm.Chunk{ToolCalls: []llm.ToolCall{{ID: t.id, Name: t.name, Arguments: input}}, Repaired: t.repaired})
}

// flush passes on what the repairers hold back.
func (a *answer) flush() error {
	text, repairedText := a.text.Flush()
	think, repairedThink := a.reasoning.Flush()
	if a.structure.tool {
		a.aside.Text += text
		a.aside.Repaired = a.aside.Repaired || repairedText
		text, repairedText = "", false
	}
	text = a.cutter.text(text)
	a.textSoFar.WriteString(text)
	a.thinkSoFar.WriteString(think)
	return a.emit(llm.Chunk{Text: text, Reasoning: think, Repaired: repairedText || repairedThink})
}

// finish yields what is missing after the end marker, at last the finish reason
// with the usage.
func (a *answer) finish(req llm.Request) error {
	for _, index := range slices.Sorted(maps.Keys(a.blocks)) {
		if err := a.stopBlock(index); err != nil {
			return err
		}
	}
	if err := a.flush(); err != nil {
		return err
	}
	if a.structure.tool && !a.structured {
		if err := a.say(a.aside.Text, a.aside.Repaired); err != nil {
			return err
		}
	}
	last := llm.Chunk{Text: a.cutter.flush(), ResponseID: a.id, FinishReason: a.finishReason()}
	a.textSoFar.WriteString(last.Text)
	u, ok := a.usage.read()
	switch {
	case ok && a.cutter.cut && !a.usage.final:
		u = a.estimateOutput(u)
	case !ok, u.OutputTokens == 0 && a.textSoFar.Len()+a.thinkSoFar.Len() > 0:
		u = llm.EstimateUsage(req, a.textSoFar.String(), a.thinkSoFar.String())
	}
	last.Usage = &u
	return a.emit(last)
}

// finishReason translates the provider's word.
func (a *answer) finishReason() string {
	if a.cutter.cut {
		return llm.FinishStop
	}
	switch anthropic.StopReason(a.reason) {
	case anthropic.StopReasonEndTurn, anthropic.StopReasonStopSequence:
		return llm.FinishStop
	case anthropic.StopReasonMaxTokens, anthropic.StopReasonModelContextWindowExceeded:
		return llm.FinishLength
	case anthropic.StopReasonRefusal:
		return llm.FinishContentFilter
	case anthropic.StopReasonToolUse:
		if a.structured {
			return llm.FinishStop
		}
		return llm.FinishToolCalls
	}
	var r llm.Repairer
	word, _ := r.Text(a.reason)
	if word == "" || len(word) > maxName {
		return llm.FinishUnknown
	}
	return word
}

// partialUsage is what an answer that failed had used, as far as the provider has
// said; nil when it has said nothing.
func (a *answer) partialUsage() *llm.Usage {
	u, ok := a.usage.read()
	if !ok {
		return nil
	}
	if !a.usage.final {
		u = a.estimateOutput(u)
	}
	return &u
}

// estimateOutput completes the figures of a call whose output was not counted to
// its end: those of the input are the provider's.
func (a *answer) estimateOutput(u llm.Usage) llm.Usage {
	reasoning := llm.EstimateTokens(a.thinkSoFar.String())
	if output := llm.EstimateTokens(a.textSoFar.String()) + reasoning; output > u.OutputTokens {
		u.OutputTokens, u.ReasoningTokens, u.Estimated = output, reasoning, true
	}
	return u
}
