package httpapi_test

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/pgtest"
)

// A log that retention has removed is 410 in every form; the execution is not.
func TestRemovedEvents(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	s := a.script()
	s.write(whole()...)
	base := "/api/v1/executions/" + strconv.FormatInt(s.id, 10)
	if m := s.do(call{method: "GET", path: base}).want(http.StatusOK).object(); m["eventsRemoved"] != false {
		t.Errorf("before: %v", m["eventsRemoved"])
	}
	pgtest.Session(t, a.database)("INSERT INTO events_removed VALUES (0, 1000, 'events_p000000000000')", "ALTER TABLE events DETACH PARTITION events_p000000000000", "DROP TABLE events_p000000000000")
	for _, path := range []string{s.path(), s.path() + "?after=3", base + "/events", base + "/events?after=2&type=progress"} {
		s.do(call{method: "GET", path: path}).problem(http.StatusGone, "events_gone")
	}
	for _, accept := range []string{"application/x-ndjson", "text/csv"} {
		s.do(call{method: "GET", path: base + "/events", header: map[string]string{"Accept": accept}}).problem(http.StatusGone, "events_gone")
	}
	s.do(call{method: "GET", path: s.path(), header: map[string]string{"Last-Event-ID": "4"}}).problem(http.StatusGone, "events_gone")
	s.do(call{method: "GET", path: s.path() + "?after=7"}).want(http.StatusNoContent)
	if m := s.do(call{method: "GET", path: base}).want(http.StatusOK).object(); m["eventsRemoved"] != true || m["status"] != "completed" {
		t.Errorf("after: %v", m)
	}
	s.do(call{method: "DELETE", path: base}).want(http.StatusNoContent)
	s.do(call{method: "GET", path: base}).problem(http.StatusNotFound, "execution_not_found")
}

// A folded log says where it was folded, and is complete otherwise.
func TestFoldedEvents(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	s := a.script()
	s.write(whole()...)
	s.writer.Close() // and with it the ring, which has what was live
	base := "/api/v1/executions/" + strconv.FormatInt(s.id, 10)
	pgtest.Session(t, a.database)("DELETE FROM events WHERE seq = 3", "UPDATE executions SET folded_at = now(), folded_seqs = '{3,3}'")
	left := s.table()
	if len(left) != 6 {
		t.Fatalf("%d events are left", len(left))
	}
	body := string(s.do(call{method: "GET", path: s.path()}).want(http.StatusOK).body)
	if !strings.Contains(body, left[1]+": folded 3-3\n\n"+left[2]) {
		t.Errorf("the stream:\n%s", body)
	}
	if body := string(s.do(call{method: "GET", path: s.path() + "?deltas=false"}).want(http.StatusOK).body); strings.Contains(body, "folded") {
		t.Errorf("a stream without deltas:\n%s", body)
	}
	if body := string(s.do(call{method: "GET", path: s.path() + "?after=3"}).want(http.StatusOK).body); !strings.Contains(body, left[2]) || strings.Contains(body, "folded") {
		t.Errorf("behind the fold:\n%s", body)
	}
	var page struct {
		Items        []struct{ ID int64 }
		FoldedRanges [][2]int64
	}
	s.do(call{method: "GET", path: base + "/events?after=2"}).want(http.StatusOK).decode(&page)
	if diff := cmp.Diff([][2]int64{{3, 3}}, page.FoldedRanges); diff != "" || len(page.Items) != 4 || page.Items[0].ID != 4 {
		t.Errorf("%+v: %s", page, diff)
	}
	lines := string(s.do(call{method: "GET", path: base + "/events", header: map[string]string{"Accept": "application/x-ndjson"}}).want(http.StatusOK).body)
	if strings.Count(lines, "\n") != 6 {
		t.Errorf("NDJSON:\n%s", lines)
	}
	if m := s.do(call{method: "GET", path: base}).want(http.StatusOK).object(); m["foldedAt"] == nil {
		t.Error("the execution does not say that it was folded")
	}
}

// A download under which the log vanishes does not look complete.
func TestVanishingDownload(t *testing.T) {
	t.Parallel()
	store := &scriptedStore{head: events.Head{LastSeq: 2000}}
	store.rows = func(after int64, limit int) ([]events.Record, error) {
		if after >= 500 {
			store.head.Removed = true
			return nil, nil
		}
		return progress(after, limit, 0), nil
	}
	a := newFake(t, store, nil)
	res, err := a.client.Do(a.request(call{method: "GET", path: "/api/v1/executions/1/events", header: map[string]string{"Accept": "text/csv"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes and %v", len(body), err)
	}
}
