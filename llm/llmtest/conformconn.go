package llmtest

import (
	"context"
	"slices"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// patience bounds what takes a moment.
const patience = 30 * time.Second

// conformHangUp shows that the far side sees the connection close when a call is
// given up, at every point of an answer.
func conformHangUp[Test T[Test]](t Test, s Subject) {
	for name, reply := range map[string]Reply{
		"before the head":       {},
		"before the first byte": {Head()},
		"in mid-stream":         {Role(), Delta("half")},
		"in reasoning":          {Role(), Reasoning("hm")},
		"in a tool call":        {Role(), ToolCall("c1", "add", `{"a":`)},
	} {
		t.Run(name, func(t Test) {
			t.Parallel()
			model, reached := testModel(t, s), make(chan struct{})
			s.Fake.Script(model, append(reply, Tell(func() { close(reached) }), Stall()))
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan Result, 1)
			go func() {
				ended <- Collect(ctx, t, s.Provider, llm.Request{Model: model, Messages: []llm.Message{userMessage("x")}})
			}()
			select {
			case <-reached:
			case <-time.After(patience):
				t.Errorf("no call of %s arrived", model)
			}
			cancel()
			wantCancelled(t, (<-ended).Err, llm.CodeCancelled, context.Canceled)
			hungUp(t, s, model)
		})
	}
}

// hungUp checks that the far side saw the connections of all calls of a model close
// before it had answered.
func hungUp(t TB, s Subject, model string) {
	t.Helper()
	late := time.After(patience)
	for _, call := range s.Fake.Calls() {
		if call.Request.Model != model {
			continue
		}
		select {
		case <-call.Gone:
		case <-late:
			t.Errorf("the connection of %s stays open", model)
		}
	}
}

// conformConnection shows what becomes of the connection of an answer that nobody cuts
// short.
func conformConnection[Test T[Test]](t Test, s Subject) {
	ask := func(model string) llm.Request {
		return llm.Request{Model: model, Messages: []llm.Message{userMessage("x")}}
	}
	// By itself, because others would take the connections that it is to use again.
	t.Run("is used again", func(t Test) {
		const calls = 20
		good, bad := testModel(t, s), testModel(t, s)+"-bad"
		s.Fake.Script(good, Text("ok"))
		s.Fake.Script(bad, Status(400))
		for range calls {
			if r := Collect(t.Context(), t, s.Provider, ask(good)); r.Err != nil {
				t.Fatal(r.Err)
			}
			if r := Collect(t.Context(), t, s.Provider, ask(bad)); r.Err == nil {
				t.Fatal("no error")
			}
		}
		var peers []string
		for _, call := range s.Fake.Calls() {
			if model := call.Request.Model; (model == good || model == bad) && !slices.Contains(peers, call.Peer) {
				peers = append(peers, call.Peer)
			}
		}
		// On a busy machine the end of a body may come too late to be waited for.
		if len(peers) > calls {
			t.Errorf("%d connections for %d calls", len(peers), 2*calls)
		}
	})
	t.Run("is closed when the loop is left", func(t Test) {
		t.Parallel()
		model := testModel(t, s)
		s.Fake.Script(model, Reply{Role(), Delta("half"), Stall()})
		for chunk, err := range s.Provider.Stream(t.Context(), ask(model)) {
			if err != nil {
				t.Fatal(err)
			}
			if chunk.Text == "half" {
				break
			}
		}
		hungUp(t, s, model)
	})
	t.Run("is closed after the end", func(t Test) {
		t.Parallel()
		model := testModel(t, s)
		s.Fake.Script(model, append(Text("all"), Stall()))
		if r := Collect(t.Context(), t, s.Provider, ask(model)); r.Err != nil || r.Text != "all" {
			t.Errorf("%+v", r)
		}
		hungUp(t, s, model)
	})
	t.Run("passes text on as it comes", func(t Test) {
		t.Parallel()
		model, gate := testModel(t, s), make(chan struct{})
		s.Fake.Script(model, Reply{Delta("one"), Gate(gate), Delta("two"), Gate(gate), Finish("stop"), Done()})
		var got []string
		for chunk, err := range s.Provider.Stream(t.Context(), ask(model)) {
			if err != nil {
				t.Fatal(err)
			}
			if chunk.Text != "" {
				got = append(got, chunk.Text)
				gate <- struct{}{}
			}
		}
		if !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("%q", got)
		}
	})
}
