package executor_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm"
)

// What a hit says was saved is exact, in its event and in SQL, also with more
// decimals than prices usually have.
func TestSavedCostIsExact(t *testing.T) {
	t.Parallel()
	const exact = "0.0370370367001"
	answer := provider(func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
		yield(llm.Chunk{Text: "x", FinishReason: llm.FinishStop, Usage: &llm.Usage{InputTokens: 1, OutputTokens: 3}}, nil)
	})
	h := newHarness(t, vendor(answer, llm.Price{Input: usd("0.0000001"), Output: usd("12345.6789")}, "m"), executor.Config{})
	v := h.chain("name: saved\nprompts:\n  - {name: P, position: 1, model: test/m, content: x, cache: 1h}\n")
	h.follow(h.trigger(v, nil).ID)
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	hit := find(log, "cache-hit")
	if len(hit) != 1 || hit[0].Data["savedCostUsd"] != exact {
		t.Fatalf("event: %v", hit)
	}
	if s := h.states(ex.ID)["P"]; s.Saved == nil || deref(s.Saved.CostUSD) != exact {
		t.Errorf("prompt: %+v", s.Saved)
	}
	var stored string
	pgtest.Row(t, h.url, "SELECT cost_usd::text FROM response_cache", nil, &stored)
	if stored != exact {
		t.Errorf("the cache holds %s", stored)
	}
}

// Under a limit the longest answer goes with the call: never one that does not
// fit into the context window behind the prompt.
func TestReservedAnswerFitsTheWindow(t *testing.T) {
	t.Parallel()
	r := &recorder{answer: func(_ context.Context, _ int, yield func(llm.Chunk, error) bool) {
		yield(llm.Chunk{Text: "x", FinishReason: llm.FinishStop, Usage: &llm.Usage{InputTokens: 1, OutputTokens: 1}}, nil)
	}}
	models := vendor(r, dear(), "m")
	info := models["test"].Info["m"]
	info.ContextWindow, info.MaxOutput = 1000, 1000
	models["test"].Info["m"] = info
	h := newHarness(t, models, executor.Config{})
	h.follow(h.trigger(h.chain(single+"limits: {maxTokens: 100000}\n"), nil).ID)
	if asked := r.requests(); len(asked) != 1 || asked[0].MaxTokens != 1000-12 {
		t.Errorf("asked: %+v", asked)
	}
}

// A bug of ours in the middle of a call ends the prompt, and nothing stays
// reserved for it, neither in the ledger nor in a budget.
func TestBrokenCallIsClosed(t *testing.T) {
	t.Parallel()
	silent := provider(func(_ context.Context, _ llm.Request, yield func(llm.Chunk, error) bool) {
		if yield(llm.Chunk{Text: "x", FinishReason: llm.FinishStop}, nil) {
			yield(llm.Chunk{Usage: &llm.Usage{InputTokens: 12, OutputTokens: 1, Estimated: true}}, nil) // so that the answer is counted by us
		}
	})
	models := vendor(silent, perToken(1, 1), "m")
	info := models["test"].Info["m"]
	info.Count = func(text string) int64 {
		if text == "x" {
			panic("a bug in the tokenizer")
		}
		return int64(len(text))
	}
	models["test"].Info["m"] = info
	url := budgeted(t, total("all", fmt.Sprint(1_000_000), 0))
	h := newHarnessOn(t, url, models, executor.Config{})
	ex := h.trigger(h.chain(single), nil)
	h.checkLog(ex.ID, h.follow(ex.ID))
	rows := h.calls(ex.ID)
	if len(rows) != 1 || rows[0].Status != "failed" || rows[0].ErrorCode != "internal" || rows[0].OutputTokens == 0 {
		t.Errorf("ledger: %+v", rows)
	}
	if b := h.budgets()[0]; !b.Reserved.USD.IsZero() || b.Reserved.Tokens != 0 || b.Spent.USD.IsZero() {
		t.Errorf("budget: spent %+v, reserved %+v", b.Spent, b.Reserved)
	}
	checkSums(t, url)
}
