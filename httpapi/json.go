package httpapi

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/chainstream/chainstream/chain"
)

// maxNumber is the longest number that is read, in bytes. A float64 needs 17
// digits; PostgreSQL refuses numbers far beyond this length.
const maxNumber = 1000

// checkJSON checks that a body is JSON that everything behind this package can
// store and that means the same to every reader. It is stricter than
// encoding/json: the text must be valid UTF-8 without NUL (also not as an
// escape) and without halves of surrogate pairs, nested at most chain.MaxDepth
// deep; a key stands once in its object; a number fits a float64. The first
// violation is a kindMalformedBody problem with its pointer and offset.
func checkJSON(data []byte) error {
	r := jsonChecker{data: data}
	err := r.document()
	if err == nil {
		return nil
	}
	return &problem{
		kind: kindMalformedBody, detail: fmt.Sprintf("At byte %d: %s.", err.offset, err.reason),
		errors: []problemError{{Pointer: err.pointer, Detail: err.reason, Code: err.code}},
	}
}

// jsonError is the first thing that is wrong with a JSON text.
type jsonError struct {
	pointer string
	offset  int // bytes before the fault
	code    string
	reason  string
}

// jsonChecker scans a JSON text (RFC 8259) once. Nesting is bounded, so the
// recursion is.
type jsonChecker struct {
	data []byte
	at   int
	path []string // escaped reference tokens of the value that is read
}

func (r *jsonChecker) fault(at int, code, format string, args ...any) *jsonError {
	e := &jsonError{offset: at, code: code, reason: fmt.Sprintf(format, args...)}
	if len(r.path) > 0 {
		e.pointer = "/" + strings.Join(r.path, "/")
	}
	return e
}

func (r *jsonChecker) syntax(format string, args ...any) *jsonError {
	return r.fault(r.at, chain.CodeSyntax, format, args...)
}

func (r *jsonChecker) document() *jsonError {
	r.space()
	if r.at == len(r.data) {
		return r.syntax("the body is empty")
	}
	if err := r.value(0); err != nil {
		return err
	}
	r.space()
	if r.at < len(r.data) {
		return r.syntax("there is more after the end of the value")
	}
	return nil
}

func (r *jsonChecker) space() {
	for r.at < len(r.data) {
		switch r.data[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// next answers the next byte, 0 at the end.
func (r *jsonChecker) next() byte {
	if r.at < len(r.data) {
		return r.data[r.at]
	}
	return 0
}

func (r *jsonChecker) value(depth int) *jsonError {
	switch c := r.next(); {
	case c == '{':
		return r.nested(depth, r.object)
	case c == '[':
		return r.nested(depth, r.array)
	case c == '"':
		_, err := r.str()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if rest := r.data[r.at:]; len(rest) >= len(word) && string(rest[:len(word)]) == word {
			r.at += len(word)
			return nil
		}
	}
	if r.at == len(r.data) {
		return r.syntax("the text ends too early")
	}
	return r.unexpected("a value")
}

// unexpected is a fault at the current byte, which is not what was expected.
func (r *jsonChecker) unexpected(wanted string) *jsonError {
	if r.at == len(r.data) {
		return r.syntax("the text ends where %s is expected", wanted)
	}
	c, size := utf8.DecodeRune(r.data[r.at:])
	switch {
	case c == 0:
		return r.fault(r.at, chain.CodeNUL, "the text contains a NUL character")
	case c == utf8.RuneError && size == 1:
		return r.fault(r.at, chain.CodeInvalidUTF8, "the text is not valid UTF-8")
	}
	return r.syntax("%q stands where %s is expected", c, wanted)
}

func (r *jsonChecker) nested(depth int, read func(depth int) *jsonError) *jsonError {
	if depth >= chain.MaxDepth {
		return r.fault(r.at, chain.CodeTooDeep, "objects and lists may be nested %d deep", chain.MaxDepth)
	}
	r.at++
	r.space()
	return read(depth + 1)
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

func (r *jsonChecker) object(depth int) *jsonError {
	seen := make(map[string]struct{})
	for first := true; ; first = false {
		if r.next() == '}' && first {
			r.at++
			return nil
		}
		if r.next() != '"' {
			return r.unexpected("a key")
		}
		start := r.at
		key, err := r.str()
		if err != nil {
			return err
		}
		r.path = append(r.path, pointerEscaper.Replace(key))
		if _, twice := seen[key]; twice {
			return r.fault(start, chain.CodeDuplicateKey, "the key stands twice in its object")
		}
		seen[key] = struct{}{}
		r.space()
		if r.next() != ':' {
			return r.unexpected("a colon")
		}
		r.at++
		r.space()
		if err := r.value(depth); err != nil {
			return err
		}
		r.path = r.path[:len(r.path)-1]
		if done, err := r.separator('}'); done || err != nil {
			return err
		}
	}
}

func (r *jsonChecker) array(depth int) *jsonError {
	if r.next() == ']' {
		r.at++
		return nil
	}
	for i := 0; ; i++ {
		r.path = append(r.path, strconv.Itoa(i))
		if err := r.value(depth); err != nil {
			return err
		}
		r.path = r.path[:len(r.path)-1]
		if done, err := r.separator(']'); done || err != nil {
			return err
		}
	}
}

// separator reads the comma before the next member, or the end.
func (r *jsonChecker) separator(end byte) (done bool, err *jsonError) {
	r.space()
	switch r.next() {
	case end:
		r.at++
		return true, nil
	case ',':
		r.at++
		r.space()
		return false, nil
	}
	return false, r.unexpected("a comma or " + string(end))
}

// number reads a number and refuses what a float64 or the database cannot hold.
func (r *jsonChecker) number() *jsonError {
	start := r.at
	if r.next() == '-' {
		r.at++
	}
	switch c := r.next(); {
	case c == '0':
		r.at++
	case c >= '1' && c <= '9':
		r.digits()
	default:
		return r.unexpected("a digit")
	}
	mantissa := r.at
	if r.next() == '.' {
		r.at++
		if r.digits() == 0 {
			return r.unexpected("a digit")
		}
		mantissa = r.at
	}
	exponent := 0
	if c := r.next(); c == 'e' || c == 'E' {
		r.at++
		if c := r.next(); c == '+' || c == '-' {
			r.at++
		}
		if exponent = r.digits(); exponent == 0 {
			return r.unexpected("a digit")
		}
	}
	literal := string(r.data[start:r.at])
	if len(literal) > maxNumber || exponent > 5 {
		return r.fault(start, chain.CodeOutOfRange, "the number is too long")
	}
	f, err := strconv.ParseFloat(literal, 64)
	if err != nil || f == 0 && strings.ContainsAny(string(r.data[start:mantissa]), "123456789") {
		return r.fault(start, chain.CodeOutOfRange, "the number does not fit a 64-bit float")
	}
	return nil
}

// digits reads digits and answers how many.
func (r *jsonChecker) digits() int {
	start := r.at
	for c := r.next(); c >= '0' && c <= '9'; c = r.next() {
		r.at++
	}
	return r.at - start
}

// str reads a string and answers what it means.
func (r *jsonChecker) str() (string, *jsonError) {
	r.at++
	start := r.at
	var decoded []byte // nil as long as the text stands for itself
	for {
		if r.at == len(r.data) {
			return "", r.syntax("the text ends inside a string")
		}
		c := r.data[r.at]
		switch {
		case c == '"':
			text := string(r.data[start:r.at])
			if decoded != nil {
				text = string(decoded)
			}
			r.at++
			return text, nil
		case c == '\\':
			if decoded == nil {
				decoded = append(make([]byte, 0, r.at-start+16), r.data[start:r.at]...)
			}
			var err *jsonError
			if decoded, err = r.escape(decoded); err != nil {
				return "", err
			}
			continue
		case c == 0:
			return "", r.fault(r.at, chain.CodeNUL, "the text contains a NUL character")
		case c < 0x20:
			return "", r.syntax("a control character stands in a string; write it as an escape")
		}
		size := 1
		if c >= utf8.RuneSelf {
			var ch rune
			if ch, size = utf8.DecodeRune(r.data[r.at:]); ch == utf8.RuneError && size == 1 {
				return "", r.fault(r.at, chain.CodeInvalidUTF8, "the text is not valid UTF-8")
			}
		}
		if decoded != nil {
			decoded = append(decoded, r.data[r.at:r.at+size]...)
		}
		r.at += size
	}
}

// escape reads what begins with a backslash and appends what it means.
func (r *jsonChecker) escape(dst []byte) ([]byte, *jsonError) {
	start := r.at
	r.at++
	c := r.next()
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 && c != 0 {
		r.at++
		return append(dst, "\"\\/\b\f\n\r\t"[i]), nil
	}
	if c != 'u' {
		return nil, r.unexpected("an escape")
	}
	unit, ok := r.unit()
	if !ok {
		r.at = start
		return nil, r.syntax("four hexadecimal digits must follow \\u")
	}
	switch {
	case unit == 0:
		return nil, r.fault(start, chain.CodeNUL, "the text contains a NUL character")
	case unit >= 0xdc00 && unit <= 0xdfff:
		return nil, r.fault(start, chain.CodeInvalidUTF8, "half of a surrogate pair stands alone")
	case unit >= 0xd800 && unit <= 0xdbff:
		if r.next() == '\\' {
			r.at++
			if low, ok := r.unit(); ok && low >= 0xdc00 && low <= 0xdfff {
				return utf8.AppendRune(dst, (unit-0xd800)<<10|(low-0xdc00)+0x10000), nil
			}
		}
		return nil, r.fault(start, chain.CodeInvalidUTF8, "half of a surrogate pair stands alone")
	}
	return utf8.AppendRune(dst, unit), nil
}

// unit reads uXXXX.
func (r *jsonChecker) unit() (rune, bool) {
	if len(r.data)-r.at < 5 || r.data[r.at] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(r.data[r.at+1:r.at+5]), 16, 32)
	if err != nil {
		return 0, false
	}
	r.at += 5
	return rune(n), true
}
