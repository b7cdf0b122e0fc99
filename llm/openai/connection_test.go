package openai_test

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

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
					c.Client = &http.Client{Transport: llmtest.Silence(tt.body)}
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
