// Package extract takes documents apart into blocks: headings, paragraphs, code,
// tables and lists, in reading order. What it reads comes from strangers, so every
// format has bounds, nothing that a document refers to is fetched, and the
// dangerous ones are meant to be read in a process of their own.
package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"path"
	"strings"
)

// Kind says what a block is.
type Kind string

// The kinds of blocks.
const (
	Heading   Kind = "heading"
	Paragraph Kind = "paragraph"
	List      Kind = "list"
	Code      Kind = "code"
	Table     Kind = "table" // a first line of column names, then one line a row
)

// Block is a piece of a document that belongs together.
type Block struct {
	Kind  Kind   `json:"kind"`
	Level int    `json:"level,omitempty"` // of a heading, 1–6
	Text  string `json:"text"`            // valid UTF-8, without NUL, not blank
	Page  int    `json:"page,omitempty"`  // 1-based; 0 in formats without pages
}

// Format is a kind of file.
type Format string

// The formats.
const (
	Text     Format = "text"
	Markdown Format = "markdown"
	HTML     Format = "html"
	PDF      Format = "pdf"
	DOCX     Format = "docx"
	CSV      Format = "csv"
	JSONL    Format = "jsonl"
)

// Errors about documents. Their text may be shown to users.
var (
	// ErrUnsupported says that there is no reader for the format.
	ErrUnsupported = errors.New("this kind of file cannot be read; text, Markdown, HTML, PDF, DOCX, CSV, JSON and JSONL can")
	// ErrInvalid says that a document is not what its name or type says.
	ErrInvalid = errors.New("the file is damaged or not of its kind")
	// ErrEncoding says that a text is not UTF-8 or UTF-16, and does not say what it is.
	ErrEncoding = errors.New("the text is not UTF-8; convert it first")
	// ErrEncrypted says that a document needs a password.
	ErrEncrypted = errors.New("the file is protected by a password")
	// ErrTooLarge says that a document unfolds to more than is allowed, or that
	// reading it does.
	ErrTooLarge = errors.New("the file unfolds to more text, or takes more time or memory to read, than is allowed")
	// ErrEmpty says that a document holds no text, for example only pictures of it.
	ErrEmpty = errors.New("the file has no text")
)

// MaxText bounds the text of one document, in bytes.
const MaxText = 64 << 20

// maxBlocks bounds the blocks of one document: each takes more memory than its text
// when it is hardly any.
const maxBlocks = 1 << 20

// PDFReader answers the pages of a PDF document. Errors: ErrInvalid, ErrEncrypted,
// ErrTooLarge.
type PDFReader interface {
	PDFPages(ctx context.Context, data []byte) ([]PDFPage, error)
}

// PDFPage is a page of a PDF document.
type PDFPage struct {
	Text    string
	Outline []Block // headings that lead to this page, in their order
}

// Detect answers the format of a file from its content, its media type, which may
// be empty, and its name. Content comes first: a name is easily wrong.
func Detect(name, mediaType string, data []byte) (Format, error) {
	switch {
	case bytes.HasPrefix(data, []byte("%PDF-")):
		return PDF, nil
	case bytes.HasPrefix(data, []byte("PK\x03\x04")):
		if byName(name, mediaType) == DOCX || bytes.Contains(data, []byte("word/document.xml")) {
			return DOCX, nil
		}
		return "", ErrUnsupported
	}
	switch format := byName(name, mediaType); format {
	case PDF, DOCX:
		return "", fmt.Errorf("%w: it does not begin as a %s file does", ErrInvalid, strings.ToUpper(string(format)))
	case "":
		if parsed, _, err := mime.ParseMediaType(mediaType); err == nil && parsed == "text/plain" {
			return Text, nil
		}
		if _, err := decode(data); err != nil {
			return "", ErrUnsupported
		}
		return Text, nil
	case Text, Markdown, HTML, CSV, JSONL:
		return format, nil
	}
	return "", ErrUnsupported
}

// byName answers the format that a name or a media type stands for; "" for none.
func byName(name, mediaType string) Format {
	if parsed, _, err := mime.ParseMediaType(mediaType); err == nil {
		switch parsed {
		case "text/markdown", "text/x-markdown":
			return Markdown
		case "text/html", "application/xhtml+xml":
			return HTML
		case "application/pdf":
			return PDF
		case "application/vnd.openxmlformats-officedocument.wordprocessingml.document":
			return DOCX
		case "text/csv", "text/tab-separated-values":
			return CSV
		case "application/x-ndjson", "application/jsonl", "application/json-lines", "application/json":
			return JSONL
		}
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".md", ".markdown", ".mdx":
		return Markdown
	case ".html", ".htm", ".xhtml":
		return HTML
	case ".pdf":
		return PDF
	case ".docx":
		return DOCX
	case ".csv", ".tsv":
		return CSV
	case ".jsonl", ".ndjson", ".json":
		return JSONL
	case ".txt", ".text", ".log", ".rst", ".adoc":
		return Text
	}
	return ""
}

// Read detects the format of a document and reads it, in the encoding that its media
// type declares, if it does.
func Read(ctx context.Context, name, mediaType string, data []byte, pdf PDFReader) ([]Block, error) {
	format, err := Detect(name, mediaType, data)
	if err != nil {
		return nil, err
	}
	if format != PDF && format != DOCX {
		data = declared(data, charsetOf(mediaType))
	}
	return Blocks(ctx, format, data, pdf)
}

// Blocks reads a document. pdf may be nil where no PDF comes.
func Blocks(ctx context.Context, format Format, data []byte, pdf PDFReader) ([]Block, error) {
	var blocks []Block
	var err error
	switch format {
	case PDF:
		if pdf == nil {
			return nil, ErrUnsupported
		}
		var pages []PDFPage
		if pages, err = pdf.PDFPages(ctx, data); err == nil {
			blocks = readPDF(pages)
		}
	case DOCX:
		blocks, err = readDOCX(data)
	default:
		if format == HTML {
			data = declared(data, charsetWithin(data))
		}
		var text string
		if text, err = decode(data); err == nil {
			blocks, err = readText(format, text)
		}
	}
	if err != nil {
		return nil, err
	}
	return tidy(blocks)
}

func readText(format Format, text string) ([]Block, error) {
	switch format {
	case Text:
		return pagesOfText(strings.Split(text, "\f")), nil
	case Markdown:
		return readMarkdown(text), nil
	case HTML:
		return readHTML(text)
	case CSV:
		return readCSV(text)
	case JSONL:
		return readJSONL(text)
	case PDF, DOCX: // they are no texts
	}
	return nil, ErrUnsupported
}

// tidy repairs and bounds the text of blocks and leaves out those without any.
func tidy(blocks []Block) ([]Block, error) {
	kept, size := blocks[:0], 0
	for _, b := range blocks {
		b.Text = strings.ToValidUTF8(strings.ReplaceAll(b.Text, "\x00", ""), "\uFFFD")
		if b.Kind == Code || b.Kind == Table {
			b.Text = strings.Trim(b.Text, "\n")
		} else {
			b.Text = strings.TrimSpace(b.Text)
		}
		if strings.TrimSpace(b.Text) == "" {
			continue
		}
		if size += len(b.Text); size > MaxText || len(kept) == maxBlocks {
			return nil, ErrTooLarge
		}
		kept = append(kept, b)
	}
	if len(kept) == 0 {
		return nil, ErrEmpty
	}
	return kept, nil
}
