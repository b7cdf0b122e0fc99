package chain_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/chain"
)

// TestTextsSurvive writes texts that YAML readers like to take for something else, and random ones made of the characters
// that matter, and reads them back from JSON and YAML.
func TestTextsSurvive(t *testing.T) {
	t.Parallel()
	texts := []string{
		"true", "No", "y", "null", "~", "1e3", "0x10", "010", "1_000", "12:30:45", "2026-11-22", ".inf", "-", "- a", "? a", "a: b", "a #b", "#a",
		" a", "a ", "\ta", "a\t", "a\n", "a\n\n", "\na", "\n", "a\n b", " a\nb", "a\n\n\nb\n", "a\n  \nb", "a\r\nb", "a\rb", "|", ">", "%a", "@a", "`a`",
		"&a", "*a", "!a", "{a}", "[a]", "'a'", "\"a\"", "a\\nb", "---", "...", "a\n---\nb", "a\n...\nb\n", "<<", "=", "\u0085", "a\u2028b\nc", "\ufeffa\nb", "\u00a0a\nb",
		"é\n😀", "\x01\n\x7f", "a\n#b\nc", "a\n- b: c\n? d", "a:\n  b\n", "\\${x}\n\\{{y}}", strings.Repeat("long words ", 80), "\ufffd\na",
	}
	pieces := []string{"a", " ", "\n", "\n", "\t", ":", "-", "#", "'", "\"", "\\", "{", "}", "|", ">", "0", "é", "\r", ", ", "---", "\u2029"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var b strings.Builder
		for range 1 + random.IntN(8) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		texts = append(texts, b.String())
	}
	for _, text := range texts {
		value, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		content := `x\n` + string(value[1:len(value)-1])
		c, err := chain.Parse([]byte(`{"name":"texts","description":`+string(value)+`,"inputs":{"i":{"type":"json","default":{`+string(value)+`:[`+string(value)+`,1]}},
			"s":{"type":"select","options":[`+string(value)+`,"other"]}},"prompts":[{"name":"A","model":"offline/echo","content":"`+content+`","system":`+string(value)+`}]}`), chain.FormatJSON)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		roundTrip(t, c)
	}
}

// A stored chain is read back even when a rule has become stricter since.
func TestLoadDoesNotJudge(t *testing.T) {
	t.Parallel()
	stored := []byte(`{"name":"2024","prompts":[{"name":"P","position":1,"model":"offline/echo","content":"${nothing}"}]}`)
	if _, err := chain.Parse(stored, chain.FormatJSON); err == nil {
		t.Fatal("the document is valid; choose a worse one")
	}
	c, err := chain.Load(stored)
	if err != nil || c.Name != "2024" || c.Prompts[0].Content != "${nothing}" {
		t.Errorf("loaded %+v, %v", c, err)
	}
	if _, err := chain.Load([]byte(`{"name":7}`)); err == nil {
		t.Error("what cannot be read was loaded")
	}
}
