package extract_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/knowledge/extract"
)

// word makes a Word document of its parts below word/, each NAME, TEXT.
func word(t testing.TB, parts ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, p := range parts {
		w, err := z.Create("word/" + p[0])
		if err == nil {
			_, err = io.WriteString(w, p[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const (
	wordBegin = `<w:document xmlns:w="w" xmlns:mc="mc" xmlns:wps="wps" xmlns:v="v"><w:body>`
	wordEnd   = `</w:body></w:document>`
)

// paragraph is one of a document, with a style if it has one.
func paragraph(style, text string) string {
	if style != "" {
		style = `<w:pPr><w:pStyle w:val="` + style + `"/></w:pPr>`
	}
	return `<w:p>` + style + `<w:r><w:t>` + text + `</w:t></w:r></w:p>`
}

func item(text string) string {
	return `<w:p><w:pPr><w:numPr/></w:pPr><w:r><w:t>` + text + `</w:t></w:r></w:p>`
}

// box is a text box, as Word writes it: once for itself, once for older programs.
func box(content string) string {
	return `<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wps:txbx><w:txbxContent>` + content + `</w:txbxContent></wps:txbx></w:drawing></mc:Choice>` +
		`<mc:Fallback><w:pict><v:textbox><w:txbxContent>` + content + `</w:txbxContent></v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r>`
}

func TestWord(t *testing.T) {
	const h, p, l, tb = extract.Heading, extract.Paragraph, extract.List, extract.Table
	const styles = `<w:styles xmlns:w="w">
		<w:style w:type="paragraph" w:default="1" w:styleId="Standard"><w:name w:val="Normal"/></w:style>
		<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/><w:basedOn w:val="Standard"/><w:pPr><w:outlineLvl w:val="0"/></w:pPr></w:style>
		<w:style w:type="paragraph" w:styleId="berschrift3"><w:name w:val="Heading 3"/></w:style>
		<w:style w:type="paragraph" w:styleId="Titel"><w:name w:val="Title"/></w:style>
		<w:style w:type="paragraph" w:styleId="Kapitel"><w:name w:val="Kapitel"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
		<w:style w:type="paragraph" w:styleId="Anhang"><w:name w:val="Anhang"/><w:basedOn w:val="Unterkapitel"/></w:style>
		<w:style w:type="paragraph" w:styleId="Unterkapitel"><w:name w:val="Unterkapitel"/><w:basedOn w:val="berschrift3"/></w:style>
		<w:style w:type="paragraph" w:styleId="Inhalt"><w:name w:val="TOC Heading"/><w:basedOn w:val="berschrift1"/><w:pPr><w:outlineLvl w:val="9"/></w:pPr></w:style>
		<w:style w:type="paragraph" w:styleId="Tief"><w:name w:val="Tief"/><w:pPr><w:outlineLvl w:val="8"/></w:pPr></w:style>
		<w:style w:type="paragraph" w:styleId="Kreis"><w:name w:val="Kreis"/><w:basedOn w:val="Kreis"/></w:style>
		<w:style w:type="paragraph" w:styleId="Waise"><w:name w:val="Waise"/><w:basedOn w:val="Niemand"/></w:style>
	</w:styles>`
	const notes = `<w:footnotes xmlns:w="w"><w:footnote w:type="separator" w:id="-1"><w:p><w:r><w:separator/></w:r></w:p></w:footnote>
		<w:footnote w:id="1"><w:p><w:r><w:footnoteRef/></w:r><w:r><w:t xml:space="preserve"> By the moon.</w:t></w:r></w:p></w:footnote>
		<w:footnote w:id="2"><w:p><w:r><w:t>A </w:t></w:r><w:r><w:t>second one.</w:t></w:r></w:p><w:p><w:r><w:t>Of two paragraphs.</w:t></w:r></w:p></w:footnote>
		<w:footnote w:id="3"><w:p><w:r><w:t>Nobody refers to it.</w:t></w:r></w:p></w:footnote></w:footnotes>`
	const endnotes = `<w:endnotes xmlns:w="w"><w:endnote w:id="1"><w:p><w:r><w:t>At the end.</w:t></w:r></w:p></w:endnote></w:endnotes>`
	referring := func(text, kind, id, rest string) string {
		return `<w:p><w:r><w:t>` + text + `</w:t></w:r><w:r><w:` + kind + `Reference w:id="` + id + `"/></w:r><w:r><w:t>` + rest + `</w:t></w:r></w:p>`
	}
	for name, tc := range map[string]struct {
		body string
		want []extract.Block
	}{
		"styles of another language": {
			paragraph("Titel", "A") + paragraph("berschrift1", "B") + paragraph("berschrift3", "C") + paragraph("Kapitel", "D") + paragraph("Anhang", "E") +
				paragraph("Tief", "F") + paragraph("Inhalt", "g") + paragraph("Kreis", "h") + paragraph("Waise", "i") + paragraph("Standard", "j") + paragraph("Heading4", "K"),
			[]extract.Block{
				{Kind: h, Level: 1, Text: "A"}, {Kind: h, Level: 1, Text: "B"}, {Kind: h, Level: 3, Text: "C"}, {Kind: h, Level: 2, Text: "D"}, {Kind: h, Level: 3, Text: "E"},
				{Kind: h, Level: 6, Text: "F"}, {Kind: p, Text: "g"}, {Kind: p, Text: "h"}, {Kind: p, Text: "i"}, {Kind: p, Text: "j"}, {Kind: h, Level: 4, Text: "K"},
			},
		},
		"footnotes and endnotes": {
			referring("The tide rises", "footnote", "1", " twice.") + referring("It falls", "endnote", "1", ".") + referring("Again", "footnote", "1", ".") + referring("None", "footnote", "9", "."),
			[]extract.Block{
				{Kind: p, Text: "The tide rises twice."}, {Kind: p, Text: "By the moon."}, {Kind: p, Text: "It falls."}, {Kind: p, Text: "At the end."}, {Kind: p, Text: "Again."}, {Kind: p, Text: "None."},
			},
		},
		"a note in a table": {
			`<w:tbl><w:tr><w:tc>` + referring("k", "footnote", "2", "") + `</w:tc><w:tc>` + paragraph("", "v") + `</w:tc></w:tr></w:tbl>` + paragraph("", "Next."),
			[]extract.Block{{Kind: tb, Text: "k | v"}, {Kind: p, Text: "A second one."}, {Kind: p, Text: "Of two paragraphs."}, {Kind: p, Text: "Next."}},
		},
		"a note in a list": {
			item(`a</w:t></w:r><w:r><w:footnoteReference w:id="1"/></w:r><w:r><w:t>`) + item("b") + paragraph("", "Next."),
			[]extract.Block{{Kind: l, Text: "- a\n- b"}, {Kind: p, Text: "By the moon."}, {Kind: p, Text: "Next."}},
		},
		"a text box": {
			`<w:p><w:r><w:t>Before </w:t></w:r>` + box(paragraph("berschrift1", "In a box")+paragraph("", "Its text.")+item("a")) + `<w:r><w:t>and behind.</w:t></w:r></w:p>` + paragraph("", "Next."),
			[]extract.Block{{Kind: p, Text: "Before and behind."}, {Kind: h, Level: 1, Text: "In a box"}, {Kind: p, Text: "Its text."}, {Kind: l, Text: "- a"}, {Kind: p, Text: "Next."}},
		},
		"a text box in a table in a text box": {
			`<w:p>` + box(`<w:tbl><w:tr><w:tc><w:p><w:r><w:t>cell</w:t></w:r>`+box(paragraph("", "Innermost."))+`</w:p></w:tc></w:tr></w:tbl>`) + `</w:p>`,
			[]extract.Block{{Kind: tb, Text: "cell"}, {Kind: p, Text: "Innermost."}},
		},
		"only for older programs": {
			`<w:p><w:r><mc:AlternateContent><mc:Fallback><w:pict><w:txbxContent>` + paragraph("", "Old.") + `</w:txbxContent></w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>` +
				`<w:p><w:r><w:pict><w:txbxContent>` + paragraph("", "Older.") + `</w:txbxContent></w:pict></w:r></w:p>`,
			[]extract.Block{{Kind: p, Text: "Old."}, {Kind: p, Text: "Older."}},
		},
		"changes": {
			`<w:p><w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom><w:r><w:t>stays, </w:t></w:r></w:p><w:p><w:moveTo><w:r><w:t>moved</w:t></w:r></w:moveTo></w:p>` +
				`<w:p><w:pPr><w:pStyle w:val="Standard"/><w:pPrChange><w:pPr><w:pStyle w:val="berschrift1"/></w:pPr></w:pPrChange></w:pPr><w:r><w:t>no heading any more</w:t></w:r></w:p>`,
			[]extract.Block{{Kind: p, Text: "stays,"}, {Kind: p, Text: "moved"}, {Kind: p, Text: "no heading any more"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, "a.docx", "", word(t, [2]string{"document.xml", wordBegin + tc.body + wordEnd}, [2]string{"styles.xml", styles}, [2]string{"footnotes.xml", notes}, [2]string{"endnotes.xml", endnotes}))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What stands beside the text of a document is bounded as the text is, and together
// with it.
func TestWordRefused(t *testing.T) {
	note := func(n int) string {
		return `<w:footnotes xmlns:w="w"><w:footnote w:id="1">` + paragraph("", strings.Repeat("x", n)) + `</w:footnote></w:footnotes>`
	}
	text := func(n int) string { return wordBegin + paragraph("", strings.Repeat("x", n)) + wordEnd }
	short := text(1)
	for name, tc := range map[string]struct {
		parts [][2]string
		want  error
	}{
		"notes and text":    {[][2]string{{"document.xml", text(extract.MaxText / 2)}, {"footnotes.xml", note(extract.MaxText/2 + 1)}}, extract.ErrTooLarge},
		"broken styles":     {[][2]string{{"document.xml", short}, {"styles.xml", "<style>"}}, extract.ErrInvalid},
		"broken notes":      {[][2]string{{"document.xml", short}, {"footnotes.xml", "<footnote>"}}, extract.ErrInvalid},
		"deep alternatives": {[][2]string{{"document.xml", wordBegin + `<mc:AlternateContent><mc:Choice/><mc:Fallback>` + strings.Repeat("<p>", 1000)}}, extract.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := read(t, "a.docx", "", word(t, tc.parts...)); !errors.Is(err, tc.want) {
				t.Errorf("%d blocks, %v, want %v", len(got), err, tc.want)
			}
		})
	}
	if got, err := read(t, "a.docx", "", word(t, [2]string{"document.xml", short}, [2]string{"footnotes.xml", note(10)})); err != nil || !slices.Equal(got, []extract.Block{{Kind: extract.Paragraph, Text: "x"}}) {
		t.Errorf("a note that nothing refers to: %d blocks, %v", len(got), err)
	}
}
