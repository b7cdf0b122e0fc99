package pgtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Session opens one connection to a database and answers what executes
// statements on it, one after the other, in and outside transactions. It is for
// tests that do to a database what no part of the program does.
func Session(t testing.TB, url string) func(statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := conn.Exec(t.Context(), s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
}
