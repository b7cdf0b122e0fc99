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
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/llm"
)

const (
	// mostTexts is how many texts one request may have, as with OpenAI.
	mostTexts = 2048
	// embeddingTimeout bounds the call of the provider.
	embeddingTimeout = time.Minute
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
// execution and no log, only the figures at /metrics.
func (s *Server) embed(c echo.Context) error {
	body, _, err := s.body(c, mediaJSON)
	if err != nil {
		return err
	}
	r, err := readEmbedding(body)
	if err != nil {
		return err
	}
	target, err := s.cfg.Models.Resolve(r.model)
	if err != nil {
		return noModel(fmt.Sprintf("The model %q cannot be called here: %s.", r.model, err))
	}
	embedder, ok := target.Provider.(llm.Embedder)
	if !ok {
		return noModel(fmt.Sprintf("The provider of %q has no embeddings.", r.model))
	}
	rc := http.NewResponseController(c.Response().Writer)
	if err := unhurried(rc); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), embeddingTimeout)
	defer cancel()
	vectors, usage, err := embedder.Embed(ctx, target.Model, r.texts, r.dimensions)
	s.metrics.embedding(target.Vendor, usage, err)
	if failed, ok := errors.AsType[*llm.Error](err); ok {
		if c.Request().Context().Err() != nil {
			return c.Request().Context().Err()
		}
		return callFailure(failed)
	}
	if err != nil {
		return err
	}
	answer := embeddingAnswer{Object: "list", Model: r.model, Data: make([]embeddingVector, len(vectors))}
	for i, v := range vectors {
		answer.Data[i] = embeddingVector{Object: "embedding", Index: i, Embedding: v}
		if r.packed {
			answer.Data[i].Embedding = pack(v)
		}
	}
	answer.Usage.PromptTokens, answer.Usage.TotalTokens = usage.InputTokens, usage.InputTokens+usage.OutputTokens
	if err := rc.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set write deadline: %w", err)
	}
	return c.JSON(http.StatusOK, answer)
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
