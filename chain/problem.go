package chain

import (
	"fmt"
	"strings"
)

// MaxProblems is the number of problems that are reported in full; a final one says how many more there are.
const MaxProblems = 100

// Codes of problems. They are stable, for programs; Detail is for people.
const (
	CodeSyntax           = "syntax"            // not readable as JSON or YAML
	CodeInvalidUTF8      = "invalid_utf8"      // broken UTF-8 or a lone surrogate
	CodeNUL              = "nul_character"     // U+0000 in a text
	CodeTooLarge         = "too_large"         // more bytes or characters than allowed
	CodeTooDeep          = "too_deep"          // nested deeper than MaxDepth
	CodeTooMany          = "too_many"          // more entries than allowed
	CodeYAML             = "yaml_feature"      // YAML that has no meaning in JSON
	CodeDuplicateKey     = "duplicate_key"     // one object, one key twice
	CodeUnknownField     = "unknown_field"     // a field the document does not have
	CodeWrongType        = "wrong_type"        // a value of another type than expected
	CodeRequired         = "required"          // a missing or empty field or input
	CodeInvalid          = "invalid"           // a value of the right type that does not fit
	CodeOutOfRange       = "out_of_range"      // a number outside its limits
	CodeDuplicate        = "duplicate"         // a name, slug or entry that exists already
	CodeUnknownReference = "unknown_reference" // a variable that stands for nothing
	CodeLaterReference   = "later_reference"   // a variable of a prompt that runs later
	CodeSiblingReference = "sibling_reference" // a variable of a prompt that runs at the same time
	CodeSelfReference    = "self_reference"    // a variable of the prompt itself
	CodeUnknownInput     = "unknown_input"     // an input that the chain does not have
	CodeMore             = "more_problems"     // how many further problems there are
)

// Problem is one thing that is wrong with a document or with the inputs of an execution.
type Problem struct {
	Pointer string // RFC 6901 pointer into what was submitted; "" is the whole of it
	Code    string // one of the Code constants
	Detail  string // a sentence for people
	Line    int    // 1-based line in the submitted text, 0 when unknown
}

// Problems is everything that is wrong, at most MaxProblems entries and a note. It is an error when it is not empty.
type Problems []Problem

// Error joins the problems, one per line.
func (p Problems) Error() string {
	var b strings.Builder
	for i, q := range p {
		if i > 0 {
			b.WriteByte('\n')
		}
		if q.Line > 0 {
			fmt.Fprintf(&b, "line %d: ", q.Line)
		}
		if q.Pointer != "" {
			b.WriteString(q.Pointer)
			b.WriteString(": ")
		}
		b.WriteString(q.Detail)
	}
	return b.String()
}

// Err is p as an error, nil when there is no problem.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// collector gathers problems. A place is reported once: a value that could not be read is not also reported as missing.
type collector struct {
	list Problems
	seen map[string]bool // pointers with a problem
	more int             // problems beyond MaxProblems
}

// add reports a problem unless the place or something around it has one already.
func (c *collector) add(pointer, code, format string, args ...any) {
	if c.covered(pointer) {
		return
	}
	c.also(pointer, code, format, args...)
}

// also reports a problem even when the place has one already.
func (c *collector) also(pointer, code, format string, args ...any) {
	if c.seen == nil {
		c.seen = make(map[string]bool)
	}
	c.seen[pointer] = true
	if len(c.list) >= MaxProblems {
		c.more++
		return
	}
	c.list = append(c.list, Problem{Pointer: pointer, Code: code, Detail: fmt.Sprintf(format, args...)})
}

// covered tells whether the pointer or one of its ancestors has a problem. The whole document does not count: its
// problems, such as a missing field, say nothing about its parts.
func (c *collector) covered(pointer string) bool {
	for p := pointer; p != ""; p = p[:strings.LastIndexByte(p, '/')] {
		if c.seen[p] {
			return true
		}
	}
	return false
}

// problems returns what was gathered, with a final note when there was more than is listed.
func (c *collector) problems() Problems {
	if c.more == 0 {
		return c.list
	}
	return append(c.list, Problem{Code: CodeMore, Detail: fmt.Sprintf("and %d more problems", c.more)})
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

// child is the pointer of the member key of the object at pointer.
func child(pointer, key string) string {
	return pointer + "/" + pointerEscaper.Replace(key)
}

// shown cuts a text that a message quotes: a message stays readable whatever was submitted.
func shown(s string) string {
	const limit = 60
	n := 0
	for i := range s {
		if n == limit {
			return fmt.Sprintf("%q…", s[:i])
		}
		n++
	}
	return fmt.Sprintf("%q", s)
}
