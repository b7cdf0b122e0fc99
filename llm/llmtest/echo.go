package llmtest

import (
	"fmt"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// Echo answers the way the offline model does, on every wire. Use it with
// Otherwise. What it says follows from the last message:
//
//   - "Echo: TEXT" is answered by TEXT, in words;
//   - lines "Think: TEXT" before that become reasoning;
//   - lines "Call: NAME {…}" become tool calls, the rest of such a message is not
//     said;
//   - the result of a tool, and any other text, is repeated.
//
// The answer ends before the first stop text, and is cut at the token limit of
// the request, which counts words.
func Echo(req Request) Reply {
	reply := Reply{Role()}
	text := req.Last()
	for {
		line, rest, _ := strings.Cut(text, "\n")
		thought, ok := cutPrefix(line, "think:")
		if !ok {
			break
		}
		reply = append(reply, Reasoning(thought))
		text = rest
	}
	if calls := toolCalls(text); len(calls) > 0 {
		reply = append(reply, calls...)
		return append(reply, Finish(llm.FinishToolCalls), Usage(int64(len(req.Messages)), int64(len(calls))), Done())
	}
	if echo, ok := cutPrefix(text, "echo:"); ok {
		text = echo
	}
	for _, stop := range req.Stop {
		if before, _, found := strings.Cut(text, stop); found && stop != "" {
			text = before
		}
	}
	finish := llm.FinishStop
	pieces := strings.SplitAfter(text, " ")
	if req.MaxTokens > 0 && req.MaxTokens < len(pieces) {
		pieces, finish = pieces[:req.MaxTokens], llm.FinishLength
	}
	for _, piece := range pieces {
		if piece != "" {
			reply = append(reply, Delta(piece))
		}
	}
	return append(reply, Finish(finish), Usage(int64(len(req.Messages)), int64(len(pieces))), Done())
}

// toolCalls returns the calls that lines of the text ask for.
func toolCalls(text string) []Step {
	var calls []Step
	for line := range strings.Lines(text) {
		wish, ok := cutPrefix(strings.TrimRight(line, "\r\n"), "call:")
		if !ok {
			continue
		}
		name, arguments, _ := strings.Cut(strings.TrimSpace(wish), " ")
		id := fmt.Sprintf("call_%d", len(calls)+1)
		// Two pieces: servers stream arguments.
		half := len(arguments) / 2
		calls = append(calls, ToolCall(id, name, arguments[:half], arguments[half:]))
	}
	return calls
}

// cutPrefix cuts a prefix, in letters of either case, and one space after it.
func cutPrefix(text, prefix string) (string, bool) {
	if len(text) < len(prefix) || !strings.EqualFold(text[:len(prefix)], prefix) {
		return text, false
	}
	return strings.TrimPrefix(text[len(prefix):], " "), true
}
