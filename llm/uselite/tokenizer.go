package uselite

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// space stands for a space in pieces.
const space = "\u2581"

// reserved is how many pieces at the start of the vocabulary no text has; the
// first of them stands for what the vocabulary cannot write.
const reserved = 6

// tokenizer takes texts apart into the likeliest pieces of a unigram vocabulary:
// T. Kudo, Subword Regularization, arXiv:1804.10959.
type tokenizer struct {
	pieces  []piece
	byText  map[string]int
	longest int // bytes of the longest piece
}

type piece struct {
	length int // characters
	score  float64
}

var errVocabulary = errors.New("read the embedding model: the vocabulary is not a list of texts and scores")

func newTokenizer(vocabulary [][]any) (*tokenizer, error) {
	t := &tokenizer{byText: make(map[string]int, len(vocabulary))}
	for i, entry := range vocabulary {
		if len(entry) != 2 {
			return nil, errVocabulary
		}
		text, isText := entry[0].(string)
		score, isNumber := entry[1].(float64) // null is 0
		if !isText || text == "" || !isNumber && entry[1] != nil {
			return nil, errVocabulary
		}
		t.pieces = append(t.pieces, piece{utf8.RuneCountInString(text), score})
		if i >= reserved {
			t.byText[text] = i
			t.longest = max(t.longest, len(text))
		}
	}
	if len(t.byText) == 0 {
		return nil, errVocabulary
	}
	return t, nil
}

// segment bounds how much text is looked at at once.
const segment = 64 << 10

// encode answers the numbers of up to limit pieces of a text.
func (t *tokenizer) encode(text string, limit int) []int {
	// More than this cannot become the pieces that are asked for.
	if most := t.longest; limit < segment/most && len(text) > 4*limit*most {
		text = strings.ToValidUTF8(text[:4*limit*most], "")
	}
	text = norm.NFKC.String(text)
	if text == "" {
		return nil
	}
	text = space + strings.ReplaceAll(text, " ", space)

	starts := make([]int, 0, len(text)+1) // of the characters, in bytes
	for i := range text {
		starts = append(starts, i)
	}
	count := len(starts)
	starts = append(starts, len(text))

	// score[i] is that of the best way to write the first i characters, and last[i]
	// the piece that it ends in. As in the reference, 0 is a way that anything
	// replaces, and a tie goes to the shorter piece.
	score, last := make([]float64, count+1), make([]int, count+1)
	offer := func(end int, s float64, number int) {
		if score[end] == 0 || s >= score[end] {
			score[end], last[end] = s, number
		}
	}
	for i := range count {
		found := false
		for end := i + 1; end <= count && starts[end]-starts[i] <= t.longest; end++ {
			if number, ok := t.byText[text[starts[i]:starts[end]]]; ok {
				found = true
				offer(end, score[i]+t.pieces[number].score, number)
			}
		}
		if !found {
			offer(i+1, score[i], 0)
		}
	}
	var reversed []int
	for end := count; end > 0; {
		number := last[end]
		end -= t.pieces[number].length
		if number == 0 && len(reversed) > 0 && reversed[len(reversed)-1] == 0 {
			continue // what cannot be written counts once in a row
		}
		reversed = append(reversed, number)
	}
	out := make([]int, 0, min(len(reversed), limit))
	for i := len(reversed) - 1; i >= 0 && len(out) < limit; i-- {
		out = append(out, reversed[i])
	}
	return out
}
