package chain_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
)

func TestImportAssistants(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/assistants/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no assistants: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			chains, report, err := chain.ImportAssistants(read(t, file))
			var b bytes.Buffer
			fmt.Fprintf(&b, "error: %v\n", err)
			for _, change := range report.Changes {
				fmt.Fprintf(&b, "%q %s\n", change.Pointer, change.Detail)
			}
			for _, a := range report.Assistants {
				fmt.Fprintf(&b, "\n# %s %q -> %s\n", a.Pointer, a.Name, a.Chain)
				for _, change := range a.Changes {
					fmt.Fprintf(&b, "%q %s\n", change.Pointer, change.Detail)
				}
				for _, p := range a.Problems {
					fmt.Fprintf(&b, "PROBLEM %d %q %s: %s\n", p.Line, p.Pointer, p.Code, p.Detail)
				}
			}
			for _, c := range chains {
				fmt.Fprintf(&b, "\n%s", c.YAML())
				if err := c.Validate(); err != nil {
					t.Errorf("imported chain is not valid: %v", err)
				}
				roundTrip(t, c)
			}
			golden(t, file, b.Bytes())

			exported, lost := chain.ExportAssistants(chains)
			for _, a := range lost.Assistants {
				for _, change := range a.Changes {
					if *update {
						break
					}
					t.Logf("lost: %s %s", change.Pointer, change.Detail)
				}
			}
			if filepath.Base(file) != "lossless.json" {
				return
			}
			again, _, err := chain.ImportAssistants(exported)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(chains, again); diff != "" {
				t.Errorf("import of the export differs (-want +got):\n%s", diff)
			}
			for _, a := range lost.Assistants {
				if len(a.Changes) > 0 {
					t.Errorf("the export of %s lost %v", a.Name, a.Changes)
				}
			}
		})
	}
}

// TestExportAssistants writes the whole valid corpus as assistants; the golden file says what they cannot express.
func TestExportAssistants(t *testing.T) {
	t.Parallel()
	var chains []*chain.Chain
	for _, file := range []string{"contract.yaml", "inputs.yaml", "everything.json", "text.yaml", "positions.yaml"} {
		file = filepath.Join("testdata", "valid", file)
		c, err := chain.Parse(read(t, file), formatOf(file))
		if err != nil {
			t.Fatal(err)
		}
		chains = append(chains, c)
	}
	data, report := chain.ExportAssistants(chains)
	var b bytes.Buffer
	b.Write(data)
	for _, a := range report.Assistants {
		fmt.Fprintf(&b, "\n# %s %s\n", a.Pointer, a.Chain)
		for _, change := range a.Changes {
			fmt.Fprintf(&b, "%q %s\n", change.Pointer, change.Detail)
		}
	}
	golden(t, filepath.Join("testdata", "assistants", "export"), b.Bytes())

	again, imported, err := chain.ImportAssistants(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range imported.Assistants {
		if len(a.Problems) > 0 {
			t.Errorf("own export of %s is refused: %v", a.Chain, a.Problems)
		}
	}
	if len(again) != len(chains) {
		t.Errorf("imported %d chains of %d", len(again), len(chains))
	}
}

func TestImportAssistantsRefuses(t *testing.T) {
	t.Parallel()
	for document, want := range map[string]string{
		``:                                  "/ syntax",
		`[]`:                                "/ wrong_type",
		`{}`:                                "/version invalid /assistants required",
		`{"version":1.0,"assistants":[]}`:   "/version invalid",
		`{"version":"2.0","assistants":[]}`: "/version invalid",
		`{"version":"1.0","assistants":{}}`: "/assistants wrong_type",
		`{"version":"1.0","version":"1.0","assistants":[]}`: "/version duplicate_key",
	} {
		_, _, err := chain.ImportAssistants([]byte(document))
		var problems chain.Problems
		if !errors.As(err, &problems) {
			t.Errorf("import of %s: %v", document, err)
			continue
		}
		got := ""
		for i, p := range problems {
			if i > 0 {
				got += " "
			}
			if p.Pointer == "" {
				p.Pointer = "/"
			}
			got += p.Pointer + " " + p.Code
		}
		if got != want {
			t.Errorf("import of %s: %s, want %s", document, got, want)
		}
	}
	if _, _, err := chain.ImportAssistants(make([]byte, chain.MaxAssistantsBytes+1)); err == nil {
		t.Error("a document over the limit was read")
	}
}

// A number is the id of a chain, so an assistant whose name is one gets another.
func TestImportNumber(t *testing.T) {
	t.Parallel()
	chains, _, err := chain.ImportAssistants([]byte(`{"version": "1.0", "assistants": [{"name": "2024", "prompts": [
		{"name": "A", "content": "x", "model_name": "offline/echo", "position": 0}], "input_fields": []}]}`))
	if err != nil || len(chains) != 1 {
		t.Fatalf("%d chains, %v", len(chains), err)
	}
	if got := chains[0].Name; got != "assistant-2024" {
		t.Errorf("the chain is called %q", got)
	}
}
