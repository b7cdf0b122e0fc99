package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/test/internal/program"
)

// TestFetchKilledEverywhere kills the server at every stage of an address that is added
// again, by two clients at once. When it has the same as before, there is exactly what
// there was; otherwise the new version.
func TestFetchKilledEverywhere(t *testing.T) {
	t.Parallel()
	failing, err := failing()
	if err != nil {
		t.Fatal(err)
	}
	points := append([]failpoint.Point{failpoint.UploadCommitted, failpoint.IngestBegun}, failpoint.FetchPoints()...)
	for _, point := range points {
		for _, changed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, changed %t", point, changed), func(t *testing.T) {
				t.Parallel()
				ctx := within(t)
				database := pgtest.Database(t)
				var page atomic.Value
				page.Store(manual("ebb", 5))
				site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "text/markdown")
					_, _ = fmt.Fprint(w, page.Load())
				}))
				t.Cleanup(site.Close)
				arguments := []string{"--database-url", database, "--fetch-allow", "127.0.0.0/8"}
				first := &server{process: &process{}, client: new(http.Client)}
				var err error // of this subtest: they run side by side
				if first.Process, err = program.Start(failing, nil, []string{
					fmt.Sprintf("%s=%s=kill@2", failpoint.EnvActions, point), failpoint.EnvVisits + "=" + filepath.Join(t.TempDir(), "visits"),
				}, append([]string{"serve", "--addr", "127.0.0.1:0", "--log-format", "json", "--no-example-docs"}, arguments...)...); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = first.Signal(syscall.SIGKILL) }) // it has ended, as a rule
				if first.url, err = first.Ready(ctx); err != nil {
					t.Fatal(err)
				}
				body := `{"name":"pages","embeddingModel":"offline/hash","chunkTokens":32,"chunkOverlap":0}`
				if err := first.want(ctx, http.StatusCreated, call{method: http.MethodPost, path: "/api/v1/repositories", media: "application/json", body: body}, nil); err != nil {
					t.Fatal(err)
				}
				const path = "/api/v1/repositories/1/documents"
				add := func() error {
					_, err := first.do(ctx, call{method: http.MethodPost, path: path, media: "application/json", body: fmt.Sprintf(`{"name":"page.md","url":%q}`, site.URL)})
					return err
				}
				type document struct {
					Status          string
					Unchanged       bool
					Version         int
					UploadedVersion int
					Chunks          int
					Bytes           int
					MediaType       string
				}
				show := func(s *server) document {
					t.Helper()
					var d document
					if err := s.want(ctx, http.StatusOK, call{method: http.MethodGet, path: path + "/1"}, &d); err != nil {
						t.Fatal(err)
					}
					if d.Status == "failed" {
						t.Fatalf("it has failed: %+v", d)
					}
					return d
				}
				if err := add(); err != nil {
					t.Fatal(err)
				}
				eventually(ctx, t, "the first version is ready", func() bool { return show(first).Status == "ready" })
				conn := connect(ctx, t, database)
				stored := func() []string {
					t.Helper()
					rows, err := conn.Query(ctx, "SELECT concat_ws(' ', c.id, c.version, c.text, v.xmin, v.embedding) FROM chunks c LEFT JOIN chunk_vectors v ON v.chunk_id = c.id ORDER BY c.id")
					if err != nil {
						t.Fatal(err)
					}
					out, err := pgx.CollectRows(rows, pgx.RowTo[string])
					if err != nil {
						t.Fatal(err)
					}
					return out
				}
				before, was := stored(), show(first)
				if changed {
					page.Store(manual("tide", 5))
				}
				var adding sync.WaitGroup
				for range 2 {
					adding.Go(func() { _ = add() }) // the answer may be lost with the server
				}
				adding.Wait()
				if _, err := first.Wait(ctx); err != nil {
					t.Fatal(err)
				}

				second := serve(ctx, t, settings{args: arguments})
				var d document
				eventually(ctx, t, "the document is ready, and nothing is left to be done", func() bool {
					d = show(second)
					var left int
					if err := conn.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state NOT IN ('completed', 'cancelled')").Scan(&left); err != nil {
						t.Fatal(err)
					}
					return d.Status == "ready" && left == 0
				})
				after := stored()
				if changed {
					if d.Unchanged || d.Version == was.Version || d.UploadedVersion != d.Version || len(after) != len(before) || slices.Equal(before, after) {
						t.Errorf("it ended as %+v", d)
					}
				} else {
					if !d.Unchanged {
						t.Error("it is not told that nothing has changed")
					}
					if d.Unchanged = false; d != was {
						t.Errorf("it ended as %+v, and was %+v", d, was)
					}
					if !slices.Equal(before, after) {
						t.Errorf("there was\n%q\nand is\n%q", before, after)
					}
				}
				var files, versions int
				if err := conn.QueryRow(ctx, "SELECT (SELECT count(*) FROM document_uploads), (SELECT count(DISTINCT version) FROM chunks)").Scan(&files, &versions); err != nil {
					t.Fatal(err)
				}
				if files != 0 || versions != 1 {
					t.Errorf("%d files and passages of %d versions are left", files, versions)
				}
			})
		}
	}
}
