package llm

import (
	"strings"
	"unicode/utf8"
)

// Repairer makes the text of a model storable: valid UTF-8 without NUL, which
// PostgreSQL does not take. A character that a provider split over two pieces is
// put together again: the start of one at the end of a piece is held back until
// the next. The zero value is ready; use one per kind of text and call.
type Repairer struct {
	held []byte // the start of a character, up to three bytes
}

// Text returns the next piece, and whether anything in it was replaced by
// U+FFFD.
func (r *Repairer) Text(piece string) (text string, repaired bool) {
	if len(r.held) > 0 {
		piece = string(r.held) + piece
		r.held = r.held[:0]
	}
	if clean(piece) {
		return piece, false
	}
	if n := incompleteTail(piece); n > 0 {
		r.held = append(r.held, piece[len(piece)-n:]...)
		piece = piece[:len(piece)-n]
	}
	return repair(piece)
}

// Flush returns what is held back at the end of the answer: nothing, or U+FFFD
// for a character that was never completed.
func (r *Repairer) Flush() (text string, repaired bool) {
	if len(r.held) == 0 {
		return "", false
	}
	r.held = r.held[:0]
	return string(utf8.RuneError), true
}

func clean(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

func repair(s string) (string, bool) {
	if clean(s) {
		return s, false
	}
	var b strings.Builder
	b.Grow(len(s) + 8)
	for _, r := range s { // ranging yields U+FFFD for every broken byte
		if r == 0 {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String(), true
}

// incompleteTail returns the length of the unfinished character s ends in.
func incompleteTail(s string) int {
	for n := 1; n < utf8.UTFMax && n <= len(s); n++ {
		tail := s[len(s)-n:]
		if utf8.RuneStart(tail[0]) {
			if tail[0] >= utf8.RuneSelf && !utf8.FullRuneInString(tail) {
				return n
			}
			return 0
		}
	}
	return 0
}
