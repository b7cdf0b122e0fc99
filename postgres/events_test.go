package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/postgres"
)

// randomJSON writes a random value in a random spelling.
func randomJSON(r *rand.Rand, depth int) string {
	pick := func(options ...string) string { return options[r.IntN(len(options))] }
	space := func() string { return pick("", "", " ", "\n\t") }
	switch n := r.IntN(9); {
	case n == 0 && depth < 4:
		parts := make([]string, r.IntN(4))
		for i := range parts {
			parts[i] = space() + randomJSON(r, depth+1) + space()
		}
		return "[" + strings.Join(parts, ",") + space() + "]"
	case n <= 3 && depth < 4:
		parts := make([]string, r.IntN(6))
		for i := range parts {
			parts[i] = space() + pick(`"a"`, `"b"`, `"bb"`, `"é"`, `"z\u00e9"`, `"aa"`, `""`, `"\n"`, `"Ab"`) + space() + ":" + randomJSON(r, depth+1)
		}
		return "{" + strings.Join(parts, ",") + space() + "}"
	case n <= 5:
		return fmt.Sprintf("%s%d%s%s", pick("", "-"), r.IntN(1000), pick("", ".0", ".50", ".0025"), pick("", "", "e3", "E-4", "e+0", "e15"))
	case n == 6:
		return pick("true", "false", "null", "0", "-0", "0.000", "-0.0e5", "1e-7")
	default:
		s := []rune{'a', 'é', '\n', '\t', '\x01', '\x1f', '\x7f', '"', '\\', '/', '<', '&', ' ', '😀', '\u2028', '\uFFFD', '\b', '\f', '\r'}
		var text []rune
		for range r.IntN(8) {
			text = append(text, s[r.IntN(len(s))])
		}
		raw, _ := json.Marshal(string(text))
		return string(raw)
	}
}

// The bytes that are shown live are the bytes that PostgreSQL prints.
func TestEncodingIsPostgres(t *testing.T) {
	t.Parallel()
	_, url := open(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 40 {
		texts := make([]string, 100)
		for i := range texts {
			texts[i] = randomJSON(r, 0)
		}
		rows, err := conn.Query(t.Context(), "SELECT t::jsonb::text FROM unnest($1::text[]) t", texts)
		if err != nil {
			t.Fatal(err)
		}
		want, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for i := range texts {
			got, err := events.AppendJSONB(nil, []byte(texts[i]))
			if err != nil {
				t.Fatalf("%s: %v", texts[i], err)
			}
			if string(got) != want[i] {
				t.Fatalf("%s\n is %s\nwant %s", texts[i], got, want[i])
			}
		}
	}
}

// claimed stores a chain and answers a claimed execution of it.
func claimed(t *testing.T, s *postgres.Store) executor.Execution {
	t.Helper()
	c, err := chain.Parse(fmt.Appendf(nil, "name: c%d\nprompts:\n  - {name: P, position: 1, model: offline/echo, content: x}\n", rand.Uint32()), chain.FormatYAML)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.CreateChain(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Enqueue(t.Context(), executor.Trigger{Version: v}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Claim(t.Context(), "test", 1, time.Minute)
	if err != nil || len(got) != 1 {
		t.Fatalf("claimed %d, %v", len(got), err)
	}
	return got[0]
}

// What is published live is byte for byte what is read back, with text of all kinds.
func TestLiveAndStoredAreTheSameBytes(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	ex := claimed(t, s)
	broker := events.NewBroker(s, events.BrokerConfig{})
	defer broker.Close()
	log := events.NewLog(s, broker, events.LogConfig{})
	w := log.Writer(ex.ID, ex.Epoch, 0, nil)
	sub, err := broker.Subscribe(t.Context(), ex.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	var live [][]byte
	for _, text := range []string{"plain", "", "\x00\xff\r\n\u2028", `"quoted" \ / <b>&`, "😀é\x01\x7f", strings.Repeat("x", 100_000)} {
		p := w.Append(events.Batch{Events: []events.Draft{
			{Payload: events.PromptDelta{PromptID: 1, Attempt: 1, Text: text, Offset: 1 << 40}, Repaired: true},
			{Stream: "branch:x", Payload: events.KnowledgeRetrieved{RelevanceScore: 0.000001234, Chunks: []events.ChunkRef{{Score: 1}}}},
			{Payload: events.VariableSubstitution{Variables: map[string]string{"long-name": text, "é": "a", "b": text}}},
		}})
		if err := p.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		frames, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			live = append(live, bytes.Clone(f.Wire()))
		}
	}
	records, err := s.Events(t.Context(), ex.ID, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var stored [][]byte
	for _, r := range records {
		stored = append(stored, events.NewFrame(r.Seq, r.Type, r.Data).Wire())
	}
	if diff := cmp.Diff(stored, live); diff != "" {
		t.Error(diff)
	}
	w.Close()
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func record(seq int64) events.Record {
	return events.Record{Seq: seq, Stream: events.MainStream, Type: events.TypeProgress, Data: []byte("{}"), Time: time.Now()}
}

// Of one commit, each append counts by itself: a fenced one leaves nothing and
// harms nobody.
func TestAppendIsFencedPerExecution(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	good, stale, ahead, zombie := claimed(t, s), claimed(t, s), claimed(t, s), claimed(t, s)
	status := events.Outcome{Status: "failed", Error: "x"}
	state := []events.PromptState{{PromptID: 1, Name: "P", Status: "running", StartedAt: time.Now()}}
	stored, err := s.AppendEvents(t.Context(), []events.Append{
		{ExecutionID: good.ID, Epoch: good.Epoch, Records: []events.Record{record(1), record(2)}, Prompts: state},
		{ExecutionID: stale.ID, Epoch: stale.Epoch - 1, Records: []events.Record{record(1)}, Prompts: state, Outcome: status},
		{ExecutionID: ahead.ID, Epoch: ahead.Epoch, PrevSeq: 5, Records: []events.Record{record(6)}, Prompts: state, Outcome: status},
		{ExecutionID: 1 << 40, Epoch: 1, Records: []events.Record{record(1)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[int64]struct{}{good.ID: {}}, stored); diff != "" {
		t.Error(diff)
	}
	for id, want := range map[int64]int64{good.ID: 2, stale.ID: 0, ahead.ID: 0} {
		ex, err := s.Execution(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		states, err := s.PromptStates(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if ex.LastSeq != want || ex.Status != executor.StatusRunning || len(states[id]) != int(min(want, 1)) {
			t.Errorf("execution %d: %+v, %d prompts", id, ex, len(states[id]))
		}
	}
	// After its end an execution takes nothing, whatever the epoch says.
	now := time.Now()
	end := events.Append{ExecutionID: zombie.ID, Epoch: zombie.Epoch, Records: []events.Record{record(1)}, Outcome: events.Outcome{Status: "completed", FinishedAt: &now}}
	if stored, err := s.AppendEvents(t.Context(), []events.Append{end}); err != nil || len(stored) != 1 {
		t.Fatalf("%v, %v", stored, err)
	}
	late := events.Append{ExecutionID: zombie.ID, Epoch: zombie.Epoch, PrevSeq: 1, Records: []events.Record{record(2)}}
	if stored, err := s.AppendEvents(t.Context(), []events.Append{late}); err != nil || len(stored) != 0 {
		t.Errorf("append after the end: %v, %v", stored, err)
	}
}

func TestUnreachableDatabase(t *testing.T) {
	t.Parallel()
	_, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://nobody@127.0.0.1:1/none", ConnectTimeout: time.Second})
	if !errors.Is(err, events.ErrUnavailable) {
		t.Errorf("open: %v", err)
	}
	s, url := open(t)
	ex := claimed(t, s)
	// The server drops the connections under us: the outcome is unknown, not wrong.
	list(t, url, "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	_, err = s.AppendEvents(t.Context(), []events.Append{{ExecutionID: ex.ID, Epoch: ex.Epoch, Records: []events.Record{record(1)}}})
	if err != nil && !events.IsTransient(err) {
		t.Errorf("append on a broken connection: %v", err)
	}
}

// A full disk is told apart from a database that is away, and is known to
// whoever asks whether the database is fine.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	ex := claimed(t, s)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '53100'; END $$`,
		`CREATE TRIGGER no_room BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no_room()`,
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	batch := []events.Append{{ExecutionID: ex.ID, Epoch: ex.Epoch, Records: []events.Record{record(1)}}}
	_, err = s.AppendEvents(t.Context(), batch)
	if !events.IsTransient(err) || !errors.Is(err, events.ErrNoSpace) || !errors.Is(err, events.ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, events.ErrNoSpace) {
		t.Errorf("ping: %v", err)
	}
	if _, err := conn.Exec(t.Context(), `DROP TRIGGER no_room ON events`); err != nil {
		t.Fatal(err)
	}
	if stored, err := s.AppendEvents(t.Context(), batch); err != nil || len(stored) != 1 {
		t.Errorf("append after room was made: %v, %v", stored, err)
	}
}
