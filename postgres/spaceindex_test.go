package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/postgres"
)

// shortOfMemory is a connection that lets the first of the statements that make an index
// fail, and leaves an index behind that is not valid, as PostgreSQL does.
type shortOfMemory struct {
	*pgx.Conn
	failures []error
	leave    string   // the statement that leaves it
	tries    []string // with which settings
}

func (c *shortOfMemory) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if !strings.HasPrefix(sql, "CREATE INDEX") {
		return c.Conn.Exec(ctx, sql, args...)
	}
	var try string
	if err := c.QueryRow(ctx, "SELECT current_setting('max_parallel_maintenance_workers') || ' workers, ' || current_setting('maintenance_work_mem')").Scan(&try); err != nil {
		return pgconn.CommandTag{}, err
	}
	c.tries = append(c.tries, try)
	if len(c.tries) > len(c.failures) {
		return c.Conn.Exec(ctx, sql, args...)
	}
	if _, err := c.Conn.Exec(ctx, c.leave); err == nil {
		return pgconn.CommandTag{}, errors.New("the index that is left is valid")
	}
	return pgconn.CommandTag{}, c.failures[len(c.tries)-1]
}

// Where memory is short, as in a container with a small /dev/shm, an index is made by one
// process, then with the memory that the operator allows. Nothing else is tried again.
func TestIndexWithoutMemory(t *testing.T) {
	t.Parallel()
	l := newLibrary(t)
	r := l.repository("a", "test/a", 8)
	l.fill(r.ID, 2000, "'word' || i")
	l.fillVectors(r)
	index := fmt.Sprintf("chunk_vectors_%d_hnsw", r.Space.ID)
	shared := &pgconn.PgError{Code: "53100", Message: `could not resize shared memory segment "/PostgreSQL.3083145670" to 67128960 bytes: No space left on device`}
	memory := &pgconn.PgError{Code: "53200", Message: "out of memory"}
	disk := &pgconn.PgError{Code: "53100", Message: `could not extend file "base/5/16384": No space left on device`}
	const together, alone, allowed = "2 workers, 64MB", "0 workers, 64MB", "0 workers, 32MB"
	for _, tt := range []struct {
		name     string
		failures []error
		tries    []string
		want     error
	}{
		{"enough", nil, []string{together}, nil},
		{"little that processes can share", []error{shared}, []string{together, alone}, nil},
		{"little at all", []error{shared, memory}, []string{together, alone, allowed}, nil},
		{"none", []error{memory, memory, memory}, []string{together, alone, allowed}, memory},
		{"a full disk", []error{disk}, []string{together}, disk},
	} {
		cfg, err := pgx.ParseConfig(l.url)
		if err != nil {
			t.Fatal(err)
		}
		cfg.RuntimeParams["maintenance_work_mem"] = "32MB"
		plain, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		conn := &shortOfMemory{Conn: plain, failures: tt.failures, leave: fmt.Sprintf("CREATE UNIQUE INDEX CONCURRENTLY %s ON chunk_vectors_%d (space_id)", index, r.Space.ID)}
		// As a connection that has made another index before.
		if _, err := conn.Exec(t.Context(), "SET max_parallel_maintenance_workers = 0"); err != nil {
			t.Fatal(err)
		}
		statement, err := db.New(conn).SpaceIndex(t.Context(), r.Space.ID)
		if err != nil || statement == "" {
			t.Fatalf("%s: nothing is to be made: %v", tt.name, err)
		}
		if err := postgres.MakeIndex(t.Context(), conn, r.Space.ID, statement); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if diff := cmp.Diff(tt.tries, conn.tries); diff != "" {
			t.Errorf("%s: tried (-want +got):\n%s", tt.name, diff)
		}
		valid := l.count(fmt.Sprintf("SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('%s') AND indisvalid", index))
		if made := tt.want == nil; made != (valid == 1) {
			t.Errorf("%s: %d valid indexes", tt.name, valid)
		}
		if _, err := conn.Exec(t.Context(), "DROP INDEX IF EXISTS "+index); err != nil {
			t.Fatal(err)
		}
		if err := plain.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
