package executor

import (
	"time"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/llm"
)

// book adds what a call used to its prompt.
func book(s *events.PromptState, u llm.Usage) {
	s.InputTokens += u.InputTokens
	s.OutputTokens += u.OutputTokens
	s.CachedTokens += u.CachedTokens
	s.ReasoningTokens += u.ReasoningTokens
	s.UsageEstimated = s.UsageEstimated || u.Estimated
}

// price books the cost of a call to its prompt and answers it; nil when the
// model has no price.
func (r *run) price(s *events.PromptState, model llm.Info, u llm.Usage, at time.Time) (call *string) {
	if p, known := model.PriceAt(at); known {
		cost := p.Cost(u).String()
		call = &cost
	}
	s.CostUSD = events.AddCost(s.CostUSD, call, s.Attempt)
	return call
}

func usageSource(u *llm.Usage) string {
	if u == nil || u.Estimated {
		return "estimated"
	}
	return "provider"
}
