package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/internal/client"
)

// document is a chain document in a file.
type document struct {
	file        string
	text        []byte
	contentType string
	chain       *chain.Chain
}

// readDocument reads and checks a chain document. What is wrong is listed with
// file and line.
func readDocument(file string) (*document, error) {
	text, err := readFile(file, chain.MaxDocumentBytes)
	if err != nil {
		return nil, err
	}
	d := &document{file: file, text: text, contentType: "application/yaml"}
	format := chain.FormatYAML
	if strings.EqualFold(filepath.Ext(file), ".json") {
		d.contentType, format = "application/json", chain.FormatJSON
	}
	if d.chain, err = chain.Parse(text, format); err != nil {
		return nil, problemsIn(file, err)
	}
	return d, nil
}

// problemsIn writes the problems of a file as compilers do.
func problemsIn(file string, err error) error {
	var problems chain.Problems
	if !errors.As(err, &problems) {
		return fmt.Errorf("read %s: %w", file, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s has %s", file, count(len(problems), "problem"))
	for _, p := range problems {
		at := file
		if p.Line > 0 {
			at = fmt.Sprintf("%s:%d", file, p.Line)
		}
		fmt.Fprintf(&b, "\n  %s: %s%s", at, pointed(p.Pointer), p.Detail)
	}
	return &exitError{code: exitFailed, message: b.String(), err: err}
}

func pointed(pointer string) string {
	if pointer == "" {
		return ""
	}
	return pointer + ": "
}

// readFile reads a file of at most so many bytes.
func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, usage("%s cannot be read: %s", name, reason(err))
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, usage("%s cannot be read: %s", name, reason(err))
	case int64(len(text)) > most:
		return nil, usage("%s is larger than %d bytes", name, most)
	}
	return text, nil
}

// What apply did.
const (
	applyCreated   = "created"
	applyUpdated   = "updated"
	applyUnchanged = "unchanged"
)

// applied is a chain after apply.
type applied struct {
	ID      int64  `json:"id"`
	Name    string `json:"name"`
	Version int    `json:"version"`
	Result  string `json:"result"`
}

// apply makes the server's newest version of a chain equal to a document: it
// creates the chain, adds a version, or does nothing when they are equal.
func apply(ctx context.Context, c *client.Client, d *document) (applied, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	name := d.chain.Name
	send := func(method, path, result string) (applied, error) {
		a := applied{Result: result}
		err := c.Do(ctx, client.Request{Method: method, Path: path, Body: d.text, ContentType: d.contentType}, &a)
		a.Result = result
		return a, err
	}
	stored, newest, err := storedChain(ctx, c, name)
	if hasCode(err, http.StatusNotFound) {
		a, err := send(http.MethodPost, "/api/v1/chains", applyCreated)
		if !hasCode(err, http.StatusConflict) {
			return a, err
		}
		// Somebody else was faster.
		stored, newest, err = storedChain(ctx, c, name)
		if err != nil {
			return applied{}, err
		}
	} else if err != nil {
		return applied{}, err
	}
	if bytes.Equal(stored.JSON(), d.chain.JSON()) {
		newest.Result = applyUnchanged
		return newest, nil
	}
	return send(http.MethodPut, chainPath(name), applyUpdated)
}

// storedChain answers the newest version of a chain.
func storedChain(ctx context.Context, c *client.Client, name string) (*chain.Chain, applied, error) {
	var head applied
	if err := c.Do(ctx, client.Request{Path: chainPath(name)}, &head); err != nil {
		return nil, head, err
	}
	var text json.RawMessage
	query := url.Values{"format": {"json"}, "version": {fmt.Sprint(head.Version)}}
	if err := c.Do(ctx, client.Request{Path: chainPath(name) + "/export", Query: query}, &text); err != nil {
		return nil, head, err
	}
	stored, err := chain.Parse(text, chain.FormatJSON)
	if err != nil {
		return nil, head, fmt.Errorf("read the stored chain %s: %w", name, err)
	}
	return stored, head, nil
}

// hasCode tells whether an error is a problem with a status.
func hasCode(err error, status int) bool {
	var p *client.Problem
	return errors.As(err, &p) && p.Status == status
}
