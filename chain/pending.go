package chain

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
