package gemini_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/gemini"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// roundTrip answers requests without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answered(body []byte) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body)))}
}

// reading returns a provider that reads the body for every request.
func reading(tb testing.TB, body []byte) *gemini.Provider {
	return provider(tb, "http://gemini.invalid", func(c *gemini.Config) {
		c.Client = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return answered(body), nil })}
	})
}

// part and friends are pieces of an answer as Gemini sends them.
func part(content string) string {
	return `data: {"candidates":[{"content":{"parts":[` + content + `],"role":"model"},"index":0}]}` + "\n\n"
}

func text(s string) string { return part(`{"text":"` + s + `"}`) }

func end(reason string) string {
	return `data: {"candidates":[{"content":{"role":"model"},"finishReason":"` + reason + `","index":0}]}` + "\n\n"
}

var finish = end("STOP")

func usage(counts string) string { return `data: {"usageMetadata":{` + counts + `}}` + "\n\n" }

type result struct {
	Text, Reasoning, FinishReason string
	Usage                         llm.Usage
	Repaired                      bool
	Calls                         []llm.ToolCall
	ResponseID                    string
}

// collect ranges over an answer.
func collect(t *testing.T, p llm.Provider, req llm.Request) (result, error) {
	t.Helper()
	r := llmtest.Collect(t.Context(), t, p, req)
	got := result{r.Text, r.Reasoning, r.FinishReason, llm.Usage{}, r.Repaired, r.ToolCalls, r.ResponseID}
	if r.Usage != nil {
		got.Usage = *r.Usage
	}
	return got, r.Err
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	// The prompt "Hello" and its frame are nine tokens.
	estimated := func(output, reasoning int64) llm.Usage {
		return llm.Usage{InputTokens: 9, OutputTokens: output, ReasoningTokens: reasoning, Estimated: true}
	}
	call := func(id, name, args string) llm.ToolCall { return llm.ToolCall{ID: id, Name: name, Arguments: args} }
	tests := map[string]struct {
		body string
		want result
	}{
		"as Gemini sends it": {
			`data: {"candidates":[{"content":{"parts":[{"text":"Hello"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4},"modelVersion":"gemini-2.5-flash","responseId":"abc"}` + "\r\n\r\n" +
				`data: {"candidates":[{"content":{"parts":[{"text":", world"}],"role":"model"},"finishReason":"STOP","index":0,"safetyRatings":[{"category":"HARM_CATEGORY_HARASSMENT","probability":"NEGLIGIBLE"}]}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":3,"totalTokenCount":7},"modelVersion":"gemini-2.5-flash","responseId":"abc"}` + "\r\n\r\n",
			result{Text: "Hello, world", FinishReason: "stop", Usage: llm.Usage{InputTokens: 4, OutputTokens: 3}, ResponseID: "abc"},
		},
		"thoughts": {
			part(`{"text":"Let me ","thought":true}`) + part(`{"text":"see.","thought":true},{"text":"Yes."}`) + finish,
			result{Text: "Yes.", Reasoning: "Let me see.", FinishReason: "stop", Usage: estimated(4, 3)},
		},
		"one call": {
			part(`{"functionCall":{"id":"f1","name":"weather","args":{"city": "Oslo", "days": 3}}}`) + finish,
			result{FinishReason: "tool_calls", Usage: estimated(8, 0), Calls: []llm.ToolCall{call("f1", "weather", `{"city":"Oslo","days":3}`)}},
		},
		"calls with the finish reason, signed, one id missing and one twice": {
			`data: {"candidates":[{"content":{"parts":[{"text":"Wait."},{"functionCall":{"name":"a"},"thoughtSignature":"c2lnbmVk"},{"functionCall":{"id":"x","name":"b","args":null}},{"functionCall":{"id":"x","name":"c","args":"{}"}}]},"finishReason":"STOP"}]}` + "\n\n",
			result{Text: "Wait.", FinishReason: "tool_calls", Usage: estimated(4, 0), Calls: []llm.ToolCall{
				{ID: "call_made_up", Name: "a", Arguments: "{}", Signature: "c2lnbmVk"}, call("x", "b", "{}"), call("call_made_up", "c", "{}"),
			}},
		},
		"arguments that cannot be stored": {
			part(`{"functionCall":{"id":"x","name":"n","args":{"a":"`+"\xff\\u0000"+`"}}}`) + finish,
			result{FinishReason: "tool_calls", Usage: estimated(5, 0), Repaired: true, Calls: []llm.ToolCall{call("x", "n", "{\"a\":\"\uFFFD\\u0000\"}")}},
		},
		"a call, and cut short": {
			part(`{"functionCall":{"id":"x","name":"n","args":{}}}`) + end("MAX_TOKENS"),
			result{FinishReason: "length", Usage: estimated(1, 0), Calls: []llm.ToolCall{call("x", "n", "{}")}},
		},
		"a call, as imitations end it": {
			part(`{"functionCall":{"id":"x","name":"n"}}`) + end("FUNCTION_CALL"),
			result{FinishReason: "tool_calls", Usage: estimated(1, 0), Calls: []llm.ToolCall{call("x", "n", "{}")}},
		},
		"broken call":                    {end("MALFORMED_FUNCTION_CALL"), result{FinishReason: "malformed_function_call", Usage: estimated(0, 0)}},
		"length":                         {text("x") + end("MAX_TOKENS"), result{Text: "x", FinishReason: "length", Usage: estimated(1, 0)}},
		"safety":                         {text("x") + end("SAFETY"), result{Text: "x", FinishReason: "content_filter", Usage: estimated(1, 0)}},
		"recitation":                     {end("RECITATION"), result{FinishReason: "content_filter", Usage: estimated(0, 0)}},
		"blocklist":                      {end("BLOCKLIST"), result{FinishReason: "content_filter", Usage: estimated(0, 0)}},
		"prohibited":                     {end("PROHIBITED_CONTENT"), result{FinishReason: "content_filter", Usage: estimated(0, 0)}},
		"personal data":                  {end("SPII"), result{FinishReason: "content_filter", Usage: estimated(0, 0)}},
		"image safety":                   {end("IMAGE_SAFETY"), result{FinishReason: "content_filter", Usage: estimated(0, 0)}},
		"language":                       {end("LANGUAGE"), result{FinishReason: "language", Usage: estimated(0, 0)}},
		"a reason of tomorrow":           {end("SOMETHING_NEW"), result{FinishReason: "something_new", Usage: estimated(0, 0)}},
		"a reason that cannot be stored": {end("NE\\u0000W"), result{FinishReason: "ne\uFFFDw", Usage: estimated(0, 0)}},
		"a reason without end":           {end(strings.Repeat("A", 1000)), result{FinishReason: "unknown", Usage: estimated(0, 0)}},
		"STOP with every piece":          {strings.Replace(text("a"), `"index"`, `"finishReason":"STOP","index"`, 1) + text("b") + end("MAX_TOKENS"), result{Text: "ab", FinishReason: "length", Usage: estimated(1, 0)}},
		"two reasons":                    {end("SAFETY") + end("STOP"), result{FinishReason: "content_filter", Usage: estimated(0, 0)}},
		"the answer is empty":            {finish, result{FinishReason: "stop", Usage: estimated(0, 0)}},
		"several candidates":             {`data: {"candidates":[{"index":1,"content":{"parts":[{"text":"b"}]},"finishReason":"SAFETY"},{"content":{"parts":[{"text":"a"}]}}]}` + "\n\n" + finish, result{Text: "a", FinishReason: "stop", Usage: estimated(1, 0)}},
		"pictures and code":              {part(`{"inlineData":{"mimeType":"image/png","data":"eA=="}},{"executableCode":{"language":"PYTHON","code":"1"}},{"codeExecutionResult":{"outcome":"OUTCOME_OK"}},{"text":"x"}`) + finish, result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"usage in detail":                {text("x") + usage(`"promptTokenCount":100,"cachedContentTokenCount":80,"candidatesTokenCount":10,"thoughtsTokenCount":40,"toolUsePromptTokenCount":5,"totalTokenCount":155`) + finish, result{Text: "x", FinishReason: "stop", Usage: llm.Usage{InputTokens: 105, OutputTokens: 50, CachedTokens: 80, ReasoningTokens: 40}}},
		"the last usage counts":          {usage(`"promptTokenCount":9`) + text("x") + finish + usage(`"promptTokenCount":10,"candidatesTokenCount":1`), result{Text: "x", FinishReason: "stop", Usage: llm.Usage{InputTokens: 10, OutputTokens: 1}}},
		"usage of the prompt only":       {usage(`"promptTokenCount":9`) + text("twelve chars") + finish, result{Text: "twelve chars", FinishReason: "stop", Usage: estimated(3, 0)}},
		"usage of zeros":                 {usage(`"promptTokenCount":0`) + finish, result{FinishReason: "stop", Usage: estimated(0, 0)}},
		"negative usage":                 {text("x") + usage(`"promptTokenCount":5,"candidatesTokenCount":-1,"thoughtsTokenCount":3`) + finish, result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"usage beyond belief":            {text("x") + usage(`"promptTokenCount":9223372036854775807,"toolUsePromptTokenCount":9223372036854775807,"candidatesTokenCount":1`) + finish, result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"more cached than sent":          {text("x") + usage(`"promptTokenCount":5,"cachedContentTokenCount":6,"candidatesTokenCount":1`) + finish, result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"unreadable usage":               {text("x") + usage(`"promptTokenCount":"many"`) + finish, result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"believable, then not":           {usage(`"promptTokenCount":5,"candidatesTokenCount":2`) + text("x") + finish + usage(`"promptTokenCount":-5`), result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"[DONE] of a gateway":            {text("x") + finish + "data: [DONE]\n\n" + text("late"), result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"error after the finish reason":  {text("x") + finish + `data: {"error":{"code":500}}` + "\n\n", result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"nonsense after it":              {text("x") + finish + "data: {\n\n", result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"end without blank line":         {text("x") + strings.TrimRight(finish, "\n"), result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"not streamed":                   {` {"candidates":[{"content":{"parts":[{"text":"whole"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1},"responseId":"r"}`, result{Text: "whole", FinishReason: "stop", Usage: llm.Usage{InputTokens: 3, OutputTokens: 1}, ResponseID: "r"}},
		"an array":                       {"[" + strings.TrimPrefix(text("a"), "data: ") + "," + strings.TrimPrefix(text("b"), "data: ") + "," + strings.TrimPrefix(finish, "data: ") + "]", result{Text: "ab", FinishReason: "stop", Usage: estimated(1, 0)}},
		"an array, cut off at the end":   {"[" + strings.TrimPrefix(text("a"), "data: ") + "," + strings.TrimPrefix(finish, "data: ") + ", {", result{Text: "a", FinishReason: "stop", Usage: estimated(1, 0)}},
		"comments and other fields":      {": hi\n\nid: 4\nretry: 10\nevent: x\n\n" + text("x") + ": " + strings.Repeat("ping", 1000) + "\n\n" + "event: y\nid: 5\n" + finish, result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)}},
		"CR only":                        {strings.ReplaceAll(text("a")+text("b")+finish, "\n", "\r"), result{Text: "ab", FinishReason: "stop", Usage: estimated(1, 0)}},
		"byte order mark":                {"\uFEFF" + text("a") + finish, result{Text: "a", FinishReason: "stop", Usage: estimated(1, 0)}},
		"data in two lines":              {"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]},\ndata: \"finishReason\":\"STOP\"}]}\n\n", result{Text: "a", FinishReason: "stop", Usage: estimated(1, 0)}},
		"no space after the colon":       {strings.ReplaceAll(text("a")+finish, "data: ", "data:"), result{Text: "a", FinishReason: "stop", Usage: estimated(1, 0)}},
		"character split between pieces": {text("\xe4\xb8") + text("\x96") + finish, result{Text: "世", FinishReason: "stop", Usage: estimated(1, 0)}},
		"pair split between pieces":      {text(`\ud83c`) + text(`\udf0d`) + finish, result{Text: "\U0001F30D", FinishReason: "stop", Usage: estimated(1, 0)}},
		"thought split between pieces":   {part("{\"text\":\"\xe4\xb8\",\"thought\":true}") + part("{\"text\":\"\x96\",\"thought\":true}") + finish, result{Reasoning: "世", FinishReason: "stop", Usage: estimated(1, 1)}},
		"character never finished":       {text("a\xe4\xb8") + finish, result{Text: "a\uFFFD", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true}},
		"broken UTF-8":                   {text("a\xffb") + finish, result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true}},
		"NUL":                            {text(`a\u0000b`) + finish, result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true}},
		"raw NUL":                        {text("a\x00b") + finish, result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true}},
		"lone surrogate":                 {text(`a\ud83cb`) + finish, result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", llmtest.Reply{llmtest.Raw(tt.body)})
			got, err := collect(t, provider(t, fake.Root), request("m"))
			if err != nil {
				t.Fatal(err)
			}
			ids := map[string]bool{}
			for i, c := range got.Calls {
				if c.ID == "" || ids[c.ID] {
					t.Errorf("calls %+v: ids are missing or used twice", got.Calls)
				}
				ids[c.ID] = true
				got.Calls[i].ID = madeUp.ReplaceAllString(c.ID, "call_made_up")
			}
			if got.Usage.Estimated == (got.Usage.Raw != nil) {
				t.Errorf("usage %+v", got.Usage)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(llm.Usage{}, "Raw")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

var madeUp = regexp.MustCompile(`^call_[A-Z2-7]{26}$`)

// TestRawUsage shows that the provider's own figures are kept.
func TestRawUsage(t *testing.T) {
	t.Parallel()
	const counts = `{"promptTokenCount": 4, "candidatesTokenCount": 1, "promptTokensDetails": [{"modality":"TEXT","tokenCount":4}], "tomorrow": true}`
	got, err := collect(t, reading(t, []byte(text("x")+finish+`data: {"usageMetadata":`+counts+"}\n\n")), request("m"))
	if err != nil || string(got.Usage.Raw) != counts {
		t.Errorf("raw usage %s, error %v", got.Usage.Raw, err)
	}
}

// TestScriptedAnswers shows the provider and the fake's wire together.
func TestScriptedAnswers(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Reply{
		llmtest.Role(), llmtest.Reasoning("hm"), llmtest.Delta("a"), llmtest.ToolCall("c1", "n", `{"x"`, `:1}`),
		llmtest.Finish(llm.FinishToolCalls), llmtest.UsageDetails(100, 50, 80, 40), llmtest.Done(),
	})
	got, err := collect(t, provider(t, fake.Root), request("m"))
	if err != nil {
		t.Fatal(err)
	}
	want := result{
		Text: "a", Reasoning: "hm", FinishReason: llm.FinishToolCalls, ResponseID: "fake-response",
		Usage: llm.Usage{InputTokens: 100, OutputTokens: 50, CachedTokens: 80, ReasoningTokens: 40},
		Calls: []llm.ToolCall{{ID: "c1", Name: "n", Arguments: `{"x":1}`}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(llm.Usage{}, "Raw")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzBody feeds arbitrary bodies; Collect checks what always holds.
func FuzzBody(f *testing.F) {
	f.Add([]byte(text(`a\ud83c`) + part(`{"functionCall":{"name":"n","args":{"a":1}}}`) + finish))
	f.Add([]byte("\xef\xbb\xbfevent: error\rdata: [{\"error\":{\"message\":[\"x\"],\"code\":429,\"details\":[{\"retryDelay\":\"1e99s\"}]}}]\r\r"))
	f.Add([]byte("data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\xe4\xb8\",\"thought\":true}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{}}"))
	f.Add([]byte(`[{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"X"}]},{"promptFeedback":{"blockReason":"SAFETY"}}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := collect(t, reading(t, body), request("m"))
		for _, c := range got.Calls {
			if s := c.ID + c.Name + c.Arguments + c.Signature; c.ID == "" || c.Name == "" || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
				t.Errorf("call %+q", c)
			}
		}
		if err == nil && !got.Usage.Plausible() {
			t.Errorf("usage %+v", got.Usage)
		}
	})
}

// BenchmarkDecode measures the provider alone, without network and server.
func BenchmarkDecode(b *testing.B) {
	const chunks = 1000
	body := strings.Repeat(`data: {"candidates":[{"content":{"parts":[{"text":" word"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":100,"totalTokenCount":104,"promptTokensDetails":[{"modality":"TEXT","tokenCount":4}]},"modelVersion":"gemini-2.5-flash","responseId":"0123456789"}`+"\n\n", chunks) + finish
	p := reading(b, []byte(body))
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
