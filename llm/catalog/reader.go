package catalog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxBytes is the size of the largest document.
const maxBytes = 1 << 20

// reader reads the syntax tree of a document and says where a mistake is.
type reader struct{ name string }

// errorf is a mistake at a node.
func (r *reader) errorf(n ast.Node, format string, args ...any) error {
	var at *token.Token
	if n != nil {
		at = n.GetToken()
		// The token of an object in block style is its first colon.
		if v, ok := n.(*ast.MappingNode); ok && !v.IsFlowStyle && len(v.Values) > 0 {
			n = v.Values[0]
		}
		if v, ok := n.(*ast.MappingValueNode); ok {
			at = v.Key.GetToken()
		}
	}
	return r.at(at, format, args...)
}

func (r *reader) at(t *token.Token, format string, args ...any) error {
	where := r.name
	if t != nil && t.Position != nil {
		where = fmt.Sprintf("%s:%d:%d", r.name, t.Position.Line, t.Position.Column)
	}
	return fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...))
}

// document parses the text; the parser is known to panic on some texts.
func (r *reader) document(data []byte) (root ast.Node, err error) {
	defer func() {
		if recover() != nil {
			root, err = nil, fmt.Errorf("%s: this is not valid YAML; compare it with docs/models.md", r.name)
		}
	}()
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s: the file has %d bytes; at most %d are allowed", r.name, len(data), maxBytes)
	}
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		if at, ok := errors.AsType[yaml.Error](err); ok {
			return nil, r.at(at.GetToken(), "not valid YAML: %s; correct it", strings.Join(strings.Fields(at.GetMessage()), " "))
		}
		return nil, fmt.Errorf("%s: this is not valid YAML; compare it with docs/models.md", r.name)
	}
	for _, d := range file.Docs {
		switch {
		case d.Body == nil:
		case root != nil:
			return nil, r.errorf(d.Body, "there is a second document; put everything into one")
		default:
			root = d.Body
		}
	}
	return root, nil
}

// fields reads an object with the given fields only. Nothing is an object
// without any.
func (r *reader) fields(n ast.Node, what string, known map[string]func(ast.Node) error) error {
	return r.members(n, what, func(key ast.Node, name string, value ast.Node) error {
		read := known[name]
		if read == nil {
			return r.errorf(key, "%s has no field %q; there are %s", what, name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		return read(value)
	})
}

// members reads an object with any keys.
func (r *reader) members(n ast.Node, what string, read func(key ast.Node, name string, value ast.Node) error) error {
	var values []*ast.MappingValueNode
	switch v := n.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return nil
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		return r.errorf(n, "%s must be an object; write its fields as name: value", what)
	}
	seen := make(map[string]bool, len(values))
	for _, v := range values {
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			return r.errorf(v.Key, "this key cannot be used here; write a name, in quotes if it looks like a number")
		}
		if seen[key.Value] {
			return r.errorf(key, "%q is there twice; remove one", key.Value)
		}
		seen[key.Value] = true
		if err := read(key, key.Value, v.Value); err != nil {
			return err
		}
	}
	return nil
}

// items reads a list.
func (r *reader) items(n ast.Node, what string, read func(ast.Node) error) error {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		return r.errorf(n, "%s must be a list; write - before each, or [a, b]", what)
	}
	for _, item := range list.Values {
		if err := read(item); err != nil {
			return err
		}
	}
	return nil
}

// text reads a scalar as it is written, so that 0.40 keeps its digits.
func (r *reader) text(n ast.Node, what string) (string, error) {
	text := ""
	switch v := n.(type) {
	case *ast.StringNode:
		text = v.Value
	case *ast.LiteralNode:
		text = v.Value.Value
	case *ast.IntegerNode, *ast.FloatNode:
		text = n.GetToken().Value
	default:
		return "", r.errorf(n, "%s must be a text", what)
	}
	if text == "" {
		return "", r.errorf(n, "%s is empty; write it, or remove the line", what)
	}
	return text, nil
}
