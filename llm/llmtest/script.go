package llmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/chainstream/chainstream/llm"
)

// AnyModel is the name in a script that stands for every model it does not name.
const AnyModel = "*"

// MaxScript bounds a script, in bytes.
const MaxScript = 1 << 20

// Script is what a file says about the answers of models. docs/fake-llm.md
// describes the language. A script is safe for concurrent use.
type Script struct {
	replies map[string][]scriptReply

	mu   sync.Mutex
	next map[string]int
}

// ParseScript reads a script. Its errors are sentences that name the place.
func ParseScript(data []byte) (*Script, error) {
	if len(data) > MaxScript {
		return nil, fmt.Errorf("the script has more than %d bytes", MaxScript)
	}
	document, err := toJSON(data)
	if err != nil {
		return nil, err
	}
	var models map[string][]json.RawMessage
	if json.Unmarshal(document, &models) != nil || len(models) == 0 {
		return nil, errors.New("a script maps names of models to lists of replies")
	}
	s := &Script{replies: make(map[string][]scriptReply), next: make(map[string]int)}
	for _, model := range slices.Sorted(maps.Keys(models)) {
		if len(models[model]) == 0 {
			return nil, fmt.Errorf("model %q has no replies", model)
		}
		for i, literal := range models[model] {
			reply, err := parseReply(literal)
			if err != nil {
				return nil, fmt.Errorf("model %q, reply %d: %w", model, i+1, err)
			}
			s.replies[model] = append(s.replies[model], reply)
		}
	}
	return s, nil
}

// toJSON turns YAML into JSON. The parser is known to panic on some documents.
func toJSON(data []byte) (document []byte, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("this is not valid YAML")
		}
	}()
	document, err = yaml.YAMLToJSON(data)
	if err != nil {
		return nil, fmt.Errorf("this is not valid YAML: %s", yaml.FormatError(err, false, false))
	}
	return document, nil
}

// Models returns the names that the script has, except AnyModel.
func (s *Script) Models() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.replies)), func(name string) bool { return name == AnyModel })
}

// Reply returns the next reply for a request; the last one of a model stays. It
// reports false for a model that the script says nothing about.
func (s *Script) Reply(req Request, pace Pace) (Reply, bool) {
	name := req.Model
	if len(s.replies[name]) == 0 {
		name = AnyModel
	}
	list := s.replies[name]
	if len(list) == 0 {
		return nil, false
	}
	s.mu.Lock()
	n := min(s.next[name], len(list)-1)
	s.next[name]++
	s.mu.Unlock()
	return list[n].play(req, pace), true
}

// Pace is how fast an answer comes. The zero value is at once.
type Pace struct {
	First time.Duration // until it begins
	Rate  float64       // tokens a second, as llm.EstimateTokens counts them; 0 is no limit
}

// start returns the steps before an answer.
func (p Pace) start() Reply {
	if p.First <= 0 {
		return Reply{Role()}
	}
	return Reply{Delay(p.First), Role()}
}

// words returns a text in words at the pace, each by the step that says it.
func (p Pace) words(say func(string) Step, text string) Reply {
	var reply Reply
	for _, word := range strings.SplitAfter(text, " ") {
		if word == "" {
			continue
		}
		if p.Rate > 0 {
			reply = append(reply, Delay(time.Duration(float64(llm.EstimateTokens(word))/p.Rate*float64(time.Second))))
		}
		reply = append(reply, say(word))
	}
	return reply
}

// Whole returns the reply that gives an answer in good order, at the pace. Where
// it lacks a finish reason or the usage, they are made up.
func Whole(req Request, pace Pace, answer Result) Reply {
	r := scriptReply{steps: []scriptStep{{Reasoning: answer.Reasoning}, {Text: answer.Text}}}
	for _, call := range answer.ToolCalls {
		r.steps = append(r.steps, scriptStep{ToolCall: &scriptCall{ID: call.ID, Name: call.Name, Arguments: arguments(call.Arguments)}})
	}
	r.steps = append(r.steps, scriptStep{Finish: answer.FinishReason})
	if u := answer.Usage; u != nil {
		r.steps = append(r.steps, scriptStep{Usage: &scriptUsage{u.InputTokens, u.OutputTokens, u.CachedTokens, u.CacheWriteTokens, u.ReasoningTokens}})
	}
	return r.play(req, pace)
}

// scriptReply is one reply of a script: a status, a fault or steps.
type scriptReply struct {
	status *scriptStatus
	fault  *Fault
	steps  []scriptStep
}

type scriptStatus struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Kind    string            `json:"kind"`
	Message string            `json:"message"`
	Body    *string           `json:"body"`
}

// scriptStep has one of its fields.
type scriptStep struct {
	Text        string       `json:"text"`
	Reasoning   string       `json:"reasoning"`
	ToolCall    *scriptCall  `json:"toolCall"`
	Delay       string       `json:"delay"`
	Raw         string       `json:"raw"`
	Comment     string       `json:"comment"`
	StreamError string       `json:"streamError"`
	Usage       *scriptUsage `json:"usage"`
	Finish      string       `json:"finish"`
	Stall       bool         `json:"stall"`
	Truncate    bool         `json:"truncate"`
	Reset       bool         `json:"reset"`
	Cut         bool         `json:"cut"`

	delay time.Duration
}

type scriptCall struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Arguments arguments `json:"arguments"`
}

// arguments are JSON: written as a mapping, or as a text to be sent as it is.
type arguments string

// UnmarshalJSON implements json.Unmarshaler.
func (a *arguments) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*a = arguments(text)
		return nil
	}
	var compact bytes.Buffer
	err := json.Compact(&compact, data)
	*a = arguments(compact.String())
	return err
}

type scriptUsage struct {
	Input      int64 `json:"input"`
	Output     int64 `json:"output"`
	Cached     int64 `json:"cached"`
	CacheWrite int64 `json:"cacheWrite"`
	Reasoning  int64 `json:"reasoning"`
}

func parseReply(literal json.RawMessage) (scriptReply, error) {
	var text string
	if json.Unmarshal(literal, &text) == nil {
		return scriptReply{steps: []scriptStep{{Text: text}}}, nil
	}
	var list []json.RawMessage
	if json.Unmarshal(literal, &list) != nil {
		var keys map[string]json.RawMessage
		if json.Unmarshal(literal, &keys) != nil {
			return scriptReply{}, errors.New("a reply is a text, a status, a fault, or a list of steps")
		}
		switch {
		case keys["status"] != nil:
			return parseStatus(literal)
		case keys["fault"] != nil:
			return parseFault(keys)
		}
		list = []json.RawMessage{literal} // the only step
	}
	var reply scriptReply
	for i, literal := range list {
		step, err := parseStep(literal)
		if err != nil {
			return reply, fmt.Errorf("step %d: %w", i+1, err)
		}
		reply.steps = append(reply.steps, step)
	}
	return reply, nil
}

func parseStatus(literal json.RawMessage) (scriptReply, error) {
	status := &scriptStatus{}
	if err := strictly(literal, status); err != nil {
		return scriptReply{}, err
	}
	if status.Status < 200 || status.Status > 599 {
		return scriptReply{}, fmt.Errorf("%d is not an HTTP status from 200 to 599", status.Status)
	}
	return scriptReply{status: status}, nil
}

func parseFault(keys map[string]json.RawMessage) (scriptReply, error) {
	var name string
	if json.Unmarshal(keys["fault"], &name) != nil || len(keys) > 1 {
		return scriptReply{}, errors.New("a fault is a name, alone")
	}
	fault, ok := FaultNamed(name)
	if !ok {
		return scriptReply{}, fmt.Errorf("there is no fault called %q", name)
	}
	return scriptReply{fault: &fault}, nil
}

func parseStep(literal json.RawMessage) (scriptStep, error) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(literal, &keys) != nil || len(keys) != 1 {
		return scriptStep{}, errors.New("a step is a mapping with one key, such as text: hello")
	}
	var step scriptStep
	if err := strictly(literal, &step); err != nil {
		return step, err
	}
	switch {
	case step.ToolCall != nil && step.ToolCall.Name == "":
		return step, errors.New("a tool call has a name")
	case step.Delay != "":
		var err error
		if step.delay, err = time.ParseDuration(step.Delay); err != nil || step.delay < 0 {
			return step, fmt.Errorf("%q is not a duration such as 500ms or 2s", step.Delay)
		}
	}
	return step, nil
}

// strictly decodes an object that has no other fields.
func strictly(literal json.RawMessage, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(literal))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%s cannot be a %s", kind.Field, kind.Value)
		}
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// play returns the reply to a request. Unless its steps say otherwise it ends in
// good order.
func (r scriptReply) play(req Request, pace Pace) Reply {
	switch {
	case r.fault != nil:
		return append(Reply{Note("fault " + r.fault.Name)}, r.fault.Reply...)
	case r.status != nil:
		return append(Reply{Note(fmt.Sprintf("status %d", r.status.Status))}, r.status.reply()...)
	}
	return r.answer(req, pace)
}

func (s scriptStatus) reply() Reply {
	var headers []string
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		headers = append(headers, name, s.Headers[name])
	}
	if s.Body != nil {
		return StatusBody(s.Status, *s.Body, headers...)
	}
	kind, message := s.Kind, s.Message
	if kind == "" {
		kind = statusKind(s.Status)
	}
	if message == "" {
		message = fmt.Sprintf("scripted error %d", s.Status)
	}
	return StatusError(s.Status, kind, message, headers...)
}

// answer plays steps.
func (r scriptReply) answer(req Request, pace Pace) Reply {
	reply := pace.start()
	var said, thought strings.Builder
	var usage *scriptUsage
	finish, broken, calls := "", "", 0
	for _, step := range r.steps {
		switch {
		case step.Text != "":
			said.WriteString(step.Text)
			reply = append(reply, pace.words(Delta, step.Text)...)
		case step.Reasoning != "":
			thought.WriteString(step.Reasoning)
			reply = append(reply, pace.words(Reasoning, step.Reasoning)...)
		case step.ToolCall != nil:
			calls++
			call, id := step.ToolCall, step.ToolCall.ID
			if id == "" {
				id = fmt.Sprintf("call_%d", calls)
			}
			said.WriteString(call.Name + string(call.Arguments))
			reply = append(reply, ToolCall(id, call.Name, string(call.Arguments)))
		case step.Usage != nil:
			usage = step.Usage
		case step.Finish != "":
			finish = step.Finish
		default:
			odd, end := step.odd()
			reply = append(reply, odd...)
			broken = end
		}
		if broken != "" {
			return append(Reply{Note(fmt.Sprintf("%d tokens, then %s", llm.EstimateTokens(said.String()), broken))}, reply...)
		}
	}
	if finish == "" {
		finish = llm.FinishStop
		if calls > 0 {
			finish = llm.FinishToolCalls
		}
	}
	if usage == nil {
		u := llm.EstimateUsage(req.Request, said.String(), thought.String())
		usage = &scriptUsage{Input: u.InputTokens, Output: u.OutputTokens, Reasoning: u.ReasoningTokens}
	}
	note := fmt.Sprintf("%d tokens, %s", usage.Output, finish)
	reply = append(reply, Finish(finish), UsageOf(Tokens(*usage)), Done())
	return append(Reply{Note(note)}, reply...)
}

// odd returns what a step does beside answering, and why the reply is over after
// it; empty when it is not.
func (s scriptStep) odd() (reply Reply, end string) {
	switch {
	case s.delay > 0:
		return Reply{Delay(s.delay)}, ""
	case s.Raw != "":
		return Reply{Raw(s.Raw)}, ""
	case s.Comment != "":
		return Reply{Comment(s.Comment)}, ""
	case s.StreamError != "":
		return Reply{StreamError("scripted error", streamKind(s.StreamError))}, "an error in the stream"
	case s.Stall:
		return Reply{Stall()}, "a stall"
	case s.Truncate:
		return nil, "the end without an end marker"
	case s.Reset:
		return Reply{Reset()}, "a reset"
	case s.Cut:
		return Reply{Cut()}, "a cut"
	}
	return nil, ""
}

// streamKind reads the short names of the kinds of errors.
func streamKind(word string) string {
	switch word {
	case "overloaded":
		return KindOverloaded
	case "rate-limit":
		return KindRateLimit
	case "server":
		return KindServer
	}
	return word
}
