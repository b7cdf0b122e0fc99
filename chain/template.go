package chain

import (
	"iter"
	"strings"
)

// reference is a variable in a template.
type reference struct {
	name string
	path []string // the dotted path after the name
}

// String is the reference without its braces.
func (r reference) String() string {
	return strings.Join(append([]string{r.name}, r.path...), ".")
}

// segment is a piece of a template: text, or a reference when ref is not nil.
type segment struct {
	text string // as it is written, a reference with its braces
	ref  *reference
}

// split cuts a template into pieces. Both ${name} and {{name}} are references; whatever does not match the whole grammar is
// text. Backslashes directly before ${ or {{ escape: two of them stand for one, and an odd one makes the braces text.
func split(template string) iter.Seq[segment] {
	return func(yield func(segment) bool) {
		start := 0 // of the text that has not been yielded
		text := func(end int) bool {
			return start == end || yield(segment{text: template[start:end]})
		}
		for i := nextOpener(template, 0); i >= 0; i = nextOpener(template, i) {
			slashes := 0
			for i-slashes > start && template[i-slashes-1] == '\\' {
				slashes++
			}
			// Half of the backslashes stand for themselves: leave out the other half.
			if !text(i - slashes + slashes/2) {
				return
			}
			start = i
			if slashes%2 == 1 {
				i += 2 // the braces are text
				continue
			}
			ref, length := match(template[i:])
			if length == 0 {
				i++
				continue
			}
			if !yield(segment{text: template[i : i+length], ref: &ref}) {
				return
			}
			i += length
			start = i
		}
		text(len(template))
	}
}

// nextOpener is the offset of the next ${ or {{ from i on, -1 when there is none.
func nextOpener(s string, i int) int {
	for i < len(s) {
		j := strings.IndexByte(s[i:], '{')
		if j < 0 {
			return -1
		}
		j += i
		if j > i && s[j-1] == '$' {
			return j - 1
		}
		if j+1 < len(s) && s[j+1] == '{' {
			return j
		}
		i = j + 1
	}
	return -1
}

// match reads the reference at the start of s and how long it is, 0 when there is none.
func match(s string) (ref reference, length int) {
	closing := "}"
	if s[0] == '{' {
		closing = "}}"
	}
	i := skipSpace(s, 2)
	for {
		end := i
		for end < len(s) && isNameByte(s[end]) {
			end++
		}
		if end == i {
			return reference{}, 0
		}
		if ref.name == "" {
			ref.name = s[i:end]
		} else {
			ref.path = append(ref.path, s[i:end])
		}
		i = end
		if i >= len(s) || s[i] != '.' {
			break
		}
		i++
	}
	i = skipSpace(s, i)
	if !strings.HasPrefix(s[i:], closing) {
		return reference{}, 0
	}
	return ref, i + len(closing)
}

func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

func isNameByte(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b == '_' || b == '-'
}

// isName tells whether s can be a name or a segment of a path.
func isName(s string) bool {
	for i := range len(s) {
		if !isNameByte(s[i]) {
			return false
		}
	}
	return s != ""
}
