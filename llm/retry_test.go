package llm_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// TestRetryTable is the table of what is tried again, by status and by code.
func TestRetryTable(t *testing.T) {
	t.Parallel()
	status := func(n int) error { return llm.StatusError(n, nil, time.Time{}) }
	code := func(c llm.Code) error { return llm.NewError(c, nil) }
	tests := []struct {
		name string
		err  error
		want bool
	}{
		{"200", status(200), false},
		{"302", status(302), false},
		{"400", status(400), false},
		{"401", status(401), false},
		{"402", status(402), false},
		{"403", status(403), false},
		{"404", status(404), false},
		{"408", status(408), true},
		{"409", status(409), true},
		{"410", status(410), false},
		{"413", status(413), false},
		{"422", status(422), false},
		{"429", status(429), true},
		{"500", status(500), true},
		{"501", status(501), true},
		{"502", status(502), true},
		{"503", status(503), true},
		{"504", status(504), true},
		{"520", status(520), true},
		{"529", status(529), true},
		{"rate limited", code(llm.CodeRateLimited), true},
		{"quota", code(llm.CodeQuotaExceeded), false},
		{"overloaded", code(llm.CodeOverloaded), true},
		{"unavailable", code(llm.CodeUnavailable), true},
		{"unauthorized", code(llm.CodeUnauthorized), false},
		{"not found", code(llm.CodeNotFound), false},
		{"invalid request", code(llm.CodeInvalidRequest), false},
		{"context too long", code(llm.CodeContextTooLong), false},
		{"content filtered", code(llm.CodeContentFiltered), false},
		{"connection", code(llm.CodeConnectionFailed), true},
		{"truncated", code(llm.CodeTruncatedStream), true},
		{"first byte", code(llm.CodeTimeoutFirstByte), true},
		{"idle", code(llm.CodeTimeoutIdle), true},
		{"total", code(llm.CodeTimeoutTotal), false},
		{"too large", code(llm.CodeResponseTooLarge), false},
		{"malformed", code(llm.CodeMalformedResponse), false},
		{"cancelled", code(llm.CodeCancelled), false},
		{"circuit open", code(llm.CodeCircuitOpen), true},
		{"unexpected tool call", code(llm.CodeUnexpectedToolCall), true},
		{"unheard of", code("surprise"), false},
		{"wrapped", fmt.Errorf("step 3: %w", status(503)), true},
		{"foreign", errors.New("boom"), false},
		{"context", context.Canceled, false},
		{"none", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, got := (llm.RetryPolicy{}).Next(1, tt.err); got != tt.want {
				t.Errorf("retry %t, want %t, of %v", got, tt.want, tt.err)
			}
			if e := (*llm.Error)(nil); errors.As(tt.err, &e) && e.Message == "" {
				t.Error("no message for users")
			}
		})
	}
}

func TestShouldRetryHeader(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": true, "true": true, "false": false, " FALSE ": false, "maybe": true} {
		if got := llm.StatusError(503, http.Header{"X-Should-Retry": {value}}, time.Time{}).Retryable; got != want {
			t.Errorf("503 with x-should-retry %q: %t", value, got)
		}
		if llm.StatusError(401, http.Header{"X-Should-Retry": {value}}, time.Time{}).Retryable {
			t.Errorf("401 with x-should-retry %q is retryable", value)
		}
	}
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	asked := func(d time.Duration) error {
		e := llm.NewError(llm.CodeRateLimited, nil)
		e.RetryAfter = d
		return e
	}
	policy := func(attempts int, random float64) llm.RetryPolicy {
		return llm.RetryPolicy{Attempts: attempts, Rand: func() float64 { return random }}
	}
	tests := map[string]struct {
		policy  llm.RetryPolicy
		attempt int
		err     error
		delay   time.Duration
		retry   bool
	}{
		"lower end":             {policy(3, 0), 1, asked(0), 0, true},
		"middle, first":         {policy(3, 0.5), 1, asked(0), 250 * time.Millisecond, true},
		"middle, second":        {policy(3, 0.5), 2, asked(0), 500 * time.Millisecond, true},
		"middle, fourth":        {policy(9, 0.5), 4, asked(0), 2 * time.Second, true},
		"ceiling":               {policy(99, 0.5), 50, asked(0), 10 * time.Second, true},
		"no overflow":           {llm.RetryPolicy{Attempts: 2000, Max: 1 << 62, Rand: func() float64 { return 0.5 }}, 1500, asked(0), 1 << 61, true},
		"last attempt":          {policy(3, 0.5), 3, asked(0), 0, false},
		"one attempt":           {policy(1, 0.5), 1, asked(0), 0, false},
		"provider's time":       {policy(3, 0.5), 1, asked(2 * time.Second), 2250 * time.Millisecond, true},
		"never before its time": {policy(3, 0), 1, asked(2 * time.Second), 2 * time.Second, true},
		"a minute":              {policy(3, 0), 1, asked(time.Minute), time.Minute, true},
		"more than a minute":    {policy(3, 0), 1, asked(61 * time.Second), 61 * time.Second, false},
		"spread":                {policy(3, 0.5), 1, asked(100 * time.Second), 105 * time.Second, false},
		"spread, at most":       {policy(3, 0.5), 1, asked(24 * time.Hour), 24*time.Hour + 30*time.Second, false},
		"a month":               {policy(3, 0.5), 1, asked(31 * 24 * time.Hour), 31 * 24 * time.Hour, false},
		"nonsense":              {policy(3, 0.5), 1, asked(32 * 24 * time.Hour), 250 * time.Millisecond, true},
		"long, but the last":    {policy(3, 0.5), 3, asked(2 * time.Minute), 0, false},
		"own limit":             {llm.RetryPolicy{MaxRetryAfter: time.Second, Rand: func() float64 { return 0 }}, 1, asked(2 * time.Second), 2 * time.Second, false},
		"base above the max":    {llm.RetryPolicy{Base: time.Minute, Max: time.Second, Rand: func() float64 { return 0.5 }}, 1, asked(0), 500 * time.Millisecond, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			delay, retry := tt.policy.Next(tt.attempt, tt.err)
			if delay != tt.delay || retry != tt.retry {
				t.Errorf("got %v, %t; want %v, %t", delay, retry, tt.delay, tt.retry)
			}
		})
	}
}

func TestDefaultJitter(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for range 100 {
		delay, retry := llm.RetryPolicy{}.Next(2, llm.NewError(llm.CodeUnavailable, nil))
		if !retry || delay < 0 || delay >= time.Second {
			t.Fatalf("delay %v, retry %t", delay, retry)
		}
		seen[delay] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different delays of 100", len(seen))
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	tests := []struct {
		seconds, milliseconds string
		want                  time.Duration
	}{
		{"", "", 0},
		{"2", "", 2 * time.Second},
		{" 2 ", "", 2 * time.Second},
		{"0.25", "", 250 * time.Millisecond},
		{"120", "", 2 * time.Minute},
		{"0", "", 0},
		{"-1", "", 0},
		{"NaN", "", 0},
		{"Inf", "", 0},
		{"-Inf", "", 0},
		{"1e99", "", 0},
		{"99999999999999999999", "", 0},
		{"2678400", "", 31 * 24 * time.Hour},
		{"2678401", "", 0},
		{"soon", "", 0},
		{"Sun, 22 Nov 2026 04:00:30 GMT", "", 30 * time.Second},
		{"Sun, 22 Nov 2026 03:59:30 GMT", "", 0},
		{"Mon, 22 Nov 2027 04:00:00 GMT", "", 0},
		{"9", "1500", 1500 * time.Millisecond},
		{"9", "-5", 9 * time.Second},
		{"9", "NaN", 9 * time.Second},
		{"", "1e99", 0},
		{"", "0", 0},
	}
	for _, tt := range tests {
		header := http.Header{}
		header.Set("Retry-After", tt.seconds)
		header.Set("Retry-After-Ms", tt.milliseconds)
		if got := llm.RetryAfter(header, now); got != tt.want {
			t.Errorf("Retry-After %q, retry-after-ms %q: %v, want %v", tt.seconds, tt.milliseconds, got, tt.want)
		}
	}
	if got := llm.RetryAfter(nil, now); got != 0 {
		t.Errorf("no header: %v", got)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"2", "-1", "NaN", "1e99", "0x1p-2", "Sun, 22 Nov 2026 04:00:30 GMT", "Sunday, 22-Nov-26 04:00:30 GMT"} {
		f.Add(s, "")
		f.Add("", s)
	}
	now := time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, seconds, milliseconds string) {
		header := http.Header{"Retry-After": {seconds}, "Retry-After-Ms": {milliseconds}}
		if d := llm.RetryAfter(header, now); d < 0 || d > 31*24*time.Hour {
			t.Errorf("%q, %q: %v", seconds, milliseconds, d)
		}
	})
}
