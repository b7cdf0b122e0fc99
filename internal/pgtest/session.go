package pgtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Connect answers a connection to a database, which is closed with the test.
func Connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // a test's connection has nothing to lose
	return conn
}

// Session opens one connection to a database and answers what executes
// statements on it, one after the other, in and outside transactions. It is for
// tests that do to a database what no part of the program does.
func Session(t testing.TB, dsn string) func(statements ...string) {
	t.Helper()
	conn := Connect(t, dsn)
	return func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := conn.Exec(t.Context(), s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
}

// Row reads the only row of a query into dest, pointers.
func Row(t testing.TB, dsn, query string, args []any, dest ...any) {
	t.Helper()
	if err := Connect(t, dsn).QueryRow(t.Context(), query, args...).Scan(dest...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
