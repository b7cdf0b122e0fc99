package httpapi_test

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
)

func TestEventPages(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	s.write(whole()...)
	base := "/api/v1/executions/" + strconv.FormatInt(s.id, 10) + "/events"
	for query, want := range map[string]struct {
		ids  []int64
		next string
	}{
		"":                            {[]int64{1, 2, 3, 4, 5, 6, 7}, ""},
		"?limit=3":                    {[]int64{1, 2, 3}, "3"},
		"?limit=3&after=3":            {[]int64{4, 5, 6}, "6"},
		"?after=7":                    {nil, ""},
		"?type=progress,prompt-start": {[]int64{2, 6}, ""},
		"?type=prompt-start&type=prompt-complete&limit=1": {[]int64{2}, "2"},
	} {
		var page struct {
			Items []struct {
				ID    int64
				Event string
				Data  struct{ Seq int64 }
			}
			NextCursor string
		}
		s.do(call{method: "GET", path: base + query}).want(http.StatusOK).decode(&page)
		var ids []int64
		for _, e := range page.Items {
			ids = append(ids, e.ID)
			if e.Data.Seq != e.ID || e.Event == "" {
				t.Errorf("%s: %+v", query, e)
			}
		}
		if diff := cmp.Diff(want.ids, ids); diff != "" || page.NextCursor != want.next {
			t.Errorf("%s: next %q: %s", query, page.NextCursor, diff)
		}
	}
}

func TestDownloads(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	s.write(whole()...)
	base := "/api/v1/executions/" + strconv.FormatInt(s.id, 10) + "/events"
	for name, c := range map[string]struct{ query, accept string }{
		"log.ndjson": {"", "application/x-ndjson"}, "log.csv": {"", "text/csv"}, "part.ndjson": {"?after=4&type=progress", "application/x-ndjson"},
	} {
		got := s.do(call{method: "GET", path: base + c.query, header: map[string]string{"Accept": c.accept}}).want(http.StatusOK)
		golden(t, name, string(got.body))
		if !strings.HasPrefix(got.header.Get("Content-Disposition"), `attachment; filename="execution-`) {
			t.Errorf("%s: %v", name, got.header)
		}
		s.do(call{method: "HEAD", path: base + c.query, header: map[string]string{"Accept": c.accept}}).want(http.StatusOK)
	}
}

// A download of any length reads one page at a time and sends it on before it
// reads the next.
func TestDownloadsStream(t *testing.T) {
	t.Parallel()
	const size, most = 5000, 500
	data := []byte(`{"text": "` + strings.Repeat("x", 400) + `"}`)
	for _, accept := range []string{"application/x-ndjson", "text/csv"} {
		t.Run(accept, func(t *testing.T) {
			t.Parallel()
			read := make(chan struct{}) // one token: a page has reached the client
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			store := &scriptedStore{head: events.Head{LastSeq: size}, rows: func(after int64, limit int) ([]events.Record, error) {
				if limit > most {
					return nil, errors.New("more than a page was asked for")
				}
				if after > 0 && after%most == 0 {
					select {
					case <-read:
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				var list []events.Record
				for seq := after + 1; seq <= size && len(list) < limit; seq++ {
					list = append(list, events.Record{Seq: seq, Type: events.TypePromptDelta, Data: data, Time: time.Unix(seq, 0)})
				}
				return list, nil
			}}
			a := newFake(t, store, nil)
			res, err := a.client.Do(a.request(call{method: "GET", path: "/api/v1/executions/1/events", header: map[string]string{"Accept": accept}}))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			lines := bufio.NewReader(res.Body)
			n := 0
			for {
				line, err := lines.ReadString('\n')
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("after %d lines: %v", n, err)
				}
				if accept == "text/csv" && n == 0 && strings.HasPrefix(line, "id,") {
					continue
				}
				n++
				if n%most == most/2 && n < size { // half a page is here, the rest follows
					select {
					case read <- struct{}{}:
					case <-ctx.Done():
					}
				}
				want := `{"id": ` + strconv.Itoa(n) + `, `
				if accept == "text/csv" {
					want = strconv.Itoa(n) + ","
				}
				if !strings.HasPrefix(line, want) {
					t.Fatalf("line %d: %.60s", n, line)
				}
			}
			if n != size {
				t.Errorf("%d lines", n)
			}
		})
	}
}

// A log that cannot be read to its end must not look complete.
func TestBrokenDownload(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]func(after int64, limit int) ([]events.Record, error){
		"error": func(after int64, limit int) ([]events.Record, error) {
			if after >= 500 {
				return nil, errors.New("the disk is gone")
			}
			return progress(after, limit, 0), nil
		},
		"hole": func(after int64, limit int) ([]events.Record, error) { return progress(after, limit, 700), nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newFake(t, &scriptedStore{head: events.Head{LastSeq: 2000}, rows: rows}, nil)
			res, err := a.client.Do(a.request(call{method: "GET", path: "/api/v1/executions/1/events", header: map[string]string{"Accept": "application/x-ndjson"}}))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d bytes and %v", len(body), err)
			}
		})
	}
}

// progress answers events with one that is missing.
func progress(after int64, limit int, missing int64) []events.Record {
	var list []events.Record
	for seq := after + 1; len(list) < limit; seq++ {
		if seq != missing {
			list = append(list, events.Record{Seq: seq, Type: events.TypeProgress, Data: []byte(`{}`)})
		}
	}
	return list
}

// Both downloads can be read back.
func TestDownloadsRoundTrip(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	s.write(whole()...)
	base := "/api/v1/executions/" + strconv.FormatInt(s.id, 10) + "/events"
	var fromNDJSON, fromCSV []string
	lines := s.do(call{method: "GET", path: base, header: map[string]string{"Accept": "application/x-ndjson"}}).body
	for line := range strings.Lines(string(lines)) {
		var e struct {
			ID    int64
			Event events.Type
			Data  json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		fromNDJSON = append(fromNDJSON, string(events.NewFrame(e.ID, e.Event, e.Data).Wire()))
	}
	rows, err := csv.NewReader(strings.NewReader(string(s.do(call{method: "GET", path: base, header: map[string]string{"Accept": "text/csv"}}).body))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		id, err := strconv.ParseInt(row[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		fromCSV = append(fromCSV, string(events.NewFrame(id, events.Type(row[1]), []byte(row[6])).Wire()))
	}
	if diff := cmp.Diff(s.table(), fromNDJSON); diff != "" {
		t.Error("NDJSON", diff)
	}
	if diff := cmp.Diff(s.table(), fromCSV); diff != "" {
		t.Error("CSV", diff)
	}
}
