package chain

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxTextRunes  = 10_000 // descriptions
	maxLabelRunes = 1_000  // labels, names of prompts, options
	maxNameBytes  = 64     // names of inputs and mapping entries
	maxModelBytes = 200
	maxFallbacks  = 10
	maxTools      = 64
	maxStops      = 16
	maxMappings   = 100
)

var (
	chainName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	varName   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	modelID   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*/[!-~]+$`)
	toolName  = regexp.MustCompile(`^[A-Za-z0-9_.:/-]{1,128}$`)
)

// Validate checks a chain that was built by hand, with the pointers that its document would have. It looks at what
// values mean; Parse checks the shape of a document as well. The error is Problems.
func (c *Chain) Validate() error {
	col := &collector{}
	c.validate(col)
	return col.problems().Err()
}

func (c *Chain) validate(col *collector) {
	v := &validator{collector: col, chain: c, pictures: c.imageInputs()}
	if c.Name == "" {
		v.add("/name", CodeRequired, "the chain needs a name")
	} else if !chainName.MatchString(c.Name) {
		v.add("/name", CodeInvalid, "%s is no name; use up to 63 of a-z, 0-9 and -, beginning with a letter or digit", shown(c.Name))
	} else if isNumber(c.Name) {
		v.add("/name", CodeInvalid, "%s is no name: where a chain is asked for, a number is its id; add a letter", shown(c.Name))
	}
	v.runes("/description", c.Description, maxTextRunes)
	v.inputs()
	if c.Limits.Timeout < 0 || c.Limits.Timeout > MaxTimeout {
		v.add("/limits/timeout", CodeOutOfRange, "must be from 1ms to 24h")
	}
	if c.Limits.MaxCostUSD != "" && !jsonNumber.MatchString(c.Limits.MaxCostUSD) {
		v.add("/limits/maxCostUsd", CodeInvalid, "%s is no decimal number", shown(c.Limits.MaxCostUSD))
	}
	if c.Limits.MaxTokens < 0 {
		v.add("/limits/maxTokens", CodeOutOfRange, "must not be negative")
	}
	if c.Limits.Concurrency < 0 || c.Limits.Concurrency > MaxConcurrency {
		v.add("/limits/concurrency", CodeOutOfRange, "must be from 1 to %d", MaxConcurrency)
	}
	switch {
	case len(c.Prompts) == 0:
		v.add("/prompts", CodeRequired, "the chain needs at least one prompt")
	case len(c.Prompts) > MaxPrompts:
		v.add("/prompts", CodeTooMany, "the chain has %d prompts, at most %d are allowed", len(c.Prompts), MaxPrompts)
	default:
		v.prompts()
	}
}

// validator reports what a chain may not be.
type validator struct {
	*collector
	chain    *Chain
	pictures map[string]bool // inputs that are images
}

func (v *validator) runes(at, s string, limit int) {
	if n := utf8.RuneCountInString(s); n > limit {
		v.add(at, CodeTooLarge, "has %d characters, at most %d are allowed", n, limit)
	}
}

func (v *validator) oneOf(at, s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		v.add(at, CodeInvalid, "%s is not one of %s", shown(s), strings.Join(allowed, ", "))
	}
}

// duplicates reports the entries of a list that are there already.
func (v *validator) duplicates(at string, list []string) {
	seen := make(map[string]bool, len(list))
	for i, s := range list {
		if seen[s] {
			v.add(at+"/"+strconv.Itoa(i), CodeDuplicate, "%s is there twice", shown(s))
		}
		seen[s] = true
	}
}

func (v *validator) inputs() {
	if len(v.chain.Inputs) > MaxInputs {
		v.add("/inputs", CodeTooMany, "the chain has %d inputs, at most %d are allowed", len(v.chain.Inputs), MaxInputs)
		return
	}
	seen := make(map[string]bool, len(v.chain.Inputs))
	for i := range v.chain.Inputs {
		in := &v.chain.Inputs[i]
		at := child("/inputs", in.Name)
		if seen[in.Name] {
			v.also(at, CodeDuplicate, "there are two inputs named %s", shown(in.Name))
			continue
		}
		seen[in.Name] = true
		if !varName.MatchString(in.Name) {
			v.also(at, CodeInvalid, "%s is no name of an input; use up to %d of A-Z, a-z, 0-9, _ and -", shown(in.Name), maxNameBytes)
			continue
		}
		v.input(in, at)
	}
}

func (v *validator) input(in *Input, at string) {
	if in.Type == "" {
		v.add(at+"/type", CodeRequired, "the input needs a type")
		return
	}
	v.oneOf(at+"/type", string(in.Type), "short_text", "long_text", "select", "multi_select", "number", "boolean", "json", "file")
	if v.covered(at + "/type") {
		return
	}
	v.runes(at+"/label", in.Label, maxLabelRunes)
	v.runes(at+"/description", in.Description, maxTextRunes)
	v.runes(at+"/placeholder", in.Placeholder, maxLabelRunes)
	choice := in.Type == InputSelect || in.Type == InputMultiSelect
	text := in.Type == InputShortText || in.Type == InputLongText || in.Type == InputFile
	v.applies(at+"/options", in, in.Options != nil, choice)
	v.applies(at+"/maxLength", in, in.MaxLength != nil, text)
	if in.MaxLength != nil && v.pictures[in.Name] {
		v.add(at+"/maxLength", CodeInvalid, "does not apply to an image")
	}
	v.applies(at+"/min", in, in.Min != nil, in.Type == InputNumber)
	v.applies(at+"/max", in, in.Max != nil, in.Type == InputNumber)
	v.applies(at+"/minSelections", in, in.MinSelections != nil, in.Type == InputMultiSelect)
	v.applies(at+"/maxSelections", in, in.MaxSelections != nil, in.Type == InputMultiSelect)
	v.applies(at+"/default", in, in.Default != nil, in.Type != InputFile)
	if choice {
		v.options(in, at+"/options")
	}
	if in.Min != nil && in.Max != nil && *in.Min > *in.Max {
		v.add(at+"/min", CodeOutOfRange, "min is greater than max")
	}
	if in.MinSelections != nil && in.MaxSelections != nil && *in.MinSelections > *in.MaxSelections {
		v.add(at+"/minSelections", CodeOutOfRange, "minSelections is greater than maxSelections")
	}
	if in.MinSelections != nil && len(in.Options) > 0 && *in.MinSelections > len(in.Options) {
		v.add(at+"/minSelections", CodeOutOfRange, "minSelections is greater than the number of options")
	}
	if in.Default != nil && !v.covered(at+"/default") && !v.covered(at+"/options") {
		in.accept(in.Default, at+"/default", v.collector)
	}
}

// applies reports a field that a type of input does not have.
func (v *validator) applies(at string, in *Input, present, allowed bool) {
	if present && !allowed {
		v.add(at, CodeInvalid, "does not apply to an input of type %s", in.Type)
	}
}

func (v *validator) options(in *Input, at string) {
	if len(in.Options) == 0 {
		v.add(at, CodeRequired, "an input of type %s needs options", in.Type)
		return
	}
	seen := make(map[string]bool, len(in.Options))
	for i, o := range in.Options {
		here := at + "/" + strconv.Itoa(i)
		if o.Value == "" {
			v.add(here, CodeRequired, "an option needs a value")
		} else if seen[o.Value] {
			v.add(here, CodeDuplicate, "the option %s is there twice", shown(o.Value))
		}
		seen[o.Value] = true
		v.runes(here, o.Value, maxLabelRunes)
		v.runes(here, o.Label, maxLabelRunes)
	}
}

func (v *validator) prompts() {
	slugs := make(map[string]int, len(v.chain.Prompts))
	s := newScope(v.chain)
	for i := range v.chain.Prompts {
		p := &v.chain.Prompts[i]
		at := promptPointer(i)
		if v.covered(at) {
			continue
		}
		v.prompt(p, at)
		if p.Name != "" {
			slug := promptSlug(p.Name, i)
			if first, ok := slugs[slug]; ok {
				v.add(at+"/name", CodeDuplicate, "%s has the variable name %s, which %s of prompt %d has already",
					shown(p.Name), slug, shown(v.chain.Prompts[first].Name), first+1)
			} else {
				slugs[slug] = i
			}
		}
		v.references(s, i)
	}
}

func (v *validator) prompt(p *Prompt, at string) {
	if strings.TrimSpace(p.Name) == "" {
		v.add(at+"/name", CodeRequired, "the prompt needs a name")
	}
	v.runes(at+"/name", p.Name, maxLabelRunes)
	if p.Position < 1 {
		v.add(at+"/position", CodeOutOfRange, "must be 1 or more")
	}
	if p.Model == "" {
		v.add(at+"/model", CodeRequired, "the prompt needs a model")
	} else {
		v.model(at+"/model", p.Model)
	}
	if strings.TrimSpace(p.Content) == "" {
		v.add(at+"/content", CodeRequired, "the prompt needs content")
	}
	v.bytes(at+"/content", p.Content)
	v.bytes(at+"/system", p.System)
	v.images(p, at+"/images")
	if p.Temperature != nil && !(*p.Temperature >= 0 && *p.Temperature <= 2) {
		v.add(at+"/temperature", CodeOutOfRange, "must be from 0 to 2")
	}
	if p.TopP != nil && !(*p.TopP >= 0 && *p.TopP <= 1) {
		v.add(at+"/topP", CodeOutOfRange, "must be from 0 to 1")
	}
	if p.MaxTokens < 0 {
		v.add(at+"/maxTokens", CodeOutOfRange, "must be 1 or more")
	}
	if p.Timeout < 0 || p.Timeout > MaxTimeout {
		v.add(at+"/timeout", CodeOutOfRange, "must be from 1ms to 24h")
	}
	if p.Retry.Attempts < 1 || p.Retry.Attempts > 10 {
		v.add(at+"/retry/attempts", CodeOutOfRange, "must be from 1 to 10")
	}
	if k := p.Cache; k != nil && (k.TTL < MinCacheTTL || k.TTL > MaxCacheTTL) {
		v.add(at+"/cache/ttl", CodeOutOfRange, "must be from 1s to 720h")
	}
	v.oneOf(at+"/onError", string(p.OnError), "stop", "continue")
	if _, ok := parseHistory(p.History.String()); !ok {
		v.add(at+"/history", CodeInvalid, "must be none, full or last:N with N from 1 to %d", MaxPrompts)
	}
	v.lists(p, at)
	if p.Knowledge != nil {
		v.knowledge(p.Knowledge, at+"/knowledge")
	}
	if p.Output != nil {
		if _, err := compileSchema(p.Output.Schema); err != nil {
			v.add(at+"/output/schema", CodeInvalid, "%s", err)
		}
	}
}

func (v *validator) bytes(at, s string) {
	if len(s) > MaxContentBytes {
		v.add(at, CodeTooLarge, "has %d bytes, at most %d are allowed", len(s), MaxContentBytes)
	}
}

func (v *validator) model(at, id string) {
	if len(id) > maxModelBytes || !modelID.MatchString(id) {
		v.add(at, CodeInvalid, "%s is no model; write provider/model, such as openai/gpt-4.1-mini", shown(id))
	}
}

func (v *validator) count(at string, n, limit int) {
	if n > limit {
		v.add(at, CodeTooMany, "has %d entries, at most %d are allowed", n, limit)
	}
}

func (v *validator) lists(p *Prompt, at string) {
	v.count(at+"/fallback", len(p.Fallback), maxFallbacks)
	for j, id := range p.Fallback {
		v.model(at+"/fallback/"+strconv.Itoa(j), id)
	}
	v.duplicates(at+"/fallback", p.Fallback)
	v.count(at+"/tools", len(p.Tools), maxTools)
	for j, name := range p.Tools {
		if !toolName.MatchString(name) {
			v.add(at+"/tools/"+strconv.Itoa(j), CodeInvalid, "%s is no name of a tool", shown(name))
		}
	}
	v.duplicates(at+"/tools", p.Tools)
	v.count(at+"/stop", len(p.Stop), maxStops)
	for j, s := range p.Stop {
		here := at + "/stop/" + strconv.Itoa(j)
		if s == "" {
			v.add(here, CodeRequired, "a stop sequence may not be empty")
		}
		v.runes(here, s, maxLabelRunes)
	}
}

func (v *validator) knowledge(k *Knowledge, at string) {
	if len(k.Repositories) == 0 {
		v.add(at+"/repositories", CodeRequired, "name at least one repository")
	}
	v.count(at+"/repositories", len(k.Repositories), maxEntries)
	seen := make(map[int64]bool, len(k.Repositories))
	for j, id := range k.Repositories {
		here := at + "/repositories/" + strconv.Itoa(j)
		if id < 1 {
			v.add(here, CodeOutOfRange, "a repository is a positive number")
		} else if seen[id] {
			v.add(here, CodeDuplicate, "the repository %d is there twice", id)
		}
		seen[id] = true
	}
	v.oneOf(at+"/search", string(k.Search), "vector", "keyword", "hybrid")
	if k.MaxChunks < 1 || k.MaxChunks > 100 {
		v.add(at+"/maxChunks", CodeOutOfRange, "must be from 1 to 100")
	}
	if k.MaxTokens < 1 || k.MaxTokens > 1_000_000 {
		v.add(at+"/maxTokens", CodeOutOfRange, "must be from 1 to 1000000")
	}
	if !(k.Threshold >= 0 && k.Threshold <= 1) {
		v.add(at+"/threshold", CodeOutOfRange, "must be from 0 to 1")
	}
	if k.PerDocument < 0 || k.PerDocument > 100 {
		v.add(at+"/perDocument", CodeOutOfRange, "must be from 1 to 100")
	}
	if k.Neighbours < 0 || k.Neighbours > 5 {
		v.add(at+"/neighbours", CodeOutOfRange, "must be from 0 to 5")
	}
	if k.Filter != nil {
		v.filter(k.Filter, at+"/filter")
	}
	v.bytes(at+"/query", k.Query)
}

// filter checks what documents are filtered by.
func (v *validator) filter(filter json.RawMessage, at string) {
	if n := readTree(filter, FormatJSON, len(filter), &collector{}); n == nil || n.kind != kindObject {
		v.add(at, CodeWrongType, "must be an object")
	}
	v.bytes(at, string(filter))
}
