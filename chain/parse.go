package chain

import (
	"encoding/json"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Format says how a document is written.
type Format int

// The formats of documents.
const (
	FormatJSON Format = iota
	FormatYAML
)

// Parse reads a document, fills in the defaults, makes the positions 1..n and validates the result. The error is
// Problems, with everything that is wrong.
func Parse(data []byte, f Format) (*Chain, error) {
	return read(data, f, (*Chain).validate)
}

// Load reads a document that JSON wrote and that was valid then. It does not ask
// whether it would be valid today: a rule that has become stricter since does not
// take stored chains away.
func Load(data []byte) (*Chain, error) {
	return read(data, FormatJSON, func(*Chain, *collector) {})
}

// read decodes a document and lets judge say what is wrong with its content.
func read(data []byte, f Format, judge func(*Chain, *collector)) (*Chain, error) {
	c := &collector{}
	root := readTree(data, f, MaxDocumentBytes, c)
	if root == nil {
		return nil, c.problems()
	}
	d := &decoder{c}
	if !d.is(root, "", kindObject) {
		locate(root, c.list)
		return nil, c.problems()
	}
	chain := d.chain(root)
	judge(chain, c)
	if list := c.problems(); len(list) > 0 {
		locate(root, list)
		sortByLine(list)
		return nil, list
	}
	chain.normalise()
	return chain, nil
}

// normalise makes positions 1..n and gives defaults the type of their input.
func (c *Chain) normalise() {
	c.normalisePositions()
	for i := range c.Inputs {
		in := &c.Inputs[i]
		if in.Default != nil {
			in.Default = in.accept(in.Default, "", &collector{})
		}
	}
}

// decoder turns a tree into a Chain. It checks the shape: fields, types and notations. What values mean is checked by
// validate.
type decoder struct{ *collector }

// fields maps the names an object may have to what reads them.
type fields map[string]func(n *node, at string)

// object reads an object's members, in order, and reports those it does not have.
func (d *decoder) object(n *node, at string, f fields) bool {
	if !d.is(n, at, kindObject) {
		return false
	}
	for i, key := range n.keys {
		pointer := child(at, key)
		if read, ok := f[key]; ok {
			read(n.items[i], pointer)
			continue
		}
		if len(d.list) >= MaxProblems {
			d.more++ // beyond what is shown, a message is not worth its time
			continue
		}
		d.add(pointer, CodeUnknownField, "there is no field %s here%s", shown(key), suggestion(key, f))
	}
	return true
}

// suggestion names the field that differs from the key in letter case and separators only.
func suggestion(key string, f fields) string {
	if len(key) < 64 {
		plain := strings.NewReplacer("_", "", "-", "", " ", "").Replace(key)
		for name := range f {
			if strings.EqualFold(name, plain) {
				return ", it is called " + name
			}
		}
	}
	return ""
}

func (d *decoder) is(n *node, at string, want kind) bool {
	if n.kind == want {
		return true
	}
	hint := ""
	switch {
	case n.kind == kindNull:
		hint = "; leave the field out if there is nothing to say"
	case want == kindString && (n.kind == kindNumber || n.kind == kindBool):
		hint = "; put it in quotes"
	}
	d.add(at, CodeWrongType, "expected %s, got %s%s", want, n.kind, hint)
	return false
}

func (d *decoder) str(dst *string) func(*node, string) {
	return func(n *node, at string) {
		if d.is(n, at, kindString) {
			*dst = n.text
		}
	}
}

func (d *decoder) boolean(dst *bool) func(*node, string) {
	return func(n *node, at string) {
		if d.is(n, at, kindBool) {
			*dst = n.truth
		}
	}
}

// whole reads an integer that is at least smallest and fits into 32 bits, which is ample for counts of all kinds.
func (d *decoder) whole(dst *int, smallest int64) func(*node, string) {
	return func(n *node, at string) {
		if v, ok := d.integer(n, at); ok {
			if v < smallest || v > maxWhole {
				d.add(at, CodeOutOfRange, "must be from %d to %d", smallest, maxWhole)
				return
			}
			*dst = int(v)
		}
	}
}

const maxWhole = 1<<31 - 1

func (d *decoder) wholePointer(dst **int, smallest int64) func(*node, string) {
	return func(n *node, at string) {
		v := -1
		d.whole(&v, smallest)(n, at)
		if v >= 0 {
			*dst = &v
		}
	}
}

func (d *decoder) integer(n *node, at string) (int64, bool) {
	if !d.is(n, at, kindNumber) {
		return 0, false
	}
	v, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil {
		// 1e3 and 3.0 are whole numbers as well; JSON Schema says so too.
		f, ferr := strconv.ParseFloat(n.text, 64)
		if ferr != nil || f != float64(int64(f)) || f > 1<<53 || f < -1<<53 {
			d.add(at, CodeInvalid, "%s is not a whole number that can be kept exactly", shown(n.text))
			return 0, false
		}
		v = int64(f)
	}
	return v, true
}

func (d *decoder) number(n *node, at string) (float64, bool) {
	if !d.is(n, at, kindNumber) {
		return 0, false
	}
	v, err := strconv.ParseFloat(n.text, 64)
	if err != nil {
		d.add(at, CodeOutOfRange, "%s is too large a number", shown(n.text))
		return 0, false
	}
	return v + 0, true // + 0 makes -0 to 0
}

func (d *decoder) float(dst *float64) func(*node, string) {
	return func(n *node, at string) {
		if v, ok := d.number(n, at); ok {
			*dst = v
		}
	}
}

func (d *decoder) floatPointer(dst **float64) func(*node, string) {
	return func(n *node, at string) {
		if v, ok := d.number(n, at); ok {
			*dst = &v
		}
	}
}

func (d *decoder) strings(dst *[]string) func(*node, string) {
	return func(n *node, at string) {
		d.each(n, at, func(item *node, at string) {
			var s string
			d.str(&s)(item, at)
			*dst = append(*dst, s)
		})
	}
}

// maxEntries bounds the short lists of a document: options, tools, fallbacks, repositories, stop sequences.
const maxEntries = 1000

func (d *decoder) each(n *node, at string, read func(*node, string)) {
	if !d.is(n, at, kindList) {
		return
	}
	if len(n.items) > maxEntries {
		d.add(at, CodeTooMany, "has %d entries, at most %d are allowed", len(n.items), maxEntries)
		return
	}
	for i, item := range n.items {
		read(item, at+"/"+strconv.Itoa(i))
	}
}

func (d *decoder) chain(root *node) *Chain {
	c := &Chain{}
	d.object(root, "", fields{
		"name":        d.str(&c.Name),
		"description": d.str(&c.Description),
		"inputs":      func(n *node, at string) { c.Inputs = d.inputs(n, at) },
		"prompts":     func(n *node, at string) { c.Prompts = d.prompts(n, at) },
		"limits": func(n *node, at string) {
			d.object(n, at, fields{
				"timeout": d.duration(&c.Limits.Timeout), "maxCostUsd": d.money(&c.Limits.MaxCostUSD),
				"maxTokens": d.whole(&c.Limits.MaxTokens, 1), "concurrency": d.whole(&c.Limits.Concurrency, 1),
			})
		},
	})
	return c
}

func (d *decoder) inputs(n *node, at string) []Input {
	if !d.is(n, at, kindObject) {
		return nil
	}
	if len(n.keys) > MaxInputs {
		d.add(at, CodeTooMany, "the chain has %d inputs, at most %d are allowed", len(n.keys), MaxInputs)
		return nil
	}
	var inputs []Input
	for i, name := range n.keys {
		inputs = append(inputs, d.input(name, n.items[i], child(at, name)))
	}
	return inputs
}

func (d *decoder) input(name string, n *node, at string) Input {
	in := Input{Name: name}
	d.object(n, at, fields{
		"type":        func(n *node, at string) { d.str((*string)(&in.Type))(n, at) },
		"label":       d.str(&in.Label),
		"description": d.str(&in.Description),
		"placeholder": d.str(&in.Placeholder),
		"required":    d.boolean(&in.Required),
		"default": func(n *node, at string) {
			if n.kind == kindNull {
				d.is(n, at, kindString)
			}
			in.Default = n.value()
		},
		"options":       func(n *node, at string) { in.Options = d.options(n, at) },
		"maxLength":     d.wholePointer(&in.MaxLength, 1),
		"min":           d.floatPointer(&in.Min),
		"max":           d.floatPointer(&in.Max),
		"minSelections": d.wholePointer(&in.MinSelections, 0),
		"maxSelections": d.wholePointer(&in.MaxSelections, 1),
	})
	return in
}

func (d *decoder) options(n *node, at string) []Option {
	options := []Option{}
	d.each(n, at, func(item *node, at string) {
		var o Option
		switch item.kind {
		case kindString:
			o = Option{Value: item.text, Label: item.text}
		case kindObject:
			d.object(item, at, fields{"value": d.str(&o.Value), "label": d.str(&o.Label)})
			if o.Label == "" {
				o.Label = o.Value
			}
		default:
			d.add(at, CodeWrongType, "expected a string or an object with value and label, got %s; put it in quotes", item.kind)
		}
		options = append(options, o)
	})
	return options
}

func (d *decoder) prompts(n *node, at string) []Prompt {
	if !d.is(n, at, kindList) {
		return nil
	}
	if len(n.items) > MaxPrompts {
		d.add(at, CodeTooMany, "the chain has %d prompts, at most %d are allowed", len(n.items), MaxPrompts)
		return nil
	}
	prompts := make([]Prompt, 0, len(n.items))
	last := 0
	for i, item := range n.items {
		p := d.prompt(item, at+"/"+strconv.Itoa(i), last+1)
		p.Slug = promptSlug(p.Name, i)
		last = p.Position
		prompts = append(prompts, p)
	}
	return prompts
}

// prompt reads a prompt; position is the one it has when the document gives none.
func (d *decoder) prompt(n *node, at string, position int) Prompt {
	p := Prompt{
		Position: position,
		Retry:    Retry{Attempts: DefaultAttempts},
		OnError:  OnErrorStop,
		History:  History{Mode: HistoryNone},
	}
	d.object(n, at, fields{
		"name":        d.str(&p.Name),
		"position":    d.whole(&p.Position, 1),
		"model":       d.str(&p.Model),
		"system":      d.str(&p.System),
		"content":     d.str(&p.Content),
		"images":      d.strings(&p.Images),
		"mapping":     func(n *node, at string) { p.Mapping = d.mapping(n, at) },
		"knowledge":   func(n *node, at string) { p.Knowledge = d.knowledge(n, at) },
		"tools":       d.strings(&p.Tools),
		"temperature": d.floatPointer(&p.Temperature),
		"topP":        d.floatPointer(&p.TopP),
		"maxTokens":   d.whole(&p.MaxTokens, 1),
		"timeout":     d.duration(&p.Timeout),
		"retry": func(n *node, at string) {
			d.object(n, at, fields{"attempts": d.whole(&p.Retry.Attempts, 0)})
		},
		"fallback": d.strings(&p.Fallback),
		"onError":  func(n *node, at string) { d.str((*string)(&p.OnError))(n, at) },
		"output": func(n *node, at string) {
			if d.object(n, at, fields{"schema": func(n *node, at string) { p.Output = d.output(n, at) }}) && n.member("schema") == nil {
				d.add(at+"/schema", CodeRequired, "the output needs a schema")
			}
		},
		"history": func(n *node, at string) { d.history(&p.History, n, at) },
		"stop":    d.strings(&p.Stop),
		"seed": func(n *node, at string) {
			if v, ok := d.integer(n, at); ok {
				p.Seed = &v
			}
		},
		"cache": func(n *node, at string) { p.Cache = d.cache(n, at) },
	})
	return p
}

func (d *decoder) mapping(n *node, at string) map[string]string {
	if !d.is(n, at, kindObject) {
		return nil
	}
	m := make(map[string]string, len(n.keys))
	for i, key := range n.keys {
		var path string
		d.str(&path)(n.items[i], child(at, key))
		m[key] = path
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

func (d *decoder) knowledge(n *node, at string) *Knowledge {
	k := &Knowledge{Search: SearchHybrid, MaxChunks: DefaultKnowledgeChunks, MaxTokens: DefaultKnowledgeMaxTokens}
	d.object(n, at, fields{
		"repositories": func(n *node, at string) {
			d.each(n, at, func(item *node, at string) {
				id, _ := d.integer(item, at)
				k.Repositories = append(k.Repositories, id)
			})
		},
		"search":      func(n *node, at string) { d.str((*string)(&k.Search))(n, at) },
		"maxChunks":   d.whole(&k.MaxChunks, 1),
		"maxTokens":   d.whole(&k.MaxTokens, 1),
		"threshold":   d.float(&k.Threshold),
		"perDocument": d.whole(&k.PerDocument, 1),
		"neighbours":  d.whole(&k.Neighbours, 0),
		"filter": func(n *node, at string) {
			if d.is(n, at, kindObject) {
				k.Filter = n.appendJSON(nil)
			}
		},
		"query": d.str(&k.Query),
	})
	return k
}

// cache reads {ttl: 1h}, or 1h as its short form.
func (d *decoder) cache(n *node, at string) *Cache {
	k := &Cache{}
	ttl := d.span(&k.TTL, MinCacheTTL, MaxCacheTTL, "1s to 720h")
	switch {
	case n.kind == kindString:
		ttl(n, at)
	case d.object(n, at, fields{"ttl": ttl}) && n.member("ttl") == nil:
		d.add(at+"/ttl", CodeRequired, "the cache needs a ttl, such as 1h")
	}
	return k
}

func (d *decoder) output(n *node, at string) *Output {
	if !d.is(n, at, kindObject) {
		return nil
	}
	return &Output{Schema: json.RawMessage(n.appendJSON(nil))}
}

func (d *decoder) history(h *History, n *node, at string) {
	if !d.is(n, at, kindString) {
		return
	}
	if parsed, ok := parseHistory(n.text); ok {
		*h = parsed
		return
	}
	d.add(at, CodeInvalid, "%s is no history; it is none, full or last:N with N from 1 to %d", shown(n.text), MaxPrompts)
}

func parseHistory(s string) (History, bool) {
	if s == string(HistoryNone) || s == string(HistoryFull) {
		return History{Mode: HistoryMode(s)}, true
	}
	number, ok := strings.CutPrefix(s, "last:")
	if !ok {
		return History{}, false
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > MaxPrompts || strconv.Itoa(n) != number {
		return History{}, false
	}
	return History{Mode: HistoryLast, Last: n}, true
}

var durationPattern = regexp.MustCompile(`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h)){1,4}$`)

// duration reads how long something may take.
func (d *decoder) duration(dst *time.Duration) func(*node, string) {
	return d.span(dst, time.Millisecond, MaxTimeout, "1ms to 24h")
}

// span reads a duration within bounds, which a message names.
func (d *decoder) span(dst *time.Duration, least, most time.Duration, bounds string) func(*node, string) {
	return func(n *node, at string) {
		if n.kind == kindNumber {
			d.add(at, CodeWrongType, "expected a duration with its unit, such as \"60s\" or \"15m\", got a number")
			return
		}
		if !d.is(n, at, kindString) {
			return
		}
		v, err := time.ParseDuration(n.text)
		switch {
		case err != nil || !durationPattern.MatchString(n.text):
			d.add(at, CodeInvalid, "%s is no duration; write it such as \"60s\", \"15m\" or \"1h30m\"", shown(n.text))
		case v < least || v > most:
			d.add(at, CodeOutOfRange, "must be from %s", bounds)
		default:
			*dst = v
		}
	}
}

// money reads a decimal and keeps it exactly, in plain notation without superfluous zeros.
func (d *decoder) money(dst *string) func(*node, string) {
	return func(n *node, at string) {
		v, ok := d.number(n, at)
		if !ok {
			return
		}
		if v <= 0 || v > maxCostUSD || len(n.text) > 40 {
			d.add(at, CodeOutOfRange, "must be more than 0 and at most %d", maxCostUSD)
			return
		}
		exact, ok := new(big.Rat).SetString(n.text)
		if !ok || !exact.IsInt() && !hasDecimals(exact, costDecimals) {
			d.add(at, CodeInvalid, "may have at most %d decimal places", costDecimals)
			return
		}
		*dst = decimal(exact)
	}
}

const (
	maxCostUSD   = 1_000_000
	costDecimals = 9
)

// hasDecimals tells whether the number can be written with n decimal places.
func hasDecimals(r *big.Rat, n int64) bool {
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(n), nil)
	return new(big.Rat).Mul(r, new(big.Rat).SetInt(scale)).IsInt()
}

// decimal writes a number that has at most costDecimals decimal places.
func decimal(r *big.Rat) string {
	s := r.FloatString(costDecimals)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// formatDuration writes a duration as documents do: 15m instead of Go's 15m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
