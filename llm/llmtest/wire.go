package llmtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// The wires: whose format a call is written in.
const (
	OpenAI    = "openai"    // POST …/chat/completions
	Anthropic = "anthropic" // POST …/messages
	Gemini    = "gemini"    // POST …/models/NAME:generateContent and :streamGenerateContent
)

// Wires lists all of them.
func Wires() []string { return []string{OpenAI, Anthropic, Gemini} }

// The kinds of errors that scripts name. Each wire has its own words for them;
// any other kind is sent as it is.
const (
	KindInvalid      = "invalid_request_error"
	KindUnauthorized = "authentication_error"
	KindForbidden    = "permission_error"
	KindNotFound     = "not_found_error"
	KindRateLimit    = "rate_limit_error"
	KindOverloaded   = "overloaded_error"
	KindServer       = "server_error"
	KindNoModel      = "model_not_found"
	KindNoEndpoint   = "unknown_url"
)

// statusKind returns the kind of error that goes with an HTTP status.
func statusKind(status int) string {
	switch {
	case status == http.StatusUnauthorized:
		return KindUnauthorized
	case status == http.StatusForbidden:
		return KindForbidden
	case status == http.StatusNotFound:
		return KindNotFound
	case status == http.StatusTooManyRequests:
		return KindRateLimit
	case status == http.StatusServiceUnavailable, status == 529:
		return KindOverloaded
	case status >= 500:
		return KindServer
	}
	return KindInvalid
}

// Request is a call as the fake understood it, the same for every wire.
type Request struct {
	llm.Request
	// Wire is one of OpenAI, Anthropic and Gemini.
	Wire string
	// Stream says that the answer is wanted in pieces.
	Stream bool
	// WantUsage says that usage is wanted in a stream, which only OpenAI's format
	// leaves to the caller.
	WantUsage bool
}

// Last returns the text of the last message, "" when there is none.
func (r Request) Last() string {
	if len(r.Messages) == 0 {
		return ""
	}
	return r.Messages[len(r.Messages)-1].Text
}

// Tokens is the usage of an answer. Input includes Cached and CacheWrite, and
// Output includes Reasoning, as in llm.Usage; a wire that counts otherwise takes
// them apart.
type Tokens struct {
	Input, Output, Cached, CacheWrite, Reasoning int64
}

// wire is the format of one vendor's API: how requests are read and answers
// written. It has no state; that of an answer is in its writer.
type wire interface {
	// request reads a call. The name of the model may be in the path.
	request(r *http.Request, body []byte) (Request, error)
	// writer returns what writes the answer to one call. usage is the one that the
	// script will report, for formats that send a part of it at the start; nil when
	// the script reports none.
	writer(req Request, usage *Tokens) writer
	// failure returns the body of an error with an HTTP status. kind is one of the
	// kinds above, or a word to be sent as it is.
	failure(status int, kind, message string) []byte
}

// writer writes the steps of one streamed answer. Each method appends to b what
// goes over the wire for its step, in the order of the script; nothing where the
// format has no such thing. A script may leave out any step: what a format needs
// before (a start of the message, of a block) is written when it is missing.
type writer interface {
	role(b []byte) []byte
	text(b []byte, delta string) []byte
	reasoning(b []byte, delta string) []byte
	// toolCall writes a whole call, its arguments in the given pieces.
	toolCall(b []byte, id, name string, pieces []string) []byte
	// finish writes the reason, one of llm.Finish… or a word to be sent as it is.
	finish(b []byte, reason string) []byte
	usage(b []byte, u Tokens) []byte
	// done writes the end marker, where the format has one of its own.
	done(b []byte) []byte
	// failure writes an error in the middle of the stream.
	failure(b []byte, kind, message string) []byte
	// whole returns the body for a request that does not stream.
	whole(a wholeAnswer) []byte
}

// wholeAnswer is what the steps of a script come to.
type wholeAnswer struct {
	text, reasoning string
	calls           []llm.ToolCall
	finish          string
	usage           *Tokens
}

// wireOf finds the wire of a path; nil when it belongs to none.
func wireOf(path string) (name string, w wire) {
	switch {
	case strings.HasSuffix(path, "/chat/completions"):
		return OpenAI, openAIWire{}
	case strings.HasSuffix(path, "/messages"):
		return Anthropic, anthropicWire{}
	case strings.HasSuffix(path, ":generateContent"), strings.HasSuffix(path, ":streamGenerateContent"):
		return Gemini, geminiWire{}
	}
	return "", nil
}

// event appends a server-sent event with v in JSON; the name may be empty.
func event(b []byte, name string, v any) []byte {
	if name != "" {
		b = append(append(append(b, "event: "...), name...), '\n')
	}
	b = append(b, "data: "...)
	b = append(b, encode(v)...)
	return append(b, "\n\n"...)
}

// encode returns v in JSON. It is given maps, strings and numbers, which can
// always be encoded.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("llmtest: encode %T: %v", v, err))
	}
	return data
}

// object is a JSON object.
type object = map[string]any

// textList reads a list of texts, or one text.
type textList []string

// UnmarshalJSON implements json.Unmarshaler.
func (s *textList) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*s = nil
		if one != "" {
			*s = textList{one}
		}
		return nil
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*s = slices.Clip(list)
	return nil
}
