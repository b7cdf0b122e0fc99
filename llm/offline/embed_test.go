package offline_test

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
)

var _ llm.Embedder = offline.Provider{}

func near(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func TestHash(t *testing.T) {
	texts := []string{"The cancelled execution", "executions that were cancelled", "A recipe for bread", "THE CANCELLED EXECUTION!", "…", "日本語のテキスト"}
	v, usage, err := offline.Provider{}.Embed(t.Context(), offline.HashModel, texts, offline.HashDimensions)
	if err != nil || len(v) != len(texts) || usage.InputTokens == 0 {
		t.Fatalf("%d vectors, usage %+v, error %v", len(v), usage, err)
	}
	if alike, other := near(v[0], v[1]), near(v[0], v[2]); alike < other+0.2 {
		t.Errorf("the same words are as near as %g, others as %g", alike, other)
	}
	if diff := cmp.Diff(v[0], v[3]); diff != "" {
		t.Errorf("case and punctuation count:\n%s", diff)
	}
	for i, text := range texts {
		want := 1.0
		if text == "…" {
			want = 0
		}
		if n := near(v[i], v[i]); len(v[i]) != offline.HashDimensions || math.Abs(n-want) > 1e-5 {
			t.Errorf("%q has %d numbers and the length %g, want %g", text, len(v[i]), n, want)
		}
	}
	again, _, err := offline.Provider{}.Embed(t.Context(), offline.HashModel, texts, 0)
	if diff := cmp.Diff(v, again); diff != "" || err != nil {
		t.Errorf("error %v, another vector the second time:\n%s", err, diff)
	}
}

// sentences stands for a model that is loaded elsewhere.
type sentences struct{}

func (sentences) Embed(_ context.Context, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	return make([][]float32, len(texts)), llm.Usage{InputTokens: int64(len(model) + dimensions)}, nil
}

func TestEmbedWhich(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx        context.Context //nolint:containedctx // of one call of a table
		model      string
		dimensions int
		want       llm.Code
	}{
		"model that talks":  {t.Context(), offline.Model, 0, llm.CodeNotFound},
		"no model there":    {t.Context(), offline.SentenceModel, 0, llm.CodeNotFound},
		"another length":    {t.Context(), offline.HashModel, 3, llm.CodeInvalidRequest},
		"caller has gone":   {ended, offline.HashModel, 0, llm.CodeCancelled},
		"no model whatever": {t.Context(), "", 0, llm.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := offline.Provider{}.Embed(tc.ctx, tc.model, []string{"a"}, tc.dimensions)
			var failed *llm.Error
			if !errors.As(err, &failed) || failed.Code != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
	_, usage, err := offline.Provider{Sentences: sentences{}}.Embed(t.Context(), offline.SentenceModel, []string{"a"}, 512)
	if err != nil || usage.InputTokens != int64(len(offline.SentenceModel)+512) {
		t.Errorf("usage %+v, error %v: not passed on", usage, err)
	}
}
