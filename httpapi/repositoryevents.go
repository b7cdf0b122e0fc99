package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/knowledge"
)

const (
	// mostDocuments bounds what a stream begins with that does not say where to go on,
	// and what is kept in memory of one repository for its readers.
	mostDocuments = 1000
	// documentPage is how many documents are read at a time.
	documentPage = 100
)

// repositoryEvents is GET /api/v1/repositories/{id}/events: the states of the documents of a
// repository as they change. Each event is a whole state, so that of several changes only
// the last one has to come; the id of an event says from where on the next stream has
// to look.
func (s *Server) repositoryEvents(c echo.Context) error {
	repository, err := repositoryID(c)
	if err != nil {
		return err
	}
	place := s.streams.take(s.cfg.MaxStreams)
	if place == nil {
		return s.later(c, busyRetry)
	}
	defer place.leave()
	ctx := c.Request().Context()
	f := s.feeds.join(s, repository)
	defer s.feeds.leave(repository)
	w := documentStream{server: s, feed: f, repository: repository, last: c.Request().Header.Get("Last-Event-ID"), shown: make(map[int64]time.Time)}
	begin, err := w.look(ctx)
	if errors.Is(err, knowledge.ErrCursor) {
		return &problem{kind: kindBadCursor, detail: "Last-Event-ID is none of this stream.", cause: err}
	}
	if err != nil {
		return err
	}
	rc := http.NewResponseController(c.Response().Writer)
	if err := unhurried(rc); err != nil {
		return err
	}
	streamHeader(c.Response())
	if c.Request().Method == http.MethodHead {
		return nil
	}
	w.out = newResponseWriter(c.Response(), rc, s.cfg.StreamWrite)
	if _, err := w.out.Write(retryFrame(streamRetry, "the states of the documents of a repository; reconnect with Last-Event-ID")); err != nil {
		return ignoreGone(err)
	}
	return ignoreGone(w.run(ctx, begin))
}

// documentStream is one reader of the changes of a repository.
type documentStream struct {
	server     *Server
	feed       *feed
	repository int64
	out        *responseWriter
	last       string              // id that was sent, or that the client came with
	place      int64               // in the feed
	shown      map[int64]time.Time // which states were sent that did not come from the feed
}

// look asks for the changes since the last id, or for what there is. What the feed has
// from then on is newer.
func (w *documentStream) look(ctx context.Context) (knowledge.Changes, error) {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	changes, err := w.server.cfg.Store.Changes(ctx, w.repository, w.last, mostDocuments)
	if err != nil {
		return changes, err
	}
	w.place = w.feed.newest
	if w.feed.cursor == "" {
		w.feed.cursor = changes.Cursor // it begins here
	}
	return changes, nil
}

// run serves until the client leaves, the server drains or the repository is gone.
func (w *documentStream) run(ctx context.Context, changes knowledge.Changes) error {
	if err := w.begin(ctx, changes); err != nil {
		return err
	}
	heartbeat := time.NewTicker(w.server.cfg.Heartbeat)
	defer heartbeat.Stop()
	for {
		news := w.feed.after(w.place)
		switch {
		case news.gone:
			return nil // whoever comes back is told
		case news.behind:
			changes, err := w.look(ctx)
			if err == nil {
				err = w.begin(ctx, changes)
			}
			if err != nil {
				return nil // it goes on from its last id
			}
			continue
		}
		if err := w.show(news); err != nil {
			return err
		}
		select {
		case <-news.wake:
		case <-heartbeat.C:
			if _, err := w.out.Write(heartbeatComment); err != nil {
				return err
			}
			if err := w.out.Flush(); err != nil {
				return err
			}
		case <-w.server.leaving:
			return nil // the client reconnects, to another server
		case <-ctx.Done():
			return nil
		}
	}
}

// begin sends changes that were looked for. Their id comes with the last one: a stream
// that breaks off before sends them again.
func (w *documentStream) begin(ctx context.Context, changes knowledge.Changes) error {
	clear(w.shown)
	var held *entry // until it is known whether it is the last one
	hold := func(e *entry) error {
		before := held
		held = e
		if before == nil {
			return nil
		}
		return w.send(*before, "")
	}
	if changes.Anew {
		held = &entry{event: "documents-reset", data: map[string]int64{"repositoryId": w.repository}}
	}
	for page := range slices.Chunk(changes.Documents, documentPage) {
		documents, err := w.server.cfg.Store.DocumentsOf(ctx, w.repository, idsOf(page))
		if err != nil {
			return err
		}
		for _, e := range entriesOf(w.repository, page, documents) {
			w.shown[e.document] = e.updated
			if err := hold(&e); err != nil {
				return err
			}
		}
	}
	w.last = changes.Cursor
	if held == nil {
		// Browsers keep an id without an event, clients from npm do not.
		held = &entry{event: "documents-unchanged", data: map[string]int64{"repositoryId": w.repository}}
	}
	if err := w.send(*held, w.last); err != nil {
		return err
	}
	return w.out.Flush()
}

// show sends what the feed has. All but the last one keep the id before.
func (w *documentStream) show(n news) error {
	for i, e := range n.entries {
		if before, ok := w.shown[e.document]; ok && !e.gone && !e.updated.After(before) {
			continue
		}
		id := ""
		if i == len(n.entries)-1 {
			id = n.cursor
		}
		if err := w.send(e, id); err != nil {
			return err
		}
	}
	w.place = n.place
	if len(n.entries) == 0 {
		return nil
	}
	w.last = n.cursor
	return w.out.Flush()
}

func (w *documentStream) send(e entry, id string) error {
	text, err := json.Marshal(e.data)
	if err != nil {
		return fmt.Errorf("write a change of a document: %w", err)
	}
	var frame []byte
	if id != "" {
		frame = fmt.Appendf(frame, "id: %s\n", id)
	}
	_, err = w.out.Write(fmt.Appendf(frame, "event: %s\ndata: %s\n\n", e.event, text))
	return err
}

// entry is the newest state of a document.
type entry struct {
	place    int64 // in the order of changes
	document int64
	updated  time.Time
	gone     bool
	event    string
	data     any
}

// entriesOf answers what became of documents that have changed. Those that are not there
// and not told to be gone will be.
func entriesOf(repository int64, changes []knowledge.Change, documents []knowledge.Document) []entry {
	byID := make(map[int64]knowledge.Document, len(documents))
	for _, d := range documents {
		byID[d.ID] = d
	}
	var entries []entry
	for _, c := range changes {
		if c.Deleted {
			entries = append(entries, entry{document: c.DocumentID, gone: true, event: "document-deleted", data: map[string]int64{"id": c.DocumentID, "repositoryId": repository}})
		} else if d, ok := byID[c.DocumentID]; ok {
			entries = append(entries, entry{document: d.ID, updated: d.UpdatedAt, event: "document", data: documentViewOf(d)})
		}
	}
	return entries
}

func idsOf(changes []knowledge.Change) []int64 {
	var ids []int64
	for _, c := range changes {
		if !c.Deleted {
			ids = append(ids, c.DocumentID)
		}
	}
	return ids
}

// feeds are the repositories that somebody follows.
type feeds struct {
	mu   sync.Mutex
	open map[int64]*feed
}

// feed looks for the changes of a repository, once for all who follow it.
type feed struct {
	stop    context.CancelFunc
	readers int // guarded by feeds

	mu      sync.Mutex
	cursor  string // of what was looked for last; "" until the first reader has looked
	newest  int64  // place of the newest entry
	behind  int64  // place of the newest one that was dropped
	entries []entry
	gone    bool
	wake    chan struct{} // closed when there is more
}

// join answers the feed of a repository.
func (f *feeds) join(s *Server, repository int64) *feed {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = make(map[int64]*feed)
	}
	found := f.open[repository]
	if found == nil {
		ctx, stop := context.WithCancel(context.Background())
		found = &feed{stop: stop, wake: make(chan struct{})}
		f.open[repository] = found
		go found.run(ctx, s, repository)
	}
	found.readers++
	return found
}

// leave ends a feed that nobody reads any more.
func (f *feeds) leave(repository int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := f.open[repository]
	if found.readers--; found.readers == 0 {
		found.stop()
		delete(f.open, repository)
	}
}

// run looks for changes until nobody follows them.
func (f *feed) run(ctx context.Context, s *Server, repository int64) {
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if over := f.look(ctx, s, repository); over {
			return
		}
	}
}

// look notes what has changed. An error is met by the next tick.
func (f *feed) look(ctx context.Context, s *Server, repository int64) (over bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cursor == "" {
		return false
	}
	changes, err := s.cfg.Store.Changes(ctx, repository, f.cursor, mostDocuments)
	if errors.Is(err, knowledge.ErrNotFound) {
		f.gone = true
		f.tell()
		return true
	}
	if err != nil {
		return false
	}
	var found []entry
	for page := range slices.Chunk(changes.Documents, documentPage) {
		documents, err := s.cfg.Store.DocumentsOf(ctx, repository, idsOf(page))
		if err != nil {
			return false
		}
		found = append(found, entriesOf(repository, page, documents)...)
	}
	f.cursor = changes.Cursor
	f.put(found)
	return false
}

// put keeps the newest state of each document, and wakes the readers when there is one
// that was not known.
func (f *feed) put(found []entry) {
	known := make(map[int64]entry, len(f.entries))
	for _, e := range f.entries {
		known[e.document] = e
	}
	fresh := make(map[int64]bool)
	var added []entry
	for _, e := range found {
		if k, ok := known[e.document]; ok && (k.gone || !e.gone && !e.updated.After(k.updated)) {
			continue // transactions that were running are asked for again
		}
		f.newest++
		e.place = f.newest
		fresh[e.document] = true
		added = append(added, e)
	}
	if len(added) == 0 {
		return
	}
	f.entries = append(slices.DeleteFunc(f.entries, func(e entry) bool { return fresh[e.document] }), added...)
	if surplus := len(f.entries) - mostDocuments; surplus > 0 {
		f.behind = f.entries[surplus-1].place
		f.entries = slices.Delete(f.entries, 0, surplus)
	}
	f.tell()
}

// tell wakes the readers.
func (f *feed) tell() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// news is what a reader has not had.
type news struct {
	entries []entry
	cursor  string // that stands for all of them
	place   int64
	behind  bool // some are not kept any more
	gone    bool // the repository is
	wake    <-chan struct{}
}

// after answers what came behind a place.
func (f *feed) after(place int64) news {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := news{cursor: f.cursor, place: f.newest, behind: place < f.behind, gone: f.gone, wake: f.wake}
	for i, e := range f.entries {
		if e.place > place {
			n.entries = slices.Clone(f.entries[i:])
			break
		}
	}
	return n
}
