package postgres

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/knowledge"
)

// deletionsKept is how long it is known that a document is gone, and cursorKept for how
// long a cursor tells what to go on after.
const (
	deletionsKept = 8 * 24 * time.Hour
	cursorKept    = 7 * 24 * time.Hour
)

// Changes implements knowledge.DocumentStore. A cursor is a snapshot, as PostgreSQL writes
// it, and the time of it: what it did not see is new, so that a transaction that runs for
// long does not bring what has changed meanwhile again and again.
func (s *Store) Changes(ctx context.Context, repository int64, after string, limit int) (knowledge.Changes, error) {
	since, then, err := parseCursor(after)
	if err != nil {
		return knowledge.Changes{}, err
	}
	rows, err := s.queries.DocumentChanges(ctx, db.DocumentChangesParams{RepositoryID: repository, Since: since.text})
	if err == nil && len(rows) == 0 {
		err = knowledge.ErrNotFound
	}
	if err != nil {
		return knowledge.Changes{}, fmt.Errorf("look for changes in repository %d: %w", repository, translate(err))
	}
	at := rows[0].At
	out := knowledge.Changes{Cursor: rows[0].Cursor + "-" + strconv.FormatInt(at.Unix(), 36)}
	newest, err := strconv.ParseUint(rows[0].Newest, 10, 64)
	if err != nil {
		return knowledge.Changes{}, fmt.Errorf("look for changes in repository %d: %w", repository, err)
	}
	// A database that was restored elsewhere counts its transactions anew.
	out.Anew = after != "" && (since.newest > newest || at.Sub(then) > cursorKept)
	if after != "" && !out.Anew {
		for _, r := range rows {
			if r.ID != 0 {
				out.Documents = append(out.Documents, knowledge.Change{DocumentID: r.ID, Deleted: r.Deleted})
			}
		}
		return out, nil
	}
	ids, err := s.queries.DocumentsLatest(ctx, db.DocumentsLatestParams{RepositoryID: repository, MaxRows: int32(limit)})
	if err != nil {
		return knowledge.Changes{}, fmt.Errorf("look for documents of repository %d: %w", repository, translate(err))
	}
	for _, id := range ids {
		out.Documents = append(out.Documents, knowledge.Change{DocumentID: id})
	}
	return out, nil
}

// expireDeletions is how many rows one statement of ExpireDeletions removes.
const expireDeletions = 1000

// ExpireDeletions forgets documents that are gone for longer than any cursor tells what
// to go on after, portion by portion, and answers how many there were.
func (s *Store) ExpireDeletions(ctx context.Context) (int64, error) {
	var removed int64
	for {
		n, err := s.queries.DocumentDeletionsExpire(ctx, db.DocumentDeletionsExpireParams{Age: deletionsKept, MaxRows: expireDeletions})
		if err != nil {
			return removed, fmt.Errorf("forget documents that are gone: %w", translate(err))
		}
		removed += n
		if n < expireDeletions {
			return removed, nil
		}
	}
}

// snapshot is a moment as PostgreSQL knows it.
type snapshot struct {
	text   string // 10:20:12,15
	newest uint64 // no transaction from this number on is seen
}

// parseCursor reads a cursor; without one nothing is asked for.
func parseCursor(text string) (since snapshot, at time.Time, err error) {
	if text == "" {
		return snapshot{text: fmt.Sprintf("%[1]d:%[1]d:", uint64(math.MaxUint64))}, time.Time{}, nil
	}
	seen, seconds, _ := strings.Cut(text, "-")
	since, ok := parseSnapshot(seen)
	unix, err := strconv.ParseInt(seconds, 36, 64)
	if !ok || err != nil {
		return snapshot{}, time.Time{}, fmt.Errorf("%w: %q", knowledge.ErrCursor, text)
	}
	return since, time.Unix(unix, 0), nil
}

// parseSnapshot reads oldest:newest:running,running. PostgreSQL refuses what is not in
// order.
func parseSnapshot(text string) (snapshot, bool) {
	bounds := strings.SplitN(text, ":", 3)
	if len(bounds) != 3 {
		return snapshot{}, false
	}
	oldest, err := strconv.ParseUint(bounds[0], 10, 64)
	newest, err2 := strconv.ParseUint(bounds[1], 10, 64)
	if err != nil || err2 != nil || oldest == 0 || newest < oldest {
		return snapshot{}, false
	}
	if bounds[2] == "" {
		return snapshot{text, newest}, true
	}
	before := oldest
	for number := range strings.SplitSeq(bounds[2], ",") {
		running, err := strconv.ParseUint(number, 10, 64)
		if err != nil || running < before || running >= newest {
			return snapshot{}, false
		}
		before = running
	}
	return snapshot{text, newest}, true
}

// DocumentsOf implements knowledge.DocumentStore.
func (s *Store) DocumentsOf(ctx context.Context, repository int64, ids []int64) ([]knowledge.Document, error) {
	rows, err := s.queries.DocumentsByID(ctx, db.DocumentsByIDParams{RepositoryID: repository, Ids: ids})
	if err != nil {
		return nil, fmt.Errorf("read documents of repository %d: %w", repository, translate(err))
	}
	byID := make(map[int64]db.Document, len(rows))
	for _, r := range rows {
		byID[r.ID] = r
	}
	out := make([]knowledge.Document, 0, len(rows))
	for _, id := range ids {
		if r, ok := byID[id]; ok {
			out = append(out, documentOf(r))
		}
	}
	return out, nil
}
