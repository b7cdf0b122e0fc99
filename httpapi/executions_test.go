package httpapi_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/pgtest"
)

const run = `{"chain":"two","inputs":{"topic":"tides"}}`

func TestTrigger(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	id := a.chain(twoPrompts)
	for _, body := range []string{run, fmt.Sprintf(`{"chain":%d,"version":1,"inputs":{"topic":"x"},"metadata":{"a":[1]},"limits":{"timeout":"90s","maxCostUsd":0.25},"priority":-3}`, id), fmt.Sprintf(`{"chain":"%d","version":null,"inputs":{"topic":"x"},"limits":null,"metadata":null}`, id)} {
		got := a.do(call{method: "POST", path: "/api/v1/executions", body: body}).want(http.StatusAccepted)
		m := got.object()
		n := strconv.FormatFloat(m["executionId"].(float64), 'f', 0, 64) //nolint:errcheck,forcetypeassert // described as an integer, and checked
		if got.header.Get("Location") != "/api/v1/executions/"+n || m["eventsUrl"] != "/events/"+n || m["status"] != "queued" || m["chainName"] != "two" {
			t.Errorf("answer %v, Location %q", m, got.header.Get("Location"))
		}
	}
	detail := a.do(call{method: "GET", path: "/api/v1/executions/2"}).want(http.StatusOK).object()
	if diff := cmp.Diff(map[string]any{"timeout": "1m30s", "maxCostUsd": 0.25}, detail["limits"]); diff != "" {
		t.Error(diff)
	}
	if detail["priority"] != -3.0 {
		t.Errorf("priority %v", detail["priority"])
	}
	if diff := cmp.Diff(map[string]any{"a": []any{1.0}}, detail["metadata"]); diff != "" {
		t.Error(diff)
	}
	prompts, _ := detail["prompts"].([]any)
	if len(prompts) != 2 {
		t.Fatalf("prompts %v", detail["prompts"])
	}
	for i, name := range []string{"Outline", "Draft"} {
		if p, _ := prompts[i].(map[string]any); p["status"] != "pending" || p["name"] != name || p["attempt"] != 0.0 {
			t.Errorf("prompt %d: %v", i, p)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain(twoPrompts)
	key := map[string]string{"Idempotency-Key": "0f3c"}
	first := a.do(call{method: "POST", path: "/api/v1/executions", body: run, header: key}).want(http.StatusAccepted)
	again := a.do(call{method: "POST", path: "/api/v1/executions", body: ` {"inputs": {"topic": "tides"}, "chain": "two"}`, header: key}).want(http.StatusAccepted)
	if diff := cmp.Diff(first.object(), again.object()); diff != "" {
		t.Error(diff)
	}
	if first.header.Get("Idempotency-Replayed") != "" || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("replayed %q, %q", first.header, again.header)
	}
	a.do(call{method: "POST", path: "/api/v1/executions", body: `{"chain":"two","inputs":{"topic":"moon"}}`, header: key}).problem(http.StatusUnprocessableEntity, "idempotency_key_reused")
	if list := a.do(call{method: "GET", path: "/api/v1/executions"}).object()["items"].([]any); len(list) != 1 { //nolint:errcheck,forcetypeassert // described as a list
		t.Errorf("%d executions", len(list))
	}
	// The answer outlives the chain that it was given for.
	a.do(call{method: "DELETE", path: "/api/v1/chains/two"}).want(http.StatusNoContent)
	gone := a.do(call{method: "POST", path: "/api/v1/executions", body: run, header: key}).want(http.StatusAccepted)
	if diff := cmp.Diff(first.object()["executionId"], gone.object()["executionId"]); diff != "" {
		t.Errorf("after the chain was deleted: %s", diff)
	}
}

func TestMetadataIsBounded(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain(twoPrompts)
	send := func(n int) answer {
		return a.do(call{method: "POST", path: "/api/v1/executions", body: fmt.Sprintf(`{"chain":"two","inputs":{"topic":"x"},"metadata":{"a":%q}}`, strings.Repeat("x", n))})
	}
	send(16<<10 - len(`{"a":""}`)).want(http.StatusAccepted)
	send(16<<10).problem(http.StatusUnprocessableEntity, "invalid_request")
}

func TestPreferWait(t *testing.T) {
	t.Parallel()
	t.Run("ends in time", func(t *testing.T) {
		t.Parallel()
		a := newAPI(t, setup{workers: 4})
		a.chain(twoPrompts)
		got := a.do(call{method: "POST", path: "/api/v1/executions", body: run, header: map[string]string{"Prefer": "respond-async, wait=500"}}).want(http.StatusOK)
		if applied := got.header.Get("Preference-Applied"); applied != "wait=60" {
			t.Errorf("Preference-Applied %q", applied)
		}
		m := got.object()
		if m["status"] != "completed" || m["finishedAt"] == nil || m["error"] != nil {
			t.Errorf("answer %v", m)
		}
		prompts, _ := m["prompts"].([]any)
		for _, p := range prompts {
			if p, _ := p.(map[string]any); p["status"] != "completed" || p["output"] == "" {
				t.Errorf("prompt %v", p)
			}
		}
	})
	t.Run("takes longer", func(t *testing.T) {
		t.Parallel()
		a := newAPI(t, setup{})
		a.chain(twoPrompts)
		got := a.do(call{method: "POST", path: "/api/v1/executions", body: run, header: map[string]string{"Prefer": "wait=1"}}).want(http.StatusAccepted)
		if got.header.Get("Preference-Applied") != "wait=1" {
			t.Errorf("headers %v", got.header)
		}
	})
	t.Run("cannot be read", func(t *testing.T) {
		t.Parallel()
		a := newAPI(t, setup{})
		a.chain(twoPrompts)
		for _, prefer := range []string{"wait=-1", "wait=abc", "wait", "handling=lenient", "wait=0"} {
			got := a.do(call{method: "POST", path: "/api/v1/executions", body: run, header: map[string]string{"Prefer": prefer}}).want(http.StatusAccepted)
			if got.header.Get("Preference-Applied") != "" {
				t.Errorf("%s was applied", prefer)
			}
		}
	})
}

func TestListExecutions(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	id := a.chain(twoPrompts)
	before := time.Now().Add(-time.Minute)
	for range 5 {
		a.queue()
	}
	a.do(call{method: "POST", path: "/api/v1/executions/3/cancel"}).want(http.StatusAccepted)
	eventually(t, func() bool {
		return a.do(call{method: "GET", path: "/api/v1/executions/3"}).object()["status"] == "cancelled"
	})
	after := url.QueryEscape(time.Now().Add(time.Minute).Format(time.RFC3339))
	for query, want := range map[string][]float64{
		"":                           {5, 4, 3, 2, 1},
		"?chain=two":                 {5, 4, 3, 2, 1},
		fmt.Sprintf("?chain=%d", id): {5, 4, 3, 2, 1},
		"?chain=none":                nil,
		"?status=cancelled":          {3},
		"?status=queued&limit=3":     {5, 4, 2},
		"?cursor=3":                  {2, 1},
		"?from=" + after:             nil,
		"?to=" + after:               {5, 4, 3, 2, 1},
		"?to=" + url.QueryEscape(before.Format(time.RFC3339)): nil,
	} {
		var ids []float64
		items, _ := a.do(call{method: "GET", path: "/api/v1/executions" + query}).want(http.StatusOK).object()["items"].([]any)
		for _, item := range items {
			m, _ := item.(map[string]any)
			n, _ := m["executionId"].(float64)
			ids = append(ids, n)
		}
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	var pages []float64
	for path := "/api/v1/executions?limit=2"; path != ""; {
		m := a.do(call{method: "GET", path: path}).want(http.StatusOK).object()
		items, _ := m["items"].([]any)
		pages = append(pages, float64(len(items)))
		path = ""
		if next, ok := m["nextCursor"].(string); ok {
			path = "/api/v1/executions?limit=2&cursor=" + next
		}
	}
	if diff := cmp.Diff([]float64{2, 2, 1}, pages); diff != "" {
		t.Error(diff)
	}
}

func TestCancelAndDelete(t *testing.T) {
	t.Parallel()
	s := newAPI(t, setup{}).script()
	path := "/api/v1/executions/" + strconv.FormatInt(s.id, 10)
	s.do(call{method: "DELETE", path: path}).problem(http.StatusConflict, "execution_running")
	if m := s.do(call{method: "POST", path: path + "/cancel"}).want(http.StatusAccepted).object(); m["cancelRequested"] != true {
		t.Errorf("answer %v", m)
	}
	s.write(whole()[0], events.ExecutionError{Error: "it failed", Code: "prompt_failed"})
	m := s.do(call{method: "GET", path: path}).want(http.StatusOK).object()
	if diff := cmp.Diff(map[string]any{"code": "prompt_failed", "message": "it failed"}, m["error"]); diff != "" {
		t.Error(diff)
	}
	s.do(call{method: "POST", path: path + "/cancel"}).problem(http.StatusConflict, "execution_finished")
	s.do(call{method: "DELETE", path: path}).want(http.StatusNoContent)
	s.do(call{method: "GET", path: path}).problem(http.StatusNotFound, "execution_not_found")
	s.do(call{method: "GET", path: path + "/events"}).problem(http.StatusNotFound, "execution_not_found")
	s.do(call{method: "GET", path: s.path()}).problem(http.StatusNotFound, "execution_not_found")
}

// An execution that waits for a time says until when, and is cancelled at once.
func TestWaitingExecution(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain(twoPrompts)
	id := a.queue()
	pgtest.Session(t, a.database)("UPDATE executions SET status = 'waiting', wake_at = '2126-11-25 12:00:00+00'")
	path := fmt.Sprintf("/api/v1/executions/%d", id)
	got := a.do(call{method: "GET", path: path}).want(http.StatusOK).object()
	if got["status"] != "waiting" || got["wakeAt"] != "2126-11-25T12:00:00Z" {
		t.Errorf("%v until %v", got["status"], got["wakeAt"])
	}
	listed := a.do(call{method: "GET", path: "/api/v1/executions?status=waiting"}).want(http.StatusOK).object()
	if items, _ := listed["items"].([]any); len(items) != 1 {
		t.Errorf("listed: %v", listed)
	}
	a.do(call{method: "POST", path: path + "/cancel"}).want(http.StatusAccepted)
	eventually(t, func() bool {
		got := a.do(call{method: "GET", path: path}).want(http.StatusOK).object()
		return got["status"] == "cancelled" && got["wakeAt"] == nil
	})
}

// The response cache through the API: what a trigger, a retry and a fork may say
// of it, and what an execution shows.
func TestResponseCache(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{workers: 4})
	document := "name: remembered\nprompts:\n  - {name: P, model: offline/echo, content: \"echo: hi\", cache: {ttl: 1h}}\n"
	a.do(call{method: "POST", path: "/api/v1/chains", body: document, header: map[string]string{"Content-Type": "application/yaml"}}).want(http.StatusCreated)
	wait := map[string]string{"Prefer": "wait=60"}
	trigger := func(path, body string) (detail, prompt map[string]any) {
		t.Helper()
		detail = a.do(call{method: "POST", path: path, body: body, header: wait}).want(http.StatusOK).object()
		prompt, _ = detail["prompts"].([]any)[0].(map[string]any) //nolint:forcetypeassert // described as a list of objects
		return detail, prompt
	}
	for _, step := range []struct {
		body, mode string
		cached     bool
	}{
		{`{"chain":"remembered","cache":"off"}`, "off", false},
		{`{"chain":"remembered","cache":null}`, "on", false},
		{`{"chain":"remembered","cache":"on"}`, "on", true},
		{`{"chain":"remembered","cache":"refresh"}`, "refresh", false},
	} {
		detail, prompt := trigger(executionsPath, step.body)
		if detail["cache"] != step.mode || prompt["cached"] != step.cached || prompt["output"] != "hi" {
			t.Errorf("%s: %v, cached %v", step.body, detail["cache"], prompt["cached"])
		}
	}
	detail, prompt := trigger(executionsPath, `{"chain":"remembered"}`)
	from, _ := prompt["cachedFrom"].(map[string]any)
	if from["executionId"] != 4.0 || detail["savedTokens"] != from["inputTokens"].(float64)+from["outputTokens"].(float64) || //nolint:errcheck,forcetypeassert // described as numbers
		prompt["inputTokens"] != 0.0 || prompt["costUsd"] != 0.0 || detail["savedTokens"] == 0.0 {
		t.Errorf("the hit: %v in %v", prompt, detail)
	}
	fork := fmt.Sprintf("%s/%v/fork", executionsPath, detail["executionId"])
	if detail, prompt = trigger(fork, `{"cache":"off"}`); detail["cache"] != "off" || prompt["cached"] != false {
		t.Errorf("fork without the cache: %v", detail)
	}
	fork = fmt.Sprintf("%s/%v/fork", executionsPath, detail["executionId"])
	if detail, _ = trigger(fork, `{}`); detail["cache"] != "off" {
		t.Errorf("a fork of it: %v", detail["cache"])
	}
	for _, bad := range []string{`"maybe"`, `true`, `""`} {
		p := a.do(call{method: "POST", path: executionsPath, body: `{"chain":"remembered","cache":` + bad + `}`}).problem(http.StatusUnprocessableEntity, "invalid_request")
		if len(p.Errors) != 1 || p.Errors[0].Pointer != "/cache" {
			t.Errorf("cache %s: %v", bad, p)
		}
	}
}

// A picture goes in with a trigger, and what is wrong with one is said where it is.
func TestTriggerWithAnImage(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{workers: 2})
	document := `
name: look
inputs: {photo: {type: file, required: true}}
prompts:
  - {name: Look, model: offline/echo, content: "echo: ${photo.name}", images: [photo]}
`
	a.do(call{method: "POST", path: "/api/v1/chains", body: document, header: map[string]string{"Content-Type": "application/yaml"}}).want(http.StatusCreated)
	body := func(content string) string {
		return `{"chain":"look","inputs":{"photo":{"name":"cat.png","mimeType":"image/png","base64":"` + base64.StdEncoding.EncodeToString([]byte(content)) + `"}}}`
	}
	picture := "\x89PNG\r\n\x1a\n" + strings.Repeat("x", 2<<20)
	detail := a.do(call{method: "POST", path: executionsPath, body: body(picture), header: map[string]string{"Prefer": "wait=60"}}).want(http.StatusOK).object()
	prompt, _ := detail["prompts"].([]any)[0].(map[string]any) //nolint:forcetypeassert // described as a list of objects
	if detail["status"] != "completed" || prompt["output"] != "cat.png" {
		t.Errorf("%v, %v", detail["status"], prompt)
	}
	list := a.do(call{method: "GET", path: executionsPath}).want(http.StatusOK)
	if len(list.body) > 10_000 {
		t.Errorf("a list of one execution has %d bytes", len(list.body))
	}
	p := a.do(call{method: "POST", path: executionsPath, body: body("no image")}).problem(http.StatusUnprocessableEntity, "invalid_request")
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/inputs/photo/base64" {
		t.Errorf("%+v", p)
	}
	a.do(call{method: "POST", path: executionsPath, body: body(picture + picture)}).problem(http.StatusRequestEntityTooLarge, "body_too_large")
}
