package chain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/chainstream/chainstream/chain"
)

var update = flag.Bool("update", false, "write the golden files")

// documents lists the files of a part of the corpus.
func documents(t testing.TB, part string) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.yaml", "*.json"} {
		found, err := filepath.Glob(filepath.Join("testdata", part, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		t.Fatalf("no documents in testdata/%s", part)
	}
	return files
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func formatOf(file string) chain.Format {
	if strings.HasSuffix(file, ".json") {
		return chain.FormatJSON
	}
	return chain.FormatYAML
}

// golden compares with a golden file, or writes it with -update.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	file += ".golden"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(read(t, file)), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestParseValid(t *testing.T) {
	t.Parallel()
	for _, file := range documents(t, "valid") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			c, err := chain.Parse(read(t, file), formatOf(file))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Validate(); err != nil {
				t.Errorf("Validate: %v", err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, c.JSON(), "", "  "); err != nil {
				t.Fatalf("JSON is not JSON: %v", err)
			}
			golden(t, file, append(pretty.Bytes(), '\n'))
			roundTrip(t, c)
		})
	}
}

// roundTrip parses what a chain writes and expects an equal chain.
func roundTrip(t testing.TB, c *chain.Chain) {
	t.Helper()
	for format, data := range map[chain.Format][]byte{chain.FormatJSON: c.JSON(), chain.FormatYAML: c.YAML()} {
		again, err := chain.Parse(data, format)
		if err != nil {
			t.Fatalf("parse own document: %v\n%s", err, data)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatalf("own document differs (-want +got):\n%s\n%s", diff, data)
		}
		if !bytes.Equal(c.JSON(), again.JSON()) {
			t.Fatalf("own document is not stable:\n%s\n%s", c.JSON(), again.JSON())
		}
	}
}

func TestParseInvalid(t *testing.T) {
	t.Parallel()
	for _, file := range documents(t, "invalid") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			c, err := chain.Parse(read(t, file), formatOf(file))
			var problems chain.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("Parse = %v, %v, want Problems", c, err)
			}
			var b bytes.Buffer
			for _, p := range problems {
				fmt.Fprintf(&b, "%d %q %s: %s\n", p.Line, p.Pointer, p.Code, p.Detail)
			}
			golden(t, file, b.Bytes())
		})
	}
}

// beyondSchema are the invalid documents whose fault JSON Schema cannot express, or sees only in the bytes.
var beyondSchema = map[string]bool{
	"references.yaml": true, "slugs.yaml": true, "limits.json": true, "surrogate.json": true,
}

// TestSchemaAgrees shows that the published schema accepts what Parse accepts and refuses the documents of the invalid
// corpus that are JSON at all and whose fault a schema can express.
func TestSchemaAgrees(t *testing.T) {
	t.Parallel()
	schema := compiled(t)
	for _, file := range documents(t, "valid") {
		c, err := chain.Parse(read(t, file), formatOf(file))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(decoded(t, c.JSON())); err != nil {
			t.Errorf("schema refuses the normalised %s: %v", file, err)
		}
		if data := bytes.TrimPrefix(read(t, file), []byte("\ufeff")); formatOf(file) == chain.FormatJSON {
			if err := schema.Validate(decoded(t, data)); err != nil {
				t.Errorf("schema refuses %s: %v", file, err)
			}
		}
	}
	refused := 0
	for _, file := range documents(t, "invalid") {
		data := read(t, file)
		if formatOf(file) != chain.FormatJSON || !json.Valid(data) || beyondSchema[filepath.Base(file)] {
			continue
		}
		refused++
		if schema.Validate(decoded(t, data)) == nil && !strings.HasPrefix(filepath.Base(file), "duplicate") {
			t.Errorf("schema accepts %s", file)
		}
	}
	if refused < 5 {
		t.Errorf("only %d invalid documents were tried", refused)
	}
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("chain:/schema", decoded(t, chain.Schema())); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("chain:/schema")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func decoded(t *testing.T, data []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestSchemaFields changes one field of a good document at a time and expects schema and Parse to agree on each.
func TestSchemaFields(t *testing.T) {
	t.Parallel()
	schema := compiled(t)
	for _, test := range []struct {
		where, fragment string
		ok              bool
	}{
		{"prompt", `"temperature":2`, true},
		{"prompt", `"temperature":2.01`, false},
		{"prompt", `"temperature":"1"`, false},
		{"prompt", `"topP":1.1`, false},
		{"prompt", `"maxTokens":1`, true},
		{"prompt", `"maxTokens":1e3`, true},
		{"prompt", `"maxTokens":0`, false},
		{"prompt", `"maxTokens":1.5`, false},
		{"prompt", `"timeout":"1h30m"`, true},
		{"prompt", `"timeout":"60"`, false},
		{"prompt", `"timeout":"-1s"`, false},
		{"prompt", `"timeout":60`, false},
		{"prompt", `"retry":{"attempts":10}`, true},
		{"prompt", `"retry":{}`, true},
		{"prompt", `"retry":{"attempts":11}`, false},
		{"prompt", `"retry":{"attempts":0}`, false},
		{"prompt", `"onError":"continue"`, true},
		{"prompt", `"onError":"retry"`, false},
		{"prompt", `"history":"last:1000"`, true},
		{"prompt", `"history":"last:1001"`, false},
		{"prompt", `"history":"last:0"`, false},
		{"prompt", `"history":"last:01"`, false},
		{"prompt", `"tools":["a","a"]`, false},
		{"prompt", `"tools":["mcp/a.b:c-d"]`, true},
		{"prompt", `"tools":["a b"]`, false},
		{"prompt", `"fallback":["a/b","a/b"]`, false},
		{"prompt", `"stop":[""]`, false},
		{"prompt", `"seed":-5`, true},
		{"prompt", `"seed":1.5`, false},
		{"prompt", `"images":[]`, true},
		{"prompt", `"images":"i"`, false},
		{"prompt", `"images":["a b"]`, false},
		{"prompt", `"images":[1]`, false},
		{"prompt", `"cache":"1h"`, true},
		{"prompt", `"cache":{"ttl":"720h"}`, true},
		{"prompt", `"cache":{}`, false},
		{"prompt", `"cache":{"ttl":"1d"}`, false},
		{"prompt", `"cache":{"ttl":60}`, false},
		{"prompt", `"cache":{"ttl":"1h","key":"x"}`, false},
		{"prompt", `"cache":true`, false},
		{"prompt", `"output":{}`, false},
		{"prompt", `"output":{"schema":true}`, false},
		{"prompt", `"output":{"schema":{"type":"string"}}`, true},
		{"prompt", `"knowledge":{}`, false},
		{"prompt", `"knowledge":{"repositories":[]}`, false},
		{"prompt", `"knowledge":{"repositories":[1],"threshold":1}`, true},
		{"prompt", `"knowledge":{"repositories":[1,1]}`, false},
		{"prompt", `"knowledge":{"repositories":[1],"search":"x"}`, false},
		{"prompt", `"mapping":{"a":"inputs.i"}`, true},
		{"prompt", `"mapping":{"a b":"inputs.i"}`, false},
		{"prompt", `"mapping":{"a":"inputs..i"}`, false},
		{"prompt", `"system":null`, false},
		{"prompt", `"Temperature":1`, false},
		{"input", `"type":"short_text","maxLength":1`, true},
		{"input", `"type":"short_text","maxLength":0`, false},
		{"input", `"type":"short_text","default":5`, false},
		{"input", `"type":"number","default":5,"min":5,"max":5`, true},
		{"input", `"type":"number","maxLength":5`, false},
		{"input", `"type":"boolean","default":false`, true},
		{"input", `"type":"boolean","default":"false"`, false},
		{"input", `"type":"boolean","min":1`, false},
		{"input", `"type":"select"`, false},
		{"input", `"type":"select","options":[]`, false},
		{"input", `"type":"select","options":["a",{"value":"b","label":"B"}]`, true},
		{"input", `"type":"select","options":[1]`, false},
		{"input", `"type":"select","options":[{"label":"B"}]`, false},
		{"input", `"type":"select","options":["a"],"minSelections":1`, false},
		{"input", `"type":"multi_select","options":["a"],"default":["a"]`, true},
		{"input", `"type":"multi_select","options":["a"],"default":"a"`, false},
		{"input", `"type":"short_text","options":["a"]`, false},
		{"input", `"type":"json","default":[1,{"a":null}]`, true},
		{"input", `"type":"json","default":null`, false},
		{"input", `"type":"file","default":"x"`, false},
		{"input", `"type":"color"`, false},
		{"input", `"label":"no type"`, false},
		{"chain", `"limits":{"timeout":"24h","maxCostUsd":0.5}`, true},
		{"chain", `"limits":{"maxCostUsd":0}`, false},
		{"chain", `"limits":{"cost":1}`, false},
		{"chain", `"description":5`, false},
	} {
		parts := map[string]string{"prompt": "", "input": `"type":"short_text"`, "chain": ""}
		parts[test.where] = test.fragment
		for _, where := range []string{"prompt", "chain"} {
			if parts[where] != "" {
				parts[where] = "," + parts[where]
			}
		}
		doc := fmt.Sprintf(`{"name":"x","inputs":{"i":{%s}},"prompts":[{"name":"A","model":"a/b","content":"c"%s}]%s}`,
			parts["input"], parts["prompt"], parts["chain"])
		_, err := chain.Parse([]byte(doc), chain.FormatJSON)
		if (err == nil) != test.ok {
			t.Errorf("Parse with %s: %v, want ok = %v", test.fragment, err, test.ok)
		}
		if err := schema.Validate(decoded(t, []byte(doc))); (err == nil) != test.ok {
			t.Errorf("schema with %s: %v, want ok = %v", test.fragment, err, test.ok)
		}
	}
}
