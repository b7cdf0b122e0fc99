package uselite_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/uselite"
)

var _ llm.Embedder = (*uselite.Embedder)(nil)

// Many calls at once share the cores, and each gets what it asked for, in order.
func TestEmbedder(t *testing.T) {
	m := load(t)
	e := uselite.NewEmbedder(fstest.MapFS{}, os.DirFS(files))
	if !e.Present() {
		t.Fatal("the model is not there")
	}
	var group sync.WaitGroup
	for call := range 4 {
		group.Go(func() {
			var texts []string
			var pieces int64
			for i := range 5 {
				texts = append(texts, fmt.Sprintf("text %d of call %d", i, call))
				pieces += int64(m.Count(texts[i]))
			}
			vectors, usage, err := e.Embed(t.Context(), uselite.Name, texts, uselite.Dimensions)
			if err != nil {
				t.Error(err)
				return
			}
			if usage.InputTokens != pieces {
				t.Errorf("%d tokens used, want %d", usage.InputTokens, pieces)
			}
			for i, text := range texts {
				if diff := cmp.Diff(m.Embed(text), vectors[i]); diff != "" {
					t.Errorf("%q:\n%s", text, diff)
				}
			}
		})
	}
	group.Wait()
}

func TestEmbedderRefuses(t *testing.T) {
	here, nowhere := uselite.NewEmbedder(os.DirFS(files)), uselite.NewEmbedder(fstest.MapFS{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx        context.Context //nolint:containedctx // of one call of a table
		embedder   *uselite.Embedder
		model      string
		dimensions int
		want       llm.Code
	}{
		"another model":     {t.Context(), here, "use-large", 0, llm.CodeNotFound},
		"another length":    {t.Context(), here, uselite.Name, 256, llm.CodeInvalidRequest},
		"no files":          {t.Context(), nowhere, uselite.Name, 0, llm.CodeNotFound},
		"caller has gone":   {ended, here, uselite.Name, 0, llm.CodeCancelled},
		"a negative length": {t.Context(), here, uselite.Name, -1, llm.CodeInvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			vectors, _, err := tc.embedder.Embed(tc.ctx, tc.model, []string{"a", "b", "c"}, tc.dimensions)
			var failed *llm.Error
			if !errors.As(err, &failed) || failed.Code != tc.want || vectors != nil {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
	if _, err := nowhere.Model(); !errors.Is(err, uselite.ErrMissing) || nowhere.Present() {
		t.Errorf("error %v, want %v", err, uselite.ErrMissing)
	}
}

// Files that come while the server runs are used without a restart; damaged ones
// are named.
func TestEmbedderLater(t *testing.T) {
	dir := fstest.MapFS{"model.json": &fstest.MapFile{Data: []byte("{")}}
	e := uselite.NewEmbedder(dir)
	if _, err := e.Model(); err == nil || errors.Is(err, uselite.ErrMissing) {
		t.Errorf("a damaged file: %v", err)
	}
	maps.Copy(dir, present(t))
	if _, err := e.Model(); err != nil {
		t.Errorf("files that have come: %v", err)
	}
}
