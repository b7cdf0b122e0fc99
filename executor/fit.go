package executor

import (
	"fmt"

	"github.com/chainstream/chainstream/llm"
)

// sureEstimate is the part of an estimated count that is certain enough to refuse
// a prompt: an estimate may be too high by two thirds, and what would have fitted
// must not be refused. Between the two the provider decides.
const sureEstimate = 0.6

// fit makes the request fit into the model's context window, if that is known:
// the oldest turns of the history go first. What does not fit without any is
// refused before it costs anything.
func (s *step) fit(target llm.Target, req llm.Request) (fitting llm.Request, dropped int, err error) {
	window := target.Info.ContextWindow
	if window <= 0 {
		return req, 0, nil
	}
	room := window - int64(req.MaxTokens)
	tokens, exact := target.Info.CountRequest(req)
	for tokens > room && dropped < len(s.history) {
		dropped++
		req = s.request(target, s.history[dropped:])
		tokens, exact = target.Info.CountRequest(req)
	}
	least := tokens
	if !exact {
		least = int64(sureEstimate * float64(tokens))
	}
	if least <= room {
		return req, dropped, nil
	}
	about, kept := "", ""
	if !exact {
		about = "about "
	}
	if req.MaxTokens > 0 {
		kept = fmt.Sprintf(" with %d kept for the answer", req.MaxTokens)
	}
	e := llm.NewError(llm.CodeContextTooLong, nil)
	e.Message = fmt.Sprintf("The prompt is too long for this model: it has %s%d tokens%s, and the context window has %d.", about, tokens, kept, window)
	return req, dropped, e
}
