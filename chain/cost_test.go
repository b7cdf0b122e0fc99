package chain_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chainstream/chainstream/chain"
)

// manyPrompts is a document with n prompts, each of which refers to the first.
func manyPrompts(n int, format chain.Format) []byte {
	var b strings.Builder
	if format == chain.FormatJSON {
		b.WriteString(`{"name":"many","prompts":[`)
	} else {
		b.WriteString("name: many\nprompts:\n")
	}
	for i := range n {
		content := "${p0} and ${prompt_0_output}"
		if i == 0 {
			content = "start"
		}
		if format == chain.FormatYAML {
			fmt.Fprintf(&b, "  - name: p%d\n    model: offline/echo\n    content: %q\n    output: {schema: {type: object}}\n", i, content)
			continue
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"name":"p%d","model":"offline/echo","content":%q}`, i, content)
	}
	if format == chain.FormatJSON {
		b.WriteString("]}")
	}
	return []byte(b.String())
}

// processorTime is what this process has used so far.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// TestHostileDocuments shows that documents which are built to be slow are answered quickly, whatever the answer is. The
// bound is generous, for slow machines under the race detector; quadratic behaviour takes minutes. What is measured is the
// time of the processor, so it does not matter what else runs on the machine; that is why no test runs beside this one.
func TestHostileDocuments(t *testing.T) {
	const bound = 10 * time.Second
	const size = 512 << 10
	full := func(piece string) string { return strings.Repeat(piece, size/len(piece)) }
	numbered := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < size-100; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	onePrompt := func(content string) string {
		return fmt.Sprintf(`{"name":"x","prompts":[{"name":"A","model":"offline/echo","content":%q}]}`, content)
	}
	for _, test := range []struct {
		name, document string
		format         chain.Format
		code           string // of the first problem, "" for a good document
	}{
		{"10000 prompts in JSON", string(manyPrompts(10000, chain.FormatJSON)), chain.FormatJSON, chain.CodeTooMany},
		{"10000 prompts in YAML", string(manyPrompts(10000, chain.FormatYAML)), chain.FormatYAML, chain.CodeTooMany},
		{"1000 prompts in JSON", string(manyPrompts(1000, chain.FormatJSON)), chain.FormatJSON, ""},
		{"1000 prompts in YAML", string(manyPrompts(1000, chain.FormatYAML)), chain.FormatYAML, ""},
		{"a megabyte of content", onePrompt(strings.Repeat("word ", chain.MaxContentBytes/5)), chain.FormatJSON, ""},
		{"a megabyte of YAML", "name: x\nprompts:\n  - name: A\n    model: offline/echo\n    content: |\n" +
			strings.Repeat("      some words on a line\n", chain.MaxContentBytes/22), chain.FormatYAML, ""},
		{"more than a megabyte of content", onePrompt(strings.Repeat("x", chain.MaxContentBytes+1)), chain.FormatJSON, chain.CodeTooLarge},
		{"a byte too many", strings.Repeat(" ", chain.MaxDocumentBytes+1), chain.FormatJSON, chain.CodeTooLarge},
		{"openers", onePrompt(strings.Repeat("{{", chain.MaxContentBytes/2)), chain.FormatJSON, ""},
		{"open references", onePrompt(strings.Repeat("${a", chain.MaxContentBytes/3)), chain.FormatJSON, ""},
		{"spaced openers", onePrompt(strings.Repeat("${      ", chain.MaxContentBytes/8)), chain.FormatJSON, ""},
		{"backslashes", onePrompt(strings.Repeat(`\`, chain.MaxContentBytes-2) + "{{"), chain.FormatJSON, ""},
		{"bad references", `{"name":"x","prompts":[{"name":"A","model":"offline/echo","content":"` +
			numbered("${a%d}") + `"}]}`, chain.FormatJSON, chain.CodeUnknownReference},
		{"unknown fields", `{` + strings.TrimSuffix(numbered(`"k%d":1,`), ",") + `}`, chain.FormatJSON, chain.CodeUnknownField},
		{"one key", `{` + strings.TrimSuffix(full(`"k":1,`), ",") + `}`, chain.FormatJSON, chain.CodeDuplicateKey},
		{"deep JSON", full("["), chain.FormatJSON, chain.CodeTooDeep},
		{"deep objects", full(`{"a":`), chain.FormatJSON, chain.CodeTooDeep},
		{"deep flow", full("["), chain.FormatYAML, chain.CodeTooDeep},
		{"deep flow objects", full("{a: "), chain.FormatYAML, chain.CodeTooDeep},
		{"deep block", full("- "), chain.FormatYAML, chain.CodeTooDeep},
		{"question marks", full("? "), chain.FormatYAML, chain.CodeYAML},
		{"YAML keys", numbered("k%d: v\n"), chain.FormatYAML, chain.CodeTooMany},
		{"YAML flow keys", "{" + numbered("k%d: v, ") + "}", chain.FormatYAML, chain.CodeTooMany},
		{"YAML bare flow keys", "{" + numbered("k%d, ") + "}", chain.FormatYAML, chain.CodeTooMany},
		{"YAML documents", full("---\na: b\n"), chain.FormatYAML, chain.CodeYAML},
		{"YAML anchors", numbered("- &a%d x\n"), chain.FormatYAML, chain.CodeWrongType},
		{"YAML aliases", "- &a x\n" + full("- *a\n"), chain.FormatYAML, chain.CodeTooLarge},
		{"YAML comments", full("# comment\n"), chain.FormatYAML, chain.CodeSyntax},
		{"YAML quotes", full("- \"\n"), chain.FormatYAML, chain.CodeWrongType},
		{"YAML colons", full(": "), chain.FormatYAML, chain.CodeTooDeep},
		{"YAML tags", full("!a "), chain.FormatYAML, chain.CodeSyntax},
		{"YAML pipes", full("- |\n"), chain.FormatYAML, chain.CodeTooLarge},
		{"YAML blank lines", "a: |\n" + full("\n"), chain.FormatYAML, chain.CodeTooLarge},
		{"YAML plain lines", "a:\n" + full(" b\n"), chain.FormatYAML, chain.CodeRequired},
		{"YAML flow list", "[" + full("a,") + "]", chain.FormatYAML, chain.CodeTooLarge},
		{"YAML block list", full("- a\n"), chain.FormatYAML, chain.CodeTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := processorTime(t)
			_, err := chain.Parse([]byte(test.document), test.format)
			took := processorTime(t) - start
			t.Logf("%s: %d bytes in %v", test.name, len(test.document), took.Round(time.Millisecond))
			if took > bound {
				t.Errorf("took %v", took)
			}
			var problems chain.Problems
			switch {
			case test.code == "" && err != nil:
				t.Errorf("refused: %.300v", err)
			case test.code != "" && (!errors.As(err, &problems) || problems[0].Code != test.code):
				t.Errorf("problems %.300v, want first %s", err, test.code)
			case len(problems) > chain.MaxProblems+1:
				t.Errorf("%d problems", len(problems))
			}
		})
	}
}

func TestProblemsAreCapped(t *testing.T) {
	t.Parallel()
	_, err := chain.Parse([]byte(`{"name":"x","prompts":[`+strings.TrimSuffix(strings.Repeat("{},", 500), ",")+`]}`), chain.FormatJSON)
	var problems chain.Problems
	if !errors.As(err, &problems) || len(problems) != chain.MaxProblems+1 {
		t.Fatalf("%d problems, want %d", len(problems), chain.MaxProblems+1)
	}
	last := problems[chain.MaxProblems]
	if want := "and 1400 more problems"; last.Code != chain.CodeMore || last.Detail != want {
		t.Errorf("last problem = %+v, want %s", last, want)
	}
}

func BenchmarkParse(b *testing.B) {
	for name, format := range map[string]chain.Format{"json": chain.FormatJSON, "yaml": chain.FormatYAML} {
		for _, n := range []int{10, 1000} {
			data := manyPrompts(n, format)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					if _, err := chain.Parse(data, format); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkRender(b *testing.B) {
	c := mustParse(b, resolverDocument)
	c.Prompts[4].Content = "About ${topic}: ${outline.sections.1.title} {{clash}} ${knowledge}"
	state := resolverState()
	for b.Loop() {
		if _, err := c.Render(4, state); err != nil {
			b.Fatal(err)
		}
	}
}
