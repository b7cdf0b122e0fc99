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
	keys := map[string]string{"openai": "Bearer openai-key", "anthropic": "anthropic-key", "gemini": "gemini-key", "ollama": "", "lmstudio": ""}
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
		if got := call.Header.Get("Authorization") + call.Header.Get("X-Goog-Api-Key") + call.Header.Get("X-Api-Key"); got != keys[name] {
			t.Errorf("%s was sent %q, want %q", name, got, keys[name])
		}
		if got := call.Request.Wire == llmtest.Anthropic; got != (name == "anthropic") {
			t.Errorf("%s was called in the format of %s", name, call.Request.Wire)
		}
	}
}

// TestPromptCache shows the switch by which Anthropic is asked to keep prompts.
func TestPromptCache(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("ok"))
	document := file(t, "cache.yaml", "name: cache\nprompts:\n  - {name: one, model: anthropic/m, system: \""+strings.Repeat("word ", 1000)+"\", content: hi}\n")
	env := map[string]string{"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": fake.Root}
	database := pgtest.Database(t)
	for i, value := range []string{"", "true", "false"} {
		env["ANTHROPIC_PROMPT_CACHE"] = value
		succeed(t, env, "run", document, "--database-url", database)
		if got := strings.Contains(string(fake.Calls()[i].Body), `"cache_control":{"type":"ephemeral"}`); got != (value == "true") {
			t.Errorf("%q: marked is %t", value, got)
		}
	}
	env["ANTHROPIC_PROMPT_CACHE"] = "perhaps"
	if r := execute(t, env, "run", document, "--database-url", database); r.code == 0 || !strings.Contains(r.stderr, "ANTHROPIC_PROMPT_CACHE is neither true nor false") {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
}

// TestGeminiAddresses shows which of Gemini's two APIs an address is called by.
func TestGeminiAddresses(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	for base, want := range map[string]string{
		"":                    "/v1beta/models/m:streamGenerateContent gemini-key",
		"/gateway/v1beta":     "/gateway/v1beta/models/m:streamGenerateContent gemini-key",
		"/v1beta/openai/":     "/v1beta/openai/chat/completions Bearer gemini-key",
		"/gateway/openai/v1/": "/gateway/openai/v1/chat/completions Bearer gemini-key",
	} {
		fake := llmtest.NewServer(t)
		fake.Script("m", llmtest.Text("Hello."))
		env := map[string]string{"GEMINI_API_KEY": "gemini-key", "GEMINI_BASE_URL": fake.Root + base}
		succeed(t, env, "run", file(t, "g.yaml", "name: g\nprompts:\n  - {name: g, position: 1, model: gemini/m, content: hi}\n"), "--database-url", database)
		call := fake.Calls()[0]
		if got := call.Path + " " + call.Header.Get("Authorization") + call.Header.Get("X-Goog-Api-Key"); got != want {
			t.Errorf("with the path %q called %s, want %s", base, got, want)
		}
	}
}
