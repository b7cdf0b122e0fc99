package knowledge

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// Embed answers a vector for each text, by as few calls as the model takes, and
// tries those again that failed for a passing reason. Vectors are checked: all of
// the wanted length (0 = whatever the model's is), every number finite.
func Embed(ctx context.Context, e Embedding, texts []string, dimensions int, retry llm.RetryPolicy) ([][]float32, error) {
	out := make([][]float32, 0, len(texts))
	for len(out) < len(texts) {
		batch := texts[len(out):min(len(texts), len(out)+max(e.Batch, 1))]
		vectors, err := embedBatch(ctx, e, batch, dimensions, retry)
		if err != nil {
			return nil, err
		}
		out = append(out, vectors...)
	}
	return out, nil
}

func embedBatch(ctx context.Context, e Embedding, texts []string, dimensions int, retry llm.RetryPolicy) ([][]float32, error) {
	for try := 1; ; try++ {
		vectors, _, err := e.Embedder.Embed(ctx, e.Model, texts, dimensions)
		if err == nil {
			return vectors, checkVectors(vectors, len(texts), dimensions)
		}
		delay, again := retry.Next(try, err)
		if !again {
			return nil, err
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

func checkVectors(vectors [][]float32, count, dimensions int) error {
	if len(vectors) != count {
		return llm.NewError(llm.CodeMalformedResponse, fmt.Errorf("%d vectors for %d texts", len(vectors), count))
	}
	for _, v := range vectors {
		if dimensions > 0 && len(v) != dimensions || len(v) != len(vectors[0]) {
			return fmt.Errorf("%w: %d numbers", ErrDimensions, len(v))
		}
		for _, x := range v {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return llm.NewError(llm.CodeMalformedResponse, fmt.Errorf("a vector is not finite"))
			}
		}
	}
	return nil
}
