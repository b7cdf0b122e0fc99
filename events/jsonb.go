package events

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// This file writes JSON the way PostgreSQL prints jsonb: object keys by length
// and then by bytes, the last of equal keys, ", " and ": " as separators,
// numbers without exponent, only the escapes that JSON demands, and no NUL. The
// data of an event is encoded so before it is stored, so that what is shown
// live and what the table returns later are the same bytes.

// maxJSONDepth bounds nesting; it is far above what the edge lets in.
const maxJSONDepth = 256

var errJSONSyntax = errors.New("not valid JSON")

// member is a key of an object, unquoted, with its encoded value.
type member struct {
	key   string
	value []byte
}

// AppendJSONB appends the jsonb text of a JSON value. Strings are repaired:
// NUL, which jsonb refuses, and invalid UTF-8 become U+FFFD.
func AppendJSONB(dst, value []byte) ([]byte, error) {
	p := jsonbWriter{in: string(value)}
	dst, err := p.value(dst, 0)
	if err != nil {
		return nil, err
	}
	if p.skipSpace(); p.at != len(p.in) {
		return nil, errJSONSyntax
	}
	return dst, nil
}

// appendMembers appends an object of members whose values are jsonb text.
func appendMembers(dst []byte, members []member) []byte {
	slices.SortStableFunc(members, func(a, b member) int { return compareKeys(a.key, b.key) })
	dst = append(dst, '{')
	first := true
	for i, m := range members {
		if i+1 < len(members) && members[i+1].key == m.key {
			continue // the last one counts
		}
		if !first {
			dst = append(dst, ", "...)
		}
		first = false
		dst = appendString(dst, m.key)
		dst = append(dst, ": "...)
		dst = append(dst, m.value...)
	}
	return append(dst, '}')
}

// appendString appends s quoted, with the escapes that jsonb prints.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			if c == 0 || c >= utf8.RuneSelf {
				dst = append(dst, "\uFFFD"...)
			} else {
				dst = append(dst, `\u00`...)
				dst = append(dst, hex[c>>4], hex[c&0xf])
			}
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// jsonbWriter reads JSON text and writes jsonb text. Every event passes it, so
// it takes strings out of in without copying them.
type jsonbWriter struct {
	in string
	at int
}

func (p *jsonbWriter) skipSpace() {
	for p.at < len(p.in) {
		switch p.in[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *jsonbWriter) value(dst []byte, depth int) ([]byte, error) {
	if p.skipSpace(); p.at == len(p.in) || depth > maxJSONDepth {
		return nil, errJSONSyntax
	}
	switch c := p.in[p.at]; c {
	case '{':
		return p.object(dst, depth)
	case '[':
		return p.array(dst, depth)
	case '"':
		s, err := p.string()
		if err != nil {
			return nil, err
		}
		return appendString(dst, s), nil
	case 't':
		return p.literal(dst, "true")
	case 'f':
		return p.literal(dst, "false")
	case 'n':
		return p.literal(dst, "null")
	default:
		return p.number(dst)
	}
}

func (p *jsonbWriter) literal(dst []byte, word string) ([]byte, error) {
	if !strings.HasPrefix(p.in[p.at:], word) {
		return nil, errJSONSyntax
	}
	p.at += len(word)
	return append(dst, word...), nil
}

func (p *jsonbWriter) array(dst []byte, depth int) ([]byte, error) {
	p.at++
	dst = append(dst, '[')
	for n := 0; ; n++ {
		if p.skipSpace(); p.at < len(p.in) && p.in[p.at] == ']' && n == 0 {
			p.at++
			return append(dst, ']'), nil
		}
		if n > 0 {
			dst = append(dst, ", "...)
		}
		var err error
		if dst, err = p.value(dst, depth+1); err != nil {
			return nil, err
		}
		more, err := p.next(']')
		if err != nil {
			return nil, err
		}
		if !more {
			return append(dst, ']'), nil
		}
	}
}

func (p *jsonbWriter) object(dst []byte, depth int) ([]byte, error) {
	members, err := p.members(depth)
	if err != nil {
		return nil, err
	}
	return appendMembers(dst, members), nil
}

// mostMembers is what most documents stay below.
const mostMembers = 16

// members reads an object into its members, values already encoded.
func (p *jsonbWriter) members(depth int) ([]member, error) {
	p.at++
	var members []member
	var values []byte // of the members, one after the other
	if depth == 0 {   // the document: room for all of it at once
		members, values = make([]member, 0, mostMembers), make([]byte, 0, len(p.in))
	}
	for {
		if p.skipSpace(); p.at < len(p.in) && p.in[p.at] == '}' && len(members) == 0 {
			p.at++
			return nil, nil
		}
		if p.at == len(p.in) || p.in[p.at] != '"' {
			return nil, errJSONSyntax
		}
		key, err := p.string()
		if err != nil {
			return nil, err
		}
		if p.skipSpace(); p.at == len(p.in) || p.in[p.at] != ':' {
			return nil, errJSONSyntax
		}
		p.at++
		start := len(values)
		if values, err = p.value(values, depth+1); err != nil {
			return nil, err
		}
		members = append(members, member{repair(key), values[start:]})
		more, err := p.next('}')
		if err != nil {
			return nil, err
		}
		if !more {
			return members, nil
		}
	}
}

// next reads a comma (true) or the closing byte (false).
func (p *jsonbWriter) next(closing byte) (bool, error) {
	if p.skipSpace(); p.at == len(p.in) {
		return false, errJSONSyntax
	}
	c := p.in[p.at]
	p.at++
	switch c {
	case ',':
		return true, nil
	case closing:
		return false, nil
	}
	return false, errJSONSyntax
}

// string reads a quoted string. Without escapes, as almost always, its bytes
// are taken as they are; invalid UTF-8 is repaired when it is written.
func (p *jsonbWriter) string() (string, error) {
	start := p.at
	escaped := false
	for i := p.at + 1; i < len(p.in); i++ {
		switch c := p.in[i]; {
		case c == '\\':
			escaped = true
			i++
		case c == '"':
			p.at = i + 1
			if !escaped {
				return p.in[start+1 : i], nil
			}
			var s string
			if err := json.Unmarshal([]byte(p.in[start:p.at]), &s); err != nil {
				return "", errJSONSyntax
			}
			return s, nil
		case c < 0x20:
			return "", errJSONSyntax
		}
	}
	return "", errJSONSyntax
}

// maxNumberDigits bounds what a number with an exponent may grow to.
const maxNumberDigits = 1000

// number reads a number. Those with an exponent or a negative zero are written
// as PostgreSQL's numeric prints them.
func (p *jsonbWriter) number(dst []byte) ([]byte, error) {
	start := p.at
	for p.at < len(p.in) && strings.IndexByte("+-0123456789.eE", p.in[p.at]) >= 0 {
		p.at++
	}
	text := p.in[start:p.at]
	if isCount(text) {
		return append(dst, text...), nil
	}
	if !json.Valid([]byte(text)) {
		return nil, errJSONSyntax
	}
	digits, negative := strings.CutPrefix(text, "-")
	exponent := 0
	if e := strings.IndexAny(digits, "eE"); e >= 0 {
		var err error
		if exponent, err = strconv.Atoi(digits[e+1:]); err != nil || exponent > maxNumberDigits || exponent < -maxNumberDigits {
			return nil, errJSONSyntax
		}
		digits = digits[:e]
	} else if !negative || strings.ContainsAny(digits, "123456789") {
		return append(dst, text...), nil
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	return appendDecimal(dst, negative, whole+fraction, len(whole)+exponent), nil
}

// isCount tells whether a number is a whole one in plain digits, as nearly all
// are: it needs no look at JSON's grammar.
func isCount(text string) bool {
	if text == "" || text[0] == '0' && len(text) > 1 {
		return false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return true
}

// appendDecimal appends the digits with the decimal point after the first
// "point" of them.
func appendDecimal(dst []byte, negative bool, digits string, point int) []byte {
	if negative && strings.ContainsAny(digits, "123456789") {
		dst = append(dst, '-')
	}
	if missing := point - len(digits); missing > 0 {
		digits += strings.Repeat("0", missing)
	}
	if point <= 0 {
		dst = append(dst, "0."...)
		for ; point < 0; point++ {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	whole := strings.TrimLeft(digits[:point], "0")
	dst = append(dst, cmp.Or(whole, "0")...)
	if point < len(digits) {
		dst = append(append(dst, '.'), digits[point:]...)
	}
	return dst
}

// repair replaces NUL and invalid UTF-8 by U+FFFD.
func repair(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	out := make([]rune, 0, len(s))
	for _, r := range s {
		if r == 0 {
			r = utf8.RuneError
		}
		out = append(out, r)
	}
	return string(out)
}
