package offline

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/chainstream/chainstream/llm"
)

// The embedding models of this package.
const (
	// HashModel is the last resort: it needs no weights and knows no meaning.
	HashModel = "hash"
	// HashDimensions is the length of its vectors.
	HashDimensions = 512
	// HashLabel stands wherever the model is listed.
	HashLabel = "Last resort: compares spellings, knows no meaning"
	// SentenceModel is answered by Provider.Sentences.
	SentenceModel = "use-lite"
)

// Embed implements llm.Embedder: HashModel is computed here, SentenceModel by
// Sentences. Any other model is llm.CodeNotFound.
func (p Provider) Embed(ctx context.Context, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	switch {
	case model == SentenceModel && p.Sentences != nil:
		return p.Sentences.Embed(ctx, model, texts, dimensions)
	case model != HashModel:
		e := llm.NewError(llm.CodeNotFound, nil)
		e.Detail = llm.Redact(fmt.Sprintf("the offline provider has no embedding model %q", model))
		return nil, llm.Usage{}, e
	case dimensions != 0 && dimensions != HashDimensions:
		e := llm.NewError(llm.CodeInvalidRequest, nil)
		e.Detail = fmt.Sprintf("the vectors of %s have %d dimensions, not %d", HashModel, HashDimensions, dimensions)
		return nil, llm.Usage{}, e
	}
	vectors := make([][]float32, len(texts))
	var usage llm.Usage
	for i, text := range texts {
		if err := llm.ContextError(ctx); err != nil {
			return nil, llm.Usage{}, err
		}
		vectors[i] = spelling(text)
		usage.InputTokens += llm.EstimateTokens(text)
	}
	return vectors, usage, nil
}

// spelling counts the runs of three to five characters within the words of a
// text, each under the number that its hash gives. Texts that share words or
// stems come out alike, and no others. A text without letters or digits gets
// zeros, any other a vector of the length 1.
func spelling(text string) []float32 {
	const shortest, longest = 3, 5
	v := make([]float32, HashDimensions)
	words := strings.FieldsFunc(strings.ToLower(norm.NFKC.String(text)), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
	})
	for _, word := range words {
		marked := []rune("<" + word + ">")
		for n := shortest; n <= longest; n++ {
			for from := 0; from+n <= len(marked); from++ {
				h := fnv.New64a()
				_, _ = h.Write([]byte(string(marked[from : from+n]))) // a hash never fails
				sum := h.Sum64()
				// A second part of the hash gives the sign, so that what falls on the
				// same number by chance cancels out as often as it adds up.
				if sum>>63 == 0 {
					v[sum%HashDimensions]++
				} else {
					v[sum%HashDimensions]--
				}
			}
		}
	}
	var square float64
	for i, x := range v {
		// Long texts repeat what all texts have; that must not drown the rest.
		damped := math.Copysign(math.Sqrt(math.Abs(float64(x))), float64(x))
		v[i] = float32(damped)
		square += damped * damped
	}
	if square == 0 {
		return v
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / math.Sqrt(square))
	}
	return v
}
