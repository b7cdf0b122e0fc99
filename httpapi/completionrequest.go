package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// completion is a chat completion that was asked for.
type completion struct {
	model    string
	stream   bool
	usage    bool        // a last chunk tells the usage
	call     llm.Request // without the model
	lastUser string      // the text of the newest user message
	metadata map[string]json.RawMessage
	about    map[string]json.RawMessage // user and store
	unfit    string                     // a parameter that a chain would not keep to; "" when there is none
}

// fields reads the members of an object and keeps the first problem. A member
// that is null counts as missing, as it does with OpenAI.
type fields struct {
	members map[string]json.RawMessage
	at      string // where the object stands, such as messages[0]
	err     *error
}

func (f fields) path(name string) string {
	if f.at == "" {
		return name
	}
	return f.at + "." + name
}

func (f fields) fail(name, code, format string, args ...any) {
	if *f.err == nil {
		*f.err = refused(f.path(name), code, fmt.Sprintf(format, args...))
	}
}

// raw answers a member, nil when it is missing.
func (f fields) raw(name string) json.RawMessage {
	if raw := f.members[name]; string(raw) != "null" {
		return raw
	}
	return nil
}

// read decodes a member into a value of the type that the words describe.
func read[T any](f fields, name, words string) (v T, given bool) {
	raw := f.raw(name)
	if raw == nil {
		return v, false
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		var none T
		f.fail(name, codeInvalidType, "%s must be %s.", f.path(name), words)
		return none, false
	}
	return v, true
}

func (f fields) text(name string) string {
	v, _ := read[string](f, name, "a text")
	return v
}

// needed is a text that must not be missing.
func (f fields) needed(name string) string {
	if f.raw(name) == nil {
		f.fail(name, codeMissing, "%s is missing.", f.path(name))
	}
	return f.text(name)
}

func (f fields) flag(name string) (value, given bool) {
	return read[bool](f, name, "true or false")
}

func (f fields) number(name string, least, most float64) *float64 {
	v, given := read[float64](f, name, "a number")
	if !given {
		return nil
	}
	if v < least || v > most {
		f.fail(name, codeInvalidValue, "%s must be from %g to %g.", f.path(name), least, most)
	}
	return &v
}

func (f fields) whole(name string, least int64) *int64 {
	v, given := read[int64](f, name, "a whole number")
	if !given {
		return nil
	}
	if v < least {
		f.fail(name, codeInvalidValue, "%s must be at least %d.", f.path(name), least)
	}
	return &v
}

func (f fields) object(name string) (fields, bool) {
	members, given := read[map[string]json.RawMessage](f, name, "an object")
	return fields{members, f.path(name), f.err}, given
}

// each calls read for every object of a list.
func (f fields) each(name string, read func(fields)) {
	f.eachOf(name, f.raw(name), read)
}

func (f fields) eachOf(name string, raw json.RawMessage, read func(fields)) {
	if raw == nil {
		return
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		f.fail(name, codeInvalidType, "%s must be a list.", f.path(name))
		return
	}
	for i, item := range list {
		at := fmt.Sprintf("%s[%d]", name, i)
		var members map[string]json.RawMessage
		if err := json.Unmarshal(item, &members); err != nil || members == nil {
			f.fail(at, codeInvalidType, "%s must be an object.", f.path(at))
			return
		}
		read(fields{members, f.path(at), f.err})
	}
}

// readObject reads a body that is an object.
func readObject(body []byte) (f fields, err error) {
	f = fields{err: new(error)}
	if err := json.Unmarshal(body, &f.members); err != nil || f.members == nil {
		return f, refused("", codeInvalidType, "The body must be an object.")
	}
	return f, nil
}

// readCompletion reads the body of a chat completion. What it does not know is
// passed over, as OpenAI does, but what would change the answer and cannot be
// done is refused.
func readCompletion(body []byte) (*completion, error) {
	f, err := readObject(body)
	if err != nil {
		return nil, err
	}
	r := &completion{model: f.needed("model")}
	r.stream, _ = f.flag("stream")
	if options, given := f.object("stream_options"); given {
		r.usage, _ = options.flag("include_usage")
	}
	r.messages(f)
	r.tools(f)
	r.parameters(f)
	r.format(f)
	r.surroundings(f)
	refuseUnsupported(f)
	return r, *f.err
}

func (r *completion) messages(f fields) {
	if f.raw("messages") == nil {
		f.fail("messages", codeMissing, "messages is missing.")
	}
	f.each("messages", func(m fields) { r.call.Messages = append(r.call.Messages, r.message(m)) })
	if len(r.call.Messages) == 0 {
		f.fail("messages", codeInvalidValue, "messages must have at least one message.")
	}
}

func (r *completion) message(m fields) llm.Message {
	out := llm.Message{Role: llm.Role(m.needed("role"))}
	switch out.Role {
	case "developer":
		out.Role = llm.RoleSystem
	case llm.RoleSystem, llm.RoleUser, llm.RoleAssistant, llm.RoleTool:
	default:
		m.fail("role", codeInvalidValue, "%s must be one of system, developer, user, assistant and tool.", m.path("role"))
	}
	out.Text, out.Images = content(m, out.Role)
	switch out.Role {
	case llm.RoleUser:
		r.lastUser = out.Text
	case llm.RoleAssistant:
		m.each("tool_calls", func(t fields) {
			if kind := t.text("type"); kind != "" && kind != "function" {
				t.fail("type", codeUnsupportedValue, "Only calls of functions can be passed on.")
			}
			function, _ := t.object("function")
			call := llm.ToolCall{ID: t.needed("id"), Name: function.needed("name"), Arguments: function.text("arguments")}
			if extra, given := t.object("extra_content"); given {
				google, _ := extra.object("google")
				call.Signature = google.text("thought_signature")
			}
			out.ToolCalls = append(out.ToolCalls, call)
		})
	case llm.RoleTool:
		out.ToolCallID = m.needed("tool_call_id")
	case llm.RoleSystem:
	}
	return out
}

// content reads a text or a list of parts. Only a message of an assistant may
// have none.
func content(m fields, role llm.Role) (text string, images []llm.Image) {
	raw := m.raw("content")
	if raw == nil {
		if role != llm.RoleAssistant {
			m.fail("content", codeMissing, "%s is missing.", m.path("content"))
		}
		return "", nil
	}
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	if raw[0] != '[' {
		m.fail("content", codeInvalidType, "%s must be a text or a list of parts.", m.path("content"))
		return "", nil
	}
	var pieces []string
	m.eachOf("content", raw, func(part fields) {
		switch kind := part.needed("type"); {
		case kind == "text":
			pieces = append(pieces, part.needed("text"))
		case kind == "refusal" && role == llm.RoleAssistant:
			pieces = append(pieces, part.needed("refusal"))
		case kind == "image_url" && role == llm.RoleUser:
			if object, given := part.object("image_url"); given {
				images = append(images, image(object))
			} else {
				part.fail("image_url", codeMissing, "%s is missing.", part.path("image_url"))
			}
		default:
			part.fail("type", codeUnsupportedValue, "Content of the type %q cannot be passed on in a message of the role %s.", kind, role)
		}
	})
	return strings.Join(pieces, ""), images
}

// image reads the address of a picture, or the picture in a data: address.
func image(f fields) llm.Image {
	out := llm.Image{URL: f.needed("url"), Detail: f.text("detail")}
	data, inline := strings.CutPrefix(out.URL, "data:")
	if !inline {
		if u, err := url.Parse(out.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			f.fail("url", codeInvalidValue, "%s must be an http, https or data address.", f.path("url"))
		}
		return out
	}
	head, body, _ := strings.Cut(data, ",")
	head, encoded := strings.CutSuffix(head, ";base64")
	kind, _, err := mime.ParseMediaType(head)
	out.URL, out.MIMEType = "", kind
	if out.Data, _ = base64.StdEncoding.DecodeString(body); !encoded || err != nil || !strings.HasPrefix(kind, "image/") || len(out.Data) == 0 {
		f.fail("url", codeInvalidValue, "%s must be a picture in base64, such as data:image/png;base64,…", f.path("url"))
	}
	return out
}

func (r *completion) tools(f fields) {
	f.each("tools", func(t fields) {
		if kind := t.needed("type"); kind != "function" {
			t.fail("type", codeUnsupportedValue, "Only tools of the type function can be passed on.")
		}
		function, given := t.object("function")
		if !given {
			t.fail("function", codeMissing, "%s is missing.", t.path("function"))
		}
		tool := llm.Tool{Name: function.needed("name"), Description: function.text("description"), Parameters: function.raw("parameters")}
		function.object("parameters")
		tool.Strict, _ = function.flag("strict")
		r.call.Tools = append(r.call.Tools, tool)
	})
	if parallel, given := f.flag("parallel_tool_calls"); given {
		r.call.ParallelTools = &parallel
	}
	raw := f.raw("tool_choice")
	if raw == nil {
		return
	}
	var word string
	if json.Unmarshal(raw, &word) == nil {
		switch word {
		case "auto":
		case llm.ToolChoiceNone, llm.ToolChoiceRequired:
			r.call.ToolChoice = word
		default:
			f.fail("tool_choice", codeInvalidValue, "tool_choice must be auto, none, required or a function.")
		}
	} else if choice, given := f.object("tool_choice"); given {
		if kind := choice.needed("type"); kind != "function" {
			choice.fail("type", codeUnsupportedValue, "Only a function can be chosen.")
		}
		function, _ := choice.object("function")
		r.call.ToolChoice = function.needed("name")
	}
	if r.call.ToolChoice != "" && r.call.ToolChoice != llm.ToolChoiceNone && len(r.call.Tools) == 0 {
		f.fail("tool_choice", codeInvalidValue, "tool_choice asks for a tool, and there are no tools.")
	}
}

// mostStops is how many stop texts OpenAI takes.
const mostStops = 4

func (r *completion) parameters(f fields) {
	r.call.Temperature = f.number("temperature", 0, 2)
	r.call.TopP = f.number("top_p", 0, 1)
	r.call.Seed = f.whole("seed", math.MinInt64)
	r.call.Effort = f.text("reasoning_effort")
	for _, name := range []string{"max_tokens", "max_completion_tokens"} { // the newer name wins
		if n := f.whole(name, 1); n != nil {
			r.call.MaxTokens = int(min(*n, math.MaxInt32))
		}
	}
	if raw := f.raw("stop"); raw != nil {
		var one string
		if json.Unmarshal(raw, &one) == nil {
			r.call.Stop = []string{one}
		} else {
			r.call.Stop, _ = read[[]string](f, "stop", "a text or a list of texts")
		}
		if len(r.call.Stop) > mostStops || slices.Contains(r.call.Stop, "") {
			f.fail("stop", codeInvalidValue, "stop may have up to %d texts, none of them empty.", mostStops)
		}
	}
}

// format reads response_format. Any JSON object is asked for by its schema.
func (r *completion) format(f fields) {
	format, given := f.object("response_format")
	if !given {
		return
	}
	switch kind := format.needed("type"); kind {
	case "text":
	case "json_object":
		r.call.Schema = json.RawMessage(`{"type":"object"}`)
	case "json_schema":
		schema, given := format.object("json_schema")
		if !given {
			format.fail("json_schema", codeMissing, "response_format.json_schema is missing.")
			return
		}
		if _, given := schema.object("schema"); !given {
			schema.fail("schema", codeMissing, "%s is missing.", schema.path("schema"))
		}
		r.call.Schema = schema.raw("schema")
	default:
		format.fail("type", codeUnsupportedValue, "response_format.type must be text, json_object or json_schema.")
	}
}

// surroundings reads what is kept with the execution, and notes what a chain
// could not keep to.
func (r *completion) surroundings(f fields) {
	r.metadata, _ = read[map[string]json.RawMessage](f, "metadata", "an object")
	if n := len(f.raw("metadata")); n > maxMetadata {
		f.fail("metadata", codeInvalidValue, "metadata has %d bytes, more than %d.", n, maxMetadata)
	}
	r.about = make(map[string]json.RawMessage)
	f.text("user")
	f.flag("store")
	for _, name := range []string{"user", "store"} {
		if raw := f.raw(name); raw != nil {
			r.about[name] = raw
		}
	}
	switch {
	case len(r.call.Tools) > 0:
		r.unfit = "tools"
	case r.call.Schema != nil:
		r.unfit = "response_format"
	case len(r.call.Stop) > 0:
		r.unfit = "stop"
	}
}

// refuseUnsupported refuses parameters that would change the answer.
func refuseUnsupported(f fields) {
	if n := f.whole("n", 1); n != nil && *n > 1 {
		f.fail("n", codeUnsupportedValue, "n must be 1: an execution has one answer.")
	}
	if on, _ := f.flag("logprobs"); on {
		f.fail("logprobs", codeUnsupported, "Probabilities of tokens are not available.")
	}
	for _, name := range []string{"frequency_penalty", "presence_penalty"} {
		if v := f.number(name, -2, 2); v != nil && *v != 0 {
			f.fail(name, codeUnsupported, "%s is not passed on.", name)
		}
	}
	if modalities, given := read[[]string](f, "modalities", "a list of texts"); given && !slices.Equal(modalities, []string{"text"}) {
		f.fail("modalities", codeUnsupportedValue, "Only text can be answered.")
	}
	if bias, _ := f.object("logit_bias"); len(bias.members) > 0 {
		f.fail("logit_bias", codeUnsupported, "logit_bias is not passed on.")
	}
	for _, name := range []string{"top_logprobs", "audio", "functions", "function_call", "web_search_options", "verbosity"} {
		if f.raw(name) != nil {
			f.fail(name, codeUnsupported, "%s is not available here.", name)
		}
	}
}

// keptMetadata is what the execution keeps: the metadata of the request, and user
// and store beside it.
func (r *completion) keptMetadata() (json.RawMessage, error) {
	kept := make(map[string]json.RawMessage, len(r.metadata)+len(r.about))
	maps.Copy(kept, r.about)
	maps.Copy(kept, r.metadata)
	if len(kept) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(kept)
	if err != nil {
		return nil, fmt.Errorf("encode the metadata: %w", err)
	}
	return raw, nil
}

// continues reads whether the execution goes on when the client leaves.
func continues(h http.Header) (bool, error) {
	const name = "X-Chainstream-On-Disconnect"
	switch v := h.Get(name); strings.ToLower(v) {
	case "", "cancel":
		return false, nil
	case "continue":
		return true, nil
	}
	return false, badParameter(name, "cancel or continue is expected.")
}
