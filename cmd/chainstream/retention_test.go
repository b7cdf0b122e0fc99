package main_test

import (
	"strings"
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
)

// The command line says in a sentence what retention did, and doctor what it
// still has to do and what holds it back.
func TestRetentionIsTold(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	s := serve(t, nil, "--database-url", url, "--retention", "720h")
	succeed(t, s.client(), "executions", "start", "hello", "--follow")
	run := pgtest.Session(t, url)
	run("UPDATE executions SET finished_at = finished_at - interval '2 days'")
	doctor := func(args ...string) string {
		t.Helper()
		env := s.client()
		env["DATABASE_URL"] = url
		return succeed(t, env, append([]string{"doctor"}, args...)...)
	}
	run("BEGIN", "SELECT count(*) FROM events")
	run("SET application_name = 'report'")
	got := doctor("--retention", "24h", "--fold-deltas-after", "24h", "--json")
	for _, want := range []string{`"partitionsAhead"`, `"foldDue": 1`, `"oldestEvent"`, `"oldTransaction"`, `"application": "report"`, `"completed": 1`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in:\n%s", want, got)
		}
	}
	run("COMMIT", "UPDATE executions SET folded_at = now(), folded_seqs = '{}'")
	for _, want := range []string{"1 completed", "ready for the next executions", "off, events are kept for ever", "off, text deltas are kept"} {
		if got := doctor(); !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if got := succeed(t, s.client(), "executions", "show", "1"); !strings.Contains(got, "its text deltas were folded away") {
		t.Errorf("show:\n%s", got)
	}
	run("INSERT INTO events_removed VALUES (0, 1000, 'events_p000000000000')")
	if got := succeed(t, s.client(), "executions", "show", "1"); !strings.Contains(got, "removed by the retention policy") || !strings.Contains(got, "Hello") {
		t.Errorf("show:\n%s", got)
	}
	for _, args := range [][]string{{"watch", "1"}, {"executions", "events", "1"}} {
		if r := execute(t, s.client(), args...); r.code != 1 || !strings.Contains(r.stderr, "The retention policy removed events") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%v: %d %s", args, r.code, r.stderr)
		}
	}
	if r := execute(t, nil, "serve", "--retention", "5m"); r.code != 2 || !strings.Contains(r.stderr, "at least 1h") {
		t.Errorf("a short retention: %d %s", r.code, r.stderr)
	}
}
