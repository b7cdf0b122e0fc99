package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/chainstream/chainstream/internal/client"
)

// printf writes to standard output.
func (a *app) printf(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.stdout, format, args...); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// printJSON writes a value as indented JSON.
func (a *app) printJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return a.printf("%s\n", text)
}

// copy writes the body of an answer to standard output and closes it.
func (a *app) copy(resp *http.Response) error {
	_, err := io.Copy(a.stdout, resp.Body)
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("copy the answer: %w", err)
	}
	return nil
}

// firstLines ends a body after a number of lines.
type firstLines struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (f *firstLines) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, err := f.ReadCloser.Read(p)
	for i, b := range p[:n] {
		if b != '\n' {
			continue
		}
		if f.left--; f.left == 0 {
			return i + 1, io.EOF
		}
	}
	return n, err
}

// table aligns columns.
type table struct{ w *tabwriter.Writer }

func (a *app) table(columns ...string) table {
	t := table{tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.w, strings.Join(columns, "\t")) // flush tells of errors
	return t
}

func (t table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = strings.Join(strings.Fields(printable(fmt.Sprint(cell))), " ")
	}
	fmt.Fprintln(t.w, strings.Join(texts, "\t")) // flush tells of errors
}

func (t table) flush() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// pages reads a list page by page, up to most entries; 0 reads all.
func (f clientFlags) pages(ctx context.Context, path string, query url.Values, most int, items *[]json.RawMessage) error {
	*items = []json.RawMessage{}
	for {
		limit := 200
		if most > 0 {
			limit = min(limit, most-len(*items))
		}
		query.Set("limit", strconv.Itoa(limit))
		var page struct {
			Items      []json.RawMessage `json:"items"`
			NextCursor *string           `json:"nextCursor"`
		}
		if err := f.call(ctx, client.Request{Path: path, Query: query}, &page); err != nil {
			return err
		}
		*items = append(*items, page.Items...)
		if page.NextCursor == nil || most > 0 && len(*items) >= most {
			return nil
		}
		query.Set("cursor", *page.NextCursor)
	}
}
