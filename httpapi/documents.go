package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/egress"
	"github.com/chainstream/chainstream/knowledge"
)

// documentView is a document as the API shows it.
type documentView struct {
	ID           int64           `json:"id"`
	RepositoryID int64           `json:"repositoryId"`
	Name         string          `json:"name"`
	Status       string          `json:"status"`
	Unchanged    bool            `json:"unchanged,omitempty"`
	Error        string          `json:"error,omitempty"`
	Progress     int             `json:"progress"`
	Version      int             `json:"version"`
	Uploaded     int             `json:"uploadedVersion"`
	MediaType    string          `json:"mediaType"`
	Bytes        int64           `json:"bytes"`
	Metadata     json.RawMessage `json:"metadata"`
	Chunks       int             `json:"chunks"`
	Tokens       int64           `json:"tokens"`
	Notices      []string        `json:"notices"`
	CreatedAt    time.Time       `json:"createdAt"`
	UpdatedAt    time.Time       `json:"updatedAt"`
}

func documentViewOf(d knowledge.Document) documentView {
	return documentView{
		ID: d.ID, RepositoryID: d.RepositoryID, Name: d.Name, Status: string(d.Status), Unchanged: d.Unchanged, Error: d.Error, Progress: d.Progress,
		Version: d.Version, Uploaded: d.Uploaded, MediaType: d.MediaType, Bytes: d.Bytes, Metadata: d.Metadata,
		Chunks: d.Chunks, Tokens: d.Tokens, Notices: d.Notices(), CreatedAt: d.CreatedAt.UTC(), UpdatedAt: d.UpdatedAt.UTC(),
	}
}

// listDocuments is GET /api/v1/repositories/{id}/documents.
func (s *Server) listDocuments(c echo.Context) error {
	id, err := repositoryID(c)
	if err != nil {
		return err
	}
	q := newQuery(c)
	limit, after, status := int(q.whole("limit", 1, 200, 50)), q.whole("cursor", 0, 1<<62, 0), knowledge.Status(q.one("status"))
	switch status {
	case "", knowledge.StatusProcessing, knowledge.StatusReady, knowledge.StatusFailed:
	default:
		q.fail("status", "processing, ready or failed is expected.")
	}
	if q.err != nil {
		return q.err
	}
	ctx := c.Request().Context()
	if _, err := s.cfg.Store.Repository(ctx, id); err != nil {
		return err
	}
	found, err := s.cfg.Store.Documents(ctx, id, after, status, limit+1)
	if err != nil {
		return err
	}
	items := make([]documentView, len(found))
	for i, d := range found {
		items[i] = documentViewOf(d)
	}
	return c.JSON(http.StatusOK, page(items, limit, func(d documentView) int64 { return d.ID }))
}

// documentID answers both numbers in the address.
func documentID(c echo.Context) (repository, id int64, err error) {
	if repository, err = repositoryID(c); err != nil {
		return 0, 0, err
	}
	id, ok := pathID(c.Param("document"))
	if !ok {
		return 0, 0, noDocument(knowledge.ErrNotFound)
	}
	return repository, id, nil
}

// noDocument says that it is the document which does not exist.
func noDocument(err error) error {
	if errors.Is(err, knowledge.ErrNotFound) {
		return &problem{kind: kindNoDocument, detail: "The repository has no document with this id.", cause: err}
	}
	return err
}

// noChunk says that it is the passage which does not exist.
func noChunk(err error) error {
	if errors.Is(err, knowledge.ErrNotFound) {
		return &problem{kind: kindNoChunk, detail: "There is no such passage: its document was deleted, or has a newer version.", cause: err}
	}
	return err
}

// showDocument is GET /api/v1/repositories/{id}/documents/{document}.
func (s *Server) showDocument(c echo.Context) error {
	repository, id, err := documentID(c)
	if err != nil {
		return err
	}
	d, err := s.cfg.Store.Document(c.Request().Context(), repository, id)
	if err != nil {
		return noDocument(err)
	}
	return c.JSON(http.StatusOK, documentViewOf(d))
}

// deleteDocument is DELETE /api/v1/repositories/{id}/documents/{document}.
func (s *Server) deleteDocument(c echo.Context) error {
	repository, id, err := documentID(c)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteDocument(c.Request().Context(), repository, id); err != nil {
		return noDocument(err)
	}
	return c.NoContent(http.StatusNoContent)
}

// addDocument is POST /api/v1/repositories/{id}/documents: a text in JSON or a
// file in a form. A document of the same name gets a new version.
func (s *Server) addDocument(c echo.Context) error {
	id, err := repositoryID(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	// Before the body, which may be large.
	if _, err := s.cfg.Store.Repository(ctx, id); err != nil {
		return err
	}
	body := &countedBody{ReadCloser: c.Request().Body, all: &s.uploads, most: mostUploads * s.cfg.MaxUpload}
	defer body.release()
	// What is announced has its room or is refused before it is sent; else many who come at
	// once would all be refused half-way.
	if n := c.Request().ContentLength; n > 0 && n <= s.cfg.MaxUpload && !body.take(n) {
		return crowded()
	}
	upload, err := s.upload(c, body)
	if err != nil {
		return err
	}
	d, unchanged, err := s.cfg.Store.SaveUpload(ctx, id, upload)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, repositoryURL(id)+"/documents/"+strconv.FormatInt(d.ID, 10))
	if unchanged {
		d.Unchanged = true
		return c.JSON(http.StatusOK, documentViewOf(d))
	}
	return c.JSON(http.StatusAccepted, documentViewOf(d))
}

// Bounds of documents that are sent: how many of the largest are held in memory at a time,
// and how many parts a form has.
const (
	mostUploads = 8
	mostParts   = 1000
)

func (s *Server) upload(c echo.Context, sent io.ReadCloser) (knowledge.Upload, error) {
	header := c.Request().Header
	if enc := header.Get(echo.HeaderContentEncoding); enc != "" && !strings.EqualFold(enc, "identity") {
		return knowledge.Upload{}, &problem{kind: kindEncoding, detail: "Send the body without Content-Encoding."}
	}
	name, params, err := mime.ParseMediaType(header.Get(echo.HeaderContentType))
	form := err == nil && name == echo.MIMEMultipartForm
	if !form {
		if _, err := mediaOf(header, []media{mediaJSON}); err != nil {
			return knowledge.Upload{}, &problem{kind: kindMediaType, detail: "Send multipart/form-data with the part file, or application/json."}
		}
	}
	body, err := s.readFrom(c, sent, s.cfg.MaxUpload)
	if err != nil {
		return knowledge.Upload{}, err
	}
	if form {
		return readForm(body, params["boundary"])
	}
	if err := checkJSON(body); err != nil {
		return knowledge.Upload{}, err
	}
	r, err := requestObject(body)
	if err != nil {
		return knowledge.Upload{}, err
	}
	u := knowledge.Upload{Data: []byte(r.free("text", len(body)))}
	if _, ok := r.field("url"); ok {
		r.address(&u)
	} else if u.Name = r.line("name", mostName); strings.TrimSpace(string(u.Data)) == "" {
		r.add("/text", chain.CodeRequired, "must not be empty")
	}
	u.Metadata = r.metadata()
	r.surplus("name", "text", "url", "metadata")
	if len(r.problems) > 0 {
		return knowledge.Upload{}, inputProblem(r.problems)
	}
	return u, nil
}

// address reads a document that is to be fetched. Its name is the address, unless it
// has one.
func (r *fieldReader) address(u *knowledge.Upload) {
	u.URL = r.line("url", mostURL)
	if _, err := egress.Parse(u.URL); err != nil && u.URL != "" {
		r.add("/url", chain.CodeInvalid, err.Error())
	}
	if len(u.Data) > 0 {
		r.add("/text", chain.CodeInvalid, "goes not together with url")
	}
	if _, ok := r.field("name"); ok {
		u.Name = r.line("name", mostName)
	} else if u.Name = u.URL; utf8.RuneCountInString(u.Name) > mostName {
		r.add("/name", chain.CodeRequired, "is needed, because the address is too long to be one")
	}
}

// readForm reads a form with the part file, and name and metadata where they are
// given.
func readForm(body []byte, boundary string) (u knowledge.Upload, err error) {
	broken := func(cause error) error {
		return &problem{kind: kindMalformedBody, detail: "The form cannot be read; send multipart/form-data with the part file.", cause: cause}
	}
	if boundary == "" || !bytes.Contains(body, []byte("--"+boundary+"--")) { // which a form that was cut off lacks
		return u, broken(errors.New("no boundary"))
	}
	var problems fieldReader
	seen := make(map[string]bool)
	form := multipart.NewReader(bytes.NewReader(body), boundary)
	for parts := 0; ; {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return u, broken(err)
		}
		if parts++; parts > mostParts {
			return u, broken(errors.New("too many parts"))
		}
		field := part.FormName()
		if seen[field] {
			problems.add("/"+pointerEscaper.Replace(field), chain.CodeDuplicateKey, "stands twice in the form; send one file in a request")
			continue
		}
		seen[field] = true
		var content bytes.Buffer
		if field == "file" {
			content.Grow(len(body)) // at once: it is nearly all of it
		}
		if _, err := content.ReadFrom(part); err != nil {
			return u, broken(err)
		}
		data := content.Bytes()
		switch field {
		case "file":
			u.Data, u.MediaType = data, part.Header.Get(echo.HeaderContentType)
			if u.Name == "" {
				u.Name = part.FileName()
			}
			if len(data) == 0 {
				problems.add("/file", chain.CodeRequired, "must not be empty")
			}
		case "name":
			u.Name = string(data)
		case "metadata":
			if err := checkJSON(data); err != nil {
				return u, err
			}
			problems.fields = map[string]json.RawMessage{"metadata": data}
			u.Metadata = problems.metadata()
		default:
			problems.add("/"+pointerEscaper.Replace(strings.ToValidUTF8(field, "\uFFFD")), chain.CodeUnknownField, "there is no such part; there are file, name, metadata")
		}
	}
	if !seen["file"] {
		problems.add("/file", chain.CodeRequired, "is missing")
	} else if detail := notALine(u.Name); detail != "" {
		problems.add("/name", chain.CodeInvalid, "the name of the document "+detail)
	} else if utf8.RuneCountInString(u.Name) > mostName {
		problems.add("/name", chain.CodeTooLarge, fmt.Sprintf("may have up to %d characters", mostName))
	}
	if len(u.MediaType) > mostName || !utf8.ValidString(u.MediaType) || notALine(u.MediaType) != "" {
		u.MediaType = "" // the name and the content tell
	}
	if len(problems.problems) > 0 {
		return u, inputProblem(problems.problems)
	}
	return u, nil
}
