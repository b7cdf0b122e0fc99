package chain

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// JSON is the normalised document, compact, with its inputs and prompts in their order and without fields that say
// nothing beyond a default. Parsing it gives an equal chain.
func (c *Chain) JSON() []byte { return c.tree().appendJSON(nil) }

// YAML is the document of JSON, laid out for people. Parsing it gives an equal chain.
func (c *Chain) YAML() []byte {
	w := &yamlWriter{}
	w.object(c.tree(), 0)
	return w.b
}

// object builds the node of an object and leaves out members that are empty.
type object struct{ node }

func newObject() *object { return &object{node{kind: kindObject}} }

func (o *object) put(key string, n *node) {
	o.keys = append(o.keys, key)
	o.items = append(o.items, n)
}

func (o *object) str(key, s string) {
	if s != "" {
		o.put(key, &node{kind: kindString, text: s})
	}
}

func (o *object) whole(key string, v int) {
	if v != 0 {
		o.put(key, nodeOf(v))
	}
}

func (o *object) wholePointer(key string, v *int) {
	if v != nil {
		o.put(key, nodeOf(*v))
	}
}

func (o *object) floatPointer(key string, v *float64) {
	if v != nil {
		o.put(key, nodeOf(*v))
	}
}

func (o *object) list(key string, list []string) {
	if len(list) > 0 {
		o.put(key, nodeOf(list))
	}
}

func (c *Chain) tree() *node {
	o := newObject()
	o.str("name", c.Name)
	o.str("description", c.Description)
	if len(c.Inputs) > 0 {
		inputs := newObject()
		for i := range c.Inputs {
			inputs.put(c.Inputs[i].Name, c.Inputs[i].tree())
		}
		o.put("inputs", &inputs.node)
	}
	prompts := &node{kind: kindList}
	for i := range c.Prompts {
		prompts.items = append(prompts.items, c.Prompts[i].tree())
	}
	o.put("prompts", prompts)
	limits := newObject()
	if c.Limits.Timeout != 0 {
		limits.str("timeout", formatDuration(c.Limits.Timeout))
	}
	if c.Limits.MaxCostUSD != "" {
		limits.put("maxCostUsd", &node{kind: kindNumber, text: c.Limits.MaxCostUSD})
	}
	limits.whole("maxTokens", c.Limits.MaxTokens)
	limits.whole("concurrency", c.Limits.Concurrency)
	if len(limits.keys) > 0 {
		o.put("limits", &limits.node)
	}
	return &o.node
}

func (in *Input) tree() *node {
	o := newObject()
	o.str("type", string(in.Type))
	o.str("label", in.Label)
	o.str("description", in.Description)
	o.str("placeholder", in.Placeholder)
	if in.Required {
		o.put("required", nodeOf(true))
	}
	if len(in.Options) > 0 {
		options := &node{kind: kindList}
		for _, option := range in.Options {
			if option.Label == option.Value || option.Label == "" {
				options.items = append(options.items, nodeOf(option.Value))
				continue
			}
			both := newObject()
			both.str("value", option.Value)
			both.str("label", option.Label)
			options.items = append(options.items, &both.node)
		}
		o.put("options", options)
	}
	if in.Default != nil {
		o.put("default", nodeOf(in.Default))
	}
	o.wholePointer("maxLength", in.MaxLength)
	o.floatPointer("min", in.Min)
	o.floatPointer("max", in.Max)
	o.wholePointer("minSelections", in.MinSelections)
	o.wholePointer("maxSelections", in.MaxSelections)
	return &o.node
}

func (p *Prompt) tree() *node {
	o := newObject()
	o.str("name", p.Name)
	o.whole("position", p.Position)
	o.str("model", p.Model)
	o.str("system", p.System)
	o.str("content", p.Content)
	o.list("images", p.Images)
	if len(p.Mapping) > 0 {
		mapping := newObject()
		for _, name := range sortedKeys(p.Mapping) {
			mapping.put(name, nodeOf(p.Mapping[name]))
		}
		o.put("mapping", &mapping.node)
	}
	if p.Knowledge != nil {
		o.put("knowledge", p.Knowledge.tree())
	}
	o.list("tools", p.Tools)
	o.floatPointer("temperature", p.Temperature)
	o.floatPointer("topP", p.TopP)
	o.whole("maxTokens", p.MaxTokens)
	if p.Timeout != 0 {
		o.str("timeout", formatDuration(p.Timeout))
	}
	if p.Retry.Attempts != 0 && p.Retry.Attempts != DefaultAttempts {
		retry := newObject()
		retry.put("attempts", nodeOf(p.Retry.Attempts))
		o.put("retry", &retry.node)
	}
	o.list("fallback", p.Fallback)
	if p.OnError != OnErrorStop {
		o.str("onError", string(p.OnError))
	}
	if p.Output != nil {
		output := newObject()
		output.put("schema", p.Output.tree())
		o.put("output", &output.node)
	}
	if p.History.Mode != HistoryNone {
		o.str("history", p.History.String())
	}
	o.list("stop", p.Stop)
	if p.Seed != nil {
		o.put("seed", nodeOf(*p.Seed))
	}
	if p.Cache != nil {
		cache := newObject()
		cache.str("ttl", formatDuration(p.Cache.TTL))
		o.put("cache", &cache.node)
	}
	return &o.node
}

func (k *Knowledge) tree() *node {
	o := newObject()
	repositories := &node{kind: kindList}
	for _, id := range k.Repositories {
		repositories.items = append(repositories.items, nodeOf(id))
	}
	o.put("repositories", repositories)
	o.str("search", string(k.Search))
	o.whole("maxChunks", k.MaxChunks)
	o.whole("maxTokens", k.MaxTokens)
	o.put("threshold", nodeOf(k.Threshold))
	o.whole("perDocument", k.PerDocument)
	o.whole("neighbours", k.Neighbours)
	if k.Filter != nil {
		if n := readTree(k.Filter, FormatJSON, len(k.Filter), &collector{}); n != nil {
			o.put("filter", n)
		}
	}
	o.str("query", k.Query)
	return &o.node
}

// tree is the schema, or null when it is not JSON, which Validate reports.
func (o *Output) tree() *node {
	if n := readTree(o.Schema, FormatJSON, len(o.Schema), &collector{}); n != nil {
		return n
	}
	return &node{kind: kindNull}
}

// yamlWriter lays out a tree as YAML in block style.
type yamlWriter struct{ b []byte }

func (w *yamlWriter) indent(n int) {
	for range n {
		w.b = append(w.b, ' ')
	}
}

// object writes the members at an indentation; the first line is already indented.
func (w *yamlWriter) object(n *node, indent int) {
	for i, key := range n.keys {
		if i > 0 {
			w.indent(indent)
		}
		w.text(key)
		w.b = append(w.b, ':')
		w.value(n.items[i], indent)
	}
}

// value writes what follows a key: on the same line, or below it.
func (w *yamlWriter) value(n *node, indent int) {
	switch {
	case n.kind == kindObject && len(n.keys) > 0:
		w.b = append(w.b, '\n')
		w.indent(indent + 2)
		w.object(n, indent+2)
	case n.kind == kindList && len(n.items) > 0 && !n.isShort():
		w.b = append(w.b, '\n')
		w.list(n, indent+2)
	default:
		w.b = append(w.b, ' ')
		w.scalar(n, indent+2)
	}
}

// isShort tells whether a list reads well on one line: few scalars.
func (n *node) isShort() bool {
	if len(n.items) > 10 {
		return false
	}
	for _, item := range n.items {
		if item.kind == kindObject || item.kind == kindList || len(item.text) > 30 {
			return false
		}
	}
	return true
}

func (w *yamlWriter) list(n *node, indent int) {
	for _, item := range n.items {
		w.indent(indent)
		w.b = append(w.b, '-')
		if item.kind == kindObject && len(item.keys) > 0 {
			w.b = append(w.b, ' ')
			w.object(item, indent+2)
			continue
		}
		w.value(item, indent)
	}
}

// scalar writes a value on the current line; a text of several lines goes on below, at the indentation.
func (w *yamlWriter) scalar(n *node, indent int) {
	switch {
	case n.kind == kindString && isBlockText(n.text):
		w.literal(n.text, indent)
	case n.kind == kindString && plainLine.MatchString(n.text) && !isReserved(n.text):
		w.b = append(w.b, n.text...)
		w.b = append(w.b, '\n')
	case n.kind == kindString:
		w.text(n.text)
		w.b = append(w.b, '\n')
	case n.kind == kindList:
		w.b = append(w.b, '[')
		for i, item := range n.items {
			if i > 0 {
				w.b = append(w.b, ", "...)
			}
			if item.kind == kindString {
				w.text(item.text)
			} else {
				w.b = item.appendJSON(w.b)
			}
		}
		w.b = append(w.b, "]\n"...)
	default:
		w.b = n.appendJSON(w.b)
		w.b = append(w.b, '\n')
	}
}

// text writes a string without quotes where no reader could take it for something else.
func (w *yamlWriter) text(s string) {
	if plainText.MatchString(s) && !isReserved(s) {
		w.b = append(w.b, s...)
		return
	}
	w.b = appendQuoted(w.b, s)
}

// plainText are strings that need no quotes anywhere in YAML, plainLine those that need none as the rest of a line: they
// begin with a letter and hold no character with a meaning there.
var (
	plainText = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9 _./;()-]{0,200}[A-Za-z0-9_.)])?$`)
	plainLine = regexp.MustCompile(`^([0-9]+([.][0-9]+)?(ms|s|m|h)|[A-Za-z]([A-Za-z0-9 _./;,'$()-]{0,200}[A-Za-z0-9_.)])?)$`)
)

// isReserved tells whether some version of YAML reads the word as something other than a string.
func isReserved(s string) bool {
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf":
		return true
	}
	return false
}

// isBlockText tells whether a text of several lines can be written as it is in a literal block.
func isBlockText(s string) bool {
	if !strings.Contains(s, "\n") || s[0] == ' ' || s[0] == '\n' || s[0] == '\t' || strings.HasSuffix(s, "\n\n") {
		return false
	}
	for line := range strings.SplitSeq(s, "\n") {
		if strings.TrimRight(line, " \t") != line {
			return false // readers disagree about spaces at the end
		}
	}
	for _, r := range s {
		if r != '\n' && (!unicode.IsPrint(r) || r == utf8.RuneError || r == 0xfeff) {
			return false
		}
	}
	return true
}

// literal writes a block of text; it ends with one line end or with none.
func (w *yamlWriter) literal(s string, indent int) {
	w.b = append(w.b, '|')
	if !strings.HasSuffix(s, "\n") {
		w.b = append(w.b, '-')
	}
	w.b = append(w.b, '\n')
	for line := range strings.SplitSeq(strings.TrimSuffix(s, "\n"), "\n") {
		if line != "" {
			w.indent(indent)
			w.b = append(w.b, line...)
		}
		w.b = append(w.b, '\n')
	}
}
