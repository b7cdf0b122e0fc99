package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

type searchAnswer struct {
	Results  []passageView `json:"results"`
	Degraded string        `json:"degraded,omitempty"`
	Left     leftView      `json:"left"`
	// Tokens of the passages as a prompt would get them, with their citations.
	Tokens      int64            `json:"tokens"`
	TokenCount  string           `json:"tokenCount"` // exact or estimated
	Explanation *explanationView `json:"explanation,omitempty"`
}

// leftView counts what was found and left out, by reason.
type leftView struct {
	Threshold int `json:"threshold"`
	Document  int `json:"document"`
	Limit     int `json:"limit"`
	MaxTokens int `json:"maxTokens"`
}

// passageView is a chunk that was found.
type passageView struct {
	ChunkID      int64       `json:"chunkId"`
	DocumentID   int64       `json:"documentId"`
	DocumentName string      `json:"documentName"`
	RepositoryID int64       `json:"repositoryId"`
	Version      int64       `json:"version"`
	Text         string      `json:"text"`
	Headings     string      `json:"headings"`
	Page         *int        `json:"page"` // null in formats without pages
	Score        float64     `json:"score"`
	Signals      signalsView `json:"signals"`
}

// signalsView is what the score was made of; null = not found that way.
type signalsView struct {
	Vector      *float64 `json:"vector"`
	VectorRank  *int     `json:"vectorRank"`
	Keyword     *float64 `json:"keyword"`
	KeywordRank *int     `json:"keywordRank"`
	Rerank      *float64 `json:"rerank,omitempty"` // only where a rerank hook has ordered
	RerankRank  *int     `json:"rerankRank,omitempty"`
}

func signalsViewOf(s knowledge.Signals) (v signalsView) {
	if s.VectorRank > 0 {
		v.Vector, v.VectorRank = &s.VectorScore, &s.VectorRank
	}
	if s.KeywordRank > 0 {
		v.Keyword, v.KeywordRank = &s.KeywordScore, &s.KeywordRank
	}
	if s.RerankRank > 0 {
		v.Rerank, v.RerankRank = &s.RerankScore, &s.RerankRank
	}
	return v
}

func passageViewOf(p knowledge.Passage) passageView {
	v := passageView{
		ChunkID: p.ChunkID, DocumentID: p.DocumentID, DocumentName: p.Document, RepositoryID: p.RepositoryID, Version: p.DocumentVersion,
		Text: p.Text, Headings: p.Headings, Score: p.Score,
		Signals: signalsViewOf(p.Signals),
	}
	if p.Page > 0 {
		v.Page = &p.Page
	}
	return v
}

// searchRequest is what is asked of a search.
type searchRequest struct {
	knowledge.Query
	maxTokens int    // of the passages together; 0 = any number
	counter   string // the model whose tokenizer counts them; "" = the embedding model of the first repository
	explain   bool
}

// searchRepositories is POST /api/v1/repositories/search.
func (s *Server) searchRepositories(c echo.Context) error {
	r, err := s.readObject(c)
	if err != nil {
		return err
	}
	q := r.search()
	if len(r.problems) > 0 {
		return inputProblem(r.problems)
	}
	ctx := c.Request().Context()
	missing, err := s.cfg.Search.Missing(ctx, q.Repositories)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return &problem{kind: kindNoRepository, detail: fmt.Sprintf("No repository has the id %d.", missing[0])}
	}
	count, counted, err := s.counter(ctx, q)
	if err != nil {
		return err
	}
	var x *knowledge.Explanation
	var result knowledge.Result
	if q.explain {
		if x, err = s.cfg.Search.Explain(ctx, q.Query); err == nil {
			result = x.Result
		}
	} else {
		result, err = s.cfg.Search.Retrieve(ctx, q.Query)
	}
	if failed, ok := errors.AsType[*llm.Error](err); ok && ctx.Err() == nil {
		return callFailure(failed)
	}
	if err != nil {
		return err
	}
	placed := knowledge.Assemble(result.Passages, q.maxTokens, count)
	answer := searchAnswer{
		Results: make([]passageView, len(placed.Passages)), Degraded: result.Degraded, Tokens: placed.Tokens, TokenCount: counted,
		Left: leftView{result.Left.Threshold, result.Left.Document, result.Left.Limit, len(placed.Cut)},
	}
	for i, p := range placed.Passages {
		answer.Results[i] = passageViewOf(p)
	}
	if x != nil {
		answer.Explanation = explanationViewOf(x, placed.Cut)
	}
	return c.JSON(http.StatusOK, answer)
}

// counter answers what counts the tokens of passages, and whether that is exact.
func (s *Server) counter(ctx context.Context, q searchRequest) (count func(string) int64, how string, err error) {
	const exact, estimated = "exact", "estimated"
	id := q.counter
	if id == "" {
		r, err := s.cfg.Store.Repository(ctx, q.Repositories[0])
		if err != nil {
			return nil, "", err
		}
		id = r.Space.Model
	}
	if info := s.cfg.Models.Info(id); info.Count != nil {
		return info.Count, exact, nil
	}
	if e, err := s.cfg.Embeddings.Embedding(id); err == nil {
		if e.Exact {
			return e.Count, exact, nil
		}
		return e.Count, estimated, nil
	}
	return llm.EstimateTokens, estimated, nil
}

// Bounds of a search.
const (
	mostRepositories  = 100
	mostQuery         = 100_000 // characters
	mostPassages      = 100
	defaultPassages   = 10
	mostNeighbours    = 5
	mostOfOneDocument = 100
	mostContextTokens = 1_000_000
)

func (r *fieldReader) search() (q searchRequest) {
	raw := r.fields["repositories"]
	if err := json.Unmarshal(raw, &q.Repositories); err != nil || len(q.Repositories) == 0 || len(q.Repositories) > mostRepositories {
		r.add("/repositories", chain.CodeInvalid, fmt.Sprintf("must be a list of 1 to %d ids of repositories", mostRepositories))
	}
	slices.Sort(q.Repositories)
	q.Repositories = slices.Compact(q.Repositories)
	if q.Text = r.free("query", mostQuery); strings.TrimSpace(q.Text) == "" {
		r.add("/query", chain.CodeRequired, "must not be empty")
	}
	switch q.Search = r.free("search", mostName); q.Search {
	case "":
		q.Search = knowledge.SearchHybrid
	case knowledge.SearchVector, knowledge.SearchKeyword, knowledge.SearchHybrid:
	default:
		r.add("/search", chain.CodeInvalid, "must be vector, keyword or hybrid")
	}
	q.Limit = r.number("limit", 1, mostPassages, defaultPassages)
	q.PerDocument = r.number("perDocument", 1, mostOfOneDocument, 0)
	q.Neighbours = r.number("neighbours", 0, mostNeighbours, 0)
	if raw, ok := r.field("threshold"); ok {
		if err := json.Unmarshal(raw, &q.Threshold); err != nil || q.Threshold < 0 || q.Threshold > 1 {
			r.add("/threshold", chain.CodeOutOfRange, "must be a number from 0 to 1")
		}
	}
	if r.object("filter") != nil {
		q.Filter = r.fields["filter"]
	}
	q.maxTokens = r.number("maxTokens", 1, mostContextTokens, 0)
	q.counter = r.free("model", mostName)
	if raw, ok := r.field("explain"); ok && json.Unmarshal(raw, &q.explain) != nil {
		r.add("/explain", chain.CodeWrongType, "must be true or false")
	}
	r.surplus("repositories", "query", "search", "limit", "threshold", "perDocument", "neighbours", "filter", "maxTokens", "model", "explain")
	return q
}
