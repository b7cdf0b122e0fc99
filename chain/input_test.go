package chain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
)

const inputsDocument = `
name: inputs
inputs:
  short: {type: short_text, maxLength: 3}
  long: {type: long_text, required: true, default: none}
  pick: {type: select, options: [a, b]}
  many: {type: multi_select, options: [a, b, c], minSelections: 1, maxSelections: 2}
  count: {type: number, min: 1, max: 10, default: 2}
  flag: {type: boolean}
  data: {type: json}
  doc: {type: file, maxLength: 5}
  must: {type: multi_select, options: [x], required: true}
prompts:
  - {name: A, model: offline/echo, content: "${data.title} ${data.list.1}"}
`

func raw(pairs ...string) map[string]json.RawMessage {
	m := map[string]json.RawMessage{"must": json.RawMessage(`["x"]`)}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = json.RawMessage(pairs[i+1])
	}
	return m
}

func TestCheckInputs(t *testing.T) {
	t.Parallel()
	c := mustParse(t, inputsDocument)
	file := func(name, mime, text string) map[string]any {
		return map[string]any{"name": name, "mimeType": mime, "text": text}
	}
	for _, test := range []struct {
		name, value string
		want        any // nil = left out
	}{
		{"short", `"äöü"`, "äöü"},
		{"short", `""`, ""},
		{"short", `null`, nil},
		{"long", `"${topic}\n"`, "${topic}\n"},
		{"long", `null`, "none"},
		{"pick", `"b"`, "b"},
		{"pick", `""`, nil},
		{"many", `["c","a"]`, []string{"c", "a"}},
		{"count", `1.50`, json.Number("1.5")},
		{"count", `1e1`, json.Number("10")},
		{"count", `null`, json.Number("2")},
		{"flag", `false`, false},
		{"data", `{"title":1.0,"list":[1,null]}`, map[string]any{"title": json.Number("1"), "list": []any{json.Number("1"), nil}}},
		{"doc", `"text"`, file("doc", "text/plain", "text")},
		{"doc", `{"name":"n","mimeType":"text/csv","text":"a,b"}`, file("n", "text/csv", "a,b")},
		{"doc", `{"base64":"aMOk"}`, file("doc", "text/plain", "hä")},
	} {
		got, err := c.CheckInputs(raw(test.name, test.value))
		if err != nil {
			t.Errorf("CheckInputs(%s: %s): %v", test.name, test.value, err)
			continue
		}
		if diff := cmp.Diff(test.want, got[test.name]); diff != "" {
			t.Errorf("CheckInputs(%s: %s) (-want +got):\n%s", test.name, test.value, diff)
		}
	}
	got, err := c.CheckInputs(raw())
	want := map[string]any{"long": "none", "count": json.Number("2"), "must": []string{"x"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("defaults: %v (-want +got):\n%s", err, diff)
	}
}

func TestCheckInputsRefuses(t *testing.T) {
	t.Parallel()
	c := mustParse(t, inputsDocument)
	for _, test := range []struct{ name, value, want string }{
		{"short", `"four"`, "/inputs/short too_large"},
		{"short", `5`, "/inputs/short wrong_type"},
		{"short", `"a\u0000"`, "/inputs/short nul_character"},
		{"short", `"\ud800"`, "/inputs/short invalid_utf8"},
		{"short", "\"\xff\"", "/inputs/short invalid_utf8"},
		{"short", `{`, "/inputs/short syntax"},
		{"long", `""`, "/inputs/long required"},
		{"pick", `"c"`, "/inputs/pick invalid"},
		{"pick", `["a"]`, "/inputs/pick wrong_type"},
		{"many", `[]`, "/inputs/many out_of_range"},
		{"many", `["a","b","c"]`, "/inputs/many out_of_range"},
		{"many", `["a","a"]`, "/inputs/many/1 duplicate"},
		{"many", `["z","a"]`, "/inputs/many/0 invalid"},
		{"many", `"a"`, "/inputs/many wrong_type"},
		{"many", `[1]`, "/inputs/many wrong_type"},
		{"count", `"5"`, "/inputs/count wrong_type"},
		{"count", `0.99`, "/inputs/count out_of_range"},
		{"count", `11`, "/inputs/count out_of_range"},
		{"count", `1e999`, "/inputs/count out_of_range"},
		{"flag", `"true"`, "/inputs/flag wrong_type"},
		{"data", `{"a":1,"a":2}`, "/inputs/data/a duplicate_key"},
		{"data", strings.Repeat("[", 65) + strings.Repeat("]", 65), "/inputs/data" + strings.Repeat("/0", 64) + " too_deep"},
		{"data", `{"title":"x","list":[1]}`, "/inputs/data invalid"},
		{"data", `"no object"`, "/inputs/data invalid"},
		{"doc", `"longer"`, "/inputs/doc too_large"},
		{"doc", `5`, "/inputs/doc wrong_type"},
		{"doc", `{"name":"x"}`, "/inputs/doc required"},
		{"doc", `{"text":"x","base64":"eA=="}`, "/inputs/doc required"},
		{"doc", `{"text":5}`, "/inputs/doc/text wrong_type"},
		{"doc", `{"text":"x","url":"y"}`, "/inputs/doc/url unknown_field"},
		{"doc", `{"base64":"%%"}`, "/inputs/doc/base64 invalid"},
		{"doc", `{"base64":"/w=="}`, "/inputs/doc/base64 invalid"},
		{"must", `[]`, "/inputs/must required"},
		{"must", `null`, "/inputs/must required"},
		{"surplus", `1`, "/inputs/surplus unknown_input"},
		{"constructor", `1`, "/inputs/constructor unknown_input"},
		{"a/b~c", `1`, "/inputs/a~1b~0c unknown_input"},
	} {
		got, err := c.CheckInputs(raw(test.name, test.value))
		var problems chain.Problems
		if !errors.As(err, &problems) || len(problems) != 1 {
			t.Errorf("CheckInputs(%s: %.40s) = %v, %v, want one problem", test.name, test.value, got, err)
			continue
		}
		if s := problems[0].Pointer + " " + problems[0].Code; s != test.want {
			t.Errorf("CheckInputs(%s: %.40s): %s, want %s", test.name, test.value, s, test.want)
		}
	}
}

func TestCheckInputsReportsAll(t *testing.T) {
	t.Parallel()
	c := mustParse(t, inputsDocument)
	_, err := c.CheckInputs(map[string]json.RawMessage{
		"short": json.RawMessage(`5`), "flag": json.RawMessage(`5`), "b": nil, "a": json.RawMessage(`1`),
	})
	var problems chain.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	got := ""
	for _, p := range problems {
		got += p.Pointer + " "
	}
	if want := "/inputs/short /inputs/flag /inputs/must /inputs/a /inputs/b "; got != want {
		t.Errorf("problems at %s, want %s", got, want)
	}
}

func TestFileLimit(t *testing.T) {
	t.Parallel()
	c := mustParse(t, "name: f\ninputs: {doc: {type: file}}\nprompts: [{name: A, model: offline/echo, content: '${doc}'}]\n")
	for size, ok := range map[int]bool{chain.MaxFileBytes: true, chain.MaxFileBytes + 1: false} {
		_, err := c.CheckInputs(map[string]json.RawMessage{"doc": fmt.Appendf(nil, "%q", strings.Repeat("x", size))})
		if (err == nil) != ok {
			t.Errorf("file of %d bytes: %v, want ok = %v", size, err, ok)
		}
	}
}
