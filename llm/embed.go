package llm

import "context"

// Embedder is a provider that also turns texts into vectors. Implementations are
// safe for concurrent use.
type Embedder interface {
	// Embed answers one vector for each text, in order. Dimensions shortens the
	// vectors, where the model can; 0 is the model's own length. An error is an
	// *Error under the rules of Provider.Stream, and then nothing is answered.
	Embed(ctx context.Context, model string, texts []string, dimensions int) ([][]float32, Usage, error)
}
