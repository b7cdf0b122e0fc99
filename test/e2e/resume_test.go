package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// threePrompts is the shape of the example: an outline and two texts that are
// made of it at the same time.
const threePrompts = `
name: outline-and-drafts
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: Outline, position: 1, model: offline/echo, content: "Write an outline about ${topic}."}
  - {name: Draft, position: 2, model: offline/echo, content: "Expand this outline about ${topic}:\n\n${outline}"}
  - {name: Counterpoint, position: 2, model: offline/echo, content: "Contrast this outline about ${topic}:\n\n${outline}"}
`

// TestResumeAfterEveryEvent follows a live execution and loses the connection
// after every single event. Three clients say in three ways where to go on.
func TestResumeAfterEveryEvent(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	database := pgtest.Database(t)
	s := serve(ctx, t, settings{args: []string{"--database-url", database, "--offline-pace", "5ms"}})
	s.createChain(ctx, t, threePrompts)
	id := s.begin(ctx, t, "outline-and-drafts", map[string]string{"topic": "river deltas"})

	var byHeader, byQuery, calm []event
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		byHeader, err = s.followBy(gctx, id, cursor{}, 1)
		return err
	})
	group.Go(func() (err error) {
		byQuery, err = s.followBy(gctx, id, cursor{query: true}, 1)
		return err
	})
	group.Go(func() (err error) {
		calm, err = s.follow(gctx, id, 0)
		return err
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}

	table := rows(ctx, t, connect(ctx, t, database), id)
	if lastType(table) != "execution-complete" || len(table) < 30 {
		t.Fatalf("the execution ended after %d events with %s", len(table), lastType(table))
	}
	sameLog(t, table, byHeader)
	sameLog(t, table, byQuery)
	sameLog(t, table, calm)

	late, err := s.followBy(ctx, id, cursor{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	sameLog(t, table, late)
	checkTexts(t, table, s.execution(ctx, t, id))
}

// fragileChain asks a fake model, which is in the hands of the test.
const fragileChain = `
name: fragile
prompts:
  - {name: Outline, position: 1, model: openai/outline, content: "Outline."}
  - {name: Left, position: 2, model: openai/left, content: "Left of ${outline}"}
  - {name: Right, position: 2, model: openai/right, content: "Right of ${outline}"}
`

// fragileModel writes an outline at once and then gets stuck in both texts. A
// second attempt writes other words, so that a spliced text would show.
func fragileModel(t *testing.T) *llmtest.Server {
	t.Helper()
	fake := llmtest.NewServer(t)
	fake.Script("outline", llmtest.Text("An ", "outline."))
	fake.Script("left", llmtest.Reply{llmtest.Role(), llmtest.Delta("lost left "), llmtest.Delta("words "), llmtest.Stall()},
		llmtest.Text("what ", "is ", "left"))
	fake.Script("right", llmtest.Reply{llmtest.Role(), llmtest.Delta("lost right words, more of them "), llmtest.Stall()},
		llmtest.Text("what ", "is ", "right"))
	return fake
}

func openAI(fake *llmtest.Server) []string {
	return []string{"OPENAI_BASE_URL=" + fake.URL, "OPENAI_API_KEY=sk-none"}
}

// readUntilStuck reads a stream until both texts of the fragile chain have
// begun.
func readUntilStuck(t *testing.T, st *stream) []event {
	t.Helper()
	var journal []event
	begun := make(map[int64]bool)
	for len(begun) < 2 {
		e, err := st.next()
		if err != nil {
			t.Fatalf("after %d events: %v", len(journal), err)
		}
		journal = append(journal, e)
		if d := decode(t, e); e.Type == "prompt-delta" && strings.HasPrefix(d.Text, "lost ") {
			begun[d.PromptID] = true
		}
	}
	return journal
}

// TestKill kills the server in the middle of a stream and starts it again on
// the same data directory.
func TestKill(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	fake := fragileModel(t)
	dir := openDir(t)
	cfg := settings{env: openAI(fake), args: []string{"--data-dir", dir + "/data"}}
	first := serve(ctx, t, cfg)
	first.createChain(ctx, t, fragileChain)
	id := first.begin(ctx, t, "fragile", nil)
	st, err := first.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	seen := readUntilStuck(t, st)
	first.kill(ctx, t)
	// What was on its way counts as well: the client has it.
	seen = append(seen, st.drain(t)...)

	second := serve(ctx, t, cfg)
	rest, err := second.follow(ctx, id, int64(len(seen)))
	if err != nil {
		t.Fatal(err)
	}
	ex := second.execution(ctx, t, id)
	second.stop(ctx, t)

	table := rows(ctx, t, connectTo(ctx, t, dir+"/data"), id)
	if diff := cmp.Diff(table[:min(len(seen), len(table))], seen); diff != "" {
		t.Errorf("what the client had seen before the kill is not in the table (-table +client):\n%s", diff)
	}
	sameLog(t, table, append(seen, rest...))
	checkFragile(t, fake, ex, table)
}

// TestTerminate stops the server the polite way in the middle of a stream. The
// command line watches all the while and gets over it by itself.
func TestTerminate(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	fake := fragileModel(t)
	dir := openDir(t)
	cfg := settings{env: openAI(fake), args: []string{"--data-dir", dir + "/data", "--shutdown-timeout", "1s"}}
	first := serve(ctx, t, cfg)
	first.createChain(ctx, t, fragileChain)
	id := first.begin(ctx, t, "fragile", nil)
	st, err := first.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	seen := readUntilStuck(t, st)
	output := newRecord()
	watch := start(t, output, nil, "watch", fmt.Sprint(id), "--json", "--server", first.url)
	output.await(ctx, t, watch, "the event that was last", func(line string) bool {
		return strings.HasPrefix(line, fmt.Sprintf(`{"id": %d,`, len(seen)))
	})

	begin := time.Now()
	first.signal(t, syscall.SIGTERM)
	for {
		e, err := st.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("the stream ended with %v, want a clean end", err)
			}
			break
		}
		seen = append(seen, e)
	}
	if st.Retry < 1 {
		t.Errorf("the last retry is %d ms, want the server to say when to come back", st.Retry)
	}
	if code := first.wait(ctx, t); code != 0 {
		t.Errorf("the server ended with code %d, want 0", code)
	}
	// A second for the executions, five for the database at most, and some for
	// a machine that is busy.
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("the server took %s to stop", took)
	}

	cfg.addr = first.addr()
	second := serve(ctx, t, cfg)
	rest, err := second.follow(ctx, id, int64(len(seen)))
	if err != nil {
		t.Fatal(err)
	}
	if code := watch.wait(ctx, t); code != 0 {
		t.Errorf("watch ended with code %d, want 0", code)
	}
	ex := second.execution(ctx, t, id)
	second.stop(ctx, t)
	table := rows(ctx, t, connectTo(ctx, t, dir+"/data"), id)
	sameLog(t, table, append(seen, rest...))
	lines, _ := output.lines()
	if diff := cmp.Diff(asLines(table), lines); diff != "" {
		t.Errorf("watch --json is not the table (-table +watch):\n%s", diff)
	}
	checkFragile(t, fake, ex, table)
}

// checkFragile checks an execution that was interrupted in its second position:
// what was finished is not done again, what was not is one new attempt.
func checkFragile(t *testing.T, fake *llmtest.Server, ex execution, table []event) {
	t.Helper()
	if lastType(table) != "execution-complete" || ex.Status != "completed" {
		t.Errorf("the execution is %s and ended with %s, want it completed", ex.Status, lastType(table))
	}
	type result struct {
		Name    string
		Attempt int
		Output  string
		Calls   int
	}
	want := []result{{"Outline", 1, "An outline.", 1}, {"Left", 2, "what is left", 2}, {"Right", 2, "what is right", 2}}
	var got []result
	for _, p := range ex.Prompts {
		got = append(got, result{p.Name, p.Attempt, p.Output, fake.Count(strings.ToLower(p.Name))})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("prompts (-want +got):\n%s", diff)
	}
	checkTexts(t, table, ex)
}

// data is what the tests read of the data of events.
type data struct {
	PromptID   int64  `json:"promptId"`
	Attempt    int    `json:"attempt"`
	Text       string `json:"text"`
	Offset     int    `json:"offset"`
	Output     string `json:"output"`
	Supersedes int64  `json:"supersedesFromSeq"`
	Code       string `json:"code"`
	Metadata   struct {
		Repaired bool `json:"repaired"`
	} `json:"metadata"`
}

func decode(t *testing.T, e event) data {
	t.Helper()
	var d data
	if err := json.Unmarshal([]byte(e.Data), &d); err != nil {
		t.Fatalf("event %d: %v", e.ID, err)
	}
	return d
}

// checkTexts folds the log as a client does: the deltas of the newest attempt,
// each where the one before ended, are the output of the prompt, and nothing of
// an earlier attempt is in it.
func checkTexts(t *testing.T, log []event, ex execution) {
	t.Helper()
	type state struct {
		attempt int
		begin   int64 // seq of the attempt's first delta; 0 = none yet
		text    string
	}
	prompts := make(map[int64]*state)
	finished := make(map[int64]string)
	for _, e := range log {
		d := decode(t, e)
		p := prompts[d.PromptID]
		if p == nil {
			p = &state{attempt: 1}
			prompts[d.PromptID] = p
		}
		switch e.Type {
		case "prompt-retry":
			if d.Attempt != p.attempt+1 || p.begin > 0 && d.Supersedes > p.begin {
				t.Errorf("event %d makes attempt %d out of %d and voids what stands from %d on; the text began at %d", e.ID, d.Attempt, p.attempt, d.Supersedes, p.begin)
			}
			*p = state{attempt: d.Attempt}
		case "prompt-delta":
			if d.Attempt != p.attempt || d.Offset != utf8.RuneCountInString(p.text) {
				t.Errorf("event %d is text of attempt %d at %d, want attempt %d at %d", e.ID, d.Attempt, d.Offset, p.attempt, utf8.RuneCountInString(p.text))
			}
			if p.begin == 0 {
				p.begin = e.ID
			}
			p.text += d.Text
		case "prompt-complete":
			if d.Attempt != p.attempt || d.Output != p.text {
				t.Errorf("event %d completes attempt %d with %q; the deltas of attempt %d are %q", e.ID, d.Attempt, d.Output, p.attempt, p.text)
			}
			finished[d.PromptID] = p.text
		}
	}
	for _, p := range ex.Prompts {
		if p.Output != finished[p.ID] {
			t.Errorf("prompt %s has the output %q, its log %q", p.Name, p.Output, finished[p.ID])
		}
	}
}

// asLines writes a log as the command line prints it.
func asLines(log []event) []string {
	lines := make([]string, len(log))
	for i, e := range log {
		lines[i] = fmt.Sprintf(`{"id": %d, "event": %q, "data": %s}`, e.ID, e.Type, e.Data)
	}
	return lines
}

// ends waits until an execution has ended and answers its log.
func (s *server) ends(ctx context.Context, t *testing.T, id int64) []event {
	t.Helper()
	log, err := s.follow(ctx, id, 0)
	if err != nil {
		t.Fatal(err)
	}
	return log
}
