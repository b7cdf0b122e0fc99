package knowledge

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// citation is one number in square brackets, or several: [1], [2, 3].
var citation = regexp.MustCompile(`\[([0-9]{1,3}(?:\s*[,;]\s*[0-9]{1,3})*)\]`)

// Cited answers which of the numbers from 1 to most a text cites, in ascending order.
// A number that is followed by a parenthesis is the text of a link, and none.
func Cited(text string, most int) []int {
	var out []int
	for _, at := range citation.FindAllStringSubmatchIndex(text, -1) {
		if strings.HasPrefix(text[at[1]:], "(") {
			continue
		}
		for _, number := range strings.FieldsFunc(text[at[2]:at[3]], func(r rune) bool { return r < '0' || r > '9' }) {
			if n, err := strconv.Atoi(number); err == nil && n >= 1 && n <= most {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
