package postgres_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/knowledge"
)

// What has changed is told once, however long another transaction runs, and what that has
// changed is told when it has committed.
func TestChangesAreToldOnce(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	late, gone := l.save(r.ID, "late.txt", "Rivers flow.", ""), l.save(r.ID, "gone.txt", "Lakes rest.", "")
	cursor := ""
	changes := func() (told []string) {
		t.Helper()
		c, err := l.Changes(t.Context(), r.ID, cursor, 10)
		if err != nil || c.Anew {
			t.Fatalf("after %q: %+v, %v", cursor, c, err)
		}
		cursor = c.Cursor
		for _, d := range c.Documents {
			told = append(told, fmt.Sprint(d.DocumentID, d.Deleted))
		}
		return told
	}
	changes()
	sql := pgtest.Session(t, l.url)
	sql("BEGIN", fmt.Sprintf("UPDATE documents SET progress = 50 WHERE id = %d", late.ID))
	fresh := l.save(r.ID, "new.txt", "Brooks run.", "")
	if err := l.DeleteDocument(t.Context(), r.ID, gone.ID); err != nil {
		t.Fatal(err)
	}
	want := []string{fmt.Sprint(fresh.ID, false), fmt.Sprint(gone.ID, true)}
	if told := changes(); !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	if told := changes(); told != nil {
		t.Errorf("told again: %v", told)
	}
	sql("COMMIT")
	if told, want := changes(), []string{fmt.Sprint(late.ID, false)}; !slices.Equal(told, want) {
		t.Errorf("told %v when it was committed, want %v", told, want)
	}
}

// A name that is taken in the same moment is one that is taken.
func TestRenamedAtOnce(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	other := l.repository("more", "test/a", 8)
	sql := pgtest.Session(t, l.url)
	sql("BEGIN", fmt.Sprintf("UPDATE repositories SET name = 'best' WHERE id = %d", other.ID))
	renamed := make(chan error, 1)
	go func() {
		r.Name = "best"
		_, err := l.UpdateRepository(t.Context(), r)
		renamed <- err
	}()
	l.awaitLock()
	sql("COMMIT")
	if err := <-renamed; !errors.Is(err, knowledge.ErrNameTaken) {
		t.Errorf("the second of them: %v", err)
	}
}

// awaitLock returns when somebody waits for a lock.
func (l *library) awaitLock() {
	l.t.Helper()
	for range 2000 {
		if l.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") > 0 {
			return
		}
	}
	l.t.Fatal("nobody waits for a lock")
}

// What PostgreSQL breaks off to end a deadlock is done again.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	d := l.add(r.ID, "a.txt", "Rivers flow.", "")
	other := pgtest.Connect(t, l.url)
	exec := func(sql string) error { _, err := other.Exec(t.Context(), sql); return err }
	if err := errors.Join(exec("BEGIN"), exec("UPDATE repository_words SET chunks = chunks")); err != nil {
		t.Fatal(err)
	}
	deleted := make(chan error, 1)
	go func() { deleted <- l.DeleteDocument(t.Context(), r.ID, d.ID) }()
	l.awaitLock() // it has the document, and waits for its words
	if err := exec(fmt.Sprintf("SELECT FROM documents WHERE id = %d FOR UPDATE", d.ID)); err != nil {
		t.Logf("the other one was broken off: %v", err)
	}
	if err := exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	l.checkWords()
}

// Who reads vectors for long, as a backup does, keeps a repository from being deleted, which
// says so soon: what stores vectors waits behind it.
func TestDeletionHasNoPatience(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 8)
	other := l.repository("more", "test/a", 8)
	l.add(r.ID, "a.txt", "Rivers flow.", "")
	sql := pgtest.Session(t, l.url)
	sql("BEGIN", "SELECT count(*) FROM chunk_vectors")
	deleted := make(chan error, 1)
	go func() { deleted <- l.DeleteRepository(t.Context(), r.ID) }()
	l.awaitLock()
	l.add(other.ID, "b.txt", "Lakes rest.", "")
	if err := <-deleted; !errors.Is(err, events.ErrUnavailable) {
		t.Errorf("deleted meanwhile: %v", err)
	}
	sql("COMMIT")
	if err := l.DeleteRepository(t.Context(), r.ID); err != nil {
		t.Error(err)
	}
}

// Vectors of a chunk that is removed in the same moment are not stored, and those of others
// are.
func TestChunkGoesUnderVectors(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/a", 2)
	l.add(r.ID, "a.txt", "Rivers flow.", "")
	l.add(r.ID, "b.txt", "Lakes rest.", "")
	sql := pgtest.Session(t, l.url)
	sql("DELETE FROM chunk_vectors", "BEGIN", "DELETE FROM chunks WHERE id = 1")
	saved := make(chan error, 1)
	go func() {
		saved <- l.SaveVectors(t.Context(), r.Space, map[int64]knowledge.Vector{1: {Numbers: []float32{1, 0}}, 2: {Numbers: []float32{0, 1}}})
	}()
	l.awaitLock()
	sql("COMMIT")
	if err := <-saved; err != nil {
		t.Error(err)
	}
	if n := l.count("SELECT count(*) FROM chunk_vectors"); n != 1 {
		t.Errorf("%d vectors", n)
	}
}

// Vectors for a space that has gone meanwhile are made by the model that took its place.
func TestSpaceGoesUnderIngestion(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("docs", "test/old", 8)
	l.add(r.ID, "first.txt", "Rivers flow.", "")
	d := l.save(r.ID, "second.txt", "Lakes rest.", "")
	remodeller := &knowledge.Remodeller{Store: l, Embeddings: &hasher{}, Logger: slog.New(slog.DiscardHandler)}
	l.embedder.bend = func(v []float32) []float32 {
		l.embedder.bend = nil // while the first call is under way
		changing, err := l.ChangeModel(t.Context(), r.ID, knowledge.Space{Model: "test/new", Dimensions: 16})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := remodeller.Process(t.Context(), r.ID, changing.Building.ID); again || err != nil {
			t.Fatal(again, err)
		}
		return v
	}
	if again, err := l.ingester.Process(t.Context(), d.ID, d.Uploaded); !again || err != nil {
		t.Fatalf("the turn in which the space went: %v, %v", again, err)
	}
	if again, err := l.ingester.Process(t.Context(), d.ID, d.Uploaded); again || err != nil {
		t.Fatalf("the next turn: %v, %v", again, err)
	}
	if got := l.find(knowledge.Query{Repositories: []int64{r.ID}, Text: "Lakes rest.", Search: knowledge.SearchVector, Limit: 1}); len(got.Passages) != 1 || got.Passages[0].Document != "second.txt" {
		t.Errorf("found %+v", got)
	}
}
