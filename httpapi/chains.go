package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
)

// chainAnswer is a version of a chain: its normalised document with the ids
// that the server gave.
type chainAnswer struct {
	ID            int64             `json:"id"`
	Version       int               `json:"version"`
	NewestVersion int               `json:"newestVersion"`
	CreatedAt     time.Time         `json:"createdAt"` // of the version
	Name          string            `json:"name"`
	Description   string            `json:"description"`
	Inputs        json.RawMessage   `json:"inputs"`
	Prompts       []json.RawMessage `json:"prompts"`
	Limits        json.RawMessage   `json:"limits,omitempty"`
}

// documentAnswer is a normalised document that is not stored.
type documentAnswer struct {
	Valid bool            `json:"valid"` // always true; what is wrong is a problem
	Chain json.RawMessage `json:"chain"`
}

// chainEntry is a chain in a list.
type chainEntry struct {
	ID          int64        `json:"id"`
	Name        string       `json:"name"`
	Description string       `json:"description"`
	Version     int          `json:"version"`
	CreatedAt   time.Time    `json:"createdAt"` // of the version
	PromptCount int          `json:"promptCount"`
	Prompts     []chainStage `json:"prompts"`
}

// chainStage is a prompt of a chain in a list.
type chainStage struct {
	ID       int64  `json:"id"`
	Name     string `json:"name"`
	Slug     string `json:"slug"`
	Position int    `json:"position"`
	Model    string `json:"model"`
}

// versionEntry is an entry of a chain's list of versions.
type versionEntry struct {
	Version     int       `json:"version"`
	Description string    `json:"description"`
	CreatedAt   time.Time `json:"createdAt"`
}

// answerOf puts the ids into the document of a chain.
func answerOf(v *chain.Version) (chainAnswer, error) {
	a := chainAnswer{Inputs: json.RawMessage("{}")}
	// The members that are the document's are read from it, so that this
	// package does not repeat how a document is written.
	if err := json.Unmarshal(v.Chain.JSON(), &a); err != nil {
		return chainAnswer{}, fmt.Errorf("read back the document of chain %d: %w", v.ChainID, err)
	}
	a.ID, a.Version, a.NewestVersion, a.CreatedAt = v.ChainID, v.Version, v.Newest, v.CreatedAt.UTC()
	for i, p := range a.Prompts {
		ids, err := json.Marshal(struct {
			ID   int64  `json:"id"`
			Slug string `json:"slug"`
		}{v.PromptIDs[i], v.Chain.Prompts[i].Slug})
		if err != nil {
			return chainAnswer{}, fmt.Errorf("encode ids of chain %d: %w", v.ChainID, err)
		}
		// {"id":…,"slug":…} and {"name":…} become one object.
		ids[len(ids)-1] = ','
		a.Prompts[i] = append(ids, p[1:]...)
	}
	return a, nil
}

func entryOf(v *chain.Version) chainEntry {
	e := chainEntry{
		ID: v.ChainID, Name: v.Chain.Name, Description: v.Chain.Description, Version: v.Version, CreatedAt: v.CreatedAt.UTC(),
		PromptCount: len(v.Chain.Prompts), Prompts: make([]chainStage, len(v.Chain.Prompts)),
	}
	for i, p := range v.Chain.Prompts {
		e.Prompts[i] = chainStage{ID: v.PromptIDs[i], Name: p.Name, Slug: p.Slug, Position: p.Position, Model: p.Model}
	}
	return e
}

func chainURL(id int64) string { return "/api/v1/chains/" + strconv.FormatInt(id, 10) }

// findChain finds a chain by its id, or by its name when the id is 0.
func (s *Server) findChain(ctx context.Context, id int64, name string, version int) (*chain.Version, error) {
	if id != 0 {
		return s.cfg.Store.ChainByID(ctx, id, version)
	}
	if !slug.MatchString(name) {
		return nil, chain.ErrNotFound
	}
	return s.cfg.Store.ChainByName(ctx, name, version)
}

// addressed finds the chain in the address, which is a number or a name.
func (s *Server) addressed(c echo.Context, version int) (*chain.Version, error) {
	name := c.Param("id")
	id, _ := pathID(name)
	return s.findChain(c.Request().Context(), id, name, version)
}

// document reads a chain document from the body and checks it, also for what
// this server cannot run.
func (s *Server) document(c echo.Context) (*chain.Chain, error) {
	body, m, err := s.body(c, mediaJSON, mediaYAML)
	if err != nil {
		return nil, err
	}
	doc, err := chain.Parse(body, formatOf(m))
	if err != nil {
		return nil, err
	}
	return doc, s.cfg.Runner.Check(c.Request().Context(), doc)
}

func formatOf(m media) chain.Format {
	if m == mediaYAML {
		return chain.FormatYAML
	}
	return chain.FormatJSON
}

func (s *Server) sendChain(c echo.Context, status int, v *chain.Version) error {
	a, err := answerOf(v)
	if err != nil {
		return err
	}
	return c.JSON(status, a)
}

func (s *Server) createChain(c echo.Context) error {
	doc, err := s.document(c)
	if err != nil {
		return err
	}
	v, err := s.cfg.Store.CreateChain(c.Request().Context(), doc)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, chainURL(v.ChainID))
	return s.sendChain(c, http.StatusCreated, v)
}

func (s *Server) updateChain(c echo.Context) error {
	doc, err := s.document(c)
	if err != nil {
		return err
	}
	old, err := s.addressed(c, 0)
	if err != nil {
		return err
	}
	v, err := s.cfg.Store.UpdateChain(c.Request().Context(), old.ChainID, doc)
	if err != nil {
		return err
	}
	return s.sendChain(c, http.StatusOK, v)
}

func (s *Server) validateChain(c echo.Context) error {
	doc, err := s.document(c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, documentAnswer{Valid: true, Chain: doc.JSON()})
}

func (s *Server) listChains(c echo.Context) error {
	q := newQuery(c)
	limit := int(q.whole("limit", 1, 200, 50))
	after := q.whole("cursor", 0, math.MaxInt64, 0)
	if q.err != nil {
		return q.err
	}
	found, err := s.cfg.Store.Chains(c.Request().Context(), after, limit+1)
	if err != nil {
		return err
	}
	items := make([]chainEntry, len(found))
	for i, v := range found {
		items[i] = entryOf(v)
	}
	return c.JSON(http.StatusOK, page(items, limit, func(e chainEntry) int64 { return e.ID }))
}

// versionParameter reads ?version=; 0 is the newest.
func versionParameter(q *query) int { return int(q.whole("version", 1, math.MaxInt32, 0)) }

func (s *Server) showChain(c echo.Context) error {
	q := newQuery(c)
	version := versionParameter(q)
	if q.err != nil {
		return q.err
	}
	v, err := s.addressed(c, version)
	if err != nil {
		return err
	}
	return s.sendChain(c, http.StatusOK, v)
}

func (s *Server) deleteChain(c echo.Context) error {
	v, err := s.addressed(c, 0)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteChain(c.Request().Context(), v.ChainID); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func (s *Server) listVersions(c echo.Context) error {
	q := newQuery(c)
	limit := int(q.whole("limit", 1, 200, 50))
	before := int(q.whole("cursor", 1, math.MaxInt32, 0))
	if q.err != nil {
		return q.err
	}
	v, err := s.addressed(c, 0)
	if err != nil {
		return err
	}
	found, err := s.cfg.Store.ChainVersions(c.Request().Context(), v.ChainID, before, limit+1)
	if err != nil {
		return err
	}
	items := make([]versionEntry, len(found))
	for i, e := range found {
		items[i] = versionEntry{Version: e.Version, Description: e.Description, CreatedAt: e.CreatedAt.UTC()}
	}
	return c.JSON(http.StatusOK, page(items, limit, func(e versionEntry) int64 { return int64(e.Version) }))
}
