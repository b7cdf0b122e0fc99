package httpapi_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
)

// Every model comes with what is known of it; what is not known is null, and
// nobody is asked unless the request says so.
func TestModels(t *testing.T) {
	t.Parallel()
	usd := decimal.RequireFromString
	cached, change := usd("0.10"), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	var asked atomic.Int64
	list := func(context.Context) ([]llm.Listed, error) {
		asked.Add(1)
		return []llm.Listed{{Model: "listed"}}, nil
	}
	registry := llm.NewRegistry(map[string]llm.Entry{
		"big": {
			Label: "Big", Provider: offline.Provider{}, Models: []string{"model", "unknown"}, List: list,
			Info: map[string]llm.Info{"model": {
				ContextWindow: 1000, MaxOutput: 100, Vision: true, Tools: true, Count: llm.EstimateTokens,
				Prices: []llm.Price{
					{Until: change, Input: usd("0.40"), CachedInput: &cached, Output: usd("1.60")},
					{From: change, Input: usd("9"), Output: usd("9")},
				},
			}},
		},
		"unset": {
			Label: "Unset", Env: "UNSET_KEY", Models: []string{"x"},
			Embeddings: []llm.EmbeddingModel{{
				ID: "e", Label: "Short texts", Dimensions: 8, Shortens: true, MaxTokens: 100, Batch: 5,
				Info: llm.Info{Prices: []llm.Price{{Input: decimal.RequireFromString("0.02")}}, Count: func(string) int64 { return 1 }},
			}},
		},
	})
	a := newFake(t, &scriptedStore{}, func(c *httpapi.Config) { c.Models = registry })
	read := func(path string) map[string]any {
		var got map[string]any
		a.do(call{method: "GET", path: path}).want(http.StatusOK).decode(&got)
		return got
	}
	nothing := map[string]any{"vision": false, "tools": false, "schema": false, "reasoning": false}
	item := func(id, provider, label string, configured bool) map[string]any {
		return map[string]any{
			"id": id, "provider": provider, "label": label, "demo": false, "configured": configured, "available": configured,
			"contextWindow": nil, "maxOutput": nil, "capabilities": nothing, "tokenCount": "estimated", "price": nil,
		}
	}
	known := item("big/model", "big", "Big", true)
	known["contextWindow"], known["maxOutput"], known["tokenCount"] = 1000.0, 100.0, "exact"
	known["capabilities"] = map[string]any{"vision": true, "tools": true, "schema": false, "reasoning": false}
	known["price"] = map[string]any{
		"input": "0.4", "cachedInput": "0.1", "cacheWrite": nil, "output": "1.6", "from": nil, "until": "2100-01-01T00:00:00Z",
	}
	provider := func(id, label string, configured bool, note string) map[string]any {
		return map[string]any{
			"id": id, "label": label, "demo": false, "configured": configured, "available": configured, "local": false, "checkedAt": nil, "note": note,
		}
	}
	want := map[string]any{
		"items":      []any{known, item("big/unknown", "big", "Big", true), item("unset/x", "unset", "Unset", false)},
		"nextCursor": nil,
		"embeddings": []any{map[string]any{
			"id": "unset/e", "provider": "unset", "label": "Short texts", "configured": false, "available": false, "dimensions": 8.0, "shortens": true,
			"maxTokens": 100.0, "batch": 5.0, "tokenCount": "exact", "price": "0.02",
		}},
		"providers": []any{provider("big", "Big", true, ""), provider("unset", "Unset", false, "set UNSET_KEY to use Unset")},
	}
	if diff := cmp.Diff(want, read("/api/v1/models")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("a vendor was asked %d times", n)
	}
	got := read("/api/v1/models?refresh=true")
	if items, _ := got["items"].([]any); len(items) != 4 || asked.Load() != 1 {
		t.Errorf("asked %d times, %d models", asked.Load(), len(items))
	}
	a.do(call{method: "GET", path: "/api/v1/models?refresh=maybe"}).problem(http.StatusBadRequest, "invalid_parameter")
}
