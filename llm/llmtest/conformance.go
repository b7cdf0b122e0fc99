package llmtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// Capability is something that a provider, or its format, may lack.
type Capability string

// The capabilities that Subject.Lacks names.
const (
	Schema          Capability = "schema"           // a JSON Schema that the far side holds the answer to
	Thinking        Capability = "thinking"         // reasoning that is shown
	Seed            Capability = "seed"             // repeatable sampling
	ResponseIDs     Capability = "response ids"     // a name for each answer
	CacheWrites     Capability = "cache writes"     // tokens put into the cache
	ReasoningTokens Capability = "reasoning tokens" // tokens spent on thinking
)

// Subject is a provider under test.
type Subject struct {
	Provider llm.Provider
	// Model answers "Echo: TEXT" by TEXT, word by word, and the other prompts of
	// Echo where the provider can.
	Model string
	// MissingModel is one the provider does not have.
	MissingModel string
	// Fake is what the provider talks to. Conform has it answer every model but
	// MissingModel by Echo, looks at what arrives there, and plays every Fault. nil
	// is a provider without a wire.
	Fake *Fake
	// Lacks names what the provider cannot do, or its format cannot say.
	Lacks []Capability
}

func (s Subject) can(c Capability) bool { return !slices.Contains(s.Lacks, c) }

// Conform runs the suite that every provider passes.
func Conform[Test T[Test]](t Test, s Subject) {
	if s.Fake != nil {
		s.Fake.Otherwise(func(req Request) Reply {
			if req.Model == s.MissingModel {
				return StatusError(http.StatusNotFound, KindNoModel, "no such model")
			}
			return Echo(req)
		})
	}
	request := func(prompt string) llm.Request {
		return llm.Request{Model: s.Model, Messages: []llm.Message{
			{Role: llm.RoleSystem, Text: "You repeat."},
			{Role: llm.RoleUser, Text: "Echo: before"},
			{Role: llm.RoleAssistant, Text: "before"},
			{Role: llm.RoleUser, Text: prompt},
		}}
	}

	t.Run("complete answers", func(t Test) {
		t.Parallel()
		for _, text := range []string{"word", "two words", "", "Grüße, 世界 \U0001F30D!\n\n- a\n- b\n", strings.Repeat("many words ", 500)} {
			r := Collect(t.Context(), t, s.Provider, request("Echo: "+text))
			if r.Err != nil || r.Text != text || r.FinishReason != llm.FinishStop || r.Repaired {
				t.Errorf("echo of %.40q: %+v", text, r)
			}
			if r.Usage != nil && (r.Usage.InputTokens <= 0 || (text != "" && r.Usage.OutputTokens <= 0)) {
				t.Errorf("echo of %.40q: usage %+v", text, *r.Usage)
			}
		}
	})

	t.Run("streams in pieces", func(t Test) {
		t.Parallel()
		if r := Collect(t.Context(), t, s.Provider, request("Echo: one two three four")); r.Chunks < 4 {
			t.Errorf("four words in %d chunks", r.Chunks)
		}
	})

	t.Run("token limit", func(t Test) {
		t.Parallel()
		req := request("Echo: " + strings.Repeat("word ", 100))
		req.MaxTokens = 10
		r := Collect(t.Context(), t, s.Provider, req)
		if r.Err != nil || r.FinishReason != llm.FinishLength || len(r.Text) == 0 || len(r.Text) >= 500 {
			t.Errorf("limited answer: %+v", r)
		}
	})

	t.Run("missing model", func(t Test) {
		t.Parallel()
		req := request("Echo: x")
		req.Model = s.MissingModel
		r := Collect(t.Context(), t, s.Provider, req)
		if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeNotFound || e.Retryable {
			t.Errorf("error %v, want %s", r.Err, llm.CodeNotFound)
		}
	})

	t.Run("cancelled before", func(t Test) {
		t.Parallel()
		reason := errors.New("user pressed stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		r := Collect(ctx, t, s.Provider, request("Echo: x"))
		wantCancelled(t, r.Err, llm.CodeCancelled, context.Canceled, reason)
		if r.Chunks > 0 {
			t.Errorf("%d chunks of a cancelled call", r.Chunks)
		}
	})

	t.Run("deadline of the caller", func(t Test) {
		t.Parallel()
		ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
		defer cancel()
		r := Collect(ctx, t, s.Provider, request("Echo: x"))
		wantCancelled(t, r.Err, llm.CodeTimeoutTotal, context.DeadlineExceeded)
	})

	t.Run("cancelled in the middle", func(t Test) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for chunk, err := range s.Provider.Stream(ctx, request("Echo: "+strings.Repeat("word ", 1000))) {
			if chunk.Text != "" {
				cancel()
			}
			last = err
		}
		wantCancelled(t, last, llm.CodeCancelled, context.Canceled)
	})

	t.Run("left in the middle", func(t Test) {
		t.Parallel()
		for range 3 {
			for chunk, err := range s.Provider.Stream(t.Context(), request("Echo: "+strings.Repeat("word ", 1000))) {
				if err != nil {
					t.Fatal(err)
				}
				if chunk.Text != "" {
					break
				}
			}
		}
		if r := Collect(t.Context(), t, s.Provider, request("Echo: still there")); r.Text != "still there" {
			t.Errorf("after leaving: %+v", r)
		}
	})

	t.Run("each range is a call", func(t Test) {
		t.Parallel()
		answer := s.Provider.Stream(t.Context(), request("Echo: the same"))
		var texts [2]string
		for i := range texts {
			for chunk, err := range answer {
				if err != nil {
					t.Fatal(err)
				}
				texts[i] += chunk.Text
			}
		}
		if texts[0] != "the same" || texts[1] != "the same" {
			t.Errorf("two ranges: %q", texts)
		}
	})

	t.Run("many at once", func(t Test) {
		t.Parallel()
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				text := fmt.Sprintf("answer number %d", i)
				if r := Collect(t.Context(), t, s.Provider, request("Echo: "+text)); r.Err != nil || r.Text != text {
					t.Errorf("echo of %q: %+v", text, r)
				}
			})
		}
		all.Wait()
	})

	t.Run("stop texts", func(t Test) {
		t.Parallel()
		req := request("Echo: one two STOP three")
		req.Stop = []string{"no such text", "STOP"}
		r := Collect(t.Context(), t, s.Provider, req)
		if r.Err != nil || r.Text != "one two " || r.FinishReason != llm.FinishStop {
			t.Errorf("stopped answer: %+v", r)
		}
	})
	t.Run("schema", func(t Test) { conformSchema(t, s) })
	if s.can(Thinking) {
		t.Run("reasoning", func(t Test) {
			t.Parallel()
			r := Collect(t.Context(), t, s.Provider, request("Think: hm, \nThink: well\nEcho: yes"))
			if r.Err != nil || r.Text != "yes" || r.Reasoning != "hm, well" {
				t.Errorf("%+v", r)
			}
		})
	}
	if s.can(ResponseIDs) {
		t.Run("response id", func(t Test) {
			t.Parallel()
			if r := Collect(t.Context(), t, s.Provider, request("Echo: x")); r.Err != nil || r.ResponseID == "" {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("tool calls", func(t Test) { conformCalls(t, s) })
	t.Run("tool results", func(t Test) { conformResults(t, s) })
	if s.Fake != nil {
		t.Run("parameters", func(t Test) { conformParameters(t, s) })
		t.Run("images", func(t Test) { conformImages(t, s) })
		t.Run("usage", func(t Test) { conformUsage(t, s) })
		t.Run("hang up", func(t Test) { conformHangUp(t, s) })
		t.Run("connection", func(t Test) { conformConnection(t, s) })
		for _, fault := range Faults() {
			t.Run("fault "+fault.Name, func(t Test) { conformFault(t, s, fault) })
		}
	}
}

func wantCancelled(t TB, err error, code llm.Code, targets ...error) {
	t.Helper()
	e := (*llm.Error)(nil)
	if !errors.As(err, &e) || e.Code != code || e.Retryable {
		t.Errorf("error %v, want %s", err, code)
	}
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("error %v does not match %v", err, target)
		}
	}
}
