package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/chainstream/chainstream/chain"
)

// inputFlags are the inputs of an execution.
type inputFlags struct {
	Input      []string `help:"An input as name=value, or name=@file for the text of a file, or an image. May be given several times." short:"i" sep:"none" placeholder:"NAME=VALUE"`
	InputsJSON string   `help:"A file with a JSON object of inputs; --input wins over it." placeholder:"FILE"`
}

// values answers the inputs in the form of the API. types holds the types of the
// chain's inputs: text that stands for a number, a truth value, a list of
// choices or JSON is sent as such.
func (f inputFlags) values(types map[string]chain.InputType) (map[string]json.RawMessage, error) {
	values := make(map[string]json.RawMessage)
	if f.InputsJSON != "" {
		text, err := readFile(f.InputsJSON, chain.MaxDocumentBytes)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &values); err != nil {
			return nil, usage("%s is not a JSON object of inputs: %s", f.InputsJSON, err)
		}
	}
	selected := make(map[string][]string)
	for _, given := range f.Input {
		name, value, ok := strings.Cut(given, "=")
		if !ok || name == "" {
			return nil, usage("--input %q is not of the form name=value", given)
		}
		file, isFile := strings.CutPrefix(value, "@")
		if isFile {
			most := int64(chain.MaxFileBytes)
			if types[name] == chain.InputFile {
				most = chain.MaxImageBytes // the check knows whether it is one
			}
			text, err := readFile(file, most)
			if err != nil {
				return nil, err
			}
			value = string(text)
		}
		var v any = value
		switch types[name] {
		case chain.InputNumber, chain.InputBoolean, chain.InputJSON:
			if json.Valid([]byte(value)) {
				v = json.RawMessage(value) // else the check says what is expected
			}
		case chain.InputMultiSelect:
			selected[name] = append(selected[name], choices(value)...)
			v = selected[name]
		case chain.InputFile:
			switch {
			case isFile && isText(value):
				v = map[string]string{"name": filepath.Base(file), "text": value}
			case isFile:
				v = map[string]string{"name": filepath.Base(file), "base64": base64.StdEncoding.EncodeToString([]byte(value))}
			}
		case chain.InputShortText, chain.InputLongText, chain.InputSelect:
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode the input %s: %w", name, err)
		}
		values[name] = raw
	}
	return values, nil
}

// isText tells whether a file can be sent as text; an image cannot.
func isText(content string) bool {
	return utf8.ValidString(content) && !strings.Contains(content, "\x00")
}

// choices reads a list of choices: a JSON array, or texts with commas between.
func choices(value string) []string {
	var list []string
	if json.Unmarshal([]byte(value), &list) == nil {
		return list
	}
	for part := range strings.SplitSeq(value, ",") {
		list = append(list, strings.TrimSpace(part))
	}
	return list
}

func inputTypes(c *chain.Chain) map[string]chain.InputType {
	types := make(map[string]chain.InputType, len(c.Inputs))
	for _, in := range c.Inputs {
		types[in.Name] = in.Type
	}
	return types
}
