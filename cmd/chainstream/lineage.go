package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/internal/client"
)

type executionsRetryCommand struct {
	executionFlags
	Follow bool `help:"Show the new execution live until it has ended; its state is the exit code." short:"f"`
}

// Help is shown by chainstream executions retry --help.
func (executionsRetryCommand) Help() string {
	return `Makes a new execution that takes over every prompt that had completed and runs the rest. What is taken over is not paid again.`
}

// Run retries an execution.
func (c *executionsRetryCommand) Run(ctx context.Context, a *app) error {
	return c.derive(ctx, a, "retry", struct{}{}, c.Follow)
}

type executionsForkCommand struct {
	executionFlags
	From    string   `help:"Id, slug or name of the first prompt that runs again; without it all do." placeholder:"PROMPT"`
	Version int      `help:"Version of the chain; without it that of the execution."`
	Model   []string `help:"A model for all prompts that run, or slug=model for one; may be given several times." sep:"none" placeholder:"[SLUG=]MODEL"`
	Follow  bool     `help:"Show the new execution live until it has ended; its state is the exit code." short:"f"`
	inputFlags
}

// Help is shown by chainstream executions fork --help.
func (executionsForkCommand) Help() string {
	return `Makes a new execution that takes over the completed prompts before one and runs the rest, with other inputs, another version or other models where they are given.

Examples:

    chainstream executions fork 41 --from outline --input audience=executive --follow
    chainstream executions fork 41 --from draft --model openai/gpt-4.1 --version 3`
}

// Run forks an execution.
func (c *executionsForkCommand) Run(ctx context.Context, a *app) error {
	body := struct {
		FromPrompt string                     `json:"fromPrompt,omitempty"`
		Inputs     map[string]json.RawMessage `json:"inputs,omitempty"`
		Version    int                        `json:"version,omitempty"`
		Model      any                        `json:"model,omitempty"`
	}{FromPrompt: c.From, Version: c.Version}
	var err error
	if body.Model, err = c.models(); err != nil {
		return err
	}
	if len(c.Input) > 0 || c.InputsJSON != "" {
		types, err := c.types(ctx)
		if err != nil {
			return err
		}
		if body.Inputs, err = c.values(types); err != nil {
			return err
		}
	}
	return c.derive(ctx, a, "fork", body, c.Follow)
}

// models answers one model for all, or models by slug; nil for none.
func (c *executionsForkCommand) models() (any, error) {
	single := make(map[string]string)
	all := ""
	for _, given := range c.Model {
		slug, model, named := strings.Cut(given, "=")
		switch {
		case named && slug != "" && model != "":
			single[slug] = model
		case named || given == "" || all != "":
			return nil, usage("--model %q: give one model, or slug=model for each prompt", given)
		default:
			all = given
		}
	}
	switch {
	case all != "" && len(single) > 0:
		return nil, usage("--model: give one model, or slug=model for each prompt, not both")
	case all != "":
		return all, nil
	case len(single) > 0:
		return single, nil
	}
	return nil, nil
}

// types asks the server for the types of the inputs of the version that will
// run. Inputs of a deleted chain are sent as text.
func (c *executionsForkCommand) types(ctx context.Context) (map[string]chain.InputType, error) {
	var ex struct {
		ChainID int64 `json:"chainId"`
		Version int   `json:"chainVersion"`
	}
	if err := c.call(ctx, client.Request{Path: executionPath(c.ID)}, &ex); err != nil {
		return nil, err
	}
	if c.Version > 0 {
		ex.Version = c.Version
	}
	types, err := c.inputTypes(ctx, strconv.FormatInt(ex.ChainID, 10), ex.Version)
	if hasCode(err, http.StatusNotFound) {
		return nil, nil // the chain was deleted, or there is no such version, which the fork will say
	}
	return types, err
}

// derive asks for an execution that comes from another one. The request carries
// a key of its own, so that it may be sent twice when a connection breaks.
func (f executionFlags) derive(ctx context.Context, a *app, action string, body any, watch bool) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	api, err := f.client()
	if err != nil {
		return err
	}
	defer api.Close()
	request := client.Request{Method: http.MethodPost, Path: executionPath(f.ID) + "/" + action, Body: text, Key: uuid.NewString()}
	var raw json.RawMessage
	if err := send(ctx, api, request, &raw); err != nil {
		return err
	}
	var ex execution
	if err := json.Unmarshal(raw, &ex); err != nil {
		return fmt.Errorf("read the execution: %w", err)
	}
	switch {
	case watch:
		w := follower{app: a, api: api, id: ex.ID, show: a.newDisplay(f.JSON)}
		state, err := w.follow(ctx)
		if err != nil {
			return err
		}
		return outcome(state)
	case f.JSON:
		return a.printJSON(raw)
	}
	return a.printf("execution %d, a %s of %d, is %s; follow it with: chainstream watch %d\n", ex.ID, action, f.ID, ex.Status, ex.ID)
}

// send sends a request that carries a key, and once more when the connection
// breaks under it.
func send(ctx context.Context, c *client.Client, r client.Request, v any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := c.Do(ctx, r, v)
	var gone *client.NoServerError
	if errors.As(err, &gone) && !errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil {
		err = c.Do(ctx, r, v)
	}
	return err
}

// atQuery is the query for an execution as it was after an event; nil for now.
func atQuery(seq *int64) url.Values {
	if seq == nil {
		return nil
	}
	return url.Values{"atSeq": {strconv.FormatInt(*seq, 10)}}
}

// lineage says in words where an execution comes from; "" when from none.
func (ex execution) lineage() string {
	switch {
	case ex.Parent == 0:
		return ""
	case ex.FromPrompt != "":
		return fmt.Sprintf("%s of %d from %s", ex.Origin, ex.Parent, ex.FromPrompt)
	}
	return fmt.Sprintf("%s of %d", ex.Origin, ex.Parent)
}
