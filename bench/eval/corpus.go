package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// document is a section of a manual, as it is put into a repository.
type document struct {
	name string
	html []byte
}

// question asks for one document. Its words are taken out of the document.
type question struct {
	text   string
	answer string // name of the document
}

// corpus is a set of documents and the questions that some of them answer.
type corpus struct {
	name      string
	documents []document
	questions []question
}

// source says where a corpus comes from. Packages of Debian are unpacked into
// folders of their names.
type source struct {
	name  string
	files []string // patterns below the folder of all packages
	// question answers what a section is the answer to; "" = nothing. It may
	// remove from the section what gives the question away.
	question func(section *html.Node, title string) string
}

// sources are the corpora. The first one is small and measured by make test; the
// ranking was tuned on it and on python, never on postgresql.
func sources() []source {
	return []source{
		{name: "debian-faq", files: []string{"debian-faq/usr/share/doc/debian/FAQ/*.en.html"}, question: asked},
		{name: "python", files: below(
			"python3.[0-9]*-doc/usr/share/doc/python3.[0-9][0-9]/html/",
			"faq/*.html", "tutorial/*.html", "howto/*.html", "using/*.html", "reference/*.html",
		), question: asked},
		{name: "postgresql", files: below( // the reference, and what it is written in
			"postgresql-doc-[0-9]*/usr/share/doc/postgresql-doc-[0-9]*/html/",
			"app*.html", "contrib-*.html", "datatype*.html", "ddl*.html", "dml*.html", "ecpg-sql-*.html", "functions*.html", "indexes*.html",
			"mvcc*.html", "performance*.html", "pg*.html", "queries*.html", "spi*.html", "sql-*.html", "textsearch*.html", "tutorial*.html",
			"typeconv*.html",
		), question: purpose},
	}
}

func below(folder string, files ...string) []string {
	for i, file := range files {
		files[i] = folder + file
	}
	return files
}

// asked takes the title of an entry of a list of questions and answers.
func asked(_ *html.Node, title string) string {
	if !strings.HasSuffix(title, "?") || strings.Count(title, " ") < 2 {
		return ""
	}
	return title
}

// purpose takes the line that says what a command is for out of its page.
func purpose(section *html.Node, _ string) string {
	if !isClass(section, "refentry") {
		return ""
	}
	line := find(section, func(n *html.Node) bool { return isClass(n, "refnamediv") })
	if line == nil {
		return ""
	}
	line.Parent.RemoveChild(line)
	_, what, found := strings.Cut(text(line), " — ")
	if !found {
		return ""
	}
	return what
}

// load reads a corpus below a folder with unpacked packages.
func (s source) load(dir string) (corpus, error) {
	c := corpus{name: s.name}
	files, err := s.find(dir)
	if err != nil {
		return corpus{}, err
	}
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return corpus{}, fmt.Errorf("read a manual: %w", err)
		}
		page, err := html.Parse(bytes.NewReader(data))
		if err != nil {
			return corpus{}, fmt.Errorf("read %s: %w", file, err)
		}
		if err := s.sections(&c, path.Join(path.Base(path.Dir(file)), path.Base(file)), page); err != nil {
			return corpus{}, err
		}
	}
	c.questions = unambiguous(c.questions)
	if len(c.questions) == 0 {
		return corpus{}, fmt.Errorf("there are no questions of %s in %s: scripts/fetch-eval.sh fetches the manuals", s.name, dir)
	}
	return c, nil
}

func (s source) find(dir string) ([]string, error) {
	var files []string
	for _, pattern := range s.files {
		found, err := fs.Glob(os.DirFS(dir), pattern)
		if err != nil {
			return nil, fmt.Errorf("look for manuals: %w", err)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// unambiguous leaves out the questions that are asked twice.
func unambiguous(questions []question) []question {
	times := make(map[string]int)
	for _, q := range questions {
		times[q.text]++
	}
	return slices.DeleteFunc(questions, func(q question) bool { return times[q.text] > 1 })
}

// sections makes a document of every section of a page. What is in a section of
// its own is not in the one around it, and neither are lists of contents: they
// would answer every question of a page at once.
func (s source) sections(c *corpus, file string, page *html.Node) error {
	found := make(map[*html.Node]bool)
	var sections []*html.Node
	walk(page, func(n *html.Node) bool {
		if isSection(n) && find(n, isTitle) != nil {
			sections, found[n] = append(sections, n), true
		}
		return !isClass(n, "refentry")
	})
	for _, section := range sections {
		remove(section, func(n *html.Node) bool {
			return n.DataAtom == atom.Nav || isClass(n, "toc") || isClass(n, "navheader") || isClass(n, "navfooter") || isClass(n, "headerlink")
		})
	}
	type part struct {
		node         *html.Node
		title, above string
	}
	parts := make([]part, len(sections))
	for i, n := range sections {
		parts[i] = part{node: n, title: heading(n)}
		for p := n.Parent; p != nil; p = p.Parent {
			if found[p] {
				parts[i].above = heading(p)
				break
			}
		}
	}
	// From the innermost outwards, so that each is taken out of the one around it.
	slices.Reverse(parts)
	for i, p := range parts {
		if p.node.Parent != nil {
			p.node.Parent.RemoveChild(p.node)
		}
		name := fmt.Sprintf("%s#%d", file, len(parts)-i)
		asked := s.question(p.node, p.title)
		var body bytes.Buffer
		if p.above != "" {
			fmt.Fprintf(&body, "<h1>%s</h1>\n", html.EscapeString(p.above))
		}
		if asked == p.title {
			title := find(p.node, isTitle)
			title.Parent.RemoveChild(title)
		}
		if strings.TrimSpace(text(p.node)) == "" {
			continue
		}
		if err := html.Render(&body, p.node); err != nil {
			return fmt.Errorf("write a section of %s: %w", file, err)
		}
		c.documents = append(c.documents, document{name: name, html: body.Bytes()})
		if asked != "" {
			c.questions = append(c.questions, question{text: asked, answer: name})
		}
	}
	return nil
}

// isSection tells whether an element is a section, in the HTML of DocBook or of
// Sphinx.
func isSection(n *html.Node) bool {
	if n.Type != html.ElementNode {
		return false
	}
	if n.DataAtom == atom.Section {
		return true
	}
	for _, class := range []string{"section", "sect1", "sect2", "sect3", "sect4", "chapter", "preface", "appendix", "refentry"} {
		if n.DataAtom == atom.Div && isClass(n, class) {
			return true
		}
	}
	return false
}

func isTitle(n *html.Node) bool {
	switch n.DataAtom {
	case atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6:
		return true
	}
	return false
}

var numbering = regexp.MustCompile(`^((Chapter|Appendix) )?[A-Z0-9]+(\.[0-9]+)*\. `)

// heading answers the title of a section, without its number.
func heading(section *html.Node) string {
	title := find(section, isTitle)
	if title == nil {
		return ""
	}
	return numbering.ReplaceAllString(text(title), "")
}

func isClass(n *html.Node, class string) bool {
	for _, a := range n.Attr {
		if a.Key == "class" && slices.Contains(strings.Fields(a.Val), class) {
			return true
		}
	}
	return false
}

// walk visits a node and what is below it; visit tells whether to go on below.
func walk(n *html.Node, visit func(*html.Node) bool) {
	if !visit(n) {
		return
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		walk(c, visit)
	}
}

// find answers the first node below another one for which match holds.
func find(n *html.Node, match func(*html.Node) bool) *html.Node {
	var found *html.Node
	walk(n, func(c *html.Node) bool {
		if found == nil && c != n && match(c) {
			found = c
		}
		return found == nil
	})
	return found
}

// remove takes out all nodes below another one for which match holds.
func remove(n *html.Node, match func(*html.Node) bool) {
	for {
		found := find(n, match)
		if found == nil {
			return
		}
		found.Parent.RemoveChild(found)
	}
}

// text answers the text of a node on one line.
func text(n *html.Node) string {
	var b strings.Builder
	walk(n, func(c *html.Node) bool {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
		return true
	})
	return strings.Join(strings.Fields(b.String()), " ")
}
