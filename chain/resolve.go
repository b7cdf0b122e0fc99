package chain

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// targetKind says where a value comes from.
type targetKind uint8

const (
	targetInput targetKind = iota
	targetPrompt
	targetKnowledge
)

// target is what a reference stands for.
type target struct {
	kind  targetKind
	index int      // of the input or the prompt
	path  []string // into its JSON value, empty for the whole
}

// scope knows the names of a chain.
type scope struct {
	chain  *Chain
	order  []int          // prompt indices by position, then document order
	inputs map[string]int // by name
	slugs  map[string]int // by slug; of two with one slug the first
	images map[string]bool
}

func newScope(c *Chain) *scope {
	s := &scope{
		chain:  c,
		order:  c.order(),
		inputs: make(map[string]int, len(c.Inputs)),
		slugs:  make(map[string]int, len(c.Prompts)),
		images: c.imageInputs(),
	}
	for i := range c.Inputs {
		s.inputs[c.Inputs[i].Name] = i
	}
	for i := range c.Prompts {
		slug := promptSlug(c.Prompts[i].Name, i)
		if _, ok := s.slugs[slug]; !ok {
			s.slugs[slug] = i
		}
	}
	return s
}

// referenceError is a reference that can never have a value.
type referenceError struct {
	code   string
	detail string
}

func (e *referenceError) Error() string { return e.detail }

// resolve finds what a reference of prompt i stands for: a mapping entry, an input, the slug of an earlier prompt,
// prompt_N_output, or the retrieved context. The error is a *referenceError.
func (s *scope) resolve(i int, r reference) (target, error) {
	p := &s.chain.Prompts[i]
	if path, ok := p.Mapping[r.name]; ok {
		t, err := s.mapped(i, path)
		if err != nil {
			return target{}, err
		}
		return s.within(t, r.path)
	}
	if j, ok := s.inputs[r.name]; ok {
		return s.within(target{kind: targetInput, index: j}, r.path)
	}
	t, err := s.output(i, r.name)
	if err == nil {
		return s.within(t, r.path)
	}
	if r.name == "knowledge" && p.Knowledge != nil {
		return s.within(target{kind: targetKnowledge}, r.path)
	}
	return target{}, err
}

// output finds the earlier prompt that a slug or prompt_N_output names.
func (s *scope) output(i int, name string) (target, error) {
	j, ok := s.slugs[name]
	if !ok {
		j, ok = s.numbered(name)
	}
	if !ok {
		return target{}, &referenceError{CodeUnknownReference,
			fmt.Sprintf("%s is no input and no earlier prompt%s", shown(name), s.known(i))}
	}
	from, to := &s.chain.Prompts[i], &s.chain.Prompts[j]
	switch {
	case to.Position < from.Position:
		return target{kind: targetPrompt, index: j}, nil
	case i == j:
		return target{}, &referenceError{CodeSelfReference, fmt.Sprintf("%s is the output of this very prompt", shown(name))}
	case to.Position == from.Position:
		return target{}, &referenceError{CodeSiblingReference,
			fmt.Sprintf("%s is the output of prompt %s, which runs at the same position", shown(name), shown(to.Name))}
	default:
		return target{}, &referenceError{CodeLaterReference,
			fmt.Sprintf("%s is the output of prompt %s, which runs later", shown(name), shown(to.Name))}
	}
}

// numbered reads prompt_N_output.
func (s *scope) numbered(name string) (int, bool) {
	number, ok := strings.CutPrefix(name, "prompt_")
	if !ok {
		return 0, false
	}
	if number, ok = strings.CutSuffix(number, "_output"); !ok {
		return 0, false
	}
	n, ok := listIndex(number, len(s.order))
	if !ok {
		return 0, false
	}
	return s.order[n], true
}

// known lists names that prompt i can use, for a message.
func (s *scope) known(i int) string {
	const most = 8
	var names []string
	for k := range s.chain.Inputs {
		if len(names) > most {
			break
		}
		names = append(names, s.chain.Inputs[k].Name)
	}
	for _, j := range s.order {
		if len(names) > most || s.chain.Prompts[j].Position >= s.chain.Prompts[i].Position {
			break
		}
		names = append(names, promptSlug(s.chain.Prompts[j].Name, j))
	}
	if len(names) == 0 {
		return ""
	}
	if len(names) > most {
		names = append(names[:most:most], "…")
	}
	for k, name := range names {
		if len(name) > maxNameBytes {
			names[k] = name[:maxNameBytes] + "…"
		}
	}
	return "; there is " + strings.Join(names, ", ")
}

// mapped finds what the path of a mapping entry stands for: inputs.name, a slug or prompt_N_output, each with a path
// into its value.
func (s *scope) mapped(i int, path string) (target, error) {
	parts := strings.Split(path, ".")
	if len(path) > 1000 || slices.ContainsFunc(parts, func(part string) bool { return !isName(part) }) {
		return target{}, &referenceError{CodeInvalid,
			fmt.Sprintf("%s is no path; write inputs.name, the variable name of an earlier prompt or prompt_N_output, and a dotted path into its value", shown(path))}
	}
	if parts[0] == "inputs" {
		if len(parts) < 2 {
			return target{}, &referenceError{CodeInvalid, "inputs needs the name of an input after it, such as inputs.topic"}
		}
		j, ok := s.inputs[parts[1]]
		if !ok {
			return target{}, &referenceError{CodeUnknownReference, fmt.Sprintf("there is no input %s", shown(parts[1]))}
		}
		return s.within(target{kind: targetInput, index: j}, parts[2:])
	}
	t, err := s.output(i, parts[0])
	if err != nil {
		if _, ok := s.inputs[parts[0]]; ok {
			err = &referenceError{CodeUnknownReference, fmt.Sprintf("%s is an input; write inputs.%s", shown(parts[0]), parts[0])}
		}
		return target{}, err
	}
	return s.within(t, parts[1:])
}

// within extends a target by a path and refuses paths that can never lead anywhere.
func (s *scope) within(t target, path []string) (target, error) {
	if t.kind == targetInput && s.images[s.chain.Inputs[t.index].Name] {
		t.path = append(slices.Clip(t.path), path...)
		if len(t.path) == 1 && slices.Contains(imageParts, t.path[0]) {
			return t, nil
		}
		name := s.chain.Inputs[t.index].Name
		return target{}, &referenceError{CodeInvalid, fmt.Sprintf("the input %[1]s is an image and no text; there are ${%[1]s.name} and ${%[1]s.mimeType}", name)}
	}
	if len(path) == 0 {
		return t, nil
	}
	t.path = append(slices.Clip(t.path), path...)
	switch t.kind {
	case targetKnowledge:
		return target{}, &referenceError{CodeInvalid, "knowledge is text, it has no parts"}
	case targetPrompt:
		return t, nil
	case targetInput:
	}
	in := &s.chain.Inputs[t.index]
	ok := false
	switch in.Type {
	case InputJSON:
		ok = true
	case InputMultiSelect:
		_, err := strconv.Atoi(t.path[0])
		ok = len(t.path) == 1 && err == nil
	case InputFile:
		ok = len(t.path) == 1 && slices.Contains([]string{"name", "mimeType", "text"}, t.path[0])
	case InputShortText, InputLongText, InputSelect, InputNumber, InputBoolean:
	}
	if !ok {
		return target{}, &referenceError{CodeInvalid,
			fmt.Sprintf("the input %s is of type %s and has no part %s", in.Name, in.Type, shown(strings.Join(t.path, ".")))}
	}
	return t, nil
}

// references reports what the templates and the mapping of prompt i refer to in vain.
func (v *validator) references(s *scope, i int) {
	p := &v.chain.Prompts[i]
	at := promptPointer(i)
	v.count(at+"/mapping", len(p.Mapping), maxMappings)
	if len(p.Mapping) <= maxMappings {
		for _, name := range sortedKeys(p.Mapping) {
			here := child(at+"/mapping", name)
			if !varName.MatchString(name) {
				v.add(here, CodeInvalid, "%s is no name of a variable; use up to %d of A-Z, a-z, 0-9, _ and -", shown(name), maxNameBytes)
				continue
			}
			if _, err := s.mapped(i, p.Mapping[name]); err != nil {
				v.reference(here, "", err)
			}
		}
	}
	v.template(s, i, p.System, at+"/system", false)
	v.template(s, i, p.Content, at+"/content", false)
	if p.Knowledge != nil {
		v.template(s, i, p.Knowledge.Query, at+"/knowledge/query", true)
	}
}

// template reports each reference of a template that stands for nothing, once.
func (v *validator) template(s *scope, i int, text, at string, query bool) {
	if v.covered(at) {
		return
	}
	p := &v.chain.Prompts[i]
	seen := make(map[string]bool)
	bad := 0
	for seg := range split(text) {
		if seg.ref == nil {
			continue
		}
		name := seg.ref.String()
		if seen[name] {
			continue
		}
		seen[name] = true
		if _, mapped := p.Mapping[seg.ref.name]; mapped && v.covered(child(promptPointer(i)+"/mapping", seg.ref.name)) {
			continue // the entry itself has a problem
		}
		t, err := s.resolve(i, *seg.ref)
		if err == nil && query && t.kind == targetKnowledge {
			err = &referenceError{CodeInvalid, "the query is made before there is any knowledge"}
		}
		if err != nil {
			v.reference(at, name, err)
			if bad++; bad > MaxProblems {
				return
			}
		}
	}
}

// reference reports a reference that stands for nothing; name is how a template writes it.
func (v *validator) reference(at, name string, err error) {
	code := CodeInvalid
	if e, ok := errors.AsType[*referenceError](err); ok {
		code = e.code
	}
	if name == "" {
		v.add(at, code, "%s", err)
		return
	}
	const most = 100
	if len(name) > most {
		name = name[:most] + "…"
	}
	v.also(at, code, "${%s}: %s", name, err)
}

// sortedKeys lists the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
