package openai

import (
	"encoding/json"
	"slices"
)

// Bounds of OpenAI's strict mode.
const (
	strictDepth      = 10
	strictProperties = 5000
)

// strictSchema tells whether a schema is certain to be in the subset that
// OpenAI's strict mode takes: an object at the top, every object closed by
// additionalProperties false and with all its properties required, and no
// keyword that the mode does not know. What is unclear is not.
func strictSchema(schema json.RawMessage) bool {
	var root map[string]any
	if json.Unmarshal(schema, &root) != nil || root["type"] != "object" || root["anyOf"] != nil {
		return false
	}
	s := strictness{left: strictProperties}
	return s.schema(root, 0)
}

// strictness walks through a schema.
type strictness struct{ left int } // properties that may still come

func (s *strictness) schema(v any, depth int) bool {
	schema, ok := v.(map[string]any)
	if !ok || depth > strictDepth {
		return false
	}
	for keyword, value := range schema {
		if !s.keyword(keyword, value, depth) {
			return false
		}
	}
	object := schema["properties"] != nil || hasType(schema["type"], "object")
	return !object || s.closed(schema)
}

// keyword checks one keyword and the schemas below it.
func (s *strictness) keyword(keyword string, value any, depth int) bool {
	switch keyword {
	case "type", "title", "description", "enum", "const", "$ref", "$schema", "$id",
		"pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems",
		"required", "additionalProperties": // the last two are checked with the object
		return true
	case "items":
		return s.schema(value, depth+1)
	case "anyOf":
		list, ok := value.([]any)
		return ok && !slices.ContainsFunc(list, func(v any) bool { return !s.schema(v, depth+1) })
	case "properties", "$defs", "definitions":
		all, ok := value.(map[string]any)
		s.left -= len(all)
		if !ok || s.left < 0 {
			return false
		}
		for _, v := range all {
			if !s.schema(v, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

// closed tells whether an object allows its properties only and requires all.
func (*strictness) closed(schema map[string]any) bool {
	properties, ok := schema["properties"].(map[string]any)
	if !ok || schema["additionalProperties"] != false {
		return false
	}
	required, _ := schema["required"].([]any)
	for name := range properties {
		if !slices.Contains(required, any(name)) {
			return false
		}
	}
	return len(required) == len(properties)
}

// hasType tells whether a type, or a list of them, has the given one.
func hasType(v any, name string) bool {
	if list, ok := v.([]any); ok {
		return slices.Contains(list, any(name))
	}
	return v == name
}
