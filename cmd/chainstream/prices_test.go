package main_test

import (
	"testing"

	main "github.com/chainstream/chainstream/cmd/chainstream"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// The database learns which prices the operator has given.
func TestPricesTellTheirSource(t *testing.T) {
	t.Parallel()
	registry := llm.NewRegistry(map[string]llm.Entry{"test": {Models: []string{"known", "own"}, Info: map[string]llm.Info{
		"known": {Prices: llm.Free()}, "own": {Prices: llm.Free(), OwnPrices: true},
	}}})
	want := map[string]string{"test/known": executor.PriceCatalogue, "test/own": executor.PriceFile}
	got := main.Prices(registry)
	for _, p := range got {
		if want[p.ModelID] != p.Source {
			t.Errorf("%s: %s, want %s", p.ModelID, p.Source, want[p.ModelID])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d prices", len(got))
	}
}
