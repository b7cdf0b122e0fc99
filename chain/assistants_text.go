package chain

import (
	"regexp"
	"strconv"
	"strings"
)

// Rich-text editors escape the characters of references; the origin undoes that before it looks for them.
const (
	editorDollar = `(?:\\?\$|&#36;|&dollar;)`
	editorOpen   = `(?:\\?\{|&#123;|&lcub;|&lbrace;)`
	editorClose  = `(?:\\?\}|&#125;|&rcub;|&rbrace;)`
	editorName   = `((?:[A-Za-z0-9-]|\\?_|&#95;|&lowbar;)+)`
)

var (
	editorReference = regexp.MustCompile(editorDollar + editorOpen + editorName + editorClose +
		`|` + editorOpen + editorOpen + editorName + editorClose + editorClose)
	editorUnderscore = strings.NewReplacer(`\_`, "_", "&#95;", "_", "&lowbar;", "_")
	databaseID       = regexp.MustCompile(`^prompt_[0-9]+\.output$`)
)

// variables turns the references of the assistant into ours: it undoes the escapes of editors, follows renamed inputs and
// prompts, reads the mappings, and escapes what would refer to nothing.
func (im *importer) variables() {
	list := im.value(im.node, "prompts")
	scope := newScope(&im.chain)
	for i := range im.chain.Prompts {
		p := &im.chain.Prompts[i]
		at := im.at + "/prompts/" + strconv.Itoa(i)
		if m := im.value(list.items[i], "input_mapping"); m != nil {
			im.mapping(scope, i, m, at+"/input_mapping")
		}
		p.System = im.template(scope, i, p.System, at+"/system_context")
		p.Content = im.template(scope, i, p.Content, at+"/content")
	}
}

// template rewrites one text.
func (im *importer) template(s *scope, i int, text, at string) string {
	noted := make(map[string]bool)
	note := func(raw, format string) {
		if !noted[raw] {
			noted[raw] = true
			im.change(at, format, shown(raw))
		}
	}
	text = editorReference.ReplaceAllStringFunc(text, func(raw string) string {
		m := editorReference.FindStringSubmatch(raw)
		plain := "${" + editorUnderscore.Replace(m[1]) + "}"
		if m[1] == "" {
			plain = "{{" + editorUnderscore.Replace(m[2]) + "}}"
		}
		if plain != raw {
			note(raw, "%s was written without an editor's escapes")
		}
		return plain
	})
	known := make(map[string]string) // what references became, "" for text
	return rewrite(text, func(raw string, ref reference) (string, bool) {
		if to, ok := known[raw]; ok {
			return to, to != ""
		}
		known[raw] = ""
		to := im.rename(s, i, ref)
		if _, err := s.resolve(i, to); err != nil {
			note(raw, "%s refers to nothing and stays text")
			return "", false
		}
		opening, closing := raw[:2], "}"
		if opening == "{{" {
			closing = "}}"
		}
		plain := opening + to.String() + closing
		if raw != plain && to.name == ref.name || len(ref.path) > 0 {
			note(raw, "%s was text before and is a variable now")
		}
		known[raw] = plain
		return plain, true
	})
}

// rename follows what a reference of prompt i meant where it comes from: an input by its old name, or of the earlier
// prompts with one slug the last.
func (im *importer) rename(s *scope, i int, ref reference) reference {
	if _, ok := im.chain.Prompts[i].Mapping[ref.name]; ok {
		return ref
	}
	if name, ok := im.renamed[ref.name]; ok {
		return reference{name, ref.path}
	}
	return reference{im.lastSlug(s, i, ref.name), ref.path}
}

// lastSlug is the slug now of the last earlier prompt that had the slug in the document.
func (im *importer) lastSlug(s *scope, i int, slug string) string {
	found := slug
	if im.shared[slug] < 2 {
		return found
	}
	for _, j := range s.order {
		if im.chain.Prompts[j].Position >= im.chain.Prompts[i].Position {
			break
		}
		if im.slugs[j] == slug {
			found = im.chain.Prompts[j].Slug
		}
	}
	return found
}

// mapping reads the mapping of prompt i. Entries that never had a value are dropped.
func (im *importer) mapping(s *scope, i int, n *node, at string) {
	if n.kind != kindObject {
		im.change(at, "dropped: not an object")
		return
	}
	p := &im.chain.Prompts[i]
	for k, name := range n.keys {
		here := child(at, name)
		value := n.items[k]
		if value.kind != kindString || !varName.MatchString(name) || len(p.Mapping) == maxMappings {
			im.change(here, "dropped: an entry is the name of a variable and a path, and there are at most %d", maxMappings)
			continue
		}
		path, why := im.path(s, i, value.text)
		if why == "" {
			if _, err := s.mapped(i, path); err != nil {
				why = err.Error()
			}
		}
		if why != "" {
			im.change(here, "%s was dropped: %s", shown(value.text), why)
			continue
		}
		if path != value.text {
			im.change(here, "%s became %s", shown(value.text), shown(path))
		}
		if p.Mapping == nil {
			p.Mapping = make(map[string]string)
		}
		p.Mapping[name] = path
	}
}

// path turns the value of a mapping entry into a path of ours, or says why there is none.
func (im *importer) path(s *scope, i int, value string) (path, why string) {
	path = strings.TrimSpace(value)
	if ref, length := matchWhole(path); length {
		path = ref.String()
	}
	if databaseID.MatchString(path) || strings.HasPrefix(path, "previousOutputs.") {
		return "", "it names a prompt by a number that the document does not hold"
	}
	if rest, ok := strings.CutPrefix(path, "userInput."); ok {
		path = "inputs." + rest
	}
	root, rest, dotted := strings.Cut(path, ".")
	if dotted {
		rest = "." + rest
	}
	if root == "inputs" && dotted {
		name, deeper, more := strings.Cut(rest[1:], ".")
		if more {
			deeper = "." + deeper
		}
		if renamed, ok := im.renamed[name]; ok {
			name = renamed
		}
		return "inputs." + name + deeper, ""
	}
	if name, ok := im.renamed[root]; ok {
		return "inputs." + name + rest, ""
	}
	return im.lastSlug(s, i, root) + rest, ""
}

// matchWhole reads a text that is one reference and nothing else.
func matchWhole(s string) (reference, bool) {
	if nextOpener(s, 0) != 0 {
		return reference{}, false
	}
	ref, length := match(s)
	return ref, length == len(s) && length > 0
}

// rewrite turns a text without escapes into a template that renders to it. References become what decide says, or text
// when it says no.
func rewrite(text string, decide func(raw string, ref reference) (string, bool)) string {
	var b strings.Builder
	start := 0
	for i := nextOpener(text, 0); i >= 0; i = nextOpener(text, i) {
		slashes := 0
		for i-slashes > start && text[i-slashes-1] == '\\' {
			slashes++
		}
		b.WriteString(text[start:i])
		b.WriteString(strings.Repeat(`\`, slashes)) // each one before braces is written twice
		ref, length := match(text[i:])
		if length == 0 {
			b.WriteByte(text[i])
			i++
			start = i
			continue
		}
		if to, ok := decide(text[i:i+length], ref); ok {
			b.WriteString(to)
			i += length
		} else {
			b.WriteByte('\\')
			b.WriteString(text[i : i+2])
			i += 2
		}
		start = i
	}
	b.WriteString(text[start:])
	return b.String()
}
