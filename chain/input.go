package chain

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// CheckInputs checks the inputs of an execution, applies defaults and refuses what the chain does not have. Null counts as
// left out, and so does an empty text or list for a required input. An input that is left out and has no default is not
// in the result. The values are
//
//   - string for short_text, long_text and select,
//   - json.Number in its shortest form for number,
//   - bool for boolean and []string for multi_select,
//   - any decoded JSON, numbers as json.Number, for json,
//   - map[string]any with the strings name, mimeType and text for file. A file is given as its text, or as an object with
//     text or base64 and optionally name and mimeType; its content must be UTF-8 text,
//   - map[string]any with the strings name, mimeType and base64 for a file that a prompt names as an image. It is given as
//     such an object, of which only base64 is required.
//
// The error is Problems with pointers /inputs/<name>. It includes references such as ${data.title} to parts that a given
// value does not have.
func (c *Chain) CheckInputs(raw map[string]json.RawMessage) (map[string]any, error) {
	col := &collector{}
	values := make(map[string]any, len(c.Inputs))
	known := make(map[string]bool, len(c.Inputs))
	images := c.imageInputs()
	for i := range c.Inputs {
		in := &c.Inputs[i]
		at := child("/inputs", in.Name)
		known[in.Name] = true
		var value any
		if data, ok := raw[in.Name]; ok {
			part := &collector{}
			limit := MaxDocumentBytes
			if images[in.Name] {
				limit = maxImageInput
			}
			n := readTree(data, FormatJSON, limit, part)
			if len(part.list) > 0 {
				for _, p := range part.problems() {
					col.also(at+p.Pointer, p.Code, "%s", p.Detail)
				}
				continue
			}
			value = n.value()
		}
		if value == nil {
			value = in.Default
		}
		if value == nil || in.Required && isEmpty(value) {
			if in.Required {
				col.add(at, CodeRequired, "the input %s is required", in.Name)
			}
			if value == nil {
				continue
			}
		}
		if images[in.Name] {
			value = in.acceptImage(value, at, col)
		} else {
			value = in.accept(value, at, col)
		}
		if value != nil {
			values[in.Name] = value
		}
	}
	for _, name := range sortedKeys(raw) {
		if !known[name] {
			col.add(child("/inputs", name), CodeUnknownInput, "the chain has no input %s%s", shown(name), c.inputNames())
		}
	}
	c.checkParts(values, col)
	if list := col.problems(); len(list) > 0 {
		return nil, list
	}
	return values, nil
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case []string:
		return len(v) == 0
	}
	return false
}

// inputNames lists the inputs for a message.
func (c *Chain) inputNames() string {
	const most = 10
	var names []string
	for i := range c.Inputs {
		if i == most {
			names = append(names, "…")
			break
		}
		names = append(names, c.Inputs[i].Name)
	}
	if len(names) == 0 {
		return ", it takes none"
	}
	return "; it takes " + strings.Join(names, ", ")
}

// checkParts reports the references to parts of inputs that the values do not have.
func (c *Chain) checkParts(values map[string]any, col *collector) {
	s := newScope(c)
	check := func(i int, ref reference) {
		t, err := s.resolve(i, ref)
		if err != nil || t.kind != targetInput || len(t.path) == 0 {
			return
		}
		in := &c.Inputs[t.index]
		value, ok := values[in.Name]
		if !ok {
			return
		}
		for _, segment := range t.path {
			if value, ok = stepInto(value, segment); !ok {
				col.add(child("/inputs", in.Name), CodeInvalid, "prompt %s needs the part %s of the input %s, which the value does not have",
					shown(c.Prompts[i].Name), shown(strings.Join(t.path, ".")), in.Name)
				return
			}
		}
	}
	for i := range c.Prompts {
		p := &c.Prompts[i]
		templates := []string{p.System, p.Content}
		if p.Knowledge != nil {
			templates = append(templates, p.Knowledge.Query)
		}
		for _, template := range templates {
			for seg := range split(template) {
				if seg.ref != nil {
					check(i, *seg.ref)
				}
			}
		}
	}
}

// accept checks a value against the input and returns it in the form that CheckInputs promises, nil after a problem.
func (in *Input) accept(value any, at string, c *collector) any {
	wrong := func(want string) any {
		hint := ""
		if n := nodeOf(value); n.kind == kindString && (in.Type == InputNumber || in.Type == InputBoolean) {
			hint = "; leave out the quotes"
		}
		c.add(at, CodeWrongType, "expected %s, got %s%s", want, nodeOf(value).kind, hint)
		return nil
	}
	switch in.Type {
	case InputShortText, InputLongText:
		s, ok := value.(string)
		if !ok {
			return wrong("a string")
		}
		return in.acceptText(s, at, c)
	case InputSelect:
		s, ok := value.(string)
		if !ok {
			return wrong("a string")
		}
		if s == "" && !in.Required && !in.hasOption(s) {
			return nil // a form's way to choose nothing
		}
		if !in.hasOption(s) {
			c.add(at, CodeInvalid, "%s is not one of %s", shown(s), in.optionValues())
			return nil
		}
		return s
	case InputMultiSelect:
		list, ok := stringList(value)
		if !ok {
			return wrong("a list of strings")
		}
		return in.acceptList(list, at, c)
	case InputNumber:
		n := nodeOf(value)
		if n.kind != kindNumber {
			return wrong("a number")
		}
		return in.acceptNumber(json.Number(n.text), at, c)
	case InputBoolean:
		b, ok := value.(bool)
		if !ok {
			return wrong("true or false")
		}
		return b
	case InputJSON:
		return plainNumbers(value)
	case InputFile:
		return in.acceptFile(value, at, c)
	}
	return wrong(fmt.Sprintf("a value of type %s", shown(string(in.Type))))
}

// plainNumbers writes every number in a decoded value in its shortest form, so that the value does not depend on how it
// was stored.
func plainNumbers(value any) any {
	switch v := value.(type) {
	case json.Number:
		return json.Number(shortest(v))
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = plainNumbers(item)
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, item := range v {
			m[key] = plainNumbers(item)
		}
		return m
	}
	return value
}

func (in *Input) acceptText(s, at string, c *collector) any {
	if n := utf8.RuneCountInString(s); in.MaxLength != nil && n > *in.MaxLength {
		c.add(at, CodeTooLarge, "has %d characters, at most %d are allowed", n, *in.MaxLength)
		return nil
	}
	return s
}

func (in *Input) hasOption(value string) bool {
	return slices.ContainsFunc(in.Options, func(o Option) bool { return o.Value == value })
}

func (in *Input) optionValues() string {
	const most = 10
	var values []string
	for i, o := range in.Options {
		if i == most {
			values = append(values, "…")
			break
		}
		values = append(values, shown(o.Value))
	}
	return strings.Join(values, ", ")
}

func stringList(value any) ([]string, bool) {
	switch v := value.(type) {
	case []string:
		return v, true
	case []any:
		list := make([]string, len(v))
		for i, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, false
			}
			list[i] = s
		}
		return list, true
	}
	return nil, false
}

func (in *Input) acceptList(list []string, at string, c *collector) any {
	least, most := 0, len(in.Options)
	if in.MinSelections != nil {
		least = *in.MinSelections
	}
	if in.MaxSelections != nil {
		most = min(most, *in.MaxSelections)
	}
	if len(list) < least || len(list) > most {
		c.add(at, CodeOutOfRange, "has %d selections, from %d to %d are allowed", len(list), least, most)
		return nil
	}
	seen := make(map[string]bool, len(list))
	for i, s := range list {
		here := at + "/" + strconv.Itoa(i)
		if !in.hasOption(s) {
			c.add(here, CodeInvalid, "%s is not one of %s", shown(s), in.optionValues())
		} else if seen[s] {
			c.add(here, CodeDuplicate, "%s is there twice", shown(s))
		}
		seen[s] = true
	}
	return list
}

func (in *Input) acceptNumber(number json.Number, at string, c *collector) any {
	f, err := number.Float64()
	if err != nil {
		c.add(at, CodeOutOfRange, "%s is too large a number", shown(number.String()))
		return nil
	}
	if in.Min != nil && f < *in.Min {
		c.add(at, CodeOutOfRange, "must be at least %s", shortestFloat(*in.Min))
		return nil
	}
	if in.Max != nil && f > *in.Max {
		c.add(at, CodeOutOfRange, "must be at most %s", shortestFloat(*in.Max))
		return nil
	}
	return json.Number(shortest(number))
}

func (in *Input) acceptFile(value any, at string, c *collector) any {
	file := map[string]any{"name": in.Name, "mimeType": "text/plain", "text": ""}
	switch v := value.(type) {
	case string:
		file["text"] = v
	case map[string]any:
		if !in.acceptFileObject(v, file, at, c) {
			return nil
		}
	default:
		c.add(at, CodeWrongType, "expected the text of the file or an object with text or base64, got %s", nodeOf(value).kind)
		return nil
	}
	text, _ := file["text"].(string)
	if len(text) > MaxFileBytes {
		c.add(at, CodeTooLarge, "the file has %d bytes, at most %d are allowed", len(text), MaxFileBytes)
		return nil
	}
	if in.acceptText(text, at, c) == nil {
		return nil
	}
	if in.Required && text == "" {
		c.add(at, CodeRequired, "the file is empty")
		return nil
	}
	return file
}

// acceptFileObject reads the object form of a file into file.
func (in *Input) acceptFileObject(v, file map[string]any, at string, c *collector) bool {
	contents := 0
	for _, key := range sortedKeys(v) {
		s, isString := v[key].(string)
		switch {
		case key != "name" && key != "mimeType" && key != "text" && key != "base64":
			c.add(child(at, key), CodeUnknownField, "a file has no field %s", shown(key))
			return false
		case !isString:
			c.add(child(at, key), CodeWrongType, "expected a string, got %s", nodeOf(v[key]).kind)
			return false
		case key == "base64":
			contents++
			data, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				c.add(child(at, key), CodeInvalid, "is not valid base64")
				return false
			}
			if !utf8.Valid(data) || strings.IndexByte(string(data), 0) >= 0 {
				c.add(child(at, key), CodeInvalid, "the file is not text in UTF-8")
				return false
			}
			file["text"] = string(data)
		default:
			if key == "text" {
				contents++
			}
			file[key] = s
		}
	}
	if contents != 1 {
		c.add(at, CodeRequired, "a file needs either text or base64")
		return false
	}
	return true
}
