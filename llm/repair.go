package llm

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Repairer makes the text of a model storable: valid UTF-8 without NUL, which
// PostgreSQL does not take. A character that a provider split over two pieces is
// put together again: the start of one at the end of a piece is held back until
// the next. So are the halves of a surrogate pair, which a provider's JSON may
// have spread over two strings, when they come in the three-byte form that UTF-8
// would give them. The zero value is ready; use one per kind of text and call.
type Repairer struct {
	held []byte // the start of a character, up to five bytes
}

// Text returns the next piece, and whether anything in it was replaced by
// U+FFFD.
func (r *Repairer) Text(piece string) (text string, repaired bool) {
	if len(r.held) > 0 {
		if piece == "" {
			return "", false
		}
		piece = string(r.held) + piece
		r.held = r.held[:0]
	}
	if clean(piece) {
		return piece, false
	}
	if n := unfinished(piece); n > 0 {
		r.held = append(r.held, piece[len(piece)-n:]...)
		piece = piece[:len(piece)-n]
	}
	return repair(piece)
}

// Flush returns what is held back at the end of the answer: nothing, or U+FFFD
// for what was never completed.
func (r *Repairer) Flush() (text string, repaired bool) {
	if len(r.held) == 0 {
		return "", false
	}
	characters := 1
	if len(r.held) > surrogateLen { // one half of a pair, and the start of the other
		characters = 2
	}
	r.held = r.held[:0]
	return strings.Repeat(string(utf8.RuneError), characters), true
}

func clean(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// repair replaces what is broken: one U+FFFD for NUL, for half a surrogate pair
// and for every other byte that is not UTF-8.
func repair(s string) (string, bool) {
	if clean(s) {
		return s, false
	}
	var b strings.Builder
	b.Grow(len(s) + 8)
	repaired := false
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == 0:
			r, repaired = utf8.RuneError, true
		case r == utf8.RuneError && size == 1:
			if half := surrogate(s); half != 0 {
				size = surrogateLen
				if r = utf16.DecodeRune(half, surrogate(s[size:])); r != utf8.RuneError {
					size = 2 * surrogateLen
					break
				}
			}
			repaired = true
		}
		b.WriteRune(r)
		s = s[size:]
	}
	return b.String(), repaired
}

// surrogateLen is the length of a surrogate in the form that UTF-8 would give it.
const surrogateLen = 3

// surrogate returns the half of a surrogate pair that s begins with, or 0.
func surrogate(s string) rune {
	if len(s) < surrogateLen || s[0] != 0xED || s[1] < 0xA0 || s[1] > 0xBF || s[2] < 0x80 || s[2] > 0xBF {
		return 0
	}
	return 0xD000 | rune(s[1]&0x3F)<<6 | rune(s[2]&0x3F)
}

// unfinished returns the length of the character that s ends in the middle of.
func unfinished(s string) int {
	if endsInHighSurrogate(s) {
		return surrogateLen
	}
	for n := 1; n < utf8.UTFMax && n <= len(s); n++ {
		tail := s[len(s)-n:]
		if !utf8.RuneStart(tail[0]) {
			continue
		}
		switch {
		// 0xED and a byte from 0xA0 are two thirds of a surrogate.
		case utf8.FullRuneInString(tail) && (n != 2 || tail[0] != 0xED || tail[1] < 0xA0):
			return 0
		case tail[0] == 0xED && endsInHighSurrogate(s[:len(s)-n]):
			return surrogateLen + n
		default:
			return n
		}
	}
	return 0
}

func endsInHighSurrogate(s string) bool {
	if len(s) < surrogateLen {
		return false
	}
	half := surrogate(s[len(s)-surrogateLen:])
	return half >= 0xD800 && half < 0xDC00
}
