package chain

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// AssistantsVersion is the version of the assistants documents that are understood and written.
	AssistantsVersion = "1.0"
	// MaxAssistantsBytes is the size of the largest assistants document that is read.
	MaxAssistantsBytes = 10 << 20
	// maxAssistants bounds the assistants of one document.
	maxAssistants = 1000
)

// ImportReport says what an import made of each assistant.
type ImportReport struct {
	Assistants []AssistantReport
	Changes    []Change // outside the assistants
}

// ExportReport says what an export could not express.
type ExportReport struct {
	Assistants []AssistantReport
}

// AssistantReport is the part of a report about one assistant.
type AssistantReport struct {
	Pointer  string   // the assistant in the assistants document, e.g. /assistants/0
	Name     string   // its name there
	Chain    string   // the name of the chain
	Changes  []Change // everything that was dropped or changed
	Problems Problems // why it could not be taken at all; there is no chain then
}

// Change is one thing that was dropped or changed.
type Change struct {
	Pointer string // into the document that was read: the assistants when importing, the chain when exporting
	Detail  string // a sentence for people
}

// ImportAssistants reads an assistants document of version 1.0. It returns a chain for every assistant that can be taken;
// the report says for each what was changed and why others were not taken. The error is Problems when the document as a
// whole cannot be read.
//
// The imported prompts get history: full, as their origin sends every earlier turn. References that can never have a value
// are text there, and so they become escaped text here.
func ImportAssistants(data []byte) ([]*Chain, ImportReport, error) {
	c := &collector{}
	root := readTree(data, FormatJSON, MaxAssistantsBytes, c)
	if root == nil {
		return nil, ImportReport{}, c.problems()
	}
	var report ImportReport
	assistants := assistantsOf(root, c, &report)
	if list := c.problems(); len(list) > 0 {
		locate(root, list)
		return nil, ImportReport{}, list
	}
	var chains []*Chain
	used := make(map[string]bool)
	for i, n := range assistants {
		im := &importer{node: n, at: "/assistants/" + strconv.Itoa(i), number: i + 1, used: used}
		chain := im.run()
		im.report.Problems = im.collector.problems()
		locate(root, im.report.Problems)
		if len(im.report.Problems) == 0 {
			chains = append(chains, chain)
		}
		report.Assistants = append(report.Assistants, im.report)
	}
	return chains, report, nil
}

// assistantsOf checks the outermost object and returns the assistants.
func assistantsOf(root *node, c *collector, report *ImportReport) []*node {
	d := &decoder{c}
	if !d.is(root, "", kindObject) {
		return nil
	}
	for _, key := range root.keys {
		switch key {
		case "version", "assistants", "exported_at", "export_source":
		default:
			report.Changes = append(report.Changes, Change{child("", key), "the field is not known and was dropped"})
		}
	}
	version, list := root.member("version"), root.member("assistants")
	if version == nil || version.kind != kindString || version.text != AssistantsVersion {
		c.add("/version", CodeInvalid, "the version must be %q", AssistantsVersion)
	}
	if list == nil {
		c.add("/assistants", CodeRequired, "the document has no assistants")
		return nil
	}
	if !d.is(list, "/assistants", kindList) {
		return nil
	}
	if len(list.items) > maxAssistants {
		c.add("/assistants", CodeTooMany, "has %d assistants, at most %d are allowed", len(list.items), maxAssistants)
	}
	return list.items
}

// importer makes a chain of one assistant.
type importer struct {
	collector
	node   *node
	at     string
	number int             // 1-based place in the document
	used   map[string]bool // names of chains given already
	report AssistantReport
	chain  Chain
	// fieldAt and renamed say where the inputs come from: pointer by new name, new name by old name.
	fieldAt map[string]string
	renamed map[string]string
	slugs   []string       // of the prompts by their names in the document, before any renaming
	shared  map[string]int // how many prompts had a slug
}

func (im *importer) change(at, format string, args ...any) {
	const most = 1000
	if len(im.report.Changes) < most {
		im.report.Changes = append(im.report.Changes, Change{at, fmt.Sprintf(format, args...)})
	}
}

func (im *importer) run() *Chain {
	im.report.Pointer = im.at
	d := &decoder{&im.collector}
	if !d.is(im.node, im.at, kindObject) {
		return nil
	}
	im.unknown(im.node, im.at, "name", "description", "status", "image_path", "is_parallel", "timeout_seconds", "prompts", "input_fields")
	im.report.Name = im.str(im.node, im.at, "name")
	im.chain.Description = im.str(im.node, im.at, "description")
	im.chain.Limits.Timeout = im.seconds(im.node, im.at)
	im.drop(im.node, im.at, "status", "chains have no states of approval")
	im.drop(im.node, im.at, "image_path", "chains have no image")
	im.drop(im.node, im.at, "is_parallel", "equal positions run in parallel")
	im.name()
	im.inputs()
	im.prompts()
	if len(im.list) > 0 {
		return nil
	}
	im.variables()
	im.chain.normalisePositions()
	check := &collector{}
	im.chain.validate(check)
	for _, p := range check.list {
		im.add(im.origin(p.Pointer), p.Code, "%s", p.Detail)
	}
	im.more += check.more
	return &im.chain
}

// origin is the place in the assistant that a pointer into the chain comes from.
func (im *importer) origin(pointer string) string {
	parts := segments(pointer)
	switch {
	case len(parts) >= 2 && parts[0] == "inputs":
		return im.fieldAt[parts[1]]
	case len(parts) >= 3 && parts[0] == "prompts":
		name := map[string]string{"system": "system_context", "model": "model_name", "mapping": "input_mapping", "timeout": "timeout_seconds"}
		if old, ok := name[parts[2]]; ok {
			return im.at + "/prompts/" + parts[1] + "/" + old
		}
	case pointer == "/limits/timeout":
		return im.at + "/timeout_seconds"
	}
	return im.at + pointer
}

// value is a member that is there and not null.
func (im *importer) value(n *node, key string) *node {
	if m := n.member(key); m != nil && m.kind != kindNull {
		return m
	}
	return nil
}

func (im *importer) str(n *node, at, key string) string {
	var s string
	if m := im.value(n, key); m != nil {
		(&decoder{&im.collector}).str(&s)(m, child(at, key))
	}
	return s
}

// unknown reports the members that an import has no use for.
func (im *importer) unknown(n *node, at string, known ...string) {
	for _, key := range n.keys {
		if !slices.Contains(known, key) {
			im.change(child(at, key), "the field is not known and was dropped")
		}
	}
}

// drop reports a member with a meaning that chains do not have. False and null have none.
func (im *importer) drop(n *node, at, key, why string) {
	if m := im.value(n, key); m != nil && (m.kind != kindBool || m.truth) {
		im.change(child(at, key), "dropped: %s", why)
	}
}

// seconds reads timeout_seconds. A value that cannot be a timeout is dropped: nothing enforced it before.
func (im *importer) seconds(n *node, at string) time.Duration {
	m := im.value(n, "timeout_seconds")
	if m == nil {
		return 0
	}
	s, err := strconv.ParseFloat(m.text, 64)
	d := time.Duration(s * float64(time.Second))
	if m.kind != kindNumber || err != nil || s <= 0 || s > MaxTimeout.Seconds() || d < time.Millisecond {
		im.change(child(at, "timeout_seconds"), "dropped: a timeout is a number of seconds, at most a day")
		return 0
	}
	return d
}

// name gives the chain a name of its own.
func (im *importer) name() {
	base := strings.Trim(cut(Slug(im.report.Name), 58), "-")
	switch {
	case base == "":
		base = "assistant-" + strconv.Itoa(im.number)
	case isNumber(base):
		base = cut("assistant-"+base, 58)
	}
	name := unique(base, "-", 1, func(s string) bool { return im.used[s] })
	im.used[name] = true
	im.chain.Name, im.report.Chain = name, name
	if name != im.report.Name {
		im.change(im.at+"/name", "the chain is called %s: names are lower case, with hyphens, unique, and no numbers", name)
	}
}

func cut(s string, n int) string { return s[:min(n, len(s))] }

// unique makes a name free: from first on, and from 1 on without it, the number that is added to it.
func unique(name, separator string, first int, taken func(string) bool) string {
	for n := first; ; n++ {
		candidate := name
		if n > 1 {
			candidate += separator + strconv.Itoa(n)
		}
		if !taken(candidate) {
			return candidate
		}
	}
}

// position reads a 0-based position; what is not one counts as the place in the list.
func (im *importer) position(n *node, at string, index int) int {
	m := im.value(n, "position")
	if m == nil {
		return index
	}
	v, err := strconv.Atoi(m.text)
	if m.kind != kindNumber || err != nil || v < 0 || v >= maxWhole {
		im.change(child(at, "position"), "is no position; the place in the list was taken")
		return index
	}
	return v
}

// prompts reads the prompts; their templates and mappings are looked at afterwards, when all names are known.
func (im *importer) prompts() {
	list := im.value(im.node, "prompts")
	at := im.at + "/prompts"
	if list == nil {
		im.add(at, CodeRequired, "the assistant has no prompts")
		return
	}
	d := &decoder{&im.collector}
	if !d.is(list, at, kindList) {
		return
	}
	if len(list.items) > MaxPrompts {
		im.add(at, CodeTooMany, "has %d prompts, at most %d are allowed", len(list.items), MaxPrompts)
		return
	}
	taken := make(map[string]bool)
	im.shared = make(map[string]int)
	for i, n := range list.items {
		here := at + "/" + strconv.Itoa(i)
		if !d.is(n, here, kindObject) {
			continue
		}
		im.unknown(n, here, "name", "content", "system_context", "model_name", "position", "parallel_group", "input_mapping", "timeout_seconds")
		p := Prompt{
			Name:     im.str(n, here, "name"),
			Content:  im.str(n, here, "content"),
			System:   im.str(n, here, "system_context"),
			Model:    im.model(n, here),
			Position: im.position(n, here, i) + 1,
			Timeout:  im.seconds(n, here),
			Retry:    Retry{Attempts: DefaultAttempts},
			OnError:  OnErrorStop,
			History:  History{Mode: HistoryFull},
		}
		im.drop(n, here, "parallel_group", "equal positions run in parallel")
		slug := promptSlug(p.Name, i)
		im.slugs = append(im.slugs, slug)
		im.shared[slug]++
		p.Slug = slug
		if taken[slug] {
			p.Slug = unique(slug, "-", im.shared[slug], func(s string) bool { return taken[s] || im.fieldAt[s] != "" })
			p.Name += strings.Replace(strings.TrimPrefix(p.Slug, slug), "-", " ", 1)
			im.change(here+"/name", "renamed to %s: two prompts had one variable name", shown(p.Name))
		}
		taken[p.Slug] = true
		im.chain.Prompts = append(im.chain.Prompts, p)
	}
}

// families are the models whose provider is evident from their names.
var families = []struct {
	pattern  *regexp.Regexp
	provider string
}{
	{regexp.MustCompile(`^(gpt-|chatgpt-|o[0-9])`), "openai"},
	{regexp.MustCompile(`^claude`), "anthropic"},
	{regexp.MustCompile(`^gemini`), "gemini"},
}

// hosted is how a cloud's catalogue writes the name of an Anthropic model.
var hosted = regexp.MustCompile(`^(?:[a-z]+\.)?anthropic\.(claude[A-Za-z0-9.-]*?)(?:-v[0-9]+(?::[0-9]+)?)?$`)

func (im *importer) model(n *node, at string) string {
	name := im.str(n, at, "model_name")
	here := at + "/model_name"
	if name == "" || modelID.MatchString(name) {
		return name // empty is reported as missing by the validation
	}
	plain := name
	if m := hosted.FindStringSubmatch(name); m != nil {
		plain = m[1]
	}
	for _, f := range families {
		if f.pattern.MatchString(plain) {
			id := f.provider + "/" + plain
			im.change(here, "%s became %s", shown(name), id)
			return id
		}
	}
	im.add(here, CodeInvalid, "the provider of %s is not evident; write provider/model", shown(name))
	return name
}

// inputs reads the input fields in the order of their positions.
func (im *importer) inputs() {
	im.fieldAt, im.renamed = make(map[string]string), make(map[string]string)
	list := im.value(im.node, "input_fields")
	at := im.at + "/input_fields"
	if list == nil {
		return
	}
	d := &decoder{&im.collector}
	if !d.is(list, at, kindList) {
		return
	}
	if len(list.items) > MaxInputs {
		im.add(at, CodeTooMany, "has %d fields, at most %d are allowed", len(list.items), MaxInputs)
		return
	}
	type field struct {
		position int
		input    Input
	}
	var all []field
	for i, n := range list.items {
		here := at + "/" + strconv.Itoa(i)
		if !d.is(n, here, kindObject) {
			continue
		}
		in := im.field(n, here, i)
		im.fieldAt[in.Name] = here
		all = append(all, field{im.position(n, here, i), in})
	}
	slices.SortStableFunc(all, func(a, b field) int { return cmp.Compare(a.position, b.position) })
	for _, f := range all {
		im.chain.Inputs = append(im.chain.Inputs, f.input)
	}
}
