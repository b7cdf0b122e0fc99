package llmtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Reply is the answer to one call: steps that are played in order. When they
// are over the body ends cleanly.
type Reply []Step

// Step is one action of the fake.
type Step func(*player) error

// errOver ends a reply early: the client is gone, or the fake is closed.
var errOver = errors.New("reply is over")

// player plays one reply.
type player struct {
	w       http.ResponseWriter
	ctx     context.Context //nolint:containedctx // of the request, lives as long as the player
	closed  <-chan struct{}
	request Request
	started bool
	buffer  []byte

	// What a request that does not stream gets at the end, in one piece.
	text, reasoning strings.Builder
	finish          string
	usage           *usage
}

type usage struct {
	Prompt     int64        `json:"prompt_tokens"`
	Completion int64        `json:"completion_tokens"`
	Total      int64        `json:"total_tokens"`
	PromptInfo *usageDetail `json:"prompt_tokens_details,omitempty"`
	OutputInfo *usageDetail `json:"completion_tokens_details,omitempty"`
}

type usageDetail struct {
	Cached    int64 `json:"cached_tokens,omitempty"`
	Reasoning int64 `json:"reasoning_tokens,omitempty"`
}

func play(p *player, reply Reply) {
	for _, step := range reply {
		if err := step(p); err != nil {
			return
		}
	}
	switch {
	case p.started:
	case !p.request.Stream && p.finish != "":
		p.sendWhole()
	default: // the head of an answer without anything in it
		_ = p.start("text/event-stream")
	}
}

// Text is the reply of a model in good order: the pieces as deltas, finish
// reason stop, usage of one token a piece, and the end marker.
func Text(pieces ...string) Reply {
	reply := Reply{Role()}
	for _, piece := range pieces {
		reply = append(reply, Delta(piece))
	}
	return append(reply, Finish("stop"), Usage(7, int64(len(pieces))), Done())
}

// Echo answers the way the offline model does: with what follows "Echo:" and a
// space in the last message, in words, cut at the token limit of the request,
// which counts words. Use it with Otherwise.
func Echo(req Request) Reply {
	text := ""
	if n := len(req.Messages); n > 0 {
		text = req.Messages[n-1].Content
	}
	if prefix := "echo:"; len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix) {
		text = strings.TrimPrefix(text[len(prefix):], " ")
	}
	finish := "stop"
	pieces := strings.SplitAfter(text, " ")
	if limit := max(req.MaxTokens, req.MaxCompletionTokens); limit > 0 && limit < len(pieces) {
		pieces, finish = pieces[:limit], "length"
	}
	reply := make(Reply, 0, len(pieces)+4)
	reply = append(reply, Role())
	for _, piece := range pieces {
		if piece != "" {
			reply = append(reply, Delta(piece))
		}
	}
	return append(reply, Finish(finish), Usage(int64(len(req.Messages)), int64(len(pieces))), Done())
}

// Status is the reply with an HTTP error status and OpenAI's error body. Headers
// are given as names and values in turn, such as "Retry-After", "2".
func Status(status int, headers ...string) Reply {
	body, _ := json.Marshal(errorBody(fmt.Sprintf("scripted error %d", status), "scripted_error", "")) // maps of strings always encode
	return StatusBody(status, string(body), headers...)
}

// StatusBody is Status with a body of one's own.
func StatusBody(status int, body string, headers ...string) Reply {
	return Reply{func(p *player) error {
		for i := 0; i+1 < len(headers); i += 2 {
			p.w.Header().Set(headers[i], headers[i+1])
		}
		p.w.Header().Set("Content-Type", "application/json")
		p.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		p.w.WriteHeader(status)
		p.started = true
		return p.write(body)
	}}
}

// JSON is the reply 200 with a JSON body in one piece, as a server sends it that
// does not stream.
func JSON(body string) Reply { return StatusBody(http.StatusOK, body) }

// Role is the first chunk of OpenAI's streams: the role and empty content.
func Role() Step {
	return streamed(func(p *player) error { return p.chunk(map[string]any{"role": "assistant", "content": ""}, nil) })
}

// Delta streams a piece of the answer.
func Delta(text string) Step {
	return func(p *player) error {
		p.text.WriteString(text)
		if !p.request.Stream {
			return nil
		}
		return p.delta(text)
	}
}

// Reasoning streams a piece of the model's thinking as reasoning_content.
func Reasoning(text string) Step {
	return func(p *player) error {
		p.reasoning.WriteString(text)
		if !p.request.Stream {
			return nil
		}
		return p.chunk(map[string]any{"reasoning_content": text}, nil)
	}
}

// Finish streams the chunk with the finish reason.
func Finish(reason string) Step {
	return func(p *player) error {
		p.finish = reason
		if !p.request.Stream {
			return nil
		}
		return p.chunk(map[string]any{}, reason)
	}
}

// Usage streams the usage chunk that OpenAI sends after the finish reason, if
// the request asked for it.
func Usage(input, output int64) Step { return UsageDetails(input, output, 0, 0) }

// UsageDetails is Usage with the parts that came from the cache and that were
// reasoning.
func UsageDetails(input, output, cached, reasoning int64) Step {
	return func(p *player) error {
		p.usage = &usage{
			Prompt: input, Completion: output, Total: input + output,
			PromptInfo: &usageDetail{Cached: cached}, OutputInfo: &usageDetail{Reasoning: reasoning},
		}
		if !p.request.Stream || !p.request.StreamOptions.IncludeUsage {
			return nil
		}
		return p.event(map[string]any{
			"id": completionID, "object": "chat.completion.chunk", "model": p.request.Model,
			"choices": []any{}, "usage": p.usage,
		})
	}
}

// Done streams the end marker.
func Done() Step { return streamed(func(p *player) error { return p.write("data: [DONE]\n\n") }) }

// Data streams an event with the given data.
func Data(data string) Step { return Raw("data: " + data + "\n\n") }

// Comment streams an SSE comment, the keep-alive of some servers.
func Comment(text string) Step { return Raw(": " + text + "\n\n") }

// StreamError streams an error object in the middle of a success.
func StreamError(message, kind string) Step {
	body, _ := json.Marshal(errorBody(message, kind, "")) // maps of strings always encode
	return Data(string(body))
}

// Raw writes bytes into the stream as they are.
func Raw(bytes string) Step { return func(p *player) error { return p.write(bytes) } }

// Head sends the response head and nothing else, so that the client knows that
// the answer begins.
func Head() Step { return func(p *player) error { return p.start("text/event-stream") } }

// Gate waits until the channel yields or is closed.
func Gate(gate <-chan struct{}) Step {
	return func(p *player) error { return p.wait(gate) }
}

// Tell calls f when the reply comes to this point, to let a test know. f must not
// block.
func Tell(f func()) Step {
	return func(*player) error {
		f()
		return nil
	}
}

// Stall waits until the client gives up or the fake is closed.
func Stall() Step { return Gate(nil) }

// Delay waits by the clock. It is for demonstrations and benchmarks; tests use
// Gate.
func Delay(d time.Duration) Step {
	return func(p *player) error {
		over := make(chan struct{})
		timer := time.AfterFunc(d, func() { close(over) })
		defer timer.Stop()
		return p.wait(over)
	}
}

// Reset breaks the TCP connection with RST.
func Reset() Step {
	return func(p *player) error {
		return hangUp(p, true)
	}
}

// Cut closes the TCP connection without ending the chunked body.
func Cut() Step {
	return func(p *player) error {
		return hangUp(p, false)
	}
}

func hangUp(p *player, reset bool) error {
	conn, _, err := http.NewResponseController(p.w).Hijack()
	if err != nil {
		return fmt.Errorf("take the connection over: %w", err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		if err := tcp.SetLinger(0); err != nil {
			return fmt.Errorf("prepare the reset: %w", err)
		}
	}
	if err := conn.Close(); err != nil {
		return fmt.Errorf("close the connection: %w", err)
	}
	p.started = true
	return errOver
}

// streamed is a step that a request gets only if it streams.
func streamed(step Step) Step {
	return func(p *player) error {
		if !p.request.Stream {
			return nil
		}
		return step(p)
	}
}

// completionID is the id of every answer.
const completionID = "chatcmpl-fake"

func (p *player) wait(gate <-chan struct{}) error {
	select {
	case <-gate:
		return nil
	case <-p.ctx.Done():
		return errOver
	case <-p.closed:
		return errOver
	}
}

func (p *player) start(contentType string) error {
	if p.started {
		return nil
	}
	p.started = true
	p.w.Header().Set("Content-Type", contentType)
	p.w.WriteHeader(http.StatusOK)
	return http.NewResponseController(p.w).Flush()
}

// write sends bytes at once.
func (p *player) write(data string) error {
	if err := p.start("text/event-stream"); err != nil {
		return err
	}
	if _, err := p.w.Write([]byte(data)); err != nil {
		return err
	}
	return http.NewResponseController(p.w).Flush()
}

func (p *player) event(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return p.write("data: " + string(data) + "\n\n")
}

func (p *player) chunk(delta map[string]any, finish any) error {
	return p.event(map[string]any{
		"id": completionID, "object": "chat.completion.chunk", "model": p.request.Model,
		"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
	})
}

// delta is chunk for the usual case, written without maps, because benchmarks
// measure the client.
func (p *player) delta(text string) error {
	quoted, err := json.Marshal(text)
	if err != nil {
		return err
	}
	p.buffer = append(p.buffer[:0], `data: {"id":"`+completionID+`","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":`...)
	p.buffer = append(p.buffer, quoted...)
	p.buffer = append(p.buffer, `},"finish_reason":null}]}`+"\n\n"...)
	return p.write(string(p.buffer))
}

// sendWhole answers a request that does not stream.
func (p *player) sendWhole() {
	writeJSON(p.w, http.StatusOK, map[string]any{
		"id": completionID, "object": "chat.completion", "model": p.request.Model,
		"choices": []any{map[string]any{
			"index":         0,
			"message":       map[string]any{"role": "assistant", "content": p.text.String(), "reasoning_content": p.reasoning.String()},
			"finish_reason": p.finish,
		}},
		"usage": p.usage,
	})
}
