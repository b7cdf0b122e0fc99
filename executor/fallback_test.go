package executor_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// Another model may do what one could not, whatever the reason was. The text of
// the first, if there is any, is void.
func TestFallbackAfterEveryFailure(t *testing.T) {
	t.Parallel()
	for _, code := range []llm.Code{
		llm.CodeRateLimited, llm.CodeQuotaExceeded, llm.CodeOverloaded, llm.CodeUnavailable, llm.CodeUnauthorized, llm.CodeNotFound,
		llm.CodeInvalidRequest, llm.CodeContextTooLong, llm.CodeContentFiltered, llm.CodeConnectionFailed, llm.CodeTruncatedStream,
		llm.CodeTimeoutFirstByte, llm.CodeTimeoutIdle, llm.CodeTimeoutTotal, llm.CodeResponseTooLarge, llm.CodeMalformedResponse,
		llm.CodeUnexpectedToolCall,
	} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			s := script(answers{"silent": fail("", code), "talking": fail("half an ans", code), "spare": say("right")})
			h := newHarness(t, s.entry(), executor.Config{Retry: quick})
			v := h.chain(`
name: fallback
prompts:
  - {name: Silent, position: 1, model: test/silent, fallback: [test/spare], retry: {attempts: 1}, content: x}
  - {name: Talking, position: 2, model: test/talking, fallback: [test/spare], retry: {attempts: 1}, content: x}
`)
			ex := h.trigger(v, nil)
			log := h.follow(ex.ID)
			if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
				t.Fatalf("%s: %s", got.ErrorCode, got.Error)
			}
			retries, failed := find(log, events.TypePromptRetry), find(log, events.TypeLLMError)
			if len(retries) != 2 || len(failed) != 2 {
				t.Fatalf("%d retries, %d errors", len(retries), len(failed))
			}
			for i, r := range retries {
				want := fmt.Sprint(failed[i].Data["error"], " Falling back to test/spare.")
				if r.Data["reason"] != want || r.Data["modelId"] != "test/spare" || r.Data["try"] != 1.0 || failed[i].Data["code"] != string(code) {
					t.Errorf("%v after %v", r.Data, failed[i].Data)
				}
				started := find(log, events.TypePromptStart)[2*i]
				if r.Data["supersedesFromSeq"] != float64(started.Seq) {
					t.Errorf("text is void from %v on, the attempt began at %d", r.Data["supersedesFromSeq"], started.Seq)
				}
			}
			if got := text(t, log, v.PromptIDs[1], 1) + "|" + text(t, log, v.PromptIDs[1], 2); got != "half an ans|right" {
				t.Errorf("texts %q", got)
			}
			if got := h.states(ex.ID)["Talking"]; got.Output != "right" || got.ModelID != "test/spare" {
				t.Errorf("%q of %s", got.Output, got.ModelID)
			}
		})
	}
}

// What ends the execution or the prompt ends it for all models.
func TestNoFallbackAfterTheEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ code, prompt, chain string }{
		{"cancelled", "", ""},
		{"prompt_timeout", ", timeout: 200ms", ""},
		{"timeout", "", "limits: {timeout: 200ms}"},
	} {
		t.Run(tt.code, func(t *testing.T) {
			t.Parallel()
			reached := make(chan struct{}, 1)
			s := script(answers{"hang": hang("partial", reached), "spare": say("never")})
			h := newHarness(t, s.entry(), executor.Config{Retry: quick})
			ex := h.trigger(h.chain("name: ends\n"+tt.chain+"\nprompts:\n  - {name: P, model: test/hang, fallback: [test/spare], content: x"+tt.prompt+"}\n"), nil)
			<-reached
			if tt.code == "cancelled" {
				if _, err := h.exec.Cancel(t.Context(), ex.ID); err != nil {
					t.Fatal(err)
				}
			}
			log := h.follow(ex.ID)
			if got := h.checkLog(ex.ID, log); got.ErrorCode != tt.code || s.count("spare") != 0 || len(find(log, events.TypePromptRetry)) != 0 {
				t.Errorf("%s after %d calls of the fallback", got.ErrorCode, s.count("spare"))
			}
		})
	}
}

// The provider's own words are for operators, behind the safe sentence.
func TestDetailsOfFailures(t *testing.T) {
	t.Parallel()
	s := script(answers{"bad": func(context.Context, int, llm.Request, func(string) bool) error {
		e := llm.NewError(llm.CodeInvalidRequest, nil)
		e.Status, e.Detail = 400, "temperature: must be at most 1"
		return e
	}})
	h := newHarness(t, s.entry(), executor.Config{})
	ex := h.trigger(h.chain("name: details\nprompts: [{name: P, model: test/bad, content: x}]\n"), nil)
	log := h.follow(ex.ID)
	h.checkLog(ex.ID, log)
	compiled := compileSchemas(t)
	for _, e := range find(log, events.TypeLLMError, events.TypeExecutionError) {
		if e.Data["details"] != "temperature: must be at most 1" || strings.Contains(fmt.Sprint(e.Data["error"]), "temperature") || e.Data["code"] != "invalid_request" {
			t.Errorf("%s: %v", e.Type, e.Data)
		}
		if err := compiled[e.Type].Validate(e.Data); err != nil {
			t.Errorf("%s: %v", e.Type, err)
		}
	}
	if e := find(log, events.TypePromptError)[0]; e.Data["code"] != "invalid_request" || e.Data["error"] == "" {
		t.Errorf("%v", e.Data)
	}
}

// A cancel ends an execution at every moment at once: the connection is closed,
// and the last event is the last.
func TestCancelAtEveryMoment(t *testing.T) {
	t.Parallel()
	long := func(code llm.Code) error {
		e := llm.NewError(code, nil)
		e.RetryAfter = 50 * time.Second
		return e
	}
	const limitedPrompt = "content: x"
	type moment struct {
		prompt string // the rest of the prompt
		policy llm.RetryPolicy
		answer func(reached chan<- struct{}) func(context.Context, int, llm.Request, func(string) bool) error
		ready  func(h *harness, id int64)
		calls  int
	}
	// stream says n pieces and is stuck then.
	stream := func(n int) moment {
		return moment{prompt: limitedPrompt, calls: 1, answer: func(reached chan<- struct{}) func(context.Context, int, llm.Request, func(string) bool) error {
			return func(ctx context.Context, _ int, _ llm.Request, say func(string) bool) error {
				for range n {
					say("piece ")
				}
				close(reached)
				<-ctx.Done()
				return nil
			}
		}}
	}
	announced := func(h *harness, id int64) { h.await(id, events.TypePromptRetry) }
	failing := func(err error) func(chan<- struct{}) func(context.Context, int, llm.Request, func(string) bool) error {
		return func(reached chan<- struct{}) func(context.Context, int, llm.Request, func(string) bool) error {
			return func(context.Context, int, llm.Request, func(string) bool) error {
				close(reached)
				return err
			}
		}
	}
	moments := map[string]moment{
		"before the first byte": stream(0),
		"after a piece":         stream(1),
		"after many pieces":     stream(200),
		"in a pause":            {prompt: limitedPrompt, calls: 1, answer: failing(long(llm.CodeOverloaded)), ready: announced},
		"in a long wait":        {prompt: limitedPrompt, calls: 1, policy: impatient, answer: failing(long(llm.CodeRateLimited)), ready: func(h *harness, id int64) { h.waits(id) }},
		"while calls are stopped": {prompt: limitedPrompt, calls: 1, answer: failing(llm.NewError(llm.CodeUnavailable, nil)), ready: func(h *harness, id int64) {
			h.until(id, func(executor.Execution) bool { return len(find(h.stored(id), events.TypePromptRetry)) == 2 })
		}},
		"in the corrective round": {prompt: "content: x, output: " + titled, calls: 2, answer: func(reached chan<- struct{}) func(context.Context, int, llm.Request, func(string) bool) error {
			return func(ctx context.Context, call int, _ llm.Request, say func(string) bool) error {
				say("no JSON")
				if call == 2 {
					close(reached)
					<-ctx.Done()
				}
				return nil
			}
		}},
	}
	for name, m := range moments {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reached := make(chan struct{})
			closed := make(chan struct{}, 2)
			play := m.answer(reached)
			s := script(answers{"m": func(ctx context.Context, call int, req llm.Request, say func(string) bool) error {
				defer func() { closed <- struct{}{} }()
				return play(ctx, call, req, say)
			}})
			policy := quick
			if m.policy.Rand != nil {
				policy = m.policy
			}
			h := newHarness(t, s.entry(), executor.Config{Retry: policy, Breaker: llm.BreakerPolicy{Consecutive: 1, Pause: 50 * time.Second}})
			ex := h.trigger(h.chain("name: stop\nprompts:\n  - {name: P, model: test/m, "+m.prompt+"}\n"), nil)
			<-reached
			if m.ready != nil {
				m.ready(h, ex.ID)
			}
			asked := time.Now()
			if _, err := h.exec.Cancel(t.Context(), ex.ID); err != nil {
				t.Fatal(err)
			}
			log := h.follow(ex.ID)
			took := time.Since(asked)
			if took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
			t.Logf("ended after %v", took.Round(time.Millisecond))
			if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCancelled {
				t.Errorf("%s, %s", got.Status, got.ErrorCode)
			}
			for range m.calls {
				<-closed
			}
			if s.count("m") != m.calls {
				t.Errorf("%d calls, want %d", s.count("m"), m.calls)
			}
			if opened, ended := len(find(log, events.TypeLLMRequest)), len(find(log, events.TypeLLMResponse, events.TypeLLMError)); opened != ended || opened != m.calls {
				t.Errorf("%d calls, %d ends", opened, ended)
			}
		})
	}
}
