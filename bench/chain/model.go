package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	openai "github.com/sashabaranov/go-openai" //nolint:depguard // the floor is this client without us
)

// modelArgument is the first argument of the process that is the fake model.
const modelArgument = "model"

// chunks is how many pieces the fake model's answer has.
const chunks = 20

// answer is the body of every answer of the fake model, which it sends in one
// write: chunks as OpenAI sends them, the finish reason, the usage and the end
// marker.
func answer() []byte {
	var b strings.Builder
	chunk := func(delta, finish string) {
		fmt.Fprintf(&b, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":"fake","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}`+"\n\n", delta, finish)
	}
	chunk(`{"role":"assistant","content":""}`, "null")
	for i := range chunks {
		chunk(fmt.Sprintf(`{"content":"word%d "}`, i), "null")
	}
	chunk("{}", `"stop"`)
	fmt.Fprintf(&b, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":"fake","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n", chunks, 20+chunks)
	b.WriteString("data: [DONE]\n\n")
	return []byte(b.String())
}

// serveModel is the process of the fake model. It says where it listens on out
// and ends with in.
func serveModel(ctx context.Context, in io.Reader, out io.Writer) error {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	body := answer()
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // a connection whose request was read can be used again
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write(body) // a caller that left needs none
		}),
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		_ = server.Close()
	}()
	if err := json.NewEncoder(out).Encode(model{URL: "http://" + listener.Addr().String() + "/v1"}); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// model is the fake model's process.
type model struct {
	URL string `json:"url"` // base URL for providers

	cmd *exec.Cmd
	end io.Closer
}

func startModel(ctx context.Context) (*model, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the own program: %w", err)
	}
	m := &model{cmd: exec.CommandContext(ctx, program, modelArgument)}
	m.cmd.Stderr = os.Stderr
	if m.end, err = m.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start the model: %w", err)
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the model: %w", err)
	}
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the model: %w", err)
	}
	if err := json.NewDecoder(out).Decode(m); err != nil {
		return nil, errors.Join(fmt.Errorf("start the model: %w", err), m.close())
	}
	return m, nil
}

func (m *model) close() error { return errors.Join(m.end.Close(), m.cmd.Wait()) }

// caller makes the calls of the chain without a server.
type caller struct{ client *openai.Client }

func newCaller(url string, connections int) *caller {
	config := openai.DefaultConfig("none")
	config.BaseURL = url
	config.HTTPClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, IdleConnTimeout: time.Minute}}
	return &caller{client: openai.NewClientWithConfig(config)}
}

// chain makes the calls one after the other, each with the answer to the one
// before. It answers the number of chunks with text.
func (c *caller) chain(ctx context.Context) (int64, error) {
	text, total := "Echo: one two three", int64(0)
	for range prompts {
		var err error
		var n int64
		if text, n, err = c.call(ctx, text); err != nil {
			return total, err
		}
		if n != chunks {
			return total, fmt.Errorf("%d chunks came, not %d", n, chunks)
		}
		total += n
	}
	return total, nil
}

func (c *caller) call(ctx context.Context, prompt string) (text string, n int64, err error) {
	stream, err := c.client.CreateChatCompletionStream(ctx, openai.ChatCompletionRequest{
		Model: "fake", Messages: []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: prompt}},
		StreamOptions: &openai.StreamOptions{IncludeUsage: true},
	})
	if err != nil {
		return "", 0, err
	}
	defer stream.Close() //nolint:errcheck // it has been read to its end
	var b strings.Builder
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.String(), n, nil
		}
		if err != nil {
			return "", n, err
		}
		for _, choice := range chunk.Choices {
			if choice.Delta.Content != "" {
				b.WriteString(choice.Delta.Content)
				n++
			}
		}
	}
}
