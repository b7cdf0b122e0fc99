package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/knowledge"
)

// citationView is a passage that a prompt was given, under the number that its
// output cites it by.
type citationView struct {
	Number       int     `json:"number"`
	ChunkID      int64   `json:"chunkId"`
	RepositoryID int64   `json:"repositoryId"`
	DocumentID   int64   `json:"documentId"`
	DocumentName string  `json:"documentName"`
	Version      int64   `json:"version"`
	Headings     string  `json:"headings"`
	Page         *int    `json:"page"` // null in formats without pages
	Score        float64 `json:"score"`
	Cited        bool    `json:"cited"` // the output has the number
}

// mostRetrievals bounds the retrievals that are looked at: one for each attempt of
// each prompt.
const mostRetrievals = 1000

// cite puts the passages that its prompts were given into an execution.
func (s *Server) cite(ctx context.Context, c *chain.Chain, d *executionDetail) error {
	if len(c.Repositories()) == 0 {
		return nil
	}
	records, err := s.cfg.Store.EventsOfTypes(ctx, d.ExecutionID, 0, []events.Type{events.TypeKnowledgeRetrieved}, mostRetrievals)
	if err != nil {
		return err
	}
	given := make(map[int64][]events.ChunkRef)
	for _, r := range records {
		var e events.KnowledgeRetrieved
		if err := json.Unmarshal(r.Data, &e); err != nil {
			return fmt.Errorf("read event %d of execution %d: %w", r.Seq, d.ExecutionID, err)
		}
		given[e.PromptID] = e.Chunks // the last attempt counts
	}
	for i := range d.Prompts {
		p := &d.Prompts[i]
		chunks := given[p.PromptID]
		cited := make(map[int]bool)
		for _, n := range knowledge.Cited(p.Output, len(chunks)) {
			cited[n] = true
		}
		for _, c := range chunks {
			v := citationView{
				Number: c.Citation, ChunkID: c.ChunkID, RepositoryID: c.RepositoryID, DocumentID: c.DocumentID, DocumentName: c.Document,
				Version: c.DocumentVersion, Headings: c.Headings, Score: c.Score, Cited: cited[c.Citation],
			}
			if c.Page > 0 {
				v.Page = &c.Page
			}
			p.Citations = append(p.Citations, v)
		}
	}
	return nil
}

// chunkView is a passage of a document.
type chunkView struct {
	ChunkID      int64  `json:"chunkId"`
	RepositoryID int64  `json:"repositoryId"`
	DocumentID   int64  `json:"documentId"`
	DocumentName string `json:"documentName"`
	Version      int64  `json:"version"`
	Ordinal      int    `json:"ordinal"`
	Headings     string `json:"headings"`
	Page         *int   `json:"page"`
	Text         string `json:"text"`
	Tokens       int    `json:"tokens"`
}

// showChunk is GET /api/v1/chunks/{id}.
func (s *Server) showChunk(c echo.Context) error {
	id, ok := pathID(c.Param("id"))
	if !ok {
		return noChunk(knowledge.ErrNotFound)
	}
	found, err := s.cfg.Store.Chunk(c.Request().Context(), id)
	if err != nil {
		return noChunk(err)
	}
	v := chunkView{
		ChunkID: found.ChunkID, RepositoryID: found.RepositoryID, DocumentID: found.DocumentID, DocumentName: found.Document,
		Version: found.DocumentVersion, Ordinal: found.Ordinal, Headings: found.Headings, Text: found.Text, Tokens: found.Tokens,
	}
	if found.Page > 0 {
		v.Page = &found.Page
	}
	return c.JSON(http.StatusOK, v)
}
