package executor

import (
	"cmp"
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// The states of a prompt, as they are stored.
const (
	promptRunning   = events.PromptRunning
	promptCompleted = events.PromptCompleted
	promptFailed    = events.PromptFailed
	promptCancelled = events.PromptCancelled
)

// Bounds of what an event carries.
const (
	maxOutputBytes   = 64 << 10 // of prompt-complete; the whole text is in prompt_results
	maxVariableRunes = 500
)

// step is one prompt on its way through its attempts.
type step struct {
	run    *run
	index  int
	prompt *chain.Prompt
	stream string
	state  events.PromptState
	opened time.Time // of the newest event that opened an attempt

	prepared bool
	rendered chain.Rendered
	history  []chain.Turn

	called     bool        // the model of this turn has been called
	paid       bool        // the next call of it is its first, or is taken from the budget for retries
	correction *correction // nil = the prompt as it stands
	failed     error       // of the newest attempt
	sources    []source    // of the text that was placed, by id
}

// newStep starts a prompt, or goes on with one that another claim had begun.
func newStep(r *run, i int, stream string, prior events.PromptState) *step {
	p := &r.version.Chain.Prompts[i]
	s := &step{run: r, index: i, prompt: p, stream: stream, state: prior, paid: true}
	if prior.Attempt == 0 {
		s.state = events.PromptState{
			PromptID: r.version.PromptIDs[i], Ordinal: i, Name: p.Name, Position: p.Position, CostUSD: events.Nothing(), // StartedAt is the time of its first event
		}
	}
	return s
}

// attempts makes attempts until one succeeds or none is left. Its error is a
// *failure when the prompt failed, and a *later when it has to wait for long.
func (s *step) attempts(ctx context.Context) error {
	ctx, stop := s.timeLimit(ctx)
	defer stop()
	at := s.announcedTurn()
	if err := s.resume(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return s.ended(ctx, ctx.Err())
	}
	for {
		err := s.attempt(ctx, s.models()[at.model])
		if err == nil {
			return nil
		}
		if s.run.hold.Err() != nil || errors.Is(err, events.ErrFenced) || errors.Is(err, events.ErrClosed) || errors.Is(err, errHandedOver) {
			return cause(s.run.hold, err)
		}
		var n *next
		if n, err = s.next(ctx, at, err); n == nil {
			return s.ended(ctx, err)
		}
		s.failed = err
		if err := s.retry(*n); err != nil {
			return err
		}
		if err := s.delayed(ctx, n.delay, n.long); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return s.ended(ctx, err)
		}
		at = n.turn
	}
}

// ended closes the prompt after its last attempt.
func (s *step) ended(ctx context.Context, err error) error {
	if s.run.hold.Err() != nil {
		return context.Cause(s.run.hold) // whoever goes on with the execution makes the next attempt
	}
	f := failureOf(ctx, err)
	if _, ok := errors.AsType[*llm.Error](err); ok && ctx.Err() == nil && f.code != codeUnavailable {
		f.message += " Model: " + s.state.ModelID + "."
	}
	return s.fail(f)
}

// resume announces the attempt of a prompt that another claim had begun. An
// attempt that was announced already comes when it was to come.
func (s *step) resume(ctx context.Context) error {
	if s.state.Attempt == 0 {
		return nil
	}
	if l := s.run.unfinished[s.index]; l != nil && l.Announced {
		// Clocks of servers differ: never longer than was said.
		left := min(l.Delay-s.run.e.cfg.Now().Sub(l.Newest), l.Delay)
		return s.delayed(ctx, left, left > s.run.e.cfg.Retry.Held())
	}
	return s.retry(next{reason: "the server that ran this prompt stopped", turn: turn{0, 1}})
}

// pause waits before an attempt, unless the context ends or the execution is to
// be handed over: then whoever goes on makes the attempt.
func (s *step) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		if !s.run.e.hasLeft() {
			return nil
		}
	case <-ctx.Done():
		return nil
	case <-s.run.e.leaving:
	}
	return errHandedOver
}

// cause prefers why a context ended over the error that came of it.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// sleep waits and tells whether the context let it.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retry announces the next attempt and voids the text of the last one.
func (s *step) retry(n next) error {
	s.state.Output, s.state.FinishReason, s.state.ToolCalls = "", "", nil
	s.run.setState(s.index, s.state)
	_, err := s.run.commit(events.Batch{Events: []events.Draft{s.draft(events.PromptRetry{
		PromptID: s.state.PromptID, Attempt: s.state.Attempt + 1, SupersedesFromSeq: s.state.FirstSeq,
		Reason: n.reason, Delay: n.delay.Milliseconds(), ModelID: s.models()[n.model], Try: n.try,
	})}, Prompts: []events.PromptState{s.state}})
	return cause(s.run.hold, err)
}

func (s *step) draft(p events.Payload) events.Draft {
	return events.Draft{Stream: s.stream, Payload: p}
}

// attempt calls one model once.
func (s *step) attempt(ctx context.Context, model string) error {
	s.state.Attempt++
	s.state.Status, s.state.ModelID, s.state.Output, s.state.FinishReason, s.state.FirstSeq = promptRunning, model, "", "", 0
	s.state.Cached, s.state.Cache, s.state.Saved = false, "", nil
	s.state.ToolCalls = nil
	opening := []events.Draft{s.draft(events.PromptStart{
		PromptID: s.state.PromptID, PromptName: s.prompt.Name, Position: s.prompt.Position, TotalPrompts: s.run.ex.TotalPrompts,
		ModelID: model, HasKnowledge: s.prompt.Knowledge != nil, HasTools: len(s.prompt.Tools) > 0 || s.run.callHasTools(), Attempt: s.state.Attempt,
	})}
	opening, err := s.prepare(ctx, opening)
	var target llm.Target
	if err == nil {
		s.state.UserMessage = s.rendered.User
		if target, err = s.run.e.models.Resolve(model); err != nil {
			// An *llm.Error, because a fallback model may be reachable.
			err = &llm.Error{Code: codeUnavailable, Message: "The model " + model + " cannot be called from this server: " + err.Error() + ".", Err: err}
		} else if len(s.rendered.Images) > 0 && target.Info.Blind() {
			err = &llm.Error{Code: llm.CodeInvalidRequest, Message: "The model " + model + " cannot see images."}
		}
	}
	var request llm.Request
	var dropped int
	if err == nil {
		request, dropped, err = s.fit(target, s.request(target, s.history))
	}
	if err != nil {
		return s.refused(opening, err)
	}
	c := &call{step: s, target: target, request: request, id: uuid.Must(uuid.NewV7()).String(), began: s.run.e.cfg.Now()}
	answer, opening, err := s.consult(ctx, c, opening)
	if err != nil {
		return err
	}
	if answer != nil {
		return s.recall(c, answer, opening)
	}
	defer c.claim.settle()
	done, err := s.enter(model)
	if err != nil {
		return s.refused(opening, err)
	}
	defer done(llm.NewError(llm.CodeCancelled, nil)) // when no call is made, or after a panic; only the first one counts
	if err := c.reserve(ctx); err != nil {
		return s.refused(opening, err)
	}
	c.began = s.run.e.cfg.Now()
	opening = append(opening, s.draft(events.LLMRequest{
		PromptID: s.state.PromptID, RequestID: c.id, Provider: target.Vendor, Model: target.Model, Attempt: s.state.Attempt,
		HistoryDropped: dropped,
	}))
	// The call is on record before it costs anything.
	if err := s.open(opening, c.ledger()); err != nil {
		return err
	}
	c.called = s.opened
	return c.make(ctx, done)
}

// refused writes what had happened of an attempt before it failed without a call.
func (s *step) refused(opening []events.Draft, err error) error {
	if writeErr := s.open(opening); writeErr != nil {
		return writeErr
	}
	return err
}

// open commits the first events of an attempt, unless they are already, with
// the prompt's state and the call that they open.
func (s *step) open(opening []events.Draft, calls ...events.CallState) error {
	if len(opening) == 0 {
		return nil
	}
	pending, err := s.run.commit(events.Batch{Events: opening, Prompts: []events.PromptState{s.state}, Calls: calls})
	if err != nil {
		return cause(s.run.hold, err)
	}
	s.opened = pending.LastTime()
	if s.state.FirstSeq == 0 {
		s.state.FirstSeq = pending.FirstSeq()
		if s.state.StartedAt.IsZero() {
			s.state.StartedAt = pending.Time()
		}
	}
	s.run.setState(s.index, s.state)
	return nil
}

// prepare renders the prompt on its first attempt, after retrieval, and answers
// the events that say so.
func (s *step) prepare(ctx context.Context, opening []events.Draft) ([]events.Draft, error) {
	if s.prepared || s.run.call != nil {
		s.rendered.User = cmp.Or(s.rendered.User, s.run.lastAsked())
		return opening, nil
	}
	c := s.run.version.Chain
	outputs, turns := s.run.known()
	known := chain.State{Inputs: s.run.inputs, Outputs: outputs}
	if k := s.prompt.Knowledge; k != nil {
		query, err := c.Query(s.index, known)
		if err != nil {
			return opening, err
		}
		opening = append(opening, s.draft(events.KnowledgeRetrievalStart{
			PromptID: s.state.PromptID, Repositories: k.Repositories, SearchType: string(k.Search),
		}))
		if err := s.open(opening); err != nil {
			return nil, err
		}
		var retrieved events.KnowledgeRetrieved
		known.Knowledge, retrieved, err = s.retrieve(ctx, query)
		opening = []events.Draft{s.draft(retrieved)}
		if err != nil {
			return opening, err
		}
	}
	rendered, err := c.Render(s.index, known)
	if err != nil {
		return opening, err
	}
	s.rendered, s.history, s.prepared = rendered, c.History(s.index, turns), true
	if len(rendered.Variables) > 0 {
		sources := make([]int64, len(rendered.Sources))
		for i, index := range rendered.Sources {
			sources[i] = s.run.version.PromptIDs[index]
		}
		shown := make(map[string]string, len(rendered.Variables))
		for name, value := range rendered.Variables {
			shown[name] = cutRunes(value, maxVariableRunes)
		}
		opening = append(opening, s.draft(events.VariableSubstitution{PromptID: s.state.PromptID, Variables: shown, SourcePrompts: sources}))
	}
	return opening, nil
}

// retrieve fetches the context of the prompt. A failed search does not end the
// prompt: the event tells, and the model answers without context.
func (s *step) retrieve(ctx context.Context, query string) (string, events.KnowledgeRetrieved, error) {
	k := s.prompt.Knowledge
	event := events.KnowledgeRetrieved{PromptID: s.state.PromptID}
	if s.run.e.cfg.Retriever == nil {
		event.Error = "this server has no knowledge repositories"
		return "", event, nil
	}
	result, err := s.run.e.cfg.Retriever.Retrieve(knowledge.OnBehalf(ctx, knowledge.Owner{ExecutionID: s.run.ex.ID, PromptID: s.state.PromptID}), knowledge.Query{
		Repositories: k.Repositories, Text: query, Search: string(k.Search), Limit: k.MaxChunks, Threshold: k.Threshold,
		PerDocument: k.PerDocument, Neighbours: k.Neighbours, Filter: k.Filter,
	})
	if err != nil {
		s.run.logger.WarnContext(ctx, "retrieval failed", "prompt_id", s.state.PromptID, "error", err)
		event.Error = "the search failed"
		if failed, ok := errors.AsType[*llm.Error](err); ok {
			event.Error += ": " + failed.Message
		}
		if ctx.Err() != nil {
			return "", event, &failure{code: codeRetrieval, message: "The retrieval was cut off.", err: err}
		}
		return "", event, nil
	}
	placed := knowledge.Assemble(result.Passages, k.MaxTokens, s.counter())
	documents := make(map[int64]struct{})
	for _, p := range placed.Passages {
		documents[p.DocumentID] = struct{}{}
		s.sources = append(s.sources, source{ID: p.DocumentID, Version: p.DocumentVersion})
		event.Chunks = append(event.Chunks, chunkRef(p, len(event.Chunks)+1))
	}
	for _, p := range placed.Cut {
		event.Cut = append(event.Cut, chunkRef(p, 0))
	}
	s.sources = distinct(s.sources)
	event.Error = result.Degraded
	event.DocumentsFound, event.RelevanceScore, event.Tokens = len(documents), placed.Score, placed.Tokens
	return placed.Text, event, nil
}

// counter answers how the model of the attempt counts tokens.
func (s *step) counter() func(string) int64 {
	target, err := s.run.e.models.Resolve(s.state.ModelID)
	if err != nil {
		return llm.EstimateTokens // the attempt will say what is wrong
	}
	return func(text string) int64 {
		tokens, _ := target.Info.CountTokens(text)
		return tokens
	}
}

// chunkRef says which passage was found, and why; citation 0 = it was cut.
func chunkRef(p knowledge.Passage, citation int) events.ChunkRef {
	return events.ChunkRef{
		ChunkID: p.ChunkID, DocumentID: p.DocumentID, Score: p.Score, RepositoryID: p.RepositoryID, DocumentVersion: p.DocumentVersion,
		Document: p.Document, Citation: citation, Headings: cutRunes(p.Headings, maxVariableRunes), Page: p.Page,
		VectorRank: p.Signals.VectorRank, VectorScore: p.Signals.VectorScore,
		KeywordRank: p.Signals.KeywordRank, KeywordScore: p.Signals.KeywordScore,
		RerankRank: p.Signals.RerankRank, RerankScore: p.Signals.RerankScore,
	}
}

// request is what the model is asked, behind some turns of history.
func (s *step) request(target llm.Target, history []chain.Turn) llm.Request {
	if s.run.call != nil {
		return s.run.direct(target.Model)
	}
	var messages []llm.Message
	if s.rendered.System != "" {
		messages = append(messages, llm.Message{Role: llm.RoleSystem, Text: s.rendered.System})
	}
	for _, t := range history {
		messages = append(messages, llm.Message{Role: llm.RoleUser, Text: t.User}, llm.Message{Role: llm.RoleAssistant, Text: t.Assistant})
	}
	user := llm.Message{Role: llm.RoleUser, Text: s.rendered.User}
	for _, m := range s.rendered.Images {
		user.Images = append(user.Images, llm.Image{MIMEType: m.MIMEType, Data: m.Data})
	}
	messages = append(messages, user)
	messages = append(messages, s.correction.messages()...)
	p := s.prompt
	req := llm.Request{
		Model: target.Model, Messages: messages, Temperature: p.Temperature, TopP: p.TopP, MaxTokens: p.MaxTokens, Stop: p.Stop, Seed: p.Seed,
	}
	if p.Output != nil {
		req.Schema = p.Output.Schema
		if !target.Info.Schema {
			req.Messages = instruct(req.Messages, req.Schema)
		}
	}
	return req
}

// succeed closes the prompt. It does not wait: the next append does, and none is
// stored without those before it.
func (s *step) succeed(drafts []events.Draft, calls ...events.CallState) *events.Pending {
	now := s.run.e.cfg.Now().UTC()
	duration := max(now.Sub(s.state.StartedAt).Milliseconds(), 0)
	s.state.Status, s.state.FinishedAt, s.state.DurationMS = promptCompleted, &now, &duration
	shown := cutBytes(s.state.Output, maxOutputBytes)
	drafts = append(drafts, s.draft(events.PromptComplete{
		PromptID: s.state.PromptID, OutputTokens: s.state.OutputTokens, InputTokens: s.state.InputTokens, Duration: duration,
		Cached: s.state.Cached, Output: shown, Truncated: len(shown) < len(s.state.Output), CostUSD: s.state.CostUSD,
		ModelID: s.state.ModelID, FinishReason: s.state.FinishReason, Attempt: s.state.Attempt, ToolCalls: s.state.ToolCalls,
	}))
	failpoint.Reach(failpoint.PromptCompleteBefore)
	pending := s.run.conclude(s.index, s.state, drafts, true, calls...)
	failpoint.Reach(failpoint.PromptCompleteAfter)
	return pending
}

// fail closes the prompt and keeps what it had.
func (s *step) fail(f *failure) error {
	f.prompt = s.state.PromptID
	if f.err != nil && f.code != codeCancelled {
		s.run.logger.WarnContext(s.run.hold, "prompt failed", "prompt_id", s.state.PromptID, "code", f.code, "error", f.err)
	}
	goesOn := s.run.verdict(s.prompt, f) == nil
	if err := s.run.giveUp(s.index, s.state, s.stream, f, goesOn).Wait(s.run.hold); err != nil {
		return cause(s.run.hold, err)
	}
	return f
}

// cutRunes answers at most n characters of s.
func cutRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// cutBytes answers at most n bytes of s, never half a character.
func cutBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for back := range utf8.UTFMax {
		if n > back && utf8.RuneStart(s[n-back]) {
			return s[:n-back]
		}
	}
	return s[:n] // not UTF-8
}
