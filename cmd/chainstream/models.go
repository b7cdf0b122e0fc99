package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/internal/client"
	"github.com/chainstream/chainstream/llm"
)

// modelsCommand is chainstream models.
type modelsCommand struct {
	Server  string `help:"Server to ask. Without one, the models are those of this machine's configuration." placeholder:"URL" environ:"CHAINSTREAM_SERVER"`
	Refresh bool   `help:"Ask the configured vendors too which models the key may use."`
	JSON    bool   `help:"Print JSON."`
	modelFlags
}

// Help is shown by chainstream models --help.
func (modelsCommand) Help() string {
	return `A model that is not listed can be named all the same; its limits and its price are unknown then. Prices are US dollars for a million tokens.

Model servers on this machine (Ollama, LM Studio) are looked for. Vendors are asked with --refresh only; nobody charges for that.

Examples:

    chainstream models
    chainstream models --models-file models.yaml
    chainstream models --refresh --json
    chainstream models --server http://127.0.0.1:8080`
}

// modelsAnswer is what the command line reads of the list.
type modelsAnswer struct {
	Items []struct {
		ID            string          `json:"id"`
		Demo          bool            `json:"demo"`
		Configured    bool            `json:"configured"`
		Available     bool            `json:"available"`
		ContextWindow *int64          `json:"contextWindow"`
		MaxOutput     *int64          `json:"maxOutput"`
		Capabilities  map[string]bool `json:"capabilities"`
		Price         *struct {
			Input       string  `json:"input"`
			CachedInput *string `json:"cachedInput"`
			Output      string  `json:"output"`
		} `json:"price"`
	} `json:"items"`
	Embeddings []struct {
		ID         string  `json:"id"`
		Label      string  `json:"label"`
		Configured bool    `json:"configured"`
		Available  bool    `json:"available"`
		Dimensions *int64  `json:"dimensions"`
		MaxTokens  *int64  `json:"maxTokens"`
		Price      *string `json:"price"`
	} `json:"embeddings"`
	Providers []struct {
		ID    string `json:"id"`
		Label string `json:"label"`
		Note  string `json:"note"`
	} `json:"providers"`
}

// Run lists the models.
func (c *modelsCommand) Run(ctx context.Context, a *app) error {
	raw, err := c.list(ctx, a)
	if err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	var answer modelsAnswer
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("read the models: %w", err)
	}
	t := a.table("MODEL", "STATE", "CONTEXT", "MAX OUTPUT", "CAN", "$ INPUT", "$ CACHED", "$ OUTPUT")
	for _, m := range answer.Items {
		state := "ready"
		switch {
		case m.Demo:
			state = "demo"
		case !m.Configured:
			state = "not configured"
		case !m.Available:
			state = "not there"
		}
		var can []string
		for _, what := range []string{"vision", "tools", "schema", "reasoning"} {
			if m.Capabilities[what] {
				can = append(can, what)
			}
		}
		input, cached, output := "unknown", "unknown", "unknown"
		if p := m.Price; p != nil {
			input, cached, output = p.Input, p.Input, p.Output
			if p.CachedInput != nil {
				cached = *p.CachedInput
			}
		}
		t.row(m.ID, state, tokens(m.ContextWindow), tokens(m.MaxOutput), strings.Join(can, " "), input, cached, output)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := a.printf("\n"); err != nil {
		return err
	}
	t = a.table("EMBEDDING MODEL", "STATE", "DIMENSIONS", "MAX TOKENS", "$ INPUT", "WHAT IT IS")
	for _, m := range answer.Embeddings {
		state, price := "ready", "unknown"
		switch {
		case !m.Configured:
			state = "not configured"
		case !m.Available:
			state = "not there"
		}
		if m.Price != nil {
			price = *m.Price
		}
		t.row(m.ID, state, tokens(m.Dimensions), tokens(m.MaxTokens), price, m.Label)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, p := range answer.Providers {
		if p.Note != "" {
			if err := a.printf("%s: %s\n", printable(p.Label), printable(p.Note)); err != nil {
				return err
			}
		}
	}
	return nil
}

// list answers the list as JSON, from the server or from the configuration.
func (c *modelsCommand) list(ctx context.Context, a *app) (json.RawMessage, error) {
	var raw json.RawMessage
	if c.Server != "" {
		err := clientFlags{Server: c.Server}.call(ctx, client.Request{
			Path: "/api/v1/models", Query: url.Values{"refresh": {strconv.FormatBool(c.Refresh)}},
		}, &raw)
		return raw, err
	}
	httpClient := llm.NewHTTPClient()
	defer httpClient.CloseIdleConnections()
	registry, err := c.registry(a.getenv, httpClient, 0)
	if err != nil {
		return nil, err
	}
	defer registry.Close()
	registry.Refresh(ctx, c.Refresh)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return json.Marshal(httpapi.ModelList(registry, time.Now()))
}

// tokens is a number of tokens that may be unknown.
func tokens(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return strconv.FormatInt(*n, 10)
}
