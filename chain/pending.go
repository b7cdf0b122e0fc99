package chain

import "encoding/json"

// Format says how a document is written.
type Format int

// The formats of documents.
const (
	FormatJSON Format = iota
	FormatYAML
)

// Parse reads a document, fills in the defaults and validates it. The error is Problems, with everything that is wrong.
func Parse(data []byte, f Format) (*Chain, error) { panic("pending") }

// Validate checks a chain that was built by hand, with the pointers that its document would have.
func (c *Chain) Validate() error { panic("pending") }

// JSON is the normalised document, compact.
func (c *Chain) JSON() []byte { panic("pending") }

// YAML is the normalised document for people.
func (c *Chain) YAML() []byte { panic("pending") }

// Schema is the JSON Schema (2020-12) of documents.
func Schema() []byte { panic("pending") }

// CheckInputs checks the inputs of an execution, applies defaults and refuses what the chain does not have.
// The error is Problems with pointers /inputs/<name>.
func (c *Chain) CheckInputs(raw map[string]json.RawMessage) (map[string]any, error) { panic("pending") }

// State is what is known when a prompt is rendered.
type State struct {
	Inputs    map[string]any // as CheckInputs returned them (a JSON round trip of them does as well)
	Outputs   map[int]string // text by prompt index, finished prompts only
	Knowledge string         // the retrieved context, empty when there is none
}

// Rendered is a prompt with its variables resolved.
type Rendered struct {
	System        string
	User          string
	Variables     map[string]string // every reference that was substituted, as written, and its whole value
	Sources       []int             // indices of the prompts that gave values, ascending
	UsesKnowledge bool              // the templates say where the context goes
}

// UnresolvedError says that a value does not exist at run time.
type UnresolvedError struct {
	Name   string // the variable
	Path   string // the dotted path after it, "" for the whole value
	Reason string // a clause for people
}

// Error says which reference has no value and why.
func (e *UnresolvedError) Error() string { return "variable " + e.Name + ": " + e.Reason }

// Render resolves the system and user templates of prompt i.
func (c *Chain) Render(i int, s State) (Rendered, error) { panic("pending") }

// Query is the retrieval query of prompt i: its knowledge.query, or else its content, with variables resolved. It is
// made before there is any context, so ${knowledge} stands for nothing in it.
func (c *Chain) Query(i int, s State) (string, error) { panic("pending") }

// CheckOutput checks the text of a model against the output schema of prompt i, and returns the JSON value it holds.
func (c *Chain) CheckOutput(i int, text string) (json.RawMessage, error) { panic("pending") }

// ImportReport says what an import made of each assistant.
type ImportReport struct {
	Assistants []AssistantReport
}

// ExportReport says what an export could not express.
type ExportReport struct {
	Assistants []AssistantReport
}

// AssistantReport is the part of a report about one assistant.
type AssistantReport struct {
	Pointer  string   // the assistant in the assistants document, e.g. /assistants/0
	Name     string   // its name there
	Chain    string   // the name of the chain
	Changes  []Change // everything that was dropped or changed
	Problems Problems // why it could not be taken at all; there is no chain then
}

// Change is one thing that was dropped or changed.
type Change struct {
	Pointer string // into the document that was read
	Detail  string // a sentence for people
}

// ImportAssistants reads the version 1.0 assistants document.
func ImportAssistants(data []byte) ([]*Chain, ImportReport, error) { panic("pending") }

// ExportAssistants writes the version 1.0 assistants document.
func ExportAssistants(chains []*Chain) ([]byte, ExportReport) { panic("pending") }
