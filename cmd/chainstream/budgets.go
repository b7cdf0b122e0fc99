package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/chainstream/chainstream/internal/client"
)

// budgetsCommand is chainstream budgets.
type budgetsCommand struct {
	List   budgetsListCommand   `cmd:"" help:"List budgets with what is left of them."`
	Set    budgetsSetCommand    `cmd:"" help:"Set what executions may use together in a period."`
	Remove budgetsRemoveCommand `cmd:"" help:"Remove a budget."`
}

// budget is what the command line reads of a budget.
type budget struct {
	ID              int64        `json:"id"`
	Scope           string       `json:"scope"`
	Period          string       `json:"period"`
	LimitUSD        *json.Number `json:"limitUsd"`
	LimitTokens     *json.Number `json:"limitTokens"`
	Since           *time.Time   `json:"since"`
	SpentUSD        json.Number  `json:"spentUsd"`
	SpentTokens     json.Number  `json:"spentTokens"`
	ReservedUSD     json.Number  `json:"reservedUsd"`
	ReservedTokens  json.Number  `json:"reservedTokens"`
	RemainingUSD    *json.Number `json:"remainingUsd"`
	RemainingTokens *json.Number `json:"remainingTokens"`
}

const budgetsPath = "/api/v1/budgets"

type budgetsListCommand struct{ clientFlags }

// Run lists budgets.
func (c *budgetsListCommand) Run(ctx context.Context, a *app) error {
	var raw []json.RawMessage
	if err := c.pages(ctx, budgetsPath, url.Values{}, 0, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	t := a.table("ID", "SCOPE", "PERIOD", "LIMIT", "SPENT", "RESERVED", "REMAINING")
	for _, text := range raw {
		var b budget
		if err := json.Unmarshal(text, &b); err != nil {
			return fmt.Errorf("read a budget: %w", err)
		}
		if b.LimitUSD != nil {
			t.row(b.ID, b.Scope, b.Period, *b.LimitUSD+" USD", b.SpentUSD, b.ReservedUSD, *b.RemainingUSD)
		}
		if b.LimitTokens != nil {
			t.row(b.ID, b.Scope, b.Period, *b.LimitTokens+" tokens", b.SpentTokens, b.ReservedTokens, *b.RemainingTokens)
		}
	}
	return t.flush()
}

type budgetsSetCommand struct {
	Scope  string  `arg:"" help:"Which executions: all, or chain: and the name of a chain."`
	Period string  `help:"hour, day, month (in UTC) or total." default:"month"`
	USD    *string `name:"usd" help:"US dollars that the calls may cost together." placeholder:"AMOUNT"`
	Tokens *int64  `help:"Tokens that they may use together, input and output." placeholder:"N"`
	clientFlags
}

// Help is shown by chainstream budgets set --help.
func (budgetsSetCommand) Help() string {
	return `There is one budget for each scope and period; setting it again changes its limits and keeps what it has counted. A call that a budget does not pay for at the worst is not made, and its execution ends with budget_exceeded.

Examples:

    chainstream budgets set all --period day --usd 25
    chainstream budgets set chain:research-brief --period month --usd 100 --tokens 50000000`
}

// Run sets a budget.
func (c *budgetsSetCommand) Run(ctx context.Context, a *app) error {
	if c.USD == nil && c.Tokens == nil {
		return usage("budgets set needs --usd or --tokens")
	}
	wish := map[string]any{"scope": c.Scope, "period": c.Period}
	if c.USD != nil {
		if _, err := strconv.ParseFloat(*c.USD, 64); err != nil || !json.Valid([]byte(*c.USD)) {
			return usage("--usd %q is not an amount such as 25 or 0.5", *c.USD)
		}
		wish["limitUsd"] = json.Number(*c.USD)
	}
	if c.Tokens != nil {
		wish["limitTokens"] = *c.Tokens
	}
	body, err := json.Marshal(wish)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.call(ctx, client.Request{Method: http.MethodPut, Path: budgetsPath, Body: body}, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	var b budget
	if err := json.Unmarshal(raw, &b); err != nil {
		return fmt.Errorf("read the budget: %w", err)
	}
	return a.printf("budget %d of %s per %s is set; all servers keep it within two seconds\n", b.ID, b.Scope, b.Period)
}

type budgetsRemoveCommand struct {
	ID int64 `arg:"" name:"budget-id" help:"Id of the budget."`
	clientFlags
}

// Run removes a budget.
func (c *budgetsRemoveCommand) Run(ctx context.Context, a *app) error {
	if err := c.call(ctx, client.Request{Method: http.MethodDelete, Path: budgetsPath + "/" + strconv.FormatInt(c.ID, 10)}, nil); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(map[string]int64{"removed": c.ID})
	}
	return a.printf("removed budget %d\n", c.ID)
}
