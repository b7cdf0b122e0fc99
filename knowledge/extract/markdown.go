package extract

import (
	"bytes"
	"fmt"
	"strings"

	htmltomarkdown "github.com/JohannesKaufmann/html-to-markdown/v2/converter"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/base"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/commonmark"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/table"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	extensionast "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// readMarkdown makes a block of every block of the document, with its own text:
// links and emphasis stay as they are written.
func readMarkdown(source string) []Block {
	source = withoutFrontMatter(source)
	data := []byte(source)
	root := goldmark.New(goldmark.WithExtensions(extension.Table)).Parser().Parse(text.NewReader(data))
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

// readHTML reads what a page says, without what is there to move around.
func readHTML(source string) ([]Block, error) {
	root, err := html.Parse(strings.NewReader(source))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	prune(root)
	converter := htmltomarkdown.NewConverter(htmltomarkdown.WithPlugins(
		base.NewBasePlugin(), commonmark.NewCommonmarkPlugin(), table.NewTablePlugin()),
		htmltomarkdown.WithEscapeMode(htmltomarkdown.EscapeModeDisabled))
	converted, err := converter.ConvertNode(root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return readMarkdown(string(converted)), nil
}

// prune removes navigation, forms and everything that is no text.
func prune(n *html.Node) {
	for child := n.FirstChild; child != nil; {
		next := child.NextSibling
		switch child.DataAtom {
		case atom.Nav, atom.Header, atom.Footer, atom.Aside, atom.Script, atom.Style, atom.Noscript, atom.Template, atom.Form,
			atom.Button, atom.Iframe, atom.Object, atom.Svg, atom.Img, atom.Video, atom.Audio, atom.Canvas:
			if child.Type == html.ElementNode {
				n.RemoveChild(child)
			}
		default:
			if child.Type == html.CommentNode {
				n.RemoveChild(child)
			} else {
				prune(child)
			}
		}
		child = next
	}
}
