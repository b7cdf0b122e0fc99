package pgtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Exec runs a statement behind the back of whoever uses the database.
func Exec(t testing.TB, url, statement string, args ...any) {
	t.Helper()
	connected(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, statement, args...)
		return err
	})
}

// Row reads the only row of a query into dest, pointers.
func Row(t testing.TB, url, query string, args []any, dest ...any) {
	t.Helper()
	connected(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, query, args...).Scan(dest...)
	})
}

func connected(t testing.TB, url string, use func(context.Context, *pgx.Conn) error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if err := use(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
}
