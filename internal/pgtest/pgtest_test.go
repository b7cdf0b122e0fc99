package pgtest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func tables(t *testing.T, conn *pgx.Conn) int {
	t.Helper()
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Many tests at once each have a database of their own, with the schema.
func TestDatabaseIsPrivate(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			conn := connect(t, pgtest.Database(t))
			if n := tables(t, conn); n == 0 {
				t.Error("no tables: the schema is missing")
			}
			if _, err := conn.Exec(t.Context(), "CREATE TABLE mine (id int); SELECT NULL::vector"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEmptyHasVectorAndNoTables(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Empty(t))
	if n := tables(t, conn); n != 0 {
		t.Errorf("%d tables in an empty database", n)
	}
	if _, err := conn.Exec(t.Context(), "CREATE EXTENSION IF NOT EXISTS vector"); err != nil {
		t.Error(err)
	}
}

// The database goes away with its test, although a connection is still open.
func TestDatabaseIsDroppedAtTheEnd(t *testing.T) {
	t.Parallel()
	var dropped string
	t.Run("inner", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), pgtest.Empty(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		dropped = conn.Config().Database
	})
	conn := connect(t, pgtest.Empty(t))
	var exists bool
	if err := conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", dropped).Scan(&exists); err != nil {
		t.Fatal(err)
	}
	if exists {
		t.Errorf("database %s outlived its test", dropped)
	}
}

// Row-level security does not apply to superusers, so tests must not run as
// one.
func TestRoleIsNoSuperuser(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Empty(t))
	var super string
	if err := conn.QueryRow(t.Context(), "SHOW is_superuser").Scan(&super); err != nil {
		t.Fatal(err)
	}
	if super != "off" {
		t.Errorf("is_superuser = %s", super)
	}
}

func BenchmarkDatabase(b *testing.B) {
	for b.Loop() {
		pgtest.Database(b)
	}
}
