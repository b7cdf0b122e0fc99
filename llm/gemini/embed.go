package gemini

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

// embedMethod embeds several texts by one call.
const embedMethod = ":batchEmbedContents"

type embedRequest struct {
	Requests []embedText `json:"requests"`
}

type embedText struct {
	Model      string       `json:"model"`
	Content    embedContent `json:"content"`
	TaskType   string       `json:"taskType,omitempty"`
	Dimensions int          `json:"outputDimensionality,omitempty"`
}

type embedContent struct {
	Parts []embedPart `json:"parts"`
}

type embedPart struct {
	Text string `json:"text"`
}

type embedAnswer struct {
	Error      json.RawMessage `json:"error"` // gateways send one with the status of a success
	Embeddings []struct {
		Values wire.Vector `json:"values"`
	} `json:"embeddings"`
	// Usage is not sent by every version of the API.
	Usage struct {
		PromptTokenCount int64 `json:"promptTokenCount"`
	} `json:"usageMetadata"`
}

// Embed implements llm.Embedder.
func (p *Provider) Embed(ctx context.Context, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	return p.EmbedFor(ctx, llm.PurposeAny, model, texts, dimensions)
}

// EmbedFor implements llm.PurposeEmbedder. Vectors that were shortened are brought
// to the length 1, which Gemini does with whole ones only.
func (p *Provider) EmbedFor(ctx context.Context, purpose llm.Purpose, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	if err := llm.ContextError(ctx); err != nil {
		return nil, llm.Usage{}, err
	}
	if len(texts) == 0 {
		return [][]float32{}, llm.Usage{}, nil
	}
	got, failed := p.requestEmbeddings(ctx, purpose, model, texts, dimensions)
	if failed != nil {
		return nil, llm.Usage{}, failed
	}
	vectors := make([][]float32, len(got.Embeddings))
	for i, e := range got.Embeddings {
		vectors[i] = e.Values
	}
	if problem := uneven(vectors, len(texts)); problem != "" {
		return nil, llm.Usage{}, p.withDetail(llm.NewError(llm.CodeMalformedResponse, nil), problem)
	}
	if dimensions > 0 {
		for _, v := range vectors {
			normalise(v)
		}
	}
	usage := llm.Usage{InputTokens: got.Usage.PromptTokenCount}
	if usage.InputTokens == 0 || !usage.Plausible() {
		usage = llm.EstimateInput(texts)
	}
	return vectors, usage, nil
}

// requestEmbeddings makes the call and reads the answer.
func (p *Provider) requestEmbeddings(
	ctx context.Context, purpose llm.Purpose, model string, texts []string, dimensions int,
) (*embedAnswer, *llm.Error) {
	name := model
	if !strings.Contains(name, "/") {
		name = "models/" + name
	}
	request := embedRequest{Requests: make([]embedText, len(texts))}
	for i, text := range texts {
		request.Requests[i] = embedText{
			Model: name, Content: embedContent{Parts: []embedPart{{Text: text}}}, TaskType: taskType(purpose), Dimensions: dimensions,
		}
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, p.withDetail(llm.NewError(llm.CodeInvalidRequest, nil), err.Error())
	}
	resp, failed := p.open(ctx, ctx, model, embedMethod, body)
	if failed != nil {
		return nil, failed
	}
	defer resp.Body.Close() // nothing is lost: the answer has been read
	var got embedAnswer
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, p.maxBytes)).Decode(&got); err != nil {
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
	var large *http.MaxBytesError
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	code := llm.CodeConnectionFailed
	switch {
	case errors.As(err, &large):
		code = llm.CodeResponseTooLarge
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		code = llm.CodeTruncatedStream
	case errors.As(err, &syntax), errors.As(err, &kind):
		code = llm.CodeMalformedResponse
	}
	return p.withDetail(llm.NewError(code, nil), err.Error())
}

// taskType is Gemini's word for what vectors are for.
func taskType(p llm.Purpose) string {
	switch p {
	case llm.PurposeQuery:
		return "RETRIEVAL_QUERY"
	case llm.PurposeDocument:
		return "RETRIEVAL_DOCUMENT"
	case llm.PurposeAny:
	}
	return ""
}

// uneven says what is wrong with the vectors, "" when nothing is. The API does not
// number them: they come in the order of the texts.
func uneven(vectors [][]float32, texts int) string {
	if len(vectors) != texts {
		return fmt.Sprintf("%d vectors came for %d texts", len(vectors), texts)
	}
	for _, v := range vectors {
		if len(v) == 0 || len(v) != len(vectors[0]) {
			return "the vectors are empty or not of one length"
		}
	}
	return ""
}

// normalise brings a vector to the length 1; one of zeros stays.
func normalise(v []float32) {
	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	if square == 0 {
		return
	}
	scale := 1 / math.Sqrt(square)
	for i, x := range v {
		v[i] = float32(float64(x) * scale)
	}
}
