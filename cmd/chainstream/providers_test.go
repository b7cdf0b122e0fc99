package main_test

import (
	"strings"
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// TestProviders calls every provider at an address of the environment.
func TestProviders(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	root := strings.TrimSuffix(fake.URL, "/v1")
	env := map[string]string{
		"OPENAI_API_KEY": "openai-key", "OPENAI_BASE_URL": root + "/v1",
		"ANTHROPIC_API_KEY": "anthropic-key", "ANTHROPIC_BASE_URL": root,
		"GEMINI_API_KEY": "gemini-key", "GEMINI_BASE_URL": root + "/",
		"OLLAMA_BASE_URL": root, "LMSTUDIO_BASE_URL": root + "/v1",
	}
	keys := map[string]string{"openai": "Bearer openai-key", "anthropic": "Bearer anthropic-key", "gemini": "Bearer gemini-key", "ollama": "", "lmstudio": ""}
	document := "name: everybody\nprompts:\n"
	for name := range keys {
		fake.Script(name+"-model", llmtest.Text("This is ", name, "."))
		document += "  - {name: " + name + ", position: 1, model: " + name + "/" + name + "-model, content: hi}\n"
	}
	output := succeed(t, env, "run", file(t, "everybody.yaml", document), "--database-url", pgtest.Database(t))
	for name := range keys {
		if want := name + " | This is " + name + "."; !strings.Contains(output, want) {
			t.Errorf("%q is not in:\n%s", want, output)
		}
	}
	for _, call := range fake.Calls() {
		name := strings.TrimSuffix(call.Request.Model, "-model")
		if got := call.Header.Get("Authorization"); got != keys[name] {
			t.Errorf("%s was sent %q, want %q", name, got, keys[name])
		}
	}
}
