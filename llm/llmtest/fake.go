// Package llmtest is a scripted fake of an OpenAI-compatible server, and the
// conformance suite that every llm.Provider passes.
//
// A Fake answers each call by a Reply, a list of steps:
//
//	fake := llmtest.NewServer(t)
//	gate := make(chan struct{})
//	fake.Script("slow", llmtest.Reply{
//		llmtest.Delta("Once "), llmtest.Gate(gate), llmtest.Delta("more"),
//		llmtest.Finish("stop"), llmtest.Usage(12, 2), llmtest.Done(),
//	})
//	fake.Script("flaky", llmtest.Status(503), llmtest.Text("fine now"))
//
// A reply whose steps end without Finish and Done is a truncated answer: the
// body ends cleanly, without an end marker. Nothing in the package waits by the
// clock unless a step says so; tests steer by gates and wait on the channels of
// Call.
package llmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Request is the body of a call as the fake read it.
type Request struct {
	Model               string          `json:"model"`
	Messages            []Message       `json:"messages"`
	Stream              bool            `json:"stream"`
	Temperature         *float64        `json:"temperature"`
	TopP                *float64        `json:"top_p"`
	MaxTokens           int             `json:"max_tokens"`
	MaxCompletionTokens int             `json:"max_completion_tokens"`
	Stop                []string        `json:"stop"`
	Seed                *int64          `json:"seed"`
	ResponseFormat      json.RawMessage `json:"response_format"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

// Message is one message of a Request.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Call is one request that reached the fake.
type Call struct {
	// Request is the decoded body and Body the bytes it was read from.
	Request Request
	Body    []byte
	Header  http.Header
	// Gone is closed when the client closed the connection, or gave the call up,
	// before the reply was over. It is never closed otherwise.
	Gone <-chan struct{}
	// Ended is closed when the reply was over, for whatever reason.
	Ended <-chan struct{}
}

// Fake is an http.Handler that plays an OpenAI-compatible server. It answers
// POST …/chat/completions by its scripts and GET …/models with the scripted
// models, under any prefix. It is safe for concurrent use.
type Fake struct {
	mu       sync.Mutex
	scripts  map[string][]Reply
	fallback func(Request) Reply
	calls    []*Call
	arrived  chan struct{} // closed and replaced at every call
	closed   chan struct{}
	close    sync.Once
}

// New returns a fake without scripts. Close it when it is no longer needed.
func New() *Fake {
	return &Fake{scripts: map[string][]Reply{}, arrived: make(chan struct{}), closed: make(chan struct{})}
}

// Server is a Fake that listens on a loopback port.
type Server struct {
	*Fake
	// URL is the base URL to configure providers with; it ends in /v1.
	URL string
}

// NewServer starts a fake that is stopped at the end of the test or benchmark.
func NewServer(tb testing.TB) *Server {
	tb.Helper()
	fake := New()
	s := httptest.NewServer(fake)
	tb.Cleanup(func() {
		fake.Close() // first, because the server waits for its handlers
		s.Close()
	})
	return &Server{Fake: fake, URL: s.URL + "/v1"}
}

// Close ends all replies that wait, and every later one at its first wait.
func (f *Fake) Close() { f.close.Do(func() { close(f.closed) }) }

// Script queues replies for a model. Each call takes one; the last one stays for
// all further calls.
func (f *Fake) Script(model string, replies ...Reply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scripts[model] = append(f.scripts[model], replies...)
}

// Otherwise answers calls of models without a script. Without it they get the
// error 404 that OpenAI gives to unknown models.
func (f *Fake) Otherwise(reply func(Request) Reply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fallback = reply
}

// Calls returns all calls so far, in the order of their arrival.
func (f *Fake) Calls() []*Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*Call(nil), f.calls...)
}

// Count returns the number of calls of a model, or of all models for "".
func (f *Fake) Count(model string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if model == "" || c.Request.Model == model {
			n++
		}
	}
	return n
}

// Await waits for the call with the given number, counted from 1, and returns
// it. It fails when ctx ends first.
func (f *Fake) Await(ctx context.Context, number int) (*Call, error) {
	for {
		f.mu.Lock()
		calls, arrived := f.calls, f.arrived
		f.mu.Unlock()
		if len(calls) >= number {
			return calls[number-1], nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for call %d, have %d: %w", number, len(calls), context.Cause(ctx))
		}
	}
}

// maxRequest bounds the body of a request.
const maxRequest = 64 << 20

// ServeHTTP implements http.Handler.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/chat/completions") && r.Method == http.MethodPost:
		f.serveCompletion(w, r)
	case strings.HasSuffix(r.URL.Path, "/models") && r.Method == http.MethodGet:
		f.serveModels(w)
	default:
		writeJSON(w, http.StatusNotFound, errorBody("no such endpoint", "invalid_request_error", "unknown_url"))
	}
}

func (f *Fake) serveCompletion(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		return // the client is gone
	}
	gone, ended := make(chan struct{}), make(chan struct{})
	call := &Call{Body: body, Header: r.Header.Clone(), Gone: gone, Ended: ended}
	badRequest := json.Unmarshal(body, &call.Request)
	defer close(ended)

	// The request's context ends with the connection, but also with the handler:
	// the reply is over then and stop has been called.
	stop := context.AfterFunc(r.Context(), func() { close(gone) })
	defer stop()

	f.mu.Lock()
	reply, ok := f.nextReply(call.Request)
	f.calls = append(f.calls, call)
	close(f.arrived)
	f.arrived = make(chan struct{})
	f.mu.Unlock()

	switch {
	case badRequest != nil:
		writeJSON(w, http.StatusBadRequest, errorBody(badRequest.Error(), "invalid_request_error", ""))
	case !ok:
		message := fmt.Sprintf("The model %q does not exist", call.Request.Model)
		writeJSON(w, http.StatusNotFound, errorBody(message, "invalid_request_error", "model_not_found"))
	default:
		play(&player{w: w, ctx: r.Context(), closed: f.closed, request: call.Request}, reply)
	}
}

// nextReply takes the reply for a request; f.mu is held.
func (f *Fake) nextReply(req Request) (Reply, bool) {
	queue := f.scripts[req.Model]
	if len(queue) == 0 {
		if f.fallback == nil {
			return nil, false
		}
		return f.fallback(req), true
	}
	if len(queue) > 1 {
		f.scripts[req.Model] = queue[1:]
	}
	return queue[0], true
}

func (f *Fake) serveModels(w http.ResponseWriter) {
	type model struct {
		ID     string `json:"id"`
		Object string `json:"object"`
	}
	f.mu.Lock()
	models := make([]model, 0, len(f.scripts))
	for name := range f.scripts {
		models = append(models, model{ID: name, Object: "model"})
	}
	f.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": models})
}

func errorBody(message, kind, code string) any {
	inner := map[string]any{"message": message, "type": kind, "param": nil, "code": nil}
	if code != "" {
		inner["code"] = code
	}
	return map[string]any{"error": inner}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a client that left has no use for it
}
