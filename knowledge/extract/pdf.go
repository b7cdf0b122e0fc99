package extract

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// readPDF makes paragraphs of pages, which have only lines, and headings of the
// outline. A document of one page has no page numbers.
func readPDF(pages []PDFPage) []Block {
	lines := make([][]string, len(pages))
	for i, page := range pages {
		for line := range strings.SplitSeq(page.Text, "\n") {
			if line = strings.TrimSpace(compose(line)); line != "" {
				lines[i] = append(lines[i], line)
			}
		}
	}
	withoutMargins(lines)
	full := fullLine(lines)
	var blocks []Block
	for i, page := range pages {
		number := i + 1
		if len(pages) == 1 {
			number = 0
		}
		for _, b := range sectionsOf(lines[i], page.Outline, full) {
			b.Page = number
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// spacing are the accents that some programs print as signs of their own in front of
// a letter, with the ones that become part of it.
var spacing = map[rune]rune{
	'`': '\u0300', '´': '\u0301', 'ˆ': '\u0302', '˜': '\u0303', '¯': '\u0304', '˘': '\u0306', '˙': '\u0307', '¨': '\u0308',
	'˚': '\u030a', '˝': '\u030b', 'ˇ': '\u030c', '¸': '\u0327', '˛': '\u0328',
}

// compose puts letters and accents together: TeX prints "Br¨oker", in which nobody
// finds Bröker. An accent that stands alone stays.
func compose(line string) string {
	if !strings.ContainsFunc(line, func(r rune) bool { return spacing[r] != 0 && r != '`' }) {
		return norm.NFC.String(line)
	}
	runes := []rune(line)
	var b strings.Builder
	for i := 0; i < len(runes); i++ {
		mark := spacing[runes[i]]
		if mark == 0 || runes[i] == '`' || i+1 == len(runes) {
			b.WriteRune(runes[i])
			continue
		}
		letter := runes[i+1]
		switch letter {
		case 'ı':
			letter = 'i'
		case 'ȷ':
			letter = 'j'
		}
		if one := []rune(norm.NFC.String(string([]rune{letter, mark}))); len(one) == 1 && unicode.IsLetter(letter) {
			b.WriteRune(one[0])
			i++
			continue
		}
		b.WriteRune(runes[i])
	}
	return norm.NFC.String(b.String())
}

// margin is how many lines at the top and the bottom of a page may be repeated ones,
// and near how many pages away the next one with the same line is: left and right
// pages differ.
const (
	margin  = 2
	near    = 2
	repeats = 3
)

// withoutMargins takes away what stands above and below the text of page after page:
// its number, and the title, except for where that stands first.
func withoutMargins(pages [][]string) {
	// A line is what stands on several pages if it is the same on them, or the same but
	// for one number that grows as their numbers do.
	seen := make(map[string][]int) // pages, by what they have in common
	forms := func(page int, line string) []string {
		out := []string{line}
		words := strings.Fields(line)
		for i, word := range words {
			if n, err := strconv.Atoi(strings.Trim(word, "-–—[]()|.,")); err == nil && len(words) <= 20 {
				other := slices.Clone(words)
				other[i] = "#" + strconv.Itoa(n-page)
				out = append(out, "\x00"+strings.Join(other, " "))
			}
		}
		return out
	}
	edges := func(lines []string, visit func(at int)) {
		for i := range lines {
			if i < margin || i >= len(lines)-margin {
				visit(i)
			}
		}
	}
	for p, lines := range pages {
		edges(lines, func(at int) {
			for _, form := range forms(p, lines[at]) {
				if on := seen[form]; len(on) == 0 || on[len(on)-1] != p {
					seen[form] = append(on, p)
				}
			}
		})
	}
	for p, lines := range pages {
		drop := make(map[int]bool)
		edges(lines, func(at int) {
			for _, form := range forms(p, lines[at]) {
				on := seen[form]
				i := slices.Index(on, p)
				if len(on) < repeats || i > 0 && p-on[i-1] > near || i == 0 && on[1]-p > near {
					continue
				}
				onlyNumber := !strings.ContainsFunc(lines[at], unicode.IsLetter) && strings.HasPrefix(form, "\x00")
				if i > 0 || onlyNumber {
					drop[at] = true
				}
			}
		})
		kept := lines[:0:0]
		for i, line := range lines {
			if !drop[i] {
				kept = append(kept, line)
			}
		}
		pages[p] = kept
	}
}

// sectionsOf puts the headings of a page where their lines are. One whose line is not
// found stands where the one before it does.
func sectionsOf(lines []string, outline []Block, full int) []Block {
	var blocks []Block
	from := 0
	for _, heading := range outline {
		at, length := find(lines[from:], heading.Text)
		if at >= 0 {
			blocks = append(blocks, paragraphsOf(lines[from:from+at], full)...)
			from += at + length
		}
		blocks = append(blocks, heading)
	}
	return append(blocks, paragraphsOf(lines[from:], full)...)
}

// titleLines is how many lines a title may take.
const titleLines = 3

// find answers the lines that a title is written in, with or without its number.
func find(lines []string, title string) (at, length int) {
	want := letters(title)
	if want == "" {
		return -1, 0
	}
	for i := range lines {
		var read strings.Builder
		for n := 1; n <= titleLines && i+n <= len(lines); n++ {
			read.WriteString(letters(lines[i+n-1]))
			have := read.String()
			if have == want || numbered(have, want) || numbered(want, have) {
				return i, n
			}
			if len(have) > len(want)+maxNumber {
				break
			}
		}
	}
	return -1, 0
}

// maxNumber bounds what may stand before a title: "12", "A.1.3".
const maxNumber = 6

// numbered tells whether a text is a title with a number before it.
func numbered(text, title string) bool {
	rest, ok := strings.CutSuffix(text, title)
	if !ok || title == "" || len(rest) > maxNumber {
		return false
	}
	numbers, others := 0, 0
	for _, r := range rest {
		if unicode.IsNumber(r) {
			numbers++
		} else {
			others++
		}
	}
	return numbers > 0 && others <= 1
}

// letters answers the letters and numbers of a text, which its spaces and accents do
// not change.
func letters(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, norm.NFKD.String(text))
}

// shortest is how many characters a line has at least that was broken at the edge.
const shortest = 30

// fullLine answers how many characters of a line say that it was broken at the edge:
// three quarters of what lines of this document have as a rule.
func fullLine(pages [][]string) int {
	var lengths []int
	for _, lines := range pages {
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n >= shortest {
				lengths = append(lengths, n)
			}
		}
	}
	if len(lengths) == 0 {
		return shortest
	}
	slices.Sort(lengths)
	return max(lengths[len(lengths)/2]*3/4, shortest)
}

// paragraphsOf puts lines together that were broken at the edge of the page: a line
// that is about as long as others are goes on in the next one. A shorter one that ends
// a sentence ends the paragraph, too.
func paragraphsOf(lines []string, full int) []Block {
	var blocks []Block
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			blocks = append(blocks, Block{Kind: Paragraph, Text: b.String()})
			b.Reset()
		}
	}
	for i, line := range lines {
		b.WriteString(line)
		length := utf8.RuneCountInString(line)
		last, _ := utf8.DecodeLastRuneInString(line)
		ends := strings.ContainsRune(".!?。！？", last)
		switch {
		case i+1 == len(lines):
		case wide(last) && length >= full/2 && !ends:
			if first, _ := utf8.DecodeRuneInString(lines[i+1]); !wide(first) {
				b.WriteByte(' ')
			}
		case length < full && ends:
			flush()
		case length < full, ends, strings.Contains(line, ". . ."), begins(lines[i+1]):
			b.WriteByte('\n')
		case last == '-': // a word with a hyphen
		default:
			b.WriteByte(' ')
		}
	}
	flush()
	return blocks
}

// begins tells whether a line begins an item of a list.
func begins(line string) bool {
	first, size := utf8.DecodeRuneInString(line)
	return strings.ContainsRune("•◦▪·–—*-", first) && (len(line) == size || line[size] == ' ')
}

// wide tells whether a character is of a writing without spaces.
func wide(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana) || r == '、'
}
