package offline_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/offline"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, provider := range map[string]llm.Provider{
		"instant": offline.Provider{},
		"paced":   offline.Provider{Pace: time.Nanosecond},
		"guarded": llm.Guard(offline.Provider{}, llm.Deadlines{}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			llmtest.Conform(t, llmtest.Subject{Provider: provider, Model: offline.Model, MissingModel: "opera",
				Lacks: []llmtest.Capability{llmtest.Thinking, llmtest.ResponseIDs}})
		})
	}
}

func request(messages ...llm.Message) llm.Request {
	return llm.Request{Model: offline.Model, Messages: messages}
}

func user(text string) llm.Message { return llm.Message{Role: llm.RoleUser, Text: text} }

func ask(t *testing.T, messages ...llm.Message) string {
	t.Helper()
	r := llmtest.Collect(t.Context(), t, offline.Provider{}, request(messages...))
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return r.Text
}

func TestEcho(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prompt, want string
		repaired     bool
	}{
		"plain":            {prompt: "Echo: hello", want: "hello"},
		"upper case":       {prompt: "ECHO: hello", want: "hello"},
		"no space":         {prompt: "echo:hello", want: "hello"},
		"one space goes":   {prompt: "echo:  hello \n", want: " hello \n"},
		"empty":            {prompt: "echo:", want: ""},
		"markdown":         {prompt: "echo: # A\n\n* b", want: "# A\n\n* b"},
		"template":         {prompt: "echo: ${topic} {{x}}", want: "${topic} {{x}}"},
		"NUL":              {prompt: "echo: a\x00b", want: "a\uFFFDb", repaired: true},
		"broken UTF-8":     {prompt: "echo: a \xff b", want: "a \uFFFD b", repaired: true},
		"cut UTF-8":        {prompt: "echo: a\xe4\xb8", want: "a\uFFFD", repaired: true},
		"real replacement": {prompt: "echo: a\uFFFD", want: "a\uFFFD"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := llmtest.Collect(t.Context(), t, offline.Provider{}, request(user(tt.prompt)))
			if r.Text != tt.want || r.Repaired != tt.repaired || r.Err != nil {
				t.Errorf("%q: %+v", tt.prompt, r)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		max    int
		stop   []string
		want   string
		finish string
	}{
		"none":           {want: "one two three four", finish: "stop"},
		"tokens":         {max: 2, want: "one two ", finish: "length"},
		"enough tokens":  {max: 5, want: "one two three four", finish: "stop"},
		"stop text":      {stop: []string{"four", " three"}, want: "one two", finish: "stop"},
		"empty stop":     {stop: []string{""}, want: "one two three four", finish: "stop"},
		"stop then size": {max: 1, stop: []string{"two"}, want: "one ", finish: "stop"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := request(user("echo: one two three four"))
			req.MaxTokens, req.Stop = tt.max, tt.stop
			r := llmtest.Collect(t.Context(), t, offline.Provider{}, req)
			if r.Text != tt.want || r.FinishReason != tt.finish {
				t.Errorf("got %q, %s; want %q, %s", r.Text, r.FinishReason, tt.want, tt.finish)
			}
			want := llm.Usage{InputTokens: llm.EstimateTokens(req.Messages[0].Text), OutputTokens: llm.EstimateTokens(tt.want)}
			if diff := cmp.Diff(&want, r.Usage); diff != "" {
				t.Errorf("usage (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := llmtest.Collect(t.Context(), t, offline.Provider{Pace: 25 * time.Millisecond}, request(user("echo: one two three")))
		if took := time.Since(start); r.Err != nil || took != 75*time.Millisecond {
			t.Errorf("three words took %v: %+v", took, r)
		}
	})
}

func TestCancelDuringPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		r := llmtest.Collect(ctx, t, offline.Provider{Pace: time.Hour}, request(user("echo: one")))
		if took := time.Since(start); !errors.Is(r.Err, context.DeadlineExceeded) || took != time.Minute {
			t.Errorf("ended after %v with %v", took, r.Err)
		}
	})
}

// TestDemoChain runs the chain that newcomers see and compares its texts with
// the golden files.
func TestDemoChain(t *testing.T) {
	t.Parallel()
	outline := ask(t, user("Write an outline about heat pumps in old houses for engineers."))
	draft := ask(t, user("Expand this outline about heat pumps in old houses into a draft for engineers.\n\n"+outline+"\n"))
	counter := ask(t, user("Contrast this outline about heat pumps in old houses with the strongest objections for engineers.\n\n"+outline+
		"\n\nContext:\n\n[1] roofs.pdf\nOld houses lose 40 % of their heat through the roof. More text.\n\n[2] Radiators of 55 degrees are enough.\n"))
	merged := ask(t, user("Merge these two texts about heat pumps in old houses into one brief for engineers.\n\n"+draft+"\n\n"+counter+"\n"))
	// The shortest way to write the same chain reads the same.
	if short := ask(t, user("Merge "+draft+" and "+counter)); !strings.Contains(short, "brings together the draft and the counterpoint") {
		t.Errorf("texts in the middle of a line are not found:\n%s", short)
	}

	for name, text := range map[string]string{"outline": outline, "draft": draft, "counterpoint": counter, "brief": merged} {
		if !strings.HasSuffix(text, offline.Label) || strings.Count(text, offline.Label) != 1 {
			t.Errorf("%s does not end in the label, once:\n%s", name, text)
		}
		if words := len(strings.Fields(text)); words > 300 {
			t.Errorf("%s has %d words", name, words)
		}
		golden(t, name+".md", text)
	}
}

// TestRequests covers prompts that people write otherwise.
func TestRequests(t *testing.T) {
	t.Parallel()
	outline := "## Outline: tea\n\n1. **Origin**: Where tea comes from.\n2. **Taste**: What it tastes of.\n\n" + offline.Label
	tests := map[string]struct {
		messages []llm.Message
		want     []string
	}{
		"question": {
			messages: []llm.Message{user("What is the capital of France?")},
			want:     []string{"## Answer: What is the capital of France\n", "“What is the capital of France?”"},
		},
		"instruction above the text": {
			messages: []llm.Message{user("Turn this outline into a draft:\n\n" + outline)},
			want:     []string{"## Draft: tea\n", "### Origin\n\nWhere tea comes from.", "### Taste"},
		},
		"earlier output in the history": {
			messages: []llm.Message{user("Write an outline about tea."), {Role: llm.RoleAssistant, Text: outline}, user("Now expand it.")},
			want:     []string{"## Draft: tea\n", "### Origin"},
		},
		"summary of plain paragraphs": {
			messages: []llm.Message{user("Summarise the following:\n\nCats are animals that live with people. They sleep.\nA lot.\n\nDogs bark.")},
			want:     []string{"## Summary: the text\n", "- Cats are animals that live with people.\n- Dogs bark.\n"},
		},
		"merge of nothing": {
			messages: []llm.Message{user("Merge the drafts.")},
			want:     []string{"There is no earlier text to merge"},
		},
		"foreign headings": {
			messages: []llm.Message{user("Compare these:\n\n# Alpha\n\n- first\n\n# Beta\n\nSecond thing happens.")},
			want:     []string{"Every point of “Alpha” and “Beta”", "“first.”", "“Second thing happens.”"},
		},
		"a sentence of each source": {
			messages: []llm.Message{user("Where does tea grow?\n\nContext:\n\n[1] tea.md\nconst TEA = ['green', 'black'];\n\nin the end. Tea grows on the hills of warm countries. It likes rain.\n\nAnother paragraph of the same.\n\n[2] table.md\n| where | how high |\n|---|---|\n\n[3] rain.md\n- Rain falls on the hills of warm countries.")},
			want:     []string{"### What the sources say\n\n> Tea grows on the hills of warm countries. (tea.md) [1]\n\n> Rain falls on the hills of warm countries. (rain.md) [3]\n\n*"},
		},
		"tagged context": {
			messages: []llm.Message{user("Explain tides.\n<context>\nThe moon pulls the sea.\n</context>\nBe brief.")},
			want:     []string{"## Draft: tides\n", "> The moon pulls the sea.\n"},
		},
		"no user message": {
			messages: []llm.Message{{Role: llm.RoleSystem, Text: "You are terse."}},
			want:     []string{"## Answer: the text\n"},
		},
		"no message": {want: []string{"## Answer: the text\n"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ask(t, tt.messages...)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is missing from:\n%s", want, got)
				}
			}
			if !strings.HasSuffix(got, offline.Label) {
				t.Errorf("no label at the end of:\n%s", got)
			}
			if again := ask(t, tt.messages...); again != got {
				t.Errorf("a second answer differs:\n%s", cmp.Diff(got, again))
			}
		})
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"any object":   `{"type": "object"}`,
		"properties":   `{"type": "object", "properties": {"title": {"type": "string", "maxLength": 6}, "n": {"type": "integer", "minimum": 2.5}, "ok": {"type": "boolean"}}, "required": ["title", "n"], "additionalProperties": false}`,
		"nested":       `{"type": "object", "properties": {"sections": {"type": "array", "minItems": 2, "items": {"type": "object", "properties": {"text": {"type": "string", "minLength": 40}}, "required": ["text"]}}}, "required": ["sections"]}`,
		"enum":         `{"type": "string", "enum": [1, "red"]}`,
		"const":        `{"const": {"a": [1]}}`,
		"anyOf":        `{"anyOf": [{"type": "string", "pattern": "x"}, {"type": "null"}]}`,
		"types":        `{"type": ["number", "null"], "maximum": -3}`,
		"definitions":  `{"$defs": {"p": {"type": "number", "minimum": 0.5}}, "type": "object", "properties": {"p": {"$ref": "#/$defs/p"}}, "required": ["p"]}`,
		"recursive":    `{"type": "object", "properties": {"name": {"type": "string"}, "child": {"$ref": "#"}}, "required": ["name"]}`,
		"no items":     `{"type": "array", "maxItems": 0}`,
		"no type":      `{"properties": {"a": {"items": {"minimum": 3}}}}`,
		"unnamed":      `{"type": "object", "required": ["b"], "additionalProperties": {"type": "integer"}}`,
		"exact number": `{"type": "integer", "minimum": 1000000000000}`,
	}
	for name, schema := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := request(user("Fill it in."))
			req.Schema = json.RawMessage(schema)
			r := llmtest.Collect(t.Context(), t, offline.Provider{}, req)
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
			if err != nil {
				t.Fatal(err)
			}
			compiler := jsonschema.NewCompiler()
			if err := compiler.AddResource("schema.json", doc); err != nil {
				t.Fatal(err)
			}
			instance, err := jsonschema.UnmarshalJSON(strings.NewReader(r.Text))
			if err != nil {
				t.Fatalf("answer %q: %v", r.Text, err)
			}
			if err := compiler.MustCompile("schema.json").Validate(instance); err != nil {
				t.Errorf("answer %s: %v", r.Text, err)
			}
		})
	}
}

func TestSchemaRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"not JSON":         `{`,
		"not an object":    `[]`,
		"unknown keyword":  `{"type": "string", "pattern": "^a$"}`,
		"unknown type":     `{"type": "date"}`,
		"impossible":       `{"type": "integer", "minimum": 1.2, "maximum": 1.8}`,
		"too long":         `{"type": "string", "minLength": 2000000000}`,
		"too many":         `{"type": "array", "minItems": 2000000000}`,
		"missing target":   `{"$ref": "#/$defs/x"}`,
		"endless":          `{"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}`,
		"beside reference": `{"$ref": "#/$defs/x", "minLength": 3, "$defs": {"x": {"type": "string"}}}`,
		"beside anyOf":     `{"anyOf": [{"type": "string"}], "maxLength": 1}`,
		"beside enum":      `{"enum": ["abc"], "maxLength": 1}`,
		"nothing allowed":  `{"type": "object", "required": ["a"], "additionalProperties": false}`,
	}
	for name, schema := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := request(user("Fill it in."))
			req.Schema = json.RawMessage(schema)
			r := llmtest.Collect(t.Context(), t, offline.Provider{}, req)
			if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeInvalidRequest || e.Detail == "" {
				t.Errorf("answer %q, error %v", r.Text, r.Err)
			}
		})
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("Write an outline about tea for engineers.", "")
	f.Add("Merge # A\n\n- x\n\nContext:\n[1] y", "## Draft: z\n\n### p\n\nq")
	f.Add("\xff\x00 ## \r # \r\r 1. **", "<context>")
	f.Fuzz(func(t *testing.T, prompt, earlier string) {
		r := llmtest.Collect(t.Context(), t, offline.Provider{}, request(
			user("Begin."), llm.Message{Role: llm.RoleAssistant, Text: earlier}, user(prompt)))
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if len(prompt) < 5 || !strings.EqualFold(prompt[:5], "echo:") {
			if !strings.HasSuffix(r.Text, offline.Label) {
				t.Errorf("no label: %q", r.Text)
			}
			if len(r.Text) > 32<<10 {
				t.Errorf("%d bytes of text", len(r.Text))
			}
		}
	})
}

func BenchmarkStream(b *testing.B) {
	req := request(user("echo: " + strings.Repeat("word ", 1000)))
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range (offline.Provider{}).Stream(b.Context(), req) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got+"\n"); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
