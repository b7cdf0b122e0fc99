package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/egress"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// site is a web server with one page.
type site struct {
	*httptest.Server
	mu     sync.Mutex
	text   string
	media  string
	status int
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	s.show("The tide rises.")
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set("Content-Type", s.media)
		w.WriteHeader(s.status)
		_, _ = fmt.Fprint(w, s.text)
	}))
	t.Cleanup(s.Close)
	return s
}

// show changes the page.
func (s *site) show(text string) { s.set(text, "text/plain", http.StatusOK) }

func (s *site) set(text, media string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text, s.media, s.status = text, media, status
}

// fetcher fetches from this machine, as a server does that is allowed to.
type fetcher struct{ *egress.Fetcher }

func (f fetcher) Fetch(ctx context.Context, address string) (string, []byte, error) {
	got, err := f.Fetcher.Fetch(ctx, address)
	if err != nil {
		return "", nil, &knowledge.FetchError{Reason: err.Error()}
	}
	return got.MediaType, got.Data, nil
}

func local() fetcher {
	return fetcher{egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Most: 1 << 20})}
}

// queue adds an address, which is not fetched yet.
func (l *library) queue(repository int64, address, metadata string) knowledge.Document {
	l.t.Helper()
	u := knowledge.Upload{Name: "page.txt", URL: address}
	if metadata != "" {
		u.Metadata = []byte(metadata)
	}
	d, unchanged, err := l.SaveUpload(l.t.Context(), repository, u)
	if err != nil || unchanged {
		l.t.Fatalf("queued: %v, %v", unchanged, err)
	}
	return d
}

// work processes a version until nothing is left to be done.
func (l *library) work(d knowledge.Document) knowledge.Document {
	l.t.Helper()
	if again, err := l.ingester.Process(l.t.Context(), d.ID, d.Uploaded); err != nil || again {
		l.t.Fatalf("processed version %d: %v, %v", d.Uploaded, again, err)
	}
	return l.document(d)
}

// stored is everything that is kept of documents but for the documents themselves.
func (l *library) stored() []string {
	l.t.Helper()
	return list(l.t, l.url, `SELECT concat_ws(' ', c.id, c.version, c.ordinal, c.text, v.space_id, v.xmin, v.embedding)
		FROM chunks c LEFT JOIN chunk_vectors v ON v.chunk_id = c.id ORDER BY c.id`)
}

// What is at an address is stored only where it differs from what searches see.
func TestFetchedAgain(t *testing.T) {
	t.Parallel()
	const first = "The tide rises."
	for name, tt := range map[string]struct {
		between   func(l *library, s *site, r int64) // the first fetch and the last
		metadata  string
		unchanged bool
	}{
		"the same":         {unchanged: true},
		"other content":    {between: func(_ *library, s *site, _ int64) { s.show("The tide falls.") }},
		"other metadata":   {metadata: `{"k": 1}`},
		"other media type": {between: func(_ *library, s *site, _ int64) { s.set(first, "text/markdown", http.StatusOK) }},
		"the same after a failure": {unchanged: true, between: func(l *library, s *site, r int64) {
			s.set("", "text/plain", http.StatusNotFound)
			if d := l.work(l.queue(r, s.URL, "")); d.Status != knowledge.StatusFailed || d.Version != 1 || d.Uploaded != 2 {
				l.t.Errorf("not found: %+v", d)
			}
			s.show(first)
		}},
		"the same while another version is made": {unchanged: true, between: func(l *library, s *site, r int64) {
			s.show("The tide falls.")
			d := l.queue(r, s.URL, "")
			broken := l.ingester.Store
			l.ingester.Store = &cutting{IngestStore: l.Store, left: 4} // its passages are stored, their vectors are not
			if _, err := l.ingester.Process(l.t.Context(), d.ID, d.Uploaded); err == nil {
				l.t.Error("it was not cut off")
			}
			l.ingester.Store = broken
			if n := l.count("SELECT count(*) FROM chunks WHERE version = 2"); n != 1 {
				l.t.Errorf("%d passages", n)
			}
			s.show(first)
		}},
		"what another version failed with": {between: func(l *library, s *site, r int64) {
			s.show(" ")
			if d := l.work(l.queue(r, s.URL, "")); d.Status != knowledge.StatusFailed {
				l.t.Errorf("empty: %+v", d)
			}
			s.show("\t")
			l.work(l.queue(r, s.URL, ""))
			s.show("The tide falls.")
		}},
		"the same after a text": {between: func(l *library, _ *site, r int64) { l.add(r, "page.txt", "Rivers flow.", "") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, s := newLibrary(t), newSite(t)
			l.ingester.Fetcher = local()
			r := l.repository("docs", "test/a", 8)
			before := l.work(l.queue(r.ID, s.URL, ""))
			if before.Status != knowledge.StatusReady || before.Version != 1 || before.Unchanged {
				t.Fatalf("added: %+v", before)
			}
			stored, embedded := l.stored(), l.embedder.texts
			if tt.between != nil {
				tt.between(l, s, r.ID)
			}
			queued := l.queue(r.ID, s.URL, tt.metadata)
			if queued.Status != knowledge.StatusProcessing || queued.Unchanged || queued.Uploaded <= queued.Version {
				t.Errorf("queued: %+v", queued)
			}
			after := l.work(queued)
			if after.Status != knowledge.StatusReady || after.Unchanged != tt.unchanged || after.Uploaded != after.Version {
				t.Errorf("ended as %+v", after)
			}
			if n := l.count("SELECT count(*) FROM document_uploads"); n != 0 {
				t.Errorf("%d files are left", n)
			}
			l.checkWords()
			if !tt.unchanged {
				if after.Version != queued.Uploaded {
					t.Errorf("version %d, not %d", after.Version, queued.Uploaded)
				}
				return
			}
			after.Unchanged, after.UpdatedAt = false, before.UpdatedAt
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(stored, l.stored()); diff != "" {
				t.Error(diff)
			}
			if name == "the same" && l.embedder.texts != embedded {
				t.Errorf("%d texts were embedded", l.embedder.texts-embedded)
			}
			// The next version that differs is one like any other.
			s.show("The tide falls.")
			next := l.work(l.queue(r.ID, s.URL, ""))
			if next.Status != knowledge.StatusReady || next.Unchanged || next.Version != queued.Uploaded+1 || next.Uploaded != next.Version {
				t.Errorf("the next one: %+v", next)
			}
			if n := l.count("SELECT count(DISTINCT version) FROM chunks"); n != 1 {
				t.Errorf("passages of %d versions", n)
			}
		})
	}
}

// Two who add the same address at once, and jobs that are done twice, leave what one
// would have left.
func TestFetchedAgainAtOnce(t *testing.T) {
	t.Parallel()
	l, s := newLibrary(t), newSite(t)
	l.ingester.Fetcher = local()
	r := l.repository("docs", "test/a", 8)
	before := l.work(l.queue(r.ID, s.URL, ""))
	stored := l.stored()
	for range 10 {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				d, _, err := l.SaveUpload(t.Context(), r.ID, knowledge.Upload{Name: "page.txt", URL: s.URL})
				if err != nil {
					t.Error(err)
				}
				for range 2 {
					wg.Go(func() {
						if again, err := l.ingester.Process(t.Context(), d.ID, d.Uploaded); err != nil || again {
							t.Errorf("version %d: %v, %v", d.Uploaded, again, err)
						}
					})
				}
			})
		}
		wg.Wait()
	}
	after := l.document(before)
	if !after.Unchanged || l.count("SELECT uploaded FROM documents") != 31 {
		t.Errorf("ended as %+v", after)
	}
	after.Unchanged, after.UpdatedAt = false, before.UpdatedAt
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(stored, l.stored()); diff != "" {
		t.Error(diff)
	}
	l.checkWords()
}

// reluctant fetches nothing for a while.
type reluctant struct{ fail error }

func (r *reluctant) Fetch(context.Context, string) (string, []byte, error) {
	return "text/plain", []byte("The tide rises."), r.fail
}

// Why a document waits for another try is told until that goes on.
func TestDelaysAreTold(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	site := &reluctant{fail: &knowledge.FetchError{Reason: "The address answered with status 503.", Passing: true, Err: errors.New("secret.internal")}}
	l.ingester.Fetcher = site
	d := l.queue(r.ID, "http://example.com", "")
	l.save(r.ID, "small.txt", "Rivers flow.", "")
	if n := l.count("SELECT count(*) FROM river_job WHERE priority = CASE args->>'documentId' WHEN '" + fmt.Sprint(d.ID) + "' THEN 2 ELSE 1 END"); n != 2 {
		t.Error("what is to be fetched does not come after what is there")
	}
	try := func(want string) {
		t.Helper()
		_, err := l.ingester.Process(t.Context(), d.ID, d.Uploaded)
		if got := l.document(d); err == nil || got.Status != knowledge.StatusProcessing || got.Error != want+" It will be tried again." {
			t.Errorf("%+v, %v", got, err)
		}
	}
	try("The address answered with status 503.")
	site.fail = errors.New("secret.internal")
	try("It could not be processed; the server's log says why.")
	site.fail, l.embedder.fail = nil, llm.NewError(llm.CodeUnavailable, nil)
	try("The text could not be embedded: " + llm.NewError(llm.CodeUnavailable, nil).Message)
	l.embedder.fail = nil
	if got := l.work(d); got.Status != knowledge.StatusReady || got.Error != "" {
		t.Errorf("in the end %+v", got)
	}
}
