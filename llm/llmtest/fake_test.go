package llmtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/chainstream/chainstream/llm/llmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

// post sends a completion request.
func post(ctx context.Context, t *testing.T, url, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

func client(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestStreamOnTheWire(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("a", "\"b\""))
	resp := post(t.Context(), t, fake.URL, `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`)
	const want = `data: {"choices":[{"delta":{"content":"","role":"assistant"},"finish_reason":null,"index":0}],"id":"chatcmpl-fake","model":"m","object":"chat.completion.chunk"}

data: {"id":"chatcmpl-fake","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}

data: {"id":"chatcmpl-fake","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"\"b\""},"finish_reason":null}]}

data: {"choices":[{"delta":{},"finish_reason":"stop","index":0}],"id":"chatcmpl-fake","model":"m","object":"chat.completion.chunk"}

data: {"choices":[],"id":"chatcmpl-fake","model":"m","object":"chat.completion.chunk","usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9,"prompt_tokens_details":{},"completion_tokens_details":{}}}

data: [DONE]

`
	if diff := cmp.Diff(want, resp.body); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := resp.header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	if resp := post(t.Context(), t, fake.URL, `{"model":"m","stream":true}`); strings.Contains(resp.body, "usage") {
		t.Errorf("usage that was not asked for:\n%s", resp.body)
	}
}

func TestWholeAnswer(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", append(llmtest.Reply{llmtest.Reasoning("hm")}, llmtest.Text("a", "b")...))
	resp := post(t.Context(), t, fake.URL, `{"model":"m"}`)
	var got struct {
		Object  string
		Choices []struct {
			Message struct {
				Content   string
				Reasoning string `json:"reasoning_content"`
			}
			FinishReason string `json:"finish_reason"`
		}
		Usage map[string]any
	}
	if err := json.Unmarshal([]byte(resp.body), &got); err != nil {
		t.Fatalf("%v in %s", err, resp.body)
	}
	if resp.status != http.StatusOK || got.Object != "chat.completion" || len(got.Choices) != 1 || got.Usage["total_tokens"] != 9.0 {
		t.Fatalf("status %d, body %s", resp.status, resp.body)
	}
	if c := got.Choices[0]; c.Message.Content != "ab" || c.Message.Reasoning != "hm" || c.FinishReason != "stop" {
		t.Errorf("choice %+v", c)
	}
}

func TestScriptsAndRecords(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Status(503, "Retry-After", "7"), llmtest.Text("ok"))
	statuses := make([]int, 0, 5)
	for _, model := range []string{"m", "m", "m", "unknown"} {
		resp := post(t.Context(), t, fake.URL, `{"model":"`+model+`","stream":true,"messages":[{"role":"user","content":"hi"}]}`)
		statuses = append(statuses, resp.status)
	}
	statuses = append(statuses, post(t.Context(), t, fake.URL, `{"model":`).status)
	if diff := cmp.Diff([]int{503, 200, 200, 404, 400}, statuses); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if m, all := fake.Count("m"), fake.Count(""); m != 3 || all != 5 {
		t.Errorf("counted %d of m, %d in all", m, all)
	}
	call := fake.Calls()[1]
	if diff := cmp.Diff([]llmtest.Message{{Role: "user", Content: "hi"}}, call.Request.Messages); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	select {
	case <-call.Gone:
		t.Error("a call that ended well counts as given up")
	default:
	}
}

func TestAwait(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	reached := make(chan struct{})
	fake.Script("m", llmtest.Reply{llmtest.Head(), llmtest.Tell(func() { close(reached) }), llmtest.Stall()})

	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fake.URL+"/chat/completions", strings.NewReader(`{"model":"m","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	call, err := fake.Await(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	cancel()
	<-call.Gone
	<-call.Ended

	late, stop := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer stop()
	if _, err := fake.Await(late, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call that never comes: %v", err)
	}
}

// TestCloseEndsStalls shows that a closed fake lets go of whoever waits.
func TestCloseEndsStalls(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Reply{llmtest.Delta("x"), llmtest.Tell(fake.Close), llmtest.Stall()})
	fake.Script("slow", llmtest.Reply{llmtest.Delta("x"), llmtest.Delay(time.Hour)})
	for _, model := range []string{"m", "slow"} {
		resp := post(t.Context(), t, fake.URL, `{"model":"`+model+`","stream":true}`)
		if !strings.Contains(resp.body, `"x"`) || strings.Contains(resp.body, "[DONE]") {
			t.Errorf("body %s", resp.body)
		}
	}
}

func TestOtherEndpoints(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("x"))
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/models":           {200, `"id":"m"`},
		"/embeddings":       {404, `"unknown_url"`},
		"/chat/completions": {404, `"unknown_url"`}, // GET
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fake.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want.status || !strings.Contains(string(body), want.text) {
			t.Errorf("GET %s: %d %s", path, resp.StatusCode, body)
		}
	}
}
