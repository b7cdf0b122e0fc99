package extract

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Bounds of what a page may ask for with a few bytes.
const (
	maxSpan   = 50  // columns or rows of a cell
	maxIndent = 8   // lists in lists; deeper ones are not indented further
	maxLink   = 300 // bytes of an address that is kept
)

// readHTML reads what a page says, without what is there to move around. Where the
// page says which part is its main one, that alone is read.
func readHTML(source string) ([]Block, error) {
	root, err := html.Parse(strings.NewReader(source))
	if err != nil { // it nests more than 512 elements, the parser's bound
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p := page{size: new(int)}
	start := root
	if main := mainPart(root); main != nil {
		start, p.main = main, true
	}
	p.children(start)
	p.finish()
	if p.full() {
		return nil, ErrTooLarge
	}
	return withTitle(p.blocks, titleOf(root)), nil
}

// mainPart answers the one element that is marked as the main part of a page and has
// text; nil for none.
func mainPart(root *html.Node) *html.Node {
	var found *html.Node
	for n := range root.Descendants() {
		if n.DataAtom != atom.Main && value(n, "role") != "main" {
			continue
		}
		if found != nil {
			return nil
		}
		found = n
	}
	if found == nil || strings.TrimSpace(verbatim(found)) == "" {
		return nil
	}
	return found
}

func titleOf(root *html.Node) string {
	for n := range root.Descendants() {
		if n.DataAtom == atom.Title && n.Parent.DataAtom == atom.Head {
			return strings.Join(strings.Fields(verbatim(n)), " ")
		}
	}
	return ""
}

// withTitle puts the title of a page above its headings, unless one of them is of the
// first level or says the same.
func withTitle(blocks []Block, title string) []Block {
	if title == "" || len(blocks) == 0 {
		return blocks
	}
	for _, b := range blocks {
		if b.Kind == Heading && (b.Level == 1 || strings.Contains(title, b.Text) || strings.Contains(b.Text, title)) {
			return blocks
		}
	}
	return slices.Insert(blocks, 0, Block{Kind: Heading, Level: 1, Text: title})
}

// page walks through the elements of a page once.
type page struct {
	blocks []Block
	size   *int // of all text, also of what is within lists and tables
	main   bool // what is walked through is the main part
	depth  int  // of lists

	line    strings.Builder // of the paragraph, white space collapsed
	space   bool            // before what comes next
	heading bool            // the text is one of a heading
	term    string          // of a list of definitions, for the paragraph that follows
}

// full says that nothing more is to be read.
func (p *page) full() bool { return *p.size > MaxText }

func (p *page) children(n *html.Node) {
	for child := n.FirstChild; child != nil && !p.full(); child = child.NextSibling {
		p.node(child)
	}
}

func (p *page) node(n *html.Node) {
	switch {
	case n.Type == html.TextNode:
		p.text(n.Data)
	case n.Type != html.ElementNode || p.left(n):
	default:
		p.element(n)
	}
}

// text adds text to the line as a browser shows it.
func (p *page) text(s string) {
	before := p.line.Len()
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			p.space = true
		case r == '\u00ad': // where a word may be broken
		default:
			p.separate()
			p.line.WriteRune(r)
		}
	}
	*p.size += p.line.Len() - before
}

// separate writes the space that is due.
func (p *page) separate() {
	if p.space && p.line.Len() > 0 && !strings.HasSuffix(p.line.String(), "\n") {
		p.line.WriteByte(' ')
	}
	p.space = false
}

// add ends the paragraph and adds a block.
func (p *page) add(b Block) {
	p.flush()
	if strings.TrimSpace(b.Text) != "" {
		p.finish()
		p.blocks = append(p.blocks, b)
	}
}

// flush ends the paragraph.
func (p *page) flush() {
	text := strings.TrimSpace(p.line.String())
	p.line.Reset()
	p.space = false
	if text == "" {
		return
	}
	if p.term != "" {
		text = p.term + "\n" + text
		p.term = ""
	}
	p.blocks = append(p.blocks, Block{Kind: Paragraph, Text: text})
}

// finish ends all that was begun.
func (p *page) finish() {
	p.flush()
	if p.term != "" {
		p.blocks = append(p.blocks, Block{Kind: Paragraph, Text: p.term})
		p.term = ""
	}
}

// inline are the elements that are part of a line of text.
var inline = map[atom.Atom]bool{
	atom.A: true, atom.Abbr: true, atom.Acronym: true, atom.B: true, atom.Bdi: true, atom.Bdo: true, atom.Big: true, atom.Cite: true,
	atom.Code: true, atom.Data: true, atom.Del: true, atom.Dfn: true, atom.Em: true, atom.Font: true, atom.I: true, atom.Ins: true,
	atom.Kbd: true, atom.Label: true, atom.Mark: true, atom.Math: true, atom.Q: true, atom.Ruby: true, atom.S: true, atom.Samp: true,
	atom.Small: true, atom.Span: true, atom.Strike: true, atom.Strong: true, atom.Sub: true, atom.Sup: true, atom.Time: true,
	atom.Tt: true, atom.U: true, atom.Var: true, atom.Wbr: true, atom.Nobr: true,
}

func (p *page) element(n *html.Node) {
	switch n.DataAtom {
	case atom.Br:
		if strings.HasSuffix(p.line.String(), "\n") { // two of them part paragraphs
			p.flush()
			return
		}
		p.line.WriteByte('\n')
		p.space = false
	case atom.A:
		p.link(n)
	case atom.Code, atom.Kbd, atom.Samp, atom.Tt:
		p.code(n)
	case atom.Sup: // 10<sup>6</sup> is not 106; a link is the mark of a note
		if p.line.Len() > 0 && !p.space && has(n, atom.A) == nil {
			p.text("^")
		}
		p.children(n)
	case atom.Q:
		p.text("“")
		p.children(n)
		p.text("”")
	case atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6:
		within := page{size: p.size, main: p.main, depth: maxIndent, heading: true}
		within.children(n)
		p.add(Block{Kind: Heading, Level: int(n.Data[1] - '0'), Text: within.oneLine()})
	case atom.Pre, atom.Listing, atom.Xmp:
		text := strings.TrimRight(verbatim(n), " \t\n")
		*p.size += len(text)
		p.add(Block{Kind: Code, Text: text})
	case atom.Ul, atom.Ol, atom.Menu, atom.Dir:
		p.list(n)
	case atom.Table:
		p.table(n)
	case atom.Dt:
		p.flush()
		term := page{size: p.size, main: p.main, depth: maxIndent}
		term.children(n)
		if text := term.oneLine(); text != "" {
			p.term = strings.TrimPrefix(p.term+"\n"+text, "\n")
		}
	case atom.Dl:
		p.flush()
		p.children(n)
		p.finish()
	default:
		if inline[n.DataAtom] || n.DataAtom == 0 {
			p.children(n)
			return
		}
		p.flush()
		p.children(n)
		p.flush()
	}
}

// oneLine answers all text that was walked through.
func (p *page) oneLine() string {
	p.finish()
	var texts []string
	for _, b := range p.blocks {
		texts = append(texts, strings.Fields(b.Text)...)
	}
	return strings.Join(texts, " ")
}

// link keeps the address of another site: it may be what is asked for. Addresses in
// the same one say nothing without it, and the sign of a link to the place itself is
// no text.
func (p *page) link(n *html.Node) {
	address := value(n, "href")
	if strings.HasPrefix(address, "#") && !strings.ContainsFunc(verbatim(n), func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }) {
		return
	}
	kept := (strings.HasPrefix(address, "https://") || strings.HasPrefix(address, "http://")) && len(address) <= maxLink &&
		!strings.ContainsFunc(address, unicode.IsSpace) && !p.heading
	from := p.line.Len()
	p.children(n)
	if text := p.line.String(); kept && p.line.Len() > from && !strings.Contains(text[from:], strings.TrimSuffix(address, "/")) {
		p.text(" <" + address + ">")
	}
}

// code marks what is written as code in a line.
func (p *page) code(n *html.Node) {
	text := strings.Join(strings.Fields(verbatim(n)), " ")
	if text == "" || p.heading || strings.Contains(text, "`") || strings.HasSuffix(p.line.String(), "`") {
		p.children(n)
		return
	}
	p.text("`" + text + "`")
}

// list writes items in lines of their own, what is inside of them indented. A list
// that has headings shapes the page and is none.
func (p *page) list(n *html.Node) {
	if p.depth >= maxIndent || has(n, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6) != nil {
		p.flush()
		p.children(n)
		p.flush()
		return
	}
	number, ordered := 1, n.DataAtom == atom.Ol
	if start, err := strconv.ParseInt(value(n, "start"), 10, 32); err == nil {
		number = int(start)
	}
	var items []string
	for child := n.FirstChild; child != nil && !p.full(); child = child.NextSibling {
		within := page{size: p.size, main: p.main, depth: p.depth + 1, heading: p.heading}
		within.node(child)
		within.finish()
		if len(within.blocks) == 0 {
			continue
		}
		mark := "- "
		if child.DataAtom != atom.Li { // a list in a list, not in its item
			mark = "  "
		} else if ordered {
			mark = strconv.Itoa(number) + ". "
			number++
		}
		var texts []string
		for _, b := range within.blocks {
			texts = append(texts, b.Text)
		}
		items = append(items, mark+strings.ReplaceAll(strings.Join(texts, "\n"), "\n", "\n"+strings.Repeat(" ", len(mark))))
	}
	p.add(Block{Kind: List, Text: strings.Join(items, "\n")})
}

// table writes a line for each row, the names of columns first. A table that has
// structure in its cells shapes the page and is none.
func (p *page) table(n *html.Node) {
	inside := has(n, atom.Table, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Pre, atom.Hr)
	if inside != nil || value(n, "role") == "presentation" || value(n, "role") == "none" {
		p.flush()
		p.children(n)
		p.flush()
		return
	}
	p.flush()
	g := grid{page: p, spans: make(map[int]span)}
	g.rows(n)
	if g.head {
		g.lines = slices.Insert(g.lines, 1, "|"+strings.Repeat("---|", g.columns))
		p.add(Block{Kind: Table, Text: strings.Join(g.lines, "\n")})
		return
	}
	p.add(Block{Kind: List, Text: strings.Join(g.lines, "\n")}) // no names of columns: nothing is to be repeated
}

// span is a cell that reaches into the rows below its own.
type span struct {
	text string
	rows int
}

// grid collects the rows of a table.
type grid struct {
	page    *page
	lines   []string
	spans   map[int]span // by column
	columns int
	head    bool // the first row names the columns
}

func (g *grid) rows(n *html.Node) {
	for child := n.FirstChild; child != nil && !g.page.full(); child = child.NextSibling {
		switch {
		case child.Type != html.ElementNode || g.page.left(child):
		case child.DataAtom == atom.Tr:
			g.row(child)
		case child.DataAtom == atom.Caption:
			g.page.add(Block{Kind: Paragraph, Text: g.cell(child)})
		default:
			g.rows(child)
		}
	}
}

func (g *grid) cell(n *html.Node) string {
	within := page{size: g.page.size, main: g.page.main, depth: maxIndent}
	within.children(n)
	return within.oneLine()
}

func (g *grid) row(n *html.Node) {
	var cells []string
	names, said := true, false
	// above fills in the cells that reach down here from the rows above.
	above := func() {
		for s, ok := g.spans[len(cells)]; ok; s, ok = g.spans[len(cells)] {
			if s.rows--; s.rows > 0 {
				g.spans[len(cells)] = s
			} else {
				delete(g.spans, len(cells))
			}
			*g.page.size += len(s.text)
			cells = append(cells, s.text)
		}
	}
	for child := n.FirstChild; child != nil && !g.page.full(); child = child.NextSibling {
		if child.DataAtom != atom.Td && child.DataAtom != atom.Th || g.page.left(child) {
			continue
		}
		above()
		text := g.cell(child)
		said = said || text != ""
		names = names && (child.DataAtom == atom.Th || text == "")
		if rows := count(value(child, "rowspan")); rows > 1 {
			g.spans[len(cells)] = span{text: text, rows: rows - 1}
		}
		cells = append(cells, text)
		for range count(value(child, "colspan")) - 1 {
			cells = append(cells, "")
		}
	}
	above()
	if !said {
		return
	}
	if len(g.lines) == 0 {
		g.head = names
	}
	g.columns = max(g.columns, len(cells))
	line := strings.Join(cells, " | ")
	if len(cells) > 1 || g.head {
		line = "| " + line + " |"
	}
	g.lines = append(g.lines, line)
}

// count reads how many columns or rows a cell takes.
func count(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return 1
	}
	return min(max(n, 1), maxSpan)
}

// roles of elements that are there to move around or to work with the page.
var roles = map[string]bool{
	"navigation": true, "banner": true, "contentinfo": true, "search": true, "menu": true, "menubar": true, "toolbar": true,
	"dialog": true, "alertdialog": true, "complementary": true,
}

// classes that generators of sites give to such elements where they do not say it
// otherwise.
var classes = map[string]bool{
	"nav": true, "navbar": true, "navigation": true, "navheader": true, "navfooter": true, "breadcrumb": true, "breadcrumbs": true,
	"sphinxsidebar": true, "skip-link": true, "skiplink": true, "mw-editsection": true, "cookie-banner": true, "cookie-notice": true,
	"cookie-consent": true, "cookie-bar": true, "cookiebar": true, "cookieconsent": true,
}

// left says that an element is left out: it is no text, it is not shown, or it is
// there to move around.
func (p *page) left(n *html.Node) bool {
	switch n.DataAtom {
	case atom.Head, atom.Script, atom.Style, atom.Noscript, atom.Template, atom.Iframe, atom.Object, atom.Embed, atom.Svg, atom.Img, atom.Video,
		atom.Audio, atom.Canvas, atom.Map, atom.Nav, atom.Footer, atom.Dialog, atom.Button, atom.Select, atom.Input, atom.Textarea,
		atom.Datalist, atom.Rp, atom.Rt:
		return true
	case atom.Header, atom.Aside: // of an article they are part of it
		if !p.main && !inArticle(n) {
			return true
		}
	case atom.Form: // some servers wrap a whole page into one
		if has(n, atom.P, atom.H1, atom.H2, atom.H3, atom.Table, atom.Li, atom.Pre) == nil {
			return true
		}
	case atom.Html, atom.Body, atom.Main, atom.Article:
		return false
	}
	if n.Data == "annotation" || n.Data == "annotation-xml" { // of a formula, which says it again
		return true
	}
	for _, a := range n.Attr {
		switch a.Key {
		case "role":
			if roles[a.Val] && (a.Val != "complementary" || !p.main) {
				return true
			}
		case "hidden":
			if a.Val != "until-found" {
				return true
			}
		case "aria-hidden":
			if a.Val == "true" {
				return true
			}
		case "style":
			if style := strings.ReplaceAll(strings.ToLower(a.Val), " ", ""); strings.Contains(style, "display:none") {
				return true
			}
		case "class", "id":
			for word := range strings.FieldsSeq(strings.ToLower(a.Val)) {
				if classes[word] {
					return true
				}
			}
		}
	}
	return false
}

func inArticle(n *html.Node) bool {
	for parent := n.Parent; parent != nil; parent = parent.Parent {
		if parent.DataAtom == atom.Article || parent.DataAtom == atom.Main || parent.DataAtom == atom.Section {
			return true
		}
	}
	return false
}

// verbatim answers the text of an element as it is written.
func verbatim(n *html.Node) string {
	var b strings.Builder
	var walk func(n *html.Node)
	walk = func(n *html.Node) {
		for child := n.FirstChild; child != nil; child = child.NextSibling {
			switch {
			case child.Type == html.TextNode:
				b.WriteString(child.Data)
			case child.Type != html.ElementNode:
			case child.DataAtom == atom.Br:
				b.WriteByte('\n')
			case child.DataAtom == atom.Script, child.DataAtom == atom.Style, child.DataAtom == atom.Button:
			default:
				walk(child)
			}
		}
	}
	walk(n)
	return b.String()
}

// has answers the first element of a kind inside of another one; nil for none.
func has(n *html.Node, kinds ...atom.Atom) *html.Node {
	for d := range n.Descendants() {
		if d.DataAtom != 0 && slices.Contains(kinds, d.DataAtom) {
			return d
		}
	}
	return nil
}

func value(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
