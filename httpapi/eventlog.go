package httpapi

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/events"
)

// downloadRows is how many events a download reads at once; with it the size
// of the log does not matter to the memory of the server.
const downloadRows = 500

// eventEntry is an event in a page, with the members of an NDJSON line.
type eventEntry struct {
	ID    int64           `json:"id"`
	Event events.Type     `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// excerpt selects events of a stored log.
type excerpt struct {
	execution int64
	after     int64
	upto      int64 // the newest event when the request came
	types     []events.Type
	head      events.Head // tells which events were folded away
}

// eventPage is a page of a log.
type eventPage struct {
	list[eventEntry]
	// FoldedRanges are the events of the whole log whose text deltas were folded
	// away, first and last of each range; absent where none was.
	FoldedRanges [][2]int64 `json:"foldedRanges,omitempty"`
}

// listEvents is GET /api/v1/executions/{id}/events: a page as JSON, or, as the
// Accept header asks, the whole log as NDJSON or CSV.
func (s *Server) listEvents(c echo.Context) error {
	id, err := executionID(c)
	if err != nil {
		return err
	}
	q := newQuery(c)
	limit := int(q.whole("limit", 1, 1000, 100))
	after := q.one("after")
	x := excerpt{execution: id, types: q.types("type")}
	if q.err != nil {
		return q.err
	}
	if q.values.Has("after") {
		if x.after, err = events.ParseCursor(after); err != nil {
			return err
		}
	}
	ctx := c.Request().Context()
	ex, err := s.cfg.Store.Execution(ctx, id)
	if err != nil {
		return err
	}
	if x.upto = ex.LastSeq; x.after > x.upto {
		return fmt.Errorf("events of execution %d after %d of %d: %w", id, x.after, x.upto, events.ErrFutureCursor)
	}
	if x.head, err = s.logHead(ctx, x); err != nil {
		return err
	}
	if err := s.present(ctx, x); err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	c.Response().Header().Add(echo.HeaderVary, echo.HeaderAccept)
	switch preferred(c.Request().Header, mediaTypeJSON, mediaTypeNDJSON, mediaTypeCSV) {
	case mediaTypeNDJSON:
		return s.download(c, x, mediaTypeNDJSON, "ndjson", newNDJSON)
	case mediaTypeCSV:
		return s.download(c, x, mediaTypeCSV+"; charset=utf-8; header=present", "csv", newCSV)
	}
	records, err := s.records(ctx, x, limit+1)
	if err != nil {
		return err
	}
	items := make([]eventEntry, len(records))
	for i, r := range records {
		items[i] = eventEntry{r.Seq, r.Type, r.Data}
	}
	if x.head, err = s.logHead(ctx, x); err != nil { // what vanished meanwhile is no empty page
		return err
	}
	answer := eventPage{list: page(items, limit, func(e eventEntry) int64 { return e.ID })}
	for _, r := range x.head.Folded {
		answer.FoldedRanges = append(answer.FoldedRanges, [2]int64{r.First, r.Last})
	}
	return c.JSON(http.StatusOK, answer)
}

// logHead answers what is known of a log, or events.ErrGone when retention has
// removed it and something of it is asked for.
func (s *Server) logHead(ctx context.Context, x excerpt) (events.Head, error) {
	heads, err := s.cfg.Store.Heads(ctx, []int64{x.execution})
	if err != nil {
		return events.Head{}, err
	}
	head, found := heads[x.execution]
	if !found {
		return head, fmt.Errorf("events of execution %d: %w", x.execution, events.ErrNotFound)
	}
	if head.Removed && x.after < x.upto {
		return head, fmt.Errorf("events of execution %d after %d: %w", x.execution, x.after, events.ErrGone)
	}
	return head, nil
}

// present answers events.ErrGone when the first event that is asked for is
// missing and was not folded away. A filter would hide that.
func (s *Server) present(ctx context.Context, x excerpt) error {
	if x.after == x.upto {
		return nil
	}
	first, err := s.cfg.Store.Events(ctx, x.execution, x.after, 1)
	if err != nil {
		return err
	}
	if len(first) == 0 || first[0].Seq != x.after+1 && !x.head.Missing(events.SeqRange{First: x.after + 1, Last: first[0].Seq - 1}) {
		return fmt.Errorf("events of execution %d after %d: %w", x.execution, x.after, events.ErrGone)
	}
	return nil
}

func (s *Server) records(ctx context.Context, x excerpt, limit int) ([]events.Record, error) {
	var list []events.Record
	var err error
	if x.types == nil {
		list, err = s.cfg.Store.Events(ctx, x.execution, x.after, limit)
	} else {
		list, err = s.cfg.Store.EventsOfTypes(ctx, x.execution, x.after, x.types, limit)
	}
	if err != nil {
		return nil, err
	}
	for i, r := range list {
		if r.Seq > x.upto {
			return list[:i], nil
		}
	}
	return list, nil
}

// encoder writes events of a download.
type encoder interface {
	encode(r events.Record) error
	flush() error
}

// download sends the log as it is at this moment, page by page.
func (s *Server) download(c echo.Context, x excerpt, media, extension string, open func(io.Writer) encoder) error {
	res := c.Response()
	rc := http.NewResponseController(res.Writer)
	if err := unhurried(rc); err != nil {
		return err
	}
	h := res.Header()
	h.Set(echo.HeaderContentType, media)
	h.Set(echo.HeaderContentDisposition, `attachment; filename="execution-`+strconv.FormatInt(x.execution, 10)+"."+extension+`"`)
	res.WriteHeader(http.StatusOK)
	if c.Request().Method == http.MethodHead {
		return nil
	}
	ctx := c.Request().Context()
	enc := open(newResponseWriter(res, rc, s.cfg.StreamWrite))
	begin := x
	for {
		records, err := s.records(ctx, x, downloadRows)
		if err != nil {
			// A clean end would look like a complete log.
			return errors.Join(errAborted, err)
		}
		for _, r := range records {
			if x.types == nil && r.Seq != x.after+1 {
				if err := s.explained(ctx, &x, r.Seq); err != nil {
					return errors.Join(errAborted, err)
				}
			}
			x.after = r.Seq
			if err := enc.encode(r); err != nil {
				return errors.Join(errAborted, err)
			}
		}
		if err := enc.flush(); err != nil {
			return errors.Join(errAborted, err)
		}
		if len(records) < downloadRows {
			if _, err := s.logHead(ctx, begin); err != nil { // the log may have vanished under the download
				return errors.Join(errAborted, err)
			}
			return nil
		}
	}
}

// explained tells whether the events between the last one and the next one were
// folded away, perhaps since the download began.
func (s *Server) explained(ctx context.Context, x *excerpt, next int64) error {
	hole := events.SeqRange{First: x.after + 1, Last: next - 1}
	if x.head.Missing(hole) {
		return nil
	}
	var err error
	if x.head, err = s.logHead(ctx, *x); err != nil {
		return err
	}
	if !x.head.Missing(hole) {
		return fmt.Errorf("event %d of execution %d is missing", hole.First, x.execution)
	}
	return nil
}

// ndjson writes one line per event: {"id": 7, "event": "prompt-start", "data": {…}}.
type ndjson struct{ w *bufio.Writer }

func newNDJSON(w io.Writer) encoder { return ndjson{bufio.NewWriterSize(w, streamPiece)} }

func (n ndjson) encode(r events.Record) error {
	line := append(n.w.AvailableBuffer(), `{"id": `...)
	line = strconv.AppendInt(line, r.Seq, 10)
	line = append(line, `, "event": "`...)
	line = append(line, r.Type...) // a name needs no escapes
	line = append(line, `", "data": `...)
	line = append(line, r.Data...) // jsonb text has no line ends
	_, err := n.w.Write(append(line, "}\n"...))
	return err
}

func (n ndjson) flush() error { return n.w.Flush() }

// table writes CSV as RFC 4180 has it, the column names first.
type table struct{ w *csv.Writer }

func newCSV(w io.Writer) encoder {
	t := table{csv.NewWriter(w)}
	t.w.UseCRLF = true
	_ = t.w.Write([]string{"id", "event", "eventId", "parentId", "streamId", "timestamp", "data"}) // flush tells of errors
	return t
}

func (t table) encode(r events.Record) error {
	parent := ""
	if r.Parent.Valid {
		parent = r.Parent.UUID.String()
	}
	return t.w.Write([]string{
		strconv.FormatInt(r.Seq, 10), string(r.Type), r.ID.String(), parent, r.Stream, r.Time.UTC().Format(time.RFC3339Nano), string(r.Data),
	})
}

func (t table) flush() error {
	t.w.Flush()
	return t.w.Error()
}
