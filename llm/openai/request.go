package openai

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sashabaranov/go-openai"

	"github.com/chainstream/chainstream/llm"
)

// wireRequest fills in what go-openai's request can express.
func wireRequest(req llm.Request) (openai.ChatCompletionRequest, error) {
	wire := openai.ChatCompletionRequest{
		Model:         req.Model,
		Messages:      make([]openai.ChatCompletionMessage, 0, len(req.Messages)),
		Stop:          req.Stop,
		StreamOptions: &openai.StreamOptions{IncludeUsage: true},
	}
	for i, m := range req.Messages {
		message, err := wireMessage(m)
		if err != nil {
			return wire, fmt.Errorf("message %d: %w", i+1, err)
		}
		wire.Messages = append(wire.Messages, message)
	}
	if req.Seed != nil {
		seed := int(*req.Seed)
		wire.Seed = &seed
	}
	if len(req.Schema) > 0 {
		wire.ResponseFormat = &openai.ChatCompletionResponseFormat{
			Type: openai.ChatCompletionResponseFormatTypeJSONSchema,
			// Strict mode takes a subset of JSON Schema only. Outside of it, the
			// answer is checked by whoever asked for it.
			JSONSchema: &openai.ChatCompletionResponseFormatJSONSchema{Name: "answer", Schema: req.Schema, Strict: strictSchema(req.Schema)},
		}
	}
	return wire, nil
}

func wireMessage(m llm.Message) (openai.ChatCompletionMessage, error) {
	message := openai.ChatCompletionMessage{Role: string(m.Role), Content: m.Text, ToolCallID: m.ToolCallID}
	for _, c := range m.ToolCalls {
		arguments := c.Arguments
		if arguments == "" { // which go-openai leaves out
			arguments = "{}"
		}
		message.ToolCalls = append(message.ToolCalls, openai.ToolCall{
			ID: c.ID, Type: openai.ToolTypeFunction, Function: openai.FunctionCall{Name: c.Name, Arguments: arguments},
		})
	}
	if len(m.Images) > 0 {
		message.Content = ""
		for _, image := range m.Images {
			part, err := wireImage(image)
			if err != nil {
				return message, err
			}
			message.MultiContent = append(message.MultiContent, part)
		}
		if m.Text != "" {
			message.MultiContent = append(message.MultiContent, openai.ChatMessagePart{Type: openai.ChatMessagePartTypeText, Text: m.Text})
		}
		return message, nil
	}
	if m.Text == "" && len(m.ToolCalls) == 0 {
		// go-openai leaves an empty content out, which servers refuse.
		message.Content = " "
	}
	return message, nil
}

func wireImage(image llm.Image) (openai.ChatMessagePart, error) {
	address := image.URL
	if address == "" {
		if image.MIMEType == "" || len(image.Data) == 0 {
			return openai.ChatMessagePart{}, errors.New("an image has neither an address nor bytes of a known type")
		}
		address = "data:" + image.MIMEType + ";base64," + base64.StdEncoding.EncodeToString(image.Data)
	}
	return openai.ChatMessagePart{
		Type:     openai.ChatMessagePartTypeImageURL,
		ImageURL: &openai.ChatMessageImageURL{URL: address, Detail: openai.ImageURLDetail(image.Detail)},
	}, nil
}

// extraFields encodes what go-openai's request cannot express: it leaves out a
// temperature of zero, rounds to 32 bits, and refuses by its own list of models
// parameters that are the server's to judge.
func (p *Provider) extraFields(req llm.Request) ([]byte, error) {
	fields := struct {
		Temperature         *float64   `json:"temperature,omitempty"`
		TopP                *float64   `json:"top_p,omitempty"`
		MaxTokens           int        `json:"max_tokens,omitempty"`
		MaxCompletionTokens int        `json:"max_completion_tokens,omitempty"`
		Effort              string     `json:"reasoning_effort,omitempty"`
		Tools               []wireTool `json:"tools,omitempty"`
		ToolChoice          any        `json:"tool_choice,omitempty"`
		ParallelTools       *bool      `json:"parallel_tool_calls,omitempty"`
	}{Temperature: req.Temperature, TopP: req.TopP, Effort: req.Effort}
	if p.maxCompletionTokens {
		fields.MaxCompletionTokens = req.MaxTokens
	} else {
		fields.MaxTokens = req.MaxTokens
	}
	if len(req.Tools) > 0 { // without them, servers refuse the other two
		fields.Tools, fields.ToolChoice, fields.ParallelTools = wireTools(req.Tools), wireChoice(req.ToolChoice), req.ParallelTools
	}
	data, err := json.Marshal(fields)
	if err != nil { // a temperature that is not a number, parameters that are not JSON
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	return data, nil
}
