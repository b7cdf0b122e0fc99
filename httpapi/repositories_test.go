package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/knowledge/extract"
	"github.com/chainstream/chainstream/llm"
)

// vocabulary is an embedding model that knows nothing but which words a text has.
// Its vectors have 64 numbers.
type vocabulary struct{}

func (vocabulary) Embedding(id string) (knowledge.Embedding, error) {
	switch id {
	case "test/words", "test/broken":
		return knowledge.Embedding{Embedder: vocabulary{}, Model: id, Batch: 8, Count: llm.EstimateTokens}, nil
	}
	return knowledge.Embedding{}, fmt.Errorf("%w: %q", llm.ErrUnknownModel, id)
}

// testEmbeddings are vocabulary and the models of a registry.
type testEmbeddings struct{ models *llm.Registry }

func (e testEmbeddings) Embedding(id string) (knowledge.Embedding, error) {
	if strings.HasPrefix(id, "test/") {
		return vocabulary{}.Embedding(id)
	}
	target, err := e.models.Resolve(id)
	if err != nil {
		return knowledge.Embedding{}, err
	}
	embedder, ok := target.Provider.(llm.Embedder)
	if !ok {
		return knowledge.Embedding{}, fmt.Errorf("%w: the provider of %q has no embeddings", llm.ErrUnknownModel, id)
	}
	return knowledge.Embedding{Embedder: embedder, Model: target.Model, Batch: 100, Count: llm.EstimateTokens}, nil
}

func (vocabulary) Embed(_ context.Context, model string, texts []string, _ int) ([][]float32, llm.Usage, error) {
	if model == "test/broken" {
		return nil, llm.Usage{}, llm.NewError(llm.CodeUnauthorized, nil)
	}
	out := make([][]float32, len(texts))
	for i, text := range texts {
		out[i] = make([]float32, 64)
		for word := range strings.FieldsSeq(strings.ToLower(text)) {
			h := fnv.New32a()
			_, _ = h.Write([]byte(strings.Trim(word, ".,?#")))
			out[i][h.Sum32()%64]++
		}
	}
	return out, llm.Usage{}, nil
}

// Extract reads texts.
func (vocabulary) Extract(ctx context.Context, name, mediaType string, data []byte) ([]extract.Block, error) {
	format, err := extract.Detect(name, mediaType, data)
	if err != nil {
		return nil, err
	}
	return extract.Blocks(ctx, format, data, nil)
}

// process does what the background work does with a document.
func (a *api) process(d map[string]any) {
	a.t.Helper()
	g := &knowledge.Ingester{Store: a.store, Extractor: vocabulary{}, Embeddings: vocabulary{}, Logger: slog.New(slog.DiscardHandler)}
	id, _ := d["id"].(float64)
	version, _ := d["uploadedVersion"].(float64)
	if _, err := g.Process(a.t.Context(), int64(id), int(version)); err != nil {
		a.t.Fatal(err)
	}
}

const repositories = "/api/v1/repositories"

// form is a body with parts, each NAME, FILE NAME, TEXT.
func form(t *testing.T, parts ...[3]string) (body, media string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		if p[1] == "" {
			if err := w.WriteField(p[0], p[2]); err != nil {
				t.Fatal(err)
			}
			continue
		}
		part, err := w.CreateFormFile(p[0], p[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte(p[2])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

// A repository is made, filled by JSON and by a form, searched, renamed and
// removed.
func TestRepositories(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	post := func(path, body string) answer { return a.do(call{method: "POST", path: path, body: body}) }
	made := post(repositories, `{"name":"sea","embeddingModel":"test/words"}`).want(http.StatusCreated)
	r := made.object()
	if r["dimensions"] != 64.0 || r["embeddingModel"] != "test/words" || r["language"] != "english" || made.header.Get("Location") != repositories+"/1" {
		t.Errorf("made %v at %s", r, made.header.Get("Location"))
	}
	documents := repositories + "/1/documents"
	added := post(documents, `{"name":"tides.md","text":"# Tides\n\nHigh water comes twice a day.","metadata":{"kind":"book"}}`).want(http.StatusAccepted)
	if d := added.object(); d["status"] != "processing" || d["version"] != 0.0 || added.header.Get("Location") != documents+"/1" {
		t.Errorf("added %v", d)
	}
	a.process(added.object())
	body, media := form(t, [3]string{"file", "birds.txt", "Pelicans eat fish."}, [3]string{"metadata", "", `{"kind":"note"}`})
	other := a.do(call{method: "POST", path: documents, body: body, media: media}).want(http.StatusAccepted).object()
	a.process(other)
	if d := a.do(call{path: documents + "/2"}).want(http.StatusOK).object(); d["status"] != "ready" || d["name"] != "birds.txt" || d["chunks"] != 1.0 || d["progress"] != 100.0 {
		t.Errorf("the form's document: %v", d)
	}
	if d := a.do(call{method: "POST", path: documents, body: body, media: media}).want(http.StatusOK).object(); d["version"] != 1.0 {
		t.Errorf("the same file again: %v", d)
	}

	// Null is as good as nothing.
	post(documents, `{"name":"birds.txt","text":"Pelicans eat fish.","url":null,"metadata":{"kind":"note"}}`).want(http.StatusOK)

	first := func(extra string) map[string]any {
		t.Helper()
		got := post(repositories+"/search", `{"repositories":[1],"query":"what do pelicans eat?"`+extra+`}`).want(http.StatusOK).object()
		list, _ := got["results"].([]any)
		if len(list) == 0 {
			return nil
		}
		m, _ := list[0].(map[string]any)
		return m
	}
	for _, search := range []string{"vector", "keyword", "hybrid"} {
		p := first(`,"search":"` + search + `","limit":1`)
		signals, _ := p["signals"].(map[string]any)
		if p["documentName"] != "birds.txt" || p["text"] != "Pelicans eat fish." || p["version"] != 1.0 || (signals["vector"] == nil) != (search == "keyword") ||
			(signals["keyword"] == nil) != (search == "vector") {
			t.Errorf("%s: %v", search, p)
		}
	}
	if p := first(`,"filter":{"kind":"book"},"search":"vector"`); p["documentName"] != "tides.md" || p["headings"] != "Tides" {
		t.Errorf("filtered: %v", p)
	}
	got := post(repositories+"/search", `{"repositories":[1],"query":"pelicans","threshold":1,"search":"vector"}`).want(http.StatusOK).object()
	if left, _ := got["left"].(map[string]any); left["threshold"] != 2.0 {
		t.Errorf("threshold: %v", got)
	}

	// A document that cannot be read says why, and the version before stays.
	bad, media := form(t, [3]string{"file", "birds.txt", "\xff\xfe\xfd"[1:] + "\xff broken"})
	a.process(a.do(call{method: "POST", path: documents, body: bad, media: media}).want(http.StatusAccepted).object())
	if d := a.do(call{path: documents + "/2"}).want(http.StatusOK).object(); d["status"] != "failed" || !strings.Contains(fmt.Sprint(d["error"]), "not UTF-8") || d["version"] != 1.0 {
		t.Errorf("broken: %v", d)
	}
	if p := first(""); p["documentName"] != "birds.txt" {
		t.Errorf("after a broken version: %v", p)
	}
	if list, _ := a.do(call{path: documents + "?status=failed"}).want(http.StatusOK).object()["items"].([]any); len(list) != 1 {
		t.Errorf("failed: %v", list)
	}

	a.do(call{method: "DELETE", path: documents + "/2"}).want(http.StatusNoContent)
	if p := first(""); p["documentName"] == "birds.txt" {
		t.Error("a removed document was found")
	}
	a.do(call{method: "PUT", path: repositories + "/1", body: `{"name":"ocean"}`}).want(http.StatusOK)
	var list struct{ Items []struct{ Name string } }
	a.do(call{path: repositories}).want(http.StatusOK).decode(&list)
	if len(list.Items) != 1 || list.Items[0].Name != "ocean" {
		t.Errorf("listed: %v", list)
	}
	a.do(call{method: "DELETE", path: repositories + "/1"}).want(http.StatusNoContent)
	a.do(call{path: repositories + "/1"}).want(http.StatusNotFound)
}

// Whoever sends too much is told how much may be sent.
func TestUploadTooLarge(t *testing.T) {
	t.Parallel()
	for most, want := range map[int64]string{
		1000:            "A body may have up to 1000 bytes.",
		3 << 20:         "A body may have up to 3145728 bytes (3 MiB).",
		1<<20 + 629_146: "A body may have up to 1677722 bytes (1.6 MiB).",
		1<<20 + 99_000:  "A body may have up to 1147576 bytes (1 MiB).",
	} {
		a := newAPI(t, setup{config: func(c *httpapi.Config) { c.MaxUpload = most }})
		a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
		body, media := form(t, [3]string{"file", "a.txt", strings.Repeat("a", int(most))})
		answer := a.do(call{method: "POST", path: repositories + "/1/documents", media: media, body: body}).want(http.StatusRequestEntityTooLarge)
		if got := answer.object()["detail"]; got != want {
			t.Errorf("with %d bytes: %q, want %q", most, got, want)
		}
	}
}

// Who sends so many parts that hardly anything else is read is stopped.
func TestTooManyParts(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	body, media := form(t, slices.Repeat([][3]string{{"x", "", ""}}, 1001)...)
	a.do(call{method: "POST", path: repositories + "/1/documents", media: media, body: body}).want(http.StatusBadRequest)
}

// What is being sent is bounded, all together, and makes room when it has ended.
func TestUploadsHaveRoom(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{config: func(c *httpapi.Config) { c.MaxUpload = 1000 }})
	a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	const body = `{"name":"a.txt","text":"Pelicans eat fish."}`
	send := func() answer {
		return a.do(call{method: "POST", path: repositories + "/1/documents", body: body})
	}
	others := int64(8*1000 - len(body) + 1)
	a.server.HoldUploads(others)
	for range 2 {
		if res := send().want(http.StatusServiceUnavailable); res.header.Get("Retry-After") == "" || !strings.Contains(string(res.body), "too_many_uploads") {
			t.Errorf("%v: %s", res.header, res.body)
		}
	}
	// So is what was not announced.
	req := a.request(call{method: "POST", path: repositories + "/1/documents", body: body})
	req.ContentLength = -1
	a.send(req).want(http.StatusServiceUnavailable)
	a.server.HoldUploads(-1)
	send().want(http.StatusAccepted)
	if held := a.server.HoldUploads(0); held != others-1 {
		t.Errorf("%d bytes are held, not the %d of others", held, others-1)
	}
}

// Who sends thousands of wrong parts gets no answer that is larger than the request.
func TestManyProblems(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	unknown := make([][3]string, 200)
	for i := range unknown {
		unknown[i] = [3]string{"x" + strconv.Itoa(i), "", ""}
	}
	body, media := form(t, unknown...)
	got := a.do(call{method: "POST", path: repositories + "/1/documents", media: media, body: body}).want(http.StatusUnprocessableEntity).body
	if !strings.Contains(string(got), "201 problems, the first 100 listed in errors.") || strings.Count(string(got), `"pointer"`) != 100 {
		t.Errorf("%d bytes: %.300s", len(got), got)
	}
}

// A name is one line that is shown in the order in which it is written, wherever names
// come from; a text may be anything.
func TestNamesRefused(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	documents := repositories + "/1/documents"
	for _, bad := range []string{"\n", "\r", "\t", "\x01", "\x1b", "\x7f", "\u0085", "\u009b", "\u2028", "\u2029", "\u202a", "\u202e", "\u2066", "\u2069"} {
		name := "report" + bad + "fdp.exe"
		quoted, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		body, media := form(t, [3]string{"file", "a.txt", "a"}, [3]string{"name", "", name})
		for what, c := range map[string]call{
			"a repository":         {method: "POST", path: repositories, body: `{"name":` + string(quoted) + `,"embeddingModel":"test/words"}`},
			"a repository renamed": {method: "PUT", path: repositories + "/1", body: `{"name":` + string(quoted) + `}`},
			"a text":               {method: "POST", path: documents, body: `{"name":` + string(quoted) + `,"text":"a"}`},
			"an address":           {method: "POST", path: documents, body: `{"name":` + string(quoted) + `,"url":"https://example.com/"}`},
			"a form":               {method: "POST", path: documents, media: media, body: body},
		} {
			got := a.do(c).want(http.StatusUnprocessableEntity).object()
			list, _ := got["errors"].([]any)
			if len(list) != 1 {
				t.Fatalf("%s named %q: %v", what, name, got)
			}
			if e, _ := list[0].(map[string]any); e["pointer"] != "/name" || e["code"] != "invalid" {
				t.Errorf("%s named %q: %v", what, name, e)
			}
		}
	}
	for _, good := range []string{"דוח.txt", "تقرير ۲۰۲۶.pdf", "報告書.md", "re\u0301sume\u0301.txt", "👩\u200d🔬.md"} {
		body, media := form(t, [3]string{"file", "a.txt", "Tides \u202efollow\u202c\n\u2028 the moon."}, [3]string{"name", "", good})
		if d := a.do(call{method: "POST", path: documents, media: media, body: body}).want(http.StatusAccepted).object(); d["name"] != good {
			t.Errorf("%q became %v", good, d["name"])
		}
	}
}

// Documents are listed in the order in which they came, page by page; a new version
// keeps the place of its document.
func TestDocumentsInOrder(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	documents := repositories + "/1/documents"
	for i, name := range []string{"b", "c", "a", "b"} {
		a.process(a.do(call{method: "POST", path: documents, body: fmt.Sprintf(`{"name":%q,"text":"Tides %d."}`, name, i)}).want(http.StatusAccepted).object())
	}
	var names []string
	for query := "?limit=2"; query != ""; {
		page := a.do(call{path: documents + query}).want(http.StatusOK).object()
		items, _ := page["items"].([]any)
		for _, item := range items {
			d, _ := item.(map[string]any)
			names = append(names, fmt.Sprint(d["name"]))
		}
		query = ""
		if next, ok := page["nextCursor"].(string); ok {
			query = "?limit=2&cursor=" + next
		}
	}
	if got := strings.Join(names, " "); got != "b c a" {
		t.Errorf("listed %s", got)
	}
}

// Bad input is refused with the place that is wrong.
func TestRepositoriesRefuse(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{config: func(c *httpapi.Config) { c.MaxUpload = 1000 }})
	a.do(call{method: "POST", path: repositories, body: `{"name":"sea","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	const documents = repositories + "/1/documents"
	noFile, noFileMedia := form(t, [3]string{"name", "", "x"})
	empty, emptyMedia := form(t, [3]string{"file", "a.txt", ""})
	twice, twiceMedia := form(t, [3]string{"file", "a.txt", "a"}, [3]string{"file", "b.txt", "b"})
	for _, tt := range []struct {
		method, path, media, body string
		status                    int
		want                      string
	}{
		{"POST", repositories, "", `{"name":"x","embeddingModel":"test/nothing"}`, 422, "/embeddingModel"},
		{"POST", repositories, "", `{"name":"x","embeddingModel":"test/broken"}`, 422, "/embeddingModel"},
		{"POST", repositories, "", `{"name":"x","embeddingModel":"test/words","dimensions":63}`, 422, "/dimensions"},
		{"POST", repositories, "", `{"name":"x","embeddingModel":"test/words","dimensions":0}`, 422, "/dimensions"},
		{"POST", repositories, "", `{"name":"x","embeddingModel":"test/words","language":"klingon"}`, 422, "/language"},
		{"POST", repositories, "", `{"name":"x","embeddingModel":"test/words","language":"a';--"}`, 422, "/language"},
		{"POST", repositories, "", `{"name":"x","embeddingModel":"test/words","chunkTokens":20,"chunkOverlap":11}`, 422, "/chunkOverlap"},
		{"POST", repositories, "", `{"name":" ","embeddingModel":"test/words","colour":1}`, 422, "/colour"},
		{"POST", repositories, "", `{"name":"sea","embeddingModel":"test/words"}`, 409, "repository_exists"},
		{"POST", repositories, "", `[]`, 422, "must be an object"},
		{"PUT", repositories + "/1", "", `{"name":"sea","embeddingModel":"test/other"}`, 422, "/embeddingModel"},
		{"PUT", repositories + "/1", "", `{"name":"sea","dimensions":3}`, 422, "/dimensions"},
		{"PUT", repositories + "/9", "", `{"name":"x","embeddingModel":"test/words"}`, 404, "repository_not_found"},
		{"PUT", repositories + "/9", "", `{"name":"x"}`, 404, "repository_not_found"},
		{"DELETE", repositories + "/9", "", "", 404, "repository_not_found"},
		{"GET", repositories + "/x", "", "", 404, "repository_not_found"},
		{"GET", repositories + "/9/documents", "", "", 404, "repository_not_found"},
		{"GET", documents + "?status=lost", "", "", 400, "invalid_parameter"},
		{"GET", documents + "/9", "", "", 404, "document_not_found"},
		{"DELETE", documents + "/x", "", "", 404, "document_not_found"},
		{"POST", repositories + "/9/documents", "", `{"name":"a","text":"b"}`, 404, "repository_not_found"},
		{"POST", documents, "", `{"name":"a","text":" \n"}`, 422, "/text"},
		{"POST", documents, "", `{"name":"a\nb","text":"c"}`, 422, "/name"},
		{"POST", documents, "", `{"url":"file:///etc/passwd"}`, 422, "/url"},
		{"POST", documents, "", `{"url":"http://user:secret@example.com/"}`, 422, "/url"},
		{"POST", documents, "", `{"url":"https://example.com/","text":"x"}`, 422, "/text"},
		{"POST", documents, "", `{"url":"https://example.com/` + strings.Repeat("a", 300) + `"}`, 422, "/name"},
		{"GET", documents + "/9/events", "", "", 404, "document_not_found"},
		{"POST", documents, "", `{"name":"a","text":"nul \u0000"}`, 400, "NUL"},
		{"POST", documents, "", "{\"name\":\"a\",\"text\":\"\xff\"}", 400, "UTF-8"},
		{"POST", documents, "", `{"name":"a","text":"b","metadata":[]}`, 422, "/metadata"},
		{"POST", documents, "", `{"name":"a","text":"` + strings.Repeat("b", 1000) + `"}`, 413, "1000 bytes"},
		{"POST", documents, "text/plain", `words`, 415, "multipart/form-data"},
		{"POST", documents, "multipart/form-data", `words`, 400, "malformed_body"},
		{"POST", documents, "multipart/form-data; boundary=x", "--x\r\n", 400, "malformed_body"},
		{"POST", documents, noFileMedia, noFile, 422, "/file"},
		{"POST", documents, emptyMedia, empty, 422, "/file"},
		{"POST", documents, twiceMedia, twice, 422, "stands twice"},
		{"POST", repositories + "/search", "", `{"repositories":[1,9],"query":"x"}`, 404, "id 9"},
		{"POST", repositories + "/search", "", `{"repositories":[],"query":"x"}`, 422, "/repositories"},
		{"POST", repositories + "/search", "", `{"repositories":[1],"query":" "}`, 422, "/query"},
		{"POST", repositories + "/search", "", `{"repositories":[1],"query":"x","search":"magic"}`, 422, "/search"},
		{"POST", repositories + "/search", "", `{"repositories":[1],"query":"x","threshold":1.5,"limit":101,"filter":[]}`, 422, "/threshold"},
	} {
		got := a.do(call{method: tt.method, path: tt.path, media: tt.media, body: tt.body})
		if got.status != tt.status || !strings.Contains(string(got.body), tt.want) {
			t.Errorf("%s %s %.60s: %d, want %d with %q: %s", tt.method, tt.path, tt.body, got.status, tt.status, tt.want, got.body)
		}
	}
	// What is announced as a gigabyte is refused before it is sent.
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(a.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // refused before anything was written
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", documents, 1<<30); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a gigabyte: %d", res.StatusCode)
	}
	if list, _ := a.do(call{path: documents}).want(http.StatusOK).object()["items"].([]any); len(list) != 0 {
		t.Errorf("stored: %v", list)
	}
}
