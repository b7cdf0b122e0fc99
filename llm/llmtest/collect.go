package llmtest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
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
	Name() string
	Error(args ...any)
	Run(name string, f func(Test)) bool
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
