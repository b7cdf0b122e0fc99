package offline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// errSchema reports a schema that the demo model cannot fill in.
var errSchema = errors.New("schema not supported")

// maxSchemaDepth bounds nesting; a schema that refers to itself ends there.
const maxSchemaDepth = 16

// schema is the part of JSON Schema that instanceOf understands.
type schema struct {
	Type        any                        `json:"type"`
	Enum        []json.RawMessage          `json:"enum"`
	Const       json.RawMessage            `json:"const"`
	Properties  map[string]json.RawMessage `json:"properties"`
	Required    []string                   `json:"required"`
	Additional  json.RawMessage            `json:"additionalProperties"`
	Items       json.RawMessage            `json:"items"`
	MinItems    int                        `json:"minItems"`
	MaxItems    *int                       `json:"maxItems"`
	MinLength   int                        `json:"minLength"`
	MaxLength   *int                       `json:"maxLength"`
	Minimum     *float64                   `json:"minimum"`
	Maximum     *float64                   `json:"maximum"`
	AnyOf       []json.RawMessage          `json:"anyOf"`
	Ref         string                     `json:"$ref"`
	Definitions map[string]json.RawMessage `json:"definitions"`
	Defs        map[string]json.RawMessage `json:"$defs"`
}

// keywords are the words a schema may contain: those of the struct and those
// that only describe. Any other could make the instance invalid.
var keywords = []string{
	"type", "enum", "const", "properties", "required", "additionalProperties", "items", "minItems", "maxItems",
	"minLength", "maxLength", "minimum", "maximum", "anyOf", "$ref", "definitions", "$defs",
	"title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly",
}

// filler makes instances of the parts of one document.
type filler struct {
	defs map[string]json.RawMessage // by reference: "#", "#/$defs/name"
}

// instanceOf returns a small value that is valid against a schema: every known
// property, the shortest arrays, the first allowed value. Schemas with keywords
// it does not understand are refused, because it could not keep its word.
func instanceOf(raw json.RawMessage) (any, error) {
	f := filler{defs: map[string]json.RawMessage{"#": raw}}
	root, err := parseSchema(raw)
	if err != nil {
		return nil, err
	}
	for name, def := range root.Definitions {
		f.defs["#/definitions/"+name] = def
	}
	for name, def := range root.Defs {
		f.defs["#/$defs/"+name] = def
	}
	return f.value(raw, "answer", 0)
}

func parseSchema(raw json.RawMessage) (schema, error) {
	var words map[string]json.RawMessage
	if err := json.Unmarshal(raw, &words); err != nil {
		return schema{}, fmt.Errorf("%w: not an object: %w", errSchema, err)
	}
	for word := range words {
		if !slices.Contains(keywords, word) {
			return schema{}, fmt.Errorf("%w: keyword %q", errSchema, word)
		}
	}
	var s schema
	if err := json.Unmarshal(raw, &s); err != nil {
		return schema{}, fmt.Errorf("%w: %w", errSchema, err)
	}
	return s, nil
}

func (f filler) value(raw json.RawMessage, name string, depth int) (any, error) {
	if depth > maxSchemaDepth {
		return nil, fmt.Errorf("%w: nested deeper than %d", errSchema, maxSchemaDepth)
	}
	switch string(bytes.TrimSpace(raw)) {
	case "", "true":
		return demoText(name), nil
	case "false":
		return nil, fmt.Errorf("%w: false allows nothing", errSchema)
	}
	s, err := parseSchema(raw)
	if err != nil {
		return nil, err
	}
	// A reference, a choice and a list of values stand alone here: what stands
	// beside them would have to hold as well.
	switch {
	case s.Ref != "":
		target, ok := f.defs[s.Ref]
		if !ok {
			return nil, fmt.Errorf("%w: reference %q", errSchema, s.Ref)
		}
		if s.constrained(func(rest *schema) { rest.Ref = "" }) {
			return nil, fmt.Errorf("%w: keywords beside $ref", errSchema)
		}
		return f.value(target, name, depth+1)
	case len(s.AnyOf) > 0:
		if s.constrained(func(rest *schema) { rest.AnyOf = nil }) {
			return nil, fmt.Errorf("%w: keywords beside anyOf", errSchema)
		}
		for _, option := range s.AnyOf {
			var v any
			if v, err = f.value(option, name, depth+1); err == nil {
				return v, nil
			}
		}
		return nil, err
	case s.Const != nil:
		return fixedValue([]json.RawMessage{s.Const}, s)
	case len(s.Enum) > 0:
		return fixedValue(s.Enum, s)
	}
	return f.typed(s, name, depth)
}

// constrained reports whether anything is left that limits the instance once
// one keyword is taken away.
func (s schema) constrained(without func(*schema)) bool {
	s.Definitions, s.Defs = nil, nil
	without(&s)
	return !reflect.ValueOf(s).IsZero()
}

// fixedValue returns the first value that has the type the schema names.
func fixedValue(values []json.RawMessage, s schema) (any, error) {
	if s.constrained(func(rest *schema) { rest.Type, rest.Enum, rest.Const = nil, nil, nil }) ||
		(s.Const != nil && len(s.Enum) > 0) {
		return nil, fmt.Errorf("%w: keywords beside enum or const", errSchema)
	}
	for _, raw := range values {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("%w: %w", errSchema, err)
		}
		if s.Type == nil || slices.ContainsFunc(typeNames(s.Type), func(t string) bool { return hasType(v, t) }) {
			return raw, nil
		}
	}
	return nil, fmt.Errorf("%w: no value of the list has the type %v", errSchema, s.Type)
}

func hasType(v any, name string) bool {
	switch v := v.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case float64:
		return name == "number" || (name == "integer" && v == math.Trunc(v))
	case []any:
		return name == "array"
	default:
		return name == "object"
	}
}

// typeNames returns the types a schema allows, whether it names one or several.
func typeNames(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var names []string
		for _, item := range v {
			if name, ok := item.(string); ok {
				names = append(names, name)
			}
		}
		return names
	}
	return nil
}

func (f filler) typed(s schema, name string, depth int) (any, error) {
	names := typeNames(s.Type)
	if s.Type == nil {
		switch {
		case s.Properties != nil || s.Required != nil:
			names = []string{"object"}
		case s.Items != nil || s.MinItems > 0:
			names = []string{"array"}
		case s.Minimum != nil || s.Maximum != nil:
			names = []string{"number"}
		default:
			names = []string{"string"}
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: type %v", errSchema, s.Type)
	}
	switch names[0] {
	case "object":
		return f.object(s, depth)
	case "array":
		return f.array(s, name, depth)
	case "string":
		return stringValue(s, name)
	case "integer":
		return numberValue(s, true)
	case "number":
		return numberValue(s, false)
	case "boolean":
		return true, nil
	case "null":
		return nil, nil
	}
	return nil, fmt.Errorf("%w: type %q", errSchema, names[0])
}

// object fills in all known properties; an optional one that cannot be filled
// in is left out.
func (f filler) object(s schema, depth int) (any, error) {
	object := make(map[string]any, len(s.Properties))
	for name, raw := range s.Properties {
		v, err := f.value(raw, name, depth+1)
		if err != nil {
			if slices.Contains(s.Required, name) {
				return nil, fmt.Errorf("property %q: %w", name, err)
			}
			continue
		}
		object[name] = v
	}
	for _, name := range s.Required {
		if _, ok := object[name]; ok {
			continue
		}
		v, err := f.value(s.Additional, name, depth+1)
		if err != nil {
			return nil, fmt.Errorf("property %q: %w", name, err)
		}
		object[name] = v
	}
	return object, nil
}

// maxSchemaItems bounds the arrays that minItems may ask for.
const maxSchemaItems = 100

func (f filler) array(s schema, name string, depth int) (any, error) {
	n := max(s.MinItems, 1)
	if s.MaxItems != nil {
		n = max(s.MinItems, min(n, *s.MaxItems))
	}
	if n > maxSchemaItems || (s.MaxItems != nil && n > *s.MaxItems) {
		return nil, fmt.Errorf("%w: %d items", errSchema, n)
	}
	items := make([]any, 0, n)
	for range n {
		v, err := f.value(s.Items, name, depth+1)
		if err != nil {
			if s.MinItems == 0 {
				return []any{}, nil
			}
			return nil, err
		}
		items = append(items, v)
	}
	return items, nil
}

// maxSchemaLength bounds the strings that minLength may ask for.
const maxSchemaLength = 10_000

func stringValue(s schema, name string) (any, error) {
	if s.MinLength > maxSchemaLength || (s.MaxLength != nil && s.MinLength > *s.MaxLength) {
		return nil, fmt.Errorf("%w: string of %d characters", errSchema, s.MinLength)
	}
	text := demoText(name)
	if short := s.MinLength - utf8.RuneCountInString(text); short > 0 {
		text += strings.Repeat(".", short)
	}
	if runes := []rune(text); s.MaxLength != nil && len(runes) > *s.MaxLength {
		text = string(runes[:max(*s.MaxLength, 0)])
	}
	return text, nil
}

// numberValue returns zero, or the allowed number next to it.
func numberValue(s schema, integer bool) (any, error) {
	low, high := math.Inf(-1), math.Inf(1)
	if s.Minimum != nil {
		low = *s.Minimum
	}
	if s.Maximum != nil {
		high = *s.Maximum
	}
	if integer {
		low, high = math.Ceil(low), math.Floor(high)
	}
	if low > high {
		return nil, fmt.Errorf("%w: no number from %v to %v", errSchema, low, high)
	}
	return json.Number(fmt.Sprint(min(max(0, low), high))), nil
}

// demoText fills a string in.
func demoText(name string) string { return "demo " + name }
