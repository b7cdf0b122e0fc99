package main_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

const asking = `
name: asking
prompts:
  - name: Answer
    position: 1
    model: offline/echo
    content: "echo: what do pelicans eat? ${knowledge}"
    knowledge: {repositories: [1], search: keyword}
`

// Files become documents, a search finds them, and a chain is given what fits its
// prompt; what cannot be read says why.
func TestKnowledge(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	s := serve(t, map[string]string{"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": fake.URL}, "--database-url", pgtest.Database(t))
	step := func(args ...string) string {
		t.Helper()
		return succeed(t, s.client(), append([]string{"knowledge"}, args...)...)
	}
	if got := step("create", "birds", "--model", "openai/text-embedding-3-small"); !strings.Contains(got, "repository 1 birds: openai/text-embedding-3-small, 16 dimensions") {
		t.Errorf("create: %s", got)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"pelicans.md": "# Pelicans\n\nPelicans eat fish. ${not.a.variable}\n", "gulls.html": "<h1>Gulls</h1><p>Gulls eat everything.</p>",
		".hidden.md": "secret", "picture.png": "\x89PNG",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	added := step("add", "birds", dir)
	if strings.Count(added, ": ready, 1 chunks") != 2 || strings.Contains(added, "hidden") || strings.Contains(added, "png") {
		t.Errorf("add:\n%s", added)
	}
	found := step("search", "birds", "what do pelicans eat?", "--search", "keyword", "--limit", "1")
	if !strings.Contains(found, "pelicans.md, Pelicans\n") || !strings.Contains(found, "Pelicans eat fish. ${not.a.variable}") {
		t.Errorf("search:\n%s", found)
	}
	for _, search := range []string{"vector", "hybrid"} {
		var answer struct {
			Results  []struct{ DocumentName string }
			Degraded string
		}
		if err := json.Unmarshal([]byte(step("search", "birds", "gulls", "--search", search, "--json")), &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Results) == 0 || answer.Degraded != "" {
			t.Errorf("%s: %+v", search, answer)
		}
	}

	output := succeed(t, s.client(), "run", file(t, "asking.yaml", asking), "--json")
	var retrieved string
	for line := range strings.SplitSeq(output, "\n") {
		if strings.Contains(line, `"knowledge-retrieved"`) {
			retrieved = line
		}
	}
	if !strings.Contains(strings.ReplaceAll(retrieved, " ", ""), `"documentsFound":2`) || strings.Contains(retrieved, `"error"`) {
		t.Errorf("the chain retrieved %s in\n%s", retrieved, output)
	}
	if !strings.Contains(output, "Pelicans eat fish. ${not.a.variable}") {
		t.Errorf("the prompt has no passage:\n%s", output)
	}

	pdf := filepath.Join(dir, "paper.pdf")
	garbage := filepath.Join(dir, "garbage.docx")
	bomb := filepath.Join(dir, "bomb.docx")
	for name, data := range map[string][]byte{pdf: []byte("%PDF-1.7 x"), garbage: []byte("no zip"), bomb: zipBomb(t)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := execute(t, s.client(), "knowledge", "add", "birds", pdf, garbage, bomb)
	if r.code != 1 {
		t.Errorf("exit code %d", r.code)
	}
	for _, want := range []string{"paper.pdf: failed. This kind of file cannot be read", "garbage.docx: failed. The file is damaged or not of its kind.", "bomb.docx: failed. The file unfolds to more text, or takes more time or memory to read, than is allowed."} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("no %q in:\n%s%s", want, r.stdout, r.stderr)
		}
	}
	if got := step("documents", "birds"); strings.Count(got, "ready") != 2 || strings.Count(got, "failed") != 3 {
		t.Errorf("documents:\n%s", got)
	}
	var documents []struct {
		ID   int
		Name string
	}
	if err := json.Unmarshal([]byte(step("documents", "1", "--json")), &documents); err != nil {
		t.Fatal(err)
	}
	for _, d := range documents {
		if strings.HasSuffix(d.Name, "pelicans.md") {
			step("remove", "birds", itoa(d.ID))
		}
	}
	if got := step("search", "birds", "pelicans", "--search", "keyword"); got != "nothing was found\n" {
		t.Errorf("after the removal:\n%s", got)
	}
	if got := step("list"); !strings.Contains(got, "birds") {
		t.Errorf("list:\n%s", got)
	}
	step("remove", "birds")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"search", "birds", "x"}, `there is no repository "birds"`},
		{[]string{"documents", "7"}, "(404 "},
		{[]string{"add", "7", filepath.Join(dir, "nothing.md")}, "cannot be read"},
		{[]string{"add", "7", "/dev/zero"}, "neither a file nor a folder"},
		{[]string{"create", "x", "--model", "nobody/x"}, "/embeddingModel"},
	} {
		if r := execute(t, s.client(), append([]string{"knowledge"}, tt.args...)...); r.code != 1 || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%v: %d %s", tt.args, r.code, r.stderr)
		}
	}
}

// What is bad in a folder, or among what is named, is told a line each and counted, and
// the rest is added.
func TestKnowledgeAddsTheRest(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "--database-url", pgtest.Database(t), "--max-upload", "2000000")
	succeed(t, s.client(), "knowledge", "create", "mixed", "--model", "offline/hash")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"a.md": "Apples are red.", "broken.pdf": "no such format", "empty.txt": "", "large.txt": strings.Repeat("many words ", 300_000), "z.md": "Zebras have stripes.",
	} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("vast.csv"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(at("vast.csv"), 1<<30+1); err != nil { // a file with a hole takes no room
		t.Fatal(err)
	}
	args := []string{"knowledge", "add", "mixed", at("missing.md"), dir}
	r := execute(t, s.client(), args...)
	if want := at("a.md") + ": ready, 1 chunks\n" + at("z.md") + ": ready, 1 chunks\n"; r.stdout != want || r.code != 1 {
		t.Errorf("exit code %d, printed:\n%swant:\n%s", r.code, r.stdout, want)
	}
	told := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
	want := []string{
		at("missing.md") + " cannot be read (no such file or directory)",
		at("empty.txt") + ": The request is not valid: /file: must not be empty (422 invalid_request)",
		at("large.txt") + ": The body is too large: A body may have up to 2000000 bytes (1.9 MiB) (413 body_too_large)",
		at("vast.csv") + ": is larger than 1 GiB",
		at("broken.pdf") + ": failed. The file is damaged or not of its kind.",
		"5 of 7 documents could not be added",
	}
	for i := range want {
		want[i] = "chainstream: " + want[i]
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}

	r = execute(t, s.client(), append(args, "--json")...)
	var documents []struct{ Name, Status string }
	if err := json.Unmarshal([]byte(r.stdout), &documents); err != nil {
		t.Fatalf("%v\n%s%s", err, r.stdout, r.stderr)
	}
	var states []string
	for _, d := range documents {
		states = append(states, filepath.Base(d.Name)+" "+d.Status)
	}
	if diff := cmp.Diff([]string{"a.md ready", "broken.pdf failed", "z.md ready"}, states); diff != "" || r.code != 1 {
		t.Errorf("as JSON, exit code %d (-want +got):\n%s", r.code, diff)
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")); diff != "" {
		t.Errorf("told beside the JSON (-want +got):\n%s", diff)
	}

	// Of what is about all documents, one line is enough.
	r = execute(t, s.client(), "knowledge", "add", "9", at("a.md"), at("z.md"))
	if r.code != 1 || strings.Count(r.stderr, "404 repository_not_found") != 1 {
		t.Errorf("no repository: %d\n%s", r.code, r.stderr)
	}
}

// An address that is added again and has the same as before is told to be unchanged, and
// so is a file.
func TestKnowledgeUnchanged(t *testing.T) {
	t.Parallel()
	var page atomic.Value
	page.Store("# Tides\n\nThe tide rises.\n")
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/markdown")
		_, _ = fmt.Fprint(w, page.Load())
	}))
	t.Cleanup(site.Close)
	s := serve(t, nil, "--database-url", pgtest.Database(t), "--fetch-allow", "127.0.0.0/8")
	step := func(args ...string) string {
		t.Helper()
		return succeed(t, s.client(), append([]string{"knowledge"}, args...)...)
	}
	step("create", "tides", "--model", "offline/hash")
	for _, source := range []string{site.URL + "/tides.md", file(t, "tides.md", "The tide falls.")} {
		name := source
		if got := step("add", "tides", source); got != name+": ready, 1 chunks\n" {
			t.Errorf("added: %s", got)
		}
		if got := step("add", "tides", source); got != name+": unchanged, 1 chunks\n" {
			t.Errorf("added again: %s", got)
		}
	}
	var documents []struct {
		Status    string
		Version   int
		Unchanged bool
	}
	if err := json.Unmarshal([]byte(step("add", "tides", site.URL+"/tides.md", "--json")), &documents); err != nil {
		t.Fatal(err)
	}
	if d := documents[0]; d.Status != "ready" || d.Version != 1 || !d.Unchanged {
		t.Errorf("answered %+v", d)
	}
	page.Store("# Tides\n\nThe tide falls.\n")
	if got := step("add", "tides", site.URL+"/tides.md"); got != site.URL+"/tides.md: ready, 1 chunks\n" {
		t.Errorf("changed: %s", got)
	}
}

// zipBomb is a small DOCX file that unfolds to 300 MB of text.
func zipBomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("word/document.xml")
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("<w:p><w:r><w:t>boom boom boom boom</w:t></w:r></w:p>"), 20_000)
	write := func(p []byte) {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte(`<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>`))
	for range 300 {
		write(text)
	}
	write([]byte(`</w:body></w:document>`))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
