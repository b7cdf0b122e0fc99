package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var update = flag.Bool("update", false, "rewrite the golden files")

// api is a server on a loopback port, with a database of its own.
type api struct {
	t      *testing.T
	url    string
	server *httpapi.Server
	http   *http.Server
	store  *postgres.Store
	broker *events.Broker
	log    *events.Log
	exec   *executor.Executor
	logs   *logBuffer
	client *http.Client

	database string // its connection string
}

// setup changes how an api is made; zero fields leave it as it is.
type setup struct {
	workers int                  // executions at a time; 0 = they stay queued
	queued  int                  // most that wait
	models  map[string]llm.Entry // beside the demo model
	config  func(*httpapi.Config)
}

// newAPI starts a server with the built-in demo model.
func newAPI(t *testing.T, s setup) *api {
	t.Helper()
	database := pgtest.Database(t)
	store, err := postgres.Open(t.Context(), postgres.Config{URL: database})
	if err != nil {
		t.Fatal(err)
	}
	a := &api{t: t, store: store, logs: &logBuffer{}, database: database}
	a.broker = events.NewBroker(store, events.BrokerConfig{Poll: 20 * time.Millisecond})
	a.log = events.NewLog(store, a.broker, events.LogConfig{})
	entries := map[string]llm.Entry{
		"offline": {Provider: &offline.Provider{}, Label: "Offline demo", Demo: true, Models: []string{"echo"}, Fixed: true, Info: map[string]llm.Info{"echo": {Prices: llm.Free()}}},
		"openai":  {Label: "OpenAI", Env: "OPENAI_API_KEY", Models: []string{"gpt-4.1-mini"}},
	}
	maps.Copy(entries, s.models)
	models := llm.NewRegistry(entries)
	a.exec = executor.New(store, a.log, models, executor.Config{
		Owner: "test", Workers: s.workers, MaxQueued: s.queued, Poll: 20 * time.Millisecond, Retry: llm.RetryPolicy{Base: time.Millisecond}, Cache: store,
		Breaker: llm.BreakerPolicy{Consecutive: -1}, // tests let providers fail as often as they like
	})
	a.exec.Start()
	cfg := httpapi.Config{
		Store: store, Runner: a.exec, Broker: a.broker, Models: models, Version: "test", Embeddings: testEmbeddings{models},
		Search: &knowledge.Searcher{Store: store, Embeddings: vocabulary{}, Logger: slog.New(slog.DiscardHandler)},
		Web: fstest.MapFS{
			"index.html": {Data: []byte("<!doctype html><title>Page</title>")},
			"app.js":     {Data: []byte("export {}")},
			"deep/a.css": {Data: []byte("a{}")},
		},
		Logger: slog.New(slog.NewTextHandler(a.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if s.config != nil {
		s.config(&cfg)
	}
	a.server, err = httpapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.listen()
	return a
}

// newFake starts a server on a scripted store, without an executor.
func newFake(t *testing.T, store *scriptedStore, config func(*httpapi.Config)) *api {
	t.Helper()
	a := &api{t: t, logs: &logBuffer{}, broker: events.NewBroker(store, events.BrokerConfig{Poll: 20 * time.Millisecond})}
	cfg := httpapi.Config{
		Store: store, Broker: a.broker, Models: llm.NewRegistry(nil), Version: "test",
		Web:    fstest.MapFS{"index.html": {Data: []byte("<!doctype html>")}},
		Logger: slog.New(slog.NewTextHandler(a.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if config != nil {
		config(&cfg)
	}
	var err error
	if a.server, err = httpapi.New(cfg); err != nil {
		t.Fatal(err)
	}
	a.listen()
	return a
}

// listen serves on a free port until the test ends.
func (a *api) listen() {
	a.t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(a.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	srv := a.server.HTTPServer(ln.Addr().String())
	a.http = srv
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	a.url = "http://" + ln.Addr().String()
	a.client = &http.Client{Transport: &http.Transport{}}
	a.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		a.client.CloseIdleConnections()
		a.broker.Close()
		if err := srv.Shutdown(ctx); err != nil {
			a.t.Errorf("shut down: %v", err)
		}
		a.server.WaitStreams(ctx)
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			a.t.Errorf("serve: %v", err)
		}
		if a.exec == nil {
			return
		}
		if err := a.exec.Stop(ctx); err != nil {
			a.t.Error(err)
		}
		if err := a.log.Close(ctx); err != nil {
			a.t.Error(err)
		}
		a.store.Close()
	})
}

// call is a request of a test.
type call struct {
	method, path string
	media        string // Content-Type; application/json when there is a body and no media
	body         string
	header       map[string]string
	host         string
}

// answer is a response that was read to its end.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

// request makes the request of a call.
func (a *api) request(c call) *http.Request {
	a.t.Helper()
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	req, err := http.NewRequestWithContext(a.t.Context(), c.method, a.url+c.path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	if c.media == "" && c.body != "" {
		c.media = "application/json"
	}
	if c.media != "" {
		req.Header.Set("Content-Type", c.media)
	}
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	req.Host = c.host
	return req
}

// do sends a call, reads the answer and checks it against the API description.
func (a *api) do(c call) answer {
	a.t.Helper()
	return a.send(a.request(c))
}

func (a *api) send(req *http.Request) answer {
	a.t.Helper()
	res, err := a.client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	got := answer{t: a.t, status: res.StatusCode, header: res.Header, body: body}
	checkAnswer(a.t, req.Method, req.URL.Path, got)
	return got
}

// want fails the test unless the answer has the status.
func (r answer) want(status int) answer {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	return r
}

// problem fails the test unless the answer is a problem with the code.
func (r answer) problem(status int, code string) problemBody {
	r.t.Helper()
	r.want(status)
	var p struct {
		problemBody
		Error struct{ Code, Message string } // below /v1
	}
	r.decode(&p)
	if p.Error.Code != "" {
		p.Code, p.Detail = p.Error.Code, p.Error.Message
	}
	if p.Code != code {
		r.t.Fatalf("code %q, want %q: %s", p.Code, code, r.body)
	}
	return p.problemBody
}

type problemBody struct {
	Code, Detail string
	Errors       []struct{ Pointer, Detail, Code string }
}

func (r answer) decode(v any) {
	r.t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		r.t.Fatalf("decode %s: %v", r.body, err)
	}
}

// object decodes an answer that is an object.
func (r answer) object() map[string]any {
	r.t.Helper()
	var m map[string]any
	r.decode(&m)
	return m
}

const twoPrompts = `
name: two
inputs:
  topic: {type: short_text, required: true, maxLength: 50}
prompts:
  - {name: Outline, position: 1, model: offline/echo, content: "Outline ${topic}"}
  - {name: Draft, position: 2, model: offline/echo, content: "Expand ${outline}"}
`

// chain saves a document and answers its id.
func (a *api) chain(document string) int64 {
	a.t.Helper()
	m := a.do(call{method: "POST", path: "/api/v1/chains", media: "application/yaml", body: document}).want(http.StatusCreated).object()
	id, _ := m["id"].(float64)
	return int64(id)
}

// queue starts an execution of the chain "two" and answers its id.
func (a *api) queue() int64 {
	a.t.Helper()
	m := a.do(call{method: "POST", path: "/api/v1/executions", body: `{"chain":"two","inputs":{"topic":"tides"}}`}).want(http.StatusAccepted).object()
	id, _ := m["executionId"].(float64)
	return int64(id)
}

// script is an execution whose log the test writes.
type script struct {
	*api
	id     int64
	writer *events.Writer
}

// script claims a queued execution, so that the test is its executor.
func (a *api) script() *script {
	a.t.Helper()
	a.chain(twoPrompts)
	id := a.queue()
	ex, claimed, err := a.store.ClaimQueued(a.t.Context(), id, "script", time.Hour)
	if err != nil || !claimed {
		a.t.Fatalf("claim execution %d: %v, %v", id, claimed, err)
	}
	s := &script{api: a, id: id, writer: a.log.Writer(id, ex.Epoch, 0, nil)}
	a.t.Cleanup(s.writer.Close)
	return s
}

// write stores events and waits until they are.
func (s *script) write(payloads ...events.Payload) {
	s.t.Helper()
	var b events.Batch
	for _, p := range payloads {
		b.Events = append(b.Events, events.Draft{Payload: p})
		switch p.EventType() {
		case events.TypeExecutionComplete:
			now := time.Now()
			b.Outcome = events.Outcome{Status: string(executor.StatusCompleted), FinishedAt: &now}
		case events.TypeExecutionError:
			now := time.Now()
			b.Outcome = events.Outcome{Status: string(executor.StatusFailed), FinishedAt: &now, Error: "it failed", ErrorCode: "prompt_failed"}
		}
	}
	if err := s.writer.Append(b).Wait(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// whole is a log from the first to the terminal event.
func whole() []events.Payload {
	return []events.Payload{
		events.ExecutionStart{TotalPrompts: 1, ToolName: "two", ChainID: 1, ChainVersion: 1},
		events.PromptStart{PromptID: 1, PromptName: "Outline", Position: 1, TotalPrompts: 1, ModelID: "offline/echo", Attempt: 1},
		events.PromptDelta{PromptID: 1, Attempt: 1, Text: "High\r\ntide \u2028 <b>&", Offset: 0},
		events.ReasoningDelta{PromptID: 1, Attempt: 1, Text: "Hm.", Offset: 0},
		events.PromptComplete{PromptID: 1, OutputTokens: 3, Duration: 12, Output: "High\r\ntide \u2028 <b>&", ModelID: "offline/echo", FinishReason: "stop", Attempt: 1},
		events.Progress{CurrentStep: 1, TotalSteps: 1, Percentage: 100, Message: "Outline is done"},
		events.ExecutionComplete{TotalTokens: 5, Duration: 20, Success: true},
	}
}

func (s *script) path() string { return "/events/" + strconv.FormatInt(s.id, 10) }

// table answers the events that are stored, as they stand in a stream.
func (s *script) table() []string {
	s.t.Helper()
	records, err := s.store.Events(s.t.Context(), s.id, 0, 10_000)
	if err != nil {
		s.t.Fatal(err)
	}
	var list []string
	for _, r := range records {
		list = append(list, string(events.NewFrame(r.Seq, r.Type, r.Data).Wire()))
	}
	return list
}

// feed reads a stream block by block.
type feed struct {
	t      *testing.T
	res    *http.Response
	reader *bufio.Reader
}

// open sends a request and answers the stream that comes back.
func (a *api) open(c call) *feed {
	a.t.Helper()
	res, err := a.client.Do(a.request(c)) //nolint:bodyclose // close of the feed does
	if err != nil {
		a.t.Fatal(err)
	}
	f := &feed{t: a.t, res: res, reader: bufio.NewReader(res.Body)}
	a.t.Cleanup(f.close)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		body, _ := io.ReadAll(res.Body)
		a.t.Fatalf("no stream but %d: %s", res.StatusCode, body)
	}
	return f
}

func (f *feed) close() { f.res.Body.Close() }

// block reads up to an empty line; "" at the end of the stream.
func (f *feed) block() string {
	f.t.Helper()
	var b strings.Builder
	for {
		line, err := f.reader.ReadString('\n')
		b.WriteString(line)
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			f.t.Fatalf("read the stream after %q: %v", b.String(), err)
		}
		if line == "\n" {
			return b.String()
		}
	}
}

// event reads the next event, passing over comments; "" at the end.
func (f *feed) event() string {
	f.t.Helper()
	for {
		b := f.block()
		if b == "" || strings.HasPrefix(b, "id: ") {
			return b
		}
	}
}

// events reads all events to the end.
func (f *feed) events() []string {
	f.t.Helper()
	var list []string
	for e := f.event(); e != ""; e = f.event() {
		list = append(list, e)
	}
	return list
}

// field answers a field of an event.
func field(event, name string) string {
	for line := range strings.SplitSeq(event, "\n") {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			return v
		}
	}
	return ""
}

// logBuffer keeps what a server logs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) lines(containing string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for line := range strings.SplitSeq(l.b.String(), "\n") {
		if strings.Contains(line, containing) {
			list = append(list, line)
		}
	}
	return list
}

var (
	uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)
	times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
)

// golden compares a text with a file, ids and times aside.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = times.ReplaceAllString(uuids.ReplaceAllString(got, "UUID"), "TIME")
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// parse reads a YAML document.
func parse(t *testing.T, document string) *chain.Chain {
	t.Helper()
	c, err := chain.Parse([]byte(document), chain.FormatYAML)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
