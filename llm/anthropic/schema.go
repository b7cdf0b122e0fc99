package anthropic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/param"

	"github.com/chainstream/chainstream/llm"
)

// structure says how a structured answer comes.
type structure struct {
	tool    bool // as the input of answerTool
	wrapped bool // in the only field of that input, because it need not be an object
}

// answerTool is the tool whose input is a structured answer.
const answerTool = "answer"

// askForSchema asks for an answer that follows the schema of the request: by the
// API's own means where the model has them and the schema is within what they
// take, else as the input of a tool that has to be called, else, when the request
// has tools of its own or the model could not think any more, in words. Whoever
// asked checks the answer in any case.
func (c *call) askForSchema(req llm.Request, model version) {
	if len(req.Schema) == 0 {
		return
	}
	if schema, ok := narrowed(req.Schema); ok && model >= nativeSchema {
		format, err := json.Marshal(map[string]any{"type": "json_schema", "schema": schema})
		if err == nil {
			c.params.OutputConfig.Format = param.Override[anthropic.JSONOutputFormatParam](json.RawMessage(format))
			return
		}
	}
	if len(c.params.Tools) > 0 || model >= nativeSchema {
		c.params.System = append(c.params.System, anthropic.TextBlockParam{
			Text: "Answer with one JSON value that follows this JSON Schema, and with nothing else:\n" + string(req.Schema),
		})
		return
	}
	schema, wrapped := wrap(req.Schema)
	c.structure = structure{tool: true, wrapped: wrapped}
	tool := anthropic.ToolParam{Name: answerTool, Description: anthropic.String("Gives the answer."), InputSchema: inputSchema(schema)}
	c.params.Tools = []anthropic.ToolUnionParam{{OfTool: &tool}}
	c.params.ToolChoice.OfTool = &anthropic.ToolChoiceToolParam{Name: answerTool, DisableParallelToolUse: anthropic.Bool(true)}
}

// wrap makes a schema one of an object, which the input of a tool has to be, and
// reports whether it was not.
func wrap(schema json.RawMessage) (json.RawMessage, bool) {
	var root struct {
		Type        any             `json:"type"`
		Defs        json.RawMessage `json:"$defs"`
		Definitions json.RawMessage `json:"definitions"`
	}
	if json.Unmarshal(schema, &root) != nil || root.Type == "object" {
		return schema, false
	}
	outer := map[string]any{
		"type": "object", "properties": map[string]any{answerTool: schema}, "required": []string{answerTool},
	}
	// References start at the root.
	if root.Defs != nil {
		outer["$defs"] = root.Defs
	}
	if root.Definitions != nil {
		outer["definitions"] = root.Definitions
	}
	data, err := json.Marshal(outer)
	if err != nil {
		return schema, false
	}
	return data, true
}

// unwrap returns the answer within the input of the tool, or all of it when it is
// not what was asked for.
func unwrap(input string) string {
	var outer map[string]json.RawMessage
	if json.Unmarshal([]byte(input), &outer) != nil || outer[answerTool] == nil {
		return input
	}
	return string(outer[answerTool])
}

// Limits of the API for one schema.
const (
	maxOptional = 24 // properties that may be absent
	maxUnions   = 16 // anyOf, and lists of types
)

// narrowed returns a schema that the API enforces and whose values follow the
// given one as far as the API can tell: objects are closed, and what the API has
// no word for moves into the description. The order of properties, in which models
// write, stays. It fails for what cannot be narrowed in this way without changing
// what is asked for: objects with free keys, values of any kind, recursion, and
// schemas that are larger than the API takes.
func narrowed(schema json.RawMessage) (json.RawMessage, bool) {
	n := narrower{}
	var root struct {
		Type        any                        `json:"type"`
		Defs        map[string]json.RawMessage `json:"$defs"`
		Definitions map[string]json.RawMessage `json:"definitions"`
	}
	if json.Unmarshal(schema, &root) != nil || root.Type != "object" || recursive(root.Defs) || recursive(root.Definitions) {
		return nil, false
	}
	narrow, err := n.schema(schema, 0)
	return narrow, err == nil && n.optional <= maxOptional && n.unions <= maxUnions
}

// recursive tells whether a definition refers to itself, through whichever others.
func recursive(definitions map[string]json.RawMessage) bool {
	const under, over = 1, 2 // is being followed, has been followed
	state := map[string]int{}
	var visit func(name string) bool
	visit = func(name string) bool {
		state[name] = under
		for other := range definitions {
			quoted, err := json.Marshal(other)
			if err != nil {
				return true
			}
			ref := append([]byte("/"), quoted[1:]...) // …/name"
			if !bytes.Contains(definitions[name], ref) || state[other] == over {
				continue
			}
			if state[other] == under || visit(other) {
				return true
			}
		}
		state[name] = over
		return false
	}
	for name := range definitions {
		if state[name] != over && visit(name) {
			return true
		}
	}
	return false
}

// maxDepth bounds how deep schemas are followed.
const maxDepth = 32

// errWide reports a schema that cannot be narrowed.
var errWide = fmt.Errorf("schema is beyond what the API enforces")

// narrower narrows one schema.
type narrower struct{ optional, unions int }

// member is a field of a JSON object, in its place.
type member struct {
	name  string
	value json.RawMessage
}

// members reads a JSON object in order.
func members(data json.RawMessage) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errWide
	}
	var list []member
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if !ok {
			return nil, errWide
		}
		m := member{name: name}
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// object writes members in order.
func object(list []member) (json.RawMessage, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// schema narrows one schema.
func (n *narrower) schema(data json.RawMessage, depth int) (json.RawMessage, error) {
	if depth > maxDepth {
		return nil, errWide
	}
	in, err := members(data)
	if err != nil {
		return nil, err
	}
	var out []member
	var description string
	var extra []string
	has := map[string]json.RawMessage{}
	for _, m := range in {
		has[m.name] = m.value
		switch m.name {
		case "$ref", "type", "title", "enum", "const", "required", "pattern":
		case "description":
			_ = json.Unmarshal(m.value, &description) // one that is no text says nothing
			continue
		case "properties", "$defs", "definitions":
			m.value, err = n.each(m.value, depth)
		case "items":
			m.value, err = n.schema(m.value, depth+1)
		case "anyOf", "oneOf":
			m.name = "anyOf"
			m.value, err = n.list(m.value, depth)
		case "allOf": // closed objects cannot be put together
			return nil, errWide
		case "additionalProperties":
			if v := string(m.value); v != "false" && v != "true" {
				return nil, errWide
			}
			continue
		case "format":
			if !slices.Contains(formats(), strings.Trim(string(m.value), `"`)) {
				extra = append(extra, m.name+": "+string(m.value))
				continue
			}
		case "minItems":
			if v := string(m.value); v != "0" && v != "1" {
				extra = append(extra, m.name+": "+v)
				continue
			}
		case "$schema", "$id", "$comment", "examples", "default":
			continue
		default:
			extra = append(extra, m.name+": "+string(m.value))
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if err := n.count(has); err != nil {
		return nil, err
	}
	if ref := has["$ref"]; ref != nil { // which the API takes alone
		return object([]member{{"$ref", ref}})
	}
	if has["properties"] != nil {
		out = append(out, member{"additionalProperties", json.RawMessage("false")})
	}
	if len(extra) > 0 {
		description = strings.TrimSpace(description + "\n\n{" + strings.Join(extra, ", ") + "}")
	}
	if description != "" {
		text, err := json.Marshal(description)
		if err != nil {
			return nil, err
		}
		out = append(out, member{"description", text})
	}
	return object(out)
}

// count refuses what has no bounds, and counts what the API allows a number of.
func (n *narrower) count(has map[string]json.RawMessage) error {
	var types any
	if data := has["type"]; data != nil {
		if err := json.Unmarshal(data, &types); err != nil {
			return errWide
		}
	}
	one, _ := types.(string)
	several, _ := types.([]any)
	bounded := has["$ref"] != nil || has["enum"] != nil || has["const"] != nil || has["anyOf"] != nil || has["oneOf"] != nil
	switch {
	case has["anyOf"] != nil && has["oneOf"] != nil, has["properties"] != nil && (has["anyOf"] != nil || has["oneOf"] != nil):
		return errWide
	}
	switch {
	case one == "" && len(several) == 0 && !bounded,
		(one == "object" || slices.Contains(several, any("object"))) && (has["properties"] == nil || string(has["properties"]) == "{}"),
		(one == "array" || slices.Contains(several, any("array"))) && has["items"] == nil,
		has["$ref"] != nil && !strings.HasPrefix(string(has["$ref"]), `"#/$defs/`) && !strings.HasPrefix(string(has["$ref"]), `"#/definitions/`):
		return errWide
	}
	if len(several) > 1 || has["anyOf"] != nil || has["oneOf"] != nil {
		n.unions++
	}
	if properties := has["properties"]; properties != nil {
		var names map[string]json.RawMessage
		var required []string
		if json.Unmarshal(properties, &names) != nil || (has["required"] != nil && json.Unmarshal(has["required"], &required) != nil) {
			return errWide
		}
		for name := range names {
			if !slices.Contains(required, name) {
				n.optional++
			}
		}
		for _, name := range required {
			if names[name] == nil { // it would be demanded and forbidden at once
				return errWide
			}
		}
	}
	return nil
}

// each narrows the schemas of an object.
func (n *narrower) each(data json.RawMessage, depth int) (json.RawMessage, error) {
	list, err := members(data)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].value, err = n.schema(list[i].value, depth+1); err != nil {
			return nil, err
		}
	}
	return object(list)
}

// list narrows the schemas of a list.
func (n *narrower) list(data json.RawMessage, depth int) (json.RawMessage, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	for i := range list {
		var err error
		if list[i], err = n.schema(list[i], depth+1); err != nil {
			return nil, err
		}
	}
	return json.Marshal(list)
}

// formats lists the formats of texts that the API enforces.
func formats() []string {
	return []string{"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
}
