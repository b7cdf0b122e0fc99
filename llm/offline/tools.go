package offline

import (
	"fmt"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// toolCalls returns the calls that a prompt asks for: one for every line
// "Call: NAME {arguments}", provided that there are tools to call. It does not
// ask whether there is one of that name, as models do not.
func toolCalls(req llm.Request) []llm.ToolCall {
	n := len(req.Messages)
	if n == 0 || len(req.Tools) == 0 || req.ToolChoice == llm.ToolChoiceNone || req.Messages[n-1].Role != llm.RoleUser {
		return nil
	}
	var calls []llm.ToolCall
	for line := range strings.Lines(req.Messages[n-1].Text) {
		wish, ok := afterPrefix(strings.TrimSpace(line), "call:")
		if !ok {
			continue
		}
		name, arguments, _ := strings.Cut(strings.TrimSpace(wish), " ")
		if name == "" || len(calls) == llm.MaxToolCalls {
			continue
		}
		if arguments = strings.TrimSpace(arguments); arguments == "" {
			arguments = "{}"
		}
		call := llm.ToolCall{ID: fmt.Sprintf("call_%d", len(calls)+1)}
		call.Name, _ = repair(name)
		call.Arguments, _ = repair(arguments)
		calls = append(calls, call)
	}
	return calls
}

// toolAnswers composes the answer to the results of tools that a conversation
// ends in; it reports whether there are any.
func toolAnswers(messages []llm.Message) (string, bool) {
	start := len(messages)
	for start > 0 && messages[start-1].Role == llm.RoleTool {
		start--
	}
	if start == len(messages) {
		return "", false
	}
	names := make(map[string]string)
	for _, m := range messages[:start] {
		for _, call := range m.ToolCalls {
			names[call.ID] = call.Name
		}
	}
	var b strings.Builder
	for _, m := range messages[start:] {
		name := names[m.ToolCallID]
		if name == "" {
			name = "A tool"
		}
		fmt.Fprintf(&b, "%s answered: %s\n\n", name, m.Text)
	}
	return b.String() + Label, true
}
