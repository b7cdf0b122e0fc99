package anthropic_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/anthropic"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// Events as the API sends them.
const (
	start = "event: message_start\ndata: " + `{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}` + "\n\n"
	stop  = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
)

func data(json string) string { return "data: " + json + "\n\n" }

func block(index int, content string) string {
	return data(fmt.Sprintf(`{"type":"content_block_start","index":%d,"content_block":%s}`, index, content))
}

func delta(index int, delta string) string {
	return data(fmt.Sprintf(`{"type":"content_block_delta","index":%d,"delta":%s}`, index, delta))
}

func blockEnd(index int) string {
	return data(fmt.Sprintf(`{"type":"content_block_stop","index":%d}`, index))
}

// text is a piece of text; content is a JSON string, as broken as it likes.
func text(content string) string { return delta(0, `{"type":"text_delta","text":`+content+`}`) }

func input(index int, partial string) string {
	quoted, err := json.Marshal(partial)
	if err != nil {
		panic(err)
	}
	return delta(index, `{"type":"input_json_delta","partial_json":`+string(quoted)+`}`)
}

func end(reason, usage string) string {
	return data(`{"type":"message_delta","delta":{"stop_reason":"`+reason+`","stop_sequence":null},"usage":`+usage+`}`) + stop
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	type result struct {
		Text, Reasoning, FinishReason string
		ToolCalls                     []llm.ToolCall
		Usage                         llm.Usage
		Repaired                      bool
	}
	used := func(output int64) llm.Usage { return llm.Usage{InputTokens: 10, OutputTokens: output} }
	// The prompt "Hello" and its frame are nine tokens.
	estimated := func(output, reasoning int64) llm.Usage {
		return llm.Usage{InputTokens: 9, OutputTokens: output, ReasoningTokens: reasoning, Estimated: true}
	}
	finish := end("end_turn", `{"output_tokens":2}`)
	tests := map[string]struct {
		body string
		stop []string
		want result
	}{
		"as documented": {
			body: start + block(0, `{"type":"text","text":""}`) + "event: ping\ndata: {\"type\": \"ping\"}\n\n" + text(`"Hello"`) + text(`"!"`) + blockEnd(0) + finish,
			want: result{Text: "Hello!", FinishReason: "stop", Usage: used(2)},
		},
		"empty":              {body: start + finish, want: result{FinishReason: "stop", Usage: used(2)}},
		"stop sequence":      {body: start + end("stop_sequence", `{"output_tokens":1}`), want: result{FinishReason: "stop", Usage: used(1)}},
		"length":             {body: start + text(`"x"`) + end("max_tokens", `{"output_tokens":1}`), want: result{Text: "x", FinishReason: "length", Usage: used(1)}},
		"window":             {body: start + text(`"x"`) + end("model_context_window_exceeded", `{"output_tokens":1}`), want: result{Text: "x", FinishReason: "length", Usage: used(1)}},
		"refusal":            {body: start + end("refusal", `{"output_tokens":1}`), want: result{FinishReason: "content_filter", Usage: used(1)}},
		"pause":              {body: start + end("pause_turn", `{"output_tokens":1}`), want: result{FinishReason: "pause_turn", Usage: used(1)}},
		"broken word":        {body: start + end(`pa\u0000use`, `{"output_tokens":1}`), want: result{FinishReason: "pa\uFFFDuse", Usage: used(1)}},
		"long word":          {body: start + end(strings.Repeat("x", 300), `{"output_tokens":1}`), want: result{FinishReason: "unknown", Usage: used(1)}},
		"end without reason": {body: start + text(`"x"`) + stop, want: result{Text: "x", FinishReason: "unknown", Usage: used(1)}},
		"end in a word":      {body: start + text(`"x"`) + "event: message_stop\ndata: {}\n\n", want: result{Text: "x", FinishReason: "unknown", Usage: used(1)}},

		"thinking": {
			body: start + block(0, `{"type":"thinking","thinking":"","signature":""}`) + delta(0, `{"type":"thinking_delta","thinking":"Let me "}`) +
				delta(0, `{"type":"thinking_delta","thinking":"see."}`) + delta(0, `{"type":"signature_delta","signature":"EqQBCgIYAhIM"}`) + blockEnd(0) +
				block(1, `{"type":"redacted_thinking","data":"EmwKAhgBEgy3va3p"}`) + blockEnd(1) +
				block(2, `{"type":"text","text":"So: "}`) + delta(2, `{"type":"text_delta","text":"42"}`) + blockEnd(2) +
				end("end_turn", `{"output_tokens":30,"output_tokens_details":{"thinking_tokens":25}}`),
			want: result{Text: "So: 42", Reasoning: "Let me see.", FinishReason: "stop", Usage: llm.Usage{InputTokens: 10, OutputTokens: 30, ReasoningTokens: 25}},
		},
		"tools": {
			body: start + block(0, `{"type":"text","text":""}`) + text(`"Wait."`) + blockEnd(0) +
				block(1, `{"type":"tool_use","id":"toolu_1","name":"add","input":{}}`) + input(1, "") + input(1, `{"a":`) + input(1, `"世`) + input(1, `"}`) + blockEnd(1) +
				block(2, `{"type":"tool_use","id":"toolu_2","name":"now","input":{}}`) + blockEnd(2) +
				block(3, `{"type":"tool_use","id":"toolu_3","name":"at","input":{"once":true}}`) + blockEnd(3) +
				block(4, `{"type":"server_tool_use","id":"srv_1","name":"web_search","input":{}}`) + input(4, `{"query":"x"}`) + blockEnd(4) +
				end("tool_use", `{"output_tokens":40}`),
			want: result{Text: "Wait.", FinishReason: "tool_calls", Usage: used(40), ToolCalls: []llm.ToolCall{
				{ID: "toolu_1", Name: "add", Arguments: `{"a":"世"}`}, {ID: "toolu_2", Name: "now", Arguments: "{}"}, {ID: "toolu_3", Name: "at", Arguments: `{"once":true}`},
			}},
		},
		"tool cut off by the limit": {
			body: start + block(0, `{"type":"tool_use","id":"t","name":"add","input":{}}`) + input(0, `{"a`) + end("max_tokens", `{"output_tokens":4}`),
			want: result{FinishReason: "length", Usage: used(4), ToolCalls: []llm.ToolCall{{ID: "t", Name: "add", Arguments: `{"a`}}},
		},
		"broken arguments": {
			body: start + block(0, `{"type":"tool_use","id":"t","name":"a\u0000dd"}`) + delta(0, "{\"type\":\"input_json_delta\",\"partial_json\":\"\xe4\xb8\"}") + blockEnd(0) + end("tool_use", `{"output_tokens":4}`),
			want: result{FinishReason: "tool_calls", Usage: used(4), Repaired: true, ToolCalls: []llm.ToolCall{{ID: "t", Name: "a\uFFFDdd", Arguments: "\uFFFD"}}},
		},
		"calls without ids": {
			body: start + block(0, `{"type":"tool_use","name":"a","input":{}}`) + blockEnd(0) + block(1, `{"type":"tool_use","id":"call_3","name":"b","input":{}}`) + blockEnd(1) +
				block(2, `{"type":"tool_use","id":"call_3","name":"c","input":{}}`) + blockEnd(2) + end("tool_use", `{"output_tokens":4}`),
			want: result{FinishReason: "tool_calls", Usage: used(4), ToolCalls: []llm.ToolCall{
				{ID: "call_1", Name: "a", Arguments: "{}"}, {ID: "call_3", Name: "b", Arguments: "{}"}, {ID: "call_4", Name: "c", Arguments: "{}"},
			}},
		},
		"two starts": {body: start + strings.ReplaceAll(start, "msg_1", "msg_2") + finish, want: result{FinishReason: "stop", Usage: used(2)}},
		"what is unknown": {
			body: start + data(`{"type":"news","delta":7,"index":"x","usage":[]}`) + data(`{"type":"ping"}`) + data(`{}`) + block(0, `{"type":"hologram","text":[1],"input":"x"}`) +
				delta(0, `{"type":"hologram_delta","hologram":1}`) + delta(7, `{"type":"citations_delta","citation":{}}`) + input(9, "{}") + blockEnd(0) + blockEnd(7) + text(`"x"`) + finish,
			want: result{Text: "x", FinishReason: "stop", Usage: used(2)},
		},

		"cache": {
			body: data(`{"type":"message_start","message":{"usage":{"input_tokens":3,"cache_creation_input_tokens":20,"cache_read_input_tokens":100,"output_tokens":1}}}`) + end("end_turn", `{"output_tokens":7}`),
			want: result{FinishReason: "stop", Usage: llm.Usage{InputTokens: 123, OutputTokens: 7, CachedTokens: 100, CacheWriteTokens: 20}},
		},
		"input at the end": {
			body: data(`{"type":"message_start","message":{"usage":{"input_tokens":0,"output_tokens":0}}}`) + text(`"x"`) + end("end_turn", `{"input_tokens":12,"cache_read_input_tokens":null,"output_tokens":7}`),
			want: result{Text: "x", FinishReason: "stop", Usage: llm.Usage{InputTokens: 12, OutputTokens: 7}},
		},
		"input at the start only": {body: start + text(`"x"`) + end("end_turn", `{"input_tokens":0,"output_tokens":7}`), want: result{Text: "x", FinishReason: "stop", Usage: used(7)}},
		"no usage":                {body: text(`"twelve chars"`) + data(`{"type":"message_delta","delta":{"stop_reason":"end_turn"}}`) + stop, want: result{Text: "twelve chars", FinishReason: "stop", Usage: estimated(3, 0)}},
		"usage of zeros":          {body: text(`"twelve chars"`) + end("end_turn", `{"input_tokens":0,"output_tokens":0}`), want: result{Text: "twelve chars", FinishReason: "stop", Usage: estimated(3, 0)}},
		"no output counted": {
			body: data(`{"type":"message_start","message":{"usage":{"input_tokens":10}}}`) + delta(0, `{"type":"thinking_delta","thinking":"hm"}`) + text(`"twelve chars"`) + end("end_turn", `null`),
			want: result{Text: "twelve chars", Reasoning: "hm", FinishReason: "stop", Usage: estimated(4, 1)},
		},
		"call of a tool, not counted": {
			body: block(0, `{"type":"tool_use","id":"t","name":"abcd","input":{}}`) + input(0, `{"a":1}`) + blockEnd(0) + end("tool_use", `{"output_tokens":0}`),
			want: result{FinishReason: "tool_calls", Usage: estimated(3, 0), ToolCalls: []llm.ToolCall{{ID: "t", Name: "abcd", Arguments: `{"a":1}`}}},
		},
		"negative usage":                  {body: start + text(`"x"`) + end("end_turn", `{"output_tokens":-7}`), want: result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"negative part":                   {body: start + text(`"x"`) + end("end_turn", `{"output_tokens":7,"input_tokens":-5,"cache_read_input_tokens":50}`), want: result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"usage beyond belief":             {body: start + text(`"x"`) + end("end_turn", `{"output_tokens":9223372036854775807}`), want: result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"cached beyond belief":            {body: start + text(`"x"`) + end("end_turn", `{"output_tokens":7,"cache_read_input_tokens":9223372036854775807,"cache_creation_input_tokens":9223372036854775807}`), want: result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"more thinking than there is":     {body: start + text(`"x"`) + end("end_turn", `{"output_tokens":7,"output_tokens_details":{"thinking_tokens":8}}`), want: result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"unreadable usage":                {body: start + text(`"x"`) + end("end_turn", `{"output_tokens":"many"}`), want: result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"usage that is no object at last": {body: start + text(`"x"`) + end("end_turn", `[7]`), want: result{Text: "x", FinishReason: "stop", Usage: used(1)}},

		"stop text of white space": {
			body: start + text(`"one\n"`) + text(`"two\n"`) + text(`"\nthree"`) + finish, stop: []string{"\n\n", " "},
			want: result{Text: "one\ntwo", FinishReason: "stop", Usage: llm.Usage{InputTokens: 10, OutputTokens: 2, Estimated: true}},
		},
		"stop text that does not come": {
			body: start + text(`"one\n"`) + text(`"two\n"`) + finish, stop: []string{"\n\n", "END"},
			want: result{Text: "one\ntwo\n", FinishReason: "stop", Usage: used(2)},
		},

		"not streamed": {
			body: ` {"id":"msg_1","type":"message","role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"x"},{"type":"text","text":"whole"},{"type":"tool_use","id":"t","name":"add","input":{"a":1}}],"stop_reason":"tool_use","usage":{"input_tokens":3,"output_tokens":1}}`,
			want: result{Text: "whole", Reasoning: "hm", FinishReason: "tool_calls", Usage: llm.Usage{InputTokens: 3, OutputTokens: 1}, ToolCalls: []llm.ToolCall{{ID: "t", Name: "add", Arguments: `{"a":1}`}}},
		},
		"comments and other fields": {
			body: ": hi\n\nid: 4\nretry: 10\nevent: x\n\n" + start + ": " + strings.Repeat("ping", 1000) + "\n\n" + text(`"x"`) + finish,
			want: result{Text: "x", FinishReason: "stop", Usage: used(2)},
		},
		"CR only":                  {body: strings.ReplaceAll(start+text(`"a"`)+text(`"b"`)+finish, "\n", "\r"), want: result{Text: "ab", FinishReason: "stop", Usage: used(2)}},
		"CRLF":                     {body: strings.ReplaceAll(start+text(`"a"`)+text(`"b"`)+finish, "\n", "\r\n"), want: result{Text: "ab", FinishReason: "stop", Usage: used(2)}},
		"byte order mark":          {body: "\uFEFF" + start + text(`"a"`) + finish, want: result{Text: "a", FinishReason: "stop", Usage: used(2)}},
		"no space after the colon": {body: strings.ReplaceAll(start+text(`"a"`)+finish, "data: ", "data:"), want: result{Text: "a", FinishReason: "stop", Usage: used(2)}},
		"end without a blank line": {body: strings.TrimSpace(start + text(`"a"`) + finish), want: result{Text: "a", FinishReason: "stop", Usage: used(2)}},
		"anything after the end":   {body: start + text(`"a"`) + finish + data(`{"type":"error","error":{"type":"api_error","message":"late"}}`), want: result{Text: "a", FinishReason: "stop", Usage: used(2)}},

		"character split between chunks":                 {body: start + text("\"a\xe4\"") + text("\"\xb8\"") + text("\"\x96b\"") + finish, want: result{Text: "a世b", FinishReason: "stop", Usage: used(2)}},
		"surrogates split between chunks":                {body: start + text(`"a\ud83c"`) + text(`"\udf0db"`) + finish, want: result{Text: "a\U0001F30Db", FinishReason: "stop", Usage: used(2)}},
		"character never completed":                      {body: start + text("\"a\xe4\xb8\"") + blockEnd(0) + finish, want: result{Text: "a\uFFFD", FinishReason: "stop", Usage: used(2), Repaired: true}},
		"character never completed, no end of the block": {body: start + text("\"a\xe4\xb8\"") + finish, want: result{Text: "a\uFFFD", FinishReason: "stop", Usage: used(2), Repaired: true}},
		"broken UTF-8":                                   {body: start + text("\"a\xffb\"") + finish, want: result{Text: "a\uFFFDb", FinishReason: "stop", Usage: used(2), Repaired: true}},
		"NUL as an escape":                               {body: start + text(`"a\u0000b"`) + finish, want: result{Text: "a\uFFFDb", FinishReason: "stop", Usage: used(2), Repaired: true}},
		"raw NUL":                                        {body: start + text("\"a\x00b\"") + finish, want: result{Text: "a\uFFFDb", FinishReason: "stop", Usage: used(2), Repaired: true}},
		"lone surrogate":                                 {body: start + delta(0, `{"type":"thinking_delta","thinking":"a\ud83cb"}`) + finish, want: result{Reasoning: "a\uFFFDb", FinishReason: "stop", Usage: used(2), Repaired: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", llmtest.Reply{llmtest.Raw(tt.body)})
			req := request("m")
			req.Stop = tt.stop
			var calls []llm.ToolCall
			r := llmtest.Collect(t.Context(), t, watch{provider(t, fake.Root), func(c llm.Chunk) { calls = append(calls, c.ToolCalls...) }}, req)
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			got := result{r.Text, r.Reasoning, r.FinishReason, calls, *r.Usage, r.Repaired}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(llm.Usage{}, "Raw")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestScripts plays what the fake makes of its scripts.
func TestScripts(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Reply{
		llmtest.Reasoning("hm "), llmtest.Reasoning("hm"), llmtest.Delta("a"), llmtest.Delta("b"),
		llmtest.ToolCall("c1", "add", `{"a":`, `1}`), llmtest.ToolCall("c2", "now"),
		llmtest.Finish(llm.FinishToolCalls), llmtest.UsageOf(llmtest.Tokens{Input: 100, Output: 50, Cached: 60, CacheWrite: 30, Reasoning: 40}), llmtest.Done(),
	})
	var id string
	var calls []llm.ToolCall
	r := llmtest.Collect(t.Context(), t, watch{provider(t, fake.Root), func(c llm.Chunk) {
		calls = append(calls, c.ToolCalls...)
		if c.ResponseID != "" {
			id = c.ResponseID
		}
		if len(c.ToolCalls) > 0 && c.FinishReason != "" {
			t.Error("a tool call came with the finish reason, not before it")
		}
	}}, request("m"))
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	if r.Text != "ab" || r.Reasoning != "hm hm" || r.FinishReason != llm.FinishToolCalls || id != "msg_fake" {
		t.Errorf("%+v, id %q", r, id)
	}
	if diff := cmp.Diff([]llm.ToolCall{{ID: "c1", Name: "add", Arguments: `{"a":1}`}, {ID: "c2", Name: "now", Arguments: "{}"}}, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	want := llm.Usage{InputTokens: 100, OutputTokens: 50, CachedTokens: 60, CacheWriteTokens: 30, ReasoningTokens: 40}
	if diff := cmp.Diff(want, *r.Usage, cmpopts.IgnoreFields(llm.Usage{}, "Raw")); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	sameJSON(t, `{"input_tokens":10,"output_tokens":50,"cache_creation_input_tokens":30,"cache_read_input_tokens":60,"output_tokens_details":{"thinking_tokens":40}}`, r.Usage.Raw)
}

// TestStructured shows that the input of the answer tool becomes the text, piece
// by piece where it can.
func TestStructured(t *testing.T) {
	t.Parallel()
	const object, list = `{"type":"object"}`, `{"type":"array","items":{"type":"string"}}`
	answer := block(0, `{"type":"tool_use","id":"t","name":"answer","input":{}}`)
	tests := map[string]struct {
		schema, body, want, finish string
		chunks                     int // with text
	}{
		"object":                 {object, answer + input(0, "") + input(0, `{"a":`) + input(0, `1}`) + blockEnd(0) + end("tool_use", `{"output_tokens":4}`), `{"a":1}`, llm.FinishStop, 2},
		"text beside it":         {object, text(`"Here:"`) + blockEnd(0) + answer + input(0, `{"a":1}`) + blockEnd(0) + end("tool_use", `{"output_tokens":4}`), `{"a":1}`, llm.FinishStop, 1},
		"in one piece":           {object, block(0, `{"type":"tool_use","id":"t","name":"answer","input":{"a":1}}`) + blockEnd(0) + end("tool_use", `{"output_tokens":4}`), `{"a":1}`, llm.FinishStop, 1},
		"empty":                  {object, answer + blockEnd(0) + end("tool_use", `{"output_tokens":4}`), `{}`, llm.FinishStop, 1},
		"cut off":                {object, answer + input(0, `{"a":`) + end("max_tokens", `{"output_tokens":4}`), `{"a":`, llm.FinishLength, 1},
		"not asked for that way": {object, text(`"{\"a\":"`) + text(`"1}"`) + blockEnd(0) + end("end_turn", `{"output_tokens":4}`), `{"a":1}`, llm.FinishStop, 1},
		"list":                   {list, answer + input(0, `{"answer":["a",`) + input(0, `"b"]}`) + blockEnd(0) + end("tool_use", `{"output_tokens":4}`), `["a","b"]`, llm.FinishStop, 1},
		"list without its frame": {list, answer + input(0, `["a"]`) + blockEnd(0) + end("tool_use", `{"output_tokens":4}`), `["a"]`, llm.FinishStop, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", llmtest.Reply{llmtest.Raw(start + tt.body)})
			req := request("m")
			req.Schema = json.RawMessage(tt.schema)
			chunks := 0
			r := llmtest.Collect(t.Context(), t, watch{provider(t, fake.Root), func(c llm.Chunk) {
				if c.Text != "" {
					chunks++
				}
				if len(c.ToolCalls) > 0 {
					t.Errorf("tool calls %+v", c.ToolCalls)
				}
			}}, req)
			if r.Err != nil || r.Text != tt.want || r.FinishReason != tt.finish || chunks != tt.chunks {
				t.Errorf("%+v in %d chunks, want %q in %d, %s", r, chunks, tt.want, tt.chunks, tt.finish)
			}
		})
	}
}

// watch is a provider whose chunks are looked at.
type watch struct {
	llm.Provider
	see func(llm.Chunk)
}

func (w watch) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		for chunk, err := range w.Provider.Stream(ctx, req) {
			w.see(chunk)
			if !yield(chunk, err) {
				return
			}
		}
	}
}

// bodyTransport answers every request by a body, without a network.
type bodyTransport []byte

func (b bodyTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     http.Header{},
		Body:       io.NopCloser(strings.NewReader(string(b))),
	}, nil
}

// FuzzBody feeds arbitrary bodies; Collect checks what always holds.
func FuzzBody(f *testing.F) {
	f.Add([]byte(start+block(0, `{"type":"text","text":""}`)+text(`"a\ud83c"`)+blockEnd(0)+end("end_turn", `{"output_tokens":2}`)), "", false)
	f.Add([]byte("\xef\xbb\xbfevent: error\rdata: {\"error\":{\"message\":[\"x\"],\"type\":429}}\r\r"), "\n", false)
	f.Add([]byte(block(3, `{"type":"tool_use","id":"t","name":"answer"}`)+input(3, `{"answer":`)+input(3, `7}`)+blockEnd(3)+stop), " ", true)
	f.Add([]byte(` {"content":[{"type":"text","text":"a"},{"type":"tool_use","name":"x","input":{}}],"stop_reason":"x","usage":{"input_tokens":1}}`), "", true)
	f.Fuzz(func(t *testing.T, body []byte, stop string, structured bool) {
		p := provider(t, "http://fuzz.invalid", func(c *anthropic.Config) { c.Client = &http.Client{Transport: bodyTransport(body)} })
		req := request("m")
		req.Stop = []string{stop}
		if structured {
			req.Schema = json.RawMessage(`{"type":"integer"}`)
		}
		llmtest.Collect(t.Context(), t, p, req)
	})
}

// FuzzContent shows that any text, split anywhere, arrives as one would expect.
func FuzzContent(f *testing.F) {
	f.Add("plain", 2)
	f.Add("世界 \U0001F30D \"quoted\" \\ \n\u2028", 1)
	f.Add("a\x00\xff\xed\xa0\x80", 3)
	f.Fuzz(func(t *testing.T, content string, at int) {
		at = min(max(at, 0), len(content))
		body := start
		for _, piece := range []string{content[:at], content[at:]} {
			// JSON that keeps every byte, as a careless server writes it.
			quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(piece)
			for c := rune(1); c < 0x20; c++ {
				quoted = strings.ReplaceAll(quoted, string(c), fmt.Sprintf(`\u%04x`, c))
			}
			body += text(`"` + quoted + `"`)
		}
		body += end("end_turn", `{"output_tokens":2}`)
		p := provider(t, "http://fuzz.invalid", func(c *anthropic.Config) { c.Client = &http.Client{Transport: bodyTransport(body)} })
		r := llmtest.Collect(t.Context(), t, p, request("m"))
		var repairer llm.Repairer
		want, _ := repairer.Text(content)
		tail, _ := repairer.Flush()
		if r.Err != nil || r.Text != want+tail {
			t.Errorf("%q arrived as %q, want %q; error %v", content, r.Text, want+tail, r.Err)
		}
	})
}

// BenchmarkDecode measures the provider alone, without network and server.
func BenchmarkDecode(b *testing.B) {
	const chunks = 1000
	body := start + strings.Repeat("event: content_block_delta\n"+text(`" word"`), chunks) + end("end_turn", `{"output_tokens":1000}`)
	p := provider(b, "http://bench.invalid", func(c *anthropic.Config) { c.Client = &http.Client{Transport: bodyTransport(body)} })
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	n := 0
	for b.Loop() {
		for _, err := range p.Stream(b.Context(), request("m")) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/chunk")
}
