package chunk_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/knowledge/chunk"
	"github.com/chainstream/chainstream/knowledge/extract"
)

// words counts as a tokenizer that knows every word and no other piece does;
// long ones are several tokens.
func words(text string) (n int) {
	for w := range strings.FieldsSeq(text) {
		n += 1 + (len(w)-1)/8
	}
	return n
}

func texts(chunks []chunk.Chunk) (out []string) {
	for _, c := range chunks {
		out = append(out, c.Path()+": "+c.Text)
	}
	return out
}

func split(t *testing.T, blocks []extract.Block, o chunk.Options) []chunk.Chunk {
	t.Helper()
	chunks, err := chunk.Split(t.Context(), blocks, o)
	if err != nil {
		t.Fatal(err)
	}
	return chunks
}

// prose is so many sentences of four tokens.
func prose(sentences int) string {
	var s []string
	for i := range sentences {
		s = append(s, "Sentence has word"+strings.Repeat("x", i%3)+" four.")
	}
	return strings.Join(s, " ")
}

func TestSplit(t *testing.T) {
	block := func(k extract.Kind, text string) extract.Block { return extract.Block{Kind: k, Text: text} }
	heading := func(level int, text string) extract.Block {
		return extract.Block{Kind: extract.Heading, Level: level, Text: text}
	}
	for name, tc := range map[string]struct {
		blocks []extract.Block
		most   int
		want   []string
	}{
		"nothing":       {nil, 20, nil},
		"one heading":   {[]extract.Block{heading(1, " A \n B ")}, 20, []string{": A B"}},
		"only headings": {[]extract.Block{heading(1, "A"), heading(2, "B"), heading(2, "C"), heading(1, "D"), heading(3, "E")}, 20, []string{"A: B\n\nC", "D: E"}},
		"headings without a body": {
			[]extract.Block{heading(1, "A"), heading(2, "B"), heading(3, "C"), heading(2, "D"), block(extract.Paragraph, "One."), heading(2, "E"), heading(1, "F"), heading(1, "G"), block(extract.Paragraph, "Two.")},
			20, []string{"A > B: C", "A > D: One.", "A: E", ": F", "G: Two."},
		},
		"sections": {
			[]extract.Block{block(extract.Paragraph, "Before."), heading(1, "A"), block(extract.Paragraph, "One."), heading(3, "C"), block(extract.Paragraph, "Two."), heading(2, "B"), block(extract.Paragraph, "Three.")},
			20, []string{": Before.", "A: One.", "A > C: Two.", "A > B: Three."},
		},
		"paragraphs together": {[]extract.Block{block(extract.Paragraph, "One."), block(extract.Paragraph, "Two.")}, 20, []string{": One.\n\nTwo."}},
		"code keeps its blank lines": {
			[]extract.Block{block(extract.Code, "a := 1\n\n\n\tb := 2\nc")}, 20, []string{": a := 1\n\n\n\tb := 2\nc"},
		},
		"a table's head is repeated": {
			[]extract.Block{block(extract.Table, "| a | b |\n|---|---|\n"+strings.Repeat("| one | two |\n", 4)+"| last | row |")}, 24,
			[]string{
				": | a | b |\n|---|---|\n| one | two |\n| one | two |\n| one | two |",
				": | a | b |\n|---|---|\n| one | two |\n| last | row |",
			},
		},
		"no line is left alone": {
			[]extract.Block{block(extract.List, strings.TrimSpace(strings.Repeat("- a b c\n", 5)))}, 16,
			[]string{": - a b c\n- a b c\n- a b c", ": - a b c\n- a b c"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := texts(split(t, tc.blocks, chunk.Options{MaxTokens: tc.most, Count: words}))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOverlap(t *testing.T) {
	o := chunk.Options{MaxTokens: 20, Overlap: 6, Count: words}
	chunks := split(t, []extract.Block{{Kind: extract.Paragraph, Text: prose(20)}}, o)
	if len(chunks) < 4 {
		t.Fatalf("%d chunks", len(chunks))
	}
	repeated := 0
	for i := 1; i < len(chunks); i++ {
		sentence := strings.TrimSpace(chunks[i].Text[:strings.Index(chunks[i].Text, ".")+1])
		if strings.HasSuffix(chunks[i-1].Text, sentence) {
			repeated++
		}
	}
	if repeated == 0 {
		t.Errorf("nothing is repeated in %q", texts(chunks))
	}
}

// To a tokenizer a whole may be more than its parts: here, what joins them is a token.
func TestWholeIsCounted(t *testing.T) {
	gaps := func(text string) int { return words(text) + strings.Count(strings.TrimSpace(text), "\n\n") }
	var blocks []extract.Block
	for i := range 60 {
		if i%20 == 0 {
			blocks = append(blocks, extract.Block{Kind: extract.Heading, Level: 1, Text: "Title"})
		}
		blocks = append(blocks, extract.Block{Kind: extract.Paragraph, Text: prose(1 + i%3)})
	}
	for most := 16; most < 60; most++ {
		for _, c := range split(t, blocks, chunk.Options{MaxTokens: most, Overlap: most / 4, Count: gaps}) {
			if c.Tokens > most {
				t.Errorf("%d tokens of at most %d: %q", c.Tokens, most, c.Embedded())
			}
		}
	}
}

func TestPages(t *testing.T) {
	chunks := split(t, []extract.Block{{Kind: extract.Paragraph, Text: prose(4), Page: 1}, {Kind: extract.Paragraph, Text: prose(4), Page: 2}}, chunk.Options{MaxTokens: 16, Count: words})
	if len(chunks) != 2 || chunks[0].Page != 1 || chunks[1].Page != 2 {
		t.Errorf("%+v", chunks)
	}
}

// A word of a megabyte is cut anywhere between characters, and in finite time.
func TestOneWord(t *testing.T) {
	verify(t, []extract.Block{{Kind: extract.Paragraph, Text: strings.Repeat("é", 1<<19)}}, chunk.Options{MaxTokens: 100, Overlap: 20, Count: words})
}

// verify wants what holds for every document: chunks within their bound, nothing
// lost and nothing out of order, and the same again the second time.
func verify(t *testing.T, blocks []extract.Block, o chunk.Options) {
	t.Helper()
	chunks := split(t, blocks, o)
	if diff := cmp.Diff(chunks, split(t, blocks, o)); diff != "" {
		t.Fatalf("other chunks the second time:\n%s", diff)
	}
	var all strings.Builder
	for _, c := range chunks {
		if n := o.Count(c.Embedded()); n != c.Tokens || n > max(o.MaxTokens, 16) {
			t.Errorf("%d tokens, said to be %d, of at most %d: %q", n, c.Tokens, o.MaxTokens, c.Text)
		}
		if strings.TrimSpace(c.Text) == "" || !utf8.ValidString(c.Text) {
			t.Errorf("a chunk of %q", c.Text)
		}
		all.WriteString(c.Text)
	}
	// Chunks repeat and never leave out: the characters of the document are found
	// one after the other.
	rest := strip(all.String())
	for i, b := range blocks {
		if inPaths(blocks, i) {
			continue
		}
		for _, r := range strip(b.Text) {
			at := strings.IndexRune(rest, r)
			if at < 0 {
				t.Fatalf("lost %q of %.80q", r, b.Text)
			}
			rest = rest[at+utf8.RuneLen(r):]
		}
	}
}

// inPaths tells whether a block is a heading that something stands under.
func inPaths(blocks []extract.Block, i int) bool {
	if blocks[i].Kind != extract.Heading || i+1 == len(blocks) {
		return false
	}
	next := blocks[i+1]
	return next.Kind != extract.Heading || next.Level > blocks[i].Level
}

// A block or a section of any size takes the memory of a small one, and loses nothing.
func TestLargeBlocks(t *testing.T) {
	o := chunk.Options{MaxTokens: 64, Overlap: 8, Count: words}
	row := "| " + strings.Repeat("x", 200) + " | y |\n"
	for name, b := range map[string]extract.Block{
		"lines":        {Kind: extract.Code, Text: strings.Repeat("a\nb\n", 1<<18)},
		"one sentence": {Kind: extract.Paragraph, Text: strings.Repeat("word ", 1<<17)},
		"no words":     {Kind: extract.Paragraph, Text: strings.Repeat("漢", 1<<18)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verify(t, []extract.Block{b}, o)
		})
	}
	const head = "| name | value |\n|---|---|\n"
	for i, c := range split(t, []extract.Block{{Kind: extract.Table, Text: head + strings.Repeat(row, 6000)}}, o) {
		if !strings.HasPrefix(c.Text, head) || strings.Count(c.Text, "name") != 1 {
			t.Fatalf("chunk %d does not begin with the head: %.200s", i, c.Text)
		}
	}
}

// Tokens are counted of a few times the text, whatever it is made of: counting takes
// nearly all of the time.
func TestCountsLittle(t *testing.T) {
	const size = 1 << 18
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	paragraphs := make([]extract.Block, size/8)
	for i := range paragraphs {
		paragraphs[i] = extract.Block{Kind: extract.Paragraph, Text: "a b"}
	}
	headings := []extract.Block{{Kind: extract.Heading, Level: 1, Text: fill("x")}}
	for range 1000 {
		headings = append(headings, extract.Block{Kind: extract.Heading, Level: 2, Text: "y"}, extract.Block{Kind: extract.Paragraph, Text: "z"})
	}
	var columns []string
	for i := range size / 16 {
		columns = append(columns, fmt.Sprintf("c%d: %d", i, i))
	}
	for name, blocks := range map[string][]extract.Block{
		"a sentence":      {{Kind: extract.Paragraph, Text: fill("word ")}},
		"a word":          {{Kind: extract.Paragraph, Text: fill("x")}},
		"columns":         {{Kind: extract.Paragraph, Text: strings.Join(columns, "\n")}},
		"short lines":     {{Kind: extract.Code, Text: fill("x\n")}},
		"blank lines":     {{Kind: extract.Code, Text: fill("x\n\n\n\n")}},
		"paragraphs":      paragraphs,
		"a large heading": headings,
	} {
		t.Run(name, func(t *testing.T) {
			counted := 0
			// A line feed is a token as well: together the parts are more than each alone.
			count := func(text string) int { counted += len(text); return words(text) + strings.Count(text, "\n") }
			if got := split(t, blocks, chunk.Options{MaxTokens: 128, Overlap: 16, Count: count}); len(got) < 100 {
				t.Errorf("%d chunks", len(got))
			}
			if most := 12 * size; counted > most {
				t.Errorf("counted %d bytes, %d times the text", counted, counted/size)
			}
		})
	}
}

// Who has to stop does not wait for the rest of a document, wherever in it.
func TestStops(t *testing.T) {
	stopped := errors.New("stopped")
	var small []extract.Block
	for range 100 {
		small = append(small, extract.Block{Kind: extract.Heading, Level: 1, Text: "A"}, extract.Block{Kind: extract.Paragraph, Text: prose(100)})
	}
	for name, blocks := range map[string][]extract.Block{"sections": small, "a block": {{Kind: extract.Paragraph, Text: prose(1 << 16)}}} {
		all := 0
		count := func(text string) int { all += len(text); return words(text) }
		split(t, blocks, chunk.Options{MaxTokens: 64, Count: count})
		for _, after := range []int{0, all / 3, all - all/10} {
			ctx, cancel := context.WithCancelCause(t.Context())
			counted := 0
			count := func(text string) int {
				if counted += len(text); counted > after {
					cancel(stopped)
				}
				return words(text)
			}
			if after == 0 {
				cancel(stopped)
			}
			if chunks, err := chunk.Split(ctx, blocks, chunk.Options{MaxTokens: 64, Count: count}); !errors.Is(err, stopped) || chunks != nil || counted > after+all/2 {
				t.Errorf("%s, stopped after %d of %d counted bytes: %d, %d chunks, %v", name, after, all, counted, len(chunks), err)
			}
			cancel(nil)
		}
	}
}

// Blank lines take the memory that they are, not the square of it.
func TestBlankLines(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const lines = 1 << 17
	got := split(t, []extract.Block{{Kind: extract.Code, Text: "a" + strings.Repeat("\n", lines) + "b"}}, chunk.Options{MaxTokens: 64, Count: words})
	runtime.ReadMemStats(&after)
	if diff := cmp.Diff([]string{": a", ": b"}, texts(got)); diff != "" {
		t.Error(diff)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 64*lines {
		t.Errorf("took %d MB", used>>20)
	}
}

// Text that the model's tokenizer does not know is cut as well.
func TestUnknownWriting(t *testing.T) {
	o := chunk.Options{MaxTokens: 64, Count: func(string) int { return 1 }}
	chunks := split(t, []extract.Block{{Kind: extract.Paragraph, Text: strings.Repeat("潮の満ち引き", 1000)}}, o)
	for _, c := range chunks {
		if len(c.Text) > 64*16 || c.Tokens != 1 {
			t.Errorf("a chunk of %d bytes, %d tokens", len(c.Text), c.Tokens)
		}
	}
}

// inOrder tells whether chunks are the text one after the other, each of them beginning
// with nothing or with the end of what is before it.
func inOrder(text string, chunks []chunk.Chunk) bool {
	ends := map[int]bool{0: true} // where the text read so far may end: it may repeat itself
	for _, c := range chunks {
		part := strip(c.Text)
		next := make(map[int]bool)
		for end := range ends {
			for from := max(end-len(part)+1, 0); from <= end; from++ {
				if strings.HasPrefix(text[from:], part) {
					next[from+len(part)] = true
				}
			}
		}
		ends = next
	}
	return ends[len(text)]
}

func strip(text string) string { return strings.Join(strings.Fields(text), "") }

func FuzzSplit(f *testing.F) {
	f.Add("# A\n\n"+prose(30)+"\n\n```\na\n\nb\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n", uint8(20), uint8(5))
	f.Add("# A\n\n## B\n\n## C\n\n### D\n\n## E\n\ntext\n\n## F\n", uint8(20), uint8(5))
	f.Add("- "+strings.Repeat("word ", 300), uint8(16), uint8(200))
	f.Add(strings.Repeat("漢字。", 100)+"\u0301\u200d", uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, text string, most, overlap uint8) {
		blocks, err := extract.Blocks(t.Context(), extract.Markdown, []byte(text), nil)
		if err != nil {
			return
		}
		o := chunk.Options{MaxTokens: int(most), Overlap: int(overlap), Count: words}
		verify(t, blocks, o)
		var all strings.Builder
		for i, b := range blocks {
			if b.Kind == extract.Table { // its head is repeated
				return
			}
			if !inPaths(blocks, i) {
				all.WriteString(strip(b.Text))
			}
		}
		const square = 1 << 12 // bytes: this takes the square of them
		if all.Len() <= square && !inOrder(all.String(), split(t, blocks, o)) {
			t.Errorf("chunks are not the text, or repeat something else than the end of what is before: %q of %q", texts(split(t, blocks, o)), all.String())
		}
	})
}
