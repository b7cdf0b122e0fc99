package main_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	main "github.com/chainstream/chainstream/cmd/chainstream"
	"github.com/chainstream/chainstream/internal/sseclient"
)

// story is an execution with two prompts side by side, the second of which is
// tried twice, and text that would steer a terminal.
var story = []sseclient.Event{
	{ID: 1, Type: "execution-start", Data: []byte(`{"executionId": 41, "toolName": "brief", "chainVersion": 2, "totalPrompts": 3}`)},
	{ID: 2, Type: "prompt-start", Data: []byte(`{"promptId": 1, "promptName": "Left", "position": 1, "modelId": "offline/echo", "attempt": 1}`)},
	{ID: 3, Type: "prompt-start", Data: []byte(`{"promptId": 2, "promptName": "Right", "position": 1, "modelId": "offline/echo", "attempt": 1}`)},
	{ID: 4, Type: "prompt-delta", Data: []byte(`{"promptId": 2, "text": "right one\nright "}`)},
	{ID: 5, Type: "prompt-delta", Data: []byte(`{"promptId": 1, "text": "left one\nle"}`)},
	{ID: 6, Type: "prompt-retry", Data: []byte(`{"promptId": 2, "attempt": 2, "delay": 1500, "reason": "the provider is overloaded"}`)},
	{ID: 7, Type: "prompt-start", Data: []byte(`{"promptId": 2, "promptName": "Right", "position": 1, "modelId": "offline/echo", "attempt": 2}`)},
	{ID: 8, Type: "prompt-delta", Data: []byte(`{"promptId": 1, "text": "ft \u001b[2Jtwo"}`)},
	{ID: 9, Type: "prompt-delta", Data: []byte(`{"promptId": 2, "text": "second try"}`)},
	{ID: 10, Type: "prompt-complete", Data: []byte(`{"promptId": 2, "duration": 2100, "outputTokens": 1, "output": "second try"}`)},
	{ID: 11, Type: "progress", Data: []byte(`{"currentStep": 1, "totalSteps": 3, "percentage": 33.3}`)},
	{ID: 12, Type: "prompt-complete", Data: []byte(`{"promptId": 1, "duration": 900, "outputTokens": 5, "output": "…", "costUsd": "0.0012"}`)},
	{ID: 13, Type: "prompt-start", Data: []byte(`{"promptId": 3, "promptName": "Last", "position": 2, "modelId": "offline/echo", "attempt": 1}`)},
	{ID: 14, Type: "prompt-error", Data: []byte(`{"promptId": 3, "error": "The provider refused.", "code": "auth"}`)},
	{ID: 15, Type: "something-newer", Data: []byte(`{"promptId": "text"}`)},
	{ID: 16, Type: "execution-error", Data: []byte(`{"error": "The provider refused.", "code": "auth"}`)},
}

func TestTranscript(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		live bool
		want string
	}{
		{"in a file", false, `execution 41: brief, version 2, 3 prompts
> Left: position 1, offline/echo
> Right: position 1, offline/echo
Right | right one
Left | left one
Right | right 
! Right: attempt 2 in 1.5s, the text above is void: the provider is overloaded
> Right: position 1, offline/echo, attempt 2
Right | second try
= Right: done in 2.1s, 1 token
- 1 of 3, 33 %
Left | left [2Jtwo
= Left: done in 900 ms, 5 tokens, $0.0012
> Last: position 2, offline/echo
x Last: The provider refused. (auth)
failed: The provider refused. (auth)
`},
		{"on a terminal", true, `execution 41: brief, version 2, 3 prompts
> Left: position 1, offline/echo
  left one
  left [2Jtwo
= Left: done in 900 ms, 5 tokens, $0.0012
> Right: position 1, offline/echo, attempt 2
  second try
= Right: done in 2.1s, 1 token
> Last: position 2, offline/echo
x Last: The provider refused. (auth)
failed: The provider refused. (auth)
`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			if err := main.Transcript(&b, test.live, story); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, b.String()); diff != "" {
				t.Error(diff)
			}
			// Begun in the middle, it says what it can and breaks nowhere.
			for i := range story {
				b.Reset()
				if err := main.Transcript(&b, test.live, story[i:]); err != nil {
					t.Fatal(err)
				}
				if !strings.HasSuffix(b.String(), "failed: The provider refused. (auth)\n") {
					t.Errorf("from event %d on:\n%s", story[i].ID, b.String())
				}
			}
		})
	}
	if err := main.Transcript(closedOutput{}, false, story); !errors.Is(err, errClosed) {
		t.Errorf("a closed output: %v", err)
	}
}

var errClosed = errors.New("closed")

// closedOutput is a pipe whose reader has left.
type closedOutput struct{}

func (closedOutput) Write([]byte) (int, error) { return 0, errClosed }

// A long wait is shown with its end, on every kind of output.
func TestTranscriptOfALongWait(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{true, false} {
		var out strings.Builder
		err := main.Transcript(&out, live, []sseclient.Event{
			{ID: 1, Type: "prompt-start", Data: []byte(`{"promptId": 1, "promptName": "Left", "position": 1, "modelId": "offline/echo", "attempt": 1}`)},
			{ID: 2, Type: "prompt-retry", Data: []byte(`{"promptId": 1, "attempt": 2, "delay": 3600000, "timestamp": "2026-11-25T12:00:00.000Z", "reason": "busy"}`)},
		})
		if err != nil {
			t.Fatal(err)
		}
		until := time.Date(2026, 11, 25, 13, 0, 0, 0, time.UTC).Local().Format(time.DateTime)
		if want := "! Left: waiting until " + until + " for attempt 2, its text so far is void: busy\n"; !strings.HasSuffix(out.String(), want) {
			t.Errorf("live %t: %q, want %q", live, out.String(), want)
		}
	}
}
