package postgres_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/knowledge"
)

// long is a document of short and of long passages, each with words of its own.
func long(word string, shorts, longs int) string {
	var b strings.Builder
	for i := range shorts {
		fmt.Fprintf(&b, "# Short %d\n\nA %s%d.\n\n", i, word, i)
	}
	for i := range longs {
		fmt.Fprintf(&b, "# Long %d\n\nThis is what passage %s%d says of rivers and their tides.\n\n", i, word, i)
	}
	return b.String()
}

// A document tells how many of its passages were cut, wherever its processing was
// interrupted, until its next version is ready or another model reads all of them.
func TestNotices(t *testing.T) {
	t.Parallel()
	const two = "2 passages were longer than the model reads and were embedded by their beginning."
	check := func(d knowledge.Document, want ...string) {
		t.Helper()
		if diff := cmp.Diff(append([]string{}, want...), d.Notices()); diff != "" {
			t.Errorf("%s, version %d: %s", d.Name, d.Version, diff)
		}
	}
	for _, after := range []bool{false, true} {
		l := newLibrary(t)
		l.embedder.most = 10
		r := l.repository("docs", "test/a", 8)
		for step := 1; ; step++ {
			d := l.save(r.ID, fmt.Sprintf("%d.md", step), long(fmt.Sprintf("s%d", step), 3, 2), "")
			g := *l.ingester
			g.Store = &cutting{IngestStore: l.Store, left: step, after: after}
			_, err := g.Process(t.Context(), d.ID, d.Uploaded)
			if err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			check(l.work(d), two)
			if err == nil {
				break
			}
		}
		// Vectors that are taken over stand for as much as they did.
		check(l.add(r.ID, "copy.md", long("s1", 1, 1), ""), "1 passage was longer than the model reads and was embedded by its beginning.")
		// A version that fails leaves the notices of the one before, a good one does not.
		check(l.add(r.ID, "copy.md", " ", ""), "1 passage was longer than the model reads and was embedded by its beginning.")
		check(l.add(r.ID, "copy.md", long("other", 2, 0), ""))
		one := l.add(r.ID, "one.md", long("one", 0, 2), "")
		check(one, two)

		l.embedder.most = 0
		remodeller := &knowledge.Remodeller{Store: l, Embeddings: l.embedder, Logger: slog.New(slog.DiscardHandler)}
		changing, err := l.ChangeModel(t.Context(), r.ID, knowledge.Space{Model: "test/patient", Dimensions: 8})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := remodeller.Process(t.Context(), r.ID, changing.Building.ID); again || err != nil {
			t.Fatal(again, err)
		}
		check(l.document(one))
		if n := l.count("SELECT count(*) FROM documents WHERE cut_chunks <> 0"); n != 0 {
			t.Errorf("%d documents have notices of the model before", n)
		}
	}
}
