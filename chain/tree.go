package chain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is the JSON type of a node.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindList
	kindObject
)

// String names the kind as messages do.
func (k kind) String() string {
	return [...]string{"null", "true or false", "a number", "a string", "a list", "an object"}[k]
}

// node is a value of a document. Unlike a Go map it keeps the order of members and knows its line.
type node struct {
	kind  kind
	text  string   // of a string or the literal of a number
	truth bool     // of a bool
	keys  []string // of an object, in order
	items []*node  // of a list, or the members' values of an object
	line  int      // 1-based, 0 for a node that was not read
	size  int      // bytes and nodes below, set when an alias may stand for it
	depth int      // levels below, set with size
}

// member returns the value of an object's key, nil when there is none.
func (n *node) member(key string) *node {
	if n.kind != kindObject {
		return nil
	}
	for i, k := range n.keys {
		if k == key {
			return n.items[i]
		}
	}
	return nil
}

// step follows one segment of a path: a key of an object or an index of a list.
func (n *node) step(segment string) *node {
	switch n.kind {
	case kindObject:
		return n.member(segment)
	case kindList:
		if i, ok := listIndex(segment, len(n.items)); ok {
			return n.items[i]
		}
	case kindNull, kindBool, kindNumber, kindString:
	}
	return nil
}

// listIndex reads a decimal index without leading zeros that is below n.
func listIndex(segment string, n int) (int, bool) {
	i, err := strconv.Atoi(segment)
	if err != nil || i < 0 || i >= n || strconv.Itoa(i) != segment {
		return 0, false
	}
	return i, true
}

// value converts the node to string, json.Number, bool, nil, []any and map[string]any.
func (n *node) value() any {
	switch n.kind {
	case kindBool:
		return n.truth
	case kindNumber:
		return json.Number(n.text)
	case kindString:
		return n.text
	case kindList:
		list := make([]any, len(n.items))
		for i, item := range n.items {
			list[i] = item.value()
		}
		return list
	case kindObject:
		m := make(map[string]any, len(n.items))
		for i, key := range n.keys {
			m[key] = n.items[i].value()
		}
		return m
	case kindNull:
	}
	return nil
}

// appendJSON writes the node compactly.
func (n *node) appendJSON(b []byte) []byte {
	switch n.kind {
	case kindNull:
		return append(b, "null"...)
	case kindBool:
		return strconv.AppendBool(b, n.truth)
	case kindNumber:
		return append(b, n.text...)
	case kindString:
		return appendQuoted(b, n.text)
	case kindList:
		b = append(b, '[')
		for i, item := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	case kindObject:
		b = append(b, '{')
		for i, key := range n.keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendQuoted(b, key)
			b = append(b, ':')
			b = n.items[i].appendJSON(b)
		}
		return append(b, '}')
	}
	return b
}

const hexDigits = "0123456789abcdef"

// appendQuoted writes a JSON string that is a YAML double-quoted string as well: everything that is not printable is
// escaped, and nothing else.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\t':
			b = append(b, '\\', 't')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r < 0x20, r >= 0x7f && r <= 0xa0, r == 0x2028, r == 0x2029, r == 0xfeff, r == 0xfffe, r == 0xffff:
			b = append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// readTree reads a document into a tree. It returns nil when there is nothing to go on with; the collector knows why.
func readTree(data []byte, f Format, limit int, c *collector) *node {
	if len(data) > limit {
		c.add("", CodeTooLarge, "the document has %d bytes, at most %d are allowed", len(data), limit)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if i := invalidUTF8(data); i >= 0 {
		c.atLine(lineAt(data, i), "", CodeInvalidUTF8, "the document is not valid UTF-8")
		return nil
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		c.atLine(lineAt(data, i), "", CodeNUL, "the document contains a NUL character")
		return nil
	}
	if f == FormatYAML {
		return readYAML(data, c)
	}
	return readJSON(data, c)
}

// invalidUTF8 is the offset of the first broken sequence, -1 when there is none.
func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// lineAt is the 1-based line of an offset.
func lineAt(data []byte, offset int) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), len(data))], []byte("\n"))
}

// jsonReader builds a tree from the tokens of encoding/json, which accepts more than we do: it lets keys repeat and
// replaces lone surrogates.
type jsonReader struct {
	data    []byte
	dec     *json.Decoder
	c       *collector
	line    int   // of the token read last
	counted int64 // bytes whose line ends are counted in line
}

func readJSON(data []byte, c *collector) *node {
	if i := loneSurrogate(data); i >= 0 {
		c.atLine(lineAt(data, i), "", CodeInvalidUTF8, "the document escapes half of a surrogate pair, which is no character")
		return nil
	}
	r := &jsonReader{data: data, dec: json.NewDecoder(bytes.NewReader(data)), c: c, line: 1}
	r.dec.UseNumber()
	tok, ok := r.next()
	if !ok {
		return nil
	}
	root := r.value(tok, "", 1)
	if root == nil {
		return nil
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		c.atLine(lineAt(data, int(r.dec.InputOffset())), "", CodeSyntax, "there is more text after the end of the document")
		return nil
	}
	return root
}

// next reads a token. A document that is not JSON is reported and ends the reading.
func (r *jsonReader) next() (json.Token, bool) {
	tok, err := r.dec.Token()
	if err == nil {
		offset := r.dec.InputOffset()
		r.line += bytes.Count(r.data[r.counted:offset], []byte("\n"))
		r.counted = offset
		return tok, true
	}
	var syntax *json.SyntaxError
	switch {
	case len(bytes.TrimSpace(r.data)) == 0:
		r.c.add("", CodeSyntax, "the document is empty")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.c.atLine(lineAt(r.data, len(r.data)), "", CodeSyntax, "the JSON ends too early")
	case errors.As(err, &syntax):
		r.c.atLine(lineAt(r.data, int(syntax.Offset)), "", CodeSyntax, "not valid JSON: %s", syntax.Error())
	default:
		r.c.atLine(r.line, "", CodeSyntax, "not valid JSON")
	}
	return nil, false
}

// value builds the node that starts with tok, nil after a problem that ends the reading.
func (r *jsonReader) value(tok json.Token, at string, depth int) *node {
	n := &node{line: r.line}
	switch v := tok.(type) {
	case nil:
		n.kind = kindNull
	case bool:
		n.kind, n.truth = kindBool, v
	case json.Number:
		n.kind, n.text = kindNumber, r.c.number(v.String(), at, r.line)
	case string:
		n.kind, n.text = kindString, r.c.text(v, at)
	case json.Delim:
		if depth > MaxDepth {
			r.c.atLine(r.line, at, CodeTooDeep, "nested deeper than %d levels", MaxDepth)
			return nil
		}
		if v == '[' {
			return r.list(n, at, depth)
		}
		return r.object(n, at, depth)
	}
	return n
}

func (r *jsonReader) list(n *node, at string, depth int) *node {
	n.kind = kindList
	for {
		tok, ok := r.next()
		if !ok {
			return nil
		}
		if tok == json.Delim(']') {
			return n
		}
		item := r.value(tok, at+"/"+strconv.Itoa(len(n.items)), depth+1)
		if item == nil {
			return nil
		}
		n.items = append(n.items, item)
	}
}

func (r *jsonReader) object(n *node, at string, depth int) *node {
	n.kind = kindObject
	seen := make(map[string]bool)
	for {
		tok, ok := r.next()
		if !ok {
			return nil
		}
		key, ok := tok.(string)
		if !ok {
			return n
		}
		line := r.line
		pointer := child(at, r.c.text(key, at))
		if tok, ok = r.next(); !ok {
			return nil
		}
		value := r.value(tok, pointer, depth+1)
		if value == nil {
			return nil
		}
		if seen[key] {
			r.c.atLine(line, pointer, CodeDuplicateKey, "the key %s is there twice", shown(key))
			continue
		}
		seen[key] = true
		n.keys = append(n.keys, key)
		n.items = append(n.items, value)
	}
}

// loneSurrogate is the offset of a \u escape of half a surrogate pair, -1 when there is none.
func loneSurrogate(data []byte) int {
	for i := 0; i+1 < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		unit := escapedUnit(data[i:])
		if unit < 0xd800 || unit > 0xdfff {
			i++ // the escaped character; the digits of \u hold no backslash
			continue
		}
		if low := escapedUnit(data[min(i+6, len(data)):]); unit > 0xdbff || low < 0xdc00 || low > 0xdfff {
			return i
		}
		i += 11
	}
	return -1
}

// escapedUnit is the UTF-16 unit of the \uXXXX at the start of data, -1 when there is none.
func escapedUnit(data []byte) int {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(data[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(unit)
}

// text reports a NUL in a string and returns the string.
func (c *collector) text(s, at string) string {
	if strings.IndexByte(s, 0) >= 0 {
		c.add(at, CodeNUL, "the text contains a NUL character")
	}
	return s
}

// number reports a number that no usual number type holds. Such numbers are an attack on whoever computes with them.
func (c *collector) number(literal, at string, line int) string {
	const longest, highest = 100, 400
	_, exponent, _ := strings.Cut(strings.ToLower(literal), "e")
	e, err := strconv.Atoi(strings.TrimPrefix(exponent, "+"))
	_, rangeErr := strconv.ParseFloat(literal, 64)
	if len(literal) > longest || exponent != "" && (err != nil || e > highest || e < -highest) || rangeErr != nil {
		c.atLine(line, at, CodeOutOfRange, "%s is too large or too fine a number", shown(literal))
		return "0"
	}
	return literal
}

// atLine reports a problem whose line is known.
func (c *collector) atLine(line int, pointer, code, format string, args ...any) {
	before := len(c.list)
	c.also(pointer, code, format, args...)
	if len(c.list) > before {
		c.list[before].Line = line
	}
}

// locate fills in the lines of problems from the tree: the line of the value, or of the nearest one around it.
func locate(root *node, list Problems) {
	for i := range list {
		if list[i].Line != 0 || list[i].Code == CodeMore {
			continue
		}
		n := root
		for _, segment := range segments(list[i].Pointer) {
			next := n.step(segment)
			if next == nil {
				break
			}
			n = next
		}
		list[i].Line = n.line
	}
}

// sortByLine puts problems into the order of the document; the note about further ones stays last.
func sortByLine(list Problems) {
	if n := len(list); n > 0 && list[n-1].Code == CodeMore {
		list = list[:n-1]
	}
	slices.SortStableFunc(list, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
}

var pointerUnescaper = strings.NewReplacer("~1", "/", "~0", "~")

// segments splits a JSON pointer into its unescaped segments; the empty pointer has none.
func segments(pointer string) []string {
	parts := strings.Split(pointer, "/")[1:]
	for i, part := range parts {
		parts[i] = pointerUnescaper.Replace(part)
	}
	return parts
}
