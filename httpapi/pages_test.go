package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/llm"
)

func TestPages(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	page := a.do(call{method: "GET", path: "/"}).want(http.StatusOK)
	if media := page.header.Get("Content-Type"); media != "text/html; charset=utf-8" {
		t.Errorf("media type %q", media)
	}
	if policy := page.header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'self';") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	etag := page.header.Get("ETag")
	for _, tags := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
		a.do(call{method: "GET", path: "/", header: map[string]string{"If-None-Match": tags}}).want(http.StatusNotModified)
	}
	a.do(call{method: "GET", path: "/", header: map[string]string{"If-None-Match": `"x"`}}).want(http.StatusOK)
	for path, media := range map[string]string{"/app.js": "text/javascript; charset=utf-8", "/deep/a.css": "text/css; charset=utf-8"} {
		res, err := a.client.Do(a.request(call{method: "GET", path: path}))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != media || res.Header.Get("ETag") == etag {
			t.Errorf("%s: %d %v", path, res.StatusCode, res.Header)
		}
	}
	a.do(call{method: "GET", path: "/index.html"}).problem(http.StatusNotFound, "not_found")
	a.do(call{method: "GET", path: "/../go.mod"}).problem(http.StatusNotFound, "not_found")
	a.do(call{method: "GET", path: "/deep"}).problem(http.StatusNotFound, "not_found")
}

func TestNewNeedsAPage(t *testing.T) {
	t.Parallel()
	if _, err := httpapi.New(httpapi.Config{Web: fstest.MapFS{}}); err == nil {
		t.Error("a server without a page was made")
	}
}

func TestModelsAndSchema(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	var models struct {
		Items []struct {
			ID               string
			Demo, Configured bool
		}
	}
	a.do(call{method: "GET", path: "/api/v1/models"}).want(http.StatusOK).decode(&models)
	if len(models.Items) != 2 || models.Items[0].ID != "offline/echo" || !models.Items[0].Demo || models.Items[1].Configured {
		t.Errorf("models %+v", models)
	}
	got := a.do(call{method: "GET", path: "/schemas/chain.json"}).want(http.StatusOK)
	if string(got.body) != string(chain.Schema()) {
		t.Error("the schema is another one")
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := httpapi.NewRegistry()
	finished, err := httpapi.CountExecutions(registry)
	if err != nil {
		t.Fatal(err)
	}
	finished(executor.StatusFailed)
	if err := httpapi.WatchCircuits(registry, func() []executor.Circuit {
		return []executor.Circuit{{Provider: "openai", Model: "m", State: llm.BreakerOpen}}
	}); err != nil {
		t.Fatal(err)
	}
	a := newAPI(t, setup{workers: 2, config: func(c *httpapi.Config) { c.Registry = registry }})
	a.chain(twoPrompts)
	f := a.open(call{method: "POST", path: "/api/v1/executions", body: run, header: map[string]string{"Accept": "text/event-stream"}})
	f.events()
	a.do(call{method: "GET", path: "/nothing/" + strings.Repeat("x", 50)}).want(http.StatusNotFound)
	a.do(call{method: "GET", path: "/events/999"}).want(http.StatusNotFound)
	for series, want := range map[string]string{
		`chainstream_executions_requested_total{result="created"}`:                                "1",
		`chainstream_streams_ended_total{reason="complete"}`:                                      "1",
		`chainstream_executions_finished_total{status="failed"}`:                                  "1",
		`chainstream_executions_finished_total{status="cancelled"}`:                               "0",
		`chainstream_model_circuit_state{model="m",provider="openai"}`:                            "2",
		`chainstream_streams_open`:                                                                "0",
		`chainstream_http_requests_total{method="POST",route="/api/v1/chains",status="201"}`:      "1",
		`chainstream_http_requests_total{method="GET",route="unknown",status="404"}`:              "1",
		`chainstream_http_requests_total{method="GET",route="/events/:executionId",status="404"}`: "1",
	} {
		eventually(t, func() bool { return metric(t, a, series) == want })
	}
	if v := metric(t, a, "chainstream_stream_events_total"); v == "0" || v == "" {
		t.Errorf("%q events were delivered", v)
	}
	if v := metric(t, a, "go_goroutines"); v == "" {
		t.Error("no figures of the process")
	}
}
