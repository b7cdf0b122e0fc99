package llm_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
)

func registry() *llm.Registry {
	return llm.NewRegistry(map[string]llm.Entry{
		"offline": {Provider: slow{}, Label: "Demo", Demo: true, Models: []string{"echo"}, Fixed: true},
		"openai":  {Label: "OpenAI", Env: "OPENAI_API_KEY", Models: []string{"gpt-4.1-mini", "gpt-4.1"}},
		"ollama":  {Provider: slow{}, Label: "Ollama"},
		"custom":  {},
	})
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	tests := []struct {
		id             string
		model          string
		check, resolve error
		text           string // part of the error of Resolve
	}{
		{id: "offline/echo", model: "echo"},
		{id: "ollama/library/llama3:8b", model: "library/llama3:8b"},
		{id: "offline/opera", check: llm.ErrUnknownModel, resolve: llm.ErrUnknownModel, text: "echo"},
		{id: "openai/gpt-4.1-mini", resolve: llm.ErrNotConfigured, text: "OPENAI_API_KEY"},
		{id: "openai/brand-new", resolve: llm.ErrNotConfigured, text: "OPENAI_API_KEY"},
		{id: "custom/x", resolve: llm.ErrNotConfigured, text: "custom/x"},
		{id: "nobody/x", check: llm.ErrUnknownProvider, resolve: llm.ErrUnknownProvider, text: "custom, offline, ollama, openai"},
		{id: "OpenAI/x", check: llm.ErrUnknownProvider, resolve: llm.ErrUnknownProvider},
		{id: "gpt-4", check: llm.ErrModelID, resolve: llm.ErrModelID, text: `"gpt-4"`},
		{id: "", check: llm.ErrModelID, resolve: llm.ErrModelID},
		{id: "/x", check: llm.ErrModelID, resolve: llm.ErrModelID},
		{id: "ollama/", check: llm.ErrModelID, resolve: llm.ErrModelID},
		{id: "ollama/ x", check: llm.ErrModelID, resolve: llm.ErrModelID},
	}
	r := registry()
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.id, "/", " "), func(t *testing.T) {
			t.Parallel()
			if err := r.Check(tt.id); !errors.Is(err, tt.check) {
				t.Errorf("Check: %v, want %v", err, tt.check)
			}
			target, err := r.Resolve(tt.id)
			if !errors.Is(err, tt.resolve) || target.Model != tt.model || (target.Provider == nil) != (err != nil) {
				t.Errorf("Resolve: %+v, %v; want %q, %v", target, err, tt.model, tt.resolve)
			}
			if err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%q is missing from %q", tt.text, err)
			}
		})
	}
}

func TestRegistryModels(t *testing.T) {
	t.Parallel()
	want := []llm.Model{
		{ID: "offline/echo", Provider: "offline", Label: "Demo", Demo: true, Configured: true, Available: true},
		{ID: "openai/gpt-4.1", Provider: "openai", Label: "OpenAI"},
		{ID: "openai/gpt-4.1-mini", Provider: "openai", Label: "OpenAI"},
	}
	r := registry()
	if diff := cmp.Diff(want, r.Models()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
