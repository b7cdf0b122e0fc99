package e2e_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// crowdChain begins with a model that is in the hands of the test, so that all
// executions are known to be at work at the same moment.
const crowdChain = `
name: crowd
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: Gate, position: 1, model: openai/gate, content: "About ${topic}"}
  - {name: Left, position: 2, model: offline/echo, content: "Echo: ${gate} from the left, about ${topic}"}
  - {name: Right, position: 2, model: offline/echo, content: "Echo: ${gate} from the right, about ${topic}"}
`

// TestThousandExecutions runs 1,000 executions at once on one server, each with
// a subscriber. Every log is without a gap, and every journal is its log.
func TestThousandExecutions(t *testing.T) {
	const crowd = 1000
	ctx := within(t)
	open := make(chan struct{})
	fake := llmtest.NewServer(t)
	fake.Otherwise(func(llmtest.Request) llmtest.Reply {
		return llmtest.Reply{llmtest.Role(), llmtest.Delta("a word "), llmtest.Gate(open), llmtest.Delta("and another"),
			llmtest.Finish("stop"), llmtest.Usage(5, 4), llmtest.Done()}
	})
	database := pgtest.Database(t)
	s := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", database, "--workers", "1000", "--offline-pace", "10ms"}})
	s.createChain(ctx, t, crowdChain)

	ids := make([]int64, crowd)
	journals := make([][]event, crowd)
	subscribers, sctx := errgroup.WithContext(ctx)
	triggers, tctx := errgroup.WithContext(ctx)
	triggers.SetLimit(16)
	for i := range crowd {
		triggers.Go(func() (err error) {
			if ids[i], err = s.trigger(tctx, "crowd", map[string]string{"topic": "deltas"}); err != nil {
				return err
			}
			subscribers.Go(func() (err error) {
				journals[i], err = s.follow(sctx, ids[i], 0)
				return err
			})
			return nil
		})
	}
	if err := triggers.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := fake.Await(ctx, crowd); err != nil {
		t.Fatal(err)
	}
	close(open) // all of them have their model on the line
	if err := subscribers.Wait(); err != nil {
		t.Fatal(err)
	}

	table := tables(t, connect(ctx, t, database))
	if len(table) != crowd {
		t.Errorf("%d executions have events, want %d", len(table), crowd)
	}
	for i, id := range ids {
		log := table[id]
		if err := checkLog(log); err != nil {
			t.Fatalf("execution %d: %v", id, err)
		}
		if lastType(log) != "execution-complete" {
			t.Fatalf("execution %d ended with %s", id, log[len(log)-1].Data)
		}
		if !slices.Equal(log, journals[i]) {
			t.Fatalf("execution %d: the journal is not the table (-table +journal):\n%s", id, cmp.Diff(log, journals[i]))
		}
	}
	if n := fake.Count("gate"); n != crowd {
		t.Errorf("the model was called %d times, want %d", n, crowd)
	}
	var lists struct {
		Items []execution `json:"items"`
	}
	if err := s.want(ctx, http.StatusOK, call{method: http.MethodGet, path: "/api/v1/executions?status=running"}, &lists); err != nil {
		t.Fatal(err)
	}
	if len(lists.Items) != 0 {
		t.Errorf("%d executions are still said to run", len(lists.Items))
	}
}

// tables answers the logs of all executions.
func tables(t *testing.T, conn *pgx.Conn) map[int64][]event {
	t.Helper()
	result, err := conn.Query(t.Context(), `SELECT execution_id, seq, event_type::text, event_data::text FROM events ORDER BY execution_id, seq`)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Execution int64
		event
	}
	list, err := pgx.CollectRows(result, pgx.RowToStructByPos[row])
	if err != nil {
		t.Fatal(err)
	}
	logs := make(map[int64][]event)
	for _, r := range list {
		logs[r.Execution] = append(logs[r.Execution], r.event)
	}
	return logs
}
