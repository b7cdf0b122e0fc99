package llmtest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// anthropicWire is the format of Anthropic's messages.
type anthropicWire struct{}

// Ids of every answer and every error.
const (
	messageID = "msg_fake"
	requestID = "req_fake"
)

// anthropicRequest is the body of a call.
type anthropicRequest struct {
	Model         string             `json:"model"`
	System        anthropicContent   `json:"system"`
	Messages      []anthropicMessage `json:"messages"`
	MaxTokens     int                `json:"max_tokens"`
	Stream        bool               `json:"stream"`
	Temperature   *float64           `json:"temperature"`
	TopP          *float64           `json:"top_p"`
	StopSequences []string           `json:"stop_sequences"`
	OutputConfig  struct {
		Effort string `json:"effort"`
		Format struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"format"`
	} `json:"output_config"`
	Tools []struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		InputSchema json.RawMessage `json:"input_schema"`
		Strict      bool            `json:"strict"`
	} `json:"tools"`
	ToolChoice struct {
		Type    string `json:"type"`
		Name    string `json:"name"`
		OnlyOne *bool  `json:"disable_parallel_tool_use"`
	} `json:"tool_choice"`
}

type anthropicMessage struct {
	Role    llm.Role         `json:"role"`
	Content anthropicContent `json:"content"`
}

// anthropicContent is a list of blocks, or one text.
type anthropicContent []anthropicBlock

// UnmarshalJSON implements json.Unmarshaler.
func (c *anthropicContent) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*c = anthropicContent{{Type: "text", Text: text}}
		return nil
	}
	var list []anthropicBlock
	err := json.Unmarshal(data, &list)
	*c = list
	return err
}

type anthropicBlock struct {
	Type      string           `json:"type"`
	Text      string           `json:"text"`
	ID        string           `json:"id"`
	Name      string           `json:"name"`
	Input     json.RawMessage  `json:"input"`
	ToolUseID string           `json:"tool_use_id"`
	Content   anthropicContent `json:"content"`
	Source    struct {
		Type      string `json:"type"`
		URL       string `json:"url"`
		MediaType string `json:"media_type"`
		Data      string `json:"data"`
	} `json:"source"`
}

// request refuses what Anthropic refuses: a missing limit, a conversation that the
// user does not begin, and texts without a letter in them.
func (anthropicWire) request(_ *http.Request, body []byte) (Request, error) {
	var got anthropicRequest
	if err := json.Unmarshal(body, &got); err != nil {
		return Request{Request: llm.Request{Model: got.Model}}, err
	}
	req := Request{
		Request: llm.Request{
			Model:       got.Model,
			Temperature: got.Temperature, TopP: got.TopP,
			MaxTokens: got.MaxTokens,
			Stop:      got.StopSequences,
			Schema:    got.OutputConfig.Format.Schema,
			Effort:    got.OutputConfig.Effort,
		},
		Stream:    got.Stream,
		WantUsage: true,
	}
	for _, t := range got.Tools {
		req.Tools = append(req.Tools, llm.Tool{Name: t.Name, Description: t.Description, Parameters: t.InputSchema, Strict: t.Strict})
	}
	switch got.ToolChoice.Type {
	case "none":
		req.ToolChoice = llm.ToolChoiceNone
	case "any":
		req.ToolChoice = llm.ToolChoiceRequired
	case "tool":
		req.ToolChoice = got.ToolChoice.Name
	}
	if one := got.ToolChoice.OnlyOne; one != nil {
		several := !*one
		req.ParallelTools = &several
	}
	for _, block := range got.System {
		if err := block.check(); err != nil {
			return req, fmt.Errorf("system: %w", err)
		}
		req.Messages = append(req.Messages, llm.Message{Role: llm.RoleSystem, Text: block.Text})
	}
	switch {
	case got.MaxTokens <= 0:
		return req, errors.New("max_tokens: Field required")
	case len(got.Messages) == 0, got.Messages[0].Role != llm.RoleUser:
		return req, errors.New("messages: first message must use the \"user\" role")
	}
	for i, m := range got.Messages {
		list, err := m.messages()
		if err != nil {
			return req, fmt.Errorf("messages.%d: %w", i, err)
		}
		req.Messages = append(req.Messages, list...)
	}
	return req, nil
}

func (b anthropicBlock) check() error {
	if b.Type == "text" && strings.TrimSpace(b.Text) == "" {
		return errors.New("text content blocks must contain non-whitespace text")
	}
	return nil
}

// messages reads a turn: the results of tools are messages of their own.
func (m anthropicMessage) messages() ([]llm.Message, error) {
	var list []llm.Message
	var texts []string
	turn := llm.Message{Role: m.Role}
	if m.Role != llm.RoleUser && m.Role != llm.RoleAssistant {
		return nil, fmt.Errorf("role %q", m.Role)
	}
	for _, block := range m.Content {
		if err := block.check(); err != nil {
			return nil, err
		}
		switch block.Type {
		case "text":
			texts = append(texts, block.Text)
		case "image":
			image := llm.Image{URL: block.Source.URL, MIMEType: block.Source.MediaType}
			if block.Source.Type == "base64" {
				var err error
				if image.Data, err = base64.StdEncoding.DecodeString(block.Source.Data); err != nil {
					return nil, fmt.Errorf("image: %w", err)
				}
			}
			turn.Images = append(turn.Images, image)
		case "tool_use":
			turn.ToolCalls = append(turn.ToolCalls, llm.ToolCall{ID: block.ID, Name: block.Name, Arguments: string(block.Input)})
		case "tool_result":
			result := llm.Message{Role: llm.RoleTool, ToolCallID: block.ToolUseID}
			for _, part := range block.Content {
				result.Text += part.Text
			}
			list = append(list, result)
		default:
			return nil, fmt.Errorf("content block of type %q", block.Type)
		}
	}
	turn.Text = strings.Join(texts, "\n\n")
	if turn.Text != "" || len(turn.Images)+len(turn.ToolCalls) > 0 {
		list = append(list, turn)
	}
	return list, nil
}

func (anthropicWire) failure(_ int, kind, message string) []byte {
	return encode(anthropicError(kind, message))
}

func anthropicError(kind, message string) object {
	switch kind {
	case KindNoModel, KindNoEndpoint:
		kind = KindNotFound
	case KindServer:
		kind = "api_error"
	}
	return object{"type": "error", "error": object{"type": kind, "message": message}, "request_id": requestID}
}

func (anthropicWire) writer(req Request, usage *Tokens) writer {
	return &anthropicWriter{request: req, tokens: usage}
}

// anthropicWriter writes the events of a message: content comes in blocks, one
// after the other.
type anthropicWriter struct {
	request  Request
	tokens   *Tokens
	started  bool
	open     string // kind of the block that has begun; empty = none
	index    int    // of that block, or of the next one
	finished bool
}

func (w *anthropicWriter) role(b []byte) []byte {
	if w.started {
		return b
	}
	w.started = true
	message := w.message(nil)
	message["stop_reason"], message["stop_sequence"] = nil, nil
	if w.tokens != nil {
		message["usage"] = anthropicUsage(Tokens{Input: w.tokens.Input, Cached: w.tokens.Cached, CacheWrite: w.tokens.CacheWrite, Output: min(w.tokens.Output, 1)})
	}
	b = event(b, "message_start", object{"type": "message_start", "message": message})
	return event(b, "ping", object{"type": "ping"})
}

// message is what the start and the whole of an answer have in common.
func (w *anthropicWriter) message(content []any) object {
	if content == nil {
		content = []any{}
	}
	return object{"id": messageID, "type": "message", "role": "assistant", "model": w.request.Model, "content": content}
}

// text writes its delta without maps, because benchmarks measure the client.
func (w *anthropicWriter) text(b []byte, delta string) []byte {
	b = w.begin(b, "text", object{"type": "text", "text": ""})
	b = fmt.Appendf(b, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":%d,\"delta\":{\"type\":\"text_delta\",\"text\":", w.index)
	b = append(b, encode(delta)...)
	return append(b, "}}\n\n"...)
}

func (w *anthropicWriter) reasoning(b []byte, delta string) []byte {
	b = w.begin(b, "thinking", object{"type": "thinking", "thinking": "", "signature": ""})
	return w.delta(b, object{"type": "thinking_delta", "thinking": delta})
}

func (w *anthropicWriter) toolCall(b []byte, id, name string, pieces []string) []byte {
	b = w.end(b)
	b = w.begin(b, "tool_use", object{"type": "tool_use", "id": id, "name": name, "input": object{}})
	for _, piece := range append([]string{""}, pieces...) {
		b = w.delta(b, object{"type": "input_json_delta", "partial_json": piece})
	}
	return w.end(b)
}

// begin starts a block, unless one of its kind goes on.
func (w *anthropicWriter) begin(b []byte, kind string, block object) []byte {
	b = w.role(b)
	if w.open == kind {
		return b
	}
	b = w.end(b)
	w.open = kind
	return event(b, "content_block_start", object{"type": "content_block_start", "index": w.index, "content_block": block})
}

func (w *anthropicWriter) delta(b []byte, delta object) []byte {
	return event(b, "content_block_delta", object{"type": "content_block_delta", "index": w.index, "delta": delta})
}

func (w *anthropicWriter) end(b []byte) []byte {
	if w.open == "" {
		return b
	}
	if w.open == "thinking" {
		b = w.delta(b, object{"type": "signature_delta", "signature": "c2lnbmF0dXJl"})
	}
	b = event(b, "content_block_stop", object{"type": "content_block_stop", "index": w.index})
	w.open = ""
	w.index++
	return b
}

// finish writes the usage as well, which has no event of its own.
func (w *anthropicWriter) finish(b []byte, reason string) []byte {
	b = w.end(w.role(b))
	w.finished = true
	last := object{"type": "message_delta", "delta": object{"stop_reason": anthropicReason(reason), "stop_sequence": nil}}
	if w.tokens != nil {
		last["usage"] = anthropicUsage(*w.tokens)
	}
	return event(b, "message_delta", last)
}

func (w *anthropicWriter) usage(b []byte, u Tokens) []byte {
	if w.finished {
		return b
	}
	return event(w.role(b), "message_delta", object{"type": "message_delta", "delta": object{"stop_reason": nil, "stop_sequence": nil}, "usage": anthropicUsage(u)})
}

func (w *anthropicWriter) done(b []byte) []byte {
	return event(w.end(w.role(b)), "message_stop", object{"type": "message_stop"})
}

func (*anthropicWriter) failure(b []byte, kind, message string) []byte {
	return event(b, "error", anthropicError(kind, message))
}

func (w *anthropicWriter) whole(a wholeAnswer) []byte {
	var content []any
	if a.reasoning != "" {
		content = append(content, object{"type": "thinking", "thinking": a.reasoning, "signature": "c2lnbmF0dXJl"})
	}
	if a.text != "" {
		content = append(content, object{"type": "text", "text": a.text})
	}
	for _, c := range a.calls {
		input := json.RawMessage(c.Arguments)
		if !json.Valid(input) {
			input = json.RawMessage("{}")
		}
		content = append(content, object{"type": "tool_use", "id": c.ID, "name": c.Name, "input": input})
	}
	answer := w.message(content)
	answer["stop_reason"], answer["stop_sequence"] = anthropicReason(a.finish), nil
	if a.usage != nil {
		answer["usage"] = anthropicUsage(*a.usage)
	}
	return encode(answer)
}

// anthropicReason translates a finish reason.
func anthropicReason(reason string) string {
	switch reason {
	case llm.FinishStop:
		return "end_turn"
	case llm.FinishLength:
		return "max_tokens"
	case llm.FinishToolCalls:
		return "tool_use"
	case llm.FinishContentFilter:
		return "refusal"
	}
	return reason
}

// anthropicUsage counts what the cache has to do with beside the input.
func anthropicUsage(u Tokens) object {
	usage := object{
		"input_tokens": u.Input - u.Cached - u.CacheWrite, "output_tokens": u.Output,
		"cache_creation_input_tokens": u.CacheWrite, "cache_read_input_tokens": u.Cached,
	}
	if u.Reasoning != 0 {
		usage["output_tokens_details"] = object{"thinking_tokens": u.Reasoning}
	}
	return usage
}
