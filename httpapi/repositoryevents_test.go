package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/knowledge"
)

// looks counts the questions about changes.
type looks struct {
	httpapi.Store
	n      atomic.Int64
	looked chan struct{} // takes one for each, when somebody waits
}

func (l *looks) Changes(ctx context.Context, repository int64, after string, limit int) (knowledge.Changes, error) {
	l.n.Add(1)
	select {
	case l.looked <- struct{}{}:
	default:
	}
	return l.Store.Changes(ctx, repository, after, limit)
}

// change is an event about a document.
type change struct {
	event, id string
	document  int64
	name      string
	status    string
}

func (f *feed) change() (c change) {
	f.t.Helper()
	for {
		b := f.block()
		if b == "" {
			return c
		}
		if c.event = field(b, "event"); c.event == "" {
			continue
		}
		var d struct {
			ID           int64
			Name, Status string
		}
		if err := json.Unmarshal([]byte(field(b, "data")), &d); err != nil {
			f.t.Fatalf("%q: %v", b, err)
		}
		c.id, c.document, c.name, c.status = field(b, "id"), d.ID, d.Name, d.Status
		return c
	}
}

// until reads up to the state of a document, and answers the last id.
func (f *feed) until(event string, document int64, status string) (id string, passed []change) {
	f.t.Helper()
	for {
		c := f.change()
		if c.event == "" {
			f.t.Fatalf("the stream ended before %s of %d; it had %v", event, document, passed)
		}
		if c.id != "" {
			id = c.id
		}
		passed = append(passed, c)
		if c.event == event && c.document == document && c.status == status {
			return id, passed
		}
	}
}

// Whoever follows a repository sees what becomes of its documents, and after a break
// what has happened meanwhile, even what was committed late.
func TestRepositoryEvents(t *testing.T) {
	t.Parallel()
	counting := &looks{looked: make(chan struct{})}
	a := newAPI(t, setup{config: func(c *httpapi.Config) { counting.Store, c.Store = c.Store, counting }})
	a.do(call{method: http.MethodPost, path: repositories, body: `{"name":"docs","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	add := func(name string) (document int64) {
		t.Helper()
		d := a.do(call{method: http.MethodPost, path: repositories + "/1/documents", body: fmt.Sprintf(`{"name":%q,"text":"The tide of %s."}`, name, name)}).object()
		id, _ := d["id"].(float64)
		return int64(id)
	}
	ready := func(document int64) {
		t.Helper()
		a.process(map[string]any{"id": float64(document), "uploadedVersion": float64(1)})
	}
	const path = repositories + "/1/events"
	// Of an empty repository too there is an id to go on from, in an event: some clients keep
	// no id that comes without one.
	f := a.open(call{path: path})
	empty := f.change()
	if empty.event != "documents-unchanged" || empty.id == "" {
		t.Fatalf("an empty repository began with %+v", empty)
	}
	f.close()
	first := add("first.txt")
	ready(first)
	f = a.open(call{path: path, header: map[string]string{"Last-Event-ID": empty.id}})
	f.until("document", first, "ready")
	f.close()
	f = a.open(call{path: path})
	if c := f.change(); c.document != first || c.status != "ready" || c.event != "document" || c.id == "" {
		t.Fatalf("it began with %+v", c)
	}
	second, third := add("second.txt"), add("third.txt")
	ready(second)
	f.until("document", second, "ready")

	// A transaction that began before what the client has seen, and commits when it is away.
	sql := pgtest.Session(t, a.database)
	sql("BEGIN", fmt.Sprintf("UPDATE documents SET progress = 50, updated_at = clock_timestamp() WHERE id = %d", third))
	fourth := add("fourth.txt")
	ready(fourth)
	last, _ := f.until("document", fourth, "ready")
	f.close()
	sql("COMMIT")
	if res := a.do(call{method: http.MethodDelete, path: fmt.Sprintf("%s/1/documents/%d", repositories, first)}); res.status != http.StatusNoContent {
		t.Fatal(res.status)
	}
	f = a.open(call{path: path, header: map[string]string{"Last-Event-ID": last}})
	_, passed := f.until("document-deleted", first, "")
	late := false
	for _, c := range passed {
		late = late || c.document == third
		if c.document == second {
			t.Errorf("sent again: %+v", c)
		}
	}
	if !late {
		t.Errorf("what was committed late is not among %v", passed)
	}
	// Live again, on the same stream.
	ready(third)
	last, _ = f.until("document", third, "ready")

	// Many who follow it cost as much as one.
	for range 20 {
		a.open(call{path: path, header: map[string]string{"Last-Event-ID": last}})
	}
	<-counting.looked
	before := counting.n.Load()
	for range 3 {
		<-counting.looked
	}
	if n := counting.n.Load() - before; n > 4 {
		t.Errorf("%d questions in three ticks", n)
	}

	// An id that is too old, or of another database, says so; one that is none is refused.
	for _, old := range []string{"1:1:-1", fmt.Sprintf("99999999999:99999999999:-%s", strings.SplitN(last, "-", 2)[1])} {
		f := a.open(call{path: path, header: map[string]string{"Last-Event-ID": old}})
		if c := f.change(); c.event != "documents-reset" {
			t.Errorf("%s: it began with %+v", old, c)
		}
		if _, passed := f.until("document", third, "ready"); len(passed) != 3 {
			t.Errorf("%s: then came %v", old, passed)
		}
		f.close()
	}
	for header, want := range map[string]int{"x": 400, "-1-1": 400, "7": 400, "7-1": 400, "0:1:-1": 400, "7:6:-1": 400, "7:9:9-1": 400, "7:9:8,7-1": 400, "7:9:8,-1": 400, "7:9:8:-1": 400} {
		if res := a.do(call{path: path, header: map[string]string{"Last-Event-ID": header}}); res.status != want {
			t.Errorf("%q: %d", header, res.status)
		}
	}
	if res := a.do(call{path: repositories + "/9/events"}); res.status != http.StatusNotFound {
		t.Errorf("no repository: %d", res.status)
	}
	a.do(call{method: http.MethodDelete, path: repositories + "/1"})
	for c := f.change(); c.event != ""; c = f.change() {
		t.Logf("before the end: %+v", c)
	}
}

// Everybody ends with the last state of every document, however many change at once and
// however slowly one reads.
func TestRepositoryEventsOfMany(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.do(call{method: http.MethodPost, path: repositories, body: `{"name":"docs","embeddingModel":"test/words"}`}).want(http.StatusCreated)
	sql := pgtest.Session(t, a.database)
	const insert = `INSERT INTO documents (repository_id, name, bytes, content_hash, progress) SELECT 1, 'd' || n, 1, '', 0 FROM generate_series(%d, %d) n`
	const documents = 2500 // more than are kept in memory
	sql(fmt.Sprintf(insert, 1, 10))
	var readers sync.WaitGroup
	for range 3 {
		f := a.open(call{path: repositories + "/1/events"})
		begun := f.change() // it is there
		readers.Go(func() {
			ready := make(map[int64]bool)
			for c := begun; ; c = f.change() {
				if c.event == "" {
					t.Errorf("the stream ended with %d documents", len(ready))
					return
				}
				if ready[c.document] && c.status != "ready" {
					t.Errorf("document %d was ready, and is %s", c.document, c.status)
				}
				if c.status == "ready" {
					ready[c.document] = true
				}
				if len(ready) == documents {
					return
				}
			}
		})
	}
	sql(fmt.Sprintf(insert, 11, documents))
	for from := 1; from <= documents; from += 500 {
		sql(fmt.Sprintf("UPDATE documents SET status = 'ready', updated_at = clock_timestamp() WHERE id BETWEEN %d AND %d", from, from+499))
	}
	done := make(chan struct{})
	go func() { readers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("not all have seen all")
	}
}
