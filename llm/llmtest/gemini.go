package llmtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// geminiWire is the format of Gemini's generateContent.
type geminiWire struct{}

// geminiResponseID is the id of every answer.
const geminiResponseID = "fake-response"

// geminiUnsigned stands for the signature of a call that has none.
const geminiUnsigned = "skip_thought_signature_validator"

// geminiRequest is the body of a call.
type geminiRequest struct {
	System   geminiContent   `json:"systemInstruction"`
	Contents []geminiContent `json:"contents"`
	Tools    []struct {
		Functions []struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Schema      json.RawMessage `json:"parametersJsonSchema"`
			Parameters  json.RawMessage `json:"parameters"` // in OpenAPI's dialect
		} `json:"functionDeclarations"`
	} `json:"tools"`
	ToolConfig struct {
		Calling struct {
			Mode    string   `json:"mode"`
			Allowed []string `json:"allowedFunctionNames"`
		} `json:"functionCallingConfig"`
	} `json:"toolConfig"`
	Config struct {
		Temperature    *float64        `json:"temperature"`
		TopP           *float64        `json:"topP"`
		MaxTokens      int             `json:"maxOutputTokens"`
		Stop           []string        `json:"stopSequences"`
		Seed           *int64          `json:"seed"`
		JSONSchema     json.RawMessage `json:"responseJsonSchema"`
		ResponseSchema json.RawMessage `json:"responseSchema"` // in OpenAPI's dialect
		Thinking       struct {
			Level  string `json:"thinkingLevel"`
			Budget *int64 `json:"thinkingBudget"`
		} `json:"thinkingConfig"`
	} `json:"generationConfig"`
}

type geminiContent struct {
	Role  string       `json:"role"`
	Parts []geminiPart `json:"parts"`
}

type geminiPart struct {
	Text       string `json:"text"`
	InlineData *struct {
		MIMEType string `json:"mimeType"`
		Data     []byte `json:"data"`
	} `json:"inlineData"`
	FileData *struct {
		URI string `json:"fileUri"`
	} `json:"fileData"`
	Call *struct {
		ID   string          `json:"id"`
		Name string          `json:"name"`
		Args json.RawMessage `json:"args"`
	} `json:"functionCall"`
	Response *struct {
		ID       string          `json:"id"`
		Name     string          `json:"name"`
		Response json.RawMessage `json:"response"`
	} `json:"functionResponse"`
	Signature string `json:"thoughtSignature"`
}

func (geminiWire) request(r *http.Request, body []byte) (Request, error) {
	req := Request{
		Request:   llm.Request{Model: geminiModel(r.URL.Path)},
		Stream:    strings.HasSuffix(r.URL.Path, ":streamGenerateContent"),
		WantUsage: true,
	}
	var got geminiRequest
	if err := json.Unmarshal(body, &got); err != nil {
		return req, err
	}
	config := got.Config
	req.Temperature, req.TopP, req.MaxTokens, req.Stop, req.Seed = config.Temperature, config.TopP, config.MaxTokens, config.Stop, config.Seed
	req.Schema = config.JSONSchema
	if len(req.Schema) == 0 {
		req.Schema = config.ResponseSchema
	}
	req.Effort = strings.ToLower(config.Thinking.Level)
	if config.Thinking.Budget != nil {
		req.Effort = strconv.FormatInt(*config.Thinking.Budget, 10)
	}
	calling := got.ToolConfig.Calling
	for _, tool := range got.Tools {
		for _, f := range tool.Functions {
			parameters := f.Schema
			if len(parameters) == 0 {
				parameters = f.Parameters
			}
			req.Tools = append(req.Tools, llm.Tool{
				Name: f.Name, Description: f.Description, Parameters: parameters, Strict: calling.Mode == "VALIDATED",
			})
		}
	}
	switch {
	case calling.Mode == "NONE":
		req.ToolChoice = llm.ToolChoiceNone
	case calling.Mode == "ANY" && len(calling.Allowed) == 1:
		req.ToolChoice = calling.Allowed[0]
	case calling.Mode == "ANY":
		req.ToolChoice = llm.ToolChoiceRequired
	}
	if text := got.System.text(); text != "" {
		req.Messages = append(req.Messages, llm.Message{Role: llm.RoleSystem, Text: text})
	}
	for _, content := range got.Contents {
		messages, err := content.messages()
		if err != nil {
			return req, err
		}
		req.Messages = append(req.Messages, messages...)
	}
	return req, got.check()
}

// check refuses what Gemini refuses and callers stumble over.
func (g geminiRequest) check() error {
	if len(g.Contents) == 0 {
		return errors.New("contents: contents is not specified")
	}
	if n := len(g.Config.Stop); n > 5 {
		return fmt.Errorf("the number of stop sequences is %d, the limit is 5", n)
	}
	for i, content := range g.Contents {
		if len(content.Parts) == 0 {
			return fmt.Errorf("contents[%d].parts: must not be empty", i)
		}
		for j, p := range content.Parts {
			if p.Text == "" && p.InlineData == nil && p.FileData == nil && p.Call == nil && p.Response == nil {
				return fmt.Errorf("contents[%d].parts[%d].data: required oneof field 'data' must have one initialized field", i, j)
			}
		}
	}
	return nil
}

// geminiModel finds the name of the model in a path.
func geminiModel(path string) string {
	path = path[:strings.LastIndexByte(path, ':')]
	if _, name, found := strings.Cut(path, "/models/"); found {
		return name
	}
	return path[strings.LastIndexByte(path, '/')+1:]
}

func (c geminiContent) text() string {
	var text strings.Builder
	for _, p := range c.Parts {
		text.WriteString(p.Text)
	}
	return text.String()
}

// messages returns what a content says: one message, or one for each result of a
// tool in it.
func (c geminiContent) messages() ([]llm.Message, error) {
	message := llm.Message{Role: llm.RoleUser, Text: c.text()}
	switch c.Role {
	case "", "user", "function":
	case "model":
		message.Role = llm.RoleAssistant
	default:
		return nil, fmt.Errorf("role %q: please use a valid role: user, model", c.Role)
	}
	var results []llm.Message
	for _, p := range c.Parts {
		switch {
		case p.InlineData != nil:
			message.Images = append(message.Images, llm.Image{MIMEType: p.InlineData.MIMEType, Data: p.InlineData.Data})
		case p.FileData != nil:
			message.Images = append(message.Images, llm.Image{URL: p.FileData.URI})
		case p.Call != nil:
			call := llm.ToolCall{ID: p.Call.ID, Name: p.Call.Name, Arguments: string(p.Call.Args), Signature: p.Signature}
			if call.Signature == geminiUnsigned {
				call.Signature = ""
			}
			message.ToolCalls = append(message.ToolCalls, call)
		case p.Response != nil:
			results = append(results, llm.Message{Role: llm.RoleTool, ToolCallID: p.Response.ID, Text: geminiResult(p.Response.Response)})
		}
	}
	if len(results) > 0 && message.Text == "" && len(message.Images)+len(message.ToolCalls) == 0 {
		return results, nil
	}
	return append(results, message), nil
}

// geminiResult returns the output in the result of a tool, where it is a text.
func geminiResult(response json.RawMessage) string {
	var result map[string]json.RawMessage
	var output string
	if json.Unmarshal(response, &result) == nil && len(result) == 1 && json.Unmarshal(result["output"], &output) == nil {
		return output
	}
	return string(response)
}

// geminiStatus returns Google's word and HTTP status for a kind of error.
func geminiStatus(kind string) (string, int) {
	switch kind {
	case KindInvalid:
		return "INVALID_ARGUMENT", http.StatusBadRequest
	case KindUnauthorized:
		return "UNAUTHENTICATED", http.StatusUnauthorized
	case KindForbidden:
		return "PERMISSION_DENIED", http.StatusForbidden
	case KindNotFound, KindNoModel, KindNoEndpoint:
		return "NOT_FOUND", http.StatusNotFound
	case KindRateLimit:
		return "RESOURCE_EXHAUSTED", http.StatusTooManyRequests
	case KindOverloaded:
		return "UNAVAILABLE", http.StatusServiceUnavailable
	case KindServer:
		return "INTERNAL", http.StatusInternalServerError
	}
	return kind, http.StatusInternalServerError
}

func (geminiWire) failure(status int, kind, message string) []byte {
	return encode(geminiError(status, kind, message))
}

// geminiError is an error's body; the status is that of the kind when it is 0.
func geminiError(status int, kind, message string) object {
	word, usual := geminiStatus(kind)
	if status == 0 {
		status = usual
	}
	return object{"error": object{"code": status, "message": message, "status": word}}
}

func (geminiWire) writer(req Request, usage *Tokens) writer {
	return &geminiWriter{request: req, tokens: usage}
}

// geminiWriter writes pieces of a GenerateContentResponse. Each has the usage so
// far, and that with the finish reason the whole of it.
type geminiWriter struct {
	request  Request
	tokens   *Tokens
	reported bool // the whole usage
}

func (*geminiWriter) role(b []byte) []byte { return b } // it comes with every piece

func (w *geminiWriter) text(b []byte, delta string) []byte {
	return w.piece(b, object{"text": delta})
}

func (w *geminiWriter) reasoning(b []byte, delta string) []byte {
	return w.piece(b, object{"text": delta, "thought": true})
}

// toolCall writes the call in one piece: Gemini does not stream arguments.
func (w *geminiWriter) toolCall(b []byte, id, name string, pieces []string) []byte {
	return w.piece(b, geminiCall(llm.ToolCall{ID: id, Name: name, Arguments: strings.Join(pieces, "")}))
}

func geminiCall(call llm.ToolCall) object {
	function := object{"name": call.Name, "args": object{}}
	if call.ID != "" {
		function["id"] = call.ID
	}
	switch {
	case call.Arguments == "":
	case json.Valid([]byte(call.Arguments)):
		function["args"] = json.RawMessage(call.Arguments)
	default: // not possible in JSON but as a text
		function["args"] = call.Arguments
	}
	return object{"functionCall": function}
}

func (w *geminiWriter) finish(b []byte, reason string) []byte {
	answer := w.answer([]object{{"text": ""}}, geminiReason(reason))
	if w.tokens != nil {
		answer["usageMetadata"] = geminiUsage(*w.tokens)
		w.reported = true
	}
	return event(b, "", answer)
}

func geminiReason(reason string) string {
	switch reason {
	case llm.FinishStop, llm.FinishToolCalls:
		return "STOP"
	case llm.FinishLength:
		return "MAX_TOKENS"
	case llm.FinishContentFilter:
		return "SAFETY"
	}
	return reason
}

// usage writes the usage if it has not come with the finish reason.
func (w *geminiWriter) usage(b []byte, u Tokens) []byte {
	if w.reported {
		return b
	}
	return event(b, "", object{"usageMetadata": geminiUsage(u), "modelVersion": w.request.Model, "responseId": geminiResponseID})
}

func (*geminiWriter) done(b []byte) []byte { return b } // the finish reason is the end marker

func (*geminiWriter) failure(b []byte, kind, message string) []byte {
	return event(b, "", geminiError(0, kind, message))
}

func (w *geminiWriter) whole(a wholeAnswer) []byte {
	var parts []object
	if a.reasoning != "" {
		parts = append(parts, object{"text": a.reasoning, "thought": true})
	}
	if a.text != "" || len(a.calls) == 0 {
		parts = append(parts, object{"text": a.text})
	}
	for _, call := range a.calls {
		parts = append(parts, geminiCall(call))
	}
	answer := w.answer(parts, geminiReason(a.finish))
	if a.usage != nil {
		answer["usageMetadata"] = geminiUsage(*a.usage)
	}
	return encode(answer)
}

// piece writes one part, and of the usage what is known before the end.
func (w *geminiWriter) piece(b []byte, part object) []byte {
	answer := w.answer([]object{part}, "")
	if w.tokens != nil {
		answer["usageMetadata"] = object{"promptTokenCount": w.tokens.Input, "totalTokenCount": w.tokens.Input}
	}
	return event(b, "", answer)
}

func (w *geminiWriter) answer(parts []object, reason string) object {
	candidate := object{"content": object{"parts": parts, "role": "model"}, "index": 0}
	if reason != "" {
		candidate["finishReason"] = reason
	}
	return object{"candidates": []object{candidate}, "modelVersion": w.request.Model, "responseId": geminiResponseID}
}

func geminiUsage(u Tokens) object {
	usage := object{
		"promptTokenCount": u.Input, "candidatesTokenCount": u.Output - u.Reasoning, "totalTokenCount": u.Input + u.Output,
		"promptTokensDetails": []object{{"modality": "TEXT", "tokenCount": u.Input}},
	}
	if u.Cached != 0 {
		usage["cachedContentTokenCount"] = u.Cached
	}
	if u.Reasoning != 0 {
		usage["thoughtsTokenCount"] = u.Reasoning
	}
	return usage
}
