package chain

import (
	"errors"
	"io"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxYAMLKeys is the largest number of keys of one YAML object. The parser's time grows with its square.
	maxYAMLKeys = 1000
	// maxYAMLBytes is the size of the largest YAML document. Its scanner takes ten times as long as that of JSON.
	maxYAMLBytes = 2 << 20
	// maxBlankLines bounds successive blank lines. The scanner's time grows with their square.
	maxBlankLines = 1000
	// maxYAMLTokens bounds what the scanner cuts a document into. Ten thousand prompts are about 200,000 tokens.
	maxYAMLTokens = 250_000
	// maxAliased is how much text and how many values aliases may repeat in a document, together.
	maxAliased = 1 << 20
)

// readYAML reads the part of YAML that has a meaning in JSON. Anchors and aliases are understood as long as they repeat
// little; tags, merge keys, directives, several documents and keys that are not strings are problems.
func readYAML(data []byte, c *collector) *node {
	if len(data) > maxYAMLBytes {
		c.add("", CodeTooLarge, "the document has %d bytes, at most %d are allowed in YAML; send it as JSON", len(data), maxYAMLBytes)
		return nil
	}
	if line := manyBlankLines(data); line > 0 {
		c.atLine(line, "", CodeTooLarge, "there are more than %d blank lines in a row", maxBlankLines)
		return nil
	}
	tokens, ok := scan(string(data), c)
	if !ok {
		return nil
	}
	body, ok := parseTokens(tokens, c)
	if !ok {
		return nil
	}
	r := &yamlReader{c: c, anchors: make(map[string]*node)}
	return r.value(body, "", 1)
}

// manyBlankLines is the line where more than maxBlankLines blank lines have followed one another, 0 when there is none.
func manyBlankLines(data []byte) int {
	line, blank := 1, 0
	for _, b := range data {
		switch b {
		case '\n':
			line++
			if blank++; blank > maxBlankLines+1 {
				return line
			}
		case ' ', '\t', '\r':
		default:
			blank = 0
		}
	}
	return 0
}

// scan cuts a document into tokens and stops at the first that makes it nested too deep or too large for the recursive
// parser.
func scan(text string, c *collector) (token.Tokens, bool) {
	var s scanner.Scanner
	s.Init(text)
	var tokens token.Tokens
	check := &tokenChecker{c: c}
	for {
		more, err := s.Scan()
		if errors.Is(err, io.EOF) {
			return tokens, true
		}
		if err != nil {
			if n := len(more); n > 0 && more[n-1].Error != "" {
				c.atLine(more[n-1].Position.Line, "", CodeSyntax, "not valid YAML: %s", more[n-1].Error)
			} else {
				c.add("", CodeSyntax, "not valid YAML")
			}
			return nil, false
		}
		tokens.Add(more...)
		for _, t := range more {
			if !check.accept(t) {
				return nil, false
			}
		}
	}
}

// parseTokens runs the YAML parser. It is known to panic on some malformed documents; such a document is reported like
// any other that cannot be read.
func parseTokens(tokens token.Tokens, c *collector) (body ast.Node, ok bool) {
	defer func() {
		if recover() != nil {
			c.add("", CodeSyntax, "not valid YAML")
			body, ok = nil, false
		}
	}()
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			c.atLine(at.GetToken().Position.Line, "", CodeSyntax, "not valid YAML: %s", at.GetMessage())
		} else {
			c.add("", CodeSyntax, "not valid YAML")
		}
		return nil, false
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			c.atLine(doc.GetToken().Position.Line, "", CodeYAML, "there is more than one document; send one at a time")
			return nil, false
		}
		body = doc.Body
	}
	if body == nil {
		c.add("", CodeSyntax, "the document is empty")
		return nil, false
	}
	return body, true
}

// block is an open block of a YAML document while its tokens are checked.
type block struct {
	column int
	list   bool
	keys   int
}

// tokenChecker refuses documents that are nested too deep or built to be slow. The depth it counts is never more than the
// real one.
type tokenChecker struct {
	c       *collector
	blocks  []block
	flow    []block // open flow collections, without columns
	headers int
	count   int
}

func (k *tokenChecker) refuse(t *token.Token, code, format string, args ...any) bool {
	k.c.atLine(t.Position.Line, "", code, format, args...)
	return false
}

// accept looks at the next token.
func (k *tokenChecker) accept(t *token.Token) bool {
	if k.count++; k.count > maxYAMLTokens {
		return k.refuse(t, CodeTooLarge, "the document has too many values for YAML; send it as JSON")
	}
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		k.flow = append(k.flow, block{list: t.Type == token.SequenceStartType})
	case token.SequenceEndType, token.MappingEndType:
		k.flow = k.flow[:max(len(k.flow)-1, 0)]
	case token.CollectEntryType:
		if n := len(k.flow); n > 0 && !k.flow[n-1].list {
			return k.key(&k.flow[n-1], t)
		}
	case token.DocumentHeaderType, token.DocumentEndType:
		k.blocks, k.flow = nil, nil
		if k.headers++; k.headers > 2 {
			return k.refuse(t, CodeYAML, "there is more than one document; send one at a time")
		}
	case token.MappingKeyType:
		return k.refuse(t, CodeYAML, "keys after a question mark are not supported; write key: value")
	case token.DirectiveType:
		return k.refuse(t, CodeYAML, "directives are not supported")
	case token.SequenceEntryType, token.MappingValueType:
		if len(k.flow) > 0 {
			return k.key(&k.flow[len(k.flow)-1], t)
		}
		list := t.Type == token.SequenceEntryType
		column := t.Position.Column
		if !list && t.Prev != nil {
			column = t.Prev.Position.Column
		}
		k.blocks = enterBlock(k.blocks, column, list)
		if top := &k.blocks[len(k.blocks)-1]; !list && !k.key(top, t) {
			return false
		}
	}
	if len(k.blocks)+len(k.flow) > MaxDepth {
		return k.refuse(t, CodeTooDeep, "nested deeper than %d levels", MaxDepth)
	}
	return true
}

// key counts a key of an object. In flow style a key counts twice, by its colon and by the comma after it.
func (k *tokenChecker) key(b *block, t *token.Token) bool {
	if b.keys++; b.keys > 2*maxYAMLKeys {
		return k.refuse(t, CodeTooMany, "an object has more than %d keys", maxYAMLKeys)
	}
	return true
}

// enterBlock closes the blocks that an entry at the column ends, and opens or continues its own.
func enterBlock(blocks []block, column int, list bool) []block {
	for len(blocks) > 0 {
		top := &blocks[len(blocks)-1]
		if top.column < column {
			break
		}
		if top.column == column && top.list == list {
			return blocks
		}
		if top.column == column && !top.list {
			break // a list may start in the column of the key that holds it
		}
		blocks = blocks[:len(blocks)-1]
	}
	return append(blocks, block{column: column, list: list})
}

// yamlReader turns the syntax tree into ours.
type yamlReader struct {
	c       *collector
	anchors map[string]*node
	aliased int // text and values that aliases repeated so far
}

// value converts a node, nil after a problem that ends the reading.
func (r *yamlReader) value(n ast.Node, at string, depth int) *node {
	if n == nil {
		return &node{kind: kindNull}
	}
	line := lineOf(n)
	switch v := n.(type) {
	case *ast.NullNode:
		return &node{kind: kindNull, line: line}
	case *ast.BoolNode:
		return &node{kind: kindBool, truth: v.Value, line: line}
	case *ast.IntegerNode:
		return r.number(v.Token.Value, at, line)
	case *ast.FloatNode:
		return r.number(v.Token.Value, at, line)
	case *ast.InfinityNode, *ast.NanNode:
		r.c.atLine(line, at, CodeYAML, "infinity and not-a-number are no JSON numbers")
		return &node{kind: kindNull, line: line}
	case *ast.StringNode:
		if v.Token.Type == token.StringType && jsonNumber.MatchString(v.Value) {
			return r.number(v.Value, at, line) // the parser takes 1e3 for a string
		}
		return &node{kind: kindString, text: r.c.text(v.Value, at), line: line}
	case *ast.LiteralNode:
		return &node{kind: kindString, text: r.c.text(v.Value.Value, at), line: line}
	case *ast.AnchorNode:
		return r.anchor(v, at, depth)
	case *ast.AliasNode:
		return r.alias(v, at, depth)
	case *ast.TagNode:
		r.c.atLine(line, at, CodeYAML, "tags such as %s are not supported; quote the value to make it a string", shown(v.Start.Value))
		return &node{kind: kindNull, line: line}
	}
	if depth > MaxDepth {
		r.c.atLine(line, at, CodeTooDeep, "nested deeper than %d levels", MaxDepth)
		return nil
	}
	switch v := n.(type) {
	case *ast.SequenceNode:
		list := &node{kind: kindList, line: line}
		for i, item := range v.Values {
			m := r.value(item, at+"/"+strconv.Itoa(i), depth+1)
			if m == nil {
				return nil
			}
			list.items = append(list.items, m)
		}
		return list
	case *ast.MappingNode:
		return r.object(v.Values, at, line, depth)
	case *ast.MappingValueNode:
		return r.object([]*ast.MappingValueNode{v}, at, line, depth)
	}
	r.c.atLine(line, at, CodeYAML, "this YAML is not supported here")
	return &node{kind: kindNull, line: line}
}

func (r *yamlReader) object(members []*ast.MappingValueNode, at string, line, depth int) *node {
	n := &node{kind: kindObject, line: line}
	seen := make(map[string]bool, len(members))
	for _, m := range members {
		key, ok := r.key(m.Key, at)
		if !ok {
			continue
		}
		pointer := child(at, key)
		value := r.value(m.Value, pointer, depth+1)
		if value == nil {
			return nil
		}
		if value.line == 0 {
			value.line = lineOf(m)
		}
		if seen[key] {
			r.c.atLine(lineOf(m.Key), pointer, CodeDuplicateKey, "the key %s is there twice", shown(key))
			continue
		}
		seen[key] = true
		n.keys = append(n.keys, key)
		n.items = append(n.items, value)
	}
	return n
}

// key reads the key of a member; what is not a string is reported.
func (r *yamlReader) key(k ast.MapKeyNode, at string) (string, bool) {
	switch v := k.(type) {
	case *ast.StringNode:
		return r.c.text(v.Value, at), true
	case *ast.MergeKeyNode:
		r.c.atLine(lineOf(k), child(at, "<<"), CodeYAML, "merge keys are not supported; write the fields out")
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		text := k.GetToken().Value
		r.c.atLine(lineOf(k), child(at, text), CodeYAML, "a key must be a string; write %s in quotes", shown(text))
	default:
		r.c.atLine(lineOf(k), at, CodeYAML, "a key must be a plain or quoted string")
	}
	return "", false
}

// number accepts the numbers of JSON. YAML's octal, hexadecimal and grouped forms mean different things to different
// readers.
func (r *yamlReader) number(literal, at string, line int) *node {
	if !jsonNumber.MatchString(literal) {
		r.c.atLine(line, at, CodeYAML, "%s: write numbers in plain decimal, or in quotes to make it a string", shown(literal))
		return &node{kind: kindNull, line: line}
	}
	return &node{kind: kindNumber, text: r.c.number(literal, at, line), line: line}
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

func (r *yamlReader) anchor(a *ast.AnchorNode, at string, depth int) *node {
	n := r.value(a.Value, at, depth)
	if n == nil {
		return nil
	}
	n.measure()
	if a.Name != nil {
		r.anchors[a.Name.GetToken().Value] = n
	}
	return n
}

func (r *yamlReader) alias(a *ast.AliasNode, at string, depth int) *node {
	line := lineOf(a)
	name := ""
	if a.Value != nil {
		name = a.Value.GetToken().Value
	}
	n, ok := r.anchors[name]
	if !ok {
		r.c.atLine(line, at, CodeYAML, "the alias %s has no anchor before it", shown(name))
		return &node{kind: kindNull, line: line}
	}
	if depth+n.depth-1 > MaxDepth {
		r.c.atLine(line, at, CodeTooDeep, "nested deeper than %d levels", MaxDepth)
		return nil
	}
	if r.aliased += n.size; r.aliased > maxAliased {
		r.c.atLine(line, at, CodeTooLarge, "aliases repeat too much; write the values out")
		return nil
	}
	return n
}

// measure sets size and depth of a node and everything below it. What an alias stands for is measured already.
func (n *node) measure() {
	if n.size > 0 {
		return
	}
	n.size = 1 + len(n.text)
	if n.kind == kindList || n.kind == kindObject {
		n.depth = 1
	}
	for i, item := range n.items {
		item.measure()
		n.size += item.size
		n.depth = max(n.depth, item.depth+1)
		if n.kind == kindObject {
			n.size += len(n.keys[i])
		}
	}
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}
