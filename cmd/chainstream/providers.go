package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/gemini"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/llm/openai"
)

// vendor is a model provider and how it is configured.
//
// Anthropic is reached through the OpenAI-compatible endpoint that it offers.
// Text, streaming, sampling parameters, stop texts, token limits and usage work
// there. It is narrower than the vendor's own API: Anthropic ignores
// response_format and seed and takes a temperature of at most 1, so structured
// output is only asked for and then checked; prompt caching and the models'
// thinking are not visible.
type vendor struct {
	name    string
	label   string
	key     string   // environment variable of the API key; empty = needs none
	base    string   // environment variable of the address
	address string   // default address
	path    string   // added to an address without a path
	models  []string // well-known ones, to choose from
	build   func(connection) (llm.Provider, error)
}

// connection is how a vendor is reached.
type connection struct {
	address string // up to and including the version
	key     string // empty when there is none
	client  *http.Client
}

// compatible builds the provider of a vendor with OpenAI's chat completions API.
func compatible(c connection) (llm.Provider, error) {
	return openai.New(openai.Config{BaseURL: c.address, Key: c.key, Client: c.client})
}

// google builds the provider of Gemini: by its own API, or by the OpenAI-compatible
// one, which Gemini and gateways have below a path with /openai in it.
func google(c connection) (llm.Provider, error) {
	if u, err := url.Parse(c.address); err == nil && strings.Contains(u.Path, "/openai") {
		return compatible(c)
	}
	return gemini.New(gemini.Config{BaseURL: c.address, Key: c.key, Client: c.client})
}

func vendors() []vendor {
	return []vendor{
		{
			name: "openai", label: "OpenAI", key: "OPENAI_API_KEY", base: "OPENAI_BASE_URL", address: openai.DefaultBaseURL,
			models: []string{"gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-4o-mini"}, build: compatible,
		},
		{
			name: "anthropic", label: "Anthropic", key: "ANTHROPIC_API_KEY", base: "ANTHROPIC_BASE_URL", address: "https://api.anthropic.com", path: "/v1",
			models: []string{"claude-haiku-4-5", "claude-sonnet-4-5"}, build: compatible,
		},
		{
			name: "gemini", label: "Google Gemini", key: "GEMINI_API_KEY", base: "GEMINI_BASE_URL",
			address: "https://generativelanguage.googleapis.com", path: "/v1beta",
			models: []string{"gemini-2.5-flash", "gemini-2.5-pro"}, build: google,
		},
		{name: "ollama", label: "Ollama", base: "OLLAMA_BASE_URL", address: "http://127.0.0.1:11434", path: "/v1", models: []string{"llama3.2"}, build: compatible},
		{name: "lmstudio", label: "LM Studio", base: "LMSTUDIO_BASE_URL", address: "http://127.0.0.1:1234", path: "/v1", build: compatible},
	}
}

// configured tells whether calls can be made: with a key, at an address that was
// given and may need none, or at a server on one's own machine.
func (v vendor) configured(getenv func(string) string) bool {
	return v.key == "" || getenv(v.key) != "" || getenv(v.base) != ""
}

// endpoint answers the address up to and including the version.
func (v vendor) endpoint(getenv func(string) string) string {
	address := strings.TrimRight(getenv(v.base), "/")
	if address == "" {
		address = v.address
	}
	if u, err := url.Parse(address); err == nil && u.Path == "" && v.path != "" {
		address += v.path
	}
	return address
}

// provider builds the vendor's provider from the environment. Its error is a
// sentence.
func (v vendor) provider(getenv func(string) string, client *http.Client) (llm.Provider, error) {
	c := connection{address: v.endpoint(getenv), client: client}
	if v.key != "" {
		c.key = getenv(v.key)
	}
	provider, err := v.build(c)
	if err != nil {
		_, cause, named := strings.Cut(err.Error(), " provider: ")
		if !named {
			cause = err.Error()
		}
		return nil, &exitError{code: exitFailed, err: err, message: fmt.Sprintf("%s cannot be used (%s); check the environment variables %s",
			v.label, cause, strings.Trim(v.key+" "+v.base, " "))}
	}
	return provider, nil
}

// models answers every provider that this process can call or knows of.
func models(getenv func(string) string, client *http.Client, pace time.Duration) (*llm.Registry, error) {
	entries := map[string]llm.Entry{
		offline.Name: {
			Provider: offline.Provider{Pace: pace}, Label: "Built-in demo model", Demo: true,
			Models: []string{offline.Model}, Fixed: true, Info: map[string]llm.Info{offline.Model: {Prices: llm.Free(), Schema: true}},
		},
	}
	for _, v := range vendors() {
		entry := llm.Entry{Label: v.label, Env: v.key, Models: v.models}
		if v.configured(getenv) {
			provider, err := v.provider(getenv, client)
			if err != nil {
				return nil, err
			}
			entry.Provider = provider
		}
		entries[v.name] = entry
	}
	return llm.NewRegistry(entries), nil
}
