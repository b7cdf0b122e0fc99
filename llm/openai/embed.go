package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// embeddingRequest is what is sent. go-openai's has a user always, be it empty.
type embeddingRequest struct {
	Model          string   `json:"model"`
	Input          []string `json:"input"`
	EncodingFormat string   `json:"encoding_format"`
	Dimensions     int      `json:"dimensions,omitempty"`
}

// embeddingAnswer is the body of a success. go-openai's reader would take null for
// the number 0.
type embeddingAnswer struct {
	Error json.RawMessage `json:"error"` // gateways send one with the status of a success
	Data  []struct {
		Index     *int        `json:"index"`
		Embedding wire.Vector `json:"embedding"`
	} `json:"data"`
	Usage struct {
		PromptTokens int64 `json:"prompt_tokens"`
		TotalTokens  int64 `json:"total_tokens"`
	} `json:"usage"`
}

// Embed implements llm.Embedder. A server that gives no usage has it estimated. The
// API has no purposes.
func (p *Provider) Embed(ctx context.Context, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	if err := llm.ContextError(ctx); err != nil {
		return nil, llm.Usage{}, err
	}
	if len(texts) == 0 {
		return [][]float32{}, llm.Usage{}, nil
	}
	got, failed := p.requestEmbeddings(ctx, embeddingRequest{Model: model, Input: texts, EncodingFormat: "float", Dimensions: dimensions})
	if failed != nil {
		return nil, llm.Usage{}, failed
	}
	vectors, err := got.arrange(len(texts))
	if err != nil {
		return nil, llm.Usage{}, p.withDetail(llm.NewError(llm.CodeMalformedResponse, nil), err.Error())
	}
	usage := llm.Usage{InputTokens: max(got.Usage.PromptTokens, got.Usage.TotalTokens)}
	if usage.InputTokens == 0 || !usage.Plausible() {
		usage = llm.EstimateInput(texts)
	}
	return vectors, usage, nil
}

// requestEmbeddings makes the call and reads the answer.
func (p *Provider) requestEmbeddings(ctx context.Context, request embeddingRequest) (*embeddingAnswer, *llm.Error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, p.withDetail(llm.NewError(llm.CodeInvalidRequest, nil), err.Error())
	}
	c := &call{limit: p.maxBytes}
	req, err := http.NewRequestWithContext(context.WithValue(ctx, callKey{}, c), http.MethodPost, p.base+"/embeddings", bytes.NewReader(body))
	if err != nil {
		return nil, p.withDetail(llm.NewError(llm.CodeInvalidRequest, nil), err.Error())
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if p.key != "" {
		req.Header.Set("Authorization", "Bearer "+p.key)
	}
	resp, err := p.doer.Do(req)
	if err != nil {
		return nil, p.openError(ctx, c, err)
	}
	defer resp.Body.Close() // nothing is lost: the answer has been read
	if c.body == nil {
		return nil, p.openError(ctx, c, errors.New("no success"))
	}
	var got embeddingAnswer
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return nil, p.bodyError(ctx, err)
	}
	if len(got.Error) > 0 && string(got.Error) != "null" {
		f := parseFailure(got.Error)
		return nil, p.withDetail(f.streamed(), f.message)
	}
	return &got, nil
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
func (a *embeddingAnswer) arrange(texts int) ([][]float32, error) {
	if len(a.Data) != texts {
		return nil, fmt.Errorf("%d vectors came for %d texts", len(a.Data), texts)
	}
	vectors := make([][]float32, texts)
	for place, d := range a.Data {
		index := place // of servers that do not number them
		if d.Index != nil {
			index = *d.Index
		}
		if index < 0 || index >= texts || vectors[index] != nil || len(d.Embedding) == 0 {
			return nil, fmt.Errorf("the vectors are not numbered from 0 to %d, or one is empty", texts-1)
		}
		vectors[index] = d.Embedding
	}
	for _, v := range vectors {
		if len(v) != len(vectors[0]) {
			return nil, errors.New("the vectors are not of one length")
		}
	}
	return vectors, nil
}
