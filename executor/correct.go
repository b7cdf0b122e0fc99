package executor

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/llm"
)

// correction is what a model is shown so that it mends its answer.
type correction struct {
	answer string
	reason string
}

// maxCorrected bounds the part of a wrong answer that is shown to the model again.
const maxCorrected = 64 << 10

// messages are the turns that follow the prompt in a corrective round.
func (c *correction) messages() []llm.Message {
	if c == nil {
		return nil
	}
	return []llm.Message{
		{Role: llm.RoleAssistant, Text: cmp.Or(cutBytes(c.answer, maxCorrected), "(nothing)")},
		{Role: llm.RoleUser, Text: "That answer does not follow the JSON Schema: " + c.reason +
			". Answer again, completely, with the corrected JSON value and nothing else."},
	}
}

// correct prepares the one corrective round that a model has. It answers false
// when it had that already, or when another round could not help.
func (s *step) correct(err error) bool {
	invalid, ok := errors.AsType[*chain.OutputError](err)
	if !ok || s.correction != nil {
		return false
	}
	s.correction = &correction{answer: s.state.Output, reason: invalid.Reason}
	return true
}

func correctionReason(e *llm.Error) string {
	reason := e.Detail
	if invalid, ok := errors.AsType[*chain.OutputError](e.Err); ok {
		reason = invalid.Reason
	}
	return "The answer did not follow output.schema: " + reason + "."
}

// instruct tells a model in words what its provider is not known to enforce.
func instruct(messages []llm.Message, schema []byte) []llm.Message {
	text := "Answer with one JSON value that follows this JSON Schema, and with nothing else: no explanation, no code fence.\n" + string(schema)
	if len(messages) > 0 && messages[0].Role == llm.RoleSystem {
		messages[0].Text = strings.TrimRight(messages[0].Text, "\n") + "\n\n" + text
		return messages
	}
	return append([]llm.Message{{Role: llm.RoleSystem, Text: text}}, messages...)
}

// checked says whether a complete answer is one that the prompt can be finished
// with.
func (c *call) checked() error {
	s := c.step
	if len(c.request.Tools) == 0 && (len(c.toolCalls) > 0 || c.finish == llm.FinishToolCalls && s.state.Output == "") {
		return llm.NewError(llm.CodeUnexpectedToolCall, nil)
	}
	if s.prompt.Output == nil {
		return nil
	}
	_, err := s.run.version.Chain.CheckOutput(s.index, s.state.Output)
	switch {
	case err == nil:
		return nil
	case c.finish == llm.FinishLength:
		return &llm.Error{
			Code: codeOutputTruncated, Err: errTruncated, Detail: err.Error(),
			Message: "The model's answer was cut off by its token limit before the JSON was complete; a larger maxTokens may help.",
		}
	case c.finish == llm.FinishContentFilter:
		return llm.NewError(llm.CodeContentFiltered, err)
	}
	return &llm.Error{
		Code: codeOutputInvalid, Retryable: true, Err: err,
		Message: "The model's answer does not follow output.schema.", Detail: fmt.Sprint(err),
	}
}

var errTruncated = errors.New("the answer ends at its token limit")
