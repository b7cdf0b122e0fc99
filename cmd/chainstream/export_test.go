package main

import (
	"context"
	"encoding/json"
	"io"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/internal/sseclient"
	"github.com/chainstream/chainstream/knowledge/extract"
)

// What the tests drive: the whole program, and the parts whose cases a whole
// program cannot be brought to.
var (
	Run           = run
	Report        = report
	DatabaseError = databaseError
	Prices        = prices
)

// Values reads --input flags.
func Values(given []string, types map[string]chain.InputType) (map[string]json.RawMessage, error) {
	return inputFlags{Input: given}.values(types)
}

// Transcript shows events to people, as on a terminal or not.
func Transcript(w io.Writer, live bool, list []sseclient.Event) error {
	t := &transcript{w: w, live: live, prompts: make(map[int64]*shownPrompt)}
	for _, e := range list {
		if err := t.show(e); err != nil {
			return err
		}
	}
	return nil
}

// Extract takes a file apart as a server does that has PDFium in a file.
func Extract(ctx context.Context, pdfium, name string, data []byte) ([]extract.Block, error) {
	return extractor{pdfium: pdfium}.Extract(ctx, name, "", data)
}
