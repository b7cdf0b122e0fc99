package llm_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/chainstream/chainstream/llm"
)

func TestContextError(t *testing.T) {
	t.Parallel()
	if err := llm.ContextError(t.Context()); err != nil {
		t.Errorf("live context: %v", err)
	}
	plain, cancel := context.WithCancel(t.Context())
	cancel()
	reason := errors.New("budget spent")
	caused, cancelCause := context.WithCancelCause(t.Context())
	cancelCause(reason)
	late, cancelLate := context.WithDeadlineCause(t.Context(), time.Unix(0, 0), reason)
	defer cancelLate()

	tests := map[string]struct {
		ctx     context.Context //nolint:containedctx // the input of the case
		code    llm.Code
		matches []error
	}{
		"cancelled":            {plain, llm.CodeCancelled, []error{context.Canceled}},
		"cancelled for reason": {caused, llm.CodeCancelled, []error{context.Canceled, reason}},
		"deadline":             {late, llm.CodeTimeoutTotal, []error{context.DeadlineExceeded, reason}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := llm.ContextError(tt.ctx)
			if err == nil || err.Code != tt.code || err.Retryable {
				t.Fatalf("error %v, want %s", err, tt.code)
			}
			for _, target := range tt.matches {
				if !errors.Is(err, target) {
					t.Errorf("%v does not match %v", err, target)
				}
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	err := llm.StatusError(429, nil, time.Time{})
	err.Detail = "slow down"
	const want = "model call: rate_limited (status 429): The model provider limits the rate of requests. slow down"
	if got := err.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text    string
		secrets []string
		want    string
	}{
		"nothing":         {"model not found", nil, "model not found"},
		"given":           {"bad key hunter2hunter2!", []string{"hunter2hunter2", ""}, "bad key ***!"},
		"too short":       {"a and b", []string{"a"}, "a and b"},
		"OpenAI key":      {"Incorrect API key provided: sk-proj-abc_DEF-123456.", nil, "Incorrect API key provided: ***"},
		"masked key":      {"key sk-ab***************yz is wrong", nil, "key *** is wrong"},
		"bearer":          {"got Authorization: Bearer abc.def-123", nil, "got Authorization: ***"},
		"Google key":      {"AIzaSyA1234567890abcdef refused", nil, "*** refused"},
		"JWT":             {"token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOjF9.c2lnbmF0dXJl expired", nil, "token *** expired"},
		"words stay":      {"key-management in a risk-free task-force of sk-learn", nil, "key-management in a risk-free task-force of sk-learn"},
		"control":         {"a\r\nb\x00c\x1b[31m", nil, "a  b c [31m"},
		"broken UTF-8":    {"a\xffb", nil, "a\uFFFDb"},
		"white space":     {" \n ", nil, ""},
		"secret cut deep": {strings.Repeat("x", 1995) + "hunter2hunter2", []string{"hunter2hunter2"}, strings.Repeat("x", 1995) + "***"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := llm.Redact(tt.text, tt.secrets...); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	for _, long := range []string{strings.Repeat("界", 5000), strings.Repeat("x", 100_000)} {
		got := llm.Redact(long)
		if len(got) > llm.MaxDetail || len(got) < llm.MaxDetail-8 || !utf8.ValidString(got) {
			t.Errorf("cut to %d bytes: …%q", len(got), got[len(got)-10:])
		}
	}
}
