package openai_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

// TestHangUp shows that the server sees the connection close as soon as a call is
// given up, in every way and at every point of an answer.
func TestHangUp(t *testing.T) {
	t.Parallel()
	points := map[string]llmtest.Reply{
		"before the head":       {llmtest.Stall()},
		"before the first byte": {llmtest.Head(), llmtest.Stall()},
		"in mid-stream":         {llmtest.Role(), llmtest.Delta("half"), llmtest.Stall()},
	}
	for name, reply := range points {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", reply)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan llmtest.Result, 1)
			go func() {
				ended <- llmtest.Collect(ctx, t, provider(t, fake.URL), request("m"))
			}()
			call := awaitCall(t, fake)
			cancel()
			within(t, call.Gone)
			if r := <-ended; !errors.Is(r.Err, context.Canceled) {
				t.Errorf("ended with %v", r.Err)
			}
		})
	}
	t.Run("left the loop", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		fake.Script("m", points["in mid-stream"])
		for chunk, err := range provider(t, fake.URL).Stream(t.Context(), request("m")) {
			if err != nil {
				t.Fatal(err)
			}
			if chunk.Text == "half" {
				break
			}
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("idle deadline", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		// One event only: a slow machine must not find the deadline between two.
		fake.Script("m", llmtest.Reply{llmtest.Delta("half"), llmtest.Stall()})
		p := llm.Guard(provider(t, fake.URL), llm.Deadlines{Idle: time.Second})
		r := llmtest.Collect(t.Context(), t, p, request("m"))
		if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeTimeoutIdle || r.Text != "half" {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("first byte deadline", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		// Comments are no sign of life of the model.
		fake.Script("m", llmtest.Reply{llmtest.Head(), llmtest.Comment("queued"), llmtest.Stall()})
		p := llm.Guard(provider(t, fake.URL), llm.Deadlines{FirstByte: time.Second})
		r := llmtest.Collect(t.Context(), t, p, request("m"))
		if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeTimeoutFirstByte {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("finished, but the server holds on", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		fake.Script("m", append(llmtest.Text("all"), llmtest.Stall()))
		r := llmtest.Collect(t.Context(), t, provider(t, fake.URL), request("m"))
		if r.Err != nil || r.Text != "all" {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
}

func awaitCall(t *testing.T, fake *llmtest.Server) *llmtest.Call {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	call, err := fake.Await(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	return call
}

// within waits a second, the promise of how fast a connection is closed.
func within(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Second):
		t.Error("the server did not see the connection close within a second")
	}
}

// TestGates shows that text is passed on as it comes, not at the end.
func TestGates(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	gate := make(chan struct{})
	fake.Script("m", llmtest.Reply{
		llmtest.Delta("one"), llmtest.Gate(gate), llmtest.Delta("two"), llmtest.Gate(gate), llmtest.Finish("stop"), llmtest.Done(),
	})
	var got []string
	for chunk, err := range provider(t, fake.URL).Stream(t.Context(), request("m")) {
		if err != nil {
			t.Fatal(err)
		}
		if chunk.Text != "" {
			got = append(got, chunk.Text)
			gate <- struct{}{}
		}
	}
	if diff := cmp.Diff([]string{"one", "two"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestConnectionReuse shows that finished answers leave their connection for the
// next call.
func TestConnectionReuse(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text("ok"))
	fake.Script("bad", llmtest.Status(400))
	dials := 0
	client := llm.NewHTTPClient()
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("transport is a %T", client.Transport)
	}
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return dial(ctx, network, addr)
	}
	t.Cleanup(client.CloseIdleConnections)
	p := provider(t, fake.URL, func(c *openai.Config) { c.Client = client })
	for range 20 {
		if r := llmtest.Collect(t.Context(), t, p, request("m")); r.Err != nil {
			t.Fatal(r.Err)
		}
		if r := llmtest.Collect(t.Context(), t, p, request("bad")); r.Err == nil {
			t.Fatal("no error")
		}
	}
	// On a busy machine the end of a body may come too late to be waited for.
	if dials > 10 {
		t.Errorf("%d connections for 40 calls", dials)
	}
}

// silentTransport answers by a body that then stays open without a word.
type silentTransport string

func (s silentTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	silence := silentBody{ctx: req.Context()}
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     http.Header{},
		Body:       io.NopCloser(io.MultiReader(strings.NewReader(string(s)), silence)),
	}, nil
}

type silentBody struct{ ctx context.Context } //nolint:containedctx // a body ends with its request

func (s silentBody) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// TestSilence shows what a connection that stays open means: before the finish
// reason a deadline decides, after it the answer is complete.
func TestSilence(t *testing.T) {
	t.Parallel()
	const text = `data: {"choices":[{"delta":{"content":"all"}}]}` + "\n\n"
	const finish = `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	tests := map[string]struct {
		body   string
		limits llm.Deadlines
		code   llm.Code
		took   time.Duration
	}{
		"in mid-stream":            {text, llm.Deadlines{Idle: 30 * time.Second}, llm.CodeTimeoutIdle, 30 * time.Second},
		"before the first byte":    {"", llm.Deadlines{FirstByte: 30 * time.Second}, llm.CodeTimeoutFirstByte, 30 * time.Second},
		"in the middle of a line":  {text + "data: {", llm.Deadlines{Total: 40 * time.Second}, llm.CodeTimeoutTotal, 40 * time.Second},
		"after the finish reason":  {text + finish, llm.Deadlines{Idle: 30 * time.Second}, "", 5 * time.Second},
		"and a deadline before":    {text + finish, llm.Deadlines{Idle: time.Second}, "", time.Second},
		"after the end of it all":  {text + finish + "data: [DONE]\n\n", llm.Deadlines{}, "", 50 * time.Millisecond},
		"after [DONE] and no more": {text + "data: [DONE]\n\n", llm.Deadlines{}, "", 50 * time.Millisecond},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := provider(t, "http://silent.invalid", func(c *openai.Config) {
					c.Client = &http.Client{Transport: silentTransport(tt.body)}
				})
				start := time.Now()
				r := llmtest.Collect(t.Context(), t, llm.Guard(p, tt.limits), request("m"))
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				var code llm.Code
				if e := (*llm.Error)(nil); errors.As(r.Err, &e) {
					code = e.Code
				}
				if code != tt.code || (tt.body != "" && r.Text != "all") {
					t.Errorf("text %q, code %q, want %q", r.Text, code, tt.code)
				}
			})
		})
	}
}
