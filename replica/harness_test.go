package replica_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/replica"
)

// never is a poll that a test does not live to see.
const never = time.Hour

// patience bounds what a test waits for; it only runs out when something is broken.
const patience = time.Minute

// process is a server without HTTP: everything that replicas consist of.
type process struct {
	t      *testing.T
	name   string
	store  *postgres.Store
	bus    *replica.Bus
	broker *events.Broker
	log    *events.Log
	exec   *executor.Executor
	logs   *record
}

// options say how a process is started.
type options struct {
	database  string
	workers   int
	poll      time.Duration        // of broker and executor
	transport replica.Transport    // nil = LISTEN and NOTIFY
	hints     postgres.HintsConfig // of LISTEN and NOTIFY; the URL is the database's
	models    map[string]llm.Entry
}

// start starts a process; it stops with the test.
func start(t *testing.T, name string, o options) *process {
	t.Helper()
	p := &process{t: t, name: name, logs: newRecord()}
	logger := slog.New(slog.NewTextHandler(p.logs, nil)).With("process", name)
	var err error
	if p.store, err = postgres.Open(t.Context(), postgres.Config{URL: o.database}); err != nil {
		t.Fatal(err)
	}
	if o.transport == nil {
		o.hints.URL, o.hints.Logger = o.database, logger
		o.transport = listenNotify(t, o.hints)
	}
	all := map[string]llm.Entry{"offline": {Provider: &offline.Provider{}, Label: "Offline demo", Demo: true}}
	maps.Copy(all, o.models)
	p.bus = replica.NewBus(o.transport, replica.Config{Logger: logger})
	p.broker = events.NewBroker(p.store, events.BrokerConfig{Poll: o.poll, Announcer: p.bus, Logger: logger})
	p.log = events.NewLog(p.store, p.broker, events.LogConfig{Logger: logger})
	p.exec = executor.New(p.store, p.log, llm.NewRegistry(all), executor.Config{
		Owner: name, Workers: o.workers, Poll: o.poll, Renew: o.poll, Lease: 2 * never, Announcer: p.bus, Logger: logger,
	})
	p.exec.Start()
	p.bus.Start(replica.ReceiverFunc(p.receive))
	t.Cleanup(p.stop)
	return p
}

func listenNotify(t *testing.T, cfg postgres.HintsConfig) *postgres.Hints {
	t.Helper()
	h, err := postgres.NewHints(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// interrupt stops the executor in the middle of what it does; the rest goes on.
func (p *process) interrupt() {
	p.t.Helper()
	expired, cancel := context.WithCancel(p.t.Context())
	cancel()
	if err := p.exec.Stop(expired); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) receive(h replica.Hint) {
	if h.All {
		p.broker.HintAll()
		p.exec.HintQueued()
		p.exec.HintCancelled()
		return
	}
	p.broker.Hint(h.Grown...)
	if h.Queue {
		p.exec.HintQueued()
	}
	if len(h.Cancel) > 0 {
		p.exec.HintCancelled(h.Cancel...)
	}
}

func (p *process) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.broker.Close()
	if err := p.exec.Stop(ctx); err != nil {
		p.t.Error(err)
	}
	if err := p.log.Close(ctx); err != nil {
		p.t.Error(err)
	}
	p.bus.Close(ctx)
	p.store.Close()
	if p.t.Failed() {
		p.t.Logf("log of %s:\n%s", p.name, p.logs)
	}
}

// chain stores a chain from its YAML.
func (p *process) chain(document string) *chain.Version {
	p.t.Helper()
	c, err := chain.Parse([]byte(document), chain.FormatYAML)
	if err != nil {
		p.t.Fatal(err)
	}
	v, err := p.store.CreateChain(p.t.Context(), c)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

// trigger queues an execution of a chain without inputs.
func (p *process) trigger(v *chain.Version) int64 {
	p.t.Helper()
	ex, _, err := p.exec.Trigger(p.t.Context(), executor.Trigger{Version: v, Inputs: map[string]any{}})
	if err != nil {
		p.t.Fatal(err)
	}
	return ex.ID
}

// journal is what a subscriber got.
type journal struct {
	process string
	wire    strings.Builder
	last    events.Type
	err     error
}

// follow reads the log of an execution from the beginning to the end in the
// background. seen is called after every event.
func (p *process) follow(id int64, seen func(events.Frame)) <-chan *journal {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	sub, err := p.broker.Subscribe(ctx, id, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan *journal, 1)
	go func() {
		defer cancel()
		defer sub.Close()
		j := &journal{process: p.name}
		for j.err == nil {
			var frames []events.Frame
			frames, j.err = sub.Next(ctx)
			for _, f := range frames {
				j.wire.Write(f.Wire())
				j.last = f.Type
				if seen != nil {
					seen(f)
				}
			}
		}
		if errors.Is(j.err, io.EOF) {
			j.err = nil
		}
		ended <- j
	}()
	return ended
}

// sameLogs waits for journals and compares them with the table.
func (p *process) sameLogs(id int64, journals ...<-chan *journal) {
	p.t.Helper()
	for _, ended := range journals {
		j := <-ended
		if j.err != nil {
			p.t.Errorf("subscriber on %s: %v", j.process, j.err)
		}
		records, err := p.store.Events(p.t.Context(), id, 0, 100_000)
		if err != nil {
			p.t.Fatal(err)
		}
		var table strings.Builder
		for _, r := range records {
			table.Write(events.NewFrame(r.Seq, r.Type, r.Data).Wire())
		}
		if diff := cmp.Diff(table.String(), j.wire.String()); diff != "" {
			p.t.Errorf("subscriber on %s (-table +journal):\n%s", j.process, diff)
		}
		if !j.last.Terminal() {
			p.t.Errorf("subscriber on %s: the last event is %s", j.process, j.last)
		}
	}
}

// await waits for an execution to end and answers it.
func (p *process) await(id int64) executor.Execution {
	p.t.Helper()
	p.sameLogs(id, p.follow(id, nil))
	ex, err := p.store.Execution(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return ex
}

// gated is a provider that says a word for every token it is given.
type gated struct {
	once   sync.Once
	words  chan string // closed = the answer is complete
	closed chan struct{}
}

func newGated() *gated { return &gated{words: make(chan string), closed: make(chan struct{})} }

// Stream implements llm.Provider. It notes when its connection is closed.
func (g *gated) Stream(ctx context.Context, _ llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		for {
			select {
			case word, more := <-g.words:
				if !more {
					yield(llm.Chunk{FinishReason: llm.FinishStop, Usage: &llm.Usage{InputTokens: 1, OutputTokens: 1}}, nil)
					return
				}
				if !yield(llm.Chunk{Text: word}, nil) {
					return
				}
			case <-ctx.Done():
				g.once.Do(func() { close(g.closed) })
				yield(llm.Chunk{}, llm.ContextError(ctx))
				return
			}
		}
	}
}

// say lets the provider say a word.
func (g *gated) say(t *testing.T, word string) {
	t.Helper()
	select {
	case g.words <- word:
	case <-time.After(patience):
		t.Fatal("no execution asks the model")
	}
}

func (g *gated) entry() map[string]llm.Entry {
	return map[string]llm.Entry{"test": {Provider: g, Label: "Test"}}
}

// gatedChain asks the gated provider.
const gatedChain = "name: gated\nprompts:\n  - {name: P, position: 1, model: test/gated, content: x}\n"

// texts answers a function for follow that passes on the text of deltas.
func texts(t *testing.T) (seen func(events.Frame), text <-chan string) {
	c := make(chan string, 1000)
	return func(f events.Frame) {
		if f.Type != events.TypePromptDelta {
			return
		}
		var d struct{ Text string }
		if err := json.Unmarshal(f.Data(), &d); err != nil {
			t.Error(err)
		}
		c <- d.Text
	}, c
}

// wait answers the next value of a channel.
func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// record keeps what is logged.
type record struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func newRecord() *record { return &record{changed: make(chan struct{})} }

// Write implements io.Writer.
func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(b)
	close(r.changed)
	r.changed = make(chan struct{})
	return len(b), nil
}

// String answers everything so far.
func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// await waits until something was logged.
func (r *record) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		found, changed := strings.Contains(r.text.String(), text), r.changed
		r.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited in vain for %q in the log:\n%s", text, r)
		}
	}
}
