package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/internal/pgtest"
)

const steps = `
name: steps
inputs:
  topic: {type: short_text, default: rivers}
  times: {type: number, default: 1}
prompts:
  - {name: Outline, position: 1, model: offline/echo, content: "echo: O(${topic})"}
  - {name: Draft, position: 2, model: offline/echo, content: "echo: D(${outline}, ${topic}, ${times})"}
`

func TestForkAndRetry(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "--database-url", pgtest.Database(t))
	file := filepath.Join(t.TempDir(), "steps.yaml")
	if err := os.WriteFile(file, []byte(steps), 0o600); err != nil {
		t.Fatal(err)
	}
	succeed(t, s.client(), "run", file)
	show := func(id string, more ...string) (got struct {
		Origin  string
		LastSeq int64
		Prompts []struct {
			Output, Status string
			ReusedFrom     *struct{ ExecutionID int64 }
		}
	}) {
		t.Helper()
		if err := json.Unmarshal([]byte(succeed(t, s.client(), append([]string{"executions", "show", id, "--json"}, more...)...)), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	shown := succeed(t, s.client(), "executions", "fork", "1", "--from", "draft", "--input", "topic=lakes", "-i", "times=3", "--model", "draft=offline/echo", "--version", "1", "--follow")
	if !strings.Contains(shown, "Outline: taken over from execution 1") || !strings.Contains(shown, "completed in") {
		t.Errorf("fork shows:\n%s", shown)
	}
	fork := show("2")
	if fork.Origin != "fork" || fork.Prompts[0].ReusedFrom == nil || fork.Prompts[0].ReusedFrom.ExecutionID != 1 ||
		!strings.Contains(fork.Prompts[1].Output, "D(O(rivers), lakes, 3)") {
		t.Errorf("fork: %+v", fork)
	}
	if text := succeed(t, s.client(), "executions", "show", "2"); !strings.Contains(text, "fork of 1 from draft") || !strings.Contains(text, "from 1") {
		t.Errorf("show:\n%s", text)
	}
	past := show("2", "--at-seq", "2")
	if past.LastSeq != 2 || past.Prompts[0].Status != "running" || past.Prompts[1].Status != "pending" {
		t.Errorf("after event 2: %+v", past)
	}
	if text := succeed(t, s.client(), "executions", "fork", "1"); !strings.Contains(text, "execution 3, a fork of 1") {
		t.Errorf("fork without following: %s", text)
	}
	if text := succeed(t, s.client(), "executions", "fork", "1", "--model", "offline/echo", "--json"); !strings.Contains(text, `"executionId": 4`) {
		t.Errorf("fork as JSON: %s", text)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"executions", "retry", "1"}, 1, "(409 "},
		{[]string{"executions", "retry", "77"}, 1, "(404 "},
		{[]string{"executions", "fork", "1", "--from", "nowhere"}, 1, "/fromPrompt"},
		{[]string{"executions", "fork", "1", "--model", "a/b", "--model", "draft=c/d"}, 2, "not both"},
		{[]string{"executions", "fork", "1", "--model", "=c/d"}, 2, "slug=model"},
		{[]string{"executions", "fork", "1", "--version", "9", "-i", "topic=x"}, 1, "/version"},
		{[]string{"executions", "show", "1", "--at-seq", "999"}, 1, "(400 "},
	} {
		r := execute(t, s.client(), test.args...)
		if r.code != test.code || !strings.Contains(r.stderr, test.want) {
			t.Errorf("%v: exit code %d, want %d; %q is not in: %s", test.args, r.code, test.code, test.want, r.stderr)
		}
	}
}

func TestRetryOfAFailedExecution(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "--database-url", pgtest.Database(t), "--offline-pace", "20ms") // which the second prompt has no time for
	file := filepath.Join(t.TempDir(), "slow.yaml")
	document := "name: slow\nprompts:\n  - {name: First, position: 1, model: offline/echo, content: \"echo: one\"}\n  - {name: Second, position: 2, model: offline/echo, content: \"echo: two\", timeout: 1ms}\n"
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := execute(t, s.client(), "run", file); r.code != 1 {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	r := execute(t, s.client(), "executions", "retry", "1", "--follow")
	if r.code != 1 || !strings.Contains(r.stdout, "First: taken over from execution 1") {
		t.Errorf("exit code %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
}
