// Package examples holds chains to begin with. They run on the built-in demo
// model, so they need no API key; a server without any chain starts with them.
package examples

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed *.yaml
var documents embed.FS

// Document is one example chain.
type Document struct {
	Name string // of the file
	YAML []byte
}

// All answers the examples by the names of their files.
func All() ([]Document, error) {
	names, err := fs.Glob(documents, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the examples: %w", err)
	}
	list := make([]Document, len(names))
	for i, name := range names {
		text, err := documents.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read the example %s: %w", name, err)
		}
		list[i] = Document{Name: name, YAML: text}
	}
	return list, nil
}
