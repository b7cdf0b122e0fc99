package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// wireCall is a piece of a tool call. The index tells which call it belongs to,
// where a server sends one.
type wireCall struct {
	Index    *int         `json:"index"`
	ID       wire.Text    `json:"id"`
	Function wireFunction `json:"function"`
}

type wireFunction struct {
	Name      wire.Text `json:"name"`
	Arguments arguments `json:"arguments"`
}

// arguments are a JSON text inside a string. Some servers send the object
// itself.
type arguments string

// UnmarshalJSON implements json.Unmarshaler.
func (a *arguments) UnmarshalJSON(literal []byte) error {
	if len(literal) > 0 && literal[0] == '{' {
		*a = arguments(literal)
		return nil
	}
	var text wire.Text
	err := text.UnmarshalJSON(literal)
	*a = arguments(text)
	return err
}

// maxArguments bounds the arguments of all calls of an answer together, and with
// it the memory that they are collected in.
const maxArguments = llm.DefaultMaxBytes

// toolCalls puts together what comes in pieces. Servers differ in how they tell
// which call a piece belongs to:
//
//   - by an index, as OpenAI does, possibly taking turns between calls;
//   - by an index that is always 0, but a new id or a new name for each call;
//   - by the id alone, given once or with every piece;
//   - not at all: the calls come whole, one after the other.
type toolCalls struct {
	calls   []*partialCall
	current *partialCall
	size    int // bytes of all arguments
}

type partialCall struct {
	index     *int
	id, name  string
	arguments strings.Builder
}

// complete reports whether the arguments so far are a JSON text.
func (c *partialCall) complete() bool { return json.Valid([]byte(c.arguments.String())) }

// maxWhole is how long arguments may be that are looked at again with every
// piece. Who sends longer ones tells its calls apart.
const maxWhole = 64 << 10

// ends reports whether a piece that does not say which call it belongs to, other
// than by its name, begins another one.
func (c *partialCall) ends(piece wireFunction) bool {
	return piece.Name != "" && (string(piece.Name) != c.name || piece.Arguments != "") && c.arguments.Len() <= maxWhole && c.complete()
}

// add takes the next piece.
func (t *toolCalls) add(piece wireCall) error {
	call := t.find(piece)
	if call == nil {
		if len(t.calls) == llm.MaxToolCalls {
			return fmt.Errorf("%w: it has more than %d tool calls", wire.ErrTooLarge, llm.MaxToolCalls)
		}
		call = &partialCall{index: piece.Index}
		t.calls = append(t.calls, call)
	}
	t.current = call
	if call.id == "" {
		call.id = string(piece.ID)
	}
	if name := string(piece.Function.Name); call.name == "" {
		call.name = name
	} else if name != call.name { // the rest of it
		call.name += name
	}
	t.size += len(piece.Function.Arguments) + len(piece.Function.Name)
	if t.size > maxArguments {
		return fmt.Errorf("%w: the arguments of its tool calls have more than %d bytes", wire.ErrTooLarge, maxArguments)
	}
	call.arguments.WriteString(string(piece.Function.Arguments))
	return nil
}

// find returns the call that a piece continues, nil for a new one.
func (t *toolCalls) find(piece wireCall) *partialCall {
	id, name := string(piece.ID), string(piece.Function.Name)
	if piece.Index == nil && id == "" {
		c := t.current
		if c == nil || (name != "" && name != c.name) || c.ends(piece.Function) {
			return nil
		}
		return c
	}
	for _, c := range slices.Backward(t.calls) {
		switch {
		case piece.Index == nil:
			if c.id == id {
				return c
			}
		case c.index != nil && *c.index == *piece.Index:
			// The same index with another id is another call.
			switch {
			case id == "" && c.ends(piece.Function):
				return nil
			case id == "" || c.id == "" || c.id == id:
				return c
			}
		}
	}
	return nil
}

// take returns the calls in order, as they can be stored, and whether something
// in them was replaced for it. Calls that the answer was cut off in are left out
// when cut is set. A call without a name is an error: nobody can do it.
func (t *toolCalls) take(cut bool) (calls []llm.ToolCall, repaired bool, err error) {
	ids := make(map[string]bool, len(t.calls))
	for i, c := range t.calls {
		if cut && !c.complete() {
			continue
		}
		if c.name == "" {
			return nil, false, fmt.Errorf("%w: tool call %d has no name", wire.ErrMalformed, i+1)
		}
		call := llm.ToolCall{ID: c.id, Name: c.name, Arguments: c.arguments.String()}
		for _, text := range []*string{&call.ID, &call.Name, &call.Arguments} {
			replaced := false
			*text, replaced = repair(*text)
			repaired = repaired || replaced
		}
		if strings.TrimSpace(call.Arguments) == "" {
			call.Arguments = "{}"
		}
		for n := i + 1; call.ID == "" || ids[call.ID]; n++ {
			call.ID = fmt.Sprintf("call_%d", n)
		}
		ids[call.ID] = true
		calls = append(calls, call)
	}
	*t = toolCalls{}
	return calls, repaired, nil
}

// repair makes a whole text storable.
func repair(text string) (string, bool) {
	var r llm.Repairer
	text, broken := r.Text(text)
	tail, unfinished := r.Flush()
	return text + tail, broken || unfinished
}

// noParameters is the schema of a tool without arguments.
var noParameters = json.RawMessage(`{"type":"object","properties":{}}`)

// wireTool is a tool in a request.
type wireTool struct {
	Type     string           `json:"type"`
	Function wireToolFunction `json:"function"`
}

type wireToolFunction struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters"`
	Strict      bool            `json:"strict,omitempty"`
}

// wireTools returns the tools of a request, nil when it has none.
func wireTools(tools []llm.Tool) []wireTool {
	var list []wireTool
	for _, t := range tools {
		parameters := t.Parameters
		if len(bytes.TrimSpace(parameters)) == 0 {
			parameters = noParameters
		}
		list = append(list, wireTool{Type: "function", Function: wireToolFunction{
			Name: t.Name, Description: t.Description, Parameters: parameters, Strict: t.Strict,
		}})
	}
	return list
}

// wireChoice returns the choice of tools; nil leaves it to the model.
func wireChoice(choice string) any {
	switch choice {
	case llm.ToolChoiceAuto:
		return nil
	case llm.ToolChoiceNone, llm.ToolChoiceRequired:
		return choice
	}
	return map[string]any{"type": "function", "function": map[string]string{"name": choice}}
}
