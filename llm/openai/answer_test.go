package openai_test

import (
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

func TestAnswers(t *testing.T) {
	t.Parallel()
	type result struct {
		Text, Reasoning, FinishReason string
		Usage                         llm.Usage
		Repaired                      bool
	}
	// The prompt "Hello" and its frame are nine tokens.
	estimated := func(output, reasoning int64) llm.Usage {
		return llm.Usage{InputTokens: 9, OutputTokens: output, ReasoningTokens: reasoning, Estimated: true}
	}
	delta := func(content string) string {
		return `data: {"choices":[{"index":0,"delta":{"content":` + content + `}}]}` + "\n\n"
	}
	const finish = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	tests := map[string]struct {
		reply llmtest.Reply
		want  result
	}{
		"usual": {
			llmtest.Text("Hello", ", world"),
			result{Text: "Hello, world", FinishReason: "stop", Usage: llm.Usage{InputTokens: 7, OutputTokens: 2}},
		},
		"empty": {
			llmtest.Reply{llmtest.Role(), llmtest.Finish("stop"), llmtest.Usage(3, 0), llmtest.Done()},
			result{FinishReason: "stop", Usage: llm.Usage{InputTokens: 3}},
		},
		"usage in detail": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.UsageDetails(100, 50, 80, 40), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: llm.Usage{InputTokens: 100, OutputTokens: 50, CachedTokens: 80, ReasoningTokens: 40}},
		},
		"usage with cache writes": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.UsageOf(llmtest.Tokens{Input: 100, Output: 50, Cached: 60, CacheWrite: 40, Reasoning: 1}), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: llm.Usage{InputTokens: 100, OutputTokens: 50, CachedTokens: 60, CacheWriteTokens: 40, ReasoningTokens: 1}},
		},
		"usage as DeepSeek counts": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Data(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10,"prompt_cache_hit_tokens":4}}`), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: llm.Usage{InputTokens: 9, OutputTokens: 1, CachedTokens: 4}},
		},
		"usage as xAI counts": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Data(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":30,"completion_tokens_details":{"reasoning_tokens":20}}}`), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: llm.Usage{InputTokens: 9, OutputTokens: 21, ReasoningTokens: 20}},
		},
		"more reasoning than answer": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.UsageDetails(5, 3, 0, 4), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"no usage": {
			llmtest.Reply{llmtest.Delta("twelve chars"), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "twelve chars", FinishReason: "stop", Usage: estimated(3, 0)},
		},
		"usage of zeros": {
			llmtest.Reply{llmtest.Delta("twelve chars"), llmtest.Finish("stop"), llmtest.Usage(0, 0), llmtest.Done()},
			result{Text: "twelve chars", FinishReason: "stop", Usage: estimated(3, 0)},
		},
		"negative usage": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.Usage(-5, 3), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"usage beyond belief": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.Usage(math.MaxInt64, math.MaxInt64), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"cached tokens beyond belief": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.UsageDetails(5, 3, 1<<62, 0), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"unreadable usage": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Data(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":"many"}}`), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"usage on every chunk": {
			llmtest.Reply{
				llmtest.Data(`{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`),
				llmtest.Data(`{"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`),
				llmtest.Done(),
			},
			result{Text: "ab", FinishReason: "stop", Usage: llm.Usage{InputTokens: 1, OutputTokens: 2}},
		},
		"reasoning_content": {
			llmtest.Reply{llmtest.Reasoning("think"), llmtest.Delta("say"), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "say", Reasoning: "think", FinishReason: "stop", Usage: estimated(3, 2)},
		},
		"reasoning": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":0,"delta":{"reasoning":"hm","content":""}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Reasoning: "hm", FinishReason: "stop", Usage: estimated(1, 1)},
		},
		"reasoning in both fields": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":0,"delta":{"reasoning":"hm","reasoning_content":"hm"}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Reasoning: "hm", FinishReason: "stop", Usage: estimated(1, 1)},
		},
		"content in parts": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[]},{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "ab", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"refusal": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":0,"delta":{"refusal":"I cannot."}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "I cannot.", FinishReason: "stop", Usage: estimated(3, 0)},
		},
		"length": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("length"), llmtest.Done()},
			result{Text: "x", FinishReason: "length", Usage: estimated(1, 0)},
		},
		"content filter": {
			llmtest.Reply{llmtest.Finish("content_filter"), llmtest.Done()},
			result{FinishReason: "content_filter", Usage: estimated(0, 0)},
		},
		"finish reason that cannot be stored": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("st\x00op"), llmtest.Done()},
			result{Text: "x", FinishReason: "st\uFFFDop", Usage: estimated(1, 0)},
		},
		"two finish reasons": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.Finish("length"), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"finish reason without [DONE]": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop")},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"broken after the finish reason": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.Cut()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"[DONE] without finish reason": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Done()},
			result{Text: "x", FinishReason: "unknown", Usage: estimated(1, 0)},
		},
		"error after the finish reason": {
			llmtest.Reply{llmtest.Delta("x"), llmtest.Finish("stop"), llmtest.StreamError("late", "server_error"), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"several choices": {
			llmtest.Reply{llmtest.Data(`{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"stop"},{"index":0,"delta":{"content":"a"}}]}`), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "a", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"not streamed": {
			llmtest.JSON(` {"choices":[{"index":0,"message":{"role":"assistant","content":"whole"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`),
			result{Text: "whole", FinishReason: "stop", Usage: llm.Usage{InputTokens: 3, OutputTokens: 1}},
		},
		"comments and other fields": {
			llmtest.Reply{llmtest.Raw(": hi\n\nid: 4\nretry: 10\nevent: x\n\n"), llmtest.Delta("x"), llmtest.Comment(strings.Repeat("ping", 1000)), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "x", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"CR only": {
			llmtest.Reply{llmtest.Raw(strings.ReplaceAll(delta(`"a"`)+delta(`"b"`)+finish+"data: [DONE]\n\n", "\n", "\r"))},
			result{Text: "ab", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"CRLF split between packets": {
			llmtest.Reply{llmtest.Raw("data: {\"choices\":\r"), llmtest.Raw("\ndata: [{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\r"), llmtest.Raw("\n\r"), llmtest.Raw("\n"), llmtest.Done()},
			result{Text: "a", FinishReason: "unknown", Usage: estimated(1, 0)},
		},
		"byte order mark": {
			llmtest.Reply{llmtest.Raw("\uFEFF" + delta(`"a"`) + finish)},
			result{Text: "a", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"no space after the colon": {
			llmtest.Reply{llmtest.Raw("data:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata:[DONE]\n\n")},
			result{Text: "a", FinishReason: "unknown", Usage: estimated(1, 0)},
		},
		"end without a blank line": {
			llmtest.Reply{llmtest.Raw(delta(`"a"`) + "data: [DONE]")},
			result{Text: "a", FinishReason: "unknown", Usage: estimated(1, 0)},
		},
		"character split between packets": {
			llmtest.Reply{llmtest.Raw("data: {\"choices\":[{\"delta\":{\"content\":\"\xe4\xb8"), llmtest.Raw("\x96\"}}]}\n\n"), llmtest.Finish("stop"), llmtest.Done()},
			result{Text: "世", FinishReason: "stop", Usage: estimated(1, 0)},
		},
		"character split between chunks": {
			llmtest.Reply{llmtest.Raw(delta("\"a\xe4\"") + delta("\"\xb8\"") + delta("\"\x96b\"") + finish)},
			result{Text: "a世b", FinishReason: "stop", Usage: estimated(2, 0)},
		},
		"surrogates split between chunks": {
			llmtest.Reply{llmtest.Raw(delta(`"a\ud83c"`) + delta(`"\udf0db"`) + finish)},
			result{Text: "a\U0001F30Db", FinishReason: "stop", Usage: estimated(2, 0)},
		},
		"character never completed": {
			llmtest.Reply{llmtest.Raw(delta("\"a\xe4\xb8\"") + finish)},
			result{Text: "a\uFFFD", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
		"character never completed, [DONE] only": {
			llmtest.Reply{llmtest.Raw(delta("\"a\xe4\xb8\"")), llmtest.Done()},
			result{Text: "a\uFFFD", FinishReason: "unknown", Usage: estimated(2, 0), Repaired: true},
		},
		"broken UTF-8": {
			llmtest.Reply{llmtest.Raw(delta("\"a\xffb\"") + finish)},
			result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
		"NUL as an escape": {
			llmtest.Reply{llmtest.Delta("a\x00b"), llmtest.Finish("stop")},
			result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
		"raw NUL": {
			llmtest.Reply{llmtest.Raw(delta("\"a\x00b\"") + finish)},
			result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
		"lone surrogate": {
			llmtest.Reply{llmtest.Raw(delta(`"a\ud83cb"`) + finish)},
			result{Text: "a\uFFFDb", FinishReason: "stop", Usage: estimated(2, 0), Repaired: true},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", tt.reply)
			r := llmtest.Collect(t.Context(), t, provider(t, fake.URL), request("m"))
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			got := result{r.Text, r.Reasoning, r.FinishReason, *r.Usage, r.Repaired}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(llm.Usage{}, "Raw")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestAnswerDetails shows what of an answer is kept for its provider's support
// and for the books: its name, and the usage as it came.
func TestAnswerDetails(t *testing.T) {
	t.Parallel()
	const usage = `{"prompt_tokens":3, "completion_tokens":1, "of_the_future":[1]}`
	const finish = `{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}],"usage":` + usage + `}`
	tests := map[string]struct {
		reply   llmtest.Reply
		id, raw string
	}{
		"usual":            {llmtest.Reply{llmtest.Data(finish), llmtest.Done()}, "chatcmpl-1", usage},
		"no id":            {llmtest.Reply{llmtest.Data(strings.Replace(finish, `"id":"chatcmpl-1",`, "", 1))}, "", usage},
		"id is a number":   {llmtest.Reply{llmtest.Data(strings.Replace(finish, `"chatcmpl-1"`, "7", 1))}, "", usage},
		"id too long":      {llmtest.Reply{llmtest.Data(strings.Replace(finish, "chatcmpl-1", strings.Repeat("x", 300), 1))}, "", usage},
		"id of NUL":        {llmtest.Reply{llmtest.Data(strings.Replace(finish, "chatcmpl-1", `\u0000`, 1))}, "", usage},
		"first of two ids": {llmtest.Reply{llmtest.Data(`{"id":"chatcmpl-0","choices":[]}`), llmtest.Data(finish)}, "chatcmpl-0", usage},
		"absurd usage":     {llmtest.Reply{llmtest.Data(strings.Replace(finish, `:3`, ":-3", 1))}, "chatcmpl-1", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", tt.reply)
			r := llmtest.Collect(t.Context(), t, provider(t, fake.URL), request("m"))
			if r.Err != nil || r.ResponseID != tt.id || string(r.Usage.Raw) != tt.raw {
				t.Errorf("id %q, raw usage %s, error %v", r.ResponseID, r.Usage.Raw, r.Err)
			}
		})
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
	f.Add([]byte("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\ud83c\"}}]}\r\n\r\ndata: [DONE]\n\n"))
	f.Add([]byte("\xef\xbb\xbfevent: error\rdata: {\"error\":{\"message\":[\"x\"],\"code\":429}}\r\r"))
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"\xe4\xb8\"},\"finish_reason\":\"stop\"}],\"usage\":{}}"))
	f.Add([]byte(`data: {"id":"1","choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"n","arguments":{"x":"\ud800"}}},{"function":{"name":"n\u0000"}}]},"finish_reason":"length"}]}`))
	f.Add([]byte(` {"choices":[{"message":{"content":[{"type":"text","text":"a"}]},"finish_reason":"x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p := provider(t, "http://fuzz.invalid", func(c *openai.Config) { c.Client = &http.Client{Transport: bodyTransport(body)} })
		llmtest.Collect(t.Context(), t, p, request("m"))
	})
}

// FuzzContent shows that any text, split anywhere, arrives as one would expect.
func FuzzContent(f *testing.F) {
	f.Add("plain", 2)
	f.Add("世界 \U0001F30D \"quoted\" \\ \n\u2028", 1)
	f.Add("a\x00\xff\xed\xa0\x80", 3)
	f.Fuzz(func(t *testing.T, text string, at int) {
		at = min(max(at, 0), len(text))
		var body strings.Builder
		for _, piece := range []string{text[:at], text[at:]} {
			// JSON that keeps every byte, as a careless server writes it.
			quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(piece)
			for c := rune(1); c < 0x20; c++ {
				quoted = strings.ReplaceAll(quoted, string(c), `\u00`+string("01"[c>>4])+string("0123456789abcdef"[c&15]))
			}
			body.WriteString(`data: {"choices":[{"delta":{"content":"` + quoted + "\"}}]}\n\n")
		}
		body.WriteString("data: [DONE]\n\n")
		p := provider(t, "http://fuzz.invalid", func(c *openai.Config) {
			c.Client = &http.Client{Transport: bodyTransport(body.String())}
		})
		r := llmtest.Collect(t.Context(), t, p, request("m"))
		var repairer llm.Repairer
		want, _ := repairer.Text(text)
		tail, _ := repairer.Flush()
		if r.Err != nil || r.Text != want+tail {
			t.Errorf("%q arrived as %q, want %q; error %v", text, r.Text, want+tail, r.Err)
		}
	})
}

// BenchmarkStream measures the whole way of a chunk: the fake encodes it, a
// loopback connection carries it, the provider decodes it: 11 µs and 17
// allocations a chunk, both ends together, on a shared 2-core machine.
func BenchmarkStream(b *testing.B) {
	fake := llmtest.NewServer(b)
	const chunks = 1000
	fake.Script("m", llmtest.Text(strings.SplitAfter(strings.Repeat("word ", chunks), " ")...))
	p := provider(b, fake.URL)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n += drain(b, p)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/chunk")
}

// BenchmarkDecode measures the provider alone, without network and server: 6 µs of
// processor time, 13 allocations and 0.9 kB a chunk on a shared 2-core machine,
// four fifths of it in encoding/json.
func BenchmarkDecode(b *testing.B) {
	const chunks = 1000
	body := strings.Repeat(`data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4.1-mini","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}`+"\n\n", chunks)
	body += "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
	p := provider(b, "http://bench.invalid", func(c *openai.Config) { c.Client = &http.Client{Transport: bodyTransport(body)} })
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	n := 0
	for b.Loop() {
		n += drain(b, p)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/chunk")
}

func drain(b *testing.B, p llm.Provider) int {
	n := 0
	for _, err := range p.Stream(b.Context(), request("m")) {
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	return n
}
