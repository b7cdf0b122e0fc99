package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/internal/client"
)

// chainsCommand is chainstream chains.
type chainsCommand struct {
	List     chainsListCommand     `cmd:"" help:"List the stored chains."`
	Show     chainsShowCommand     `cmd:"" help:"Show a chain."`
	Apply    chainsApplyCommand    `cmd:"" help:"Store chains from files: create them, or add a version where they differ."`
	Validate chainsValidateCommand `cmd:"" help:"Say everything that is wrong with chain documents."`
	Export   chainsExportCommand   `cmd:"" help:"Print the document of a chain."`
	Import   chainsImportCommand   `cmd:"" help:"Store the assistants of a version 1.0 document, or a chain, from a file."`
	Delete   chainsDeleteCommand   `cmd:"" help:"Delete a chain; its executions stay."`
}

type chainsListCommand struct {
	clientFlags
}

// chainEntry is what the command line reads of a chain.
type chainEntry struct {
	ID          int64           `json:"id"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Version     int             `json:"version"`
	CreatedAt   time.Time       `json:"createdAt"`
	PromptCount int             `json:"promptCount"`
	Inputs      json.RawMessage `json:"inputs"`
	Prompts     []struct {
		Name     string `json:"name"`
		Slug     string `json:"slug"`
		Position int    `json:"position"`
		Model    string `json:"model"`
	} `json:"prompts"`
}

// Run lists the chains.
func (c *chainsListCommand) Run(ctx context.Context, a *app) error {
	var raw []json.RawMessage
	if err := c.pages(ctx, "/api/v1/chains", url.Values{}, 0, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	t := a.table("ID", "NAME", "VERSION", "PROMPTS", "DESCRIPTION")
	for _, text := range raw {
		var e chainEntry
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("read a chain: %w", err)
		}
		t.row(e.ID, e.Name, e.Version, e.PromptCount, e.Description)
	}
	return t.flush()
}

type chainsShowCommand struct {
	Chain   string `arg:"" help:"Name or id."`
	Version int    `help:"Version; without it the newest."`
	clientFlags
}

// Run shows a chain.
func (c *chainsShowCommand) Run(ctx context.Context, a *app) error {
	var raw json.RawMessage
	if err := c.call(ctx, client.Request{Path: chainPath(c.Chain), Query: versionQuery(c.Version)}, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	var e chainEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("read the chain: %w", err)
	}
	if err := a.printf("%s (id %d), version %d of %s\n", e.Name, e.ID, e.Version, e.CreatedAt.Local().Format(time.DateTime)); err != nil {
		return err
	}
	if e.Description != "" {
		if err := a.printf("%s\n", printable(e.Description)); err != nil {
			return err
		}
	}
	t := a.table("POSITION", "PROMPT", "VARIABLE", "MODEL")
	for _, p := range e.Prompts {
		t.row(p.Position, p.Name, "${"+p.Slug+"}", p.Model)
	}
	return t.flush()
}

type chainsApplyCommand struct {
	Files []string `arg:"" name:"file" help:"Chain documents, YAML or JSON."`
	clientFlags
}

// Help is shown by chainstream chains apply --help.
func (chainsApplyCommand) Help() string {
	return `All files are checked before the first is stored.

Examples:

    chainstream chains apply examples/*.yaml
    chainstream chains apply review.yaml --server http://127.0.0.1:9000 --json`
}

// Run stores the chains.
func (c *chainsApplyCommand) Run(ctx context.Context, a *app) error {
	documents := make([]*document, len(c.Files))
	for i, file := range c.Files {
		var err error
		if documents[i], err = readDocument(file); err != nil {
			return err
		}
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	defer api.Close()
	results := make([]applied, 0, len(documents))
	for _, d := range documents {
		result, err := apply(ctx, api, d)
		if err != nil {
			return fmt.Errorf("%s: %w", d.file, err)
		}
		results = append(results, result)
		if !c.JSON {
			if err := a.printf("%s: version %d %s\n", result.Name, result.Version, result.Result); err != nil {
				return err
			}
		}
	}
	if c.JSON {
		return a.printJSON(results)
	}
	return nil
}

type chainsValidateCommand struct {
	Files []string `arg:"" name:"file" help:"Chain documents, YAML or JSON."`
	clientFlags
}

// Help is shown by chainstream chains validate --help.
func (chainsValidateCommand) Help() string {
	return `The documents are checked here, and then by the server, which knows its models, tools and repositories. Where no server answers, that part is left out and said so.`
}

// Run checks the documents.
func (c *chainsValidateCommand) Run(ctx context.Context, a *app) error {
	type verdict struct {
		File    string `json:"file"`
		Valid   bool   `json:"valid"`
		Server  bool   `json:"checkedByServer"`
		Problem string `json:"problem,omitempty"`
	}
	verdicts := make([]verdict, 0, len(c.Files))
	failed := false
	for _, file := range c.Files {
		v := verdict{File: file, Valid: true, Server: true}
		err := c.validate(ctx, file)
		var gone *client.NoServerError
		switch {
		case errors.As(err, &gone):
			v.Server = false
			err = a.validHere(c.JSON, file, gone)
			if err != nil {
				return err
			}
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			failed, v.Valid, v.Problem = true, false, err.Error()
			if !c.JSON {
				a.remark("%s", err)
			}
		case !c.JSON:
			if err := a.printf("%s is valid\n", file); err != nil {
				return err
			}
		}
		verdicts = append(verdicts, v)
	}
	if c.JSON {
		if err := a.printJSON(verdicts); err != nil {
			return err
		}
	}
	if failed {
		return &exitError{code: exitFailed}
	}
	return nil
}

func (a *app) validHere(asJSON bool, file string, gone error) error {
	if asJSON {
		return nil
	}
	return a.printf("%s is valid; its models, tools and repositories were not checked, because %s\n", file, gone)
}

func (c *chainsValidateCommand) validate(ctx context.Context, file string) error {
	d, err := readDocument(file)
	if err != nil {
		return err
	}
	err = c.call(ctx, client.Request{Method: http.MethodPost, Path: "/api/v1/chains/validate", Body: d.text, ContentType: d.contentType}, nil)
	if p := (*client.Problem)(nil); errors.As(err, &p) {
		return fmt.Errorf("%s: %w", file, err)
	}
	return err
}

type chainsExportCommand struct {
	Chain   string `arg:"" help:"Name or id."`
	Format  string `help:"yaml, json, or assistants for the version 1.0 document." enum:"yaml,json,assistants" default:"yaml"`
	Version int    `help:"Version; without it the newest."`
	Server  string `help:"Address of the server. Default: http://127.0.0.1:8080." default:"http://127.0.0.1:8080" placeholder:"URL" environ:"CHAINSTREAM_SERVER"`
	JSON    bool   `help:"Short for --format json."`
}

// Run prints the document of a chain, and on standard error what another format
// cannot express.
func (c *chainsExportCommand) Run(ctx context.Context, a *app) error {
	query := versionQuery(c.Version)
	query.Set("format", c.Format)
	if c.JSON && c.Format == "yaml" {
		query.Set("format", "json")
	}
	api, err := clientFlags{Server: c.Server}.client()
	if err != nil {
		return err
	}
	defer api.Close()
	resp, err := api.Open(ctx, client.Request{Path: chainPath(c.Chain) + "/export", Query: query, Accept: "*/*"})
	if err != nil {
		return err
	}
	var lost []struct{ Pointer, Detail string }
	if header := resp.Header.Get("Export-Changes"); header != "" && json.Unmarshal([]byte(header), &lost) == nil {
		for _, l := range lost {
			a.remark("%s%s", pointed(l.Pointer), l.Detail)
		}
	}
	return a.copy(resp)
}

type chainsImportCommand struct {
	File    string `arg:"" help:"A version 1.0 document with assistants (JSON), or a chain document."`
	Replace bool   `help:"Make a new version of chains whose names exist."`
	clientFlags
}

// Run imports a file.
func (c *chainsImportCommand) Run(ctx context.Context, a *app) error {
	text, err := readFile(c.File, chain.MaxAssistantsBytes)
	if err != nil {
		return err
	}
	contentType := "application/json"
	if ext := strings.ToLower(filepath.Ext(c.File)); ext == ".yaml" || ext == ".yml" {
		contentType = "application/yaml"
	}
	query := url.Values{"replace": {strconv.FormatBool(c.Replace)}}
	var raw json.RawMessage
	if err := c.call(ctx, client.Request{Method: http.MethodPost, Path: "/api/v1/chains/import", Query: query, Body: text, ContentType: contentType}, &raw); err != nil {
		return err
	}
	var report struct {
		Items []struct {
			Name    string                             `json:"name"`
			Result  string                             `json:"result"`
			Chain   string                             `json:"chain"`
			Version int                                `json:"version"`
			Changes []struct{ Pointer, Detail string } `json:"changes"`
			Errors  []client.ProblemEntry              `json:"errors"`
		} `json:"items"`
	}
	if err := json.Unmarshal(raw, &report); err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	failed := false
	for _, item := range report.Items {
		failed = failed || item.Result == "refused"
		if c.JSON {
			continue
		}
		var text strings.Builder
		fmt.Fprintf(&text, "%s: %s", item.Name, item.Result)
		if item.Version > 0 {
			fmt.Fprintf(&text, " as %s, version %d", item.Chain, item.Version)
		}
		for _, change := range item.Changes {
			text.WriteString("\n  " + pointed(change.Pointer) + change.Detail)
		}
		for _, e := range item.Errors {
			text.WriteString("\n  " + pointed(e.Pointer) + e.Detail)
		}
		if err := a.printf("%s\n", printable(text.String())); err != nil {
			return err
		}
	}
	if c.JSON {
		if err := a.printJSON(raw); err != nil {
			return err
		}
	}
	if failed {
		return &exitError{code: exitFailed}
	}
	return nil
}

type chainsDeleteCommand struct {
	Chain string `arg:"" help:"Name or id."`
	clientFlags
}

// Run deletes a chain.
func (c *chainsDeleteCommand) Run(ctx context.Context, a *app) error {
	if err := c.call(ctx, client.Request{Method: http.MethodDelete, Path: chainPath(c.Chain)}, nil); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(map[string]string{"deleted": c.Chain})
	}
	return a.printf("deleted %s\n", c.Chain)
}

func versionQuery(version int) url.Values {
	if version == 0 {
		return url.Values{}
	}
	return url.Values{"version": {strconv.Itoa(version)}}
}
