package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/postgres/embedded"
)

// shell runs a documented command with PostgreSQL's programs in its PATH.
func shell(ctx context.Context, t *testing.T, dir, script string, env ...string) {
	t.Helper()
	installation, err := embedded.Find()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "sh", "-euc", script)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + strings.Join([]string{installation.BinDir, os.Getenv("PATH")}, ":"), "HOME=" + dir}, env...)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, output)
	}
}

// backupChain waits for a model in the middle of its second prompt.
const backupChain = `
name: backed-up
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: Outline, position: 1, model: openai/outline, content: "Outline of ${topic}"}
  - {name: Text, position: 2, model: openai/text, content: "Text about ${topic}, from ${outline}"}
`

// backupModel gets stuck in the first text about each topic but the easy ones.
func backupModel(t *testing.T) *llmtest.Server {
	t.Helper()
	fake := llmtest.NewServer(t)
	stuck := make(chan map[string]bool, 1)
	stuck <- make(map[string]bool)
	fake.Otherwise(func(req llmtest.Request) llmtest.Reply {
		prompt := req.Last()
		if req.Model == "outline" || strings.Contains(prompt, "easy") {
			return llmtest.Text("the ", "whole ", "of it")
		}
		known := <-stuck
		defer func() { stuck <- known }()
		if known[prompt] {
			return llmtest.Text("what ", "the second attempt ", "wrote")
		}
		known[prompt] = true
		return llmtest.Reply{llmtest.Role(), llmtest.Delta("lost words "), llmtest.Stall()}
	})
	return fake
}

// backupCommands answers the documented commands of a name: the lines of the sh
// blocks between the comment with this name and the next empty line.
func backupCommands(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, commands, found := strings.Cut(string(text), "\n# "+name+"\n")
	if !found {
		t.Fatalf("operations.md has no commands of the name %q", name)
	}
	commands, _, _ = strings.Cut(commands, "\n```")
	commands, _, _ = strings.Cut(commands, "\n\n")
	return commands
}

// TestBackup dumps a database while executions run, as documented, and starts
// servers on what was restored: in an empty database and in a fresh data
// directory. What had ended has the same bytes; what was running goes on.
func TestBackup(t *testing.T) {
	t.Parallel()
	const finished, running = 5, 5
	ctx := within(t)
	fake := backupModel(t)
	source := pgtest.Database(t)
	s := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", source}})
	s.createChain(ctx, t, backupChain)
	for i := range finished {
		id := s.begin(ctx, t, "backed-up", map[string]string{"topic": fmt.Sprintf("easy %d", i)})
		s.ends(ctx, t, id)
	}
	var ids []int64
	for i := range running {
		ids = append(ids, s.begin(ctx, t, "backed-up", map[string]string{"topic": fmt.Sprintf("hard %d", i)}))
	}
	conn := connect(ctx, t, source)
	eventually(ctx, t, "all executions are in the middle of a text", func() bool {
		logs := tables(t, conn)
		return !slices.ContainsFunc(ids, func(id int64) bool {
			log := logs[id]
			return lastType(log) != "prompt-delta" || decode(t, log[len(log)-1]).Text != "lost words "
		})
	})
	want := tables(t, conn)
	dir := openDir(t)
	shell(ctx, t, dir, backupCommands(t, "dump"), "DATABASE_URL="+source)
	// The original is gone: the two of them would both go on with what was running.
	s.kill(ctx, t)

	t.Run("empty database", func(t *testing.T) {
		t.Parallel()
		target := pgtest.Empty(t)
		shell(ctx, t, dir, backupCommands(t, "restore into an empty database"), "NEW_URL="+target)
		restored := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", target}})
		checkRestored(ctx, t, restored, connect(ctx, t, target), want, ids)
	})
	t.Run("data directory", func(t *testing.T) {
		t.Parallel()
		data := openDir(t)
		cfg := settings{env: openAI(fake), args: []string{"--data-dir", filepath.Join(data, "data")}}
		fresh := cfg
		fresh.args = append(slices.Clone(cfg.args), "--workers", "0")
		maker := serve(ctx, t, fresh)
		address, err := embedded.Address(filepath.Join(data, "data"))
		if err != nil {
			t.Fatal(err)
		}
		plain, _, _ := strings.Cut(address, "?")
		// Each of the two restores makes a list of its own.
		work := openDir(t)
		shell(ctx, t, work, "cp "+dir+"/chainstream.dump . && "+backupCommands(t, "restore into a fresh data directory"), "NEW_URL="+plain)
		maker.stop(ctx, t)
		restored := serve(ctx, t, cfg)
		checkRestored(ctx, t, restored, connect(ctx, t, address), want, ids)
	})
}

// TestCopiedDirectory starts a server on a copy of the data directory of one
// that has stopped.
func TestCopiedDirectory(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	dir := openDir(t)
	original := serve(ctx, t, settings{args: []string{"--data-dir", dir + "/data"}})
	id := original.begin(ctx, t, "hello", map[string]string{"name": "Ada"})
	want := original.ends(ctx, t, id)
	original.stop(ctx, t)
	shell(ctx, t, dir, "cp -a data copy")
	for _, name := range []string{"copy", "data"} {
		s := serve(ctx, t, settings{args: []string{"--data-dir", dir + "/" + name}})
		if diff := cmp.Diff(want, s.ends(ctx, t, id)); diff != "" {
			t.Errorf("the log of %s (-before +after):\n%s", name, diff)
		}
	}
}

// checkRestored waits until the executions that were running at the time of a
// dump have ended, and compares everything with what the original had then.
func checkRestored(ctx context.Context, t *testing.T, s *server, conn *pgx.Conn, want map[int64][]event, running []int64) {
	t.Helper()
	group, gctx := errgroup.WithContext(ctx)
	for _, id := range running {
		group.Go(func() error {
			_, err := s.follow(gctx, id, 0)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	got := tables(t, conn)
	if len(got) != len(want) {
		t.Errorf("%d executions have events, want %d", len(got), len(want))
	}
	for id, before := range want {
		log := got[id]
		if err := checkLog(log); err != nil {
			t.Errorf("execution %d: %v", id, err)
		}
		if diff := cmp.Diff(before, log[:min(len(before), len(log))]); diff != "" {
			t.Errorf("execution %d is not what was dumped (-original +restored):\n%s", id, diff)
		}
		goesOn := slices.Contains(running, id)
		if goesOn == (len(log) == len(before)) {
			t.Errorf("execution %d has %d events, at the time of the dump it had %d", id, len(log), len(before))
		}
		ex := s.execution(ctx, t, id)
		if ex.Status != "completed" {
			t.Errorf("execution %d is %s", id, ex.Status)
		}
		checkTexts(t, log, ex)
	}
	next := s.begin(ctx, t, "backed-up", map[string]string{"topic": "easy, and later"})
	if _, taken := want[next]; taken {
		t.Errorf("the id %d of a new execution is taken", next)
	}
	if log := s.ends(ctx, t, next); lastType(log) != "execution-complete" {
		t.Errorf("a new execution ends with %s", lastType(log))
	}
}

// TestRollingUpgrade starts servers at once on an empty database, has one of
// them work on when a newer version has changed the schema under it, and refuses
// to start the older version then.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	database := pgtest.Empty(t)
	processes := make([]*process, 3)
	args := []string{"serve", "--addr", "127.0.0.1:0", "--log-format", "json", "--no-example-docs", "--database-url", database}
	for i := range processes {
		processes[i] = start(t, new(bytes.Buffer), nil, args...)
	}
	applied := 0
	for _, p := range processes {
		if _, err := p.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		lines, _ := p.Stderr.Lines()
		applied += strings.Count(strings.Join(lines, "\n"), "schema brought up to date")
	}
	if applied != 1 {
		t.Errorf("%d servers migrated the empty database, want 1", applied)
	}

	gate := make(chan struct{})
	fake := llmtest.NewServer(t)
	fake.Script("steps", steps(gate, 3))
	old := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", database}})
	for _, p := range processes { // the work is for the one with the model
		p.signal(t, os.Interrupt)
		if code := p.wait(ctx, t); code != 0 {
			t.Errorf("a server ended with code %d", code)
		}
	}
	old.createChain(ctx, t, stepsChain)
	id := old.begin(ctx, t, "steps", nil)
	st, err := old.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	// What a newer version does: it adds, and notes its version.
	conn := connect(ctx, t, database)
	for _, statement := range []string{
		"ALTER TABLE executions ADD COLUMN of_the_future text NOT NULL DEFAULT 'new'",
		"ALTER TABLE events ADD COLUMN of_the_future text",
		"INSERT INTO chainstream_migrations (version_id, is_applied) VALUES (999999, true)",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	journal := walk(ctx, t, st, gate, 3)
	sameLog(t, rows(ctx, t, conn, id), journal)
	if err := old.want(ctx, http.StatusOK, call{method: http.MethodGet, path: "/readyz"}, nil); err != nil {
		t.Error(err)
	}

	again := start(t, new(bytes.Buffer), nil, args...)
	if code := again.wait(ctx, t); code != 1 || !strings.Contains(again.Stderr.Tail(), "newer") {
		t.Errorf("the older version started on the newer schema with code %d: %s", code, again.Stderr.Tail())
	}
}
