package chain

import (
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// maxEffort bounds the steps of a check against a schema. A schema of a few kilobytes can ask for any number of them, by
// references that double at every level, and the library cannot be interrupted. A step takes some microseconds.
const maxEffort = 500_000

// stringStep is the length of text that costs one step, in bytes.
const stringStep = 256

// effort counts the steps of a check before it is made. It never counts too few: every branch is taken to be followed, and
// no failure to end the check early.
type effort struct{ left int }

// affordable tells whether a value can be checked against a schema within maxEffort.
func affordable(s *jsonschema.Schema, value any) bool {
	e := &effort{left: maxEffort}
	e.visit(s, value, nil)
	return e.left > 0
}

// visit counts what the schema does with the value. above holds the schemas that are being applied to the same value: one
// that comes back to itself is refused by the library.
func (e *effort) visit(s *jsonschema.Schema, value any, above []*jsonschema.Schema) {
	if s == nil || e.left <= 0 || slices.Contains(above, s) {
		return
	}
	e.left--
	above = append(above, s) // what is visited next to s overwrites only what is done
	if s.Enum != nil {
		e.left -= len(s.Enum.Values)
	}
	for _, in := range []*jsonschema.Schema{s.Ref, s.RecursiveRef, s.Not, s.If, s.Then, s.Else} {
		e.visit(in, value, above)
	}
	if s.DynamicRef != nil {
		e.visit(s.DynamicRef.Ref, value, above)
	}
	for _, list := range [][]*jsonschema.Schema{s.AllOf, s.AnyOf, s.OneOf} {
		for _, in := range list {
			e.visit(in, value, above)
		}
	}
	switch v := value.(type) {
	case string:
		e.left -= len(v) / stringStep
	case []any:
		e.list(s, v)
	case map[string]any:
		for _, in := range s.DependentSchemas {
			e.visit(in, value, above)
		}
		for _, in := range s.Dependencies {
			if in, ok := in.(*jsonschema.Schema); ok {
				e.visit(in, value, above)
			}
		}
		e.object(s, v)
	}
}

// list counts what the schema does with the items of a list.
func (e *effort) list(s *jsonschema.Schema, list []any) {
	if s.UniqueItems {
		e.left -= len(list)
	}
	each := []*jsonschema.Schema{s.Items2020, s.Contains, s.UnevaluatedItems}
	var first []*jsonschema.Schema
	switch items := s.Items.(type) {
	case *jsonschema.Schema:
		each = append(each, items)
	case []*jsonschema.Schema:
		first = items
	}
	if more, ok := s.AdditionalItems.(*jsonschema.Schema); ok {
		each = append(each, more)
	}
	first = slices.Concat(first, s.PrefixItems)
	for i, item := range list {
		if i < len(first) {
			e.visit(first[i], item, nil)
		}
		for _, in := range each {
			e.visit(in, item, nil)
		}
	}
}

// object counts what the schema does with the members of an object.
func (e *effort) object(s *jsonschema.Schema, object map[string]any) {
	e.left -= len(s.Required)
	each := []*jsonschema.Schema{s.UnevaluatedProperties}
	if more, ok := s.AdditionalProperties.(*jsonschema.Schema); ok {
		each = append(each, more)
	}
	for key, value := range object {
		if e.left <= 0 {
			return
		}
		e.left -= len(s.PatternProperties) * (1 + len(key)/stringStep)
		e.visit(s.PropertyNames, key, nil)
		e.visit(s.Properties[key], value, nil)
		for _, in := range s.PatternProperties {
			e.visit(in, value, nil)
		}
		for _, in := range each {
			e.visit(in, value, nil)
		}
	}
}
