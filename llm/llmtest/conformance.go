package llmtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/chainstream/chainstream/llm"
)

// TB is what the package needs of a test or benchmark; *testing.T and *testing.B
// have it.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

// T is what Conform needs of a test; *testing.T is T[*testing.T].
type T[Test any] interface {
	TB
	Parallel()
	Context() context.Context
	Error(args ...any)
	Run(name string, f func(Test)) bool
}

// Subject is a provider under test.
type Subject struct {
	Provider llm.Provider
	// Model answers "Echo: TEXT" by TEXT, word by word.
	Model string
	// MissingModel is one the provider does not have.
	MissingModel string
}

// Result is what a call came to.
type Result struct {
	Text, Reasoning string
	ToolCalls       []llm.ToolCall
	ResponseID      string
	FinishReason    string
	Usage           *llm.Usage
	Repaired        bool
	Chunks          int
	Err             error
}

// Collect ranges over a whole answer and checks what holds for every provider:
// the error is an *llm.Error and comes last, text is valid UTF-8 without NUL,
// and a success has one finish reason and one usage, in this order. It reports
// violations to tb.
func Collect(ctx context.Context, tb TB, p llm.Provider, req llm.Request) Result {
	tb.Helper()
	var r Result
	var text, reasoning strings.Builder
	for chunk, err := range p.Stream(ctx, req) {
		if r.Err != nil {
			tb.Errorf("the sequence went on after its error %v", r.Err)
		}
		if err != nil {
			r.Err = err
			if e := (*llm.Error)(nil); !errors.As(err, &e) || e.Code == "" || e.Message == "" {
				tb.Errorf("error %#v is not a complete *llm.Error", err)
			}
			if !reflect.ValueOf(chunk).IsZero() {
				tb.Errorf("the error came with the chunk %+v", chunk)
			}
			continue
		}
		r.Chunks++
		if r.Usage != nil {
			tb.Errorf("the chunk %+v came after the usage", chunk)
		}
		if s := chunk.Text + chunk.Reasoning + chunk.FinishReason; !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			tb.Errorf("the chunk %+q cannot be stored", s)
		}
		for _, call := range chunk.ToolCalls {
			if s := call.ID + call.Name + call.Arguments; call.ID == "" || call.Name == "" || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
				tb.Errorf("the tool call %+q is not complete, or cannot be stored", call)
			}
			if slices.ContainsFunc(r.ToolCalls, func(c llm.ToolCall) bool { return c.ID == call.ID }) {
				tb.Errorf("two tool calls have the id %q", call.ID)
			}
			if r.FinishReason != "" || chunk.FinishReason != "" {
				tb.Errorf("the tool call %+v came at or after the finish reason", call)
			}
			r.ToolCalls = append(r.ToolCalls, call)
		}
		if chunk.ResponseID != "" {
			if r.ResponseID != "" && r.ResponseID != chunk.ResponseID {
				tb.Errorf("response id %q after %q", chunk.ResponseID, r.ResponseID)
			}
			r.ResponseID = chunk.ResponseID
		}
		if chunk.FinishReason != "" {
			if r.FinishReason != "" {
				tb.Errorf("finish reason %q after %q", chunk.FinishReason, r.FinishReason)
			}
			r.FinishReason = chunk.FinishReason
		}
		text.WriteString(chunk.Text)
		reasoning.WriteString(chunk.Reasoning)
		r.Repaired = r.Repaired || chunk.Repaired
		r.Usage = chunk.Usage
	}
	r.Text, r.Reasoning = text.String(), reasoning.String()
	if r.Err == nil && (r.FinishReason == "" || r.Usage == nil) {
		tb.Errorf("success without finish reason or usage: %+v", r)
	}
	return r
}

// Conform runs the suite that every provider passes.
func Conform[Test T[Test]](t Test, s Subject) {
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
