// Package llmtest is a scripted fake of the model providers' servers, and the
// conformance suite that every llm.Provider passes.
//
// A Fake answers each call by a Reply, a list of steps, in the format that the
// call came in: OpenAI's, Anthropic's or Gemini's. One script serves them all:
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
//
// The package does not import testing, because `chainstream fake-llm` is made of
// it; what it needs of a test are the interfaces TB and T.
package llmtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Call is one request that reached the fake.
type Call struct {
	// Request is what the fake understood of Body.
	Request Request
	Body    []byte
	Header  http.Header
	Path    string
	Peer    string // address and port of the client
	// Note is what the reply said of itself; it is there when Ended is closed.
	Note string
	// Gone is closed when the client closed the connection, or gave the call up,
	// before the reply was over. It is never closed otherwise.
	Gone <-chan struct{}
	// Ended is closed when the reply was over, for whatever reason.
	Ended <-chan struct{}
}

// Fake is an http.Handler that plays a server of models. By its scripts it
// answers POST …/chat/completions (OpenAI), …/messages (Anthropic) and
// …/models/NAME:generateContent and :streamGenerateContent (Gemini), under any
// prefix. It lists the scripted models at …/models in the format of OpenAI or, to
// who sends Anthropic's version header, of Anthropic, at /v1beta/models in
// Gemini's and at /api/tags in Ollama's; /api/version answers as Ollama does, and
// …/embeddings (OpenAI) and …/models/NAME:batchEmbedContents (Gemini) give every
// text the vector of Embedding, unless ScriptEmbeddings says otherwise. …/rerank
// orders documents by the words that they share with the query. It is safe for
// concurrent use.
type Fake struct {
	mu       sync.Mutex
	scripts  map[string][]Reply
	fallback func(Request) Reply

	embeddings     map[string][]EmbedReply
	embedOtherwise func(EmbedRequest) EmbedReply
	embedCalls     []EmbedRequest

	watch   func(*Call)
	calls   []*Call
	arrived chan struct{} // closed and replaced at every call
	closed  chan struct{}
	close   sync.Once
}

// New returns a fake without scripts. Close it when it is no longer needed.
func New() *Fake {
	return &Fake{scripts: map[string][]Reply{}, embeddings: map[string][]EmbedReply{}, arrived: make(chan struct{}), closed: make(chan struct{})}
}

// Server is a Fake that listens on a loopback port.
type Server struct {
	*Fake
	// URL is the base URL to configure OpenAI's format with; it ends in /v1.
	URL string
	// Root is the same without /v1, for the other formats.
	Root string
}

// NewServer starts a fake that is stopped at the end of the test or benchmark.
func NewServer(tb TB) *Server {
	tb.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	fake := New()
	var running sync.RWMutex // read-locked by every handler
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.RLock()
		defer running.RUnlock()
		fake.ServeHTTP(w, r)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until it is closed below
	}()
	tb.Cleanup(func() {
		fake.Close()
		_ = server.Close() // nobody needs the connections any more
		<-ended
		running.Lock() // nothing of a script runs after the test
		defer running.Unlock()
	})
	root := "http://" + listener.Addr().String()
	return &Server{Fake: fake, URL: root + "/v1", Root: root}
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
// error 404 that the wire has for unknown models.
func (f *Fake) Otherwise(reply func(Request) Reply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fallback = reply
}

// Watch has each called with every call that is over, instead of keeping it for
// Calls, Count and Await: a fake that runs for long must not grow.
func (f *Fake) Watch(each func(*Call)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch = each
}

// List names models that are listed although they have no script.
func (f *Fake) List(models ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, model := range models {
		f.scripts[model] = append([]Reply{}, f.scripts[model]...)
	}
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
	name, wire := wireOf(r.URL.Path)
	embedName, embeds := embedWire(r.URL.Path)
	switch {
	case r.Method == http.MethodGet && f.serveList(w, r):
	case r.Method == http.MethodPost && wire != nil:
		f.serveAnswer(w, r, name, wire)
	case r.Method == http.MethodPost && embeds != nil:
		f.serveEmbeddings(w, r, embedName, embeds)
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/rerank"):
		f.serveRerank(w, r)
	default:
		if wire == nil {
			wire = openAIWire{}
		}
		writeBody(w, http.StatusNotFound, wire.failure(http.StatusNotFound, KindNoEndpoint, "no such endpoint"))
	}
}

func (f *Fake) serveAnswer(w http.ResponseWriter, r *http.Request, name string, wire wire) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		return // the client is gone
	}
	gone, ended := make(chan struct{}), make(chan struct{})
	var watch func(*Call)
	call := &Call{Body: body, Header: r.Header.Clone(), Path: r.URL.Path, Peer: r.RemoteAddr, Gone: gone, Ended: ended}
	request, badRequest := wire.request(r, body)
	request.Wire = name
	call.Request = request
	defer func() {
		close(ended)
		if watch != nil {
			watch(call)
		}
	}()

	// The request's context ends with the connection, but also with the handler:
	// the reply is over then and stop has been called.
	stop := context.AfterFunc(r.Context(), func() { close(gone) })
	defer func() {
		switch {
		case !stop():
			<-gone // about to be closed
		case r.Context().Err() != nil: // which the reply noticed first
			close(gone)
		}
	}()

	f.mu.Lock()
	reply, ok := f.nextReply(request)
	watch = f.watch
	if watch == nil {
		f.calls = append(f.calls, call)
		close(f.arrived)
		f.arrived = make(chan struct{})
	}
	f.mu.Unlock()

	switch {
	case badRequest != nil:
		call.Note = "a request that cannot be read"
		writeBody(w, http.StatusBadRequest, wire.failure(http.StatusBadRequest, KindInvalid, badRequest.Error()))
	case !ok:
		call.Note = "no such model"
		message := fmt.Sprintf("The model %q does not exist", request.Model)
		writeBody(w, http.StatusNotFound, wire.failure(http.StatusNotFound, KindNoModel, message))
	default:
		p := &player{w: w, ctx: r.Context(), closed: f.closed, request: request, wire: wire}
		play(p, reply)
		call.Note = p.note
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

// writeBody answers with JSON.
func writeBody(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left has no use for it
}
