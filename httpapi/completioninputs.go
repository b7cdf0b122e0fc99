package httpapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"github.com/chainstream/chainstream/chain"
)

// inputsParameter is the key of metadata that holds all inputs.
const inputsParameter = "inputs"

// inputsOf finds the inputs of a chain in a completion, and takes them out of its
// metadata. First come those in metadata: its key "inputs", which holds an object
// or the text of one, or keys that are names of inputs. Then the newest user
// message: an object of inputs, or else a text for the first required text input
// that has no value yet. Where none is required, and metadata had no inputs, it
// is for the first text input.
func inputsOf(c *chain.Chain, r *completion) (map[string]json.RawMessage, error) {
	given := make(map[string]json.RawMessage)
	byName := make(map[string]*chain.Input, len(c.Inputs))
	for i := range c.Inputs {
		byName[c.Inputs[i].Name] = &c.Inputs[i]
	}
	whole, some := r.metadata[inputsParameter]
	if _, isInput := byName[inputsParameter]; some && !isInput {
		members, err := inputsObject(whole)
		if err != nil {
			return nil, err
		}
		maps.Copy(given, members)
		delete(r.metadata, inputsParameter)
	} else {
		for name, in := range byName {
			if raw, some := r.metadata[name]; some {
				given[name] = plainer(in, raw)
				delete(r.metadata, name)
			}
		}
	}
	if members := objectOf([]byte(r.lastUser)); members != nil && !slices.ContainsFunc(slices.Collect(maps.Keys(members)), func(name string) bool { return byName[name] == nil }) {
		if err := checkJSON([]byte(r.lastUser)); err != nil {
			return nil, within("messages", err)
		}
		for name, raw := range members {
			if _, some := given[name]; !some {
				given[name] = raw
			}
		}
		return given, nil
	}
	if in := textInput(c, given); in != nil && r.lastUser != "" {
		text, err := json.Marshal(r.lastUser)
		if err != nil {
			return nil, err
		}
		given[in.Name] = text
	}
	return given, nil
}

// textInput answers which input the words of the user are for; nil when none is.
func textInput(c *chain.Chain, given map[string]json.RawMessage) *chain.Input {
	var first *chain.Input
	for i := range c.Inputs {
		in := &c.Inputs[i]
		if in.Type != chain.InputShortText && in.Type != chain.InputLongText {
			continue
		}
		if _, some := given[in.Name]; some {
			continue
		}
		if in.Required {
			return in
		}
		if first == nil {
			first = in
		}
	}
	if len(given) > 0 {
		return nil
	}
	return first
}

// inputsObject reads an object, or a text that holds one.
func inputsObject(raw json.RawMessage) (map[string]json.RawMessage, error) {
	const param = "metadata." + inputsParameter
	var text string
	if json.Unmarshal(raw, &text) == nil {
		raw = json.RawMessage(text)
		if err := checkJSON(raw); err != nil {
			return nil, within(param, err)
		}
	}
	members := objectOf(raw)
	if members == nil {
		return nil, refused(param, codeInvalidType, "metadata.inputs must hold an object.")
	}
	return members, nil
}

func objectOf(raw []byte) (members map[string]json.RawMessage) {
	if trimmed := bytes.TrimSpace(raw); len(trimmed) == 0 || trimmed[0] != '{' || json.Unmarshal(raw, &members) != nil {
		return nil
	}
	return members
}

// plainer takes a value out of a text where the input is none: OpenAI's metadata
// has texts only.
func plainer(in *chain.Input, raw json.RawMessage) json.RawMessage {
	var text string
	switch in.Type {
	case chain.InputNumber, chain.InputBoolean, chain.InputMultiSelect, chain.InputJSON:
		if json.Unmarshal(raw, &text) == nil && json.Valid([]byte(text)) {
			return json.RawMessage(text)
		}
	case chain.InputShortText, chain.InputLongText, chain.InputSelect, chain.InputFile:
	}
	return raw
}

// within moves a problem with a text inside the body to the parameter that has it.
func within(param string, err error) error {
	p := problemOf(err)
	return &problem{kind: p.kind, detail: p.detail, param: param}
}
