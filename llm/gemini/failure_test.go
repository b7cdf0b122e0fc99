package gemini_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/gemini"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// limited is the body of a 429 as Gemini sends it.
func limited(message, details string) string {
	return `{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. ` + message +
		`","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.Help"}` + details + `]}}`
}

func retryInfo(delay string) string {
	return `,{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"` + delay + `"}`
}

func TestFaults(t *testing.T) {
	t.Parallel()
	apiError := func(code, status, message string) string {
		return `{"error":{"code":` + code + `,"message":"` + message + `","status":"` + status + `"}}`
	}
	event := func(data string) string { return "data: " + data + "\n\n" }
	raw := func(body string) llmtest.Reply { return llmtest.Reply{llmtest.Raw(body)} }
	half := text("half")
	body := llmtest.StatusBody
	const tooLong = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
	const invalidKey = `{"error":{"code":400,"message":"No.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}`
	tests := map[string]struct {
		reply     llmtest.Reply
		code      llm.Code
		retryable bool
		status    int
		after     time.Duration
		text      string // that arrived before
		detail    string // part of it
	}{
		"400":                 {reply: llmtest.Status(400), code: llm.CodeInvalidRequest, status: 400, detail: "scripted error 400"},
		"401":                 {reply: llmtest.Status(401), code: llm.CodeUnauthorized, status: 401},
		"403":                 {reply: llmtest.Status(403), code: llm.CodeUnauthorized, status: 403},
		"404":                 {reply: llmtest.Status(404), code: llm.CodeNotFound, status: 404},
		"408":                 {reply: llmtest.Status(408), code: llm.CodeUnavailable, status: 408, retryable: true},
		"409":                 {reply: llmtest.Status(409), code: llm.CodeUnavailable, status: 409, retryable: true},
		"413":                 {reply: llmtest.Status(413), code: llm.CodeInvalidRequest, status: 413},
		"429":                 {reply: llmtest.Status(429, "Retry-After", "2"), code: llm.CodeRateLimited, status: 429, retryable: true, after: 2 * time.Second},
		"429 nonsense":        {reply: llmtest.Status(429, "Retry-After", "NaN"), code: llm.CodeRateLimited, status: 429, retryable: true},
		"429 final":           {reply: llmtest.Status(429, "X-Should-Retry", "false"), code: llm.CodeRateLimited, status: 429},
		"500":                 {reply: llmtest.Status(500), code: llm.CodeUnavailable, status: 500, retryable: true},
		"502 web page":        {reply: body(502, "<html>Bad Gateway</html>"), code: llm.CodeUnavailable, status: 502, retryable: true, detail: "Bad Gateway"},
		"503":                 {reply: body(503, apiError("503", "UNAVAILABLE", "The model is overloaded.")), code: llm.CodeOverloaded, status: 503, retryable: true, detail: "overloaded"},
		"503 and when":        {reply: body(503, `{"error":{"code":503,"status":"UNAVAILABLE","details":[{"retryDelay":"1.5s"}]}}`), code: llm.CodeOverloaded, status: 503, retryable: true, after: 1500 * time.Millisecond},
		"504":                 {reply: body(504, apiError("504", "DEADLINE_EXCEEDED", "late")), code: llm.CodeUnavailable, status: 504, retryable: true},
		"529":                 {reply: llmtest.Status(529), code: llm.CodeOverloaded, status: 529, retryable: true},
		"rate a minute":       {reply: body(429, limited("", `,{"violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]}`+retryInfo("26s"))), code: llm.CodeRateLimited, status: 429, retryable: true, after: 26 * time.Second, detail: "plan and billing"},
		"rate a day":          {reply: body(429, limited("Quota exceeded, limit: 20, model: m", `,{"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}`+retryInfo("36.5s"))), code: llm.CodeRateLimited, status: 429, retryable: true, after: 36500 * time.Millisecond},
		"rate, header first":  {reply: body(429, limited("", retryInfo("26s")), "Retry-After", "3"), code: llm.CodeRateLimited, status: 429, retryable: true, after: 3 * time.Second},
		"rate, in words":      {reply: body(429, limited("Please retry in 55.576865699s.", "")), code: llm.CodeRateLimited, status: 429, retryable: true, after: 55576865699 * time.Nanosecond},
		"rate, plain":         {reply: body(429, apiError("429", "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")), code: llm.CodeRateLimited, status: 429, retryable: true},
		"rate, hostile delay": {reply: body(429, apiError("429", "RESOURCE_EXHAUSTED", "x")[:len(apiError("429", "RESOURCE_EXHAUSTED", "x"))-2]+`,"details":[7,{"retryDelay":"-1s"},{"retryDelay":"1e99s"},{"retryDelay":"NaNs"},{"retryDelay":9}]}}`), code: llm.CodeRateLimited, status: 429, retryable: true},
		"no quota":            {reply: body(429, limited("", "")), code: llm.CodeQuotaExceeded, status: 429},
		"not in the plan":     {reply: body(429, limited("Quota exceeded for metric: generate_content_free_tier_requests, limit: 0, model: gemini-pro\\nPlease retry in 55s.", retryInfo("55s"))), code: llm.CodeQuotaExceeded, status: 429, after: 55 * time.Second},
		"no credit":           {reply: body(429, apiError("429", "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.")), code: llm.CodeQuotaExceeded, status: 429},
		"too long":            {reply: body(400, apiError("400", "INVALID_ARGUMENT", tooLong)), code: llm.CodeContextTooLong, status: 400, detail: "1200000"},
		"bad key as 400":      {reply: body(400, apiError("400", "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")), code: llm.CodeUnauthorized, status: 400},
		"bad key, in detail":  {reply: body(400, invalidKey), code: llm.CodeUnauthorized, status: 400},
		"errors in an array":  {reply: body(400, "["+apiError("400", "INVALID_ARGUMENT", tooLong)+"\n]"), code: llm.CodeContextTooLong, status: 400},
		"error as text":       {reply: body(400, `{"error":"model is asleep"}`), code: llm.CodeInvalidRequest, status: 400, detail: "model is asleep"},
		"code as text":        {reply: body(400, `{"error":{"code":"bad","message":"gateway"}}`), code: llm.CodeInvalidRequest, status: 400, detail: "gateway"},
		"huge error":          {reply: body(400, strings.Repeat("x", 1<<20)), code: llm.CodeInvalidRequest, status: 400, detail: "xxx"},
		"the key is quoted":   {reply: body(403, apiError("403", "PERMISSION_DENIED", "Bad key "+key+" or AIzaSomeOtherKey12345")), code: llm.CodeUnauthorized, status: 403, detail: "Bad key *** or ***"},
		"redirect":            {reply: body(307, "", "Location", "https://other.example/v1?token=secret"), code: llm.CodeMalformedResponse, status: 307, detail: "redirect to https://other.example: check the base URL"},
		"not modified":        {reply: body(304, ""), code: llm.CodeMalformedResponse, status: 304},

		"nothing at all":           {reply: llmtest.Reply{}, code: llm.CodeTruncatedStream, retryable: true},
		"only comments":            {reply: llmtest.Reply{llmtest.Comment("x")}, code: llm.CodeTruncatedStream, retryable: true},
		"clean end in mid-stream":  {reply: raw(half), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"usage but no end marker":  {reply: raw(half + usage(`"promptTokenCount":1,"candidatesTokenCount":1`)), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"unspecified is no end":    {reply: raw(half + end("FINISH_REASON_UNSPECIFIED")), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"[DONE] is no end":         {reply: raw(half + "data: [DONE]\n\n"), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"event cut off":            {reply: raw(half + `data: {"candidates":[{"in`), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"connection cut":           {reply: append(raw(half), llmtest.Cut()), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"connection reset":         {reply: append(raw(half), llmtest.Reset()), code: llm.CodeConnectionFailed, retryable: true, text: "*"},
		"reset before the answer":  {reply: llmtest.Reply{llmtest.Reset()}, code: llm.CodeConnectionFailed, retryable: true},
		"error in mid-stream":      {reply: raw(half + event(apiError("500", "INTERNAL", "boom "+key)) + finish), code: llm.CodeUnavailable, retryable: true, status: 500, text: "half", detail: "boom ***"},
		"rate limit in mid-stream": {reply: raw(half + event(limited("", retryInfo("7s")))), code: llm.CodeRateLimited, retryable: true, status: 429, after: 7 * time.Second, text: "half"},
		"no quota in mid-stream":   {reply: raw(half + event(limited("", ""))), code: llm.CodeQuotaExceeded, status: 429, text: "half"},
		"overloaded in mid-stream": {reply: raw(half + event(apiError("503", "UNAVAILABLE", "busy"))), code: llm.CodeOverloaded, retryable: true, status: 503, text: "half"},
		"late in mid-stream":       {reply: raw(half + event(apiError("504", "DEADLINE_EXCEEDED", "late"))), code: llm.CodeUnavailable, retryable: true, status: 504, text: "half"},
		"given up in mid-stream":   {reply: raw(half + event(apiError("499", "CANCELLED", "The operation was cancelled."))), code: llm.CodeUnavailable, retryable: true, status: 499, text: "half"},
		"refused in mid-stream":    {reply: raw(event(apiError("400", "INVALID_ARGUMENT", "bad"))), code: llm.CodeInvalidRequest, status: 400},
		"denied in mid-stream":     {reply: raw(event(apiError("403", "PERMISSION_DENIED", "bad"))), code: llm.CodeUnauthorized, status: 403},
		"unknown in mid-stream":    {reply: raw(event(apiError("404", "NOT_FOUND", "bad"))), code: llm.CodeNotFound, status: 404},
		"too long in mid-stream":   {reply: raw(event(apiError("400", "INVALID_ARGUMENT", tooLong))), code: llm.CodeContextTooLong, status: 400},
		"status in mid-stream":     {reply: raw(half + event(`{"error":{"message":"upstream","code":502}}`)), code: llm.CodeUnavailable, retryable: true, status: 502, text: "half"},
		"mystery in mid-stream":    {reply: raw(half + event(`{"error":{"message":"hm"}}`)), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "hm"},
		"scripted in mid-stream":   {reply: llmtest.Reply{llmtest.Delta("half"), llmtest.StreamError("busy", llmtest.KindOverloaded)}, code: llm.CodeOverloaded, retryable: true, status: 503, text: "half", detail: "busy"},
		"array in mid-stream":      {reply: raw(half + event("["+apiError("503", "UNAVAILABLE", "busy")+"]")), code: llm.CodeOverloaded, retryable: true, status: 503, text: "half"},
		"arrays in arrays":         {reply: raw(half + event(strings.Repeat("[", 5000)+strings.Repeat("]", 5000))), code: llm.CodeMalformedResponse, text: "half"},
		"blank data":               {reply: raw(half + "data:   \n\n"), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"error event":              {reply: raw(half + "event: error\ndata: {\"message\":\"gone\"}\n\n"), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "gone"},
		"error event, plain":       {reply: raw(half + "event: error\ndata: out of memory\n\n"), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "out of memory"},
		"error as string":          {reply: raw(half + event(`{"error":"oops"}`)), code: llm.CodeUnavailable, retryable: true, text: "half", detail: "oops"},
		"error not streamed":       {reply: llmtest.JSON(apiError("503", "UNAVAILABLE", "no")), code: llm.CodeOverloaded, retryable: true, status: 503},
		"error in an array":        {reply: llmtest.JSON("[" + strings.TrimPrefix(half, "data: ") + "\n,\r\n" + apiError("503", "UNAVAILABLE", "no") + "]"), code: llm.CodeOverloaded, retryable: true, status: 503, text: "half"},
		"prompt blocked":           {reply: raw(event(`{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":9}}`)), code: llm.CodeContentFiltered, detail: "PROHIBITED_CONTENT"},
		"prompt blocked, with why": {reply: llmtest.JSON(`{"promptFeedback":{"blockReason":"OTHER","blockReasonMessage":"because"}}`), code: llm.CodeContentFiltered, detail: "OTHER because"},
		"whole answer cut off":     {reply: llmtest.JSON(`{"candidates":[{"index":0,"cont`), code: llm.CodeTruncatedStream, retryable: true},
		"whole without end":        {reply: llmtest.JSON(`{"candidates":[{"content":{"parts":[{"text":"x"}]}}]}`), code: llm.CodeTruncatedStream, retryable: true, text: "x"},
		"array cut off":            {reply: llmtest.JSON("[" + strings.TrimPrefix(half, "data: ") + `,{"cand`), code: llm.CodeTruncatedStream, retryable: true, text: "half"},
		"empty array":              {reply: llmtest.JSON("[]"), code: llm.CodeTruncatedStream, retryable: true},
		"array of nonsense":        {reply: llmtest.JSON("[7]"), code: llm.CodeMalformedResponse},
		"array without commas":     {reply: llmtest.JSON("[{} {}]"), code: llm.CodeMalformedResponse},
		"web page":                 {reply: body(200, "\n<!doctype html>"), code: llm.CodeMalformedResponse, detail: "web page"},
		"no JSON":                  {reply: raw(half + "data: what?\n\n" + finish), code: llm.CodeMalformedResponse, text: "half"},
		"wrong JSON":               {reply: raw(half + event(`{"candidates":7}`) + finish), code: llm.CodeMalformedResponse, text: "half"},
		"call without a name":      {reply: raw(half + part(`{"functionCall":{"args":{}}}`) + finish), code: llm.CodeMalformedResponse, text: "half", detail: "without a name"},
		"a thousand calls":         {reply: raw(strings.Repeat(part(`{"functionCall":{"name":"n"}}`), 1000) + finish), code: llm.CodeResponseTooLarge},
		"10 MB line":               {reply: raw(half + "data: " + strings.Repeat("x", 10<<20)), code: llm.CodeResponseTooLarge, text: "half"},
		"10 MB comment":            {reply: raw(half + ": " + strings.Repeat("x", 10<<20)), code: llm.CodeResponseTooLarge, text: "half"},
		"10 MB in lines":           {reply: raw(half + strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 10)), code: llm.CodeResponseTooLarge, text: "half"},
		"10 MB whole":              {reply: llmtest.JSON(`{"x":"` + strings.Repeat("x", 10<<20) + `"}`), code: llm.CodeResponseTooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("m", tt.reply)
			r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), request("m"))
			e := (*llm.Error)(nil)
			if !errors.As(r.Err, &e) {
				t.Fatalf("no error: %+v", r)
			}
			if e.Code != tt.code || e.Retryable != tt.retryable || e.Status != tt.status || e.RetryAfter != tt.after {
				t.Errorf("got %s, retryable %t, status %d, after %v, detail %.300q", e.Code, e.Retryable, e.Status, e.RetryAfter, e.Detail)
			}
			if tt.text != "*" && r.Text != tt.text {
				t.Errorf("text before the error: %q, want %q", r.Text, tt.text)
			}
			if !strings.Contains(e.Detail, tt.detail) || len(e.Detail) > llm.MaxDetail {
				t.Errorf("detail %.300q, want %q in it", e.Detail, tt.detail)
			}
			for err := r.Err; err != nil; err = errors.Unwrap(err) {
				if strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "secret") {
					t.Errorf("secret in %q", err)
				}
			}
			if n := fake.Count("m"); n != 1 {
				t.Errorf("%d calls, want 1: retries are not the provider's business", n)
			}
		})
	}
}

// TestUsageOfFailures shows that what a call had used is known when it fails.
func TestUsageOfFailures(t *testing.T) {
	t.Parallel()
	begun := usage(`"promptTokenCount":9`) + text("half") + usage(`"promptTokenCount":9,"candidatesTokenCount":2,"thoughtsTokenCount":1`)
	known := &llm.Usage{InputTokens: 9, OutputTokens: 3, ReasoningTokens: 1}
	tests := map[string]struct {
		body string
		want *llm.Usage
	}{
		"broken off":            {begun, known},
		"error in mid-stream":   {begun + `data: {"error":{"code":503,"status":"UNAVAILABLE"}}` + "\n\n", known},
		"prompt blocked":        {`data: {"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":9}}` + "\n\n", &llm.Usage{InputTokens: 9}},
		"nothing said":          {text("half"), nil},
		"nothing believable":    {text("half") + usage(`"promptTokenCount":-9`), nil},
		"no longer believable":  {begun + usage(`"promptTokenCount":-9`), known},
		"an answer of nonsense": {begun + "data: {\n\n", known},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := llmtest.Collect(t.Context(), t, reading(t, []byte(tt.body)), request("m"))
			e := (*llm.Error)(nil)
			if !errors.As(r.Err, &e) {
				t.Fatalf("no error: %+v", r)
			}
			if diff := cmp.Diff(tt.want, e.Usage, cmpopts.IgnoreFields(llm.Usage{}, "Raw")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if e.Usage != nil && e.Usage.Raw == nil {
				t.Error("the provider's own figures are missing")
			}
		})
	}
}

func TestByteCap(t *testing.T) {
	t.Parallel()
	fake := llmtest.NewServer(t)
	fake.Script("m", llmtest.Text(strings.Split(strings.Repeat("word ", 100), " ")...))
	p := provider(t, fake.Root, func(c *gemini.Config) { c.MaxBytes = 2000 })
	r := llmtest.Collect(t.Context(), t, p, request("m"))
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeResponseTooLarge || r.Text == "" {
		t.Errorf("%+v", r)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	r := llmtest.Collect(t.Context(), t, provider(t, "http://127.0.0.1:1"), request("m"))
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeConnectionFailed || !e.Retryable || e.Detail == "" {
		t.Errorf("error %v", r.Err)
	}
}
