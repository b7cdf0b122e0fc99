package extract_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/knowledge/extract"
)

func TestPDF(t *testing.T) {
	const p, h = extract.Paragraph, extract.Heading
	const full = "The moon pulls the water of the sea, and so there is a tide in every" // goes on in the next line
	outline := func(titles ...string) (out []extract.Block) {
		for i, title := range titles {
			out = append(out, extract.Block{Kind: h, Level: i + 1, Text: title})
		}
		return out
	}
	for name, tc := range map[string]struct {
		file pages
		want []extract.Block
	}{
		"lines that were broken at the edge": {
			pages{{Text: full + "\nharbour.\n" + full + "\nwell-\n" + full + " well-\nknown one\n• first of them\nlast\n"}},
			[]extract.Block{{Kind: p, Text: full + " harbour."}, {Kind: p, Text: full + " well-\n" + full + " well-known one\n• first of them\nlast"}},
		},
		"Japanese": {
			pages{{Text: strings.Repeat("潮の満ち引き", 6) + "\n" + strings.Repeat("海", 30) + "\nTide"}},
			[]extract.Block{{Kind: p, Text: strings.Repeat("潮の満ち引き", 6) + strings.Repeat("海", 30) + " Tide"}},
		},
		"accents beside their letters": {
			pages{{Text: "Br¨oker, Petr Mikul´ık, Fran¸cois, a ¨ b, x´2, e\u0301"}},
			[]extract.Block{{Kind: p, Text: "Bröker, Petr Mikulík, François, a ¨ b, x´2, é"}},
		},
		"an outline": {
			pages{
				{Text: "Before.\n1.2 The\nTides\nOne.\n", Outline: outline("The tides", "Not to be found")},
				{Text: "Two.\nEbb\nThree.", Outline: outline("2 Ebb")},
			},
			[]extract.Block{
				{Kind: p, Text: "Before.", Page: 1},
				{Kind: h, Level: 1, Text: "The tides", Page: 1}, {Kind: h, Level: 2, Text: "Not to be found", Page: 1}, {Kind: p, Text: "One.", Page: 1},
				{Kind: p, Text: "Two.", Page: 2}, {Kind: h, Level: 1, Text: "2 Ebb", Page: 2}, {Kind: p, Text: "Three.", Page: 2},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := extract.Blocks(t.Context(), extract.PDF, nil, tc.file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is printed above and below the text of every page is read once, numbers of
// pages not at all. What only looks like it stays.
func TestPDFMargins(t *testing.T) {
	var file pages
	for i := range 8 {
		head := fmt.Sprintf("Tides 5.4 %d", i+12)
		if i%2 == 1 {
			head = fmt.Sprintf("%d Tides 5.4", i+12)
		}
		text := fmt.Sprintf("%s\nFigure %d\nText %c.\nThe sea\n- %d -", head, 3*i, 'a'+i, i+1)
		if i < 2 {
			text = fmt.Sprintf("Only here\nText %c.\n- %d -", 'a'+i, i+1)
		}
		file = append(file, extract.PDFPage{Text: text})
	}
	blocks, err := extract.Blocks(t.Context(), extract.PDF, nil, file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, b := range blocks {
		all = append(all, b.Text)
	}
	text := strings.Join(all, "\n")
	for what, want := range map[string]int{"Tides 5.4": 2, "The sea": 1, "- 3 -": 0, "Only here": 2, "Figure ": 6, "Text ": 8} {
		if got := strings.Count(text, what); got != want {
			t.Errorf("%q is there %d times, not %d:\n%s", what, got, want, text)
		}
	}
}
