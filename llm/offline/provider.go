// Package offline is the built-in demo model, offline/echo, and the embedding model
// offline/hash. It needs no key and
// no network, and the same request gets the same answer for ever: no clock and
// no randomness take part. It lets a newcomer watch a chain run, and lets tests
// and benchmarks run one without a model.
//
// It is no language model and says so: whatever it composes ends in Label. The
// composer reads the user message, the history and retrieved context, takes the
// topic and the points of earlier outputs from them, and arranges them in short
// Markdown. A prompt that begins with "Echo:" is answered by what follows it,
// exactly and without the label. Where a request has tools, lines of the form
// "Call: NAME {…}" in the prompt become calls of them.
package offline

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/chainstream/chainstream/llm"
)

// Names of the model that answers.
const (
	Name  = "offline" // the provider prefix of model ids
	Model = "echo"
)

// Label is the last line of every composed answer.
const Label = "*Written by offline/echo, the built-in demo model. No language model was called.*"

// Provider is the demo model. The zero value answers instantly.
type Provider struct {
	// Pace is the time before every word; 0 is instant. 25 ms reads like a model
	// at work.
	Pace time.Duration
	// Sentences answers the embedding model SentenceModel; nil = there is none.
	Sentences llm.Embedder
}

// Stream implements llm.Provider. It honours MaxTokens, Stop and Schema and
// ignores the sampling parameters. Usage is exact, because llm.EstimateTokens is
// this model's tokenizer.
//
// With a Schema the answer is a small JSON document that is valid against it and
// carries no label. A schema beyond what package offline understands is
// llm.CodeInvalidRequest; a model other than echo is llm.CodeNotFound.
func (p Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		if err := llm.ContextError(ctx); err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		if calls := toolCalls(req); len(calls) > 0 && req.Model == Model {
			call(ctx, req, calls, yield)
			return
		}
		text, repaired, err := answer(req)
		if err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		text, finish := limit(text, req)

		for word := range words(text) {
			if err := wait(ctx, p.Pace); err != nil {
				yield(llm.Chunk{}, err)
				return
			}
			chunk := llm.Chunk{Text: word, Repaired: repaired && strings.ContainsRune(word, utf8.RuneError)}
			if !yield(chunk, nil) {
				return
			}
		}
		yield(llm.Chunk{FinishReason: finish, Usage: usage(req, text)}, nil)
	}
}

// usage counts a request and its answer.
func usage(req llm.Request, text string) *llm.Usage {
	u := llm.Usage{OutputTokens: llm.EstimateTokens(text)}
	for _, m := range req.Messages {
		u.InputTokens += llm.EstimateTokens(m.Text)
	}
	return &u
}

// call answers with tool calls.
func call(ctx context.Context, req llm.Request, calls []llm.ToolCall, yield func(llm.Chunk, error) bool) {
	var text strings.Builder
	for _, c := range calls {
		if err := wait(ctx, 0); err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		if !yield(llm.Chunk{ToolCalls: []llm.ToolCall{c}}, nil) {
			return
		}
		text.WriteString(c.Name + c.Arguments)
	}
	yield(llm.Chunk{FinishReason: llm.FinishToolCalls, Usage: usage(req, text.String())}, nil)
}

// answer returns the whole text for a request, and whether bytes that cannot be
// stored were replaced in it.
func answer(req llm.Request) (text string, repaired bool, failure error) {
	if req.Model != Model {
		e := llm.NewError(llm.CodeNotFound, nil)
		e.Detail = llm.Redact(fmt.Sprintf("the offline provider has one model, %q, not %q", Model, req.Model))
		return "", false, e
	}
	prompt := lastUserText(req.Messages)
	echo, isEcho := afterPrefix(prompt, "echo:")
	results, hasResults := toolAnswers(req.Messages)
	switch {
	case hasResults:
		text = results
	case isEcho:
		text = echo
	case len(req.Schema) > 0:
		instance, err := instanceOf(req.Schema)
		if err != nil {
			e := llm.NewError(llm.CodeInvalidRequest, err)
			e.Detail = llm.Redact("the demo model cannot answer this schema: " + err.Error())
			return "", false, e
		}
		encoded, err := json.MarshalIndent(instance, "", "  ")
		if err != nil {
			return "", false, llm.NewError(llm.CodeInvalidRequest, fmt.Errorf("encode the answer: %w", err))
		}
		text = string(encoded)
	default:
		text = compose(req.Messages)
	}
	text, repaired = repair(text)
	return text, repaired, nil
}

// repair makes a text storable and tells whether it had to.
func repair(text string) (string, bool) {
	var r llm.Repairer
	text, repaired := r.Text(text)
	tail, broken := r.Flush()
	return text + tail, repaired || broken
}

// afterPrefix returns what follows a prefix in letters of either case, and at most
// one space.
func afterPrefix(prompt, prefix string) (string, bool) {
	if len(prompt) < len(prefix) || !strings.EqualFold(prompt[:len(prefix)], prefix) {
		return "", false
	}
	return strings.TrimPrefix(prompt[len(prefix):], " "), true
}

// limit applies Stop and MaxTokens and returns the finish reason.
func limit(text string, req llm.Request) (string, string) {
	for _, stop := range req.Stop {
		if i := strings.Index(text, stop); i >= 0 && stop != "" {
			text = text[:i]
		}
	}
	if req.MaxTokens > 0 {
		if cut := llm.CutTokens(text, int64(req.MaxTokens)); len(cut) < len(text) {
			return cut, llm.FinishLength
		}
	}
	return text, llm.FinishStop
}

// words splits text after the space that follows a word, so that the pieces put
// together are the text again.
func words(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for text != "" {
			end, space := len(text), false
			for i, r := range text {
				if unicode.IsSpace(r) {
					space = true
				} else if space {
					end = i
					break
				}
			}
			if !yield(text[:end]) {
				return
			}
			text = text[end:]
		}
	}
}

// wait lets one word's time pass.
func wait(ctx context.Context, pace time.Duration) error {
	if pace > 0 {
		timer := time.NewTimer(pace)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if err := llm.ContextError(ctx); err != nil {
		return err
	}
	return nil
}

func lastUserText(messages []llm.Message) string {
	for _, m := range slices.Backward(messages) {
		if m.Role == llm.RoleUser {
			return m.Text
		}
	}
	return ""
}
