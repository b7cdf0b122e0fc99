package llmtest

import (
	"bytes"
	"fmt"
	"net/http"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// Fault is one way in which the call of a model goes wrong, or nearly so, and
// what a provider makes of it. It is the same on every wire.
type Fault struct {
	// Name is of lower-case letters, digits and dashes.
	Name string
	// Reply plays it.
	Reply Reply
	// Code is that of the error; empty when the answer is a success all the same.
	Code llm.Code
	// Retryable and RetryAfter are those of the error.
	Retryable  bool
	RetryAfter time.Duration
	// Text is what of the answer arrives.
	Text string
	// Torn says that the system may lose some of what was sent before.
	Torn bool
	// Estimated and Repaired say that a success has no usage of the provider, and
	// that its text was repaired; ToolCalls counts its tool calls.
	Estimated, Repaired bool
	ToolCalls           int
}

// FaultNamed finds a fault.
func FaultNamed(name string) (Fault, bool) {
	for _, fault := range Faults() {
		if fault.Name == name {
			return fault, true
		}
	}
	return Fault{}, false
}

// pastDate is a Retry-After that is over.
const pastDate = "Wed, 21 Oct 2015 07:28:00 GMT"

// tooLong is a line that no provider reads to its end.
const tooLong = 10 << 20

// flood writes a line of tooLong bytes that begins with start.
func flood(start string) Step {
	return Step{play: func(p *player) error {
		if err := p.write([]byte(start)); err != nil {
			return err
		}
		piece := bytes.Repeat([]byte("x"), 64<<10)
		for sent := 0; sent < tooLong; sent += len(piece) {
			if err := p.write(piece); err != nil {
				return err
			}
		}
		return p.write([]byte("\n\n"))
	}}
}

// Faults returns all of them.
func Faults() []Fault {
	var all []Fault
	for _, part := range [][]Fault{silences(), refusals(), retryAfters(), streamErrors(), oddStreams(), brokenStreams(), oddTools(), oddUsages()} {
		all = append(all, part...)
	}
	return all
}

// half is an answer that breaks off, by the steps that follow it.
func half(steps ...Step) Reply { return append(Reply{Role(), Delta("half an ")}, steps...) }

const halfText = "half an "

// silences are answers that stop, one way or another.
func silences() []Fault {
	return []Fault{
		{Name: "stall-before-head", Reply: Reply{Stall()}, Code: llm.CodeTimeoutFirstByte, Retryable: true},
		{Name: "stall-before-first-byte", Reply: Reply{Head(), Stall()}, Code: llm.CodeTimeoutFirstByte, Retryable: true},
		{Name: "stall-mid-stream", Reply: half(Stall()), Code: llm.CodeTimeoutIdle, Retryable: true, Text: halfText},
		{Name: "empty-body", Reply: Reply{Head()}, Code: llm.CodeTruncatedStream, Retryable: true},
		{Name: "truncated", Reply: half(), Code: llm.CodeTruncatedStream, Retryable: true, Text: halfText},
		{Name: "truncated-tool-call", Reply: Reply{Role(), ToolCall("c1", "add", `{"a":`)}, Code: llm.CodeTruncatedStream, Retryable: true},
		{Name: "cut-in-chunk", Reply: half(Cut()), Code: llm.CodeTruncatedStream, Retryable: true, Text: halfText},
		{Name: "reset-before-head", Reply: Reply{Reset()}, Code: llm.CodeConnectionFailed, Retryable: true},
		{Name: "reset-mid-stream", Reply: half(Reset()), Code: llm.CodeConnectionFailed, Retryable: true, Text: halfText, Torn: true},
	}
}

// refusals are HTTP statuses that are no success.
func refusals() []Fault {
	var all []Fault
	for _, tt := range []struct {
		status    int
		code      llm.Code
		retryable bool
	}{
		{http.StatusBadRequest, llm.CodeInvalidRequest, false},
		{http.StatusUnauthorized, llm.CodeUnauthorized, false},
		{http.StatusForbidden, llm.CodeUnauthorized, false},
		{http.StatusNotFound, llm.CodeNotFound, false},
		{http.StatusRequestTimeout, llm.CodeUnavailable, true},
		{http.StatusConflict, llm.CodeUnavailable, true},
		{http.StatusRequestEntityTooLarge, llm.CodeInvalidRequest, false},
		{http.StatusUnprocessableEntity, llm.CodeInvalidRequest, false},
		{http.StatusTooManyRequests, llm.CodeRateLimited, true},
		{http.StatusInternalServerError, llm.CodeUnavailable, true},
		{http.StatusBadGateway, llm.CodeUnavailable, true},
		{http.StatusServiceUnavailable, llm.CodeOverloaded, true},
		{http.StatusGatewayTimeout, llm.CodeUnavailable, true},
		{529, llm.CodeOverloaded, true},
	} {
		all = append(all, Fault{Name: fmt.Sprintf("status-%d", tt.status), Reply: Status(tt.status), Code: tt.code, Retryable: tt.retryable})
	}
	return append(all,
		Fault{Name: "web-page-502", Reply: StatusBody(http.StatusBadGateway, "<html>Bad Gateway</html>"), Code: llm.CodeUnavailable, Retryable: true},
		Fault{Name: "web-page-200", Reply: StatusBody(http.StatusOK, "<!doctype html><title>Log in</title>"), Code: llm.CodeMalformedResponse},
		Fault{Name: "redirect", Reply: StatusBody(http.StatusTemporaryRedirect, "", "Location", "https://elsewhere.example/v1"), Code: llm.CodeMalformedResponse},
	)
}

// retryAfters are refusals that say when to come back, or claim to.
func retryAfters() []Fault {
	limited := func(name string, after time.Duration, headers ...string) Fault {
		return Fault{Name: name, Reply: Status(http.StatusTooManyRequests, headers...), Code: llm.CodeRateLimited, Retryable: true, RetryAfter: after}
	}
	final := func(status int, code llm.Code) Fault {
		return Fault{Name: fmt.Sprintf("should-not-retry-%d", status), Reply: Status(status, "X-Should-Retry", "false"), Code: code}
	}
	return []Fault{
		limited("retry-after-2", 2*time.Second, "Retry-After", "2"),
		limited("retry-after-120", 2*time.Minute, "Retry-After", "120"),
		limited("retry-after-negative", 0, "Retry-After", "-1"),
		limited("retry-after-nan", 0, "Retry-After", "NaN"),
		limited("retry-after-past", 0, "Retry-After", pastDate),
		limited("retry-after-huge", 0, "Retry-After", "1e99"),
		limited("retry-after-ms", 1500*time.Millisecond, "Retry-After-Ms", "1500", "Retry-After", "9"),
		limited("retry-after-ms-nan", 3*time.Second, "Retry-After-Ms", "NaN", "Retry-After", "3"),
		final(http.StatusTooManyRequests, llm.CodeRateLimited),
		final(http.StatusServiceUnavailable, llm.CodeOverloaded),
	}
}

// streamErrors come inside of a success.
func streamErrors() []Fault {
	var all []Fault
	for _, tt := range []struct {
		name, kind string
		code       llm.Code
	}{
		{"overloaded", KindOverloaded, llm.CodeOverloaded},
		{"rate-limit", KindRateLimit, llm.CodeRateLimited},
		{"server", KindServer, llm.CodeUnavailable},
	} {
		all = append(all,
			Fault{Name: "stream-error-" + tt.name, Reply: half(StreamError("scripted error", tt.kind)), Code: tt.code, Retryable: true, Text: halfText},
			Fault{Name: "stream-error-" + tt.name + "-first", Reply: Reply{StreamError("scripted error", tt.kind)}, Code: tt.code, Retryable: true},
		)
	}
	return all
}

// oddStreams are streams that the standard allows, and a few that it does not
// but that can be understood.
func oddStreams() []Fault {
	const text = "Grüße, 世界 \U0001F30D"
	whole := func(name string, before ...Step) Fault {
		return Fault{Name: name, Reply: append(before, Text("Grüße, ", "世界 ", "\U0001F30D")...), Text: text}
	}
	repaired := whole("nul-in-text")
	repaired.Reply, repaired.Text, repaired.Repaired = Text("a\x00b"), "a\uFFFDb", true
	return []Fault{
		whole("line-ends-cr", rewrite(func(b []byte) [][]byte { return [][]byte{bytes.ReplaceAll(b, []byte("\n"), []byte("\r"))} })),
		whole("line-ends-crlf-split", rewrite(func(b []byte) [][]byte {
			return bytes.SplitAfter(bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")), []byte("\r"))
		})),
		whole("byte-order-mark", Raw("\uFEFF")),
		whole("comments", Comment("keep-alive"), Raw(":\n")),
		whole("unknown-fields", Raw("id: 7\nretry: 10\nfoo: bar\nbaz\n\n")),
		whole("byte-by-byte", rewrite(func(b []byte) [][]byte { return bytes.SplitAfter(b, nil) })),
		repaired,
	}
}

// brokenStreams cannot be understood.
func brokenStreams() []Fault {
	return []Fault{
		{Name: "huge-line", Reply: half(flood("data: ")), Code: llm.CodeResponseTooLarge, Text: halfText},
		{Name: "huge-comment", Reply: half(flood(": ")), Code: llm.CodeResponseTooLarge, Text: halfText},
		{Name: "bad-json", Reply: half(Data(`{"oops`), Done()), Code: llm.CodeMalformedResponse, Text: halfText},
		{Name: "no-json", Reply: half(Data("what?"), Done()), Code: llm.CodeMalformedResponse, Text: halfText},
	}
}

// oddTools are tool calls that nobody asked for like this.
func oddTools() []Fault {
	end := []Step{Finish(llm.FinishToolCalls), Usage(7, 7), Done()}
	many := Reply{Role()}
	for i := range 1000 {
		many = append(many, ToolCall(fmt.Sprintf("c%d", i), "add", "{}"))
	}
	return []Fault{
		{Name: "tool-arguments-broken", Reply: append(Reply{Role(), ToolCall("c1", "add", `{"a":`, `oops`)}, end...), ToolCalls: 1},
		{Name: "tool-unknown", Reply: append(Reply{Role(), ToolCall("c1", "no_such_tool", "{}")}, end...), ToolCalls: 1},
		{Name: "tool-calls-1000", Reply: append(many, end...), Code: llm.CodeResponseTooLarge},
	}
}

// oddUsages are answers without a usage that can be believed.
func oddUsages() []Fault {
	estimated := func(name string, steps ...Step) Fault {
		reply := append(Reply{Role(), Delta("ok"), Finish(llm.FinishStop)}, steps...)
		return Fault{Name: name, Reply: append(reply, Done()), Text: "ok", Estimated: true}
	}
	return []Fault{
		estimated("usage-absent"),
		estimated("usage-negative", Usage(-5, 3)),
		estimated("usage-absurd", Usage(1<<62, 1<<62)),
		estimated("usage-cached-beyond-input", UsageDetails(5, 3, 1<<40, 0)),
	}
}
