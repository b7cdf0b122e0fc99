package main

import (
	"math"
	"testing"
)

func TestMeasure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		places []int
		want   quality
	}{
		{"nothing asked", nil, quality{}},
		{"all first", []int{1, 1}, quality{2, 1, 1, 1}},
		{"none found", []int{0, 0, 11}, quality{3, 0, 0, 0}},
		// By hand: MRR (1 + 1/3 + 0 + 1/10)/4, nDCG (1 + 1/2 + 0 + 1/log2(11))/4.
		{"mixed", []int{1, 3, 0, 10}, quality{4, 0.75, 0.358333, 0.447266}},
	} {
		got := measureOf(tt.places)
		near := func(a, b float64) bool { return math.Abs(a-b) < 1e-6 }
		if got.Questions != tt.want.Questions || !near(got.Recall, tt.want.Recall) || !near(got.MRR, tt.want.MRR) || !near(got.NDCG, tt.want.NDCG) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
