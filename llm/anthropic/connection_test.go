package anthropic_test

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
	"github.com/chainstream/chainstream/llm/anthropic"
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
		"before the end marker": {llmtest.Role(), llmtest.Delta("half"), llmtest.Finish("stop"), llmtest.Stall()},
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
	t.Run("at a stop text of white space", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		fake.Script("m", llmtest.Reply{llmtest.Role(), llmtest.Delta("one\n\ntwo"), llmtest.Stall()})
		req := request("m")
		req.Stop = []string{"\n\n"}
		if r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), req); r.Err != nil || r.Text != "one" || r.FinishReason != llm.FinishStop {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
	t.Run("first byte deadline", func(t *testing.T) {
		t.Parallel()
		fake := llmtest.NewServer(t)
		// Comments are no sign of life of the model.
		fake.Script("m", llmtest.Reply{llmtest.Head(), llmtest.Comment("queued"), llmtest.Stall()})
		p := llm.Guard(provider(t, fake.Root), llm.Deadlines{FirstByte: 20 * time.Millisecond})
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
		r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), request("m"))
		if r.Err != nil || r.Text != "all" {
			t.Errorf("%+v", r)
		}
		within(t, awaitCall(t, fake).Gone)
	})
}

func awaitCall(t *testing.T, fake *llmtest.Server) *llmtest.Call {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	call, err := fake.Await(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	return call
}

// within waits for the connection to be closed, with a patience that only a
// broken provider exceeds.
func within(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
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
	p := provider(t, fake.Root, func(c *anthropic.Config) { c.Client = client })
	for range 20 {
		if r := llmtest.Collect(t.Context(), t, p, request("m")); r.Err != nil {
			t.Fatal(r.Err)
		}
		if r := llmtest.Collect(t.Context(), t, p, request("bad")); r.Err == nil {
			t.Fatal("no error")
		}
	}
	// On a busy machine the end of a body may come too late to be waited for.
	if dials > 20 {
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

// TestSilence shows what a connection that stays open means: before the end
// marker a deadline decides, after it the answer is complete.
func TestSilence(t *testing.T) {
	t.Parallel()
	words := start + text(`"all"`)
	reason := data(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}`)
	tests := map[string]struct {
		body   string
		limits llm.Deadlines
		code   llm.Code
		took   time.Duration
	}{
		"in mid-stream":           {words, llm.Deadlines{Idle: 30 * time.Second}, llm.CodeTimeoutIdle, 30 * time.Second},
		"before the first byte":   {"", llm.Deadlines{FirstByte: 30 * time.Second}, llm.CodeTimeoutFirstByte, 30 * time.Second},
		"in the middle of a line": {words + "data: {", llm.Deadlines{Total: 40 * time.Second}, llm.CodeTimeoutTotal, 40 * time.Second},
		"after the stop reason":   {words + reason, llm.Deadlines{Idle: 30 * time.Second}, llm.CodeTimeoutIdle, 30 * time.Second},
		"after the end marker":    {words + reason + stop, llm.Deadlines{}, "", 50 * time.Millisecond},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := provider(t, "http://silent.invalid", func(c *anthropic.Config) {
					c.Client = &http.Client{Transport: silentTransport(tt.body)}
				})
				began := time.Now()
				r := llmtest.Collect(t.Context(), t, llm.Guard(p, tt.limits), request("m"))
				if took := time.Since(began); took != tt.took {
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
