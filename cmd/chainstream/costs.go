package main

import (
	"context"
	"errors"
	"time"

	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/postgres/embedded"
)

// costsCommand is chainstream costs.
type costsCommand struct {
	Reprice costsRepriceCommand `cmd:"" help:"Compute what past calls cost anew, from the prices that the database has now."`
}

type costsRepriceCommand struct {
	From   time.Time `required:"" help:"Calls that began at or after this time, such as 2026-11-01T00:00:00Z." placeholder:"TIME"`
	Until  time.Time `help:"And before this time; without it, now." placeholder:"TIME"`
	DryRun bool      `help:"Change nothing and tell what would change."`
	migrateFlags
}

// Help is shown by chainstream costs reprice --help.
func (costsRepriceCommand) Help() string {
	return `Costs follow from the tokens of a call and from the price of its model when it began, in the table model_prices. Correct a price there, for example with chainstream psql, and then run this: the calls, their prompts and executions, and what retries and forks say they saved get the new sums. It may be run as often as you like.

Executions that have not ended are left out; run it again for them. Events are never changed, and budgets keep what they counted. docs/costs.md has the tables.

Examples:

    chainstream psql -c "UPDATE model_prices SET output_usd = 1.6 WHERE model_id = 'openai/gpt-4.1-mini'"
    chainstream costs reprice --from 2026-11-01T00:00:00Z --dry-run
    chainstream costs reprice --from 2026-11-01T00:00:00Z`
}

// Run prices calls anew.
func (c *costsRepriceCommand) Run(ctx context.Context, a *app) error {
	if c.Until.IsZero() {
		c.Until = time.Now()
	}
	if !c.From.Before(c.Until) {
		return usage("--from must be before --until")
	}
	err := c.with(ctx, a, func(d *database) error { return c.reprice(ctx, a, d) })
	if !errors.Is(err, embedded.ErrInUse) {
		return err
	}
	// A server runs on the embedded database, and does not mind.
	d, foundErr := c.running(a.getenv)
	if foundErr != nil {
		return err
	}
	return c.reprice(ctx, a, d)
}

func (c *costsRepriceCommand) reprice(ctx context.Context, a *app, d *database) error {
	current, newest, err := postgres.SchemaVersion(ctx, d.direct)
	if err != nil {
		return databaseError(err, d.where)
	}
	if current < newest {
		return &exitError{code: exitFailed, message: "the schema of " + d.where + " is behind; bring it up with: chainstream migrate up"}
	}
	store, err := postgres.Open(ctx, postgres.Config{URL: d.url})
	if err != nil {
		return databaseError(err, d.where)
	}
	defer store.Close()
	r, err := store.Reprice(ctx, c.From, c.Until, c.DryRun)
	if err != nil {
		return databaseError(err, d.where)
	}
	if c.JSON {
		return a.printJSON(map[string]any{
			"dryRun": c.DryRun, "calls": r.Calls, "prompts": r.Prompts, "executions": r.Executions, "runningCalls": r.Running,
			"costUsdBefore": r.Before.String(), "costUsdAfter": r.After.String(),
		})
	}
	verb := "have a new cost"
	if c.DryRun {
		verb = "would have a new cost"
	}
	if err := a.printf("%s %s, with %s of %s: %s USD before, %s USD after\n", count(int(r.Calls), "call"), verb,
		count(int(r.Prompts), "prompt"), count(int(r.Executions), "execution"), r.Before, r.After); err != nil {
		return err
	}
	if r.Running > 0 {
		return a.printf("left out: %s of executions that have not ended; run it again for them\n", count(int(r.Running), "call"))
	}
	return nil
}

// prices answers the prices that the registry knows, for the database.
func prices(registry *llm.Registry) []executor.ModelPrice {
	var list []executor.ModelPrice
	for _, m := range registry.Models() {
		info, source := registry.Info(m.ID), executor.PriceCatalogue
		if info.OwnPrices {
			source = executor.PriceFile
		}
		for _, p := range info.Prices {
			list = append(list, executor.ModelPrice{ModelID: m.ID, Source: source, Price: p})
		}
	}
	return list
}
