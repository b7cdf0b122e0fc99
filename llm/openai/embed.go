package openai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/sashabaranov/go-openai"

	"github.com/chainstream/chainstream/llm"
)

// Embed implements llm.Embedder. A server that gives no usage has it estimated.
func (p *Provider) Embed(ctx context.Context, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	if err := llm.ContextError(ctx); err != nil {
		return nil, llm.Usage{}, err
	}
	c := &call{limit: p.maxBytes}
	got, err := p.client.CreateEmbeddings(context.WithValue(ctx, callKey{}, c), openai.EmbeddingRequestStrings{
		Input: texts, Model: openai.EmbeddingModel(model), EncodingFormat: openai.EmbeddingEncodingFormatFloat, Dimensions: dimensions,
	})
	if err != nil {
		if c.body == nil {
			return nil, llm.Usage{}, p.openError(ctx, c, err)
		}
		return nil, llm.Usage{}, p.bodyError(ctx, err)
	}
	vectors, err := arrange(got.Data, len(texts))
	if err != nil {
		return nil, llm.Usage{}, p.withDetail(llm.NewError(llm.CodeMalformedResponse, nil), err.Error())
	}
	usage := llm.Usage{InputTokens: int64(max(got.Usage.PromptTokens, got.Usage.TotalTokens))}
	if usage.InputTokens == 0 || !usage.Plausible() {
		usage = llm.Usage{Estimated: true}
		for _, text := range texts {
			usage.InputTokens += llm.EstimateTokens(text)
		}
	}
	return vectors, usage, nil
}

// bodyError translates a failure to read the body of a success.
func (p *Provider) bodyError(ctx context.Context, err error) *llm.Error {
	if e := llm.ContextError(ctx); e != nil {
		return e
	}
	code := llm.CodeConnectionFailed
	switch {
	case isType[*http.MaxBytesError](err):
		code = llm.CodeResponseTooLarge
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		code = llm.CodeTruncatedStream
	case isType[*json.SyntaxError](err), isType[*json.UnmarshalTypeError](err):
		code = llm.CodeMalformedResponse
	}
	return p.withDetail(llm.NewError(code, nil), err.Error())
}

func isType[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// arrange puts the vectors into the order of their texts.
func arrange(data []openai.Embedding, texts int) ([][]float32, error) {
	if len(data) != texts {
		return nil, fmt.Errorf("%d vectors came for %d texts", len(data), texts)
	}
	vectors := make([][]float32, texts)
	for _, d := range data {
		if d.Index < 0 || d.Index >= texts || vectors[d.Index] != nil || len(d.Embedding) == 0 {
			return nil, fmt.Errorf("the vectors are not numbered from 0 to %d, or one is empty", texts-1)
		}
		vectors[d.Index] = d.Embedding
	}
	return vectors, nil
}
