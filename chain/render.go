package chain

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// KnowledgeHeading stands before the retrieved context when the templates do not say where it goes.
const KnowledgeHeading = "Context:"

// ErrRenderedTooLarge is returned by Render and Query when the text would be larger than MaxRenderedBytes.
var ErrRenderedTooLarge = errors.New("rendered prompt is too large")

// State is what is known when a prompt is rendered.
type State struct {
	Inputs    map[string]any // as CheckInputs returned them (a JSON round trip of them does as well)
	Outputs   map[int]string // text by prompt index, finished prompts only
	Knowledge string         // the retrieved context, empty when there is none
}

// Rendered is a prompt with its variables resolved.
type Rendered struct {
	System        string
	User          string
	Variables     map[string]string // every reference that was substituted, without braces, and its whole value
	Sources       []int             // indices of the prompts that gave values, ascending
	UsesKnowledge bool              // the templates say where the context goes
	Images        []Image           // shown with the user message; Variables names them
}

// UnresolvedError says that a value does not exist at run time.
type UnresolvedError struct {
	Name   string // the variable
	Path   string // the dotted path after it, "" for the whole value
	Reason string // a clause for people
}

// Error says which reference has no value and why.
func (e *UnresolvedError) Error() string {
	name := e.Name
	if e.Path != "" {
		name += "." + e.Path
	}
	return "no value for ${" + name + "}: " + e.Reason
}

// Render resolves the system and user templates of prompt i in one pass: what is inserted is never looked at again.
// Context that the templates do not place is appended to the user message under KnowledgeHeading. The error is an
// *UnresolvedError when a value does not exist, or ErrRenderedTooLarge.
func (c *Chain) Render(i int, s State) (Rendered, error) {
	r := newRenderer(c, i, s)
	p := &c.Prompts[i]
	system, err := r.render(p.System)
	if err != nil {
		return Rendered{}, err
	}
	user, err := r.render(p.Content)
	if err != nil {
		return Rendered{}, err
	}
	if s.Knowledge != "" && !r.knowledge {
		user += "\n\n" + KnowledgeHeading + "\n\n" + s.Knowledge
		if len(user) > MaxRenderedBytes {
			return Rendered{}, fmt.Errorf("render prompt %d: %w", i, ErrRenderedTooLarge)
		}
	}
	images, err := r.images()
	if err != nil {
		return Rendered{}, fmt.Errorf("render prompt %d: %w", i, err)
	}
	return Rendered{
		Images:        images,
		System:        system,
		User:          user,
		Variables:     r.variables,
		Sources:       slices.Sorted(maps.Keys(r.sources)),
		UsesKnowledge: r.knowledge,
	}, nil
}

// Query is the retrieval query of prompt i: its knowledge.query, or else its content, with variables resolved. It is
// made before there is any context, so ${knowledge} is empty in it. The errors are those of Render.
func (c *Chain) Query(i int, s State) (string, error) {
	s.Knowledge = ""
	p := &c.Prompts[i]
	text := p.Content
	if p.Knowledge != nil && p.Knowledge.Query != "" {
		text = p.Knowledge.Query
	}
	return newRenderer(c, i, s).render(text)
}

// renderer resolves the templates of one prompt.
type renderer struct {
	scope     *scope
	index     int
	state     State
	variables map[string]string
	sources   map[int]bool
	knowledge bool
	outputs   map[int]*node // outputs read as JSON, nil for those that are not
}

func newRenderer(c *Chain, i int, s State) *renderer {
	return &renderer{
		scope: newScope(c), index: i, state: s,
		variables: make(map[string]string), sources: make(map[int]bool), outputs: make(map[int]*node),
	}
}

func (r *renderer) render(template string) (string, error) {
	var b strings.Builder
	for seg := range split(template) {
		text := seg.text
		if seg.ref != nil {
			var err error
			if text, err = r.substitute(*seg.ref); err != nil {
				return "", fmt.Errorf("render prompt %d: %w", r.index, err)
			}
		}
		if b.Len()+len(text) > MaxRenderedBytes {
			return "", fmt.Errorf("render prompt %d: %w", r.index, ErrRenderedTooLarge)
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (r *renderer) substitute(ref reference) (string, error) {
	name := ref.String()
	if text, ok := r.variables[name]; ok {
		return text, nil
	}
	unresolved := &UnresolvedError{Name: ref.name, Path: strings.Join(ref.path, ".")}
	t, err := r.scope.resolve(r.index, ref)
	if err != nil {
		unresolved.Reason = err.Error()
		return "", unresolved
	}
	text, reason := r.text(t)
	if reason != "" {
		unresolved.Reason = reason
		return "", unresolved
	}
	switch t.kind {
	case targetKnowledge:
		r.knowledge = true
	case targetPrompt:
		r.sources[t.index] = true
	case targetInput:
	}
	r.variables[name] = text
	return text, nil
}

// text is the value of a target, or the reason why there is none.
func (r *renderer) text(t target) (text, reason string) {
	switch t.kind {
	case targetKnowledge:
		return r.state.Knowledge, ""
	case targetPrompt:
		return r.output(t)
	case targetInput:
	}
	in := &r.scope.chain.Inputs[t.index]
	value, ok := r.state.Inputs[in.Name]
	if !ok || value == nil {
		if in.Required {
			return "", fmt.Sprintf("the input %s is missing", in.Name)
		}
		return "", "" // an optional input that was left out is empty text, its parts too
	}
	path := t.path
	if in.Type == InputFile {
		switch file := value.(type) {
		case string:
			if len(path) == 1 && path[0] == "text" {
				path = nil
			}
		case map[string]any:
			if len(path) == 0 {
				value = file["text"]
			}
		}
	}
	for _, segment := range path {
		if value, ok = stepInto(value, segment); !ok {
			return "", fmt.Sprintf("the input %s has no part %s", in.Name, shown(strings.Join(t.path, ".")))
		}
	}
	return formatValue(value), ""
}

func (r *renderer) output(t target) (text, reason string) {
	p := &r.scope.chain.Prompts[t.index]
	text, ok := r.state.Outputs[t.index]
	if !ok {
		return "", fmt.Sprintf("prompt %s has no output", shown(p.Name))
	}
	if len(t.path) == 0 {
		return text, ""
	}
	root, ok := r.outputs[t.index]
	if !ok {
		root = readOutput(text)
		r.outputs[t.index] = root
	}
	if root == nil {
		return "", fmt.Sprintf("the output of prompt %s is not JSON", shown(p.Name))
	}
	n := root
	for _, segment := range t.path {
		if n = n.step(segment); n == nil {
			return "", fmt.Sprintf("the output of prompt %s has no part %s", shown(p.Name), shown(strings.Join(t.path, ".")))
		}
	}
	return n.format(), ""
}

// readOutput reads the JSON value of a model's answer. Models like to put it into a Markdown code fence; one around the
// whole answer is taken off. The result is nil when the answer is not JSON.
func readOutput(text string) *node {
	text = strings.TrimSpace(text)
	if inner, ok := strings.CutPrefix(text, "```"); ok {
		if inner, ok = strings.CutSuffix(inner, "```"); ok {
			if _, body, ok := strings.Cut(inner, "\n"); ok {
				text = body
			}
		}
	}
	c := &collector{}
	n := readTree([]byte(text), FormatJSON, len(text), c)
	if slices.ContainsFunc(c.list, func(p Problem) bool { return p.Code == CodeOutOfRange }) {
		return nil // a number that cannot be told
	}
	return n
}

// format writes a value as text: strings as they are, numbers in their shortest form, a list as its entries with commas
// between them, objects as compact JSON.
func (n *node) format() string {
	switch n.kind {
	case kindString:
		return n.text
	case kindNumber:
		return shortest(json.Number(n.text))
	case kindList:
		parts := make([]string, len(n.items))
		for i, item := range n.items {
			if item.kind == kindList {
				parts[i] = string(item.appendJSON(nil))
			} else {
				parts[i] = item.format()
			}
		}
		return strings.Join(parts, ", ")
	case kindNull, kindBool, kindObject:
	}
	return string(n.appendJSON(nil))
}

// shortest writes a number in its shortest decimal form, whole numbers exactly: 1.0 and 1e0 become 1.
func shortest(number json.Number) string {
	s := number.String()
	if !strings.ContainsAny(s, ".eE") {
		if s == "-0" {
			return "0"
		}
		return s
	}
	f, err := number.Float64()
	if err != nil {
		return s
	}
	return shortestFloat(f)
}

func shortestFloat(f float64) string {
	format := byte('f')
	if abs := max(f, -f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'g'
	}
	return strconv.FormatFloat(f+0, format, -1, 64)
}

// stepInto follows one segment of a path in a decoded value.
func stepInto(v any, segment string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		next, ok := v[segment]
		return next, ok
	case []any:
		if i, ok := listIndex(segment, len(v)); ok {
			return v[i], true
		}
	case []string:
		if i, ok := listIndex(segment, len(v)); ok {
			return v[i], true
		}
	}
	return nil, false
}

// formatValue is node.format for decoded values. Members of objects are in alphabetical order, so that the text does not
// depend on how the value was stored.
func formatValue(v any) string { return nodeOf(v).format() }

// nodeOf turns a decoded value into a node. Values of types that JSON does not decode to are null.
func nodeOf(v any) *node {
	switch v := v.(type) {
	case string:
		return &node{kind: kindString, text: v}
	case bool:
		return &node{kind: kindBool, truth: v}
	case json.Number:
		return &node{kind: kindNumber, text: v.String()}
	case float64:
		return &node{kind: kindNumber, text: shortestFloat(v)}
	case int:
		return &node{kind: kindNumber, text: strconv.Itoa(v)}
	case int64:
		return &node{kind: kindNumber, text: strconv.FormatInt(v, 10)}
	case []string:
		n := &node{kind: kindList}
		for _, s := range v {
			n.items = append(n.items, &node{kind: kindString, text: s})
		}
		return n
	case []any:
		n := &node{kind: kindList}
		for _, item := range v {
			n.items = append(n.items, nodeOf(item))
		}
		return n
	case map[string]any:
		n := &node{kind: kindObject}
		for _, key := range sortedKeys(v) {
			n.keys = append(n.keys, key)
			n.items = append(n.items, nodeOf(v[key]))
		}
		return n
	}
	return &node{kind: kindNull}
}
