package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
)

// executionSummary is an execution in a list.
type executionSummary struct {
	ExecutionID  int64           `json:"executionId"`
	Status       executor.Status `json:"status"`
	ChainID      int64           `json:"chainId"`
	ChainName    string          `json:"chainName"`
	ChainVersion int             `json:"chainVersion"`
	Priority     int             `json:"priority"`
	TotalPrompts int             `json:"totalPrompts"`
	EventsURL    string          `json:"eventsUrl"`
	LastSeq      int64           `json:"lastSeq"`
	Usage        usage           `json:"usage"`
	CostUSD      *json.Number    `json:"costUsd"`
	Error        *failure        `json:"error"`
	Metadata     json.RawMessage `json:"metadata,omitempty"`
	ParentID     int64           `json:"parentExecutionId,omitempty"`
	Origin       executor.Origin `json:"origin,omitempty"`
	FromPrompt   string          `json:"fromPrompt,omitempty"`
	CreatedAt    time.Time       `json:"createdAt"`
	StartedAt    *time.Time      `json:"startedAt"`
	FinishedAt   *time.Time      `json:"finishedAt"`
	WakeAt       *time.Time      `json:"wakeAt,omitempty"` // while it waits for a time
}

// executionDetail is an execution with its prompts.
type executionDetail struct {
	executionSummary
	Usage           usage           `json:"usage"` // with all parts
	CancelRequested bool            `json:"cancelRequested"`
	ReusedTokens    int64           `json:"reusedTokens"`  // paid by other executions
	EventsRemoved   bool            `json:"eventsRemoved"` // by retention
	FoldedAt        *time.Time      `json:"foldedAt"`      // when the text deltas were folded away
	Inputs          json.RawMessage `json:"inputs"`
	Limits          limits          `json:"limits"`
	Cache           string          `json:"cache"`       // on, refresh or off
	SavedTokens     int64           `json:"savedTokens"` // of answers from the response cache
	Prompts         []promptView    `json:"prompts"`
	Call            json.RawMessage `json:"call,omitempty"` // what a direct call asks
}

type usage struct {
	InputTokens  int64 `json:"inputTokens"`
	OutputTokens int64 `json:"outputTokens"`
	TotalTokens  int64 `json:"totalTokens"`
	*usageParts
}

// usageParts is what an execution's tokens consist of, as far as providers say,
// and who counted them.
type usageParts struct {
	CachedTokens     int64  `json:"cachedTokens"`     // of the input
	CacheWriteTokens int64  `json:"cacheWriteTokens"` // of the input
	ReasoningTokens  int64  `json:"reasoningTokens"`  // of the output
	UsageSource      string `json:"usageSource"`
}

// usageOf answers what an execution has used so far.
func usageOf(t events.Totals) usage {
	parts := &usageParts{
		CachedTokens: t.CachedTokens, CacheWriteTokens: t.CacheWriteTokens, ReasoningTokens: t.ReasoningTokens, UsageSource: events.UsageProvider,
	}
	if t.Estimated {
		parts.UsageSource = events.UsageEstimated
	}
	return usage{InputTokens: t.InputTokens, OutputTokens: t.OutputTokens, TotalTokens: t.InputTokens + t.OutputTokens, usageParts: parts}
}

// failure is why an execution or a prompt failed.
type failure struct {
	Code     string `json:"code"`
	Message  string `json:"message"`
	PromptID int64  `json:"promptId,omitempty"`
}

type limits struct {
	Timeout    string      `json:"timeout,omitempty"` // as in documents: 15m
	MaxCostUSD json.Number `json:"maxCostUsd,omitempty"`
	MaxTokens  int         `json:"maxTokens,omitempty"`
}

// statusPending is the status of a prompt that has not started.
const statusPending = "pending"

// promptView is a prompt of an execution.
type promptView struct {
	PromptID         int64             `json:"promptId"`
	Name             string            `json:"name"`
	Position         int               `json:"position"`
	Status           string            `json:"status"`
	Attempt          int               `json:"attempt"` // 0 before the first
	ModelID          string            `json:"modelId"`
	Output           string            `json:"output"`
	FinishReason     string            `json:"finishReason,omitempty"`
	InputTokens      int64             `json:"inputTokens"`
	OutputTokens     int64             `json:"outputTokens"`
	CachedTokens     int64             `json:"cachedTokens,omitempty"`     // of the input
	CacheWriteTokens int64             `json:"cacheWriteTokens,omitempty"` // of the input
	ReasoningTokens  int64             `json:"reasoningTokens,omitempty"`  // of the output
	UsageEstimated   bool              `json:"usageEstimated,omitempty"`
	CostUSD          *json.Number      `json:"costUsd"`
	DurationMS       *int64            `json:"durationMs"`
	Cached           bool              `json:"cached"`
	Error            *failure          `json:"error"`
	Citations        []citationView    `json:"citations,omitempty"`
	ToolCalls        []events.ToolCall `json:"toolCalls,omitempty"`
	ReusedFrom       *reusedFrom       `json:"reusedFrom,omitempty"` // then tokens and cost are 0
	CachedFrom       *reusedFrom       `json:"cachedFrom,omitempty"` // of a prompt that is cached
	StartedAt        *time.Time        `json:"startedAt"`
	FinishedAt       *time.Time        `json:"finishedAt"`
}

// reusedFrom is where the result of a prompt was taken from, and its cost there.
type reusedFrom struct {
	ExecutionID  int64        `json:"executionId"`
	InputTokens  int64        `json:"inputTokens"`
	OutputTokens int64        `json:"outputTokens"`
	CostUSD      *json.Number `json:"costUsd"`
}

func summaryOf(ex executor.Execution) executionSummary {
	s := executionSummary{
		ExecutionID: ex.ID, Status: ex.Status,
		ChainID: ex.ChainID, ChainName: ex.ChainName, ChainVersion: ex.ChainVersion, Priority: ex.Priority, TotalPrompts: ex.TotalPrompts,
		EventsURL: eventsURL(ex.ID), LastSeq: ex.LastSeq,
		Usage:    usage{InputTokens: ex.InputTokens, OutputTokens: ex.OutputTokens, TotalTokens: ex.InputTokens + ex.OutputTokens},
		Metadata: ex.Metadata, ParentID: ex.Parent, Origin: ex.Origin, FromPrompt: ex.FromPrompt, CreatedAt: ex.CreatedAt.UTC(), StartedAt: utc(ex.StartedAt), FinishedAt: utc(ex.FinishedAt), WakeAt: utc(ex.WakeAt),
	}
	s.CostUSD = (*json.Number)(ex.CostUSD)
	if ex.Error != "" || ex.ErrorCode != "" {
		s.Error = &failure{Code: ex.ErrorCode, Message: ex.Error, PromptID: ex.ErrorPrompt}
	}
	return s
}

// detailOf joins an execution with the prompts of its chain, in the order of
// the document. While it runs, its usage is the sum over the prompts so far.
func detailOf(ex executor.Execution, v *chain.Version, states []events.PromptState) executionDetail {
	d := executionDetail{
		executionSummary: summaryOf(ex), CancelRequested: ex.CancelRequested && !ex.Status.Final(), FoldedAt: utc(ex.FoldedAt),
		Inputs: ex.Inputs, Limits: limitsOf(ex.Limits), Prompts: []promptView{},
	}
	if d.Inputs == nil {
		d.Inputs = json.RawMessage("{}")
	}
	started := make(map[int64]events.PromptState, len(states))
	for _, p := range states {
		started[p.PromptID] = p
	}
	t := events.Totalled(states)
	d.ReusedTokens, d.SavedTokens = t.ReusedTokens, t.SavedTokens
	for word, mode := range cacheModes {
		if mode == ex.CacheMode {
			d.Cache = word
		}
	}
	d.Usage = usageOf(t)
	if ex.Status.Final() {
		d.Usage.InputTokens, d.Usage.OutputTokens, d.Usage.TotalTokens = ex.InputTokens, ex.OutputTokens, ex.InputTokens+ex.OutputTokens
	}
	prompts := v.Chain.WithModels(ex.Models).Prompts
	for i, id := range v.PromptIDs {
		p := prompts[i]
		if state, ok := started[id]; ok {
			d.Prompts = append(d.Prompts, promptViewOf(state))
			continue
		}
		d.Prompts = append(d.Prompts, promptView{PromptID: id, Name: p.Name, Position: p.Position, Status: statusPending, ModelID: p.Model})
	}
	return d
}

func promptViewOf(p events.PromptState) promptView {
	started := p.StartedAt.UTC()
	view := promptView{
		PromptID: p.PromptID, Name: p.Name, Position: p.Position, Status: p.Status, Attempt: p.Attempt, ModelID: p.ModelID,
		Output: p.Output, FinishReason: p.FinishReason, InputTokens: p.InputTokens, OutputTokens: p.OutputTokens,
		CachedTokens: p.CachedTokens, CacheWriteTokens: p.CacheWriteTokens, ReasoningTokens: p.ReasoningTokens,
		UsageEstimated: p.UsageEstimated, DurationMS: p.DurationMS, Cached: p.Cached, ToolCalls: p.ToolCalls,
		StartedAt: &started, FinishedAt: utc(p.FinishedAt),
	}
	view.CostUSD = (*json.Number)(p.CostUSD)
	view.ReusedFrom, view.CachedFrom = reusedView(p.Reused), reusedView(p.Saved)
	if p.Error != "" || p.ErrorCode != "" {
		view.Error = &failure{Code: p.ErrorCode, Message: p.Error}
	}
	return view
}

func reusedView(r *events.Reused) *reusedFrom {
	if r == nil {
		return nil
	}
	return &reusedFrom{ExecutionID: r.ExecutionID, InputTokens: r.InputTokens, OutputTokens: r.OutputTokens, CostUSD: (*json.Number)(r.CostUSD)}
}

func limitsOf(l chain.Limits) limits {
	out := limits{MaxCostUSD: json.Number(l.MaxCostUSD), MaxTokens: l.MaxTokens}
	if l.Timeout > 0 {
		out.Timeout = l.Timeout.String()
	}
	return out
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

func eventsURL(id int64) string { return "/events/" + strconv.FormatInt(id, 10) }

func executionURL(id int64) string { return "/api/v1/executions/" + strconv.FormatInt(id, 10) }

// executionID reads the execution in the address.
func executionID(c echo.Context) (int64, error) {
	id, ok := pathID(c.Param("id"))
	if !ok {
		return 0, executor.ErrNotFound
	}
	return id, nil
}

// slug is what a chain's name looks like.
var slug = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func (s *Server) listExecutions(c echo.Context) error {
	q := newQuery(c)
	limit := int(q.whole("limit", 1, 200, 50))
	f := executor.Filter{
		Status: executor.Status(q.one("status")), From: q.time("from"), To: q.time("to"),
		Parent: q.whole("parent", 1, math.MaxInt64, 0), Before: q.whole("cursor", 1, math.MaxInt64, 0), Limit: limit + 1,
	}
	if q.values.Has("status") && !known(f.Status) {
		q.fail("status", "One of queued, running, waiting, completed, failed or cancelled is expected.")
	}
	if name := q.one("chain"); q.values.Has("chain") {
		if id, ok := pathID(name); ok {
			f.ChainID = id
		} else if slug.MatchString(name) || name == executor.DirectName {
			f.ChainName = name
		} else {
			q.fail("chain", "The id or the name of a chain is expected.")
		}
	}
	if q.err != nil {
		return q.err
	}
	found, err := s.cfg.Store.Executions(c.Request().Context(), f)
	if err != nil {
		return err
	}
	items := make([]executionSummary, len(found))
	for i, ex := range found {
		items[i] = summaryOf(ex)
	}
	return c.JSON(http.StatusOK, page(items, limit, func(e executionSummary) int64 { return e.ExecutionID }))
}

func known(status executor.Status) bool {
	return slices.Contains(executor.Statuses(), status)
}

// showExecution is GET /api/v1/executions/{id}: as it is now, or as it was after
// an event.
func (s *Server) showExecution(c echo.Context) error {
	id, err := executionID(c)
	if err != nil {
		return err
	}
	q := newQuery(c)
	at := q.one("atSeq")
	switch {
	case q.err != nil:
		return q.err
	case q.values.Has("atSeq"):
		return s.sendPast(c, id, at)
	}
	return s.sendExecution(c, http.StatusOK, id)
}

// sendExecution answers with the execution as it is stored now.
func (s *Server) sendExecution(c echo.Context, status int, id int64) error {
	ctx := c.Request().Context()
	ex, err := s.cfg.Store.Execution(ctx, id)
	if err != nil {
		return err
	}
	version, err := s.cfg.Store.PinnedVersion(ctx, ex.ChainID, ex.ChainVersion)
	if err != nil {
		return err
	}
	states, err := s.cfg.Store.PromptStates(ctx, id)
	if err != nil {
		return err
	}
	heads, err := s.cfg.Store.Heads(ctx, []int64{id})
	if err != nil {
		return err
	}
	detail := detailOf(ex, version, states[id])
	if err := s.cite(ctx, version.Chain, &detail); err != nil {
		return err
	}
	if detail.Call, err = s.askedBy(ctx, ex); err != nil {
		return err
	}
	detail.EventsRemoved = heads[id].Removed
	return c.JSON(status, detail)
}

// askedBy answers what an execution asks that is a direct call.
func (s *Server) askedBy(ctx context.Context, ex executor.Execution) (json.RawMessage, error) {
	if ex.ChainID != executor.DirectChain {
		return nil, nil
	}
	return s.cfg.Store.Call(ctx, ex.ID)
}

func (s *Server) cancel(c echo.Context) error {
	id, err := executionID(c)
	if err != nil {
		return err
	}
	if _, err := s.cfg.Runner.Cancel(c.Request().Context(), id); err != nil {
		return err
	}
	return s.sendExecution(c, http.StatusAccepted, id)
}

func (s *Server) deleteExecution(c echo.Context) error {
	id, err := executionID(c)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteExecution(c.Request().Context(), id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// isProblems tells whether an error is a list of problems, and gives the list.
func isProblems(err error) (chain.Problems, bool) {
	return errors.AsType[chain.Problems](err)
}
