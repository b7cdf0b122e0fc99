package anthropic_test

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/anthropic"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// TestHangUpAtStopText shows that nothing more is paid for than what is wanted: the
// format knows no stop texts of white space, so the call is given up.
func TestHangUpAtStopText(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Reply{llmtest.Role(), llmtest.Delta("one\n\ntwo"), llmtest.Stall()})
	req := request("m")
	req.Stop = []string{"\n\n"}
	if r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), req); r.Err != nil || r.Text != "one" || r.FinishReason != llm.FinishStop {
		t.Errorf("%+v", r)
	}
	<-fake.Calls()[0].Gone
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
					c.Client = &http.Client{Transport: llmtest.Silence(tt.body)}
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
