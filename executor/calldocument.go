package executor

import (
	"encoding/json"

	"github.com/chainstream/chainstream/llm"
)

// callDocument is how a direct call is stored.
type callDocument struct {
	Messages      []messageDocument `json:"messages"`
	Tools         []toolDocument    `json:"tools,omitempty"`
	ToolChoice    string            `json:"toolChoice,omitempty"`
	ParallelTools *bool             `json:"parallelTools,omitempty"`
	Schema        json.RawMessage   `json:"schema,omitempty"`
	Temperature   *float64          `json:"temperature,omitempty"`
	TopP          *float64          `json:"topP,omitempty"`
	MaxTokens     int               `json:"maxTokens,omitempty"`
	Stop          []string          `json:"stop,omitempty"`
	Seed          *int64            `json:"seed,omitempty"`
	Effort        string            `json:"effort,omitempty"`
}

type messageDocument struct {
	Role       llm.Role           `json:"role"`
	Text       string             `json:"text,omitempty"`
	Images     []imageDocument    `json:"images,omitempty"`
	ToolCalls  []toolCallDocument `json:"toolCalls,omitempty"`
	ToolCallID string             `json:"toolCallId,omitempty"`
}

type imageDocument struct {
	URL      string `json:"url,omitempty"`
	MIMEType string `json:"mimeType,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

type toolCallDocument struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
	Signature string `json:"signature,omitempty"`
}

type toolDocument struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      bool            `json:"strict,omitempty"`
}

// documentOf answers how a request is stored; the model is not part of it.
func documentOf(r *llm.Request) callDocument {
	d := callDocument{
		Messages: make([]messageDocument, len(r.Messages)), ToolChoice: r.ToolChoice, ParallelTools: r.ParallelTools, Schema: r.Schema,
		Temperature: r.Temperature, TopP: r.TopP, MaxTokens: r.MaxTokens, Stop: r.Stop, Seed: r.Seed, Effort: r.Effort,
	}
	for i, m := range r.Messages {
		d.Messages[i] = messageDocument{Role: m.Role, Text: m.Text, ToolCallID: m.ToolCallID}
		for _, image := range m.Images {
			d.Messages[i].Images = append(d.Messages[i].Images, imageDocument(image))
		}
		for _, call := range m.ToolCalls {
			d.Messages[i].ToolCalls = append(d.Messages[i].ToolCalls, toolCallDocument(call))
		}
	}
	for _, tool := range r.Tools {
		d.Tools = append(d.Tools, toolDocument(tool))
	}
	return d
}

func (d callDocument) request() *llm.Request {
	r := &llm.Request{
		Messages: make([]llm.Message, len(d.Messages)), ToolChoice: d.ToolChoice, ParallelTools: d.ParallelTools, Schema: d.Schema,
		Temperature: d.Temperature, TopP: d.TopP, MaxTokens: d.MaxTokens, Stop: d.Stop, Seed: d.Seed, Effort: d.Effort,
	}
	for i, m := range d.Messages {
		r.Messages[i] = llm.Message{Role: m.Role, Text: m.Text, ToolCallID: m.ToolCallID}
		for _, image := range m.Images {
			r.Messages[i].Images = append(r.Messages[i].Images, llm.Image(image))
		}
		for _, call := range m.ToolCalls {
			r.Messages[i].ToolCalls = append(r.Messages[i].ToolCalls, llm.ToolCall(call))
		}
	}
	for _, tool := range d.Tools {
		r.Tools = append(r.Tools, llm.Tool(tool))
	}
	return r
}
