package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
)

// chainPrefix begins the model ids of chains.
const chainPrefix = "chain/"

// completionAnswer is a whole answer.
type completionAnswer struct {
	ID      string             `json:"id"`
	Object  string             `json:"object"`
	Created int64              `json:"created"`
	Model   string             `json:"model"`
	Choices []completionChoice `json:"choices"`
	Usage   *usageAnswer       `json:"usage"`
}

type completionChoice struct {
	Index        int              `json:"index"`
	Message      completionAuthor `json:"message"`
	Logprobs     *string          `json:"logprobs"` // always null
	FinishReason string           `json:"finish_reason"`
}

type completionAuthor struct {
	Role             string           `json:"role"`
	Content          *string          `json:"content"` // null beside tool calls
	Refusal          *string          `json:"refusal"` // always null
	ReasoningContent string           `json:"reasoning_content,omitempty"`
	ToolCalls        []toolCallAnswer `json:"tool_calls,omitempty"`
}

type toolCallAnswer struct {
	Index    *int   `json:"index,omitempty"` // in a stream only
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
	Extra *extraContent `json:"extra_content,omitempty"`
}

// extraContent is where Google's own OpenAI-compatible API puts the signature of a
// tool call, which comes back with it in the next request.
type extraContent struct {
	Google struct {
		Signature string `json:"thought_signature"`
	} `json:"google"`
}

type usageAnswer struct {
	PromptTokens     int64 `json:"prompt_tokens"`
	CompletionTokens int64 `json:"completion_tokens"`
	TotalTokens      int64 `json:"total_tokens"`
	PromptDetails    struct {
		Cached int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

// completionChunk is a piece of an answer.
type completionChunk struct {
	ID      string           `json:"id"`
	Object  string           `json:"object"`
	Created int64            `json:"created"`
	Model   string           `json:"model"`
	Choices []chunkChoice    `json:"choices"`
	Usage   *json.RawMessage `json:"usage,omitempty"` // null in all but the last, when it was asked for
}

type chunkChoice struct {
	Index        int        `json:"index"`
	Delta        chunkDelta `json:"delta"`
	Logprobs     *string    `json:"logprobs"` // always null
	FinishReason *string    `json:"finish_reason"`
}

type chunkDelta struct {
	Role             string           `json:"role,omitempty"`
	Content          *string          `json:"content,omitempty"`
	ReasoningContent string           `json:"reasoning_content,omitempty"`
	ToolCalls        []toolCallAnswer `json:"tool_calls,omitempty"`
}

func (r *reading) usageAnswer() *usageAnswer {
	u := &usageAnswer{
		PromptTokens: r.usage.InputTokens, CompletionTokens: r.usage.OutputTokens, TotalTokens: r.usage.InputTokens + r.usage.OutputTokens,
	}
	u.PromptDetails.Cached, u.CompletionDetails.Reasoning = r.usage.CachedTokens, r.usage.ReasoningTokens
	return u
}

// complete is POST /v1/chat/completions: it makes an execution like every other,
// and its answer is read from the execution's log.
func (s *Server) complete(c echo.Context) error {
	body, _, err := s.body(c, mediaJSON)
	if err != nil {
		return err
	}
	req, err := readCompletion(body)
	if err != nil {
		return err
	}
	stays, err := continues(c.Request().Header)
	if err != nil {
		return err
	}
	if s.stopping() {
		return executor.ErrStopping
	}
	seat := s.streams.take(s.cfg.MaxStreams) // a caller that waits costs as much as one that watches
	if seat == nil {
		return &problem{kind: kindOverloaded, detail: "Too many answers are being waited for. Try again later.", retryAfter: busyRetry}
	}
	defer seat.leave()
	ex, version, replayed, err := s.startCompletion(c, req, body)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set("X-Execution-Id", strconv.FormatInt(ex.ID, 10))
	h.Set("Link", "<"+eventsURL(ex.ID)+`>; rel="monitor"`)
	a := &answering{
		server: s, c: c, request: req, execution: ex, version: version,
		abandons: !stays && !replayed, // another client waits for an execution that was there before
	}
	return a.run(c.Request().Context())
}

// startCompletion makes the execution, or finds the one that the idempotency key
// had made; then it does not know its version.
func (s *Server) startCompletion(c echo.Context, req *completion, body []byte) (ex executor.Execution, v *chain.Version, replayed bool, err error) {
	ctx := c.Request().Context()
	key, err := idempotencyKey(c.Request().Header)
	if err != nil {
		return ex, nil, false, err
	}
	hashedKey, err := hashed(key, c.Path(), body)
	if err != nil {
		return ex, nil, false, err
	}
	if ex, replayed, err = s.replay(ctx, hashedKey); err != nil {
		return ex, nil, false, err
	}
	if !replayed {
		t, err := s.completionTrigger(ctx, req)
		if err != nil {
			return ex, nil, false, err
		}
		t.Key, v = hashedKey, t.Version
		// Whether it was made must be known, or it could not be stopped.
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), triggerTimeout)
		defer cancel()
		if ex, replayed, err = s.cfg.Runner.Trigger(whole, t); err != nil {
			s.metrics.executions.WithLabelValues("refused").Inc()
			return ex, nil, false, err
		}
	}
	if replayed {
		v = nil // the chain may have changed since
		s.metrics.executions.WithLabelValues("replayed").Inc()
		c.Response().Header().Set("Idempotency-Replayed", "true")
	} else {
		s.metrics.executions.WithLabelValues("created").Inc()
	}
	return ex, v, replayed, nil
}

// completionTrigger answers the trigger that a completion means.
func (s *Server) completionTrigger(ctx context.Context, req *completion) (t executor.Trigger, err error) {
	name, isChain := strings.CutPrefix(req.model, chainPrefix)
	if !isChain {
		if _, err := s.cfg.Models.Resolve(req.model); err != nil {
			return t, noModel(fmt.Sprintf("The model %q cannot be called here: %s. Models are chain/NAME and PROVIDER/MODEL.", req.model, err))
		}
		if t, err = executor.Direct(req.model, req.call); err != nil {
			return t, err
		}
	} else {
		if req.unfit != "" {
			return t, refused(req.unfit, codeUnsupported, fmt.Sprintf("A chain says itself what its models are asked: %s is not for chains.", req.unfit))
		}
		if t.Version, err = s.findChain(ctx, 0, name, 0); errors.Is(err, chain.ErrNotFound) {
			return t, noModel(fmt.Sprintf("There is no chain named %q.", name))
		} else if err != nil {
			return t, err
		}
		given, err := inputsOf(t.Version.Chain, req)
		if err != nil {
			return t, err
		}
		t.Inputs, err = t.Version.Chain.CheckInputs(given)
		if list, ok := isProblems(err); ok {
			return t, inputProblem(list)
		}
		if err != nil {
			return t, err
		}
		if err := s.runnable(ctx, t.Version.Chain); err != nil {
			return t, err
		}
	}
	t.Metadata, err = req.keptMetadata()
	return t, err
}

// answering is one answer on its way.
type answering struct {
	server    *Server
	c         echo.Context
	request   *completion
	execution executor.Execution
	version   *chain.Version // nil while it is not known
	reading   *reading
	abandons  bool // the execution ends when the client leaves

	out   *responseWriter // nil until a stream has begun
	begun bool            // the first chunk was written
	sent  time.Time       // when something was written last
}

// run follows the log and sends the answer. An error says that nothing was sent.
func (a *answering) run(ctx context.Context) error {
	err := a.follow(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errDeparted) || ctx.Err() != nil:
		a.abandon(ctx)
		return context.Canceled
	case errors.Is(err, errRestarted):
		a.abandon(ctx) // nobody can be told the rest
	}
	failed := *openAIProblem(problemOf(err))
	// The execution is there, and may go on: without a key the same request again
	// would be another one.
	failed.final = failed.final || a.c.Request().Header.Get("Idempotency-Key") == ""
	if a.out == nil {
		return &failed
	}
	_ = a.write([]byte("data: " + string(openAIBody(&failed)) + "\n\n")) // a client that has left needs no error
	_ = a.out.Flush()
	return nil
}

// errDeparted says that the client has left, or does not read what it is sent.
var errDeparted = errors.New("the client has left")

// Bounds of what goes on although the client has left.
const (
	triggerTimeout = 30 * time.Second
	abandonTimeout = 10 * time.Second
)

// abandon stops the execution: with this API, leaving is the only way to say so.
func (a *answering) abandon(ctx context.Context) {
	if !a.abandons {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	if _, err := a.server.cfg.Runner.Cancel(ctx, a.execution.ID); err != nil && !errors.Is(err, executor.ErrFinished) {
		a.server.logger.WarnContext(ctx, "execution of a client that left not cancelled", "execution_id", a.execution.ID, "error", err)
	}
}

// follow reads the log until the execution has ended.
func (a *answering) follow(ctx context.Context) error {
	s := a.server
	if err := unhurried(http.NewResponseController(a.c.Response().Writer)); err != nil {
		return err
	}
	if a.version == nil {
		var err error
		if a.version, err = s.cfg.Store.PinnedVersion(ctx, a.execution.ChainID, a.execution.ChainVersion); err != nil {
			return err
		}
	}
	a.reading = newReading(a.execution.ID, a.version, s.cfg.Store)
	sub, err := s.cfg.Broker.Subscribe(ctx, a.execution.ID, 0)
	if err != nil {
		return err
	}
	defer sub.Close()
	timer := time.NewTimer(s.cfg.Heartbeat)
	defer timer.Stop()
	a.sent = time.Now()
	leaving := false
	for {
		if err := a.ping(); err != nil {
			return err
		}
		frames, wake, err := sub.Poll(ctx)
		outage := errors.Is(err, events.ErrUnavailable)
		if err != nil && !outage {
			return err
		}
		for _, f := range frames {
			if err := a.reading.add(ctx, f); err != nil {
				return err
			}
		}
		if a.reading.ended {
			return a.end()
		}
		if len(frames) > 0 {
			if err := a.more(); err != nil {
				return err
			}
			continue
		}
		if leaving {
			return executor.ErrStopping
		}
		wait := s.cfg.Heartbeat // of a whole answer nothing depends on it
		switch {
		case outage:
			wait = outageInterval
		case a.request.stream:
			wait -= time.Since(a.sent)
		}
		timer.Reset(wait)
		select {
		case <-wake:
		case <-timer.C:
		case <-s.leaving:
			leaving = true // the newest events may still be the last
		case <-ctx.Done():
			return errDeparted
		}
	}
}

// more sends what the newest events add to the answer.
func (a *answering) more() error {
	if !a.request.stream {
		return nil
	}
	text, reasoning, failed := a.reading.next()
	wrote := text != "" || reasoning != ""
	if reasoning != "" {
		if err := a.chunk(chunkDelta{ReasoningContent: reasoning}, nil); err != nil {
			return err
		}
	}
	if text != "" {
		if err := a.chunk(chunkDelta{Content: &text}, nil); err != nil {
			return err
		}
	}
	if failed != nil {
		return failed
	}
	if wrote {
		return a.flush()
	}
	return nil
}

// ping keeps a connection open on which nothing else has been said for a while.
// From then on an error can only come in the stream.
func (a *answering) ping() error {
	if !a.request.stream || time.Since(a.sent) < a.server.cfg.Heartbeat {
		return nil
	}
	if err := a.write([]byte(": ping\n\n")); err != nil {
		return err
	}
	return a.flush()
}

// end sends the end of the answer.
func (a *answering) end() error {
	if failed := a.reading.outcome(); failed != nil {
		return failed
	}
	if !a.request.stream {
		return a.sendWhole()
	}
	if err := a.more(); err != nil {
		return err
	}
	if calls := a.reading.toolCalls(); len(calls) > 0 {
		for i := range calls {
			calls[i].Index = &i
		}
		if err := a.chunk(chunkDelta{ToolCalls: calls}, nil); err != nil {
			return err
		}
	}
	finish := a.reading.finishReason()
	if err := a.chunk(chunkDelta{}, &finish); err != nil {
		return err
	}
	if a.request.usage {
		usage, err := json.Marshal(a.reading.usageAnswer())
		if err != nil {
			return fmt.Errorf("encode the usage: %w", err)
		}
		if err := a.send(completionChunk{Choices: []chunkChoice{}, Usage: (*json.RawMessage)(&usage)}); err != nil {
			return err
		}
	}
	if err := a.write([]byte("data: [DONE]\n\n")); err != nil {
		return err
	}
	return a.flush()
}

func (a *answering) id() string { return "chatcmpl-" + strconv.FormatInt(a.execution.ID, 10) }

func (a *answering) sendWhole() error {
	r, res := a.reading, a.c.Response()
	message := completionAuthor{Role: "assistant", ToolCalls: r.toolCalls()}
	text, reasoning := r.whole()
	message.ReasoningContent = reasoning
	if text != "" || len(message.ToolCalls) == 0 {
		message.Content = &text
	}
	rc := http.NewResponseController(res.Writer)
	if err := rc.SetWriteDeadline(time.Now().Add(a.server.cfg.WriteTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set write deadline: %w", err)
	}
	return a.c.JSON(http.StatusOK, completionAnswer{
		ID: a.id(), Object: "chat.completion", Created: a.execution.CreatedAt.Unix(), Model: a.request.model,
		Choices: []completionChoice{{Message: message, FinishReason: r.finishReason()}}, Usage: r.usageAnswer(),
	})
}

var null = json.RawMessage("null")

// chunk sends a piece of the answer, the role before the first.
func (a *answering) chunk(d chunkDelta, finish *string) error {
	if !a.begun {
		a.begun = true
		empty := ""
		if err := a.chunk(chunkDelta{Role: "assistant", Content: &empty}, nil); err != nil {
			return err
		}
	}
	k := completionChunk{Choices: []chunkChoice{{Delta: d, FinishReason: finish}}}
	if a.request.usage {
		k.Usage = &null
	}
	return a.send(k)
}

func (a *answering) send(k completionChunk) error {
	k.ID, k.Object, k.Created, k.Model = a.id(), "chat.completion.chunk", a.execution.CreatedAt.Unix(), a.request.model
	data, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode a piece of an answer: %w", err)
	}
	return a.write(append(append([]byte("data: "), data...), "\n\n"...))
}

// write writes to the stream, the header before the first bytes.
func (a *answering) write(b []byte) error {
	if a.out == nil {
		res := a.c.Response()
		h := res.Header()
		h.Set(echo.HeaderContentType, "text/event-stream")
		h.Set(echo.HeaderCacheControl, "no-store, no-transform")
		h.Set("X-Accel-Buffering", "no")
		a.out = newResponseWriter(res, http.NewResponseController(res.Writer), a.server.cfg.StreamWrite)
		res.WriteHeader(http.StatusOK)
	}
	a.sent = time.Now()
	if _, err := a.out.Write(b); err != nil {
		return errDeparted
	}
	return nil
}

func (a *answering) flush() error {
	if err := a.out.Flush(); err != nil {
		return errDeparted
	}
	return nil
}
