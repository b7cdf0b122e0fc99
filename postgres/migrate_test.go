package postgres_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

// catalogue lists everything in the public schema that migrations make.
const catalogue = `
SELECT c.relkind::text || ' ' || c.relname FROM pg_class c
 WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'chainstream_migrations%' AND c.relkind <> 'S'
UNION ALL
SELECT 'type ' || t.typname || ' ' || coalesce(string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder), '')
  FROM pg_type t LEFT JOIN pg_enum e ON e.enumtypid = t.oid
 WHERE t.typnamespace = 'public'::regnamespace AND t.typtype = 'e' GROUP BY t.typname
UNION ALL
SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0
   AND NOT a.attisdropped AND c.relname <> 'chainstream_migrations'
ORDER BY 1`

func list(t *testing.T, url, query string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	rows, err := conn.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMigrateUpDownUp(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	before := list(t, url, catalogue)
	applied, err := postgres.Migrate(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	full := list(t, url, catalogue)
	if len(applied) == 0 || len(full) < 50 {
		t.Fatalf("applied %v, %d objects", applied, len(full))
	}
	// Every single step back and forth, then all the way.
	for v := applied[len(applied)-1]; v > 0; v-- {
		if err := postgres.MigrateTo(t.Context(), url, v-1); err != nil {
			t.Fatal(err)
		}
		if err := postgres.MigrateTo(t.Context(), url, v); err != nil {
			t.Fatal(err)
		}
		if v == applied[len(applied)-1] {
			if diff := cmp.Diff(full, list(t, url, catalogue)); diff != "" {
				t.Error(diff)
			}
		}
		if err := postgres.MigrateTo(t.Context(), url, v-1); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, list(t, url, catalogue)); diff != "" {
		t.Errorf("left behind: %s", diff)
	}
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full, list(t, url, catalogue)); diff != "" {
		t.Error(diff)
	}
	if applied, err := postgres.Migrate(t.Context(), url); err != nil || len(applied) != 0 {
		t.Errorf("a second time: %v, %v", applied, err)
	}
}

// Several servers start at once on an empty database.
func TestMigrateConcurrently(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for range 4 {
		wg.Go(func() {
			applied, err := postgres.Migrate(t.Context(), url)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			total += len(applied)
			mu.Unlock()
		})
	}
	wg.Wait()
	current, newest, err := postgres.SchemaVersion(t.Context(), url)
	if err != nil || current != newest || int64(total) != newest {
		t.Errorf("version %d of %d, %d steps were taken, %v", current, newest, total, err)
	}
}

func TestMigrateRefusesANewerSchema(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	list(t, url, "INSERT INTO chainstream_migrations (version_id, is_applied) VALUES (9999, true) RETURNING 'x'")
	if _, err := postgres.Migrate(t.Context(), url); !errors.Is(err, postgres.ErrNewerSchema) {
		t.Errorf("migrate: %v", err)
	}
}
