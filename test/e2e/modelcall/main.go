// Command modelcall calls a model once, as Chainstream does, and prints what came
// of it: for tests against servers that are not written in Go.
//
// It takes the name of a provider and a base URL, and reads an llm.Request in
// JSON from standard input.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/gemini"
	"github.com/chainstream/chainstream/llm/openai"
)

// outcome is what is printed, in JSON.
type outcome struct {
	Text, Reasoning, FinishReason, ResponseID string
	ToolCalls                                 []llm.ToolCall
	Usage                                     *llm.Usage
	Chunks                                    int
	Code                                      llm.Code `json:",omitempty"`
	Retryable                                 bool
	RetryAfterMS                              int64
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "modelcall:", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: modelcall PROVIDER BASE-URL")
	}
	p, err := provider(args[0], args[1])
	if err != nil {
		return err
	}
	var req llm.Request
	if err := json.NewDecoder(stdin).Decode(&req); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	return json.NewEncoder(stdout).Encode(call(context.Background(), llm.Guard(p, llm.Deadlines{}), req))
}

// provider builds the provider of a name.
func provider(name, base string) (llm.Provider, error) {
	client := llm.NewHTTPClient()
	switch name {
	case "openai":
		return openai.New(openai.Config{BaseURL: base, Key: "sk-none", Client: client})
	case "gemini":
		return gemini.New(gemini.Config{BaseURL: base, Key: "none", Client: client})
	}
	return nil, fmt.Errorf("there is no provider %q", name)
}

func call(ctx context.Context, p llm.Provider, req llm.Request) outcome {
	var o outcome
	for chunk, err := range p.Stream(ctx, req) {
		if e := (*llm.Error)(nil); errors.As(err, &e) {
			o.Code, o.Retryable, o.RetryAfterMS = e.Code, e.Retryable, e.RetryAfter.Milliseconds()
			return o
		}
		o.Chunks++
		o.Text += chunk.Text
		o.Reasoning += chunk.Reasoning
		o.FinishReason += chunk.FinishReason
		o.ToolCalls = append(o.ToolCalls, chunk.ToolCalls...)
		o.Usage = chunk.Usage
		if chunk.ResponseID != "" {
			o.ResponseID = chunk.ResponseID
		}
	}
	return o
}
