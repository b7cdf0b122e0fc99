package extract

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Bounds of a DOCX file: what its parts unfold to, and how deep its XML nests.
const (
	maxPart  = 128 << 20
	maxDepth = 256
)

// readDOCX reads the body of a WordprocessingML document (ECMA-376): paragraphs,
// headings by their style or outline level, lists and tables.
func readDOCX(data []byte) ([]Block, error) {
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	part, err := archive.Open("word/document.xml")
	if err != nil {
		return nil, fmt.Errorf("%w: it has no word/document.xml", ErrInvalid)
	}
	defer part.Close() //nolint:errcheck // read only
	limited := &io.LimitedReader{R: part, N: maxPart + 1}
	d := wordDocument{decoder: xml.NewDecoder(limited)}
	if err := d.read(); err != nil {
		if limited.N <= 0 {
			return nil, ErrTooLarge
		}
		return nil, err
	}
	return d.blocks, nil
}

// wordDocument walks through the XML once.
type wordDocument struct {
	decoder *xml.Decoder
	blocks  []Block
	size    int

	text  strings.Builder // of the paragraph
	level int             // of its heading; 0 = none
	list  bool
	table int // nesting
	row   []string
	rows  []string
	cell  []string
}

func (d *wordDocument) read() error {
	depth := 0
	inText := false
	for {
		token, err := d.decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return fmt.Errorf("%w: its XML nests too deeply", ErrInvalid)
			}
			inText = t.Name.Local == "t"
			d.open(t)
		case xml.EndElement:
			depth--
			inText = false
			d.close(t.Name.Local)
		case xml.CharData:
			if inText {
				if d.size += len(t); d.size > MaxText {
					return ErrTooLarge
				}
				d.text.Write(t)
			}
		}
	}
}

func (d *wordDocument) open(t xml.StartElement) {
	switch t.Name.Local {
	case "p":
		d.text.Reset()
		d.level, d.list = 0, false
	case "pStyle":
		style := strings.ToLower(attribute(t, "val"))
		if style == "title" {
			d.level = 1
		} else if rest, ok := strings.CutPrefix(style, "heading"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil && n > 0 {
				d.level = min(n, 6)
			}
		}
	case "outlineLvl":
		if n, err := strconv.Atoi(attribute(t, "val")); err == nil && n >= 0 && n < 9 && d.level == 0 {
			d.level = min(n+1, 6)
		}
	case "numPr":
		d.list = true
	case "tab":
		d.text.WriteByte('\t')
	case "br", "cr":
		d.text.WriteByte('\n')
	case "tbl":
		if d.table++; d.table == 1 {
			d.rows = nil
		}
	case "tr":
		if d.table == 1 {
			d.row = nil
		}
	case "tc":
		if d.table == 1 {
			d.cell = nil
		}
	}
}

func (d *wordDocument) close(name string) {
	switch name {
	case "p":
		text := d.text.String()
		d.text.Reset()
		switch {
		case d.table > 0:
			d.cell = append(d.cell, strings.TrimSpace(text))
		case d.level > 0:
			d.blocks = append(d.blocks, Block{Kind: Heading, Level: d.level, Text: text})
		case d.list:
			d.item("- " + strings.TrimSpace(text))
		default:
			d.blocks = append(d.blocks, Block{Kind: Paragraph, Text: text})
		}
	case "tc":
		if d.table == 1 {
			d.row = append(d.row, strings.Join(d.cell, " "))
		}
	case "tr":
		if d.table == 1 {
			d.rows = append(d.rows, strings.Join(d.row, " | "))
		}
	case "tbl":
		if d.table--; d.table == 0 {
			d.blocks = append(d.blocks, Block{Kind: Table, Text: strings.Join(d.rows, "\n")})
		}
	}
}

// item adds to the list that the document is in.
func (d *wordDocument) item(text string) {
	if n := len(d.blocks); n > 0 && d.blocks[n-1].Kind == List {
		d.blocks[n-1].Text += "\n" + text
		return
	}
	d.blocks = append(d.blocks, Block{Kind: List, Text: text})
}

func attribute(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
