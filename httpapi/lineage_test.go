package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/pgtest"
)

const executionsPath = "/api/v1/executions"

// finished runs the chain "two" to its end and answers the path of the execution.
func (a *api) finished() string {
	a.t.Helper()
	m := a.do(call{method: "POST", path: executionsPath, body: run, header: map[string]string{"Prefer": "wait=60"}}).want(http.StatusOK).object()
	return fmt.Sprintf("%s/%v", executionsPath, m["executionId"])
}

// failed ends an execution whose first prompt has completed and answers its path.
func (a *api) failed() string {
	a.t.Helper()
	s := a.script()
	now := time.Now()
	state := events.PromptState{
		PromptID: 1, Name: "Outline", Position: 1, Status: events.PromptCompleted, Attempt: 1, ModelID: "offline/echo",
		UserMessage: "Outline tides", Output: "High tide", InputTokens: 7, OutputTokens: 3, StartedAt: now, FinishedAt: &now,
	}
	in, out := int64(7), int64(3)
	err := s.writer.Append(events.Batch{
		Events: []events.Draft{{Payload: events.ExecutionStart{TotalPrompts: 2, ToolName: "two", ChainID: 1, ChainVersion: 1}},
			{Payload: events.ExecutionError{Error: "it failed", Code: "overloaded"}}},
		Prompts: []events.PromptState{state},
		Outcome: events.Outcome{Status: "failed", Error: "it failed", ErrorCode: "overloaded", InputTokens: &in, OutputTokens: &out, FinishedAt: &now},
	}).Wait(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	return fmt.Sprintf("%s/%d", executionsPath, s.id)
}

func TestRetry(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	parent := a.failed()
	key := map[string]string{"Idempotency-Key": "once"}
	first := a.do(call{method: "POST", path: parent + "/retry", header: key}).want(http.StatusAccepted)
	m := first.object()
	if first.header.Get("Location") != fmt.Sprintf("%s/%v", executionsPath, m["executionId"]) || m["status"] != "queued" || m["chainName"] != "two" {
		t.Errorf("answer %v, %v", m, first.header)
	}
	again := a.do(call{method: "POST", path: parent + "/retry", header: key, body: " { } "}).want(http.StatusAccepted)
	if diff := cmp.Diff(m, again.object()); diff != "" || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("sent again: %s", diff)
	}
	// The same key and body for a fork is another request.
	a.do(call{method: "POST", path: parent + "/fork", header: key}).problem(http.StatusUnprocessableEntity, "idempotency_key_reused")
	child := a.do(call{method: "GET", path: first.header.Get("Location")}).want(http.StatusOK).object()
	if child["parentExecutionId"] != 1.0 || child["origin"] != "retry" {
		t.Errorf("child %v", child)
	}
	list := a.do(call{method: "GET", path: executionsPath + "?parent=1"}).want(http.StatusOK).object()["items"].([]any) //nolint:errcheck,forcetypeassert // described as a list
	if len(list) != 1 {
		t.Errorf("children %v", list)
	}
	a.do(call{method: "GET", path: executionsPath + "?parent=x"}).problem(http.StatusBadRequest, "invalid_parameter")
}

// A retry runs what is left and shows what it took over; it answers as a trigger
// does: as a stream, or with the finished execution.
func TestRetryAnswers(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{workers: 4})
	a.chain(twoPrompts)
	parent := a.finished()
	a.do(call{method: "POST", path: parent + "/retry", body: "{}"}).problem(http.StatusConflict, "execution_completed")

	done := a.do(call{method: "POST", path: parent + "/fork", body: `{"fromPrompt":"draft"}`, header: map[string]string{"Prefer": "wait=60"}}).want(http.StatusOK).object()
	prompts, _ := done["prompts"].([]any)
	outline, _ := prompts[0].(map[string]any)
	from, _ := outline["reusedFrom"].(map[string]any)
	if done["status"] != "completed" || done["origin"] != "fork" || done["fromPrompt"] != "draft" || from["executionId"] != 1.0 || outline["inputTokens"] != 0.0 || outline["output"] == "" {
		t.Errorf("fork: %v", done)
	}
	in, _ := from["inputTokens"].(float64)
	out, _ := from["outputTokens"].(float64)
	if done["reusedTokens"] != in+out || in == 0 || out == 0 {
		t.Errorf("reused %v of %v", done["reusedTokens"], from)
	}
	stream := a.open(call{method: "POST", path: parent + "/fork", body: `{"fromPrompt": 2, "model": "offline/echo", "inputs": {"topic": "moons"}}`, header: map[string]string{"Accept": "text/event-stream"}})
	list := stream.events()
	if len(list) == 0 || field(list[0], "event") != "execution-start" || !strings.Contains(list[0], `"origin": "fork"`) || field(list[len(list)-1], "event") != "execution-complete" {
		t.Errorf("stream %v", list)
	}
}

func TestDeriveProblems(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	parent := a.failed()
	post := func(path, body string) answer { return a.do(call{method: "POST", path: path, body: body}) }
	post(executionsPath+"/99/retry", "").problem(http.StatusNotFound, "execution_not_found")
	post(executionsPath+"/99/fork", `{"surplus": 1}`).problem(http.StatusNotFound, "execution_not_found")
	post(executionsPath+"/x/fork", `{}`).problem(http.StatusNotFound, "execution_not_found")
	post(parent+"/fork", `{"a":`).problem(http.StatusBadRequest, "malformed_body")
	post(parent+"/retry", `[]`).problem(http.StatusUnprocessableEntity, "invalid_request")
	a.do(call{method: "POST", path: parent + "/fork", media: "text/plain", body: "x"}).problem(http.StatusUnsupportedMediaType, "unsupported_media_type")
	queued := post(executionsPath, run).want(http.StatusAccepted).header.Get("Location")
	post(queued+"/retry", "").problem(http.StatusConflict, "execution_running")
	post(queued+"/fork", `{}`).problem(http.StatusConflict, "execution_running")
	for body, want := range map[string][]string{
		`{"fromPrompt":"nowhere","version":7,"model":"x/y"}`:                                                              {"/model", "/version"},
		`{"fromPrompt":"nowhere","inputs":{"topic":7,"b":1},"model":{"draft":"x/y","c":"offline/echo"},"d":1,"limits":1}`: {"/d", "/fromPrompt", "/inputs/b", "/inputs/topic", "/limits", "/model/c", "/model/draft"},
		`{"fromPrompt":[],"version":"1","model":7,"inputs":[]}`:                                                           {"/fromPrompt", "/inputs", "/model", "/version"},
		`{"model":{"draft":1}}`: {"/model/draft"},
		`{"fromPrompt":"draft","model":{"outline":"offline/echo"}}`: {"/model/outline"}, // it is not run
	} {
		var got []string
		for _, e := range post(parent+"/fork", body).problem(http.StatusUnprocessableEntity, "invalid_request").Errors {
			got = append(got, e.Pointer)
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
	if p := post(parent+"/retry", `{"fromPrompt":"draft"}`).problem(http.StatusUnprocessableEntity, "invalid_request"); p.Errors[0].Pointer != "/fromPrompt" {
		t.Errorf("retry from a prompt: %+v", p)
	}
}

// What retention left decides: without events a fork works, without results it
// says so, and the past of a log that is gone cannot be shown.
func TestDeriveAfterRetention(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	parent := a.failed()
	pgtest.Session(t, a.database)("DELETE FROM events WHERE execution_id = 1")
	a.do(call{method: "POST", path: parent + "/fork", body: `{"fromPrompt":"draft"}`}).want(http.StatusAccepted)
	a.do(call{method: "GET", path: parent + "?atSeq=1"}).problem(http.StatusGone, "events_gone")
	now := a.do(call{method: "GET", path: parent}).want(http.StatusOK).object()
	end := a.do(call{method: "GET", path: parent + "?atSeq=2"}).want(http.StatusOK).object()
	if diff := cmp.Diff(now, end); diff != "" {
		t.Errorf("the end, which is stored (-now +atSeq): %s", diff)
	}
	pgtest.Session(t, a.database)("DELETE FROM prompt_results WHERE execution_id = 1")
	a.do(call{method: "POST", path: parent + "/fork", body: `{"fromPrompt":"draft"}`}).problem(http.StatusGone, "results_gone")
	a.do(call{method: "POST", path: parent + "/retry"}).problem(http.StatusGone, "results_gone")
	a.do(call{method: "POST", path: parent + "/fork"}).want(http.StatusAccepted) // takes nothing over
}

func TestAtSeq(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{workers: 4})
	a.chain(twoPrompts)
	parent := a.finished()
	fork := a.do(call{method: "POST", path: parent + "/fork", body: `{"fromPrompt":"draft"}`, header: map[string]string{"Prefer": "wait=60"}}).want(http.StatusOK).header.Get("Location")
	for _, path := range []string{parent, fork} {
		now := a.do(call{method: "GET", path: path}).want(http.StatusOK).object()
		last := int64(now["lastSeq"].(float64)) //nolint:errcheck,forcetypeassert // described as a number
		length := 0
		for seq := range last + 1 {
			past := a.do(call{method: "GET", path: fmt.Sprintf("%s?atSeq=%d", path, seq)}).want(http.StatusOK).object()
			if past["lastSeq"] != float64(seq) {
				t.Errorf("lastSeq %v after event %d", past["lastSeq"], seq)
			}
			want := "running"
			switch seq {
			case 0:
				want = "queued"
			case last:
				want = "completed"
				if diff := cmp.Diff(now, past); diff != "" {
					t.Errorf("the end of %s (-stored +folded): %s", path, diff)
				}
			}
			if past["status"] != want {
				t.Errorf("after event %d of %d it is %v", seq, last, past["status"])
			}
			text := promptTexts(t, past)
			if len(text) < length {
				t.Errorf("after event %d the text shrinks to %q", seq, text)
			}
			length = len(text)
		}
		a.do(call{method: "GET", path: fmt.Sprintf("%s?atSeq=%d", path, last+1)}).problem(http.StatusBadRequest, "invalid_cursor")
		for _, bad := range []string{"-1", "x", ""} {
			a.do(call{method: "GET", path: path + "?atSeq=" + bad}).problem(http.StatusBadRequest, "invalid_cursor")
		}
		a.do(call{method: "GET", path: path + "?atSeq=1&atSeq=2"}).problem(http.StatusBadRequest, "invalid_parameter")
	}
	a.do(call{method: "GET", path: executionsPath + "/99?atSeq=1"}).problem(http.StatusNotFound, "execution_not_found")
}

// promptTexts joins the outputs of an execution.
func promptTexts(t *testing.T, detail map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(detail["prompts"])
	if err != nil {
		t.Fatal(err)
	}
	var prompts []struct{ Output string }
	if err := json.Unmarshal(raw, &prompts); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, p := range prompts {
		b.WriteString(p.Output)
	}
	return b.String()
}
