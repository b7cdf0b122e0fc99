package executor_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/knowledge"
)

// library is a retriever with two passages.
type library struct{}

func (library) Missing(context.Context, []int64) ([]int64, error) { return nil, nil }

func (library) Retrieve(_ context.Context, q knowledge.Query) (knowledge.Result, error) {
	return knowledge.Result{Passages: []knowledge.Passage{
		{ChunkID: 11, DocumentID: 1, Document: "Guide", Text: "Rivers flow.", Score: 0.9},
		{ChunkID: 12, DocumentID: 1, Document: "Guide", Text: "About: " + q.Text, Score: 0.7},
	}}, nil
}

// panicking is a retriever with a bug.
type panicking struct{ library }

func (panicking) Retrieve(context.Context, knowledge.Query) (knowledge.Result, error) {
	panic(errors.New("a bug"))
}

// compileSchemas compiles the published schema of every event.
func compileSchemas(t *testing.T) map[events.Type]*jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(events.Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("events.json", doc); err != nil {
		t.Fatal(err)
	}
	out := make(map[events.Type]*jsonschema.Schema)
	for _, name := range events.Types() {
		if out[name], err = c.Compile("events.json#/$defs/" + string(name)); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
