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

// Purpose says what vectors are for. Some models place a question otherwise than
// the passages that answer it.
type Purpose string

// The purposes of vectors. PurposeAny is for comparing texts of one kind.
const (
	PurposeAny      Purpose = ""
	PurposeQuery    Purpose = "query"
	PurposeDocument Purpose = "document"
)

// PurposeEmbedder is an Embedder that passes on what vectors are for.
type PurposeEmbedder interface {
	Embedder
	// EmbedFor is Embed for a purpose.
	EmbedFor(ctx context.Context, purpose Purpose, model string, texts []string, dimensions int) ([][]float32, Usage, error)
}

// EmbedFor embeds texts for a purpose, where the provider makes a difference.
func EmbedFor(ctx context.Context, e Embedder, purpose Purpose, model string, texts []string, dimensions int) ([][]float32, Usage, error) {
	if p, ok := e.(PurposeEmbedder); ok {
		return p.EmbedFor(ctx, purpose, model, texts, dimensions)
	}
	return e.Embed(ctx, model, texts, dimensions)
}

// EstimateInput is the usage of texts whose provider says none.
func EstimateInput(texts []string) Usage {
	usage := Usage{Estimated: true}
	for _, text := range texts {
		usage.InputTokens += EstimateTokens(text)
	}
	return usage
}

// EmbeddingModel is a model that turns texts into vectors.
type EmbeddingModel struct {
	ID         string // provider/model; in an Entry without the provider
	Label      string // for people: what kind of model it is; may be empty
	Dimensions int    // of its own vectors; 0 = unknown
	Shortens   bool   // shorter vectors can be asked for
	MaxTokens  int    // of a text, what follows has no influence or is refused; 0 = unknown or any
	Batch      int    // texts of one call, at most; 0 = unknown
	// BatchTokens is how many tokens the texts of one call may have together; 0 =
	// unknown or any.
	BatchTokens int
	Info        Info // prices, of which only those of the input count, and the tokenizer
	// Available tells that the model can be called; nil = whenever its provider is
	// configured.
	Available func() bool
}
