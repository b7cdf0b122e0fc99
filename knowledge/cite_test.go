package knowledge_test

import (
	"slices"
	"testing"

	"github.com/chainstream/chainstream/knowledge"
)

func TestCited(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]int{
		"":                                     nil,
		"Pelicans eat fish [1].":               {1},
		"Both [2, 3] and [1][3]; again [2].":   {1, 2, 3},
		"Out of range: [0] [4] [1000] [-1]":    nil,
		"A [1](https://example.com) is a link": nil,
		"xs[1] is cited, x[a] is not":          {1},
		"[ 1 ] [1,] [1;2]":                     {1, 2},
	} {
		if got := knowledge.Cited(text, 3); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
