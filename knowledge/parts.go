package knowledge

import (
	"strings"

	"github.com/chainstream/chainstream/knowledge/chunk"
)

// Bounds of the parts of a query, in words. What has no more than a part may have is
// asked as a whole.
const (
	wordsOfPart = 48 // at most
	wordsOfLine = 8  // fewer are put to the sentence that follows
	mostParts   = 24
	charsOfWord = 60 // what is longer is no word, and counts as several
)

// parts cuts a long query between its sentences. A prompt is mostly about how to
// answer; asked as a whole, that would drown the one sentence which says what the
// answer is about. Asked in parts, a passage counts by the part that it fits best.
// The longer a query, the more sentences are put together; of one that is too long even
// for that, the first and the last parts are asked, where a prompt says what it wants.
func parts(query string) []string {
	query = strings.TrimSpace(query)
	all := countWords(query)
	if all <= wordsOfPart {
		return []string{query}
	}
	enough := min(max(wordsOfLine, (all+mostParts-1)/mostParts), wordsOfPart)
	var out []string
	var part []string
	words := 0
	flush := func() {
		if len(part) > 0 {
			out = append(out, strings.Join(part, " "))
		}
		part, words = nil, 0
	}
	for _, sentence := range chunk.Sentences(query) {
		for _, piece := range pieces(sentence) {
			n := countWords(piece)
			if words >= enough || words+n > wordsOfPart {
				flush()
			}
			part, words = append(part, piece), words+n
		}
	}
	if words < enough && words+lastWords(out) <= wordsOfPart && len(out) > 0 && words > 0 {
		out[len(out)-1] += " " + strings.Join(part, " ")
	} else {
		flush()
	}
	if len(out) > mostParts {
		out = append(out[:mostParts/2:mostParts/2], out[len(out)-mostParts/2:]...)
	}
	return out
}

func lastWords(parts []string) int {
	if len(parts) == 0 {
		return 0
	}
	return countWords(parts[len(parts)-1])
}

// pieces cuts what looks like a sentence and is too long for one.
func pieces(sentence string) []string {
	var out []string
	var piece []string
	count := 0
	for word := range strings.FieldsSeq(sentence) {
		n := 1 + len(word)/charsOfWord
		if count > 0 && count+n > wordsOfPart {
			out = append(out, strings.Join(piece, " "))
			piece, count = nil, 0
		}
		piece, count = append(piece, word), count+n
	}
	if count > 0 {
		out = append(out, strings.Join(piece, " "))
	}
	return out
}

func countWords(text string) (n int) {
	for word := range strings.FieldsSeq(text) {
		n += 1 + len(word)/charsOfWord
	}
	return n
}
