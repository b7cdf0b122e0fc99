package e2e_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/test/internal/program"
)

// manual is a document of many passages, each of which has a word of its own.
func manual(word string, sections int) string {
	var b strings.Builder
	for i := range sections {
		fmt.Fprintf(&b, "# Section %d\n\nThe %s of section %d is told here, and so is %s%d.\n\n", i, word, i, word, i)
	}
	return b.String()
}

// TestIngestionKilledEverywhere kills the server at every stage of a document that
// replaces another one, and of a change of the model. The next server goes on at once,
// and then there is exactly what there would have been.
func TestIngestionKilledEverywhere(t *testing.T) {
	t.Parallel()
	failing, err := failing()
	if err != nil {
		t.Fatal(err)
	}
	models, err := filepath.Abs("../../build/models")
	if err != nil {
		t.Fatal(err)
	}
	for _, point := range failpoint.DocumentPoints() {
		// The first version of the document visits each point of documents once.
		visit := 2
		if point >= failpoint.SpaceBefore {
			visit = 1
		}
		t.Run(point.String(), func(t *testing.T) {
			t.Parallel()
			ctx := within(t)
			database := pgtest.Database(t)
			var err error // of this subtest: they run side by side
			first := &server{process: &process{}, client: new(http.Client)}
			if first.Process, err = program.Start(failing, nil, []string{
				fmt.Sprintf("%s=%s=kill@%d", failpoint.EnvActions, point, visit), failpoint.EnvVisits + "=" + filepath.Join(t.TempDir(), "visits"),
				"CHAINSTREAM_MODELS_DIR=" + models,
			},
				"serve", "--addr", "127.0.0.1:0", "--log-format", "json", "--no-example-docs", "--database-url", database); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = first.Signal(syscall.SIGKILL) }) // it has ended, as a rule
			if first.url, err = first.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			create := func(s *server, name string) {
				t.Helper()
				body := fmt.Sprintf(`{"name":%q,"embeddingModel":"offline/hash","chunkTokens":32,"chunkOverlap":0}`, name)
				if err := s.want(ctx, http.StatusCreated, call{method: http.MethodPost, path: "/api/v1/repositories", media: "application/json", body: body}, nil); err != nil {
					t.Fatal(err)
				}
			}
			type document struct {
				Status  string
				Error   string
				Version int
				Chunks  int
			}
			show := func(s *server, repository int) document {
				t.Helper()
				var list struct{ Items []document }
				path := fmt.Sprintf("/api/v1/repositories/%d/documents", repository)
				if err := s.want(ctx, http.StatusOK, call{method: http.MethodGet, path: path}, &list); err != nil {
					t.Fatal(err)
				}
				if len(list.Items) != 1 {
					t.Fatalf("%d documents", len(list.Items))
				}
				return list.Items[0]
			}
			upload := func(s *server, repository int, text string) error {
				body := fmt.Sprintf(`{"name":"manual.md","text":%q}`, text)
				path := fmt.Sprintf("/api/v1/repositories/%d/documents", repository)
				_, err := s.do(ctx, call{method: http.MethodPost, path: path, media: "application/json", body: body})
				return err
			}
			create(first, "killed")
			if err := upload(first, 1, manual("ebb", 1)); err != nil {
				t.Fatal(err)
			}
			eventually(ctx, t, "the first version is ready", func() bool { return show(first, 1).Status == "ready" })
			_ = upload(first, 1, manual("tide", 100)) // the answer may be lost with the server
			change := call{method: http.MethodPut, path: "/api/v1/repositories/1", media: "application/json", body: `{"name":"killed","embeddingModel":"offline/use-lite"}`}
			if point >= failpoint.SpaceBefore {
				eventually(ctx, t, "the second version is ready", func() bool { d := show(first, 1); return d.Status == "ready" && d.Version == 2 })
				if err := first.want(ctx, http.StatusOK, change, nil); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := first.Wait(ctx); err != nil {
				t.Fatal(err)
			}

			second := serve(ctx, t, settings{env: []string{"CHAINSTREAM_MODELS_DIR=" + models}, args: []string{"--database-url", database}})
			begin := time.Now()
			eventually(ctx, t, "the second version is ready", func() bool {
				d := show(second, 1)
				if d.Status == "failed" {
					t.Fatalf("it failed: %s", d.Error)
				}
				return d.Status == "ready" && d.Version == 2
			})
			t.Logf("ready %s after the start", time.Since(begin).Round(10*time.Millisecond))
			conn := connect(ctx, t, database)
			count := func(sql string, args ...any) (n int) {
				t.Helper()
				if err := conn.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			if point >= failpoint.SpaceBefore {
				eventually(ctx, t, "the model is changed", func() bool { return count("SELECT count(*) FROM embedding_spaces WHERE model = 'offline/hash'") == 0 })
			}
			// The same document without any kill.
			create(second, "undisturbed")
			if err := upload(second, 2, manual("tide", 100)); err != nil {
				t.Fatal(err)
			}
			eventually(ctx, t, "the other document is ready", func() bool { return show(second, 2).Status == "ready" })
			eventually(ctx, t, "the queue is empty", func() bool {
				return count("SELECT count(*) FROM river_job WHERE state NOT IN ('completed', 'cancelled')") == 0
			})
			for what, sql := range map[string]string{
				"passages differ": `SELECT count(*) FROM
					(SELECT version, ordinal, headings, text, tokens FROM chunks WHERE repository_id = 1) a
					FULL JOIN (SELECT 2 AS version, ordinal, headings, text, tokens FROM chunks WHERE repository_id = 2) b
					USING (version, ordinal, headings, text, tokens) WHERE a.text IS NULL OR b.text IS NULL`,
				"passages have no vector": `SELECT count(*) FROM chunks c JOIN repositories r ON r.id = c.repository_id
					LEFT JOIN chunk_vectors v ON v.chunk_id = c.id AND v.space_id = r.space_id WHERE v.chunk_id IS NULL`,
				"vectors are of no passage or no space in use": `SELECT count(*) FROM chunk_vectors v
					LEFT JOIN chunks c ON c.id = v.chunk_id LEFT JOIN repositories r ON r.id = c.repository_id AND r.space_id = v.space_id WHERE r.id IS NULL`,
				"words are miscounted": `SELECT count(*) FROM (SELECT word, chunks FROM repository_words WHERE repository_id = 1 AND chunks <> 0) a
					FULL JOIN (SELECT word, chunks FROM repository_words WHERE repository_id = 2) b USING (word) WHERE a.chunks IS DISTINCT FROM b.chunks`,
				"files are left":  "SELECT count(*) FROM document_uploads",
				"spaces are left": "SELECT count(*) - 2 FROM embedding_spaces",
			} {
				if n := count(sql); n != 0 {
					t.Errorf("%d %s", n, what)
				}
			}
			search := func(query string) (found []string) {
				t.Helper()
				var answer struct{ Results []struct{ Text string } }
				body := fmt.Sprintf(`{"repositories":[1],"query":%q,"search":"keyword"}`, query)
				if err := second.want(ctx, http.StatusOK, call{method: http.MethodPost, path: "/api/v1/repositories/search", media: "application/json", body: body}, &answer); err != nil {
					t.Fatal(err)
				}
				for _, r := range answer.Results {
					found = append(found, r.Text)
				}
				return found
			}
			if found := search("tide42"); len(found) != 1 || !slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, "tide42") }) {
				t.Errorf("found %q", found)
			}
			if found := search("ebb0"); len(found) != 0 {
				t.Errorf("the version before is found: %q", found)
			}
		})
	}
}
