package chain

import (
	_ "embed" // the published schema
	"slices"
)

//go:embed schema.json
var schemaJSON []byte

// Schema is the published JSON Schema (2020-12) of documents. It describes their shape; what needs the whole document,
// such as references, duplicates and compilable output schemas, only Parse can tell.
func Schema() []byte { return slices.Clone(schemaJSON) }
