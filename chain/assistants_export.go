package chain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ExportAssistants writes chains as an assistants document of version 1.0. The report says what the document could not
// express; positions are 0-based in it and the prefixes of evident providers are left out.
func ExportAssistants(chains []*Chain) ([]byte, ExportReport) {
	var report ExportReport
	file := assistantsFile{Version: AssistantsVersion, Source: "chainstream", Assistants: []assistantFile{}}
	for i, c := range chains {
		ex := &exporter{chain: c}
		file.Assistants = append(file.Assistants, ex.run())
		report.Assistants = append(report.Assistants, AssistantReport{
			Pointer: "/assistants/" + strconv.Itoa(i), Name: c.Name, Chain: c.Name, Changes: ex.changes,
		})
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(file); err != nil {
		panic(fmt.Sprintf("chain: encode assistants: %v", err)) // strings, numbers and decoded JSON always encode
	}
	return b.Bytes(), report
}

type assistantsFile struct {
	Version    string          `json:"version"`
	Source     string          `json:"export_source"`
	Assistants []assistantFile `json:"assistants"`
}

type assistantFile struct {
	Name        string       `json:"name"`
	Description string       `json:"description"`
	Timeout     json.Number  `json:"timeout_seconds,omitempty"`
	Prompts     []promptFile `json:"prompts"`
	Fields      []fieldFile  `json:"input_fields"`
}

type promptFile struct {
	Name     string            `json:"name"`
	Content  string            `json:"content"`
	System   string            `json:"system_context,omitempty"`
	Model    string            `json:"model_name"`
	Position int               `json:"position"`
	Mapping  map[string]string `json:"input_mapping,omitempty"`
	Timeout  json.Number       `json:"timeout_seconds,omitempty"`
}

type fieldFile struct {
	Name     string       `json:"name"`
	Label    string       `json:"label"`
	Type     string       `json:"field_type"`
	Position int          `json:"position"`
	Options  *optionsFile `json:"options,omitempty"`
}

type optionsFile struct {
	Choices       []choiceFile `json:"choices,omitempty"`
	Default       any          `json:"default,omitempty"`
	Required      bool         `json:"required,omitempty"`
	Placeholder   string       `json:"placeholder,omitempty"`
	MaxLength     *int         `json:"maxLength,omitempty"`
	MinSelections *int         `json:"minSelections,omitempty"`
	MaxSelections *int         `json:"maxSelections,omitempty"`
}

type choiceFile struct {
	Value string `json:"value"`
	Label string `json:"label"`
}

// exporter writes one chain.
type exporter struct {
	chain   *Chain
	changes []Change
}

func (ex *exporter) change(at, format string, args ...any) {
	ex.changes = append(ex.changes, Change{at, fmt.Sprintf(format, args...)})
}

func (ex *exporter) dropIf(lost bool, at string) {
	if lost {
		ex.change(at, "assistants have nothing like it; it was dropped")
	}
}

func (ex *exporter) run() assistantFile {
	c := ex.chain
	a := assistantFile{
		Name: c.Name, Description: c.Description, Timeout: seconds(c.Limits.Timeout),
		Prompts: []promptFile{}, Fields: []fieldFile{},
	}
	ex.dropIf(c.Limits.MaxCostUSD != "", "/limits/maxCostUsd")
	ex.dropIf(c.Limits.MaxTokens != 0, "/limits/maxTokens")
	ex.dropIf(c.Limits.Concurrency != 0, "/limits/concurrency")
	for i := range c.Inputs {
		a.Fields = append(a.Fields, ex.field(&c.Inputs[i], i))
	}
	for i := range c.Prompts {
		a.Prompts = append(a.Prompts, ex.prompt(&c.Prompts[i], promptPointer(i)))
	}
	return a
}

// seconds writes a duration as a number of seconds, empty for none.
func seconds(d time.Duration) json.Number {
	if d == 0 {
		return ""
	}
	return json.Number(shortestFloat(d.Seconds()))
}

func (ex *exporter) prompt(p *Prompt, at string) promptFile {
	ex.dropIf(p.Knowledge != nil, at+"/knowledge")
	ex.dropIf(len(p.Tools) > 0, at+"/tools")
	ex.dropIf(len(p.Images) > 0, at+"/images")
	ex.dropIf(p.Temperature != nil, at+"/temperature")
	ex.dropIf(p.TopP != nil, at+"/topP")
	ex.dropIf(p.MaxTokens != 0, at+"/maxTokens")
	ex.dropIf(p.Retry.Attempts != 0 && p.Retry.Attempts != DefaultAttempts, at+"/retry")
	ex.dropIf(len(p.Fallback) > 0, at+"/fallback")
	ex.dropIf(p.OnError == OnErrorContinue, at+"/onError")
	ex.dropIf(p.Output != nil, at+"/output")
	ex.dropIf(len(p.Stop) > 0, at+"/stop")
	ex.dropIf(p.Seed != nil, at+"/seed")
	ex.dropIf(p.Cache != nil, at+"/cache")
	if p.History.Mode != HistoryFull && p.Position > 1 {
		ex.change(at+"/history", "%s became full: assistants always send the whole conversation", p.History)
	}
	f := promptFile{
		Name:     p.Name,
		Content:  ex.template(p.Content, at+"/content"),
		System:   ex.template(p.System, at+"/system"),
		Model:    p.Model,
		Position: max(p.Position-1, 0),
		Timeout:  seconds(p.Timeout),
	}
	if provider, name, ok := strings.Cut(p.Model, "/"); ok && !modelID.MatchString(name) {
		for _, family := range families {
			if family.provider == provider && family.pattern.MatchString(name) {
				f.Model = name
			}
		}
	}
	for _, name := range sortedKeys(p.Mapping) {
		if f.Mapping == nil {
			f.Mapping = make(map[string]string)
		}
		path := p.Mapping[name]
		if !strings.HasPrefix(path, "inputs.") {
			if strings.Contains(path, ".") {
				ex.change(child(at+"/mapping", name), "a path into an output is kept, but assistants do not follow it")
			}
			path = "{{" + path + "}}"
		}
		f.Mapping[name] = path
	}
	return f
}

// originReference is what the origin takes for a reference.
var originReference = regexp.MustCompile(`\$\{[A-Za-z0-9_-]+\}|\{\{[A-Za-z0-9_-]+\}\}`)

// template writes a template in the origin's syntax, which has neither spaces nor paths nor escapes.
func (ex *exporter) template(text, at string) string {
	var b strings.Builder
	for seg := range split(text) {
		if seg.ref == nil {
			if raw := originReference.FindString(seg.text); raw != "" {
				ex.change(at, "%s is escaped text here, but assistants take it for a variable", shown(raw))
			}
			b.WriteString(seg.text)
			continue
		}
		if len(seg.ref.path) > 0 {
			ex.change(at, "the path %s is kept, but assistants do not follow it", shown(seg.ref.String()))
		}
		name := seg.ref.String()
		if seg.text[0] == '{' {
			b.WriteString("{{" + name + "}}")
		} else {
			b.WriteString("${" + name + "}")
		}
	}
	return b.String()
}

func (ex *exporter) field(in *Input, position int) fieldFile {
	at := child("/inputs", in.Name)
	f := fieldFile{Name: in.Name, Label: in.Label, Type: string(in.Type), Position: position}
	if f.Label == "" {
		f.Label = in.Name
	}
	value := in.Default
	switch in.Type {
	case InputFile:
		f.Type = "file_upload"
	case InputNumber, InputBoolean, InputJSON:
		f.Type = "short_text"
		if in.Type == InputJSON {
			f.Type = "long_text"
		}
		if value != nil {
			value = formatValue(value)
		}
		ex.change(at+"/type", "%s became %s: assistants have no such type", in.Type, f.Type)
	case InputShortText, InputLongText, InputSelect, InputMultiSelect:
	}
	ex.dropIf(in.Description != "", at+"/description")
	ex.dropIf(in.Min != nil, at+"/min")
	ex.dropIf(in.Max != nil, at+"/max")
	o := optionsFile{
		Default: value, Required: in.Required, Placeholder: in.Placeholder,
		MaxLength: in.MaxLength, MinSelections: in.MinSelections, MaxSelections: in.MaxSelections,
	}
	for _, option := range in.Options {
		o.Choices = append(o.Choices, choiceFile(option))
	}
	if len(o.Choices) > 0 || o.Default != nil || o.Required || o.Placeholder != "" || o.MaxLength != nil || o.MinSelections != nil || o.MaxSelections != nil {
		f.Options = &o
	}
	return f
}
