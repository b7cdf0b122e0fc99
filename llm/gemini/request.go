package gemini

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// The body of a request. See Google's reference of the Gemini API,
// "models.generateContent".
type wireRequest struct {
	SystemInstruction *wireContent    `json:"systemInstruction,omitempty"`
	Contents          []wireContent   `json:"contents"`
	Tools             []wireTools     `json:"tools,omitempty"`
	ToolConfig        *wireToolConfig `json:"toolConfig,omitempty"`
	GenerationConfig  wireGeneration  `json:"generationConfig,omitzero"`
}

type wireContent struct {
	Role  string     `json:"role,omitempty"`
	Parts []wirePart `json:"parts"`
}

type wirePart struct {
	Text             string        `json:"text,omitempty"`
	InlineData       *wireBlob     `json:"inlineData,omitempty"`
	FileData         *wireFile     `json:"fileData,omitempty"`
	FunctionCall     *wireCall     `json:"functionCall,omitempty"`
	FunctionResponse *wireResponse `json:"functionResponse,omitempty"`
	ThoughtSignature string        `json:"thoughtSignature,omitempty"`
}

type wireBlob struct {
	MIMEType string `json:"mimeType"`
	Data     []byte `json:"data"`
}

type wireFile struct {
	MIMEType string `json:"mimeType,omitempty"`
	URI      string `json:"fileUri"`
}

type wireCall struct {
	ID   string          `json:"id,omitempty"`
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

type wireResponse struct {
	ID       string          `json:"id,omitempty"`
	Name     string          `json:"name"`
	Response json.RawMessage `json:"response"`
}

type wireTools struct {
	Declarations []wireFunction `json:"functionDeclarations"`
}

type wireFunction struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parametersJsonSchema,omitempty"`
}

type wireToolConfig struct {
	Calling struct {
		Mode    string   `json:"mode"`
		Allowed []string `json:"allowedFunctionNames,omitempty"`
	} `json:"functionCallingConfig"`
}

type wireGeneration struct {
	Temperature     *float64        `json:"temperature,omitempty"`
	TopP            *float64        `json:"topP,omitempty"`
	MaxOutputTokens int             `json:"maxOutputTokens,omitempty"`
	StopSequences   []string        `json:"stopSequences,omitempty"`
	Seed            *int64          `json:"seed,omitempty"`
	MIMEType        string          `json:"responseMimeType,omitempty"`
	Schema          json.RawMessage `json:"responseJsonSchema,omitempty"`
	Thinking        *wireThinking   `json:"thinkingConfig,omitempty"`
}

type wireThinking struct {
	IncludeThoughts bool   `json:"includeThoughts,omitempty"`
	Budget          *int64 `json:"thinkingBudget,omitempty"`
	Level           string `json:"thinkingLevel,omitempty"`
}

// maxStops is how many stop texts the API takes.
const maxStops = 5

// encode writes the body of a request. Its errors are what Gemini would refuse,
// in clearer words.
func encode(req llm.Request) ([]byte, error) {
	if len(req.Stop) > maxStops {
		return nil, fmt.Errorf("Gemini takes at most %d stop texts, not %d", maxStops, len(req.Stop)) //nolint:staticcheck // a name
	}
	if req.Seed != nil && (*req.Seed > math.MaxInt32 || *req.Seed < math.MinInt32) {
		return nil, fmt.Errorf("Gemini takes a seed of 32 bits, not %d", *req.Seed) //nolint:staticcheck // a name
	}
	body := wireRequest{GenerationConfig: wireGeneration{
		Temperature: req.Temperature, TopP: req.TopP, MaxOutputTokens: req.MaxTokens,
		StopSequences: req.Stop, Seed: req.Seed, Thinking: thinking(req.Model, req.Effort),
	}}
	if len(req.Schema) > 0 {
		body.GenerationConfig.MIMEType = "application/json"
		body.GenerationConfig.Schema = req.Schema
	}
	if err := body.converse(req); err != nil {
		return nil, err
	}
	body.offer(req)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil { // a temperature that is not a number, a schema that is no JSON
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	return out.Bytes(), nil
}

// converse fills in the conversation. Gemini refuses parts without text and a
// conversation of nothing but instructions; a space stands for them.
func (w *wireRequest) converse(req llm.Request) error {
	names := map[string]string{} // of tools, by the call that an answer names
	answers := false             // the last content holds results of tools
	for _, m := range req.Messages {
		switch m.Role {
		case llm.RoleSystem:
			if m.Text == "" {
				continue
			}
			if w.SystemInstruction == nil {
				w.SystemInstruction = &wireContent{}
			}
			w.SystemInstruction.Parts = append(w.SystemInstruction.Parts, wirePart{Text: m.Text})
			continue
		case llm.RoleTool:
			name, ok := names[m.ToolCallID]
			if !ok {
				return fmt.Errorf("the result of the tool call %q comes without the call", m.ToolCallID)
			}
			if !answers { // all results of one turn belong together
				w.Contents = append(w.Contents, wireContent{Role: "user"})
			}
			answers = true
			last := &w.Contents[len(w.Contents)-1]
			last.Parts = append(last.Parts, wirePart{FunctionResponse: &wireResponse{
				ID: m.ToolCallID, Name: name, Response: object(m.Text, "output"),
			}})
			continue
		case llm.RoleAssistant:
			w.Contents = append(w.Contents, wireContent{Role: "model", Parts: assistantParts(req.Model, m)})
			for _, call := range m.ToolCalls {
				names[call.ID] = call.Name
			}
		default:
			parts, err := userParts(m)
			if err != nil {
				return err
			}
			w.Contents = append(w.Contents, wireContent{Role: "user", Parts: parts})
		}
		answers = false
	}
	if len(w.Contents) == 0 {
		w.Contents = []wireContent{{Role: "user", Parts: []wirePart{{Text: " "}}}}
	}
	return nil
}

func userParts(m llm.Message) ([]wirePart, error) {
	parts := make([]wirePart, 0, len(m.Images)+1)
	for _, image := range m.Images {
		kind := image.MIMEType
		switch {
		case len(image.Data) > 0:
			if kind == "" {
				kind = http.DetectContentType(image.Data)
			}
			parts = append(parts, wirePart{InlineData: &wireBlob{MIMEType: kind, Data: image.Data}})
		case image.URL != "":
			if kind == "" {
				kind = kindOf(image.URL)
			}
			parts = append(parts, wirePart{FileData: &wireFile{MIMEType: kind, URI: image.URL}})
		default:
			return nil, fmt.Errorf("an image has neither an address nor bytes")
		}
	}
	return addText(parts, m.Text), nil
}

// skipSignature is what Gemini's documentation gives in place of the signature
// of a call whose thinking is not known, because it comes from another model or
// through a client that drops it.
const skipSignature = "skip_thought_signature_validator"

func assistantParts(model string, m llm.Message) []wirePart {
	var parts []wirePart
	if m.Text != "" {
		parts = append(parts, wirePart{Text: m.Text})
	}
	signed := !needsSignature(model)
	for _, call := range m.ToolCalls {
		signed = signed || call.Signature != ""
	}
	for _, call := range m.ToolCalls {
		part := wirePart{
			FunctionCall:     &wireCall{ID: call.ID, Name: call.Name, Args: object(call.Arguments, "arguments")},
			ThoughtSignature: call.Signature,
		}
		if !signed { // the first call of a turn has the signature for all
			part.ThoughtSignature, signed = skipSignature, true
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		parts = addText(parts, "")
	}
	return parts
}

// addText adds a text, for which a space stands where there is nothing else.
func addText(parts []wirePart, text string) []wirePart {
	if text == "" {
		if len(parts) > 0 {
			return parts
		}
		text = " "
	}
	return append(parts, wirePart{Text: text})
}

// object answers a text that is a JSON object, or an object that holds the text.
func object(text, name string) json.RawMessage {
	trimmed := bytes.TrimSpace([]byte(text))
	if len(trimmed) == 0 {
		trimmed = []byte("{}")
	}
	if trimmed[0] == '{' && json.Valid(trimmed) {
		return trimmed
	}
	wrapped, _ := json.Marshal(map[string]string{name: text}) // strings always encode
	return wrapped
}

// kindOf tells the kind of picture from an address, where its name does.
func kindOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	switch strings.ToLower(path.Ext(u.Path)) {
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".webp":
		return "image/webp"
	case ".gif":
		return "image/gif"
	case ".heic":
		return "image/heic"
	case ".heif":
		return "image/heif"
	}
	return ""
}

// offer fills in the tools. Strict arguments are what mode VALIDATED is for; a
// model that must call has them anyway.
func (w *wireRequest) offer(req llm.Request) {
	if len(req.Tools) == 0 {
		return
	}
	strict := false
	functions := make([]wireFunction, 0, len(req.Tools))
	for _, tool := range req.Tools {
		functions = append(functions, wireFunction{Name: tool.Name, Description: tool.Description, Parameters: tool.Parameters})
		strict = strict || tool.Strict
	}
	w.Tools = []wireTools{{Declarations: functions}}
	var config wireToolConfig
	switch req.ToolChoice {
	case llm.ToolChoiceAuto:
		if !strict {
			return
		}
		config.Calling.Mode = "VALIDATED"
	case llm.ToolChoiceNone:
		config.Calling.Mode = "NONE"
	case llm.ToolChoiceRequired:
		config.Calling.Mode = "ANY"
	default:
		config.Calling.Mode = "ANY"
		config.Calling.Allowed = []string{req.ToolChoice}
	}
	w.ToolConfig = &config
}

// thinking says how much to think. Without a wish nothing is sent, because
// models that do not think refuse it. Thoughts are asked for with it. Gemini 2.5
// takes a budget of tokens, and the words stand for those that Google's
// OpenAI-compatible endpoint takes them for; later models take the words. A
// number is a budget for either, -1 is the model's own choice.
func thinking(model, effort string) *wireThinking {
	if effort == "" {
		return nil
	}
	budget, err := strconv.ParseInt(effort, 10, 32)
	if err != nil {
		budget = 0
		switch word := strings.ToLower(effort); {
		case word == "none":
		case !thinksByBudget(model):
			return &wireThinking{IncludeThoughts: true, Level: strings.ToUpper(effort)}
		case word == "minimal", word == "low":
			budget = 1 << 10
		case word == "medium":
			budget = 8 << 10
		case word == "high":
			budget = 24 << 10
		default: // not a word of the model, which says so
			return &wireThinking{IncludeThoughts: true, Level: strings.ToUpper(effort)}
		}
	}
	return &wireThinking{IncludeThoughts: budget != 0, Budget: &budget}
}

func thinksByBudget(model string) bool { return strings.Contains(model, "gemini-2.5") }

// needsSignature tells the models that refuse an unsigned call. The ones before
// Gemini 3 do not know the word that stands for a signature.
func needsSignature(model string) bool {
	return !strings.Contains(model, "gemini-1") && !strings.Contains(model, "gemini-2")
}
