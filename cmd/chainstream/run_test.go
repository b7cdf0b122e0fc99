package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	main "github.com/chainstream/chainstream/cmd/chainstream"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

const greeting = `
name: greeting
inputs:
  who: {type: short_text, required: true}
  times: {type: number, default: 1}
prompts:
  - {name: First, model: offline/echo, content: "Echo: Hello ${who}, ${times} times."}
  - {name: Second, model: offline/echo, content: "Echo: again: ${first}"}
`

// stored answers the events of an execution as the log has them, one line each.
func stored(t *testing.T, url string, execution int64) string {
	t.Helper()
	store, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	records, err := store.Events(t.Context(), execution, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, `{"id": %d, "event": "%s", "data": %s}`+"\n", r.Seq, r.Type, r.Data)
	}
	return b.String()
}

// lastEvent answers the name and the data of the last line of JSON output.
func lastEvent(t *testing.T, output string) (name string, data map[string]any) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(output), "\n")
	var e struct {
		Event string         `json:"event"`
		Data  map[string]any `json:"data"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil {
		t.Fatalf("%v in %q", err, output)
	}
	return e.Event, e.Data
}

func TestRunJSON(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	output := succeed(t, nil, "run", file(t, "greeting.yaml", greeting), "--database-url", url, "--offline-pace", "0s",
		"--json", "--input", "who=Ada", "--input", "times=3")
	name, data := lastEvent(t, output)
	if name != "execution-complete" {
		t.Errorf("the last event is %s", name)
	}
	id, ok := data["executionId"].(float64)
	if !ok {
		t.Fatalf("no executionId in %v", data)
	}
	if diff := cmp.Diff(stored(t, url, int64(id)), output); diff != "" {
		t.Errorf("the output is not the log:\n%s", diff)
	}
	if !strings.Contains(output, "again: Hello Ada, 3 times.") {
		t.Errorf("no greeting in\n%s", output)
	}
}

func TestRunOnServer(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "--database-url", pgtest.Database(t))
	document := file(t, "greeting.yaml", greeting)
	output := succeed(t, s.client(), "run", document, "--input", "who=@"+file(t, "who.txt", "Grace\nHopper"))
	want := `execution 1: greeting, version 1, 2 prompts
> First: position 1, offline/echo
First | Hello Grace
First | Hopper, 1 times.
`
	if !strings.HasPrefix(output, want) {
		t.Errorf("got\n%s\nwant it to begin with\n%s", output, want)
	}
	if !strings.Contains(output, "completed in ") {
		t.Errorf("no end in\n%s", output)
	}

	// The same document makes no new version, another one does.
	succeed(t, s.client(), "run", document, "--input", "who=x")
	succeed(t, nil, "run", file(t, "other.yaml", strings.Replace(greeting, "again:", "once more:", 1)), "--input", "who=x", "--server", s.url)
	var shown struct{ Version int }
	if err := json.Unmarshal([]byte(succeed(t, s.client(), "chains", "show", "greeting", "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	if shown.Version != 2 {
		t.Errorf("version %d, want 2", shown.Version)
	}
}

// The second run is answered from the cache and says so; --no-cache calls again.
func TestRunFromTheCache(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "--database-url", pgtest.Database(t))
	document := file(t, "remembered.yaml", "name: remembered\nprompts:\n  - {name: First, model: offline/echo, content: \"Echo: hello\", cache: 1h}\n")
	for _, run := range []struct {
		args   []string
		cached bool
	}{{nil, false}, {[]string{"--no-cache"}, false}, {nil, true}} {
		output := succeed(t, s.client(), append([]string{"run", document}, run.args...)...)
		if strings.Contains(output, "= First: answered from the cache") != run.cached || !strings.Contains(output, "First | hello") {
			t.Errorf("run %v, cached = %v:\n%s", run.args, run.cached, output)
		}
	}
	output := succeed(t, s.client(), "executions", "start", "remembered", "--no-cache", "--follow")
	if strings.Contains(output, "from the cache") {
		t.Errorf("executions start --no-cache:\n%s", output)
	}
}

func TestRunFails(t *testing.T) {
	t.Parallel()
	// The provider is known and has no key, so the chain is stored and fails.
	document := file(t, "fails.yaml", "name: fails\nprompts: [{name: A, model: openai/gpt-4.1-mini, content: hi, retry: {attempts: 1}}]\n")
	r := execute(t, nil, "run", document, "--database-url", pgtest.Database(t), "--json")
	if r.code != 1 {
		t.Errorf("exit code %d, want 1\n%s", r.code, r.stderr)
	}
	if name, data := lastEvent(t, r.stdout); name != "execution-error" || data["code"] != "model_unavailable" {
		t.Errorf("the last event is %s %v", name, data)
	}
}

func TestRunInterrupted(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	document := file(t, "slow.yaml", "name: slow\nprompts: [{name: A, model: offline/echo, content: \"Echo: "+strings.Repeat("word ", 2000)+"\"}]\n")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stdout, stderr := newWatchedOutput(`"prompt-delta"`), newWatchedOutput(`$^`)
	ended := make(chan error, 1)
	go func() {
		ended <- main.Run(ctx, []string{"run", document, "--database-url", url, "--offline-pace", "20ms", "--json"}, environment(nil), stdout, stderr)
	}()
	select {
	case <-stdout.found:
	case err := <-ended:
		t.Fatalf("it ended with %v\n%s", err, stderr)
	}
	interrupt()
	if code := main.Report(<-ended, stderr); code != 130 {
		t.Errorf("exit code %d, want 130\n%s", code, stderr)
	}
	name, data := lastEvent(t, stdout.String())
	if name != "execution-error" || data["code"] != "cancelled" {
		t.Errorf("the last event is %s %v", name, data)
	}
	id, ok := data["executionId"].(float64)
	if !ok {
		t.Fatalf("no executionId in %v", data)
	}
	if diff := cmp.Diff(stored(t, url, int64(id)), stdout.String()); diff != "" {
		t.Errorf("the output is not the log:\n%s", diff)
	}
	if !strings.Contains(stderr.String(), "cancelling execution") {
		t.Errorf("nothing was said about it: %s", stderr)
	}
}

func TestRunEmbedded(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	env := map[string]string{"CHAINSTREAM_DATA_DIR": dir}
	document := file(t, "greeting.yaml", greeting)
	output := succeed(t, env, "run", document, "--offline-pace", "0s", "--json", "--input", "who=Ada")
	if name, _ := lastEvent(t, output); name != "execution-complete" {
		t.Errorf("the last event is %s", name)
	}

	// The same data is there for a server, and nobody else gets at it meanwhile.
	s := serve(t, env)
	if listed := succeed(t, s.client(), "executions", "list", "--json"); !strings.Contains(listed, `"greeting"`) {
		t.Errorf("the execution is not listed: %s", listed)
	}
	for _, args := range [][]string{{"run", document, "--input", "who=x"}, {"serve", "--addr", "127.0.0.1:0"}, {"migrate", "up"}} {
		r := execute(t, env, args...)
		if r.code != 1 || !strings.Contains(r.stderr, "is in use") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d: %s", args[0], r.code, r.stderr)
		}
		if args[0] == "run" && !strings.Contains(r.stderr, "--server") {
			t.Errorf("run does not name --server: %s", r.stderr)
		}
	}
	s.stop()
	status := succeed(t, env, "migrate", "status", "--json")
	var schema struct{ Current, Newest int64 }
	if err := json.Unmarshal([]byte(status), &schema); err != nil || schema.Current != schema.Newest || schema.Current == 0 {
		t.Errorf("schema %s: %v", status, err)
	}
}

// dataDir is a folder that PostgreSQL's account can enter where we are root.
func dataDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "data")
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	document := file(t, "greeting.yaml", greeting)
	broken := file(t, "broken.yaml", "name: broken\nprompts:\n  - {name: A, model: offline/echo, content: \"${nothing}\"}\n  - {name: A, model: nothing}\n")
	tests := []struct {
		name string
		args []string
		code int
		want []string // in the message
	}{
		{"a missing file", []string{"/does/not/exist.yaml"}, 2, []string{"/does/not/exist.yaml cannot be read: no such file or directory"}},
		{"a document with problems", []string{broken}, 1, []string{broken + ":3: /prompts/0/content: ", broken + ":4: /prompts/1"}},
		{"a missing input", []string{document}, 1, []string{"/inputs/who: ", "required"}},
		{"a surplus input", []string{document, "-i", "who=x", "-i", "what=y"}, 1, []string{"/inputs/what: "}},
		{"a wrong number", []string{document, "-i", "who=x", "-i", "times=many"}, 1, []string{"/inputs/times: expected a number"}},
		{"an input without value", []string{document, "-i", "who"}, 2, []string{`--input "who" is not of the form name=value`}},
		{"no server", []string{document, "-i", "who=x", "--server", "http://127.0.0.1:1"}, 1, []string{"no server answers at http://127.0.0.1:1; start one with chainstream serve"}},
		{"an address that is none", []string{document, "-i", "who=x", "--server", "localhost:8080"}, 2, []string{"--server"}},
		{"no file", nil, 2, []string{"<file>", "chainstream run --help"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := execute(t, nil, append([]string{"run"}, test.args...)...)
			if r.code != test.code || r.stdout != "" {
				t.Errorf("exit code %d, want %d; output %q", r.code, test.code, r.stdout)
			}
			for _, want := range test.want {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("%q is not in: %s", want, r.stderr)
				}
			}
			if bytes.Contains([]byte(r.stderr), []byte("goroutine ")) {
				t.Errorf("a stack trace: %s", r.stderr)
			}
		})
	}
}
