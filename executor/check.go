package executor

import (
	"context"
	"fmt"
	"slices"

	"github.com/chainstream/chainstream/chain"
)

// Check tells what a valid chain asks for that this server does not have:
// models of unknown providers, eyes for images, tools, repositories, and a cost
// limit over models whose price is unknown. Its error is chain.Problems.
func (e *Executor) Check(ctx context.Context, c *chain.Chain) error {
	var problems chain.Problems
	add := func(pointer, code, format string, args ...any) {
		problems = append(problems, chain.Problem{Pointer: pointer, Code: code, Detail: fmt.Sprintf(format, args...)})
	}
	if c.Limits.MaxCostUSD != "" {
		if err := e.money.load(ctx, e.store); err != nil {
			return fmt.Errorf("look up prices: %w", err)
		}
	}
	unpriced := ""
	for _, m := range c.Models() {
		if err := e.models.Check(m.ID); err != nil {
			add(m.Pointer, "unknown_model", "%s.", err)
		} else if _, priced := e.money.priceAt(m.ID, e.models.Info(m.ID), e.cfg.Now()); !priced && unpriced == "" {
			unpriced = m.ID
		}
	}
	if c.Limits.MaxCostUSD != "" && unpriced != "" {
		add("/limits/maxCostUsd", "unknown_price", "The limit cannot be kept: this server does not know the price of %s.", unpriced)
	}
	for i, p := range c.Prompts {
		if len(p.Images) == 0 {
			continue
		}
		for j, id := range append([]string{p.Model}, p.Fallback...) {
			pointer := fmt.Sprintf("/prompts/%d/model", i)
			if j > 0 {
				pointer = fmt.Sprintf("/prompts/%d/fallback/%d", i, j-1)
			}
			if e.models.Info(id).Blind() {
				add(pointer, "no_vision", "The model %s cannot see images.", id)
			}
		}
	}
	for _, t := range c.Tools() {
		add(t.Pointer, "unknown_tool", "There is no tool named %q on this server.", t.ID)
	}
	if refs := c.Repositories(); len(refs) > 0 {
		ids := make([]int64, len(refs))
		for i, r := range refs {
			ids[i] = r.ID
		}
		missing := ids
		if e.cfg.Retriever != nil {
			var err error
			if missing, err = e.cfg.Retriever.Missing(ctx, ids); err != nil {
				return fmt.Errorf("look up repositories: %w", err)
			}
		}
		for _, r := range refs {
			if slices.Contains(missing, r.ID) {
				add(r.Pointer, "unknown_repository", "There is no knowledge repository with id %d.", r.ID)
			}
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}
