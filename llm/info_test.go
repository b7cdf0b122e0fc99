package llm_test

import (
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/llm"
)

func TestPriceCost(t *testing.T) {
	t.Parallel()
	usd := decimal.RequireFromString
	cached, write := usd("0.075"), usd("0.375")
	full := llm.Price{Input: usd("0.3"), CachedInput: &cached, CacheWrite: &write, Output: usd("1.2")}
	for _, tt := range []struct {
		name  string
		price llm.Price
		usage llm.Usage
		want  string
	}{
		{"nothing", full, llm.Usage{}, "0"},
		{"plain", full, llm.Usage{InputTokens: 1000, OutputTokens: 500}, "0.0009"},
		{"cached input is not paid twice", full, llm.Usage{InputTokens: 1000, CachedTokens: 1000}, "0.000075"},
		{"written input is not paid twice", full, llm.Usage{InputTokens: 1000, CachedTokens: 400, CacheWriteTokens: 600}, "0.000255"},
		{"without cache prices", llm.Price{Input: usd("0.3"), Output: usd("1.2")}, llm.Usage{InputTokens: 1000, CachedTokens: 900}, "0.0003"},
		{"reasoning is output", full, llm.Usage{OutputTokens: 10, ReasoningTokens: 9}, "0.000012"},
		{"a single token", llm.Price{Input: usd("0.01875")}, llm.Usage{InputTokens: 1}, "0.00000001875"},
		{"free", llm.Free()[0], llm.Usage{InputTokens: 5, OutputTokens: 7}, "0"},
	} {
		if got := tt.price.Cost(tt.usage).String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestPriceAt(t *testing.T) {
	t.Parallel()
	change := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	info := llm.Info{Prices: []llm.Price{{Until: change, Input: decimal.NewFromInt(2)}, {From: change, Input: decimal.NewFromInt(1)}}}
	for at, want := range map[time.Time]int64{change.Add(-1): 2, change: 1, change.AddDate(5, 0, 0): 1} {
		if p, ok := info.PriceAt(at); !ok || p.Input.IntPart() != want {
			t.Errorf("at %s: %+v, %v, want %d", at, p, ok, want)
		}
	}
	if _, ok := (llm.Info{}).PriceAt(change); ok {
		t.Error("an unknown model has a price")
	}
}

func TestUsagePlausible(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		usage llm.Usage
		want  bool
	}{
		{llm.Usage{}, true},
		{llm.Usage{InputTokens: 5, CachedTokens: 2, CacheWriteTokens: 3, OutputTokens: 4, ReasoningTokens: 4}, true},
		{llm.Usage{InputTokens: -1}, false},
		{llm.Usage{InputTokens: 5, CachedTokens: 6}, false},
		{llm.Usage{InputTokens: 5, CachedTokens: 3, CacheWriteTokens: 3}, false},
		{llm.Usage{OutputTokens: 1, ReasoningTokens: 2}, false},
		{llm.Usage{OutputTokens: llm.MaxTokenCount + 1}, false},
	} {
		if got := tt.usage.Plausible(); got != tt.want {
			t.Errorf("%+v: %v", tt.usage, got)
		}
	}
}
