package wire_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm/wire"
)

func TestVector(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]wire.Vector{
		`[]`: {}, `[1]`: {1}, " [ 1 ,\n-2.5e-3,0 ] ": {1, -0.0025, 0}, `[1e-50]`: {0}, `[3.4e38]`: {3.4e38},
	} {
		var got wire.Vector
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	for _, text := range []string{`[null]`, `[1,null]`, `["1"]`, `[1e39]`, `[[1]]`, `{}`, `"AAAA"`, `[true]`, `1`, `[NaN]`, `[1,]`, `["a,b"]`} {
		var got wire.Vector
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s was read as %v", text, got)
		}
	}
	var none struct{ V wire.Vector }
	if err := json.Unmarshal([]byte(`{"V": null}`), &none); err == nil && len(none.V) > 0 {
		t.Error("null is a vector")
	}
}

// Whatever is read is finite.
func FuzzVector(f *testing.F) {
	f.Add([]byte(`[1, -2e3]`))
	f.Add([]byte(`[null]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v wire.Vector
		if json.Unmarshal(data, &v) != nil {
			return
		}
		for _, x := range v {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				t.Errorf("%q has %v", data, x)
			}
		}
	})
}
