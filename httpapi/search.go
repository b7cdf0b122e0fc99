package httpapi

import (
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
}

// leftView counts what was found and left out, by reason.
type leftView struct {
	Threshold int `json:"threshold"`
	Document  int `json:"document"`
	Limit     int `json:"limit"`
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
}

func signalsViewOf(s knowledge.Signals) (v signalsView) {
	if s.VectorRank > 0 {
		v.Vector, v.VectorRank = &s.VectorScore, &s.VectorRank
	}
	if s.KeywordRank > 0 {
		v.Keyword, v.KeywordRank = &s.KeywordScore, &s.KeywordRank
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
	result, err := s.cfg.Search.Retrieve(ctx, q)
	if failed, ok := errors.AsType[*llm.Error](err); ok && ctx.Err() == nil {
		return callFailure(failed)
	}
	if err != nil {
		return err
	}
	answer := searchAnswer{Results: make([]passageView, len(result.Passages)), Degraded: result.Degraded, Left: leftView(result.Left)}
	for i, p := range result.Passages {
		answer.Results[i] = passageViewOf(p)
	}
	return c.JSON(http.StatusOK, answer)
}

// Bounds of a search.
const (
	mostRepositories  = 100
	mostQuery         = 100_000 // characters
	mostPassages      = 100
	defaultPassages   = 10
	mostNeighbours    = 5
	mostOfOneDocument = 100
)

func (r *triggerReader) search() (q knowledge.Query) {
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
	if raw, ok := r.fields["threshold"]; ok && string(raw) != "null" {
		if err := json.Unmarshal(raw, &q.Threshold); err != nil || q.Threshold < 0 || q.Threshold > 1 {
			r.add("/threshold", chain.CodeOutOfRange, "must be a number from 0 to 1")
		}
	}
	if r.object("filter") != nil {
		q.Filter = r.fields["filter"]
	}
	r.surplus("repositories", "query", "search", "limit", "threshold", "perDocument", "neighbours", "filter")
	return q
}
