// Package chunk cuts documents into passages that fit an embedding model and can
// be understood alone. It cuts where the document does: at headings, then between
// blocks, then between sentences, lines of code or rows of a table, and within
// those only when there is no other way. The same document always gives the same
// chunks.
package chunk

import (
	"context"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/chainstream/chainstream/knowledge/extract"
)

// Options say how large chunks are.
type Options struct {
	MaxTokens int                   // of a chunk, its headings included; at least 16
	Overlap   int                   // tokens of prose that a chunk repeats of the one before it in its section
	Count     func(text string) int // tokens of a text, as the embedding model counts them
}

// Chunk is a passage of a document.
type Chunk struct {
	Headings []string // from the document's title down to the section
	Text     string
	Page     int // where it begins; 0 in formats without pages
	Tokens   int // of Embedded
}

// Path writes the headings in one line.
func (c Chunk) Path() string { return strings.Join(c.Headings, separator) }

// Embedded is the text that stands for the chunk in a search.
func (c Chunk) Embedded() string { return Embedded(c.Path(), c.Text) }

// Embedded puts a path of headings before a text: they tell what a passage is about
// where it does not say so itself.
func Embedded(path, text string) string {
	if path == "" {
		return text
	}
	return path + "\n\n" + text
}

const separator = " > "

// least is the smallest MaxTokens that leaves room for text.
const least = 16

// Split cuts a document. Large ones take minutes: the end of ctx is noticed within a
// second or so, and its cause is the only error.
func Split(ctx context.Context, blocks []extract.Block, o Options) ([]Chunk, error) {
	o.MaxTokens = max(o.MaxTokens, least)
	o.Overlap = min(max(o.Overlap, 0), o.MaxTokens/3)
	count := o.Count
	o.Count = func(text string) int { return max(count(text), (len(text)+bytesPerToken-1)/bytesPerToken) }
	c := cutter{Options: o}
	for _, b := range blocks {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if b.Kind == extract.Heading {
			c.heading(b)
			continue
		}
		for part := range parts(b) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			c.add(part, len(b.Text) > maxBlock)
		}
	}
	c.heading(extract.Block{}) // which ends all sections
	c.flushBare()
	for i, chunk := range c.chunks {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c.chunks[i].Tokens = count(chunk.Embedded())
	}
	return c.chunks, nil
}

// cutter collects what stands under one heading.
type cutter struct {
	Options
	chunks  []Chunk
	path    []extract.Block // headings down to where the document is
	section []extract.Block // what has not been cut yet
	size    int             // of section, in bytes

	empty bool            // nothing stands under the last heading of path
	bare  []extract.Block // headings under which nothing stands, which have not been cut yet
	above []extract.Block // the path to them
}

// add takes a block. One that is only a part of a block is cut alone.
func (c *cutter) add(b extract.Block, part bool) {
	c.flushBare()
	c.empty = false
	if c.size += len(b.Text); c.size > maxSection || part {
		c.flush()
		c.size = len(b.Text)
	}
	c.section = append(c.section, b)
}

func (c *cutter) flush() {
	c.chunks = append(c.chunks, c.Options.section(headings(c.path), c.section)...)
	c.section, c.size = nil, 0
}

// heading begins a section. When nothing stands under the heading before it, that one
// is a text of the section it belongs to: in no other passage it would be found.
func (c *cutter) heading(b extract.Block) {
	c.flush()
	if last := len(c.path) - 1; last >= 0 && c.empty && c.path[last].Level >= b.Level {
		if len(c.bare) == maxBare || !slices.Equal(c.above, c.path[:last]) {
			c.flushBare()
			c.above = slices.Clone(c.path[:last])
		}
		alone := c.path[last]
		alone.Kind = extract.Paragraph
		c.bare = append(c.bare, alone)
	}
	for len(c.path) > 0 && c.path[len(c.path)-1].Level >= b.Level {
		c.path = c.path[:len(c.path)-1]
	}
	b.Text = strings.Join(strings.Fields(b.Text), " ")
	c.path, c.empty = append(c.path, b), true
}

// flushBare makes passages of the headings under which nothing stands: those that
// follow each other in a section are together.
func (c *cutter) flushBare() {
	if len(c.bare) > 0 {
		c.chunks = append(c.chunks, c.Options.section(headings(c.above), c.bare)...)
		c.bare = nil
	}
}

// maxBare bounds the headings that are cut together.
const maxBare = 1000

// bytesPerToken is how much text a token stands for at most. To a model of another
// language a whole book is one unknown word, and would be one passage.
const bytesPerToken = 16

// Bounds of what is cut at once, in bytes: what has no joints for so long is none
// whose passages are worth more memory. There is no overlap between two sections.
const (
	maxSection = 1 << 20
	maxBlock   = maxSection / 4
)

// parts cuts a block that is too large between lines, or between words. Each part of a
// table begins with its head.
func parts(b extract.Block) iter.Seq[extract.Block] {
	return func(yield func(extract.Block) bool) {
		head, rest := "", b.Text
		if b.Kind == extract.Table && len(b.Text) > maxBlock {
			if head, rest = tableHead(b.Text); len(head) > maxBlock/4 {
				head, rest = "", b.Text
			}
		}
		for {
			part := b
			if len(rest) <= maxBlock {
				part.Text = head + rest
				yield(part)
				return
			}
			cut := strings.LastIndexByte(rest[:maxBlock], '\n')
			if cut < maxBlock/2 {
				cut = max(cut, strings.LastIndexByte(rest[:maxBlock], ' '))
			}
			if cut <= 0 {
				cut = boundary(rest, maxBlock)
			}
			part.Text, rest = head+rest[:cut], rest[cut:]
			if head != "" {
				rest = strings.TrimPrefix(rest, "\n")
			}
			if !yield(part) {
				return
			}
		}
	}
}

// tableHead parts the names of the columns, with the line of dashes that Markdown has
// under them, from the rows. head ends with a line feed, or is empty.
func tableHead(text string) (head, rows string) {
	first, rest, found := strings.Cut(text, "\n")
	if !found {
		return "", text
	}
	if line, more, ok := strings.Cut(rest, "\n"); ok && strings.Trim(line, "|-: \t") == "" {
		return first + "\n" + line + "\n", more
	}
	return first + "\n", rest
}

func headings(path []extract.Block) []string {
	var out []string
	for _, b := range path {
		out = append(out, b.Text)
	}
	return out
}

// unit is the smallest text that is not cut further.
type unit struct {
	text   string
	before string // what separates it from the unit before it in the same chunk
	repeat string // that every chunk begins with which begins here: a table's head
	tokens int
	prose  bool // may be repeated as overlap
	begins bool // a block begins here: the better place to cut
	page   int
}

// section cuts what stands under one heading.
func (o Options) section(path []string, blocks []extract.Block) []Chunk {
	path, room := o.fitHeadings(path)
	whole := func(units []unit) int {
		return o.Count(Embedded(strings.Join(path, separator), joined(units))) - (o.MaxTokens - room)
	}
	var units []unit
	for _, b := range blocks {
		of := o.units(b, room)
		for i := range of {
			of[i].page, of[i].begins = b.Page, i == 0
		}
		if len(of) > 0 && len(units) > 0 {
			of[0].before = "\n\n"
		}
		units = append(units, of...)
	}
	var ends []int
	for from := 0; from < len(units); {
		_, repeated := o.repeatable(units, from)
		from = o.reach(units, from, room-repeated, whole)
		ends = append(ends, from)
	}
	balance(units, ends, room, whole)
	var chunks []Chunk
	from := 0
	for _, to := range ends {
		first := o.overlap(units, from, to, room, whole)
		text := joined(units[first:to])
		c := Chunk{Headings: path, Text: text, Page: units[from].page}
		chunks = append(chunks, c)
		from = to
	}
	return chunks
}

// balance gives a last chunk that is hardly anything a part of the one before it:
// a line alone says little.
func balance(units []unit, ends []int, room int, whole func([]unit) int) {
	if len(ends) < 2 {
		return
	}
	start, cut := 0, ends[len(ends)-2]
	if len(ends) > 2 {
		start = ends[len(ends)-3]
	}
	before, last := sum(units[start:cut]), sum(units[cut:])
	const small = 4 // this part of a chunk
	if last > room/small {
		return
	}
	moved := 0
	for tokens := 0; cut-moved-1 > start; moved++ {
		if tokens += units[cut-moved-1].tokens; last+tokens > before-tokens {
			break
		}
	}
	if moved == 0 {
		return
	}
	all := whole(units[cut-moved:])
	if all > room {
		moved, _ = largest(0, last, moved, all, room, room+1, func(n int) int { return whole(units[cut-n:]) })
	}
	ends[len(ends)-2] = cut - moved
}

func sum(units []unit) (tokens int) {
	for _, u := range units {
		tokens += u.tokens
	}
	return tokens
}

// largest answers the largest number whose tokens have room, and how many these are;
// one that has enough will do. low has room, high has not. What is between them is
// counted as seldom as possible, and is taken to grow with the number.
func largest(low, tokensOfLow, high, tokensOfHigh, room, enough int, count func(n int) int) (n, tokens int) {
	const bisect = 3 // every so many times, in case that the tokens are not where they are looked for
	for turn := 1; high-low > 1 && tokensOfLow < enough; turn++ {
		n := low + (high-low)/2
		if turn%bisect != 0 {
			n = low + int(int64(room-tokensOfLow)*int64(high-low)/int64(max(tokensOfHigh-tokensOfLow, 1)))
		}
		n = min(max(n, low+1), high-1)
		if tokens := count(n); tokens <= room {
			low, tokensOfLow = n, tokens
		} else {
			high, tokensOfHigh = n, tokens
		}
	}
	return low, tokensOfLow
}

// fitHeadings leaves the headings a third of a chunk at most, the nearest ones
// first, and answers what remains for text.
func (o Options) fitHeadings(path []string) (kept []string, room int) {
	size := 0
	for _, heading := range path {
		size += len(heading)
	}
	for ; len(path) > 0; path = path[1:] {
		// What is too long in any language is not counted for every section.
		if size <= o.MaxTokens/3*bytesPerToken {
			if used := o.Count(strings.Join(path, separator) + "\n\n"); used <= o.MaxTokens/3 {
				return path, o.MaxTokens - used
			}
		}
		size -= len(path[0])
	}
	return nil, o.MaxTokens
}

// reach answers the end of the chunk that begins at a unit.
func (o Options) reach(units []unit, from, room int, whole func([]unit) int) int {
	used, to, cut := 0, from, 0
	if r := units[from].repeat; r != "" {
		used = o.Count(r)
	}
	for to < len(units) && (to == from || used+units[to].tokens <= room) {
		used += units[to].tokens
		to++
		// A cut between blocks is better than one inside a block, if the chunk is
		// half full by then.
		if to < len(units) && units[to].begins && used >= room/2 {
			cut = to
		}
	}
	if to < len(units) && !units[to].begins && cut > from && fits(units, cut, room) {
		to = cut
	}
	// What was added up unit by unit may be more as a whole.
	if to > from+1 {
		if all := whole(units[from:to]); all > room {
			n, _ := largest(1, units[from].tokens, to-from, all, room, room+1, func(n int) int { return whole(units[from : from+n]) })
			to = from + n
		}
	}
	return to
}

// fits tells whether the block that begins at a unit has room in a chunk of its
// own.
func fits(units []unit, from, room int) bool {
	used := units[from].tokens
	for i := from + 1; i < len(units) && !units[i].begins; i++ {
		used += units[i].tokens
	}
	return used <= room
}

// repeatable answers from where on the units before another one may be repeated
// with it, and how many tokens they have.
func (o Options) repeatable(units []unit, from int) (first, tokens int) {
	first = from
	for first > 0 && units[first-1].prose && tokens+units[first-1].tokens <= o.Overlap {
		first--
		tokens += units[first].tokens
	}
	return first, tokens
}

// overlap answers where the text of a chunk begins that reaches from one unit to
// another: at sentences of the chunk before it, as far as there is room.
func (o Options) overlap(units []unit, from, to, room int, whole func([]unit) int) int {
	first, _ := o.repeatable(units, from)
	if first == from {
		return from
	}
	all := whole(units[first:to])
	if all <= room {
		return first
	}
	repeated, _ := largest(0, sum(units[from:to]), from-first, all, room, room+1, func(n int) int { return whole(units[from-n : to]) })
	return from - repeated
}

func joined(units []unit) string {
	var b strings.Builder
	for i, u := range units {
		switch {
		case i > 0:
			b.WriteString(u.before)
		case u.repeat != "" && u.text != u.repeat:
			b.WriteString(u.repeat)
			b.WriteByte('\n')
		}
		b.WriteString(u.text)
	}
	return strings.TrimSpace(b.String())
}

// units takes a block apart.
func (o Options) units(b extract.Block, room int) []unit {
	switch b.Kind {
	case extract.Code:
		return o.lines(b.Text, "", room)
	case extract.Table:
		head, rest := tableHead(b.Text)
		head = strings.TrimSuffix(head, "\n")
		if head == "" || o.Count(head) > room/3 {
			return o.lines(b.Text, "", room)
		}
		return append(o.pieces(head, "\n", room), o.lines(rest, head, room-o.Count(head))...)
	case extract.List:
		return o.lines(b.Text, "", room)
	case extract.Paragraph, extract.Heading:
	}
	return o.sentences(b.Text, room)
}

func (o Options) lines(text, repeat string, room int) []unit {
	var out []unit
	gap := 1 // lines
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) == "" { // belongs to the shape of code
			gap++
			continue
		}
		for _, u := range o.pieces(line, strings.Repeat("\n", gap), room) {
			u.repeat = repeat
			out = append(out, u)
		}
		gap = 1
	}
	return out
}

func (o Options) sentences(text string, room int) []unit {
	var out []unit
	state, gap := -1, ""
	for text != "" {
		var sentence string
		sentence, text, state = uniseg.FirstSentenceInString(text, state)
		trimmed := strings.TrimRightFunc(sentence, isSpace)
		for i, u := range o.pieces(trimmed, " ", room) {
			if u.prose = true; i == 0 {
				u.before = gap
			}
			out = append(out, u)
		}
		switch rest := sentence[len(trimmed):]; {
		case rest == "": // what looks like an end inside a word or a piece of code
			gap = ""
		case strings.Contains(rest, "\n"):
			gap = "\n"
		default:
			gap = " "
		}
	}
	return out
}

// Sentences cuts a text between its sentences. Put together, they are the text.
func Sentences(text string) []string {
	var out []string
	for state := -1; text != ""; {
		var sentence string
		sentence, text, state = uniseg.FirstSentenceInString(text, state)
		out = append(out, sentence)
	}
	return out
}

func isSpace(r rune) bool { return r == ' ' || r == '\n' || r == '\t' || r == '\r' }

// pieces cuts a text that is too long between words, and words that are too long
// anywhere.
func (o Options) pieces(text, before string, room int) []unit {
	tokens := o.Count(text)
	if text == "" {
		return nil
	}
	if tokens <= room {
		return []unit{{text: text, before: before, tokens: tokens}}
	}
	var out []unit
	for text != "" {
		end, used := o.prefix(text, tokens, room)
		out = append(out, unit{text: text[:end], before: before, tokens: used})
		text = strings.TrimLeftFunc(text[end:], isSpace)
		tokens -= used
		before = " "
	}
	return out
}

// prefix answers how much of a text of about so many tokens has room, and its tokens: as
// many words as possible, or characters when the first word is too long.
func (o Options) prefix(text string, tokens, room int) (end, used int) {
	high := room * bytesPerToken // what has room is not longer
	if len(text) <= high && tokens <= 2*room {
		if tokens = o.Count(text); tokens <= room {
			return len(text), tokens
		}
	}
	if high++; len(text) < high {
		high = len(text)
	} else {
		tokens = int(int64(tokens) * int64(high) / int64(len(text)))
	}
	end, used = largest(0, 0, high, max(tokens, room+1), room, room, func(n int) int { return o.Count(text[:boundary(text, n)]) })
	end = boundary(text, end)
	if word := strings.LastIndexFunc(text[:end], isSpace); word > end/2 {
		return word, o.Count(text[:word])
	}
	if end == 0 {
		_, end = utf8.DecodeRuneInString(text)
		used = o.Count(text[:end])
	}
	return end, used
}

// boundary moves a cut back to the start of a character.
func boundary(text string, at int) int {
	for at < len(text) && at > 0 && !utf8.RuneStart(text[at]) {
		at--
	}
	return at
}
