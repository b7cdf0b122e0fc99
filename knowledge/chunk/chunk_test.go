package chunk_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/knowledge/chunk"
	"github.com/chainstream/chainstream/knowledge/extract"
)

func words(s string) int { return len(strings.Fields(s)) }

func TestSplitDocs(t *testing.T) {
	files, _ := filepath.Glob("../../docs/*.md")
	for _, f := range append(files, "../../README.md") {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		blocks, err := extract.Blocks(context.Background(), extract.Markdown, data, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := chunk.Options{MaxTokens: 80, Overlap: 15, Count: words}
		a, b := chunk.Split(blocks, o), chunk.Split(blocks, o)
		if diff := cmp.Diff(a, b); diff != "" {
			t.Error(diff)
		}
		all := ""
		for _, c := range a {
			if c.Tokens > 80 {
				t.Errorf("%s: %d tokens", f, c.Tokens)
			}
			all += c.Text + "\n"
		}
		// nothing is lost
		have := map[string]bool{}
		for _, w := range strings.Fields(all) {
			have[w] = true
		}
		for _, bl := range blocks {
			if bl.Kind == extract.Heading {
				continue
			}
			for _, w := range strings.Fields(bl.Text) {
				if !have[w] {
					t.Errorf("%s lost %q", f, w)
				}
			}
		}
		t.Logf("%s: %d blocks %d chunks", f, len(blocks), len(a))
		if strings.HasSuffix(f, "chains.md") {
			for _, c := range a[:8] {
				t.Logf("---- %v %d\n%s", c.Headings, c.Tokens, c.Text)
			}
		}
	}
}
