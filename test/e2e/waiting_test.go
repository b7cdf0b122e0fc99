package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// TestKillWhileWaiting kills the server whose execution waits for the time that
// a provider has named. Another one goes on at that time and not before, and
// one that comes later goes on at once.
func TestKillWhileWaiting(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]bool{"in time": false, "late": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t)
			database, fake := pgtest.Database(t), llmtest.NewServer(t)
			fake.Script("busy", llmtest.Status(http.StatusTooManyRequests, "Retry-After", "5"), llmtest.Text("there ", "at last"))
			first := replica(ctx, t, database, fake, "--max-held-wait", "1s")
			first.createChain(ctx, t, "name: waiting\nprompts: [{name: A, model: openai/busy, content: a}]\n")
			id := first.begin(ctx, t, "waiting", nil)
			eventually(ctx, t, "the execution waits", func() bool { return first.execution(ctx, t, id).Status == "waiting" })
			conn := connect(ctx, t, database)
			var wake time.Time
			if err := conn.QueryRow(ctx, `SELECT wake_at FROM executions WHERE id = $1 AND lease_owner IS NULL`, id).Scan(&wake); err != nil {
				t.Fatal(err)
			}
			first.kill(ctx, t)
			if late {
				eventually(ctx, t, "the time has come", func() (come bool) {
					if err := conn.QueryRow(ctx, `SELECT wake_at < clock_timestamp() FROM executions WHERE id = $1`, id).Scan(&come); err != nil {
						t.Fatal(err)
					}
					return come
				})
			}
			second := replica(ctx, t, database, fake, "--max-held-wait", "1s")
			log := second.ends(ctx, t, id)
			if lastType(log) != "execution-complete" {
				t.Errorf("it ended with %s", lastType(log))
			}
			table := rows(ctx, t, conn, id)
			sameLog(t, table, log)
			checkTexts(t, table, second.execution(ctx, t, id))
			checkEpochs(ctx, t, conn, id, 2)
			var begun time.Time
			if err := conn.QueryRow(ctx, `SELECT max(created_at) FROM events WHERE execution_id = $1 AND event_type = 'prompt-start'`, id).Scan(&begun); err != nil {
				t.Fatal(err)
			}
			if begun.Before(wake) {
				t.Errorf("the next attempt began %s early", wake.Sub(begun))
			}
			t.Logf("the next attempt began %s after its time", begun.Sub(wake).Round(time.Millisecond))
			if n := fake.Count("busy"); n != 2 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// TestKeyIsNeverShown lets the provider echo the key in every way in which it
// can fail. No event, no answer and no line of the log has it.
func TestKeyIsNeverShown(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	const key = "canary-4c1f0b7e9d2a" // like no key that a pattern would find
	message := "Incorrect API key provided: " + key + ". Authorization: Bearer " + key
	database, fake := pgtest.Database(t), llmtest.NewServer(t)
	broken := func(steps ...llmtest.Step) llmtest.Reply {
		return append(llmtest.Reply{llmtest.Role(), llmtest.Delta("x")}, steps...)
	}
	for model, reply := range map[string]llmtest.Reply{
		"body":   llmtest.StatusBody(http.StatusUnauthorized, `{"error": {"message": "`+message+`", "type": "`+key+`", "code": "`+key+`"}}`),
		"header": llmtest.Status(http.StatusBadRequest, "X-Request-Id", key, "Www-Authenticate", "Bearer "+key, "Retry-After", key),
		"html":   llmtest.StatusBody(http.StatusBadGateway, "<html>"+message+"</html>"),
		"stream": broken(llmtest.StreamError(message, key)),
		"junk":   broken(llmtest.Data(`{"` + message)),
		"json":   llmtest.JSON(`{"error": "` + message + `"}`),
		"moved":  llmtest.Status(http.StatusFound, "Location", "http://127.0.0.1:1/?key="+key),
	} {
		fake.Script(model, reply)
	}
	s := serve(ctx, t, settings{
		env: []string{"OPENAI_BASE_URL=" + fake.URL, "OPENAI_API_KEY=" + key}, args: []string{"--database-url", database},
	})
	var shown strings.Builder
	show := func(path, accept string) {
		a, err := s.do(ctx, call{method: http.MethodGet, path: path, header: map[string]string{"Accept": accept}})
		if err != nil {
			t.Fatal(err)
		}
		shown.WriteString(a.body)
	}
	for _, model := range []string{"body", "header", "html", "stream", "junk", "json", "moved"} {
		s.createChain(ctx, t, "name: "+model+"\nprompts: [{name: A, model: openai/"+model+", retry: {attempts: 1}, content: a}]\n")
		id := s.begin(ctx, t, model, nil)
		if log := s.ends(ctx, t, id); lastType(log) != "execution-error" {
			t.Errorf("%s ended with %s", model, lastType(log))
		}
		show(fmt.Sprintf("/events/%d", id), "text/event-stream")
		show(fmt.Sprintf("/api/v1/executions/%d/events", id), "application/x-ndjson")
		show(fmt.Sprintf("/api/v1/executions/%d", id), "application/json")
	}
	show("/api/v1/executions", "application/json")
	show("/metrics", "*/*")
	if n := fake.Calls()[0].Header.Get("Authorization"); n != "Bearer "+key {
		t.Fatalf("the key was not even sent: %q", n)
	}
	if !strings.Contains(shown.String(), "Incorrect API key provided: ***") {
		t.Error("the provider's words are nowhere to be seen, so nothing is shown by this test")
	}
	s.stop(ctx, t)
	lines, _ := s.Stderr.Lines()
	for name, text := range map[string]string{"an answer": shown.String(), "the log": strings.Join(lines, "\n")} {
		if at := strings.Index(text, key); at >= 0 {
			t.Errorf("%s has the key: …%s…", name, text[max(at-200, 0):min(at+200, len(text))])
		}
	}
	var dumped int
	if err := connect(ctx, t, database).QueryRow(ctx, `SELECT count(*) FROM events WHERE event_data::text LIKE '%'||$1||'%'`, key).Scan(&dumped); err != nil || dumped != 0 {
		t.Errorf("%d events have the key, %v", dumped, err)
	}
}
