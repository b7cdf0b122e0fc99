package extract

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
)

// Bounds of a DOCX file: what its parts unfold to, and how deep their XML nests.
const (
	maxPart  = 128 << 20
	maxDepth = 256
)

// readDOCX reads the text of a WordprocessingML document (ECMA-376): paragraphs,
// headings by their style or outline level, lists and tables. Footnotes, endnotes and
// the text of boxes stand behind the paragraph, list or table that they belong to.
func readDOCX(data []byte) ([]Block, error) {
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	d := wordDocument{notes: make(map[string][]Block)}
	var styles wordStyles
	for _, part := range []struct {
		name string
		read func(*xml.Decoder) error
	}{
		{"word/styles.xml", styles.read},
		{"word/footnotes.xml", d.read},
		{"word/endnotes.xml", d.read},
	} {
		if err := readPart(archive, part.name, part.read); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	d.levels = styles.levels()
	d.stories = []*story{{}}
	if err := readPart(archive, "word/document.xml", d.read); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: it has no word/document.xml", ErrInvalid)
		}
		return nil, err
	}
	return d.stories[0].end(), nil
}

// readPart reads a part of the archive. Errors: fs.ErrNotExist, ErrInvalid, ErrTooLarge.
func readPart(archive *zip.Reader, name string, read func(*xml.Decoder) error) error {
	part, err := archive.Open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fs.ErrNotExist
	case err != nil:
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	defer part.Close() //nolint:errcheck // read only
	limited := &io.LimitedReader{R: part, N: maxPart + 1}
	err = read(xml.NewDecoder(limited))
	if err != nil && limited.N <= 0 {
		return ErrTooLarge
	}
	return err
}

// walk tells of the elements and the text of a part, and of nothing within an element
// that open does not want. There is nothing open at the end: the decoder sees to that.
func walk(decoder *xml.Decoder, open func(xml.StartElement) (wanted bool), text func(xml.CharData) error, end func(name string)) error {
	depth, unwanted := 0, 0 // unwanted is the depth of an element that is left out; 0 = none is
	for {
		token, err := decoder.Token()
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
			if unwanted == 0 && !open(t) {
				unwanted = depth
			}
		case xml.EndElement:
			switch {
			case unwanted == 0:
				end(t.Name.Local)
			case unwanted == depth:
				unwanted = 0
			}
			depth--
		case xml.CharData:
			if unwanted == 0 {
				if err := text(t); err != nil {
					return err
				}
			}
		}
	}
}

// wordDocument reads what has text: the document itself, and before it its notes.
type wordDocument struct {
	levels map[string]int     // of headings, by their style
	notes  map[string][]Block // by kind and id, until they are referred to
	size   int                // of all text

	stories []*story // what is being read: the last is within the others
	note    string   // which is being read
	inText  bool
	chosen  []bool // of each element with alternatives: one has been read
}

func (d *wordDocument) read(decoder *xml.Decoder) error {
	return walk(decoder, d.open, func(text xml.CharData) error {
		if !d.inText || len(d.stories) == 0 {
			return nil
		}
		if d.size += len(text); d.size > MaxText {
			return ErrTooLarge
		}
		d.story().text.Write(text)
		return nil
	}, d.end)
}

// story is the one that is being read.
func (d *wordDocument) story() *story { return d.stories[len(d.stories)-1] }

const (
	footnote = "footnote"
	endnote  = "endnote"
)

func (d *wordDocument) open(t xml.StartElement) (wanted bool) {
	name := t.Name.Local
	d.inText = name == "t"
	switch name {
	case "moveFrom", "pPrChange": // where a text was, and how a paragraph looked, before a change
		return false
	case "AlternateContent": // the same for newer and for older programs
		d.chosen = append(d.chosen, false)
	case "Choice", "Fallback":
		if last := len(d.chosen) - 1; last >= 0 {
			if d.chosen[last] {
				return false
			}
			d.chosen[last] = true
		}
	case footnote, endnote:
		d.note, d.stories = name+attribute(t, "id"), append(d.stories, &story{})
		return true
	case "txbxContent":
		d.stories = append(d.stories, &story{})
		return true
	}
	if len(d.stories) == 0 {
		return true
	}
	s := d.story()
	switch name {
	case "footnoteReference", "endnoteReference":
		key := strings.TrimSuffix(name, "Reference") + attribute(t, "id")
		s.after = append(s.after, d.notes[key]...)
		delete(d.notes, key)
	case "pStyle":
		s.level = d.level(attribute(t, "val"))
	default:
		s.open(t)
	}
	return true
}

// level answers which heading a style makes; 0 for none.
func (d *wordDocument) level(style string) int {
	if level := d.levels[style]; level > 0 {
		return level
	}
	return levelOf(style)
}

func (d *wordDocument) end(name string) {
	d.inText = false
	if name == "AlternateContent" {
		d.chosen = d.chosen[:len(d.chosen)-1]
	}
	if len(d.stories) == 0 {
		return
	}
	s := d.story()
	switch name {
	case footnote, endnote:
		d.stories = d.stories[:len(d.stories)-1]
		d.notes[d.note] = s.end()
	case "txbxContent":
		d.stories = d.stories[:len(d.stories)-1]
		if len(d.stories) > 0 {
			d.story().after = append(d.story().after, s.end()...)
		}
	default:
		s.close(name)
	}
}

// story is a text that runs on its own: the document, a note, a box.
type story struct {
	blocks []Block
	items  []string // of the list that it is in
	after  []Block  // what stands behind the paragraph or table
	held   []Block  // what stands behind the list

	text  strings.Builder // of the paragraph
	level int             // of its heading; 0 = none
	list  bool
	table int // nesting
	row   []string
	rows  []string
	cell  []string
}

func (s *story) open(t xml.StartElement) {
	switch t.Name.Local {
	case "p":
		s.text.Reset()
		s.level, s.list = 0, false
	case "outlineLvl":
		if n, err := strconv.Atoi(attribute(t, "val")); err == nil && n >= 0 && n < outlineLevels && s.level == 0 {
			s.level = min(n+1, mostLevel)
		}
	case "numPr":
		s.list = true
	case "tab":
		s.text.WriteByte('\t')
	case "br", "cr":
		s.text.WriteByte('\n')
	case "tbl":
		if s.table++; s.table == 1 {
			s.rows = nil
		}
	case "tr":
		if s.table == 1 {
			s.row = nil
		}
	case "tc":
		if s.table == 1 {
			s.cell = nil
		}
	}
}

func (s *story) close(name string) {
	switch name {
	case "p":
		text := s.text.String()
		s.text.Reset()
		switch {
		case s.table > 0:
			s.cell = append(s.cell, strings.TrimSpace(text))
		case s.level > 0:
			s.add(Block{Kind: Heading, Level: s.level, Text: text})
		case s.list:
			s.items = append(s.items, "- "+strings.TrimSpace(text))
			s.held, s.after = append(s.held, s.after...), nil
		default:
			s.add(Block{Kind: Paragraph, Text: text})
		}
	case "tc":
		if s.table == 1 {
			s.row = append(s.row, strings.Join(s.cell, " "))
		}
	case "tr":
		if s.table == 1 {
			s.rows = append(s.rows, strings.Join(s.row, " | "))
		}
	case "tbl":
		if s.table--; s.table == 0 {
			s.add(Block{Kind: Table, Text: strings.Join(s.rows, "\n")})
		}
	}
}

// add ends the list that the story is in, and adds a block and what belongs to it.
func (s *story) add(b Block) {
	s.endList()
	s.blocks = append(append(s.blocks, b), s.after...)
	s.after = nil
}

func (s *story) endList() {
	if len(s.items) > 0 {
		s.blocks = append(s.blocks, Block{Kind: List, Text: strings.Join(s.items, "\n")})
	}
	s.blocks = append(s.blocks, s.held...)
	s.items, s.held = nil, nil
}

// end answers the blocks of a story.
func (s *story) end() []Block {
	s.endList()
	return append(s.blocks, s.after...)
}

func attribute(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
