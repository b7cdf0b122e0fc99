package pgtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Query runs a statement on the database behind a test: one that answers a row,
// which is read into the given places, or without any of them one that answers
// none. An error ends the test.
func Query(t testing.TB, url, sql string, into ...any) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if len(into) == 0 {
		_, err = conn.Exec(ctx, sql)
	} else {
		err = conn.QueryRow(ctx, sql).Scan(into...)
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
