package chain_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/chainstream/chainstream/chain"
)

// FuzzParse reads anything. What is accepted can be written and read again without a difference.
func FuzzParse(f *testing.F) {
	for _, part := range []string{"valid", "invalid"} {
		for _, file := range documents(f, part) {
			f.Add(read(f, file), formatOf(file) == chain.FormatYAML)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, yaml bool) {
		format := chain.FormatJSON
		if yaml {
			format = chain.FormatYAML
		}
		c, err := chain.Parse(data, format)
		if err != nil {
			var problems chain.Problems
			if !errors.As(err, &problems) || len(problems) == 0 || len(problems) > chain.MaxProblems+1 {
				t.Fatalf("error is not a list of problems: %v", err)
			}
			for _, p := range problems {
				if p.Code == "" || p.Detail == "" || !utf8.ValidString(p.Detail+p.Pointer) {
					t.Fatalf("unfit problem %+v", p)
				}
			}
			return
		}
		roundTrip(t, c)
	})
}

// FuzzRender puts any text into a template and any text into an input.
func FuzzRender(f *testing.F) {
	for _, template := range []string{"", "plain", "${topic}", `\${topic}`, "{{ topic }} ${topic.x}", "{{{topic}}}", `\\${a b}`, "${${topic}}", "$$$", `\`} {
		f.Add(template, "value ${topic} {{topic}}")
	}
	f.Fuzz(func(t *testing.T, template, value string) {
		c := &chain.Chain{
			Name:    "fuzz",
			Inputs:  []chain.Input{{Name: "topic", Type: chain.InputLongText}},
			Prompts: []chain.Prompt{{Name: "A", Position: 1, Content: template}},
		}
		got, err := c.Render(0, chain.State{Inputs: map[string]any{"topic": value}})
		if err != nil {
			var unresolved *chain.UnresolvedError
			if !errors.As(err, &unresolved) && !errors.Is(err, chain.ErrRenderedTooLarge) {
				t.Fatalf("Render: %v", err)
			}
		} else {
			if len(got.Variables) == 0 && got.User != unescaped(template) {
				t.Errorf("Render(%q) = %q without a reference, want %q", template, got.User, unescaped(template))
			}
			if n := len(got.Variables); n > 1 || n == 1 && got.Variables["topic"] != value {
				t.Errorf("Variables = %q", got.Variables)
			}
		}

		// A value is text whatever it holds, wherever it stands.
		c.Prompts[0].Content = "<${topic}>{{topic}}"
		got, err = c.Render(0, chain.State{Inputs: map[string]any{"topic": value}})
		if want := "<" + value + ">" + value; err != nil || got.User != want {
			t.Errorf("value %q became %q, %v", value, got.User, err)
		}
	})
}

// unescaped removes the escapes of a text in which no reference matches: of the backslashes directly before an opener,
// half, rounded up, are gone. An opener whose braces are text hides the ones that overlap it.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		j := i
		for j < len(s) && s[j] == '\\' {
			j++
		}
		slashes := j - i
		if opener := strings.HasPrefix(s[j:], "${") || strings.HasPrefix(s[j:], "{{"); opener {
			b.WriteString(s[i : i+slashes/2])
			n := 1
			if slashes%2 == 1 {
				n = 2
			}
			b.WriteString(s[j : j+n])
			i = j + n
			continue
		}
		j = max(j, i+1)
		b.WriteString(s[i:j])
		i = j
	}
	return b.String()
}

// FuzzImport reads anything as an assistants document. What is taken is a valid chain and can be exported and imported.
func FuzzImport(f *testing.F) {
	for _, file := range []string{"lossless.json", "odd.json"} {
		f.Add(read(f, "testdata/assistants/"+file))
	}
	text, err := json.Marshal(`\${topic} {{{{topic}} \\{{a}} ${ topic }`)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"version":"1.0","assistants":[{"name":"x","prompts":[{"name":"A","content":` + string(text) +
		`,"model_name":"o1","position":0}],"input_fields":[{"name":"topic","label":"","field_type":"short_text","position":0}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		chains, report, err := chain.ImportAssistants(data)
		if err != nil {
			return
		}
		refused := 0
		for _, a := range report.Assistants {
			if len(a.Problems) > 0 {
				refused++
			}
		}
		if len(chains)+refused != len(report.Assistants) {
			t.Fatalf("%d chains and %d refusals of %d assistants", len(chains), refused, len(report.Assistants))
		}
		for _, c := range chains {
			if err := c.Validate(); err != nil {
				t.Fatalf("imported chain is not valid: %v\n%s", err, c.JSON())
			}
			roundTrip(t, c)
		}
		exported, _ := chain.ExportAssistants(chains)
		if _, _, err := chain.ImportAssistants(exported); err != nil && len(exported) <= chain.MaxAssistantsBytes {
			t.Fatalf("own export is refused: %v", err)
		}
	})
}
