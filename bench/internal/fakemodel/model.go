// Package fakemodel is a model behind OpenAI's API, in a process of its own, that
// answers at once.
package fakemodel

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
)

// argument is the first argument of the process that is the model.
const argument = "model"

// Chunks is how many pieces a streamed answer has.
const Chunks = 20

// stream is the body of every streamed answer, which is sent in one write: chunks
// as OpenAI sends them, the finish reason, the usage and the end marker.
func stream() []byte {
	var b strings.Builder
	chunk := func(delta, finish string) {
		fmt.Fprintf(&b, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":"fake","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}`+"\n\n", delta, finish)
	}
	chunk(`{"role":"assistant","content":""}`, "null")
	for i := range Chunks {
		chunk(fmt.Sprintf(`{"content":"word%d "}`, i), "null")
	}
	chunk("{}", `"stop"`)
	fmt.Fprintf(&b, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":"fake","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n", Chunks, 20+Chunks)
	b.WriteString("data: [DONE]\n\n")
	return []byte(b.String())
}

// whole is the body of every answer that is not streamed.
func whole() []byte {
	var text strings.Builder
	for i := range Chunks {
		fmt.Fprintf(&text, "word%d ", i)
	}
	return fmt.Appendf(nil, `{"id":"chatcmpl-bench","object":"chat.completion","created":1767225600,"model":"fake","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":%d,"total_tokens":%d}}`,
		text.String(), Chunks, 20+Chunks)
}

// Main is the whole program, with its exit code, where this process is the model of
// one that Start was called in. It comes first in main.
func Main() (code int, isModel bool) {
	if len(os.Args) < 2 || os.Args[1] != argument {
		return 0, false
	}
	if err := serve(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "model:", err)
		return 1, true
	}
	return 0, true
}

// serve says where it listens on out and ends with in.
func serve(ctx context.Context, in io.Reader, out io.Writer) error {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	streamed, once := stream(), whole()
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var request struct {
				Stream bool `json:"stream"`
			}
			if body, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(body, &request) != nil {
				return // nobody else calls
			}
			body, media := once, "application/json"
			if request.Stream {
				body, media = streamed, "text/event-stream"
			}
			w.Header().Set("Content-Type", media)
			_, _ = w.Write(body) // a caller that left needs none
		}),
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		_ = server.Close()
	}()
	if err := json.NewEncoder(out).Encode(Model{URL: "http://" + listener.Addr().String() + "/v1"}); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Model is the process.
type Model struct {
	URL string `json:"url"` // base URL for providers

	cmd *exec.Cmd
	end io.Closer
}

// Start starts the program anew as the model. Its main must call Main.
func Start(ctx context.Context) (*Model, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the own program: %w", err)
	}
	m := &Model{cmd: exec.CommandContext(ctx, program, argument)}
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
		return nil, errors.Join(fmt.Errorf("start the model: %w", err), m.Close())
	}
	return m, nil
}

// Close ends it.
func (m *Model) Close() error { return errors.Join(m.end.Close(), m.cmd.Wait()) }
