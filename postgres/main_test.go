package postgres_test

import (
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// open connects to a database of the test's own.
func open(t *testing.T) (*postgres.Store, string) {
	t.Helper()
	url := pgtest.Database(t)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, url
}
