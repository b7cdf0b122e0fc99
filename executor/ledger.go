package executor

import (
	"encoding/json"
	"errors"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// maxRawUsage bounds what is kept of a provider's own figures, in bytes.
const maxRawUsage = 16 << 10

// ledger is the call's row as it is opened.
func (c *call) ledger() events.CallState {
	row := events.CallState{
		RequestID: c.id, PromptID: c.step.state.PromptID, Attempt: c.step.state.Attempt, Provider: c.target.Vendor, Model: c.target.Model,
		Status: events.CallOpen, PromptTokens: c.promptTokens,
	}
	c.held.note(&row)
	return row
}

// book adds what the call used, and what that costs, to its prompt and to what
// the execution may use, and answers the cost and the row that closes the call.
func (c *call) book(status string, u llm.Usage) (cost *string, row events.CallState) {
	s := c.step
	book(&s.state, u)
	cost = s.run.price(&s.state, c.target.ID, c.target.Info, u, c.called)
	s.run.account.settle(c.held, u, cost)
	row = c.ledger()
	row.Status, row.StartedAt, row.ResponseID = status, c.called, c.responseID
	now, took := s.run.e.cfg.Now(), c.milliseconds()
	row.FinishedAt, row.DurationMS = &now, &took
	if c.firstToken > 0 {
		ms := c.firstToken.Milliseconds()
		row.TimeToFirstTokenMS = &ms
	}
	charge(&row, u, cost)
	return cost, row
}

// charge writes into a row what its call used.
func charge(row *events.CallState, u llm.Usage, cost *string) {
	row.InputTokens, row.OutputTokens, row.CachedTokens, row.CacheWriteTokens, row.ReasoningTokens =
		u.InputTokens, u.OutputTokens, u.CachedTokens, u.CacheWriteTokens, u.ReasoningTokens
	row.UsageSource, row.CostUSD = usageSource(u), cost
	if len(u.Raw) <= maxRawUsage && json.Valid(u.Raw) {
		row.RawUsage = u.Raw
	}
}

// fault writes into a row how its call failed.
func fault(row *events.CallState, f *failure, err error) {
	row.ErrorCode = f.code
	if e, ok := errors.AsType[*llm.Error](err); ok {
		row.HTTPStatus = e.Status
	}
}
