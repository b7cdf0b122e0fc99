package llmtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// openAIWire is the format of OpenAI's chat completions.
type openAIWire struct{}

// completionID is the id of every answer.
const completionID = "chatcmpl-fake"

// openAIRequest is the body of a call.
type openAIRequest struct {
	Model               string          `json:"model"`
	Messages            []openAIMessage `json:"messages"`
	Stream              bool            `json:"stream"`
	Temperature         *float64        `json:"temperature"`
	TopP                *float64        `json:"top_p"`
	MaxTokens           int             `json:"max_tokens"`
	MaxCompletionTokens int             `json:"max_completion_tokens"`
	Stop                textList        `json:"stop"`
	Seed                *int64          `json:"seed"`
	Effort              string          `json:"reasoning_effort"`
	ResponseFormat      struct {
		JSONSchema struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
	Tools []struct {
		Function struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Parameters  json.RawMessage `json:"parameters"`
			Strict      bool            `json:"strict"`
		} `json:"function"`
	} `json:"tools"`
	ToolChoice    json.RawMessage `json:"tool_choice"`
	ParallelTools *bool           `json:"parallel_tool_calls"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

type openAIMessage struct {
	Role       llm.Role        `json:"role"`
	Content    json.RawMessage `json:"content"` // a text or a list of parts
	ToolCallID string          `json:"tool_call_id"`
	ToolCalls  []struct {
		ID       string `json:"id"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

type openAIPart struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	ImageURL struct {
		URL    string `json:"url"`
		Detail string `json:"detail"`
	} `json:"image_url"`
}

func (openAIWire) request(_ *http.Request, body []byte) (Request, error) {
	var got openAIRequest
	if err := json.Unmarshal(body, &got); err != nil {
		return Request{Request: llm.Request{Model: got.Model}}, err
	}
	req := Request{
		Request: llm.Request{
			Model:       got.Model,
			Temperature: got.Temperature, TopP: got.TopP,
			MaxTokens:     max(got.MaxTokens, got.MaxCompletionTokens),
			Stop:          got.Stop,
			Seed:          got.Seed,
			Schema:        got.ResponseFormat.JSONSchema.Schema,
			ParallelTools: got.ParallelTools,
			Effort:        got.Effort,
		},
		Stream:    got.Stream,
		WantUsage: got.StreamOptions.IncludeUsage,
	}
	for _, t := range got.Tools {
		f := t.Function
		req.Tools = append(req.Tools, llm.Tool{Name: f.Name, Description: f.Description, Parameters: f.Parameters, Strict: f.Strict})
	}
	var err error
	if req.ToolChoice, err = openAIChoice(got.ToolChoice); err != nil {
		return req, err
	}
	for _, m := range got.Messages {
		message, err := m.message()
		if err != nil {
			return req, err
		}
		req.Messages = append(req.Messages, message)
	}
	return req, nil
}

// openAIChoice reads a tool choice: a word, or the name of a function.
func openAIChoice(data json.RawMessage) (string, error) {
	if len(data) == 0 {
		return llm.ToolChoiceAuto, nil
	}
	var word string
	if json.Unmarshal(data, &word) == nil {
		if word == "auto" {
			word = llm.ToolChoiceAuto
		}
		return word, nil
	}
	var named struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	err := json.Unmarshal(data, &named)
	return named.Function.Name, err
}

func (m openAIMessage) message() (llm.Message, error) {
	message := llm.Message{Role: m.Role, ToolCallID: m.ToolCallID}
	for _, c := range m.ToolCalls {
		message.ToolCalls = append(message.ToolCalls, llm.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments})
	}
	if len(m.Content) == 0 || json.Unmarshal(m.Content, &message.Text) == nil {
		return message, nil
	}
	var parts []openAIPart
	if err := json.Unmarshal(m.Content, &parts); err != nil {
		return message, fmt.Errorf("content: %w", err)
	}
	for _, p := range parts {
		switch p.Type {
		case "text":
			message.Text += p.Text
		case "image_url":
			image, err := openAIImage(p.ImageURL.URL)
			if err != nil {
				return message, err
			}
			image.Detail = p.ImageURL.Detail
			message.Images = append(message.Images, image)
		default:
			return message, fmt.Errorf("content part of type %q", p.Type)
		}
	}
	return message, nil
}

// openAIImage reads an address: of the picture, or with the picture in it.
func openAIImage(address string) (llm.Image, error) {
	data, ok := strings.CutPrefix(address, "data:")
	if !ok {
		return llm.Image{URL: address}, nil
	}
	kind, encoded, ok := strings.Cut(data, ";base64,")
	if !ok {
		return llm.Image{}, fmt.Errorf("image %.40q is not in base64", address)
	}
	picture, err := base64.StdEncoding.DecodeString(encoded)
	return llm.Image{MIMEType: kind, Data: picture}, err
}

func (openAIWire) failure(status int, kind, message string) []byte {
	return encode(openAIError(kind, message))
}

func openAIError(kind, message string) object {
	inner := object{"message": message, "type": kind, "param": nil, "code": nil}
	switch kind {
	case KindNoModel, KindNoEndpoint:
		inner["type"], inner["code"] = KindInvalid, kind
	case KindNotFound:
		inner["type"] = KindInvalid
	case KindRateLimit:
		inner["type"], inner["code"] = "requests", "rate_limit_exceeded"
	}
	return object{"error": inner}
}

func (openAIWire) writer(req Request, _ *Tokens) writer { return &openAIWriter{request: req} }

// openAIWriter writes chat completion chunks.
type openAIWriter struct {
	request Request
	calls   int // so far
}

func (w *openAIWriter) role(b []byte) []byte {
	return w.chunk(b, object{"role": "assistant", "content": ""}, nil)
}

// text is chunk for the usual case, written without maps, because benchmarks
// measure the client.
func (w *openAIWriter) text(b []byte, delta string) []byte {
	b = append(b, `data: {"id":"`+completionID+`","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":`...)
	b = append(b, encode(delta)...)
	return append(b, `},"finish_reason":null}]}`+"\n\n"...)
}

func (w *openAIWriter) reasoning(b []byte, delta string) []byte {
	return w.chunk(b, object{"reasoning_content": delta}, nil)
}

func (w *openAIWriter) toolCall(b []byte, id, name string, pieces []string) []byte {
	index := w.calls
	w.calls++
	b = w.chunk(b, object{"tool_calls": []any{object{
		"index": index, "id": id, "type": "function", "function": object{"name": name, "arguments": ""},
	}}}, nil)
	for _, piece := range pieces {
		b = w.chunk(b, object{"tool_calls": []any{object{"index": index, "function": object{"arguments": piece}}}}, nil)
	}
	return b
}

func (w *openAIWriter) finish(b []byte, reason string) []byte {
	return w.chunk(b, object{}, reason)
}

func (w *openAIWriter) usage(b []byte, u Tokens) []byte {
	if !w.request.WantUsage {
		return b
	}
	return event(b, "", object{
		"id": completionID, "object": "chat.completion.chunk", "model": w.request.Model,
		"choices": []any{}, "usage": openAIUsage(u),
	})
}

func (*openAIWriter) done(b []byte) []byte { return append(b, "data: [DONE]\n\n"...) }

func (*openAIWriter) failure(b []byte, kind, message string) []byte {
	return event(b, "", openAIError(kind, message))
}

func (w *openAIWriter) whole(a wholeAnswer) []byte {
	message := object{"role": "assistant", "content": a.text}
	if a.reasoning != "" {
		message["reasoning_content"] = a.reasoning
	}
	if len(a.calls) > 0 {
		calls := make([]any, 0, len(a.calls))
		for _, c := range a.calls {
			calls = append(calls, object{"id": c.ID, "type": "function", "function": object{"name": c.Name, "arguments": c.Arguments}})
		}
		message["tool_calls"] = calls
		if a.text == "" {
			message["content"] = nil
		}
	}
	answer := object{
		"id": completionID, "object": "chat.completion", "model": w.request.Model,
		"choices": []any{object{"index": 0, "message": message, "finish_reason": a.finish}},
	}
	if a.usage != nil {
		answer["usage"] = openAIUsage(*a.usage)
	}
	return encode(answer)
}

func (w *openAIWriter) chunk(b []byte, delta object, finish any) []byte {
	return event(b, "", object{
		"id": completionID, "object": "chat.completion.chunk", "model": w.request.Model,
		"choices": []any{object{"index": 0, "delta": delta, "finish_reason": finish}},
	})
}

func openAIUsage(u Tokens) object {
	prompt := object{"cached_tokens": u.Cached}
	if u.CacheWrite != 0 {
		prompt["cache_write_tokens"] = u.CacheWrite
	}
	return object{
		"prompt_tokens": u.Input, "completion_tokens": u.Output, "total_tokens": u.Input + u.Output,
		"prompt_tokens_details":     prompt,
		"completion_tokens_details": object{"reasoning_tokens": u.Reasoning},
	}
}
