package catalog

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/tokenizer"
)

// reserved are prefixes of model ids that have a meaning of their own.
var reserved = []string{"chain", "offline"}

var (
	providerName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	envName      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	priceText    = regexp.MustCompile(`^\d{1,9}(\.\d{1,12})?$`)
)

// Parse reads a catalogue from YAML or JSON. known are the providers there are
// beside those of the document. Its errors are one sentence that starts with the
// name, the line and the column.
func Parse(name string, data []byte, known []string) (*Catalog, error) {
	r := &reader{name: name}
	root, err := r.document(data)
	if err != nil {
		return nil, err
	}
	c := &Catalog{models: make(map[string]Model), embeddings: make(map[string]Embedding), providers: make(map[string]Provider)}
	err = r.fields(root, "the document", map[string]func(ast.Node) error{
		"providers": func(n ast.Node) error {
			return r.members(n, "providers", func(key ast.Node, name string, value ast.Node) error {
				p, err := r.provider(key, name, value, known)
				c.providers[name] = p
				return err
			})
		},
		// Read below, when the providers are known.
		"models": func(ast.Node) error { return nil }, "embeddings": func(ast.Node) error { return nil },
	})
	if err != nil {
		return nil, err
	}
	for name := range c.providers {
		known = append(slices.Clone(known), name)
	}
	return c, r.fields(root, "the document", map[string]func(ast.Node) error{
		"providers": func(ast.Node) error { return nil },
		"models": r.ofProviders("models", known, func(id string, n ast.Node) (err error) {
			c.models[id], err = r.model(n)
			return err
		}),
		"embeddings": r.ofProviders("embeddings", known, func(id string, n ast.Node) (err error) {
			c.embeddings[id], err = r.embedding(n)
			return err
		}),
	})
}

// ofProviders reads a mapping of model ids, each of which belongs to a provider.
func (r *reader) ofProviders(what string, known []string, each func(id string, n ast.Node) error) func(ast.Node) error {
	return func(n ast.Node) error {
		return r.members(n, what, func(key ast.Node, id string, value ast.Node) error {
			provider, _, err := llm.SplitModelID(id)
			if err != nil {
				return r.errorf(key, "%q is no model id; write it as provider/model, such as openai/gpt-4.1-mini", id)
			}
			if !slices.Contains(known, provider) {
				known := slices.Sorted(slices.Values(known))
				return r.errorf(key, "the model %q belongs to no provider; define %s under providers, or name one of %s", id, provider, strings.Join(known, ", "))
			}
			return each(id, value)
		})
	}
}

func (r *reader) provider(key ast.Node, name string, n ast.Node, known []string) (Provider, error) {
	p := Provider{Label: name, API: "openai"}
	if !providerName.MatchString(name) {
		return p, r.errorf(key, "%q is no name of a provider; use lower-case letters, digits, - and _", name)
	}
	if slices.Contains(known, name) || slices.Contains(reserved, name) {
		return p, r.errorf(key, "the provider name %s is taken by Chainstream itself; choose another name", name)
	}
	err := r.fields(n, "the provider "+name, map[string]func(ast.Node) error{
		"baseUrl": func(n ast.Node) (err error) {
			p.BaseURL, err = r.text(n, "baseUrl")
			if u, parseErr := url.Parse(p.BaseURL); err == nil && (parseErr != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
				// Not quoted: it may hold a password.
				err = r.errorf(n, "baseUrl is not an http or https address; write it with the version, such as http://127.0.0.1:8000/v1")
			}
			return err
		},
		"keyEnv": func(n ast.Node) (err error) {
			p.KeyEnv, err = r.text(n, "keyEnv")
			if err == nil && !envName.MatchString(p.KeyEnv) {
				// Not quoted: it may be the key itself.
				err = r.errorf(n, "keyEnv is not the name of an environment variable; put the key into a variable and write the name of it, such as VLLM_API_KEY")
			}
			return err
		},
		"label": func(n ast.Node) (err error) { p.Label, err = r.text(n, "label"); return err },
		"api": func(n ast.Node) (err error) {
			p.API, err = r.text(n, "api")
			if err == nil && !slices.Contains([]string{"openai", "anthropic", "gemini"}, p.API) {
				err = r.errorf(n, "the API %q is unknown; write openai, anthropic or gemini", p.API)
			}
			return err
		},
		"maxCompletionTokens": func(n ast.Node) (err error) {
			p.MaxCompletionTokens, err = r.truth(n, "maxCompletionTokens")
			return err
		},
		"detect": func(n ast.Node) (err error) { p.Detect, err = r.truth(n, "detect"); return err },
		"free":   func(n ast.Node) (err error) { p.Free, err = r.truth(n, "free"); return err },
	})
	switch {
	case err != nil:
		return p, err
	case p.BaseURL == "":
		return p, r.errorf(key, "the provider %s has no baseUrl; write where it is, such as http://127.0.0.1:8000/v1", name)
	case p.Detect && p.API != "openai":
		return p, r.errorf(key, "the provider %s cannot be detected; detect works with the API openai only", name)
	}
	return p, nil
}

func (r *reader) model(n ast.Node) (Model, error) {
	var m Model
	err := r.fields(n, "a model", map[string]func(ast.Node) error{
		"contextWindow": func(n ast.Node) (err error) { m.ContextWindow, err = r.tokens(n, "contextWindow"); return err },
		"maxOutput":     func(n ast.Node) (err error) { m.MaxOutput, err = r.tokens(n, "maxOutput"); return err },
		"capabilities": func(n ast.Node) error {
			m.Capabilities = &Capabilities{}
			flags := map[string]*bool{
				"vision": &m.Capabilities.Vision, "tools": &m.Capabilities.Tools,
				"schema": &m.Capabilities.Schema, "reasoning": &m.Capabilities.Reasoning,
			}
			return r.items(n, "capabilities", func(n ast.Node) error {
				word, err := r.text(n, "a capability")
				if err != nil {
					return err
				}
				if flags[word] == nil {
					return r.errorf(n, "the capability %q is unknown; there are vision, tools, schema and reasoning", word)
				}
				*flags[word] = true
				return nil
			})
		},
		"tokenizer": func(n ast.Node) (err error) { m.Tokenizer, err = r.tokenizer(n); return err },
		"prices": func(n ast.Node) (err error) {
			m.priced = true
			m.Prices, err = r.prices(n, false)
			return err
		},
	})
	return m, err
}

func (r *reader) tokenizer(n ast.Node) (string, error) {
	name, err := r.text(n, "tokenizer")
	if err == nil && tokenizer.Counter(name) == nil {
		err = r.errorf(n, "the tokenizer %q is unknown; there are %s and %s, and without one tokens are estimated", name, tokenizer.O200k, tokenizer.CL100k)
	}
	return name, err
}

// prices reads prices over time; inputOnly says that there is no output to pay.
func (r *reader) prices(n ast.Node, inputOnly bool) (prices []llm.Price, err error) {
	err = r.items(n, "prices", func(n ast.Node) error {
		p, err := r.price(n, inputOnly)
		if err != nil {
			return err
		}
		if k := len(prices); k > 0 && (prices[k-1].Until.IsZero() || prices[k-1].Until.After(p.From)) {
			return r.errorf(n, "this price overlaps the one before it; write the oldest first, and give that an until that is no later than the from of the next")
		}
		prices = append(prices, p)
		return nil
	})
	return prices, err
}

func (r *reader) price(n ast.Node, inputOnly bool) (llm.Price, error) {
	var p llm.Price
	var input, output *decimal.Decimal
	amount := func(into **decimal.Decimal) func(ast.Node) error {
		return func(n ast.Node) error {
			text, err := r.text(n, "a price")
			if err != nil {
				return err
			}
			if !priceText.MatchString(text) {
				return r.errorf(n, "%q is no price; write US dollars for a million tokens as a decimal, such as \"0.40\"", text)
			}
			d, err := decimal.NewFromString(text)
			*into = &d
			return err
		}
	}
	moment := func(into *time.Time) func(ast.Node) error {
		return func(n ast.Node) error {
			text, err := r.text(n, "a date")
			if err != nil {
				return err
			}
			for _, layout := range []string{time.DateOnly, time.RFC3339} {
				if *into, err = time.Parse(layout, text); err == nil {
					*into = into.UTC()
					return nil
				}
			}
			return r.errorf(n, "%q is no date; write it as 2026-01-31, or with a time as 2026-01-31T12:00:00Z", text)
		}
	}
	note := func(n ast.Node) error { _, err := r.text(n, "a note"); return err }
	err := r.fields(n, "a price", map[string]func(ast.Node) error{
		"from": moment(&p.From), "until": moment(&p.Until),
		"input": amount(&input), "cachedInput": amount(&p.CachedInput), "cacheWrite": amount(&p.CacheWrite), "output": amount(&output),
		"source": note, "checked": note, // for people
	})
	if inputOnly && output == nil {
		output = &decimal.Zero
	}
	switch {
	case err != nil:
		return p, err
	case inputOnly && input == nil:
		return p, r.errorf(n, "a price of an embedding model needs input, in US dollars for a million tokens; write \"0\" where it costs nothing")
	case input == nil || output == nil:
		return p, r.errorf(n, "a price needs input and output, in US dollars for a million tokens; write \"0\" where it costs nothing")
	case !p.Until.IsZero() && !p.From.Before(p.Until):
		return p, r.errorf(n, "this price ends before it begins; until must be later than from")
	}
	p.Input, p.Output = *input, *output
	return p, nil
}

// tokens reads a number of tokens.
func (r *reader) tokens(n ast.Node, what string) (*int64, error) {
	text, err := r.text(n, what)
	if err != nil {
		return nil, err
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 1 || v > llm.MaxTokenCount {
		return nil, r.errorf(n, "%s is %q; write a number of tokens between 1 and %d", what, text, int64(llm.MaxTokenCount))
	}
	return &v, nil
}

func (r *reader) truth(n ast.Node, what string) (bool, error) {
	if v, ok := n.(*ast.BoolNode); ok {
		return v.Value, nil
	}
	return false, r.errorf(n, "%s must be true or false", what)
}
