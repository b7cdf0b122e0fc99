package anthropic

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/param"

	"github.com/chainstream/chainstream/llm"
)

// call is a request as the API takes it, and what of it is left to do here.
type call struct {
	params    anthropic.MessageNewParams
	structure structure
	cutAt     []string // stop texts that the API refuses
}

// placeholder stands for a text that is needed and was not given: the API refuses
// empty ones, and ones of white space.
const placeholder = "(empty)"

// prepare translates a request. What a model does not take is left out where the
// answer is still what was asked for: see the documentation of the provider.
func (p *Provider) prepare(req llm.Request) (call, error) {
	model := versionOf(req.Model)
	c := call{params: anthropic.MessageNewParams{Model: req.Model, MaxTokens: int64(req.MaxTokens)}}
	if req.MaxTokens <= 0 {
		c.params.MaxTokens = int64(p.maxTokens)
		if p.maxTokens <= 0 {
			c.params.MaxTokens = int64(model.maxTokens())
		}
	}
	c.params.System, c.params.Messages = conversation(req.Messages)
	for _, stop := range req.Stop {
		switch {
		case stop == "":
		case strings.TrimSpace(stop) == "":
			c.cutAt = append(c.cutAt, stop)
		default:
			c.params.StopSequences = append(c.params.StopSequences, stop)
		}
	}
	tools(&c.params, req, model)
	c.askForSchema(req, model)
	thinks, err := think(&c.params, req, model)
	if err != nil {
		return c, err
	}
	if model < noSampling && !thinks {
		sample(&c.params, req, model)
	}
	if p.cachePrompts {
		markForCache(&c.params, req)
	}
	return c, nil
}

// sample sets how the answer is drawn. The scale of the temperature ends at 1
// here.
func sample(params *anthropic.MessageNewParams, req llm.Request, model version) {
	if req.Temperature != nil {
		params.Temperature = anthropic.Float(min(*req.Temperature, 1))
	}
	if req.TopP != nil && (req.Temperature == nil || model < oneSampling) {
		params.TopP = anthropic.Float(*req.TopP)
	}
}

// think asks for thinking, and reports whether it did. Where a tool is forced, the
// API allows none.
func think(params *anthropic.MessageNewParams, req llm.Request, model version) (bool, error) {
	forced := params.ToolChoice.OfAny != nil || params.ToolChoice.OfTool != nil
	effort := req.Effort
	if effort == "" {
		return false, nil
	}
	if model >= adaptive {
		if effort == "none" || effort == "minimal" {
			params.OutputConfig.Effort = anthropic.OutputConfigEffortLow
			return false, nil
		}
		params.OutputConfig.Effort = anthropic.OutputConfigEffort(effort)
		if forced {
			return false, nil
		}
		params.Thinking.OfAdaptive = &anthropic.ThinkingConfigAdaptiveParam{Display: anthropic.ThinkingConfigAdaptiveDisplaySummarized}
		return true, nil
	}
	// Older models are given a budget, which is part of the limit of the answer.
	var budget int64
	switch effort {
	case "none", "minimal":
		return false, nil
	case "low":
		budget = params.MaxTokens / 8
	case "medium":
		budget = params.MaxTokens / 4
	case "high":
		budget = params.MaxTokens / 2
	case "xhigh", "max":
		budget = params.MaxTokens / 4 * 3
	default:
		return false, fmt.Errorf("effort %q is none of none, minimal, low, medium, high, xhigh and max", effort)
	}
	// With a budget, the API wants the thinking that led to a call of a tool back
	// with its result, and nobody has kept it.
	answered := len(req.Messages) > 0 && req.Messages[len(req.Messages)-1].Role == llm.RoleTool
	if forced || answered || params.MaxTokens < 2*leastBudget {
		return false, nil
	}
	params.Thinking = anthropic.ThinkingConfigParamOfEnabled(max(budget, leastBudget))
	return true, nil
}

// leastBudget is the smallest budget for thinking that the API takes.
const leastBudget = 1024

// conversation translates messages. The system has a place of its own; all others
// are turns of two speakers, and the first one is the user's.
func conversation(list []llm.Message) ([]anthropic.TextBlockParam, []anthropic.MessageParam) {
	var system []anthropic.TextBlockParam
	var turns []anthropic.MessageParam
	say := func(role anthropic.MessageParamRole, blocks ...anthropic.ContentBlockParamUnion) {
		if len(blocks) == 0 {
			return
		}
		if len(turns) == 0 && role != anthropic.MessageParamRoleUser {
			turns = append(turns, anthropic.NewUserMessage(anthropic.NewTextBlock(placeholder)))
		}
		if n := len(turns); n > 0 && turns[n-1].Role == role {
			turns[n-1].Content = append(turns[n-1].Content, blocks...)
			return
		}
		turns = append(turns, anthropic.MessageParam{Role: role, Content: blocks})
	}
	for _, m := range list {
		switch m.Role {
		case llm.RoleSystem:
			if !blank(m.Text) {
				system = append(system, anthropic.TextBlockParam{Text: m.Text})
			}
		case llm.RoleAssistant:
			say(anthropic.MessageParamRoleAssistant, spoken(m)...)
		case llm.RoleTool:
			result := anthropic.ToolResultBlockParam{ToolUseID: callID(m.ToolCallID)}
			if !blank(m.Text) {
				result.Content = []anthropic.ToolResultBlockParamContentUnion{{OfText: &anthropic.TextBlockParam{Text: m.Text}}}
			}
			say(anthropic.MessageParamRoleUser, anthropic.ContentBlockParamUnion{OfToolResult: &result})
		default:
			say(anthropic.MessageParamRoleUser, asked(m)...)
		}
	}
	if len(turns) == 0 {
		say(anthropic.MessageParamRoleUser, anthropic.NewTextBlock(placeholder))
	}
	// An answer that is to be continued must not end in white space.
	if last := turns[len(turns)-1]; last.Role == anthropic.MessageParamRoleAssistant {
		if text := last.Content[len(last.Content)-1].OfText; text != nil {
			text.Text = strings.TrimRight(text.Text, " \t\r\n")
		}
	}
	return system, turns
}

func blank(text string) bool { return strings.TrimSpace(text) == "" }

// asked translates what a user said.
func asked(m llm.Message) []anthropic.ContentBlockParamUnion {
	blocks := make([]anthropic.ContentBlockParamUnion, 0, len(m.Images)+1)
	for _, image := range m.Images {
		if image.URL != "" {
			blocks = append(blocks, anthropic.NewImageBlock(anthropic.URLImageSourceParam{URL: image.URL}))
			continue
		}
		blocks = append(blocks, anthropic.NewImageBlockBase64(image.MIMEType, base64.StdEncoding.EncodeToString(image.Data)))
	}
	if !blank(m.Text) {
		blocks = append(blocks, anthropic.NewTextBlock(m.Text))
	}
	if len(blocks) == 0 {
		blocks = append(blocks, anthropic.NewTextBlock(placeholder))
	}
	return blocks
}

// spoken translates what the model said; nothing when it said nothing.
func spoken(m llm.Message) []anthropic.ContentBlockParamUnion {
	var blocks []anthropic.ContentBlockParamUnion
	if !blank(m.Text) {
		blocks = append(blocks, anthropic.NewTextBlock(m.Text))
	}
	for _, c := range m.ToolCalls {
		blocks = append(blocks, anthropic.NewToolUseBlock(callID(c.ID), arguments(c.Arguments), c.Name))
	}
	return blocks
}

// arguments is the input of a tool, which has to be an object.
func arguments(text string) any {
	var object map[string]json.RawMessage
	switch {
	case blank(text):
		return json.RawMessage("{}")
	case json.Unmarshal([]byte(text), &object) != nil || object == nil:
		return map[string]string{"input": text}
	}
	return json.RawMessage(text)
}

// callID makes the id of a tool call, perhaps of another provider, one that the
// API takes.
func callID(id string) string {
	if id == "" {
		return "call"
	}
	return strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9') || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, id)
}

// tools sets the tools and the choice among them. A conversation that has calls of
// tools must name the tools, even if none may be called any more.
func tools(params *anthropic.MessageNewParams, req llm.Request, model version) {
	for _, t := range req.Tools {
		tool := anthropic.ToolParam{Name: t.Name, InputSchema: inputSchema(t.Parameters)}
		if t.Description != "" {
			tool.Description = anthropic.String(t.Description)
		}
		if t.Strict && model >= nativeSchema {
			if schema, ok := narrowed(t.Parameters); ok {
				tool.InputSchema, tool.Strict = inputSchema(schema), anthropic.Bool(true)
			}
		}
		params.Tools = append(params.Tools, anthropic.ToolUnionParam{OfTool: &tool})
	}
	choice := req.ToolChoice
	if len(params.Tools) == 0 {
		for _, name := range called(req.Messages) {
			params.Tools = append(params.Tools, anthropic.ToolUnionParamOfTool(inputSchema(nil), name))
		}
		if choice = llm.ToolChoiceNone; len(params.Tools) == 0 {
			return
		}
	}
	var one param.Opt[bool]
	if req.ParallelTools != nil {
		one = anthropic.Bool(!*req.ParallelTools)
	}
	switch choice {
	case llm.ToolChoiceAuto:
		if req.ParallelTools != nil {
			params.ToolChoice.OfAuto = &anthropic.ToolChoiceAutoParam{DisableParallelToolUse: one}
		}
	case llm.ToolChoiceNone:
		none := anthropic.NewToolChoiceNoneParam()
		params.ToolChoice.OfNone = &none
	case llm.ToolChoiceRequired:
		params.ToolChoice.OfAny = &anthropic.ToolChoiceAnyParam{DisableParallelToolUse: one}
	default:
		params.ToolChoice.OfTool = &anthropic.ToolChoiceToolParam{Name: choice, DisableParallelToolUse: one}
	}
}

// called lists the tools that were called in a conversation.
func called(list []llm.Message) []string {
	var names []string
	seen := map[string]bool{}
	for _, m := range list {
		for _, c := range m.ToolCalls {
			if !seen[c.Name] {
				seen[c.Name] = true
				names = append(names, c.Name)
			}
		}
	}
	return names
}

// inputSchema passes a schema on as it was written.
func inputSchema(schema json.RawMessage) anthropic.ToolInputSchemaParam {
	if len(schema) == 0 {
		schema = json.RawMessage(`{"type":"object"}`)
	}
	return param.Override[anthropic.ToolInputSchemaParam](schema)
}

// leastCached is the shortest prompt in tokens that any model keeps. Models that
// keep only longer ones take no notice of the mark, so that it is never an error.
const leastCached = 1024

// markForCache marks the end of what is likely to come again: the tools with the
// system prompt, and the conversation but for its last turn.
func markForCache(params *anthropic.MessageNewParams, req llm.Request) {
	if len(params.Messages) == 0 {
		return
	}
	var tokens int64
	for _, t := range req.Tools {
		tokens += llm.EstimateTokens(t.Name + t.Description + string(t.Parameters))
	}
	for _, block := range params.System {
		tokens += llm.EstimateTokens(block.Text)
	}
	mark := anthropic.NewCacheControlEphemeralParam()
	if n := len(params.System); n > 0 && tokens > leastCached {
		params.System[n-1].CacheControl = mark
	}
	history := params.Messages[:len(params.Messages)-1]
	for _, m := range req.Messages {
		if m.Role != llm.RoleSystem {
			tokens += llm.EstimateTokens(m.Text)
		}
	}
	if len(history) == 0 || tokens <= leastCached {
		return
	}
	content := history[len(history)-1].Content
	if at := content[len(content)-1].GetCacheControl(); at != nil {
		*at = mark
	}
}
