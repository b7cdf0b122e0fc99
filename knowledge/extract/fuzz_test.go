package extract_test

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"

	"github.com/chainstream/chainstream/knowledge/extract"
)

// growth bounds what one byte of a file of a fuzzer may become.
const growth = 1 << 10

// blocksOf wants what Blocks promises for every file, and answers the blocks; nil
// when it was refused.
func blocksOf(t *testing.T, name, mediaType string, data []byte) []extract.Block {
	t.Helper()
	blocks, err := read(t, name, mediaType, data)
	check(t, blocks, err)
	again, err2 := read(t, name, mediaType, data)
	if diff := cmp.Diff(blocks, again); diff != "" || fmt.Sprint(err) != fmt.Sprint(err2) {
		t.Errorf("another result the second time: %v, %v\n%s", err, err2, diff)
	}
	if err != nil && len(blocks) > 0 {
		t.Errorf("%d blocks and an error: %v", len(blocks), err)
	}
	size := 0
	for _, b := range blocks {
		size += len(b.Text)
	}
	if size > growth*(len(data)+1) {
		t.Errorf("%d bytes become %d", len(data), size)
	}
	return blocks
}

// told wants every rune of a text that is no white space in the blocks, in order.
func told(t *testing.T, blocks []extract.Block, text string) {
	t.Helper()
	var all strings.Builder
	for _, b := range blocks {
		all.WriteString(b.Text)
	}
	rest := all.String()
	for _, r := range text {
		if unicode.IsSpace(r) || r == 0 {
			continue
		}
		at := strings.IndexRune(rest, r)
		if at < 0 {
			t.Fatalf("lost %q of %.200q in %.200q", r, text, all.String())
		}
		rest = rest[at+utf8.RuneLen(r):]
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("One\r\nline.\n\n\fTwo\x0b.\u2028\n"))
	f.Add([]byte("\xff\xfea\x00\x00\xd8b\x00\r\x00\n\x00"))
	f.Add([]byte("\xef\xbb\xbf\ufeff\u200b\u0085"))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks := blocksOf(t, "a.txt", "", data)
		for _, b := range blocks {
			if b.Kind != extract.Paragraph {
				t.Errorf("a text with a %s", b.Kind)
			}
		}
		if blocks != nil && utf8.Valid(data) {
			told(t, blocks, string(bytes.TrimPrefix(data, []byte("\ufeff"))))
		}
	})
}

func FuzzMarkdown(f *testing.F) {
	f.Add([]byte("---\n---\n# a #\n\n| b |\n|---|\n| c |\n\n> - ```\n>   x\n"))
	f.Add([]byte("1. a\n   - b\n\n\tcode\n\n[x]: y 'z'\n\nSub\n---\n***\n"))
	f.Add([]byte("<table><tr><td>a</table>\n\n<!-- x\n\n<div>\n\nb\n</div>"))
	f.Fuzz(func(t *testing.T, data []byte) { blocksOf(t, "a.md", "", data) })
}

func FuzzHTML(f *testing.F) {
	f.Add([]byte("<meta charset=windows-1252><title>t</title><h1>a</h1><p>b<br>caf\xe9 &euro;<pre>x\n\ny</pre>"))
	f.Add([]byte("<table><tr><th colspan=2>a<td rowspan=99>b<tr><td><ul><li>c<li>d</ul></table><dl><dt>e<dd>f</dl>"))
	f.Add([]byte("<nav>a</nav><main><header>b</header><svg><p>c</svg><math><mi>d</math></main><template>e</template>"))
	f.Fuzz(func(t *testing.T, data []byte) { blocksOf(t, "a.html", "", data) })
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("a;b\n\"1\n\";2,5\n\n;\n"))
	f.Add([]byte("a,b\n1,2,3\n\"x\"y\",\"z\"\"\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks := blocksOf(t, "a.csv", "", data)
		if blocks == nil || !utf8.Valid(data) || bytes.ContainsAny(data, "\"\r;\t|") || bytes.HasPrefix(data, []byte("\ufeff")) {
			return
		}
		rows := csv.NewReader(bytes.NewReader(data))
		rows.FieldsPerRecord = -1
		all, err := rows.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range all[1:] {
			told(t, blocks, strings.Join(row, ""))
		}
	})
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a": [1, {"b": null, "": "c"}], "a": 1e400}` + "\n" + `[[], "\u0000\ud800", true]`))
	f.Add([]byte(strings.Repeat(`[{"a":`, 70) + `"deep"` + strings.Repeat("}]", 70)))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks := blocksOf(t, "a.json", "", data)
		var value any
		if blocks != nil && json.Unmarshal(data, &value) == nil {
			strings := scalars(value)
			for _, s := range strings {
				told(t, blocks, s)
			}
		}
	})
}

// scalars answers the strings in a value of JSON.
func scalars(value any) (out []string) {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		for _, element := range v {
			out = append(out, scalars(element)...)
		}
	case map[string]any:
		for _, element := range v {
			out = append(out, scalars(element)...)
		}
	}
	return out
}

// FuzzDOCX is about the XML inside: the archive would hide everything from the
// fuzzer.
func FuzzDOCX(f *testing.F) {
	f.Add([]byte(`<w:document xmlns:w="w"><w:body><w:p><w:pPr><w:pStyle w:val="Heading2"/></w:pPr><w:r><w:t>Top</w:t></w:r></w:p><w:tbl><w:tr><w:tc><w:p><w:r><w:t>k</w:t></w:r></w:p></w:tc></w:tr></w:tbl></w:body></w:document>`), []byte("<s/>"), []byte("<n/>"))
	f.Add([]byte("<p><numPr/><t>a</t><tab/><br/><t>b</t></p><p><outlineLvl val='8'/><t>c</t></p></tbl><tc>"), []byte("<style"), []byte("<footnote"))
	f.Add([]byte("<p><pStyle val='k'/><t>a</t><footnoteReference id='1'/></p><p><AlternateContent><Choice><txbxContent><p><t>b</t></p></txbxContent></Choice><Fallback><t>c</t></Fallback></AlternateContent></p>"),
		[]byte("<s><style styleId='k'><name val='heading 1'/><basedOn val='k'/></style></s>"), []byte("<n><footnote id='1'><p><t>d</t></p></footnote></n>"))
	f.Fuzz(func(t *testing.T, document, styles, notes []byte) {
		blocksOf(t, "a.docx", "", word(t, [2]string{"document.xml", string(document)}, [2]string{"styles.xml", string(styles)}, [2]string{"footnotes.xml", string(notes)}))
	})
}

// FuzzArchive is about what is around the XML.
func FuzzArchive(f *testing.F) {
	f.Add(docx(f, "<w:p><w:r><w:t>x</w:t></w:r></w:p>"))
	var stored bytes.Buffer
	z := zip.NewWriter(&stored)
	w, err := z.CreateHeader(&zip.FileHeader{Name: "word/document.xml", Method: zip.Store})
	if err == nil {
		_, err = w.Write([]byte("<p><t>x</t></p>"))
	}
	if err != nil || z.Close() != nil {
		f.Fatal(err)
	}
	f.Add(stored.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		// A kilobyte unfolds to a megabyte, at most.
		blocks, err := read(t, "a.docx", "", data)
		check(t, blocks, err)
	})
}

// FuzzPDF is about what becomes of pages: a line that begins with # is an entry of
// the outline. What PDFium makes of files is fuzzed in package pdf.
func FuzzPDF(f *testing.F) {
	f.Add("#Tides\nBook 1\n1 Tides\nThe moon pulls the water of the sea towards it-\nself.\fBook 2\nB´er¨o\fBook 3\n#x\n潮の満ち引き\n海")
	f.Fuzz(func(t *testing.T, text string) {
		var file pages
		for page := range strings.SplitSeq(text, "\f") {
			var p extract.PDFPage
			for line := range strings.SplitSeq(page, "\n") {
				if title, ok := strings.CutPrefix(line, "#"); ok {
					p.Outline = append(p.Outline, extract.Block{Kind: extract.Heading, Level: 1, Text: title})
					continue
				}
				p.Text += line + "\n"
			}
			file = append(file, p)
		}
		blocks, err := extract.Blocks(t.Context(), extract.PDF, nil, file)
		check(t, blocks, err)
		again, _ := extract.Blocks(t.Context(), extract.PDF, nil, file)
		if diff := cmp.Diff(blocks, again); diff != "" {
			t.Errorf("another result the second time:\n%s", diff)
		}
		if len(file) < 3 && blocks != nil && utf8.ValidString(text) && !strings.ContainsAny(text, "#´ˆ˜¯˘˙¨˚˝ˇ¸˛") {
			told(t, blocks, norm.NFC.String(strings.ReplaceAll(text, "\x00", "")))
		}
	})
}
