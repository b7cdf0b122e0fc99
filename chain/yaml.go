package chain

import (
	"errors"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxYAMLKeys is the largest number of keys of one YAML object. The parser's time grows with its square.
	maxYAMLKeys = 1000
	// maxAliased is how much text and how many values aliases may repeat in a document, together.
	maxAliased = 1 << 20
)

// readYAML reads the part of YAML that has a meaning in JSON. Anchors and aliases are understood as long as they repeat
// little; tags, merge keys, directives, several documents and keys that are not strings are problems.
func readYAML(data []byte, c *collector) *node {
	tokens := lexer.Tokenize(string(data))
	if !checkTokens(tokens, c) {
		return nil
	}
	body, ok := parseTokens(tokens, c)
	if !ok {
		return nil
	}
	r := &yamlReader{c: c, anchors: make(map[string]*node)}
	return r.value(body, "", 1)
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

// checkTokens refuses, before the recursive parser sees them, documents that are nested too deep or built to be slow.
// The depth it counts is never more than the real one.
func checkTokens(tokens token.Tokens, c *collector) bool {
	var blocks []block
	var flow []int // keys of the open flow collections
	headers := 0
	refuse := func(t *token.Token, code, format string, args ...any) bool {
		c.atLine(t.Position.Line, "", code, format, args...)
		return false
	}
	for i, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow = append(flow, 0)
		case token.SequenceEndType, token.MappingEndType:
			if len(flow) > 0 {
				flow = flow[:len(flow)-1]
			}
		case token.DocumentHeaderType, token.DocumentEndType:
			blocks, flow = nil, nil
			if headers++; headers > 2 {
				return refuse(t, CodeYAML, "there is more than one document; send one at a time")
			}
		case token.MappingKeyType:
			return refuse(t, CodeYAML, "keys after a question mark are not supported; write key: value")
		case token.DirectiveType:
			return refuse(t, CodeYAML, "directives are not supported")
		case token.SequenceEntryType, token.MappingValueType:
			list := t.Type == token.SequenceEntryType
			if len(flow) > 0 {
				flow[len(flow)-1]++
				if flow[len(flow)-1] > maxYAMLKeys {
					return refuse(t, CodeTooMany, "an object has more than %d keys", maxYAMLKeys)
				}
				continue
			}
			start := t
			if !list && i > 0 {
				start = tokens[i-1]
			}
			blocks = enterBlock(blocks, start.Position.Column, list)
			if !list && blocks[len(blocks)-1].keys > maxYAMLKeys {
				return refuse(t, CodeTooMany, "an object has more than %d keys", maxYAMLKeys)
			}
		}
		if len(blocks)+len(flow) > MaxDepth {
			return refuse(t, CodeTooDeep, "nested deeper than %d levels", MaxDepth)
		}
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
			top.keys++
			return blocks
		}
		if top.column == column && !top.list {
			break // a list may start in the column of the key that holds it
		}
		blocks = blocks[:len(blocks)-1]
	}
	return append(blocks, block{column: column, list: list, keys: 1})
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
