package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

const (
	// mostTexts is how many texts one request may have, as with OpenAI.
	mostTexts = 2048
	// embeddingTimeout bounds the calls of the provider, and longestRetry the wait
	// for one that is made again.
	embeddingTimeout = time.Minute
	longestRetry     = 2 * time.Second
)

// embedding is what was asked for.
type embedding struct {
	model      string
	texts      []string
	dimensions int
	packed     bool // vectors in base64
}

type embeddingAnswer struct {
	Object string            `json:"object"`
	Data   []embeddingVector `json:"data"`
	Model  string            `json:"model"`
	Usage  struct {
		PromptTokens int64 `json:"prompt_tokens"`
		TotalTokens  int64 `json:"total_tokens"`
	} `json:"usage"`
}

type embeddingVector struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"` // a list of numbers, or a text in base64
}

// embed is POST /v1/embeddings. It is passed on to the provider: there is no
// execution and no log, only a row in the ledger.
func (s *Server) embed(c echo.Context) error {
	body, _, err := s.body(c, mediaJSON)
	if err != nil {
		return err
	}
	r, err := readEmbedding(body)
	if err != nil {
		return err
	}
	got, err := s.vectors(c, r)
	if err != nil {
		return err
	}
	answer := embeddingAnswer{Object: "list", Model: r.model, Data: make([]embeddingVector, len(got.Vectors))}
	for i, v := range got.Vectors {
		answer.Data[i] = embeddingVector{Object: "embedding", Index: i, Embedding: v}
		if r.packed {
			answer.Data[i].Embedding = pack(v)
		}
	}
	answer.Usage.PromptTokens, answer.Usage.TotalTokens = got.Usage.InputTokens, got.Usage.InputTokens+got.Usage.OutputTokens
	return c.JSON(http.StatusOK, answer)
}

// textEmbedding is the answer of POST /api/v1/ai/embeddings.
type textEmbedding struct {
	Embedding []float32 `json:"embedding"`
	Model     string    `json:"model"`
	Tokens    int64     `json:"tokens"`
}

// embedText is POST /api/v1/ai/embeddings: one text, with the fields that assistants
// written for other servers know.
func (s *Server) embedText(c echo.Context) error {
	in, err := s.readObject(c)
	if err != nil {
		return err
	}
	r := &embedding{model: in.free("model", mostName), texts: []string{in.free("text", mostText)}}
	if strings.TrimSpace(r.texts[0]) == "" {
		in.add("/text", chain.CodeRequired, "must not be empty")
	}
	in.surplus("text", "model")
	if len(in.problems) > 0 {
		return inputProblem(in.problems)
	}
	switch {
	case r.model == "":
		r.model = s.defaultEmbedding()
	case !strings.Contains(r.model, "/"):
		r.model = "openai/" + r.model
	}
	got, err := s.vectors(c, r)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, textEmbedding{Embedding: got.Vectors[0], Model: r.model, Tokens: got.Usage.InputTokens})
}

// mostText bounds the text of one request, in characters.
const mostText = 1_000_000

// defaultEmbeddings are the models that stand for a request without one: the first
// that can be called.
var defaultEmbeddings = []string{"openai/text-embedding-3-small", "offline/use-lite", "offline/hash"}

func (s *Server) defaultEmbedding() string {
	for _, id := range defaultEmbeddings {
		if _, err := s.cfg.Embeddings.Embedding(id); err == nil {
			return id
		}
	}
	return defaultEmbeddings[0] // whose error says what is missing
}

// vectors makes the vectors of a request. Short waits are made here; who has to wait
// longer is told so. A text that is too long is not cut: the error says so.
func (s *Server) vectors(c echo.Context, r *embedding) (knowledge.Embedded, error) {
	e, err := s.cfg.Embeddings.Embedding(r.model)
	if err != nil {
		return knowledge.Embedded{}, noModel(fmt.Sprintf("The model %q cannot be called here: %s.", r.model, err))
	}
	rc := http.NewResponseController(c.Response().Writer)
	if err := unhurried(rc); err != nil {
		return knowledge.Embedded{}, err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), embeddingTimeout)
	defer cancel()
	got, err := knowledge.EmbedTexts(ctx, e, r.texts, knowledge.EmbedOptions{
		Dimensions: r.dimensions, Retry: llm.RetryPolicy{MaxRetryAfter: longestRetry, Max: longestRetry},
	})
	provider, _, _ := strings.Cut(r.model, "/")
	s.metrics.embedding(provider, got.Usage, err)
	if err != nil {
		return knowledge.Embedded{}, embeddingFailure(c.Request().Context(), err, r.dimensions)
	}
	if err := rc.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return knowledge.Embedded{}, fmt.Errorf("set write deadline: %w", err)
	}
	return got, nil
}

func embeddingFailure(ctx context.Context, err error, dimensions int) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return callFailure(llm.NewError(llm.CodeTimeoutTotal, err))
	}
	if errors.Is(err, knowledge.ErrDimensions) {
		p := callFailure(llm.NewError(llm.CodeInvalidRequest, err))
		p.detail = fmt.Sprintf("The model does not make vectors of %d numbers.", dimensions)
		return p
	}
	if failed, ok := errors.AsType[*llm.Error](err); ok {
		return callFailure(failed)
	}
	return err
}

// pack writes a vector as OpenAI does: 32-bit floats, the smallest byte first.
func pack(v []float32) string {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(b)
}

func readEmbedding(body []byte) (*embedding, error) {
	f, err := readObject(body)
	if err != nil {
		return nil, err
	}
	r := &embedding{model: f.needed("model")}
	switch format := f.text("encoding_format"); format {
	case "", "float":
	case "base64":
		r.packed = true
	default:
		f.fail("encoding_format", codeInvalidValue, "encoding_format must be float or base64.")
	}
	if n := f.whole("dimensions", 1); n != nil {
		if *n > math.MaxInt32 {
			f.fail("dimensions", codeInvalidValue, "dimensions is too large.")
		}
		r.dimensions = int(*n)
	}
	f.text("user")
	r.texts = texts(f)
	return r, *f.err
}

// texts reads one text or a list of texts. Lists of tokens are OpenAI's own and
// mean nothing to other providers.
func texts(f fields) []string {
	raw := f.raw("input")
	if raw == nil {
		f.fail("input", codeMissing, "input is missing.")
		return nil
	}
	var one string
	var many []string
	if json.Unmarshal(raw, &one) == nil {
		many = []string{one}
	} else if json.Unmarshal(raw, &many) != nil {
		var tokens []float64
		var lists [][]float64
		if json.Unmarshal(raw, &tokens) == nil || json.Unmarshal(raw, &lists) == nil {
			f.fail("input", codeUnsupportedValue, "input must be text: lists of tokens are not passed on.")
		} else {
			f.fail("input", codeInvalidType, "input must be a text or a list of texts.")
		}
		return nil
	}
	if len(many) == 0 || len(many) > mostTexts {
		f.fail("input", codeInvalidValue, "input must have from 1 to %d texts.", mostTexts)
	}
	for i, text := range many {
		if text == "" {
			f.fail(fmt.Sprintf("input[%d]", i), codeInvalidValue, "A text must not be empty.")
		}
	}
	return many
}
