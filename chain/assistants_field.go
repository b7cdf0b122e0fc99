package chain

import (
	"regexp"
	"strconv"
	"strings"
)

var notName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// field reads one input field.
func (im *importer) field(n *node, at string, index int) Input {
	im.unknown(n, at, "name", "label", "field_type", "position", "options")
	old := im.str(n, at, "name")
	name := strings.Trim(cut(notName.ReplaceAllString(old, "_"), 56), "_")
	if name == "" {
		name = "input_" + strconv.Itoa(index+1)
	}
	if old != "" && varName.MatchString(old) {
		name = old
	}
	name = unique(name, "_", 1, func(s string) bool { return im.fieldAt[s] != "" })
	if name != old {
		im.change(at+"/name", "renamed to %s: names of inputs are unique and made of letters, digits, _ and -", name)
	}
	if _, ok := im.renamed[old]; !ok {
		im.renamed[old] = name
	}
	in := Input{Name: name, Label: im.str(n, at, "label")}
	if in.Label == name {
		in.Label = ""
	}
	kind := im.str(n, at, "field_type")
	switch kind {
	case "short_text", "long_text", "select", "multi_select":
		in.Type = InputType(kind)
	case "file_upload":
		in.Type = InputFile
		im.change(at+"/field_type", "file_upload became file, which takes text only")
	default:
		in.Type = InputLongText
		im.change(at+"/field_type", "%s is not known; the input became long_text", shown(kind))
	}
	if options := im.value(n, "options"); options != nil {
		im.options(&in, options, at+"/options")
	}
	if (in.Type == InputSelect || in.Type == InputMultiSelect) && len(in.Options) == 0 {
		im.change(at+"/field_type", "a selection without options became short_text")
		in.Type, in.Default, in.MinSelections, in.MaxSelections = InputShortText, nil, nil, nil
	}
	im.fieldDefault(&in, at+"/options/default")
	return in
}

// options reads the three shapes in use: a list of choices, {values: […]} and {choices: […], default, …}.
func (im *importer) options(in *Input, n *node, at string) {
	switch n.kind {
	case kindList:
		im.choices(in, n, at)
	case kindObject:
		for i, key := range n.keys {
			im.option(in, key, n.items[i], child(at, key))
		}
	default:
		im.change(at, "dropped: not a list and not an object")
	}
}

// option reads one member of the object of options.
func (im *importer) option(in *Input, key string, n *node, at string) {
	if n.kind == kindNull {
		return
	}
	count := func(smallest int) *int {
		if v, err := strconv.Atoi(n.text); n.kind == kindNumber && err == nil && v >= smallest && v <= maxWhole {
			return &v
		}
		im.change(at, "dropped: not a number that can be used")
		return nil
	}
	text := in.Type == InputShortText || in.Type == InputLongText || in.Type == InputFile
	switch {
	case key == "values" || key == "choices":
		if n.kind == kindList {
			im.choices(in, n, at)
			return
		}
		im.change(at, "dropped: not a list")
	case key == "default" && in.Type != InputFile:
		in.Default = n.value()
	case key == "required" && n.kind == kindBool:
		in.Required = n.truth
	case key == "placeholder" && n.kind == kindString:
		in.Placeholder = n.text
	case key == "maxLength" && text:
		in.MaxLength = count(1)
	case key == "minSelections" && in.Type == InputMultiSelect:
		in.MinSelections = count(0)
	case key == "maxSelections" && in.Type == InputMultiSelect:
		in.MaxSelections = count(1)
	default:
		im.change(at, "dropped: an input of type %s has no such option", in.Type)
	}
}

// choices reads a list of options: texts, or objects with value and label.
func (im *importer) choices(in *Input, list *node, at string) {
	if in.Type != InputSelect && in.Type != InputMultiSelect {
		if len(list.items) > 0 {
			im.change(at, "dropped: an input of type %s has no options", in.Type)
		}
		return
	}
	seen := make(map[string]bool)
	for i, n := range list.items {
		here := at + "/" + strconv.Itoa(i)
		o := Option{}
		switch n.kind {
		case kindString, kindNumber:
			o = Option{n.text, n.text}
		case kindObject:
			for j, key := range n.keys {
				m := n.items[j]
				if scalar := m.kind == kindString || m.kind == kindNumber; key == "value" && scalar {
					o.Value = m.text
				} else if key == "label" && scalar {
					o.Label = m.text
				} else {
					im.change(child(here, key), "dropped: an option has a value and a label")
				}
			}
		case kindNull, kindBool, kindList:
		}
		if o.Value == "" {
			o.Value = o.Label
		}
		if o.Label == "" {
			o.Label = o.Value
		}
		if o.Value == "" || seen[o.Value] || len(in.Options) == maxEntries {
			im.change(here, "dropped: an option without a value, one that was there already, or one too many")
			continue
		}
		seen[o.Value] = true
		in.Options = append(in.Options, o)
	}
}

// fieldDefault drops limits and a default that do not fit: nothing checked them before.
func (im *importer) fieldDefault(in *Input, at string) {
	if in.MinSelections != nil && *in.MinSelections > len(in.Options) ||
		in.MinSelections != nil && in.MaxSelections != nil && *in.MinSelections > *in.MaxSelections {
		im.change(at[:len(at)-len("default")]+"minSelections", "dropped: more than can be selected")
		in.MinSelections = nil
	}
	if in.Default == nil {
		return
	}
	check := &collector{}
	value := in.accept(in.Default, at, check)
	if len(check.list) > 0 || value == nil {
		im.change(at, "dropped: the default is not a value that the input takes")
	}
	in.Default = nil
	if len(check.list) == 0 {
		in.Default = value
	}
}
