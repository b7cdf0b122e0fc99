package executor_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// unbroken lets every call be made.
var unbroken = llm.BreakerPolicy{Consecutive: -1}

// down refuses as a server does that is not there.
func down() error {
	e := llm.NewError(llm.CodeOverloaded, nil)
	e.Status = 503
	return e
}

// crowd runs executions of a chain, all at once, and answers how they ended.
func (h *harness) crowd(v *chain.Version, n int) map[executor.Status]int {
	h.t.Helper()
	ids := make([]int64, n)
	for i := range ids {
		ids[i] = h.trigger(v, nil).ID
	}
	ended := make(map[executor.Status]int)
	for _, id := range ids {
		h.follow(id)
		ended[h.until(id, func(ex executor.Execution) bool { return ex.Status.Final() }).Status]++
	}
	return ended
}

// A provider that is down is not asked three times by everybody.
func TestRetryStorm(t *testing.T) {
	t.Parallel()
	const executions = 1000
	s := script(answers{"down": func(context.Context, int, llm.Request, func(string) bool) error { return down() }})
	h := newHarness(t, s.entry(), executor.Config{Retry: quick, Breaker: unbroken})
	begin := time.Now()
	ended := h.crowd(h.chain("name: storm\nprompts: [{name: P, model: test/down, content: x}]\n"), executions)
	if diff := cmp.Diff(map[executor.Status]int{executor.StatusFailed: executions}, ended); diff != "" {
		t.Error(diff)
	}
	most := executions*11/10 + 10 + int(time.Since(begin)/(10*time.Second)) + 1
	if n := s.count("down"); n < executions || n > most {
		t.Errorf("%d calls, at most %d were expected", n, most)
	}
	t.Logf("%d calls for %d executions", s.count("down"), executions)
	// The last of them says why it was not tried again.
	last := h.trigger(h.chain("name: last\nprompts: [{name: P, model: test/down, content: x}]\n"), nil)
	log := h.follow(last.ID)
	if got := h.checkLog(last.ID, log); got.ErrorCode != "overloaded" || !strings.Contains(got.Error, "Retries of this model are suspended") {
		t.Errorf("%s: %s", got.ErrorCode, got.Error)
	}
}

// What fails now and then is not affected by the budget.
func TestOccasionalFailuresAreRetried(t *testing.T) {
	t.Parallel()
	const executions = 400
	s := script(answers{"flaky": func(_ context.Context, call int, _ llm.Request, say func(string) bool) error {
		if call%20 == 10 {
			return down()
		}
		say("fine")
		return nil
	}})
	h := newHarness(t, s.entry(), executor.Config{Retry: quick})
	ended := h.crowd(h.chain("name: flaky\nprompts: [{name: P, model: test/flaky, content: x}]\n"), executions)
	if diff := cmp.Diff(map[executor.Status]int{executor.StatusCompleted: executions}, ended); diff != "" {
		t.Error(diff)
	}
	if n := s.count("flaky"); n < executions*105/100 {
		t.Errorf("%d calls", n)
	}
}

// A provider that names a time regulates its load by itself: that is no storm,
// and costs no retries.
func TestRateLimitsCostNoBudget(t *testing.T) {
	t.Parallel()
	const executions = 100
	var mu sync.Mutex
	seen := make(map[string]bool)
	s := script(answers{"busy": func(_ context.Context, _ int, req llm.Request, say func(string) bool) error {
		mu.Lock()
		defer mu.Unlock()
		if asked := req.Messages[0].Text; !seen[asked] { // everybody is sent away once
			seen[asked] = true
			e := llm.NewError(llm.CodeRateLimited, nil)
			e.RetryAfter = time.Millisecond
			return e
		}
		say("fine")
		return nil
	}})
	h := newHarness(t, s.entry(), executor.Config{Retry: quick})
	v := h.chain("name: busy\ninputs: {topic: {type: short_text}}\nprompts: [{name: P, model: test/busy, content: \"${topic}\"}]\n")
	ids := make([]int64, executions)
	for i := range ids {
		ids[i] = h.trigger(v, map[string]string{"topic": fmt.Sprint(i)}).ID
	}
	for _, id := range ids {
		if got := h.checkLog(id, h.follow(id)); got.Status != executor.StatusCompleted {
			t.Errorf("%s: %s", got.ErrorCode, got.Error)
		}
	}
}

// safe is a buffer for a log that several goroutines write.
type safe struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *safe) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *safe) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// A model whose calls are stopped is not called, and its fallback has its turn
// at once.
func TestOpenCircuit(t *testing.T) {
	t.Parallel()
	s := script(answers{
		"down":  func(context.Context, int, llm.Request, func(string) bool) error { return down() },
		"spare": say("spare"),
	})
	said := &safe{}
	h := newHarness(t, s.entry(), executor.Config{
		Retry: quick, Breaker: llm.BreakerPolicy{Consecutive: 2, Pause: time.Hour, PauseMax: time.Hour}, Logger: slog.New(slog.NewTextHandler(said, nil)),
	})
	with := h.chain("name: with\nprompts: [{name: P, model: test/down, fallback: [test/spare], retry: {attempts: 2}, content: x}]\n")
	h.follow(h.trigger(with, nil).ID) // opens it
	ex := h.trigger(with, nil)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("%s: %s", got.Status, got.Error)
	}
	p := with.PromptIDs[0]
	want := []string{
		"execution-start", "prompt-start P", "prompt-retry P", "prompt-start P", "llm-request P", "llm-response P", "prompt-complete P",
		"progress 100", "execution-complete",
	}
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], " P", fmt.Sprint(" ", p))
	}
	if diff := cmp.Diff(want, outline(log)); diff != "" {
		t.Error(diff)
	}
	if retry := find(log, events.TypePromptRetry)[0]; retry.Data["delay"] != 0.0 || retry.Data["modelId"] != "test/spare" {
		t.Errorf("retry: %v", retry.Data)
	}
	if s.count("down") != 2 || s.count("spare") != 2 {
		t.Errorf("calls: %d and %d", s.count("down"), s.count("spare"))
	}
	want2 := []executor.Circuit{{Provider: "test", Model: "down", State: llm.BreakerOpen}, {Provider: "test", Model: "spare", State: llm.BreakerClosed}}
	if diff := cmp.Diff(want2, h.exec.Circuits()); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(said.String(), "model=test/down state=open") {
		t.Errorf("the log says nothing: %s", said)
	}
	alone := h.trigger(h.chain("name: alone\nprompts: [{name: P, model: test/down, retry: {attempts: 1}, content: x}]\n"), nil)
	if got := h.checkLog(alone.ID, h.follow(alone.ID)); got.ErrorCode != "circuit_open" || s.count("down") != 2 {
		t.Errorf("%s after %d calls", got.ErrorCode, s.count("down"))
	}
}

// When the pause is over, one execution tries and the others wait for it.
func TestOneProbe(t *testing.T) {
	t.Parallel()
	const others = 8
	gate := make(chan struct{})
	s := script(answers{"down": func(_ context.Context, call int, _ llm.Request, say func(string) bool) error {
		switch call {
		case 1:
			return down()
		case 2:
			<-gate
		}
		say("back")
		return nil
	}})
	h := newHarness(t, s.entry(), executor.Config{
		Retry: quick, Breaker: llm.BreakerPolicy{Consecutive: 1, Pause: time.Second, PauseMax: time.Second},
	})
	v := h.chain("name: probe\nprompts: [{name: P, model: test/down, retry: {attempts: 10}, content: x}]\n")
	first := h.trigger(v, nil)
	h.until(first.ID, func(executor.Execution) bool { return s.count("down") == 2 }) // its second call is the probe
	ids := make([]int64, others)
	for i := range ids {
		ids[i] = h.trigger(v, nil).ID
	}
	for _, id := range ids {
		h.await(id, events.TypePromptRetry)
	}
	if n := s.count("down"); n != 2 {
		t.Errorf("%d calls while the probe is under way", n)
	}
	close(gate)
	ids = append([]int64{first.ID}, ids...)
	for _, id := range ids {
		if got := h.checkLog(id, h.follow(id)); got.Status != executor.StatusCompleted {
			t.Errorf("%s: %s", got.Status, got.Error)
		}
	}
	if n := s.count("down"); n != others+2 {
		t.Errorf("%d calls, want %d", n, others+2)
	}
}
