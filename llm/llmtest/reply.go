package llmtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// Reply is the answer to one call: steps that are played in order, in the format
// of whoever calls. When they are over the body ends cleanly.
type Reply []Step

// Step is one action of the fake.
type Step struct {
	play  func(*player) error
	usage *Tokens // that it will report, for formats that need to know beforehand
}

// errOver ends a reply early: the client is gone, or the fake is closed.
var errOver = errors.New("reply is over")

// player plays one reply.
type player struct {
	w       http.ResponseWriter
	ctx     context.Context //nolint:containedctx // of the request, lives as long as the player
	closed  <-chan struct{}
	request Request
	wire    wire
	writer  writer
	started bool
	buffer  []byte
	note    string
	rewrite func([]byte) [][]byte // what is written into writes; nil is as it is

	// What a request that does not stream gets at the end, in one piece.
	text, reasoning strings.Builder
	answer          wholeAnswer
}

func play(p *player, reply Reply) {
	var usage *Tokens
	for _, step := range reply {
		if step.usage != nil {
			usage = step.usage
		}
	}
	p.writer = p.wire.writer(p.request, usage)
	for _, step := range reply {
		if err := step.play(p); err != nil {
			return
		}
	}
	switch {
	case p.started:
	case !p.request.Stream && p.answer.finish != "":
		p.answer.text, p.answer.reasoning = p.text.String(), p.reasoning.String()
		writeBody(p.w, http.StatusOK, p.writer.whole(p.answer))
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
	return append(reply, Finish(llm.FinishStop), Usage(7, int64(len(pieces))), Done())
}

// Status is the reply with an HTTP error status and the error body of the wire.
// Headers are given as names and values in turn, such as "Retry-After", "2".
func Status(status int, headers ...string) Reply {
	return StatusError(status, statusKind(status), fmt.Sprintf("scripted error %d", status), headers...)
}

// StatusError is Status with a kind and a message of one's own.
func StatusError(status int, kind, message string, headers ...string) Reply {
	return Reply{{play: func(p *player) error {
		return p.status(status, p.wire.failure(status, kind, message), headers)
	}}}
}

// StatusBody is Status with a body of one's own.
func StatusBody(status int, body string, headers ...string) Reply {
	return Reply{{play: func(p *player) error { return p.status(status, []byte(body), headers) }}}
}

// JSON is the reply 200 with a JSON body in one piece, as a server sends it that
// does not stream.
func JSON(body string) Reply { return StatusBody(http.StatusOK, body) }

// streamed is a step that writes into a stream; a request that does not stream
// does not get it.
func streamed(write func(w writer, b []byte) []byte) Step {
	return Step{play: func(p *player) error {
		if !p.request.Stream {
			return nil
		}
		return p.send(write)
	}}
}

// Role is the start of an answer, before any text.
func Role() Step { return streamed(func(w writer, b []byte) []byte { return w.role(b) }) }

// Delta streams a piece of the answer.
func Delta(text string) Step {
	return Step{play: func(p *player) error {
		if !p.request.Stream {
			p.text.WriteString(text)
			return nil
		}
		return p.send(func(w writer, b []byte) []byte { return w.text(b, text) })
	}}
}

// Reasoning streams a piece of the model's thinking.
func Reasoning(text string) Step {
	return Step{play: func(p *player) error {
		if !p.request.Stream {
			p.reasoning.WriteString(text)
			return nil
		}
		return p.send(func(w writer, b []byte) []byte { return w.reasoning(b, text) })
	}}
}

// ToolCall streams the wish to have a tool called. The arguments are JSON, in
// pieces that are streamed one by one where the wire does so.
func ToolCall(id, name string, arguments ...string) Step {
	return Step{play: func(p *player) error {
		if !p.request.Stream {
			p.answer.calls = append(p.answer.calls, llm.ToolCall{ID: id, Name: name, Arguments: strings.Join(arguments, "")})
			return nil
		}
		return p.send(func(w writer, b []byte) []byte { return w.toolCall(b, id, name, arguments) })
	}}
}

// Finish streams the finish reason: one of llm.Finish…, which each wire has its
// own word for, or another that is sent as it is.
func Finish(reason string) Step {
	return Step{play: func(p *player) error {
		p.answer.finish = reason
		if !p.request.Stream {
			return nil
		}
		return p.send(func(w writer, b []byte) []byte { return w.finish(b, reason) })
	}}
}

// Usage streams the usage, if the request asked for it. It follows Finish.
func Usage(input, output int64) Step { return UsageOf(Tokens{Input: input, Output: output}) }

// UsageDetails is Usage with the parts that came from the cache and that were
// reasoning.
func UsageDetails(input, output, cached, reasoning int64) Step {
	return UsageOf(Tokens{Input: input, Output: output, Cached: cached, Reasoning: reasoning})
}

// UsageOf is Usage with all its parts.
func UsageOf(u Tokens) Step {
	return Step{usage: &u, play: func(p *player) error {
		p.answer.usage = &u
		if !p.request.Stream {
			return nil
		}
		return p.send(func(w writer, b []byte) []byte { return w.usage(b, u) })
	}}
}

// Done streams the end marker, where the wire has one.
func Done() Step { return streamed(func(w writer, b []byte) []byte { return w.done(b) }) }

// StreamError streams an error in the middle of a success. kind is one of the
// kinds above, or a word that is sent as it is.
func StreamError(message, kind string) Step {
	return Step{play: func(p *player) error {
		return p.send(func(w writer, b []byte) []byte { return w.failure(b, kind, message) })
	}}
}

// Data streams an event with the given data.
func Data(data string) Step { return Raw("data: " + data + "\n\n") }

// Comment streams an SSE comment, the keep-alive of some servers.
func Comment(text string) Step { return Raw(": " + text + "\n\n") }

// Raw writes bytes into the stream as they are.
func Raw(bytes string) Step {
	return Step{play: func(p *player) error { return p.write([]byte(bytes)) }}
}

// rewrite has everything that follows go through f, which returns the pieces
// that are sent one by one.
func rewrite(f func([]byte) [][]byte) Step {
	return Step{play: func(p *player) error {
		p.rewrite = f
		return nil
	}}
}

// Head sends the response head and nothing else, so that the client knows that
// the answer begins.
func Head() Step {
	return Step{play: func(p *player) error { return p.start("text/event-stream") }}
}

// Gate waits until the channel yields or is closed.
func Gate(gate <-chan struct{}) Step {
	return Step{play: func(p *player) error { return p.wait(gate) }}
}

// Tell calls f when the reply comes to this point, to let a test know. f must not
// block.
func Tell(f func()) Step {
	return Step{play: func(*player) error {
		f()
		return nil
	}}
}

// Note says in words what the reply does, for Call.Note.
func Note(text string) Step {
	return Step{play: func(p *player) error {
		p.note = text
		return nil
	}}
}

// Stall waits until the client gives up or the fake is closed.
func Stall() Step { return Gate(nil) }

// Delay waits by the clock. It is for demonstrations and benchmarks; tests use
// Gate.
func Delay(d time.Duration) Step {
	return Step{play: func(p *player) error {
		over := make(chan struct{})
		timer := time.AfterFunc(d, func() { close(over) })
		defer timer.Stop()
		return p.wait(over)
	}}
}

// Reset breaks the TCP connection with RST.
func Reset() Step { return Step{play: func(p *player) error { return p.hangUp(true) }} }

// Cut closes the TCP connection without ending the chunked body.
func Cut() Step { return Step{play: func(p *player) error { return p.hangUp(false) }} }

func (p *player) hangUp(reset bool) error {
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

func (p *player) status(status int, body []byte, headers []string) error {
	for i := 0; i+1 < len(headers); i += 2 {
		p.w.Header().Set(headers[i], headers[i+1])
	}
	p.w.Header().Set("Content-Type", "application/json")
	p.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	p.w.WriteHeader(status)
	p.started = true
	return p.write(body)
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

// send writes one step in the format of the wire.
func (p *player) send(step func(w writer, b []byte) []byte) error {
	p.buffer = step(p.writer, p.buffer[:0])
	return p.write(p.buffer)
}

// write sends bytes at once.
func (p *player) write(data []byte) error {
	if err := p.start("text/event-stream"); err != nil {
		return err
	}
	if len(data) == 0 {
		return nil
	}
	writes := [][]byte{data}
	if p.rewrite != nil {
		writes = p.rewrite(data)
	}
	for _, part := range writes {
		if _, err := p.w.Write(part); err != nil {
			return err
		}
		if err := http.NewResponseController(p.w).Flush(); err != nil {
			return err
		}
	}
	return nil
}
