package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/chainstream/chainstream/internal/client"
	"github.com/chainstream/chainstream/llm/offline"
)

// knowledgeCommand is chainstream knowledge.
type knowledgeCommand struct {
	List      knowledgeListCommand      `cmd:"" help:"List the repositories."`
	Create    knowledgeCreateCommand    `cmd:"" help:"Make a repository."`
	Add       knowledgeAddCommand       `cmd:"" help:"Put files and folders into a repository."`
	Documents knowledgeDocumentsCommand `cmd:"" help:"List the documents of a repository."`
	Search    knowledgeSearchCommand    `cmd:"" help:"Search a repository."`
	Model     knowledgeModelCommand     `cmd:"" help:"Let a repository be searched by another embedding model."`
	Remove    knowledgeRemoveCommand    `cmd:"" help:"Remove a repository, or one document of it."`
}

const repositoriesPath = "/api/v1/repositories"

func documentsPath(repository int64) string {
	return repositoriesPath + "/" + strconv.FormatInt(repository, 10) + "/documents"
}

// repositoryEntry is what the command line reads of a repository.
type repositoryEntry struct {
	ID             int64  `json:"id"`
	Name           string `json:"name"`
	EmbeddingModel string `json:"embeddingModel"`
	Dimensions     int    `json:"dimensions"`
	Documents      int64  `json:"documents"`
	Chunks         int64  `json:"chunks"`
	Building       *struct {
		EmbeddingModel string `json:"embeddingModel"`
		Progress       int    `json:"progress"`
		Error          string `json:"error"`
	} `json:"building"`
}

// documentEntry is what the command line reads of a document.
type documentEntry struct {
	ID        int64    `json:"id"`
	Name      string   `json:"name"`
	Status    string   `json:"status"`
	Unchanged bool     `json:"unchanged"`
	Error     string   `json:"error"`
	Progress  int      `json:"progress"`
	Version   int      `json:"version"`
	Chunks    int      `json:"chunks"`
	Bytes     int64    `json:"bytes"`
	Notices   []string `json:"notices"`
}

// line says what became of a document.
func (e documentEntry) line() string {
	if e.Error != "" {
		return fmt.Sprintf("%s: %s. %s", e.Name, e.Status, e.Error)
	}
	state := e.Status
	if e.Unchanged {
		state = "unchanged"
	}
	line := fmt.Sprintf("%s: %s, %d chunks", e.Name, state, e.Chunks)
	if len(e.Notices) > 0 {
		line += ". " + strings.Join(e.Notices, " ")
	}
	return line
}

// repository answers the id of a repository that is named by its id or its name.
func (f clientFlags) repository(ctx context.Context, name string) (int64, error) {
	if id, err := strconv.ParseInt(name, 10, 64); err == nil {
		return id, nil
	}
	var raw []json.RawMessage
	if err := f.pages(ctx, repositoriesPath, url.Values{}, 0, &raw); err != nil {
		return 0, err
	}
	for _, text := range raw {
		var e repositoryEntry
		if err := json.Unmarshal(text, &e); err != nil {
			return 0, fmt.Errorf("read a repository: %w", err)
		}
		if e.Name == name {
			return e.ID, nil
		}
	}
	return 0, &exitError{code: exitFailed, message: fmt.Sprintf("there is no repository %q; chainstream knowledge list shows those that are there", name)}
}

type knowledgeListCommand struct {
	clientFlags
}

// Run lists the repositories.
func (c *knowledgeListCommand) Run(ctx context.Context, a *app) error {
	var raw []json.RawMessage
	if err := c.pages(ctx, repositoriesPath, url.Values{}, 0, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	t := a.table("ID", "NAME", "MODEL", "DIMENSIONS", "DOCUMENTS", "CHUNKS")
	for _, text := range raw {
		var e repositoryEntry
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("read a repository: %w", err)
		}
		t.row(e.ID, e.Name, e.models(), e.Dimensions, e.Documents, e.Chunks)
	}
	return t.flush()
}

type knowledgeCreateCommand struct {
	Name        string `arg:"" help:"Name of the repository."`
	Model       string `help:"Embedding model, provider/model. Default: the server's, offline/use-lite unless it was told another."`
	Dimensions  int    `help:"Length of the vectors, where the model can shorten them."`
	Language    string `help:"Language of the documents, as the database's text search names it." default:"english"`
	Description string `help:"What it is about."`
	clientFlags
}

// Run makes a repository.
func (c *knowledgeCreateCommand) Run(ctx context.Context, a *app) error {
	fields := map[string]any{"name": c.Name, "language": c.Language, "description": c.Description}
	if c.Model != "" {
		fields["embeddingModel"] = c.Model
	}
	if c.Dimensions != 0 {
		fields["dimensions"] = c.Dimensions
	}
	e, shown, err := c.saveRepository(ctx, a, http.MethodPost, repositoriesPath, fields)
	if err != nil || shown {
		return err
	}
	if e.EmbeddingModel == offline.Name+"/"+offline.HashModel {
		a.remark("%s. %s/%s knows English without a key and a network", offline.HashLabel, offline.Name, offline.SentenceModel)
	}
	return a.printf("repository %d %s: %s, %d dimensions\n", e.ID, printable(e.Name), printable(e.EmbeddingModel), e.Dimensions)
}

// saveRepository makes or changes a repository. shown says that the answer was printed
// already, as JSON.
func (f clientFlags) saveRepository(ctx context.Context, a *app, method, path string, fields map[string]any) (e repositoryEntry, shown bool, err error) {
	body, err := json.Marshal(fields)
	if err != nil {
		return e, false, err
	}
	var raw json.RawMessage
	if err := f.call(ctx, client.Request{Method: method, Path: path, Body: body}, &raw); err != nil {
		return e, false, err
	}
	if f.JSON {
		return e, true, a.printJSON(raw)
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return e, false, fmt.Errorf("read the repository: %w", err)
	}
	return e, false, nil
}

type knowledgeAddCommand struct {
	Repository string   `arg:"" help:"Name or id of the repository."`
	Paths      []string `arg:"" name:"path" help:"Files, folders with files, and web addresses."`
	NoWait     bool     `help:"Do not wait until they can be found."`
	clientFlags
}

// Help is shown by chainstream knowledge add --help.
func (knowledgeAddCommand) Help() string {
	return `Documents are named after their paths. A file that is there already gets a new version, unless it is the same; so does a web address, which is fetched every time. Of folders, those files are taken that can be read: text, Markdown, HTML, PDF, DOCX, CSV, JSON and JSONL; hidden ones are left out.

What cannot be added is a line of its own on standard error and keeps nothing else away; a last line says how many there were, and the exit code is 1. --json prints the documents that the server has.

Examples:

    chainstream knowledge create docs
    chainstream knowledge add docs README.md docs/
    chainstream knowledge search docs "how long are events kept?"`
}

// Run uploads the files and waits for them. A bad one does not keep the others away.
func (c *knowledgeAddCommand) Run(ctx context.Context, a *app) error {
	id, err := c.repository(ctx, c.Repository)
	if err != nil {
		return err
	}
	total, failed := 0, 0
	fail := func(what string) {
		failed++
		a.remark("%s", strings.Join(strings.Fields(what), " "))
	}
	files := c.files(func(path string, err error) {
		total++
		fail(fmt.Sprintf("%s cannot be read (%s)", path, reason(err)))
	})
	total += len(files)
	if total == 0 {
		return &exitError{code: exitFailed, message: "there are no files that can be read in " + strings.Join(c.Paths, ", ")}
	}
	documents := []json.RawMessage{}
	for _, file := range files {
		document, err := c.add(ctx, id, file)
		switch {
		case err == nil:
			documents = append(documents, document)
		case ofOneDocument(err):
			fail(file + ": " + err.Error())
		default:
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	for i := range documents {
		e, err := c.await(ctx, a, id, &documents[i])
		switch {
		case err != nil && ofOneDocument(err):
			fail(e.Name + ": " + err.Error())
		case err != nil:
			return fmt.Errorf("%s: %w", e.Name, err)
		case e.Status == stateFailed:
			fail(e.line())
		case !c.JSON:
			if err := a.printf("%s\n", printable(e.line())); err != nil {
				return err
			}
		}
	}
	if c.JSON {
		if err := a.printJSON(documents); err != nil {
			return err
		}
	}
	if failed > 0 {
		return &exitError{code: exitFailed, message: fmt.Sprintf("%d of %s could not be added", failed, count(total, "document"))}
	}
	return nil
}

// ofOneDocument tells whether an error says nothing about the documents that follow: it
// is not the server that is away or full, nor the repository that is missing.
func ofOneDocument(err error) bool {
	var local *exitError
	var p *client.Problem
	switch {
	case errors.As(err, &local):
		return local.code == exitFailed
	case errors.As(err, &p):
		return p.Code != "" && p.Code != "repository_not_found" && p.Status != http.StatusServiceUnavailable && p.Status != http.StatusInsufficientStorage
	}
	return false
}

// readable are the endings of files that are taken out of folders.
var readable = map[string]bool{
	".md": true, ".markdown": true, ".mdx": true, ".html": true, ".htm": true, ".xhtml": true, ".pdf": true, ".docx": true, ".csv": true, ".tsv": true,
	".jsonl": true, ".ndjson": true, ".json": true, ".txt": true, ".text": true, ".rst": true, ".adoc": true,
}

// files answers the files that the paths mean, and tells of those that cannot be read.
func (c *knowledgeAddCommand) files(bad func(path string, err error)) []string {
	var files []string
	for _, path := range c.Paths {
		if isAddress(path) {
			files = append(files, path)
			continue
		}
		_ = filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error { // errors have been told by then
			switch {
			case err != nil:
				bad(at, err)
			case at == path && !entry.IsDir():
				if err := checkRegular(at); err != nil {
					bad(at, err)
					return nil
				}
				files = append(files, at)
			case at != path && strings.HasPrefix(entry.Name(), "."):
				if entry.IsDir() {
					return filepath.SkipDir
				}
			case entry.Type().IsRegular() && readable[strings.ToLower(filepath.Ext(at))]:
				files = append(files, at)
			}
			return nil
		})
	}
	return files
}

// errNoFile is the error of a path that is read without an end, or waits for somebody
// who writes: a pipe, a device, a socket.
var errNoFile = errors.New("it is neither a file nor a folder")

// checkRegular answers an error unless the path, or what it links to, is a regular file.
func checkRegular(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errNoFile
	}
	return nil
}

// isAddress tells a web address from a path.
func isAddress(path string) bool {
	return strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://")
}

func (c *knowledgeAddCommand) add(ctx context.Context, repository int64, file string) (json.RawMessage, error) {
	if isAddress(file) {
		fields, err := json.Marshal(map[string]string{"url": file})
		if err != nil {
			return nil, err
		}
		var raw json.RawMessage
		err = c.call(ctx, client.Request{Method: http.MethodPost, Path: documentsPath(repository), Body: fields}, &raw)
		return raw, err
	}
	data, err := readDocumentFile(file)
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	if err := form.WriteField("name", filepath.ToSlash(filepath.Clean(file))); err != nil {
		return nil, err
	}
	part, err := form.CreateFormFile("file", filepath.Base(file))
	if err != nil {
		return nil, err
	}
	if _, err := part.Write(data); err != nil {
		return nil, err
	}
	if err := form.Close(); err != nil {
		return nil, err
	}
	var raw json.RawMessage
	err = c.call(ctx, client.Request{Method: http.MethodPost, Path: documentsPath(repository), Body: body.Bytes(), ContentType: form.FormDataContentType()}, &raw)
	return raw, err
}

// mostFile is what a column of PostgreSQL can hold, in bytes. What a server takes is
// mostly much less; it says so before the file is sent.
const mostFile = 1 << 30

func readDocumentFile(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err == nil && info.Size() > mostFile {
		return nil, &exitError{code: exitFailed, message: "is larger than 1 GiB"}
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, &exitError{code: exitFailed, err: err, message: "cannot be read (" + reason(err) + ")"}
	}
	return data, nil
}

// awaitEvery is how often a document is asked for that is being processed.
const awaitEvery = 200 * time.Millisecond

// await reads a document until it is no longer processed, or once.
func (c *knowledgeAddCommand) await(ctx context.Context, a *app, repository int64, raw *json.RawMessage) (e documentEntry, err error) {
	tick := time.NewTicker(awaitEvery)
	defer tick.Stop()
	said := ""
	for {
		if err := json.Unmarshal(*raw, &e); err != nil {
			return e, fmt.Errorf("read the document: %w", err)
		}
		if c.NoWait || e.Status != "processing" {
			return e, nil
		}
		if e.Error != "" && e.Error != said {
			a.remark("%s: %s The server goes on when this command has ended", e.Name, e.Error)
			said = e.Error
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return e, ctx.Err()
		}
		if err := c.call(ctx, client.Request{Path: documentsPath(repository) + "/" + strconv.FormatInt(e.ID, 10)}, raw); err != nil {
			return e, err
		}
	}
}

type knowledgeDocumentsCommand struct {
	Repository string `arg:"" help:"Name or id of the repository."`
	clientFlags
}

// Run lists the documents.
func (c *knowledgeDocumentsCommand) Run(ctx context.Context, a *app) error {
	id, err := c.repository(ctx, c.Repository)
	if err != nil {
		return err
	}
	var raw []json.RawMessage
	if err := c.pages(ctx, documentsPath(id), url.Values{}, 0, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	t := a.table("ID", "NAME", "STATUS", "VERSION", "CHUNKS", "BYTES", "ERROR")
	for _, text := range raw {
		var e documentEntry
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("read a document: %w", err)
		}
		status := e.Status
		if status == "processing" {
			status = fmt.Sprintf("%s %d%%", status, e.Progress)
		}
		t.row(e.ID, e.Name, status, e.Version, e.Chunks, e.Bytes, e.Error)
	}
	return t.flush()
}

type knowledgeSearchCommand struct {
	Repository string  `arg:"" help:"Name or id of the repository."`
	Query      string  `arg:"" help:"What is looked for."`
	Search     string  `help:"vector, keyword or hybrid." default:"hybrid" enum:"vector,keyword,hybrid"`
	Limit      int     `help:"Passages at most." default:"5"`
	Threshold  float64 `help:"Least relevance, 0 to 1."`
	MaxTokens  int     `help:"Tokens of the passages together."`
	Explain    bool    `help:"Tell why each passage was found, or left out."`
	clientFlags
}

// Run searches.
func (c *knowledgeSearchCommand) Run(ctx context.Context, a *app) error {
	id, err := c.repository(ctx, c.Repository)
	if err != nil {
		return err
	}
	fields := map[string]any{
		"repositories": []int64{id}, "query": c.Query, "search": c.Search, "limit": c.Limit, "threshold": c.Threshold, "explain": c.Explain,
	}
	if c.MaxTokens != 0 {
		fields["maxTokens"] = c.MaxTokens
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.call(ctx, client.Request{Method: http.MethodPost, Path: repositoriesPath + "/search", Body: body}, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	if c.Explain {
		return a.explainSearch(raw)
	}
	var answer struct {
		Results []struct {
			DocumentName string  `json:"documentName"`
			Headings     string  `json:"headings"`
			Page         *int    `json:"page"`
			Score        float64 `json:"score"`
			Text         string  `json:"text"`
		} `json:"results"`
		Degraded string `json:"degraded"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("read what was found: %w", err)
	}
	if answer.Degraded != "" {
		a.remark("%s", answer.Degraded)
	}
	for _, p := range answer.Results {
		where := p.DocumentName
		if p.Page != nil {
			where += fmt.Sprintf(", page %d", *p.Page)
		}
		if p.Headings != "" {
			where += ", " + p.Headings
		}
		if err := a.printf("%.3f %s\n%s\n\n", p.Score, printable(where), printable(p.Text)); err != nil {
			return err
		}
	}
	if len(answer.Results) == 0 {
		return a.printf("nothing was found\n")
	}
	return nil
}

type knowledgeRemoveCommand struct {
	Repository string `arg:"" help:"Name or id of the repository."`
	Document   int64  `arg:"" optional:"" help:"Id of the document; without it the repository goes."`
	clientFlags
}

// Run removes a repository or a document.
func (c *knowledgeRemoveCommand) Run(ctx context.Context, _ *app) error {
	id, err := c.repository(ctx, c.Repository)
	if err != nil {
		return err
	}
	path := repositoriesPath + "/" + strconv.FormatInt(id, 10)
	if c.Document != 0 {
		path = documentsPath(id) + "/" + strconv.FormatInt(c.Document, 10)
	}
	return c.call(ctx, client.Request{Method: http.MethodDelete, Path: path}, nil)
}

type knowledgeModelCommand struct {
	Repository string `arg:"" help:"Name or id of the repository."`
	Model      string `arg:"" help:"Embedding model, provider/model."`
	Dimensions int    `help:"Length of the vectors, where the model can shorten them."`
	clientFlags
}

// Help is shown by chainstream knowledge model --help.
func (knowledgeModelCommand) Help() string {
	return `Everything is embedded anew in the background. Until that is done, searches use the model before; chainstream knowledge list shows how far it is. Naming the model that the repository has ends a change.`
}

// Run changes the model.
func (c *knowledgeModelCommand) Run(ctx context.Context, a *app) error {
	id, err := c.repository(ctx, c.Repository)
	if err != nil {
		return err
	}
	path := repositoriesPath + "/" + strconv.FormatInt(id, 10)
	var now struct{ Name, Description string }
	if err := c.call(ctx, client.Request{Path: path}, &now); err != nil {
		return err
	}
	fields := map[string]any{"name": now.Name, "description": now.Description, "embeddingModel": c.Model}
	if c.Dimensions != 0 {
		fields["dimensions"] = c.Dimensions
	}
	e, shown, err := c.saveRepository(ctx, a, http.MethodPut, path, fields)
	if err != nil || shown {
		return err
	}
	return a.printf("repository %d %s: %s\n", e.ID, printable(e.Name), printable(e.models()))
}

// models says by which model a repository is searched, and which one is to take its
// place.
func (e repositoryEntry) models() string {
	switch b := e.Building; {
	case b == nil:
		return e.EmbeddingModel
	case b.Error != "":
		return fmt.Sprintf("%s (%s failed: %s)", e.EmbeddingModel, b.EmbeddingModel, b.Error)
	default:
		return fmt.Sprintf("%s (%s %d%%)", e.EmbeddingModel, b.EmbeddingModel, b.Progress)
	}
}
