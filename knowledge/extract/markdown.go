package extract

import (
	"bytes"
	"strings"

	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	extensionast "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// readMarkdown makes a block of every block of the document, with its own text:
// links and emphasis stay as they are written.
func readMarkdown(source string) []Block {
	data := []byte(boundNesting(withoutFrontMatter(source)))
	root := blockParser().Parse(text.NewReader(data))
	var blocks []Block
	for node := root.FirstChild(); node != nil; node = node.NextSibling() {
		b := Block{Kind: Paragraph, Text: sourceOf(node, data)}
		switch n := node.(type) {
		case *ast.Heading:
			b.Kind, b.Level = Heading, n.Level
			b.Text = strings.Trim(b.Text, "# \t")
		case *ast.FencedCodeBlock, *ast.CodeBlock:
			b.Kind, b.Text = Code, string(node.Lines().Value(data))
		case *ast.List:
			b.Kind = List
		case *extensionast.Table:
			b.Kind = Table
		case *ast.HTMLBlock:
			inner, err := readHTML(b.Text)
			if err == nil {
				blocks = append(blocks, inner...)
			}
			continue
		case *ast.ThematicBreak, *ast.LinkReferenceDefinition:
			continue
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// blockParser knows blocks alone: what is inside them stays as it is written, and
// so costs no time, whatever it is.
func blockParser() parser.Parser {
	p := parser.NewParser(parser.WithBlockParsers(parser.DefaultBlockParsers()...), parser.WithParagraphTransformers(parser.DefaultParagraphTransformers()...))
	p.AddOptions(parser.WithParagraphTransformers(util.Prioritized(extension.NewTableParagraphTransformer(), 200)))
	return p
}

// maxMarkers bounds how many quotes and lists begin on one line.
const maxMarkers = 32

// boundNesting leaves out the marks of quotes and lists beyond those that a line
// may begin with: the parser's time grows with the square of them.
func boundNesting(source string) string {
	var b strings.Builder
	kept := 0 // bytes of source that are dealt with
	for at := 0; at < len(source); {
		end := len(source)
		if n := strings.IndexByte(source[at:], '\n'); n >= 0 {
			end = at + n + 1
		}
		line, markers, cut := source[at:end], 0, 0
		for i := 0; i < len(line); i++ {
			if c := line[i]; c == ' ' || c == '\t' {
				continue
			} else if c != '>' {
				width := len(line[i:]) - len(strings.TrimLeft(line[i:], "0123456789")) // of a number
				i += width
				if i+1 >= len(line) || line[i+1] != ' ' && line[i+1] != '\t' ||
					width == 0 && !strings.ContainsRune("-+*", rune(line[i])) || width > 0 && !strings.ContainsRune(".)", rune(line[i])) {
					break
				}
			}
			if markers++; markers == maxMarkers {
				cut = i + 1
			}
			if markers > maxMarkers {
				b.WriteString(source[kept : at+cut])
				kept, cut = at+i+1, i+1
			}
		}
		at = end
	}
	if kept == 0 {
		return source
	}
	b.WriteString(source[kept:])
	return b.String()
}

// sourceOf answers the lines of the source that a block was written in.
func sourceOf(block ast.Node, source []byte) string {
	from, to := len(source), 0
	_ = ast.Walk(block, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // no walker fails
		if !entering {
			return ast.WalkContinue, nil
		}
		if t, ok := n.(*ast.Text); ok {
			from, to = min(from, t.Segment.Start), max(to, t.Segment.Stop)
		} else if n.Type() == ast.TypeBlock {
			for i := range n.Lines().Len() {
				line := n.Lines().At(i)
				from, to = min(from, line.Start), max(to, line.Stop)
			}
		}
		return ast.WalkContinue, nil
	})
	if from >= to {
		return ""
	}
	from = bytes.LastIndexByte(source[:from], '\n') + 1
	if end := bytes.IndexByte(source[to:], '\n'); end >= 0 && source[to-1] != '\n' {
		to += end
	} else if end < 0 {
		to = len(source)
	}
	return string(source[from:to])
}

// withoutFrontMatter leaves out the YAML that site generators keep in front.
func withoutFrontMatter(source string) string {
	rest, ok := strings.CutPrefix(source, "---\n")
	if !ok {
		return source
	}
	if _, body, found := strings.Cut(rest, "\n---\n"); found {
		return body
	}
	return source
}
