// Package tokenizer counts tokens as OpenAI's models do. The vocabularies are
// part of the program: nothing is fetched. They are OpenAI's; no vocabulary of
// another vendor's models is at hand, and theirs cannot be stood in for.
//
// A vocabulary is unpacked when it is first used, once, into about thirty
// megabytes. Counting is safe for concurrent use, takes time in proportion to
// the text, and never fails.
package tokenizer

import (
	"iter"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer/codec"
)

// The tokenizers there are.
const (
	O200k  = "o200k_base"  // GPT-4o and everything after it
	CL100k = "cl100k_base" // GPT-4 and GPT-3.5, and the embedding models
)

var codecs = map[string]func() *codec.Codec{
	O200k:  sync.OnceValue(codec.NewO200kBase),
	CL100k: sync.OnceValue(codec.NewCl100kBase),
}

// Counter answers the function that counts the tokens of a text with a
// tokenizer, or nil when there is no such tokenizer. Nothing is unpacked before
// the function is called.
func Counter(name string) func(text string) int64 {
	load := codecs[name]
	if load == nil {
		return nil
	}
	return func(text string) int64 {
		// The codec's pattern misses this one character. It is a token, as the other is.
		text = strings.ReplaceAll(text, "\x7f", "\x1f")
		var n int64
		for piece := range pieces(text) {
			n += count(load(), piece)
		}
		return n
	}
}

// count counts a piece. The codec's errors concern modes and time limits that
// are not set; should there be one all the same, a token for every four bytes is
// better than none.
func count(c *codec.Codec, piece string) int64 {
	n, err := c.Count(piece)
	if err != nil {
		return int64(len(piece)+3) / 4
	}
	return int64(n)
}

// What the codec is given at once, in bytes, of a text and of white space. Its
// time grows with the square of some runs, most of all of blank lines that hold
// a space, and it takes some twenty bytes of memory for each of the text.
const (
	maxPiece = 2 << 10
	maxBlank = 256
)

// pieces cuts a long text where no token can be: behind a letter that is followed
// by something else. A piece without such a place is no language, or one that
// is written without marks; it is cut between two characters, as long white
// space is, which may change the count by two.
func pieces(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(text) > maxPiece {
			cut := maxBlank
			if strings.TrimSpace(text[:maxBlank]) != "" {
				cut = border(text[:maxPiece])
			}
			if !yield(text[:cut]) {
				return
			}
			text = text[cut:]
		}
		yield(text)
	}
}

// border answers where a text is cut. It is not 0.
func border(text string) int {
	whole := len(text) - 1 // the last character may be half of one
	for whole > len(text)-utf8.UTFMax && !utf8.RuneStart(text[whole]) {
		whole--
	}
	next := 'a'
	for end := whole; end > 0; {
		r, size := utf8.DecodeLastRuneInString(text[:end])
		if unicode.IsLetter(r) && !unicode.IsLetter(next) && !unicode.IsMark(next) && next != '\'' {
			return end
		}
		next = r
		end -= size
	}
	return whole
}
