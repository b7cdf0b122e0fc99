package chain

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// maxSchemaBytes bounds the schema of an output, which is compiled when a chain is saved and when an answer is checked.
const maxSchemaBytes = 256 << 10

// OutputError says why the answer of a model is not the structured output that a prompt asks for.
type OutputError struct {
	Reason string // a clause for people and for the model that tries again
}

// Error is the reason.
func (e *OutputError) Error() string { return "output does not match its schema: " + e.Reason }

// CheckOutput checks the answer of a model to prompt i against the prompt's output schema and returns the JSON value in
// it, compact. A code fence around the whole answer is taken off. Without a schema any JSON value will do. The error is an
// *OutputError when the answer is to blame.
func (c *Chain) CheckOutput(i int, text string) (json.RawMessage, error) {
	n := readOutput(text)
	if n == nil {
		return nil, &OutputError{Reason: "it is not JSON"}
	}
	if c.Prompts[i].Output == nil {
		return n.appendJSON(nil), nil
	}
	schema, err := compileSchema(c.Prompts[i].Output.Schema)
	if err != nil {
		return nil, fmt.Errorf("output schema of prompt %d: %w", i, err)
	}
	value := n.value()
	if !affordable(schema, value) {
		return nil, &OutputError{Reason: "checking it against this schema takes too many steps; make the schema simpler, or the answer shorter"}
	}
	if err := schema.Validate(value); err != nil {
		return nil, &OutputError{Reason: firstCauses(err)}
	}
	return n.appendJSON(nil), nil
}

// schemaURL is the base of a schema; a schema may refer to itself and to nothing else.
const schemaURL = "chain:///schema"

// closedLoader refuses to load anything.
type closedLoader struct{}

var errOutside = errors.New("schemas may not refer to other documents")

// Load refuses.
func (closedLoader) Load(string) (any, error) { return nil, errOutside }

// compileSchema compiles the schema of an output. Nothing is ever loaded from elsewhere.
func compileSchema(raw json.RawMessage) (*jsonschema.Schema, error) {
	if len(raw) > maxSchemaBytes {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(raw), maxSchemaBytes)
	}
	n := readTree(raw, FormatJSON, maxSchemaBytes, &collector{})
	if n == nil || n.kind != kindObject {
		return nil, errors.New("is not a JSON object")
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(closedLoader{})
	if err := compiler.AddResource(schemaURL, n.value()); err != nil {
		return nil, fmt.Errorf("is not a valid JSON Schema: %w", err)
	}
	schema, err := compiler.Compile(schemaURL)
	if err == nil {
		return schema, nil
	}
	if invalid, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		return nil, fmt.Errorf("is not a valid JSON Schema: %s", firstCauses(invalid.Err))
	}
	if outside, ok := errors.AsType[*jsonschema.LoadURLError](err); ok {
		return nil, fmt.Errorf("refers to %s: %w", shown(outside.URL), errOutside)
	}
	return nil, fmt.Errorf("is not a valid JSON Schema: %s", strings.ReplaceAll(err.Error(), schemaURL, ""))
}

// firstCauses puts the first few leaves of a validation error into one clause.
func firstCauses(err error) string {
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return err.Error()
	}
	const most = 3
	var causes []string
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		for _, cause := range e.Causes {
			walk(cause)
		}
		if len(e.Causes) > 0 || len(causes) > most {
			return
		}
		at := "the value"
		if len(e.InstanceLocation) > 0 {
			at = strings.Join(e.InstanceLocation, ".")
		}
		if unit := e.BasicOutput(); unit.Error != nil {
			causes = append(causes, at+": "+unit.Error.String())
		} else if len(unit.Errors) > 0 && unit.Errors[0].Error != nil {
			causes = append(causes, at+": "+unit.Errors[0].Error.String())
		}
	}
	walk(invalid)
	switch {
	case len(causes) == 0:
		return "the value is not allowed"
	case len(causes) > most:
		causes[most] = "…"
	}
	return cutText(strings.Join(causes, "; "), maxReasonBytes)
}

// maxReasonBytes bounds what is said about a value that does not match: the library's messages quote values.
const maxReasonBytes = 1000

// cutText shortens a text to n bytes at most, at the boundary of a character.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
