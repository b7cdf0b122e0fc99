package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/catalog"
)

var known = []string{"openai", "anthropic", "gemini", "ollama"}

func parse(t *testing.T, text string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse("my.yaml", []byte(text), known)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is shipped can be true.
func TestBuiltin(t *testing.T) {
	t.Parallel()
	c := catalog.Builtin()
	for provider, least := range map[string]int{"openai": 10, "anthropic": 8, "gemini": 3} {
		names := c.Models(provider)
		if len(names) < least {
			t.Errorf("%s has %d models", provider, len(names))
		}
		for _, name := range names {
			info := c.Info(provider + "/" + name)
			if info.ContextWindow < 1000 || info.MaxOutput > info.ContextWindow || !info.Tools {
				t.Errorf("%s/%s: %+v", provider, name, info)
			}
			if (info.Count != nil) != (provider == "openai") {
				t.Errorf("%s/%s: the tokens are counted: %v", provider, name, info.Count != nil)
			}
			for _, p := range info.Prices {
				dear := p.Output.LessThan(p.Input) ||
					p.CachedInput != nil && p.CachedInput.GreaterThan(p.Input) ||
					p.CacheWrite != nil && p.CacheWrite.LessThan(p.Input)
				if !p.Input.IsPositive() || dear {
					t.Errorf("%s/%s: price %+v", provider, name, p)
				}
			}
		}
	}
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	price, ok := c.Info("openai/gpt-4.1-mini").PriceAt(now)
	usage := llm.Usage{InputTokens: 1_000_000, CachedTokens: 500_000, OutputTokens: 1_000_000}
	if got := price.Cost(usage).String(); !ok || got != "1.85" {
		t.Errorf("gpt-4.1-mini costs %s, %v", got, ok)
	}
	if _, ok := c.Info("openai/o3").PriceAt(time.Date(2025, 6, 9, 23, 0, 0, 0, time.UTC)); ok {
		t.Error("a price of o3 is known for a time it was not valid in")
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{ // to a model with the same facts, or to none
		"openai/gpt-4.1-mini":                 "openai/gpt-4.1-mini",
		"openai/gpt-4.1-mini-2025-04-14":      "openai/gpt-4.1-mini",
		"openai/gpt-4o-mini-2024-07-18":       "openai/gpt-4o-mini",
		"openai/gpt-4o-2024-11-20":            "openai/gpt-4o",
		"openai/gpt-4o-2024-05-13":            "openai/gpt-4o-2024-05-13",
		"openai/gpt-4o-mini-search-preview":   "",
		"openai/gpt-4o-audio-preview":         "",
		"openai/gpt-4o-micro":                 "",
		"openai/gpt-4ox":                      "",
		"openai/gpt-4":                        "",
		"openai/gpt-5-2025-08-07":             "openai/gpt-5",
		"openai/gpt-5-1":                      "",
		"openai/gpt-5.1-2025-11-13":           "openai/gpt-5.1",
		"openai/gpt-5.12":                     "",
		"openai/o3-mini-2025-01-31":           "openai/o3-mini",
		"anthropic/claude-haiku-4-5-20251001": "anthropic/claude-haiku-4-5",
		"anthropic/claude-haiku-4-5@20251001": "anthropic/claude-haiku-4-5",
		"anthropic/claude-haiku-4-5-latest":   "anthropic/claude-haiku-4-5",
		"anthropic/claude-opus-4-20250514":    "anthropic/claude-opus-4",
		"anthropic/claude-opus-4-1-20250805":  "anthropic/claude-opus-4-1",
		"anthropic/claude-opus-4-9":           "",
		"gemini/gemini-2.5-flash-001":         "gemini/gemini-2.5-flash",
		"gemini/gemini-2.5-flash-image":       "",
		"ollama/gpt-4.1-mini":                 "",
		"gpt-4.1-mini":                        "",
		"":                                    "",
	} {
		got, ok := catalog.Builtin().Lookup(id)
		if ok != (want != "") {
			t.Errorf("%q is found: %v", id, ok)
			continue
		}
		family, _ := catalog.Builtin().Lookup(want)
		if diff := cmp.Diff(family, got, cmp.AllowUnexported(catalog.Model{})); diff != "" {
			t.Errorf("%q is not %q:\n%s", id, want, diff)
		}
	}
}

// A schema is told in words to the models whose API does not enforce it.
func TestSchemas(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"openai/gpt-4.1-mini": true, "openai/gpt-5": true, "openai/gpt-4o-2024-05-13": false,
		"anthropic/claude-opus-4": false, "anthropic/claude-opus-4-1": false, "anthropic/claude-sonnet-4": false,
		"anthropic/claude-haiku-4-5": true, "anthropic/claude-opus-4-5-20251101": true, "anthropic/claude-sonnet-4-6": true,
		"gemini/gemini-2.5-flash": true, "gemini/gemini-3-pro-preview": true, "openai/nobody-knows": false,
	} {
		if got := catalog.Builtin().Info(id).Schema; got != want {
			t.Errorf("%s: enforced is %v", id, got)
		}
	}
}

func TestCorrections(t *testing.T) {
	t.Parallel()
	c := catalog.Builtin().With(parse(t, `
providers:
  vllm: {baseUrl: "http://127.0.0.1:8000/v1", keyEnv: VLLM_API_KEY, label: Our vLLM, maxCompletionTokens: true, detect: true}
  claude-proxy: {baseUrl: https://proxy.test/v1, api: anthropic, free: true}
models:
  openai/gpt-4.1-mini:
    prices:
      - {until: 2026-01-01, input: 0.40, output: 1.60}
      - {from: 2026-01-01, input: "0.30", cachedInput: "0", output: 1.20, source: our contract, checked: 2026-01-02}
  openai/gpt-4.1-mini-2025-04-14: {maxOutput: 1000}
  openai/gpt-4.1: {prices: []}
  vllm/llama/3: {contextWindow: 8192, capabilities: [], tokenizer: cl100k_base}
`))
	want := map[string]catalog.Provider{
		"vllm":         {Label: "Our vLLM", BaseURL: "http://127.0.0.1:8000/v1", KeyEnv: "VLLM_API_KEY", API: "openai", MaxCompletionTokens: true, Detect: true},
		"claude-proxy": {Label: "claude-proxy", BaseURL: "https://proxy.test/v1", API: "anthropic", Free: true},
	}
	if diff := cmp.Diff(want, c.Providers()); diff != "" {
		t.Errorf("providers (-want +got):\n%s", diff)
	}
	mini := c.Info("openai/gpt-4.1-mini")
	if mini.ContextWindow != 1047576 || !mini.Vision || mini.Count == nil || len(mini.Prices) != 2 {
		t.Errorf("what is not corrected is lost: %+v", mini)
	}
	if !mini.OwnPrices || c.Info("vllm/llama/3").OwnPrices || c.Info("openai/gpt-4o").OwnPrices {
		t.Error("whose prices they are is not told")
	}
	price, _ := mini.PriceAt(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	if price.Input.String() != "0.3" || price.CachedInput == nil || !price.CachedInput.IsZero() || price.CacheWrite != nil || price.Output.String() != "1.2" {
		t.Errorf("price %+v", price)
	}
	if dated := c.Info("openai/gpt-4.1-mini-2025-04-14"); dated.MaxOutput != 1000 || dated.ContextWindow != 1047576 || len(dated.Prices) == 0 {
		t.Errorf("a dated release: %+v", dated)
	}
	if dated := c.Info("openai/gpt-4.1-mini-2025-04-14"); !mini.OwnPrices || dated.OwnPrices {
		t.Errorf("whose the prices are: the model's %v, those of a release without its own %v", mini.OwnPrices, dated.OwnPrices)
	}
	if full := c.Info("openai/gpt-4.1"); len(full.Prices) != 0 || full.ContextWindow == 0 {
		t.Errorf("a model without price: %+v", full)
	}
	if llama := c.Info("vllm/llama/3"); llama.ContextWindow != 8192 || llama.Count == nil || llama.Tools {
		t.Errorf("a new model: %+v", llama)
	}
	if diff := cmp.Diff([]string{"llama/3"}, c.Models("vllm")); diff != "" {
		t.Error(diff)
	}
	if len(catalog.Builtin().Providers()) != 0 || catalog.Builtin().Info("openai/gpt-4.1-mini").MaxOutput != 32768 {
		t.Error("the built-in catalogue has changed")
	}
}

func TestEmptyDocuments(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing yet\n", "models:\n", "providers:\nmodels:\n", `{"models": {}}`} {
		if c := parse(t, text); len(c.Models("openai")) != 0 {
			t.Errorf("%q has models", text)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"models:\n  openai/x: {context: 5}\n", `my.yaml:2:14: a model has no field "context"; there are capabilities, contextWindow, maxOutput, prices, tokenizer`},
		{"modells:\n  openai/x: {}\n", `my.yaml:1:1: the document has no field "modells"; there are embeddings, models, providers`},
		{"- a\n", "my.yaml:1:1: the document must be an object"},
		{"models:\n  gpt-5: {}\n", `my.yaml:2:3: "gpt-5" is no model id; write it as provider/model`},
		{"models:\n  foo/bar: {}\n", `my.yaml:2:3: the model "foo/bar" belongs to no provider; define foo under providers, or name one of anthropic, gemini, ollama, openai`},
		{"models:\n  openai/x: {contextWindow: -1}\n", `my.yaml:2:29: contextWindow is "-1"; write a number of tokens between 1 and 4294967296`},
		{"models:\n  openai/x: {contextWindow: 1.5}\n", `contextWindow is "1.5"`},
		{"models:\n  openai/x: {maxOutput: [1]}\n", `my.yaml:2:25: maxOutput must be a text`},
		{"models:\n  openai/x: {capabilities: [vision, hearing]}\n", `my.yaml:2:37: the capability "hearing" is unknown; there are vision, tools, schema and reasoning`},
		{"models:\n  openai/x: {capabilities: vision}\n", "capabilities must be a list"},
		{"models:\n  openai/x: {tokenizer: p50k_base}\n", `my.yaml:2:25: the tokenizer "p50k_base" is unknown; there are o200k_base and cl100k_base`},
		{"models:\n  openai/x:\n    prices:\n      - input: 1\n", `my.yaml:4:9: a price needs input and output`},
		{"models:\n  openai/x:\n    prices:\n      - {input: 1e3, output: 1}\n", `"1e3" is no price; write US dollars`},
		{"models:\n  openai/x:\n    prices:\n      - {input: -1, output: 1}\n", `"-1" is no price`},
		{"models:\n  openai/x:\n    prices:\n      - {input: $1, output: 1}\n", `my.yaml:4:17: "$1" is no price`},
		{"models:\n  openai/x:\n    prices:\n      - {from: yesterday, input: 1, output: 1}\n", `my.yaml:4:16: "yesterday" is no date; write it as 2026-01-31`},
		{"models:\n  openai/x:\n    prices:\n      - {from: 2026-02-01, until: 2026-02-01, input: 1, output: 1}\n", "this price ends before it begins"},
		{"models:\n  openai/x:\n    prices:\n      - {input: 1, output: 1}\n      - {from: 2026-01-01, input: 1, output: 1}\n", "my.yaml:5:9: this price overlaps the one before it"},
		{"models:\n  openai/x: {}\n  openai/x: {}\n", `my.yaml:3:3: "openai/x" is there twice; remove one`},
		{"providers:\n  openai: {baseUrl: http://x.test}\n", "my.yaml:2:3: the provider name openai is taken by Chainstream itself; choose another name"},
		{"providers:\n  chain: {baseUrl: http://x.test}\n", "the provider name chain is taken"},
		{"providers:\n  offline: {baseUrl: http://x.test}\n", "the provider name offline is taken"},
		{"providers:\n  My Server: {baseUrl: http://x.test}\n", `"My Server" is no name of a provider; use lower-case letters, digits, - and _`},
		{"providers:\n  v: {label: V}\n", "my.yaml:2:3: the provider v has no baseUrl; write where it is, such as http://127.0.0.1:8000/v1"},
		{"providers:\n  v: {baseUrl: \"user:secret@host\"}\n", "my.yaml:2:16: baseUrl is not an http or https address"},
		{"providers:\n  v: {baseUrl: http://x.test, keyEnv: sk-secret-123}\n", "keyEnv is not the name of an environment variable"},
		{"providers:\n  v: {baseUrl: http://x.test, api: cohere}\n", `the API "cohere" is unknown; write openai, anthropic or gemini`},
		{"providers:\n  v: {baseUrl: http://x.test, detect: maybe}\n", "detect must be true or false"},
		{"providers:\n  v: {baseUrl: http://x.test, detect: true, api: gemini}\n", "the provider v cannot be detected"},
		{"providers: {v: {baseUrl: }}\n", "baseUrl must be a text"},
		{"models: {\n", "my.yaml:1:"},
		{"a: b\n---\nc: d\n", "my.yaml:3:1: there is a second document"},
		{strings.Repeat("#", 2<<20), "my.yaml: the file has 2097152 bytes; at most 1048576 are allowed"},
	} {
		_, err := catalog.Parse("my.yaml", []byte(tt.text), known)
		if err == nil {
			t.Errorf("%q is accepted", tt.text)
			continue
		}
		text := err.Error()
		if !strings.HasPrefix(text, "my.yaml:") || !strings.Contains(text, tt.want) || strings.Contains(text, "\n") {
			t.Errorf("%.200q:\n got %s\nwant %s", tt.text, text, tt.want)
		}
		if strings.Contains(text, "secret") {
			t.Errorf("a secret is in %q", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("models:\n  openai/x: {contextWindow: 5, prices: [{input: 1, output: 2}]}\n")
	f.Add("providers:\n  v: {baseUrl: http://x.test, api: gemini}\nmodels:\n  v/x: {capabilities: [tools]}\n")
	f.Add("a: &x [*x]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := catalog.Parse("f", []byte(text), known)
		if err == nil {
			c = catalog.Builtin().With(c)
			for name := range c.Providers() {
				c.Models(name)
			}
		} else if !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("%q does not say where", err)
		}
	})
}
