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

// mustParse parses a YAML document that is known to be good.
func mustParse(t testing.TB, document string) *chain.Chain {
	t.Helper()
	c, err := chain.Parse([]byte(document), chain.FormatYAML)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	return c
}

// resolverDocument has a prompt of every kind that a reference can name. Its last prompt is replaced by the tests.
const resolverDocument = `
name: resolver
inputs:
  topic: {type: short_text}
  clash: {type: short_text}
  mapped: {type: short_text}
  count: {type: number}
  flag: {type: boolean}
  many: {type: multi_select, options: [a, b, c]}
  data: {type: json}
  doc: {type: file}
  must: {type: json, required: true}
  constructor: {type: short_text}
prompts:
  - {name: Outline, position: 1, model: offline/echo, content: x}
  - {name: Clash, position: 1, model: offline/echo, content: x}
  - {name: Knowledge, position: 9, model: offline/echo, content: x}
  - {name: Second, position: 2, model: offline/echo, content: x}
  - name: Use
    position: 3
    model: offline/echo
    content: placeholder
    mapping: {gist: outline.summary, mapped: outline, who: inputs.topic, item: inputs.data.list}
    knowledge: {repositories: [1]}
`

func resolverState() chain.State {
	return chain.State{
		Inputs: map[string]any{
			"topic": "tea ${outline} {{count}} \\${x}", "clash": "from input", "mapped": "from input",
			"count": json.Number("1.50"), "flag": true, "many": []string{"c", "a"},
			"data": map[string]any{
				"z": 1.0, "a": []any{"x", json.Number("2.0"), nil, []any{1.0}}, "list": []any{"first", "second"},
				"html": "<&>", "null": nil, "constructor": "own",
			},
			"doc":         map[string]any{"name": "n.txt", "mimeType": "text/plain", "text": "body"},
			"must":        map[string]any{"a": "b"},
			"constructor": "builder",
		},
		Outputs: map[int]string{
			0: "```json\n{\"summary\": \"short\", \"sections\": [{\"title\": \"T0\"}, {\"title\": \"T1\"}], \"n\": 1e2, \"null\": null, \"z\": {\"b\": 1, \"a\": [1, 2]}}\n```",
			1: "clash output",
			3: "",
		},
		Knowledge: "the context",
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	outline := resolverState().Outputs[0]
	for _, test := range []struct {
		content string
		want    string
		sources []int
	}{
		{"${topic}", "tea ${outline} {{count}} \\${x}", nil},
		{"{{topic}}", "tea ${outline} {{count}} \\${x}", nil},
		{"a ${  clash\t} b {{ clash }} c", "a from input b from input c", nil},
		{"${mapped}", outline, []int{0}},
		{"${gist}", "short", []int{0}},
		{"${who}", "tea ${outline} {{count}} \\${x}", nil},
		{"${item}/${item.1}", "first, second/second", nil},
		{"${outline.sections.1.title}", "T1", []int{0}},
		{"${outline.sections.0}", `{"title":"T0"}`, []int{0}},
		{"${outline.n} ${outline.null} ${outline.z}", `100 null {"b":1,"a":[1,2]}`, []int{0}},
		{"${prompt_0_output.summary}", "short", []int{0}},
		{"${prompt_1_output} ${prompt_2_output}|", "clash output |", []int{1, 3}},
		{"${second}|", "|", []int{3}},
		{"${count} ${flag} ${many} ${many.1}", "1.5 true c, a a", nil},
		{"${data.a}", `x, 2, null, [1]`, nil},
		{"${data.z} ${data.html} ${data.constructor} ${constructor}", "1 <&> own builder", nil},
		{"${data}", `{"a":["x",2.0,null,[1]],"constructor":"own","html":"<&>","list":["first","second"],"null":null,"z":1}`, nil},
		{"${doc} ${doc.name} ${doc.mimeType} ${doc.text}", "body n.txt text/plain body", nil},
		{"${knowledge}!", "the context!", nil},
		{`\${topic} \{{topic}} \\${clash} \\\${clash} \x \`, `${topic} {{topic}} \from input \${clash} \x \`, nil},
		{"${ ${} ${a b} ${a..b} {{}} {{#if x}} {{clash} ${clash", "${ ${} ${a b} ${a..b} {{}} {{#if x}} {{clash} ${clash", nil},
		{"{{{clash}}} ${{clash}} {${clash}}", "{from input} $from input {from input}", nil},
		{"\\{{{clash}} $${clash}", "{{{clash}} $from input", nil},
		{"${clash}${clash}{{clash}}", "from inputfrom inputfrom input", nil},
	} {
		c := mustParse(t, resolverDocument)
		c.Prompts[4].Content = test.content
		c.Prompts[4].System = "S: " + test.content
		if err := c.Validate(); err != nil {
			t.Errorf("Validate with %q: %v", test.content, err)
		}
		got, err := c.Render(4, resolverState())
		if err != nil {
			t.Errorf("Render(%q): %v", test.content, err)
			continue
		}
		want := test.want
		if !strings.Contains(test.content, "${knowledge}") {
			want += "\n\n" + chain.KnowledgeHeading + "\n\nthe context"
		}
		if got.User != want || got.System != "S: "+test.want {
			t.Errorf("Render(%q) = %q and %q, want %q", test.content, got.User, got.System, want)
		}
		if diff := cmp.Diff(test.sources, got.Sources); diff != "" {
			t.Errorf("Sources of %q (-want +got):\n%s", test.content, diff)
		}
		if uses := strings.Contains(test.content, "${knowledge}"); got.UsesKnowledge != uses {
			t.Errorf("UsesKnowledge of %q = %v", test.content, got.UsesKnowledge)
		}
	}
}

func TestRenderVariables(t *testing.T) {
	t.Parallel()
	c := mustParse(t, resolverDocument)
	c.Prompts[4].System = "${ who }"
	c.Prompts[4].Content = "${outline.summary} {{outline.summary}} ${knowledge} text"
	got, err := c.Render(4, resolverState())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"who": "tea ${outline} {{count}} \\${x}", "outline.summary": "short", "knowledge": "the context"}
	if diff := cmp.Diff(want, got.Variables); diff != "" {
		t.Errorf("Variables (-want +got):\n%s", diff)
	}
}

func TestRenderUnresolved(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		content string
		change  func(*chain.State)
		want    chain.UnresolvedError
	}{
		{"${outline}", func(s *chain.State) { delete(s.Outputs, 0) },
			chain.UnresolvedError{Name: "outline", Reason: `prompt "Outline" has no output`}},
		{"${gist.deep}", func(s *chain.State) {},
			chain.UnresolvedError{Name: "gist", Path: "deep", Reason: `the output of prompt "Outline" has no part "summary.deep"`}},
		{"${outline.sections.2}", func(s *chain.State) {},
			chain.UnresolvedError{Name: "outline", Path: "sections.2", Reason: `the output of prompt "Outline" has no part "sections.2"`}},
		{"${outline.sections.00}", func(s *chain.State) {},
			chain.UnresolvedError{Name: "outline", Path: "sections.00", Reason: `the output of prompt "Outline" has no part "sections.00"`}},
		{"${prompt_1_output.x}", func(s *chain.State) {},
			chain.UnresolvedError{Name: "prompt_1_output", Path: "x", Reason: `the output of prompt "Clash" is not JSON`}},
		{"${data.toString}", func(s *chain.State) {},
			chain.UnresolvedError{Name: "data", Path: "toString", Reason: `the input data has no part "toString"`}},
		{"${must}", func(s *chain.State) { delete(s.Inputs, "must") },
			chain.UnresolvedError{Name: "must", Reason: `the input must is missing`}},
		{"${nothing}", func(s *chain.State) {},
			chain.UnresolvedError{Name: "nothing", Reason: `"nothing" is no input and no earlier prompt; there is topic, clash, mapped, count, flag, many, data, doc, …`}},
	} {
		c := mustParse(t, resolverDocument)
		c.Prompts[4].Content = test.content
		state := resolverState()
		test.change(&state)
		_, err := c.Render(4, state)
		var got *chain.UnresolvedError
		if !errors.As(err, &got) {
			t.Errorf("Render(%q) = %v, want an UnresolvedError", test.content, err)
			continue
		}
		if diff := cmp.Diff(test.want, *got); diff != "" {
			t.Errorf("Render(%q) (-want +got):\n%s", test.content, diff)
		}
	}
}

func TestRenderOptionalInput(t *testing.T) {
	t.Parallel()
	c := mustParse(t, resolverDocument)
	c.Prompts[4].Content = "[${topic}${data}${data.a.b}${many}${doc.name}]"
	got, err := c.Render(4, chain.State{})
	if err != nil || got.User != "[]" {
		t.Errorf("Render = %q, %v, want empty texts", got.User, err)
	}
}

// TestRenderAfterStorage shows that inputs survive a JSON round trip without the rendered text changing.
func TestRenderAfterStorage(t *testing.T) {
	t.Parallel()
	c := mustParse(t, resolverDocument)
	c.Prompts[4].Content = "${topic} ${count} ${flag} ${many} ${many.0} ${data} ${data.a} ${doc} ${doc.name}"
	given := map[string]json.RawMessage{
		"topic": json.RawMessage(`"a <b>"`), "count": json.RawMessage(`1.50e1`), "flag": json.RawMessage(`false`),
		"many": json.RawMessage(`["b"]`), "data": json.RawMessage(`{"z":1.0,"a":[2e0,-0.0,1e30,null,"x"]}`),
		"doc": json.RawMessage(`"body"`), "must": json.RawMessage(`{}`),
	}
	inputs, err := c.CheckInputs(given)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(inputs)
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]any
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	const want = `a <b> 15 false b b {"a":[2,0,1e+30,null,"x"],"z":1} 2, 0, 1e+30, null, x body doc`
	for _, values := range []map[string]any{inputs, stored} {
		got, err := c.Render(4, chain.State{Inputs: values})
		if err != nil || got.User != want {
			t.Errorf("Render = %q, %v, want %q", got.User, err, want)
		}
	}
}

func TestRenderTooLarge(t *testing.T) {
	t.Parallel()
	c := mustParse(t, resolverDocument)
	c.Prompts[4].Content = strings.Repeat("${topic}", 1000)
	state := resolverState()
	state.Inputs["topic"] = strings.Repeat("x", chain.MaxRenderedBytes/999)
	if _, err := c.Render(4, state); !errors.Is(err, chain.ErrRenderedTooLarge) {
		t.Errorf("Render = %v, want ErrRenderedTooLarge", err)
	}
}

func TestQuery(t *testing.T) {
	t.Parallel()
	c := mustParse(t, resolverDocument)
	c.Prompts[4].Content = "About ${clash}: ${knowledge}"
	for query, want := range map[string]string{"": "About from input: ", "only ${gist}": "only short"} {
		c.Prompts[4].Knowledge.Query = query
		if got, err := c.Query(4, resolverState()); err != nil || got != want {
			t.Errorf("Query with %q = %q, %v, want %q", query, got, err, want)
		}
	}
}

func TestCheckOutput(t *testing.T) {
	t.Parallel()
	c := mustParse(t, resolverDocument)
	c.Prompts[4].Output = &chain.Output{Schema: json.RawMessage(`{"type":"object","required":["a"],"properties":{"a":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"integer"}}}`)}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`{"b": [1, 2], "a": 1}`:    `{"b":[1,2],"a":1}`,
		"```json\n{\"a\":1}\n```":  `{"a":1}`,
		" ```\n{\"a\":1}\n```\n":   `{"a":1}`,
		`{"a":"<1>"}`:              "output does not match its schema: a: got string, want integer",
		`{}`:                       "output does not match its schema: the value: missing property 'a'",
		`not JSON`:                 "output does not match its schema: it is not JSON",
		`{"a":1e999999999}`:        "output does not match its schema: it is not JSON",
		strings.Repeat("[", 10000): "output does not match its schema: it is not JSON",
	} {
		got, err := c.CheckOutput(4, text)
		var mismatch *chain.OutputError
		if err != nil && !errors.As(err, &mismatch) {
			t.Errorf("CheckOutput(%.40q) = %v, want an OutputError", text, err)
		}
		if s := string(got); err == nil && s != want || err != nil && err.Error() != want {
			t.Errorf("CheckOutput(%.40q) = %q, %v, want %q", text, s, err, want)
		}
	}
	if got, err := c.CheckOutput(0, " [1, true] "); err != nil || string(got) != "[1,true]" {
		t.Errorf("without a schema = %s, %v", got, err)
	}
}

// A schema cannot keep a check busy for long, whatever it asks for; an ordinary one has room to spare.
func TestCheckOutputEffort(t *testing.T) {
	t.Parallel()
	doubling := func(keyword, leaf string) string {
		var b strings.Builder
		b.WriteString(`{"$ref": "#/$defs/d0", "$defs": {`)
		for i := range 30 {
			fmt.Fprintf(&b, `"d%d": {"%s": [{"$ref": "#/$defs/d%d"}, {"$ref": "#/$defs/d%d"}]}, `, i, keyword, i+1, i+1)
		}
		return b.String() + `"d30": ` + leaf + `}}`
	}
	const itself = `{"properties": {"a": {"$ref": "#"}}}`
	rows := "[" + strings.Repeat(`{"id": 1, "name": "x", "tags": ["a", "b"]},`, 5000) + `{"id": 2, "name": "y", "tags": []}]`
	for _, c := range []struct {
		name, schema, output string
		refused              bool
	}{
		{"allOf that doubles", doubling("allOf", `{"type": "object"}`), `{}`, true},
		{"allOf that doubles and fails", doubling("allOf", `{"type": "string"}`), `{}`, true},
		{"anyOf that doubles", doubling("anyOf", `false`), `1`, true},
		{"older draft", strings.Replace(doubling("oneOf", `true`), `"$ref"`, `"$schema": "http://json-schema.org/draft-07/schema#", "allOf": [{"$ref": "#/$defs/d0"}], "$comment"`, 1), `{}`, true},
		{"doubling with the depth of the value", `{"allOf": [` + itself + `,` + itself + `]}`, strings.Repeat(`{"a":`, 60) + "1" + strings.Repeat("}", 60), true},
		{"pattern on a long text, many times", `{"allOf": [` + strings.Repeat(`{"pattern": "(a|b)*c"},`, 4000) + `{}]}`, `"` + strings.Repeat("a", 1<<20) + `"`, true},
		{"recursive", `{"type": "object", "properties": {"next": {"$ref": "#"}}}`, strings.Repeat(`{"next":`, 60) + "{}" + strings.Repeat("}", 60), false},
		{"itself beside another", `{"anyOf": [{"$ref": "#"}, {"type": "object"}]}`, `{}`, false},
		{"many rows", `{"type": "array", "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"},
			"name": {"enum": ["x", "y"]}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}}}, "additionalProperties": false}}`, rows, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := mustParse(t, resolverDocument)
			p.Prompts[4].Output = &chain.Output{Schema: json.RawMessage(c.schema)}
			_, err := p.CheckOutput(4, c.output)
			var mismatch *chain.OutputError
			if c.refused && (!errors.As(err, &mismatch) || !strings.Contains(mismatch.Reason, "too many steps")) {
				t.Errorf("CheckOutput = %v, want a refusal", err)
			}
			if !c.refused && err != nil {
				t.Errorf("CheckOutput = %v", err)
			}
		})
	}
}
