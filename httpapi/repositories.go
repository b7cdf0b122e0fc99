package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// repositoryView is a repository as the API shows it.
type repositoryView struct {
	ID             int64  `json:"id"`
	Name           string `json:"name"`
	Description    string `json:"description"`
	Language       string `json:"language"`
	EmbeddingModel string `json:"embeddingModel"`
	Dimensions     int    `json:"dimensions"`
	ChunkTokens    int    `json:"chunkTokens"`
	ChunkOverlap   int    `json:"chunkOverlap"`
	// Building is the model that is to take the place of this one; null when none is.
	Building  *buildingView `json:"building"`
	Documents int64         `json:"documents"`
	Pending   int64         `json:"pendingDocuments"`
	Chunks    int64         `json:"chunks"`
	CreatedAt time.Time     `json:"createdAt"`
	UpdatedAt time.Time     `json:"updatedAt"`
}

func repositoryViewOf(r knowledge.Repository) repositoryView {
	return repositoryView{
		ID: r.ID, Name: r.Name, Description: r.Description, Language: r.Language, EmbeddingModel: r.Space.Model, Dimensions: r.Space.Dimensions,
		ChunkTokens: r.ChunkTokens, ChunkOverlap: r.ChunkOverlap, Building: buildingViewOf(r.Building), Documents: r.Documents, Pending: r.Pending, Chunks: r.Chunks,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
}

// buildingView says how far a change of the model is.
type buildingView struct {
	EmbeddingModel string `json:"embeddingModel"`
	Dimensions     int    `json:"dimensions"`
	Progress       int    `json:"progress"`
	Error          string `json:"error,omitempty"`
}

func buildingViewOf(b *knowledge.Building) *buildingView {
	if b == nil {
		return nil
	}
	return &buildingView{EmbeddingModel: b.Model, Dimensions: b.Dimensions, Progress: b.Progress, Error: b.Error}
}

func repositoryURL(id int64) string { return "/api/v1/repositories/" + strconv.FormatInt(id, 10) }

// repositoryID answers the number in the address.
func repositoryID(c echo.Context) (int64, error) {
	id, ok := pathID(c.Param("id"))
	if !ok {
		return 0, knowledge.ErrNotFound
	}
	return id, nil
}

// listRepositories is GET /api/v1/repositories.
func (s *Server) listRepositories(c echo.Context) error {
	q := newQuery(c)
	limit, after := int(q.whole("limit", 1, 200, 50)), q.whole("cursor", 0, 1<<62, 0)
	if q.err != nil {
		return q.err
	}
	found, err := s.cfg.Store.Repositories(c.Request().Context(), after, limit+1)
	if err != nil {
		return err
	}
	items := make([]repositoryView, len(found))
	for i, r := range found {
		items[i] = repositoryViewOf(r)
	}
	return c.JSON(http.StatusOK, page(items, limit, func(r repositoryView) int64 { return r.ID }))
}

// showRepository is GET /api/v1/repositories/{id}.
func (s *Server) showRepository(c echo.Context) error {
	id, err := repositoryID(c)
	if err != nil {
		return err
	}
	r, err := s.cfg.Store.Repository(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, repositoryViewOf(r))
}

// Bounds and defaults of a repository.
const (
	mostName            = 200 // characters
	mostDescription     = 4000
	mostURL             = 2000
	defaultChunkTokens  = 400
	defaultChunkOverlap = 50
	leastChunkTokens    = 16
	mostChunkTokens     = 2048
	mostDimensions      = 4000 // that an index can hold
)

// createRepository is POST /api/v1/repositories. The model is called once: so it
// is known to work, and how long its vectors are.
func (s *Server) createRepository(c echo.Context) error {
	r, err := s.readObject(c)
	if err != nil {
		return err
	}
	repository := r.repository(s.cfg.EmbeddingModel)
	if len(r.problems) > 0 {
		return inputProblem(r.problems)
	}
	if repository.Space.Dimensions, err = s.measure(c.Request().Context(), repository.Space); err != nil {
		return err
	}
	stored, err := s.cfg.Store.CreateRepository(c.Request().Context(), repository)
	if errors.Is(err, knowledge.ErrLanguage) {
		return invalid("The database knows no such language.", problemError{
			Pointer: "/language", Code: chain.CodeInvalid, Detail: "must be a text search configuration of the database, such as english, german or simple",
		})
	}
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, repositoryURL(stored.ID))
	return c.JSON(http.StatusCreated, repositoryViewOf(stored))
}

// measure answers the length of the vectors of a model, which is tried with one
// word.
func (s *Server) measure(ctx context.Context, space knowledge.Space) (int, error) {
	embedding, err := s.cfg.Embeddings.Embedding(space.Model)
	if err != nil {
		return 0, invalid(fmt.Sprintf("The embedding model %q cannot be used.", space.Model), problemError{
			Pointer: "/embeddingModel", Code: chain.CodeInvalid, Detail: err.Error(),
		})
	}
	ctx, cancel := context.WithTimeout(ctx, embeddingTimeout)
	defer cancel()
	size, err := knowledge.Measure(ctx, embedding, space.Dimensions, llm.RetryPolicy{Attempts: 1})
	switch {
	case errors.Is(err, knowledge.ErrDimensions):
		return 0, invalid("The model does not make vectors of this length.", problemError{
			Pointer: "/dimensions", Code: chain.CodeInvalid, Detail: fmt.Sprintf("%s does not make vectors of %d numbers", space.Model, space.Dimensions),
		})
	case err != nil:
		failed, ok := errors.AsType[*llm.Error](err)
		if !ok {
			return 0, err
		}
		return 0, &problem{
			kind: kindInvalidRequest, cause: err, detail: "The embedding model was tried and failed.",
			errors: []problemError{{Pointer: "/embeddingModel", Code: string(failed.Code), Detail: failed.Message}},
		}
	case size == 0 || size > mostDimensions:
		return 0, invalid("The vectors of the model are too long.", problemError{
			Pointer: "/dimensions", Code: chain.CodeOutOfRange,
			Detail: fmt.Sprintf("the model makes vectors of %d numbers; up to %d can be stored", size, mostDimensions),
		})
	}
	return size, nil
}

// readObject reads a body that is an object.
func (s *Server) readObject(c echo.Context) (*fieldReader, error) {
	body, _, err := s.body(c, mediaJSON)
	if err != nil {
		return nil, err
	}
	return requestObject(body)
}

func requestObject(body []byte) (*fieldReader, error) {
	r := &fieldReader{}
	if err := json.Unmarshal(body, &r.fields); err != nil || r.fields == nil {
		return nil, invalid("The body must be an object.", problemError{Detail: "must be an object", Code: chain.CodeWrongType})
	}
	return r, nil
}

var language = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// repository reads a new repository. model embeds those that name none; "" means
// that they have to.
func (r *fieldReader) repository(model string) (out knowledge.Repository) {
	out.Name, out.Description = r.line("name", mostName), r.free("description", mostDescription)
	if out.Language = r.free("language", 63); out.Language == "" {
		out.Language = "english"
	} else if !language.MatchString(out.Language) {
		r.add("/language", chain.CodeInvalid, "must be a text search configuration of the database, such as english, german or simple")
	}
	if out.Space.Model = cmp.Or(r.free("embeddingModel", mostName), model); out.Space.Model == "" {
		r.add("/embeddingModel", chain.CodeRequired, "is missing: provider/model")
	}
	out.Space.Dimensions = r.number("dimensions", 1, mostDimensions, 0)
	out.ChunkTokens = r.number("chunkTokens", leastChunkTokens, mostChunkTokens, defaultChunkTokens)
	out.ChunkOverlap = r.number("chunkOverlap", 0, mostChunkTokens/2, min(defaultChunkOverlap, out.ChunkTokens/8))
	if out.ChunkOverlap > out.ChunkTokens/2 {
		r.add("/chunkOverlap", chain.CodeOutOfRange, "must be at most half of chunkTokens")
	}
	r.surplus("name", "description", "language", "embeddingModel", "dimensions", "chunkTokens", "chunkOverlap")
	return out
}

// free reads a text of bounded length that may be missing.
func (r *fieldReader) free(name string, most int) (text string) {
	raw, ok := r.field(name)
	if !ok {
		return ""
	}
	if err := json.Unmarshal(raw, &text); err != nil {
		r.add("/"+name, chain.CodeWrongType, "must be a text")
	} else if utf8.RuneCountInString(text) > most {
		r.add("/"+name, chain.CodeTooLarge, fmt.Sprintf("may have up to %d characters", most))
	}
	return text
}

// line reads the text of a name, which is needed and stands on one line.
func (r *fieldReader) line(name string, most int) string {
	before := len(r.problems)
	text := r.free(name, most)
	if detail := notALine(text); detail != "" && len(r.problems) == before {
		r.add("/"+name, chain.CodeInvalid, detail)
	}
	return text
}

// notALine says what is wrong with a name; "" when nothing is.
func notALine(text string) string {
	switch {
	case strings.TrimSpace(text) == "":
		return "is missing"
	case strings.TrimSpace(text) != text:
		return "must not begin or end with spaces"
	case !utf8.ValidString(text) || strings.ContainsFunc(text, endsLine):
		return "must be one line of text, without control characters"
	case strings.ContainsFunc(text, turnsText):
		return "must not turn the direction of text (U+202A to U+202E, U+2066 to U+2069)"
	}
	return ""
}

// endsLine tells whether a character ends a line, or steers what shows it.
func endsLine(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) }

// turnsText tells whether a character makes what follows be shown in another order: a
// name could pass for another one. Right-to-left writing does not need it.
func turnsText(r rune) bool { return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' }

// number reads a whole number that may be missing.
func (r *fieldReader) number(name string, least, most, missing int) int {
	raw, ok := r.field(name)
	if !ok {
		return missing
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < least || n > most {
		r.add("/"+name, chain.CodeOutOfRange, fmt.Sprintf("must be a whole number from %d to %d", least, most))
		return missing
	}
	return n
}

// updateRepository is PUT /api/v1/repositories/{id}. Another model embeds everything
// anew in the background; until that is done, searches use the one before.
func (s *Server) updateRepository(c echo.Context) error {
	id, err := repositoryID(c)
	if err != nil {
		return err
	}
	r, err := s.readObject(c)
	if err != nil {
		return err
	}
	changed := knowledge.Repository{ID: id, Name: r.line("name", mostName), Description: r.free("description", mostDescription)}
	model := knowledge.Space{Model: r.free("embeddingModel", mostName), Dimensions: r.number("dimensions", 1, mostDimensions, 0)}
	if model.Dimensions != 0 && model.Model == "" {
		r.add("/dimensions", chain.CodeInvalid, "needs embeddingModel")
	}
	r.surplus("name", "description", "embeddingModel", "dimensions")
	if len(r.problems) > 0 {
		return inputProblem(r.problems)
	}
	ctx := c.Request().Context()
	if model.Model != "" {
		if _, err := s.cfg.Store.Repository(ctx, id); err != nil {
			return err
		}
		if model.Dimensions, err = s.measure(ctx, model); err != nil {
			return err
		}
	}
	stored, err := s.cfg.Store.UpdateRepository(ctx, changed)
	if err == nil && model.Model != "" {
		stored, err = s.cfg.Store.ChangeModel(ctx, id, model)
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, repositoryViewOf(stored))
}

// deleteRepository is DELETE /api/v1/repositories/{id}.
func (s *Server) deleteRepository(c echo.Context) error {
	id, err := repositoryID(c)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteRepository(c.Request().Context(), id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
