package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/postgres/embedded"
)

// call is a request to the API.
type call struct {
	method, path string
	media        string // of the body; default application/json
	body         string
	header       map[string]string
	host         string
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request and reads the whole answer.
func (s *server) do(ctx context.Context, c call) (answer, error) {
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, s.url+c.path, body)
	if err != nil {
		return answer{}, err
	}
	if c.media == "" && c.body != "" {
		c.media = "application/json"
	}
	if c.media != "" {
		req.Header.Set("Content-Type", c.media)
	}
	if s.authorization != "" {
		req.Header.Set("Authorization", s.authorization)
	}
	for name, value := range c.header {
		req.Header.Set(name, value)
	}
	req.Host = c.host
	res, err := s.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, header: res.Header, body: string(text)}, err
}

// want sends a request, checks the status and decodes the answer into v, which
// may be nil.
func (s *server) want(ctx context.Context, status int, c call, v any) error {
	a, err := s.do(ctx, c)
	if err != nil {
		return err
	}
	if a.status != status {
		return fmt.Errorf("%s %s: status %d, want %d: %s", c.method, c.path, a.status, status, a.body)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		return fmt.Errorf("%s %s: %w", c.method, c.path, err)
	}
	return nil
}

// createChain stores a chain document in YAML.
func (s *server) createChain(ctx context.Context, t *testing.T, document string) {
	t.Helper()
	if err := s.want(ctx, http.StatusCreated, call{method: http.MethodPost, path: "/api/v1/chains", media: "application/yaml", body: document}, nil); err != nil {
		t.Fatal(err)
	}
}

// trigger starts an execution and answers its id.
func (s *server) trigger(ctx context.Context, chain string, inputs map[string]string) (int64, error) {
	body, err := json.Marshal(map[string]any{"chain": chain, "inputs": inputs})
	if err != nil {
		return 0, err
	}
	var ex execution
	err = s.want(ctx, http.StatusAccepted, call{method: http.MethodPost, path: "/api/v1/executions", body: string(body)}, &ex)
	return ex.ID, err
}

// begin is trigger for tests that start one execution.
func (s *server) begin(ctx context.Context, t *testing.T, chain string, inputs map[string]string) int64 {
	t.Helper()
	id, err := s.trigger(ctx, chain, inputs)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// execution is what the tests read of an execution.
type execution struct {
	ID      int64  `json:"executionId"`
	Status  string `json:"status"`
	Prompts []struct {
		ID      int64  `json:"promptId"`
		Name    string `json:"name"`
		Attempt int    `json:"attempt"`
		Output  string `json:"output"`
	} `json:"prompts"`
}

func (s *server) execution(ctx context.Context, t *testing.T, id int64) execution {
	t.Helper()
	var ex execution
	if err := s.want(ctx, http.StatusOK, call{method: http.MethodGet, path: fmt.Sprintf("/api/v1/executions/%d", id)}, &ex); err != nil {
		t.Fatal(err)
	}
	return ex
}

// connect opens the database behind a server.
func connect(ctx context.Context, t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// connectTo starts the database of a data directory whose server has stopped,
// and opens it.
func connectTo(ctx context.Context, t *testing.T, dir string) *pgx.Conn {
	t.Helper()
	cluster, err := embedded.Start(ctx, embedded.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	return connect(ctx, t, cluster.SocketURL())
}

// rows answers the log of an execution as the table has it.
func rows(ctx context.Context, t *testing.T, conn *pgx.Conn, execution int64) []event {
	t.Helper()
	result, err := conn.Query(ctx, `SELECT seq, event_type::text, event_data::text FROM events WHERE execution_id = $1 ORDER BY seq`, execution)
	if err != nil {
		t.Fatal(err)
	}
	log, err := pgx.CollectRows(result, pgx.RowToStructByPos[event])
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// checkLog checks what holds for the log of every execution that has ended:
// the ids are 1, 2, 3 … and the one terminal event stands at the end.
func checkLog(log []event) error {
	for i, e := range log {
		if e.ID != int64(i)+1 {
			return fmt.Errorf("event %d stands at place %d", e.ID, i+1)
		}
		if e.Terminal() != (i == len(log)-1) {
			return fmt.Errorf("%s is event %d of %d", e.Type, i+1, len(log))
		}
	}
	if len(log) == 0 {
		return fmt.Errorf("the log is empty")
	}
	return nil
}

// sameLog checks a finished log and that what a client has seen is the same.
func sameLog(t *testing.T, table, seen []event) {
	t.Helper()
	if err := checkLog(table); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(table, seen); diff != "" {
		t.Errorf("what the client saw is not what the table has (-table +client):\n%s", diff)
	}
}

// lastType answers the type of the last event.
func lastType(log []event) string {
	if len(log) == 0 {
		return ""
	}
	return log[len(log)-1].Type
}
