package e2e_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sync/errgroup"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// TestReplicas runs three servers on one database, one of which has no workers:
// whoever is asked triggers, streams and cancels what another one runs, and when
// that one is killed a third goes on. How hints travel, and whether a pooler is
// in the way, changes nothing.
func TestReplicas(t *testing.T) {
	for name, reach := range map[string]func(t *testing.T, database string) []string{
		"LISTEN and NOTIFY": func(_ *testing.T, database string) []string {
			return []string{"--database-url", database}
		},
		"NATS": func(t *testing.T, database string) []string {
			return []string{"--database-url", database, "--nats-url", natsURL(t)}
		},
		"PgBouncer": func(t *testing.T, database string) []string {
			return []string{"--database-url", pgtest.NewPooler(t, database), "--listen-database-url", database}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := pgtest.Database(t)
			testReplicas(within(t), t, database, reach(t, database))
		})
	}
}

func testReplicas(ctx context.Context, t *testing.T, database string, reach []string) {
	fake := fragileModel(t)
	fake.Script("cancelled", llmtest.Reply{llmtest.Role(), llmtest.Delta("half an answer"), llmtest.Stall()})
	replica := func(workers int) *server {
		return serve(ctx, t, settings{env: openAI(fake), args: append([]string{"--workers", strconv.Itoa(workers)}, reach...)})
	}
	edge, first := replica(0), replica(10)
	edge.createChain(ctx, t, fragileChain)
	edge.createChain(ctx, t, "name: cancelled\nprompts:\n  - {name: P, position: 1, model: openai/cancelled, content: x}\n")

	// Triggered and cancelled on the edge, run on the first.
	id := edge.begin(ctx, t, "cancelled", nil)
	st, err := edge.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	for {
		e, err := st.next()
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == "prompt-delta" {
			break
		}
	}
	path := "/api/v1/executions/" + strconv.FormatInt(id, 10) + "/cancel"
	if err := edge.want(ctx, http.StatusAccepted, call{method: http.MethodPost, path: path}, nil); err != nil {
		t.Fatal(err)
	}
	cancelled := edge.ends(ctx, t, id)
	if ex := edge.execution(ctx, t, id); ex.Status != "cancelled" || ex.Prompts[0].Output != "half an answer" || lastType(cancelled) != "execution-error" {
		t.Errorf("the execution is %s with the output %q and ends with %s", ex.Status, ex.Prompts[0].Output, lastType(cancelled))
	}
	sameLog(t, rows(ctx, t, connect(ctx, t, database), id), cancelled)

	// Begun on the first, which is killed, and finished on the second.
	id = edge.begin(ctx, t, "fragile", nil)
	st, err = edge.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	seen := readUntilStuck(t, st)
	second := replica(10)
	var journals [2][]event
	readers, rctx := errgroup.WithContext(ctx)
	for i, s := range []*server{edge, second} {
		readers.Go(func() (err error) {
			journals[i], err = s.follow(rctx, id, 0)
			return err
		})
	}
	first.kill(ctx, t)
	if err := readers.Wait(); err != nil {
		t.Fatal(err)
	}
	table := rows(ctx, t, connect(ctx, t, database), id)
	if diff := cmp.Diff(table[:min(len(seen), len(table))], seen); diff != "" {
		t.Errorf("what the client had seen before the kill is not in the table (-table +client):\n%s", diff)
	}
	sameLog(t, table, journals[0])
	sameLog(t, table, journals[1])
	checkFragile(t, fake, edge.execution(ctx, t, id), table)
	for _, s := range []*server{edge, second} {
		if strings.Contains(s.Stderr.Tail(), "--listen-database-url") {
			t.Errorf("hints are not heard:\n%s", s.Stderr.Tail())
		}
		s.stop(ctx, t)
	}
}

// natsURL starts a NATS server in this process.
func natsURL(t *testing.T) string {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not get ready")
	}
	return s.ClientURL()
}
