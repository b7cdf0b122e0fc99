package events

import _ "embed"

// Schema is the JSON Schema (draft 2020-12) of the events' data: one definition
// per event name under "$defs".
//
//go:embed schema.json
var Schema []byte
