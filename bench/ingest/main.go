// Command ingest measures how fast documents become searchable.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
	"github.com/chainstream/chainstream/docs"
	"github.com/chainstream/chainstream/internal/client"
)

const about = `
From the first upload until the last document can be found, with the whole program as
users start it, run at the root of the repository. The documents are Markdown: the
documentation of this project, over and over, with a number before every paragraph, so
that no passage is known already. They are sent one after another, as JSON, and read,
cut, embedded and stored while others come.

offline/hash       what everything but a model takes
offline/use-lite   with the model that runs in the server itself

The rate of another model is the lesser of the first one's and of what its provider
answers. The children of the server are PostgreSQL and what reads files.`

func main() { os.Exit(program.Main("ingest", about, define)) }

type config struct {
	models    string
	megabytes float64
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	flags.StringVar(&c.models, "models", "offline/hash,offline/use-lite", "embedding `models`, separated by commas")
	flags.Float64Var(&c.megabytes, "megabytes", 4, "of text, for each of them")
	return func(ctx context.Context, w io.Writer) error { return c.run(ctx, w) }
}

func (c config) run(ctx context.Context, w io.Writer) (err error) {
	library, err := copies(int(c.megabytes * 1e6))
	if err != nil {
		return err
	}
	server, err := rig.StartServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	api, err := client.New("http://" + server.Addr)
	if err != nil {
		return err
	}
	defer api.Close()
	table := measure.NewTable("model", "documents", "MB", "passages", "s", "MB/s", "passages/s", "server CPU s/MB", "its children CPU s/MB", "foreign load")
	for model := range strings.SplitSeq(c.models, ",") {
		l, err := ingest(ctx, api, server, model, library)
		if err != nil {
			return fmt.Errorf("%s: %w", model, err)
		}
		size := float64(l.bytes) / 1e6
		table.Row(model, strconv.Itoa(len(library)), measure.Figures(size), strconv.FormatInt(l.passages, 10), measure.Figures(l.took.Seconds()),
			measure.Figures(size/l.took.Seconds()), measure.Figures(float64(l.passages)/l.took.Seconds()),
			measure.Figures(l.server.Seconds()/size), measure.Figures(l.children.Seconds()/size), measure.Percent(l.foreign))
	}
	_, err = table.WriteTo(w)
	return err
}

// document is one upload.
type document struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// copies answers documents of so many bytes together, none of whose paragraphs are the
// same.
func copies(size int) ([]document, error) {
	pages, err := docs.Files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("list the documentation: %w", err)
	}
	var out []document
	for round, paragraph := 0, 0; ; round++ {
		for _, page := range pages {
			if size <= 0 {
				return out, nil
			}
			text, err := docs.Files.ReadFile(page.Name())
			if err != nil {
				return nil, fmt.Errorf("read the documentation: %w", err)
			}
			var b strings.Builder
			for part := range strings.SplitSeq(string(text), "\n\n") {
				if r := strings.TrimSpace(part); r != "" && r[0] >= 'A' && r[0] <= 'Z' { // neither a heading, nor a table, nor code
					paragraph++
					fmt.Fprintf(&b, "%d. ", paragraph)
				}
				b.WriteString(part + "\n\n")
			}
			out = append(out, document{Name: fmt.Sprintf("%d-%s", round, page.Name()), Text: b.String()})
			size -= b.Len()
		}
	}
}

// load is what an ingestion took.
type load struct {
	bytes, passages        int64
	took, server, children time.Duration
	foreign                float64
}

// repository is what the server says of one.
type repository struct {
	ID      int64 `json:"id"`
	Pending int64 `json:"pendingDocuments"`
	Chunks  int64 `json:"chunks"`
}

func ingest(ctx context.Context, api *client.Client, server *rig.Server, model string, library []document) (load, error) {
	var l load
	var r repository
	body, err := json.Marshal(map[string]string{"name": model, "embeddingModel": model})
	if err != nil {
		return l, err
	}
	if err := api.Do(ctx, client.Request{Method: http.MethodPost, Path: "/api/v1/repositories", Body: body}, &r); err != nil {
		return l, err
	}
	path := fmt.Sprintf("/api/v1/repositories/%d", r.ID)
	ownBefore, treeBefore, err := processorTime(server)
	if err != nil {
		return l, err
	}
	foreign, err := measure.WatchForeign()
	if err != nil {
		return l, err
	}
	begin := time.Now()
	for _, d := range library {
		var body bytes.Buffer
		if err := json.NewEncoder(&body).Encode(d); err != nil {
			return l, err
		}
		l.bytes += int64(len(d.Text))
		if err := api.Do(ctx, client.Request{Method: http.MethodPost, Path: path + "/documents", Body: body.Bytes()}, nil); err != nil {
			return l, err
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := api.Do(ctx, client.Request{Path: path}, &r); err != nil {
			return l, err
		}
		if r.Pending == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return l, context.Cause(ctx)
		}
	}
	l.took, l.passages = time.Since(begin), r.Chunks
	if l.foreign, err = foreign.Share(); err != nil {
		return l, err
	}
	own, tree, err := processorTime(server)
	l.server, l.children = own-ownBefore, tree-treeBefore-(own-ownBefore)
	return l, err
}

// processorTime answers that of the server alone, and with its database.
func processorTime(server *rig.Server) (own, tree time.Duration, err error) {
	if own, err = measure.ProcessCPU(server.PID); err != nil {
		return 0, 0, err
	}
	tree, err = measure.TreeCPU(server.PID)
	return own, tree, err
}
