package gemini_test

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
	"github.com/chainstream/chainstream/llm/gemini"
	"github.com/chainstream/chainstream/llm/llmtest"
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
				ended <- llmtest.Collect(ctx, t, provider(t, fake.Root), request("m"))
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
		for chunk, err := range provider(t, fake.Root).Stream(t.Context(), request("m")) {
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
		p := llm.Guard(provider(t, fake.Root), llm.Deadlines{Idle: 20 * time.Millisecond})
		r := llmtest.Collect(t.Context(), t, p, request("m"))
		if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeTimeoutIdle || r.Text != "half" {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("first byte deadline", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		// Comments are no sign of life of the model. A second, because a slow machine
		// must not find the deadline before the call arrives.
		fake.Script("m", llmtest.Reply{llmtest.Head(), llmtest.Comment("queued"), llmtest.Stall()})
		p := llm.Guard(provider(t, fake.Root), llm.Deadlines{FirstByte: time.Second})
		r := llmtest.Collect(t.Context(), t, p, request("m"))
		if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeTimeoutFirstByte {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("finished, but the server holds on", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		fake.Script("m", append(llmtest.Text("all"), llmtest.Data("[DONE]"), llmtest.Stall()))
		r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), request("m"))
		if r.Err != nil || r.Text != "all" {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("and what it had used is known", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		fake.Script("m", llmtest.Reply{llmtest.Delta("half"), llmtest.Stall(), llmtest.Finish(llm.FinishStop), llmtest.Usage(9, 4)})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for chunk, err := range provider(t, fake.Root).Stream(ctx, request("m")) {
			if last = err; chunk.Text == "half" {
				cancel()
			}
		}
		if e := (*llm.Error)(nil); !errors.As(last, &e) || e.Code != llm.CodeCancelled || e.Usage == nil || e.Usage.InputTokens != 9 {
			t.Errorf("ended with %+v", last)
		}
	})
}

func awaitCall(t *testing.T, fake *llmtest.Server) *llmtest.Call {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	call, err := fake.Await(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	return call
}

// patience is more than a machine can be too busy for. A call that is not hung up
// on stays open for ever.
const patience = time.Minute

// within waits for the server to see the connection close.
func within(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("the server did not see the connection close")
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
	for chunk, err := range provider(t, fake.Root).Stream(t.Context(), request("m")) {
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
	p := provider(t, fake.Root, func(c *gemini.Config) { c.Client = client })
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

// silence is a body that stays open without a word.
type silentBody struct{ ctx context.Context } //nolint:containedctx // a body ends with its request

func (s silentBody) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// TestSilence shows what a connection that stays open means: before the finish
// reason a deadline decides, after it the answer is complete. The end of the body
// is waited for, because it alone says that nothing more comes.
func TestSilence(t *testing.T) {
	t.Parallel()
	text := text("all")
	tests := map[string]struct {
		body   string
		limits llm.Deadlines
		code   llm.Code
		took   time.Duration
	}{
		"in mid-stream":           {text, llm.Deadlines{Idle: 30 * time.Second}, llm.CodeTimeoutIdle, 30 * time.Second},
		"before the first byte":   {"", llm.Deadlines{FirstByte: 30 * time.Second}, llm.CodeTimeoutFirstByte, 30 * time.Second},
		"in the middle of a line": {text + "data: {", llm.Deadlines{Total: 40 * time.Second}, llm.CodeTimeoutTotal, 40 * time.Second},
		"after the finish reason": {text + finish, llm.Deadlines{Idle: 30 * time.Second}, "", 5 * time.Second},
		"and a deadline before":   {text + finish, llm.Deadlines{Idle: time.Second}, "", time.Second},
		"after [DONE]":            {text + finish + "data: [DONE]\n\n", llm.Deadlines{}, "", 50 * time.Millisecond},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := provider(t, "http://silent.invalid", func(c *gemini.Config) {
					c.Client = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
						resp := answered(nil)
						resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(tt.body), silentBody{ctx: r.Context()}))
						return resp, nil
					})}
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
