package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
	main "github.com/chainstream/chainstream/cmd/chainstream"
	"github.com/chainstream/chainstream/internal/pgtest"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	s := serve(t, nil, "--database-url", database)
	succeed(t, s.client(), "executions", "start", "hello", "--follow", "--priority", "5")
	if shown := succeed(t, s.client(), "executions", "show", "1", "--json"); !strings.Contains(shown, `"priority": 5`) {
		t.Errorf("the priority is not 5: %s", shown)
	}
	log := strings.SplitAfter(stored(t, database, 1), "\n")
	log = log[:len(log)-1]

	if diff := cmp.Diff(strings.Join(log, ""), succeed(t, s.client(), "watch", "1", "--json")); diff != "" {
		t.Errorf("the whole log:\n%s", diff)
	}
	if diff := cmp.Diff(strings.Join(log[3:], ""), succeed(t, s.client(), "watch", "1", "--json", "--after", "3")); diff != "" {
		t.Errorf("behind event 3:\n%s", diff)
	}
	var few []string
	for _, line := range log {
		if strings.Contains(line, `"event": "progress"`) || strings.Contains(line, `"event": "execution-complete"`) {
			few = append(few, line)
		}
	}
	if diff := cmp.Diff(strings.Join(few, ""), succeed(t, s.client(), "watch", "1", "--json", "--types", "progress")); diff != "" {
		t.Errorf("progress only:\n%s", diff)
	}
	if output := succeed(t, s.client(), "watch", "1", "--json", "--no-deltas"); strings.Contains(output, "prompt-delta") {
		t.Errorf("deltas in\n%s", output)
	}
	if diff := cmp.Diff(strings.Join(log, ""), succeed(t, s.client(), "executions", "events", "1")); diff != "" {
		t.Errorf("executions events:\n%s", diff)
	}
	if diff := cmp.Diff(strings.Join(log[2:4], ""), succeed(t, s.client(), "executions", "events", "1", "--after", "2", "--limit", "2")); diff != "" {
		t.Errorf("executions events with a limit:\n%s", diff)
	}
	if table := succeed(t, s.client(), "executions", "events", "1", "--csv", "--limit", "1"); strings.Count(table, "\n") != 2 {
		t.Errorf("CSV:\n%s", table)
	}
	// At the end nothing follows, and the exit code is still that of the execution.
	if output := succeed(t, s.client(), "watch", "1", "--after", itoa(len(log))); output != "" {
		t.Errorf("behind the end: %s", output)
	}

	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"watch", "2"}, 1, "(404 "},
		{[]string{"watch", "1", "--after", "9999"}, 1, "(400 "},
		{[]string{"watch", "1", "--types", "nothing"}, 1, "(400 "},
		{[]string{"watch", "0"}, 2, "number from 1 on"},
		{[]string{"watch", "one"}, 2, "watch --help"},
		{[]string{"watch", "1", "--server", "http://127.0.0.1:1"}, 1, "no server answers at http://127.0.0.1:1"},
		{[]string{"executions", "cancel", "1"}, 1, "(409 "},
		{[]string{"executions", "show", "7"}, 1, "(404 "},
		{[]string{"chains", "show", "nobody"}, 1, "(404 "},
		{[]string{"executions", "start", "hello", "-i", "nobody=x"}, 1, "/inputs/nobody"},
		{[]string{"executions", "start", "hello", "--priority", "11"}, 1, "/priority"},
	} {
		r := execute(t, s.client(), test.args...)
		if r.code != test.code || !strings.Contains(r.stderr, test.want) {
			t.Errorf("%v: exit code %d, want %d; %q is not in: %s", test.args, r.code, test.code, test.want, r.stderr)
		}
	}

	shown := succeed(t, s.client(), "executions", "show", "1")
	if !strings.Contains(shown, "completed") || !strings.Contains(shown, "Hello, world.") {
		t.Errorf("show:\n%s", shown)
	}
	succeed(t, s.client(), "executions", "delete", "1")
	if listed := succeed(t, s.client(), "executions", "list", "--json"); strings.TrimSpace(listed) != "[]" {
		t.Errorf("after delete: %s", listed)
	}
}

// An execution that waits for a time is shown with it.
func TestShowOfAWait(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	s := serve(t, nil, "--database-url", database, "--workers", "0")
	succeed(t, s.client(), "executions", "start", "hello")
	pgtest.Session(t, database)("UPDATE executions SET status = 'waiting', wake_at = '2126-11-25 12:00:00+00'")
	until := "waiting until " + time.Date(2126, 11, 25, 12, 0, 0, 0, time.UTC).Local().Format(time.DateTime) + "\n"
	if shown := succeed(t, s.client(), "executions", "show", "1"); !strings.Contains(shown, until) {
		t.Errorf("%q is not in:\n%s", until, shown)
	}
}

func itoa(n int) string {
	text, _ := json.Marshal(n)
	return string(text)
}

func TestChains(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "--database-url", pgtest.Database(t))
	document := file(t, "greeting.yaml", greeting)
	step := func(args ...string) string {
		t.Helper()
		return succeed(t, s.client(), args...)
	}
	if got := step("chains", "apply", document); got != "greeting: version 1 created\n" {
		t.Errorf("apply: %s", got)
	}
	if got := step("chains", "apply", document); got != "greeting: version 1 unchanged\n" {
		t.Errorf("apply again: %s", got)
	}
	exported := step("chains", "export", "greeting")
	if got := step("chains", "apply", file(t, "exported.yaml", exported)); got != "greeting: version 1 unchanged\n" {
		t.Errorf("apply of the export: %s", got)
	}
	changed := file(t, "changed.json", strings.Replace(step("chains", "export", "greeting", "--format", "json"), "again:", "once more:", 1))
	if got := step("chains", "apply", changed, "--json"); !strings.Contains(got, `"result": "updated"`) || !strings.Contains(got, `"version": 2`) {
		t.Errorf("apply of a change: %s", got)
	}
	if got := step("chains", "show", "greeting", "--version", "1"); !strings.Contains(got, "version 1 of ") || !strings.Contains(got, "${second}") {
		t.Errorf("show: %s", got)
	}

	assistants := file(t, "assistants.json", step("chains", "export", "greeting", "--format", "assistants"))
	if r := execute(t, s.client(), "chains", "import", assistants); r.code != 1 || !strings.Contains(r.stdout, "greeting: refused") {
		t.Errorf("import of an existing name: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if got := step("chains", "import", assistants, "--replace"); !strings.HasPrefix(got, "greeting: updated as greeting, version 3") {
		t.Errorf("import: %s", got)
	}

	if got := step("chains", "validate", document); got != document+" is valid\n" {
		t.Errorf("validate: %s", got)
	}
	unknown := file(t, "unknown.yaml", "name: unknown\nprompts: [{name: A, model: nobody/x, content: hi}]\n")
	if r := execute(t, s.client(), "chains", "validate", document, unknown); r.code != 1 || !strings.Contains(r.stderr, "/prompts/0/model") {
		t.Errorf("validate of an unknown model: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if got := succeed(t, nil, "chains", "validate", unknown, "--server", "http://127.0.0.1:1"); !strings.Contains(got, "not checked, because no server answers") {
		t.Errorf("validate without a server: %s", got)
	}
	step("chains", "delete", "greeting")
	if got := step("chains", "list", "--json"); strings.Contains(got, `"name": "greeting"`) {
		t.Errorf("after delete: %s", got)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	env := map[string]string{"DATABASE_URL": pgtest.Empty(t)}
	position := func(args ...string) (current, newest int64) {
		t.Helper()
		var schema struct{ Current, Newest int64 }
		if err := json.Unmarshal([]byte(succeed(t, env, append(args, "--json")...)), &schema); err != nil {
			t.Fatal(err)
		}
		return schema.Current, schema.Newest
	}
	if current, newest := position("migrate", "status"); current != 0 || newest == 0 {
		t.Errorf("empty: %d of %d", current, newest)
	}
	current, newest := position("migrate", "up")
	if current != newest {
		t.Errorf("up: %d of %d", current, newest)
	}
	if r := execute(t, env, "migrate", "down"); r.code != 2 || !strings.Contains(r.stderr, "--yes") {
		t.Errorf("down without --yes: exit code %d: %s", r.code, r.stderr)
	}
	if got, _ := position("migrate", "down", "--yes"); got != newest-1 {
		t.Errorf("down: %d", got)
	}
	if got, _ := position("migrate", "down", "--to", "0", "--yes"); got != 0 {
		t.Errorf("down to nothing: %d", got)
	}
	if got, _ := position("migrate", "up"); got != newest {
		t.Errorf("up again: %d", got)
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	s := serve(t, nil, "--database-url", database)
	env := map[string]string{"DATABASE_URL": database, "CHAINSTREAM_SERVER": s.url, "OPENAI_API_KEY": "key", "OLLAMA_BASE_URL": "http://127.0.0.1:1"}
	verdicts := func(r result) map[string]string {
		t.Helper()
		var report struct {
			Findings []struct{ Check, Verdict string }
		}
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatalf("%v in %s%s", err, r.stdout, r.stderr)
		}
		m := make(map[string]string)
		for _, f := range report.Findings {
			m[f.Check] = f.Verdict
		}
		return m
	}
	r := execute(t, env, "doctor", "--json")
	got := verdicts(r)
	for check, want := range map[string]string{"server": "ok", "postgresql": "ok", "pgvector": "ok", "database": "ok", "hints": "ok", "schema": "ok", "openai": "ok", "anthropic": "note", "ollama": "note"} {
		if got[check] != want {
			t.Errorf("%s is %q, want %q", check, got[check], want)
		}
	}
	if r.code != 0 {
		t.Errorf("exit code %d", r.code)
	}
	r = execute(t, map[string]string{"DATABASE_URL": "postgres://127.0.0.1:1/d", "CHAINSTREAM_SERVER": "http://127.0.0.1:1"}, "doctor", "--json")
	if got := verdicts(r); r.code != 1 || got["database"] != "missing" || got["server"] != "note" {
		t.Errorf("exit code %d, %v", r.code, got)
	}
	r = execute(t, map[string]string{"CHAINSTREAM_DATA_DIR": t.TempDir() + "/new", "CHAINSTREAM_SERVER": "http://127.0.0.1:1"}, "doctor")
	if r.code != 0 || !strings.Contains(r.stdout, "Nothing is missing.") {
		t.Errorf("a new data directory: exit code %d\n%s", r.code, r.stdout)
	}
	r = execute(t, map[string]string{"CHAINSTREAM_DATA_DIR": file(t, "f", "") + "/data", "CHAINSTREAM_SERVER": "http://127.0.0.1:1"}, "doctor", "--json")
	if got := verdicts(r); r.code != 1 || got["data"] != "missing" {
		t.Errorf("an impossible data directory: exit code %d, %v", r.code, got)
	}
}

// Beside a server on the embedded database, its state is looked at and it is not
// disturbed; a server of another database is told apart.
func TestDoctorBesideTheServer(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := serve(t, map[string]string{"CHAINSTREAM_DATA_DIR": dir})
	env := map[string]string{"CHAINSTREAM_DATA_DIR": dir, "CHAINSTREAM_SERVER": s.url}
	if shown := succeed(t, env, "doctor"); !strings.Contains(shown, "ok       schema") || !strings.Contains(shown, "ok       events") {
		t.Errorf("doctor: %s", shown)
	}
	if shown := succeed(t, env, "migrate", "status"); !strings.Contains(shown, "up to date") {
		t.Errorf("migrate status: %s", shown)
	}
	other := serve(t, nil, "--database-url", pgtest.Database(t))
	s.stop()
	env["CHAINSTREAM_SERVER"] = other.url
	if shown := succeed(t, env, "doctor"); !strings.Contains(shown, "uses another database") {
		t.Errorf("doctor beside another server: %s", shown)
	}
}

// A listener behind a pooler is told of with its remedy; with the remedy it hears.
func TestDoctorBehindPgBouncer(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	env := map[string]string{"DATABASE_URL": pgtest.NewPooler(t, database), "CHAINSTREAM_SERVER": "http://127.0.0.1:1"}
	got := succeed(t, env, "doctor")
	if !strings.Contains(got, "through a connection pooler\n") || !strings.Contains(got, "note     hints        the connection that listens for hints hears nothing") ||
		!strings.Contains(got, "CHAINSTREAM_LISTEN_DATABASE_URL") {
		t.Errorf("doctor says:\n%s", got)
	}
	env["CHAINSTREAM_LISTEN_DATABASE_URL"] = database
	if got := succeed(t, env, "doctor"); !strings.Contains(got, "ok       hints        a notification is heard after ") {
		t.Errorf("doctor says:\n%s", got)
	}
}

// What doctor prints ends up in reports that others read.
func TestDoctorKeepsSecrets(t *testing.T) {
	t.Parallel()
	r := execute(t, map[string]string{
		"DATABASE_URL": "postgres://user:hidden@127.0.0.1:1/d", "CHAINSTREAM_SERVER": "http://127.0.0.1:1",
		"OPENAI_API_KEY": "hidden", "OPENAI_BASE_URL": "http://user:hidden@127.0.0.1:1/v1?key=hidden",
		"OLLAMA_BASE_URL": "http://user:hidden@127.0.0.1:1", "LMSTUDIO_BASE_URL": "http://user:hidden@127.0.0.1:nowhere/",
	}, "doctor")
	if all := r.stdout + r.stderr; strings.Contains(all, "hidden") || !strings.Contains(all, "http://user:xxxxx@127.0.0.1:1/v1") {
		t.Errorf("doctor prints a secret, or too little:\n%s", all)
	}
}

func TestPSQL(t *testing.T) {
	t.Parallel()
	env := map[string]string{"DATABASE_URL": pgtest.Database(t)}
	if got := succeed(t, env, "psql", "-c", "SELECT 6 * 7", "--", "--no-align", "--tuples-only"); strings.TrimSpace(got) != "42" {
		t.Errorf("psql prints %q", got)
	}
	if r := execute(t, env, "psql", "-c", "SELECT nonsense"); r.code != 1 || !strings.Contains(r.stderr, "nonsense") {
		t.Errorf("a wrong statement: exit code %d, %s", r.code, r.stderr)
	}
	if r := execute(t, nil, "psql", "--data-dir", t.TempDir()); r.code != 1 || !strings.Contains(r.stderr, "there is no database in") {
		t.Errorf("no database: exit code %d, %s", r.code, r.stderr)
	}
	stopped := t.TempDir()
	for name, text := range map[string]string{"port": "1\n", "password": "secret\n"} {
		if err := os.MkdirAll(filepath.Join(stopped, "postgres"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(stopped, "postgres", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := execute(t, nil, "psql", "--data-dir", stopped); r.code != 1 || !strings.Contains(r.stderr, "does not run") || strings.Contains(r.stderr, "secret") {
		t.Errorf("a stopped database: exit code %d, %s", r.code, r.stderr)
	}
}

func TestAbout(t *testing.T) {
	t.Parallel()
	if got := succeed(t, nil, "version"); !strings.HasPrefix(got, "chainstream ") {
		t.Errorf("version: %s", got)
	}
	var document struct {
		OpenAPI string         `json:"openapi"`
		Paths   map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(succeed(t, nil, "openapi")), &document); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(document.OpenAPI, "3.1") || document.Paths["/api/v1/executions"] == nil {
		t.Errorf("openapi %s with %d paths", document.OpenAPI, len(document.Paths))
	}
	for _, args := range [][]string{nil, {"--help"}, {"serve", "--help"}, {"run", "--help"}, {"chains", "apply", "--help"}} {
		if got := succeed(t, nil, args...); !strings.Contains(got, "Usage: chainstream") {
			t.Errorf("%v: %s", args, got)
		}
	}
}

func TestInputValues(t *testing.T) {
	t.Parallel()
	text := file(t, "note.txt", "from a file")
	types := map[string]chain.InputType{
		"text": chain.InputLongText, "number": chain.InputNumber, "truth": chain.InputBoolean, "data": chain.InputJSON,
		"choices": chain.InputMultiSelect, "file": chain.InputFile,
	}
	tests := []struct {
		given []string
		want  map[string]string
	}{
		{nil, map[string]string{}},
		{[]string{"text=1", "number=1.50", "truth=true", `data={"a": [1]}`}, map[string]string{"text": `"1"`, "number": "1.50", "truth": "true", "data": `{"a":[1]}`}},
		{[]string{"text=a=b", "number=many", "unknown=x"}, map[string]string{"text": `"a=b"`, "number": `"many"`, "unknown": `"x"`}},
		{[]string{"choices=a, b", "choices=c"}, map[string]string{"choices": `["a","b","c"]`}},
		{[]string{`choices=["a, b"]`}, map[string]string{"choices": `["a, b"]`}},
		{[]string{"text=@" + text, "file=@" + text}, map[string]string{"text": `"from a file"`, "file": `{"name":"note.txt","text":"from a file"}`}},
		{[]string{"file=@" + file(t, "a.png", "\x89PNG")}, map[string]string{"file": `{"base64":"iVBORw==","name":"a.png"}`}},
		{[]string{"file=typed"}, map[string]string{"file": `"typed"`}},
		{[]string{"text=first", "text=second"}, map[string]string{"text": `"second"`}},
	}
	for _, test := range tests {
		values, err := main.Values(test.given, types)
		if err != nil {
			t.Errorf("%v: %v", test.given, err)
		}
		got := make(map[string]string)
		for name, raw := range values {
			got[name] = string(raw)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%v: %s", test.given, diff)
		}
	}
	if _, err := main.Values([]string{"text=@/does/not/exist"}, types); err == nil {
		t.Error("a missing file was taken")
	}
}

// TestExamples keeps the documents of the repository valid.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hello.yaml", "research-brief.yaml"} {
		text, err := os.ReadFile("../../examples/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chain.Parse(text, chain.FormatYAML); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
