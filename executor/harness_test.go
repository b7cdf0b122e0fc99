package executor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/postgres"
)

// harness is a server without HTTP: store, log, broker and executor on a
// database of its own.
type harness struct {
	t      *testing.T
	url    string // of the database
	store  *postgres.Store
	broker *events.Broker
	log    *events.Log
	exec   *executor.Executor
}

// newHarness starts everything; what the configuration leaves open gets values
// that suit tests.
func newHarness(t *testing.T, models map[string]llm.Entry, cfg executor.Config) *harness {
	t.Helper()
	return newHarnessOn(t, pgtest.Database(t), models, cfg)
}

func newHarnessOn(t *testing.T, url string, models map[string]llm.Entry, cfg executor.Config) *harness {
	t.Helper()
	store, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]llm.Entry{"offline": {Provider: &offline.Provider{}, Label: "Offline demo", Demo: true}}
	maps.Copy(all, models)
	if cfg.Owner == "" {
		cfg.Owner = "test"
	}
	if cfg.Workers == 0 {
		cfg.Workers = 50
	}
	if cfg.Cache == nil {
		cfg.Cache = store
	}
	h := &harness{t: t, url: url, store: store}
	h.broker = events.NewBroker(store, events.BrokerConfig{Poll: 50 * time.Millisecond})
	h.log = events.NewLog(store, h.broker, events.LogConfig{})
	h.exec = executor.New(store, h.log, llm.NewRegistry(all), cfg)
	h.exec.Start()
	t.Cleanup(h.stop)
	return h
}

func (h *harness) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := h.exec.Stop(ctx); err != nil {
		h.t.Error(err)
	}
	if err := h.log.Close(ctx); err != nil {
		h.t.Error(err)
	}
	h.broker.Close()
	h.store.Close()
}

// chain stores a chain from its YAML.
func (h *harness) chain(document string) *chain.Version {
	h.t.Helper()
	c, err := chain.Parse([]byte(document), chain.FormatYAML)
	if err != nil {
		h.t.Fatal(err)
	}
	v, err := h.store.CreateChain(h.t.Context(), c)
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

// trigger queues an execution with string inputs.
func (h *harness) trigger(v *chain.Version, inputs map[string]string) executor.Execution {
	h.t.Helper()
	raw := make(map[string]json.RawMessage, len(inputs))
	for k, s := range inputs {
		raw[k], _ = json.Marshal(s)
	}
	checked, err := v.Chain.CheckInputs(raw)
	if err != nil {
		h.t.Fatal(err)
	}
	ex, _, err := h.exec.Trigger(h.t.Context(), executor.Trigger{Version: v, Inputs: checked})
	if err != nil {
		h.t.Fatal(err)
	}
	return ex
}

// event is a decoded event.
type event struct {
	Seq  int64
	Type events.Type
	Data map[string]any
}

// follow reads the stream of an execution to its end.
func (h *harness) follow(id int64) []event {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	sub, err := h.broker.Subscribe(ctx, id, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer sub.Close()
	var out []event
	for {
		frames, err := sub.Next(ctx)
		for _, f := range frames {
			e := event{Seq: f.Seq, Type: f.Type}
			if err := json.Unmarshal(f.Data(), &e.Data); err != nil {
				h.t.Fatalf("event %d: %v", f.Seq, err)
			}
			out = append(out, e)
		}
		if sub.Ended() {
			return out
		}
		if err != nil {
			h.t.Fatalf("after %d events of execution %d: %v", len(out), id, err)
		}
	}
}

// outline is the log in short: types, with the prompt where there is one.
func outline(log []event) []string {
	var out []string
	for _, e := range log {
		line := string(e.Type)
		if e.Type.Delta() {
			continue
		}
		if id, ok := e.Data["promptId"]; ok {
			line += fmt.Sprint(" ", id)
		}
		if e.Type == events.TypeProgress {
			line += fmt.Sprint(" ", e.Data["percentage"])
		}
		out = append(out, line)
	}
	return out
}
