package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/anthropic"
	"github.com/chainstream/chainstream/llm/catalog"
	"github.com/chainstream/chainstream/llm/gemini"
	"github.com/chainstream/chainstream/llm/listing"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/llm/openai"
)

// vendor is a model provider and how it is configured.
type vendor struct {
	name    string
	label   string
	key     string   // environment variable of the API key; empty = needs none
	base    string   // environment variable of the address
	address string   // default address
	path    string   // added to an address without a path
	models  []string // to choose from beside those of the catalogue
	build   func(connection) (llm.Provider, error)
	list    func(listing.Server, context.Context) ([]llm.Listed, error)
	local   bool // a server that may be asked at any time
	free    bool // its models cost nothing
	newer   bool // connection.maxCompletionTokens
}

// connection is how a vendor is reached.
type connection struct {
	address string // up to and including the version
	key     string // empty when there is none
	client  *http.Client
	getenv  func(string) string // for what one vendor alone has

	maxCompletionTokens bool // the token limit goes by OpenAI's newer name
}

// promptCache is the environment variable that has Anthropic keep prompts.
const promptCache = "ANTHROPIC_PROMPT_CACHE"

// messages builds the provider of a vendor with Anthropic's Messages API.
func messages(c connection) (llm.Provider, error) {
	config := anthropic.Config{BaseURL: c.address, Key: c.key, Client: c.client}
	if value := c.getenv(promptCache); value != "" {
		var err error
		if config.CachePrompts, err = strconv.ParseBool(value); err != nil {
			return nil, fmt.Errorf("anthropic provider: %s is neither true nor false", promptCache)
		}
	}
	return anthropic.New(config)
}

// compatible builds the provider of a vendor with OpenAI's chat completions API.
func compatible(c connection) (llm.Provider, error) {
	return openai.New(openai.Config{BaseURL: c.address, Key: c.key, Client: c.client, MaxCompletionTokens: c.maxCompletionTokens})
}

// google builds the provider of Gemini: by its own API, or by the OpenAI-compatible
// one, which Gemini and gateways have below a path with /openai in it.
func google(c connection) (llm.Provider, error) {
	if u, err := url.Parse(c.address); err == nil && strings.Contains(u.Path, "/openai") {
		return compatible(c)
	}
	return gemini.New(gemini.Config{BaseURL: c.address, Key: c.key, Client: c.client})
}

// vendors are the providers that are built in.
func vendors() []vendor {
	return []vendor{
		{
			name: "openai", label: "OpenAI", key: "OPENAI_API_KEY", base: "OPENAI_BASE_URL", address: openai.DefaultBaseURL,
			build: compatible, list: listing.Server.OpenAI,
		},
		{
			name: "anthropic", label: "Anthropic", key: "ANTHROPIC_API_KEY", base: "ANTHROPIC_BASE_URL", address: anthropic.DefaultBaseURL, path: "/v1",
			build: messages, list: listing.Server.Anthropic,
		},
		{
			name: "gemini", label: "Google Gemini", key: "GEMINI_API_KEY", base: "GEMINI_BASE_URL",
			address: "https://generativelanguage.googleapis.com", path: "/v1beta",
			build: google, list: listing.Server.Gemini,
		},
		{
			name: "ollama", label: "Ollama", base: "OLLAMA_BASE_URL", address: "http://127.0.0.1:11434", path: "/v1", models: []string{"llama3.2"},
			build: compatible, list: listing.Server.Ollama, local: true, free: true,
		},
		{
			name: "lmstudio", label: "LM Studio", base: "LMSTUDIO_BASE_URL", address: "http://127.0.0.1:1234", path: "/v1",
			build: compatible, list: listing.Server.LMStudio, local: true, free: true,
		},
	}
}

// further are the providers that a catalogue names. Each speaks the API of one
// that is built in.
func further(c *catalog.Catalog) []vendor {
	var out []vendor
	for name, p := range c.Providers() {
		v := vendor{name: name, label: p.Label, key: p.KeyEnv, address: strings.TrimRight(p.BaseURL, "/"), local: p.Detect, free: p.Free, newer: p.MaxCompletionTokens}
		for _, like := range vendors() {
			if like.name == p.API {
				v.build, v.list = like.build, like.list
			}
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b vendor) int { return strings.Compare(a.name, b.name) })
	return out
}

// configured tells whether calls can be made: with a key, at an address that was
// given and may need none, or at a server on one's own machine.
func (v vendor) configured(getenv func(string) string) bool {
	return v.key == "" || getenv(v.key) != "" || v.variable(getenv, v.base) != ""
}

// endpoint answers the address up to and including the version.
func (v vendor) endpoint(getenv func(string) string) string {
	address := strings.TrimRight(v.variable(getenv, v.base), "/")
	if address == "" {
		address = v.address
	}
	if u, err := url.Parse(address); err == nil && u.Path == "" && v.path != "" {
		address += v.path
	}
	return address
}

// variable reads an environment variable that the vendor may not have.
func (v vendor) variable(getenv func(string) string, name string) string {
	if name == "" {
		return ""
	}
	return getenv(name)
}

// provider builds the vendor's provider from the environment. Its error is a
// sentence.
func (v vendor) provider(getenv func(string) string, client *http.Client) (llm.Provider, error) {
	provider, err := v.build(connection{
		address: v.endpoint(getenv), key: v.variable(getenv, v.key), client: client, getenv: getenv, maxCompletionTokens: v.newer,
	})
	if err != nil {
		_, cause, named := strings.Cut(err.Error(), " provider: ")
		if !named {
			cause = err.Error()
		}
		remedy := "check the environment variables " + strings.Trim(v.key+" "+v.base, " ")
		if v.base == "" {
			remedy = strings.TrimSpace("check the provider " + v.name + " in --models-file (CHAINSTREAM_MODELS_FILE), and the environment variable " + v.key)
			if v.key == "" {
				remedy = "check the provider " + v.name + " in --models-file (CHAINSTREAM_MODELS_FILE)"
			}
		}
		return nil, &exitError{code: exitFailed, err: err, message: fmt.Sprintf("%s cannot be used (%s); %s", v.label, cause, remedy)}
	}
	return provider, nil
}

// server is where the vendor lists its models.
func (v vendor) server(getenv func(string) string, client *http.Client) listing.Server {
	return listing.Server{Address: v.endpoint(getenv), Key: v.variable(getenv, v.key), Client: client}
}

// silent says what to do about a local server that does not answer.
func (v vendor) silent(getenv func(string) string) string {
	remedy := "start " + v.label
	if v.base != "" {
		remedy += ", or set " + v.base
	}
	return fmt.Sprintf("does not answer at %s; %s", shownAddress(v.endpoint(getenv)), remedy)
}

// modelFlags say which models there are beyond the built-in ones.
type modelFlags struct {
	ModelsFile string `help:"YAML file with further providers and models, and with other prices." placeholder:"FILE" environ:"CHAINSTREAM_MODELS_FILE"`
	ModelsDir  string `help:"Folder with the files of the embedding model offline/use-lite and of PDFium. Default: models beside the program, build/models, or models in the data directory." type:"path" placeholder:"DIR" environ:"CHAINSTREAM_MODELS_DIR"`

	dataDir string // of the database flags beside these; empty = the usual one
}

// catalogue answers the models that are known. Its error is a sentence.
func (f modelFlags) catalogue() (*catalog.Catalog, error) {
	if f.ModelsFile == "" {
		return catalog.Builtin(), nil
	}
	data, err := os.ReadFile(f.ModelsFile)
	if err != nil {
		return nil, &exitError{code: exitFailed, err: err, message: fmt.Sprintf("%s cannot be read (%s); check --models-file (CHAINSTREAM_MODELS_FILE)", f.ModelsFile, reason(err))}
	}
	var known []string
	for _, v := range vendors() {
		known = append(known, v.name)
	}
	own, err := catalog.Parse(f.ModelsFile, data, known)
	if err != nil {
		return nil, &exitError{code: exitFailed, err: err, message: err.Error()}
	}
	return catalog.Builtin().With(own), nil
}

// registry answers every provider that this process can call or knows of. Nobody
// is asked anything yet.
func (f modelFlags) registry(getenv func(string) string, client *http.Client, pace time.Duration) (*llm.Registry, error) {
	known, err := f.catalogue()
	if err != nil {
		return nil, err
	}
	sentences := f.sentences(getenv)
	entries := map[string]llm.Entry{
		offline.Name: {
			Provider: offline.Provider{Pace: pace, Sentences: sentences}, Label: "Built-in demo model", Demo: true,
			Models: []string{offline.Model}, Fixed: true, Embeddings: offlineModels(sentences),
			// It answers by rule: it takes images without looking at them.
			Info: map[string]llm.Info{offline.Model: {Prices: llm.Free(), Schema: true, Tools: true, Vision: true}},
		},
	}
	for _, v := range append(vendors(), further(known)...) {
		entry := llm.Entry{
			Label: v.label, Env: v.key, Models: append(known.Models(v.name), v.models...), Local: v.local, Remedy: v.silent(getenv),
			Lookup: func(model string) llm.Info {
				info := known.Info(v.name + "/" + model)
				if v.free && len(info.Prices) == 0 {
					info.Prices = llm.Free()
				}
				return info
			},
			Embeddings: knownEmbeddings(known, v),
			FindEmbedding: func(model string) (llm.EmbeddingModel, bool) {
				m, ok := known.EmbeddingModel(v.name + "/" + model)
				return v.priced(m), ok
			},
		}
		if !v.local {
			entry.Remedy = ""
		}
		if v.configured(getenv) {
			if entry.Provider, err = v.provider(getenv, client); err != nil {
				return nil, err
			}
			server := v.server(getenv, client)
			entry.List = func(ctx context.Context) ([]llm.Listed, error) { return v.list(server, ctx) }
		}
		entries[v.name] = entry
	}
	return llm.NewRegistry(entries), nil
}
