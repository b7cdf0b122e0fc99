package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// commandChain asks the model that the test names.
const commandChain = `
name: command
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: First, position: 1, model: openai/MODEL, content: "About ${topic}", retry: {attempts: 1}}
  - {name: Second, position: 2, model: offline/echo, content: "Echo: after that, ${first}"}
`

// commandModels are a model that answers, one that refuses and one that gets
// stuck until the gate opens.
func commandModels(t *testing.T) (fake *llmtest.Server, gate chan struct{}) {
	t.Helper()
	gate = make(chan struct{})
	fake = llmtest.NewServer(t)
	fake.Script("fine", llmtest.Text("all ", "is ", "well"))
	fake.Script("refuses", llmtest.Status(http.StatusBadRequest))
	fake.Script("stuck", llmtest.Reply{llmtest.Role(), llmtest.Delta("half a "), llmtest.Gate(gate), llmtest.Delta("sentence"),
		llmtest.Finish("stop"), llmtest.Usage(5, 3), llmtest.Done()})
	return fake, gate
}

// TestRunCommand runs a chain from a file, with a server of the program's own.
func TestRunCommand(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		model string
		code  int
		last  string
	}{
		{"fine", 0, "execution-complete"},
		{"refuses", 1, "execution-error"},
		{"stuck", 130, "execution-error"}, // until Ctrl-C
	} {
		t.Run(test.model, func(t *testing.T) {
			t.Parallel()
			ctx := within(t)
			fake, _ := commandModels(t)
			database := pgtest.Database(t)
			file := filepath.Join(t.TempDir(), "chain.yaml")
			if err := os.WriteFile(file, []byte(strings.Replace(commandChain, "MODEL", test.model, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			output := newRecord()
			p := start(t, output, openAI(fake), "run", file, "--input", "topic=river deltas", "--json", "--database-url", database)
			if test.model == "stuck" {
				awaitDelta(ctx, t, output, p)
				p.signal(t, syscall.SIGINT)
			}
			if code := p.wait(ctx, t); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			lines, _ := output.lines()
			table := rows(ctx, t, connect(ctx, t, database), 1)
			if diff := cmp.Diff(asLines(table), lines); diff != "" {
				t.Errorf("run --json is not the table (-table +run):\n%s", diff)
			}
			if err := checkLog(table); err != nil {
				t.Error(err)
			}
			if lastType(table) != test.last {
				t.Errorf("the last event is %s, want %s", lastType(table), test.last)
			}
			if code := decode(t, table[len(table)-1]).Code; test.model == "stuck" && code != "cancelled" {
				t.Errorf("the execution ended with the code %q, want cancelled", code)
			}
		})
	}
}

func awaitDelta(ctx context.Context, t *testing.T, output *record, p *process) {
	t.Helper()
	output.await(ctx, t, p, "the first text", func(line string) bool { return strings.Contains(line, `"event": "prompt-delta"`) })
}

// TestRunCommandForPeople checks that the transcript has the words of the model.
func TestRunCommandForPeople(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	var stdout bytes.Buffer
	p := start(t, &stdout, nil, "run", "../../examples/hello.yaml", "--input", "name=Ada", "--offline-pace", "0s", "--database-url", pgtest.Database(t))
	if code := p.wait(ctx, t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if text := stdout.String(); !strings.Contains(text, "Hello, Ada.") || !strings.Contains(text, "offline/echo") {
		t.Errorf("the transcript lacks the text or the model:\n%s", text)
	}
}

// TestWatchCommand follows executions of a server.
func TestWatchCommand(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	fake, gate := commandModels(t)
	database := pgtest.Database(t)
	s := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", database}})
	conn := connect(ctx, t, database)
	ids := make(map[string]int64)
	for _, model := range []string{"fine", "refuses", "stuck"} {
		document := strings.Replace(commandChain, "MODEL", model, 1)
		s.createChain(ctx, t, strings.Replace(document, "name: command", "name: "+model, 1))
		ids[model] = s.begin(ctx, t, model, map[string]string{"topic": "deltas"})
	}

	watchEnds(ctx, t, s, conn, ids["fine"], 0)
	watchEnds(ctx, t, s, conn, ids["refuses"], 1)

	// Interrupting a watch leaves the execution alone.
	output := newRecord()
	interrupted := start(t, output, nil, "watch", fmt.Sprint(ids["stuck"]), "--json", "--server", s.url)
	awaitDelta(ctx, t, output, interrupted)
	interrupted.signal(t, syscall.SIGINT)
	if code := interrupted.wait(ctx, t); code != 130 {
		t.Errorf("an interrupted watch ended with code %d, want 130", code)
	}
	if status := s.execution(ctx, t, ids["stuck"]).Status; status != "running" {
		t.Errorf("after the watch was interrupted the execution is %s, want running", status)
	}

	// Cancelling ends both.
	cancelled := s.begin(ctx, t, "stuck", map[string]string{"topic": "deltas"})
	output = newRecord()
	watching := start(t, output, nil, "watch", fmt.Sprint(cancelled), "--json", "--server", s.url)
	awaitDelta(ctx, t, output, watching)
	if err := s.want(ctx, http.StatusAccepted, call{method: http.MethodPost, path: fmt.Sprintf("/api/v1/executions/%d/cancel", cancelled)}, nil); err != nil {
		t.Fatal(err)
	}
	if code := watching.wait(ctx, t); code != 130 {
		t.Errorf("watch of a cancelled execution ended with code %d, want 130", code)
	}
	lines, _ := output.lines()
	if diff := cmp.Diff(asLines(rows(ctx, t, conn, cancelled)), lines); diff != "" {
		t.Errorf("watch --json is not the table (-table +watch):\n%s", diff)
	}

	close(gate)
	watchEnds(ctx, t, s, conn, ids["stuck"], 0)
}

// watchEnds watches an execution to its end.
func watchEnds(ctx context.Context, t *testing.T, s *server, conn *pgx.Conn, id int64, code int) {
	t.Helper()
	output := newRecord()
	p := start(t, output, nil, "watch", fmt.Sprint(id), "--json", "--server", s.url)
	if got := p.wait(ctx, t); got != code {
		t.Errorf("watch ended with code %d, want %d", got, code)
	}
	table := rows(ctx, t, conn, id)
	if err := checkLog(table); err != nil {
		t.Error(err)
	}
	lines, _ := output.lines()
	if diff := cmp.Diff(asLines(table), lines); diff != "" {
		t.Errorf("watch --json is not the table (-table +watch):\n%s", diff)
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("not a line of JSON: %s", line)
		}
	}
}
