package executor

import (
	"fmt"

	"github.com/chainstream/chainstream/llm"
)

// messageFrame is what the frame of a message costs in tokens.
const messageFrame = 4

// imageTokens stands in for the tokens of an image, which depend on its size.
const imageTokens = 1000

// sureEstimate is the part of an estimated count that is certain enough to refuse
// a prompt: an estimate may be too high by two thirds, and what would have fitted
// must not be refused. Between the two the provider decides.
const sureEstimate = 0.6

// size is how many tokens a request has.
type size struct {
	tokens  int64
	guessed bool
}

func (n *size) add(info llm.Info, text string) {
	if text == "" {
		return
	}
	tokens, exact := info.CountTokens(text)
	n.tokens += tokens
	n.guessed = n.guessed || !exact
}

// measure counts the tokens of what a model is asked.
func measure(info llm.Info, req llm.Request) size {
	var n size
	for _, m := range req.Messages {
		n.tokens += messageFrame
		n.add(info, m.Text)
		for _, c := range m.ToolCalls {
			n.add(info, c.Name+c.Arguments)
		}
		if len(m.Images) > 0 {
			n.tokens += imageTokens * int64(len(m.Images))
			n.guessed = true
		}
	}
	n.add(info, string(req.Schema))
	for _, t := range req.Tools {
		n.add(info, t.Name+t.Description+string(t.Parameters))
	}
	return n
}

// fit makes the request fit into the model's context window, if that is known:
// the oldest turns of the history go first. What does not fit without any is
// refused before it costs anything.
func (s *step) fit(target llm.Target, req llm.Request) (fitting llm.Request, dropped int, err error) {
	window := target.Info.ContextWindow
	if window <= 0 {
		return req, 0, nil
	}
	room := window - int64(req.MaxTokens)
	n := measure(target.Info, req)
	for ; n.tokens > room && dropped < len(s.history); n = measure(target.Info, req) {
		dropped++
		req = s.request(target, s.history[dropped:])
	}
	least := n.tokens
	if n.guessed {
		least = int64(sureEstimate * float64(n.tokens))
	}
	if least <= room {
		return req, dropped, nil
	}
	about, kept := "", ""
	if n.guessed {
		about = "about "
	}
	if req.MaxTokens > 0 {
		kept = fmt.Sprintf(" with %d kept for the answer", req.MaxTokens)
	}
	e := llm.NewError(llm.CodeContextTooLong, nil)
	e.Message = fmt.Sprintf("The prompt is too long for this model: it has %s%d tokens%s, and the context window has %d.", about, n.tokens, kept, window)
	return req, dropped, e
}
