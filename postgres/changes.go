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

// Changes implements knowledge.DocumentStore. A cursor is the oldest transaction that was
// running at a snapshot, and the time of it.
func (s *Store) Changes(ctx context.Context, repository int64, after string, limit int) (knowledge.Changes, error) {
	since, then, err := parseCursor(after)
	if err != nil {
		return knowledge.Changes{}, err
	}
	rows, err := s.queries.DocumentChanges(ctx, db.DocumentChangesParams{RepositoryID: repository, Since: strconv.FormatUint(since, 10)})
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
	out.Anew = after != "" && (since > newest || at.Sub(then) > cursorKept)
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

// parseCursor reads a cursor; without one nothing is asked for.
func parseCursor(text string) (since uint64, at time.Time, err error) {
	if text == "" {
		return math.MaxUint64, time.Time{}, nil
	}
	number, seconds, _ := strings.Cut(text, "-")
	since, err = strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("%w: %q", knowledge.ErrCursor, text)
	}
	unix, err := strconv.ParseInt(seconds, 36, 64)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("%w: %q", knowledge.ErrCursor, text)
	}
	return since, time.Unix(unix, 0), nil
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
