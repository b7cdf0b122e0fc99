package executor_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/postgres"
)

const cached = `
name: cached
inputs:
  topic: {type: short_text, default: rivers}
prompts:
  - {name: P, position: 1, model: test/m, content: "about ${topic}", cache: 1h}
`

// priced is a model at 1 dollar for a million tokens in and 2 for a million out.
func (s *scripted) priced(model string) map[string]llm.Entry {
	entry := s.entry()["test"]
	entry.Info = map[string]llm.Info{model: {Prices: []llm.Price{{Input: decimal.New(1, 0), Output: decimal.New(2, 0)}}}}
	return map[string]llm.Entry{"test": entry}
}

// again runs a chain to its end and answers what became of it.
func (h *harness) again(v *chain.Version, inputs map[string]string) (executor.Execution, []event) {
	h.t.Helper()
	ex := h.trigger(v, inputs)
	log := h.follow(ex.ID)
	return h.checkLog(ex.ID, log), log
}

// The second time the answer comes from the cache: no call, nothing paid, and the
// log says whose answer it is and what it had cost.
func TestCacheHit(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	long := strings.Repeat("Grüße ", 5000)
	s := script(answers{"m": say(long)})
	h := newHarnessOn(t, url, s.priced("m"), executor.Config{})
	v := h.chain(cached)
	first, log := h.again(v, nil)
	want := []string{
		"execution-start", "prompt-start 1", "variable-substitution 1", "cache-miss 1", "llm-request 1", "llm-response 1", "prompt-complete 1",
		"progress 100", "execution-complete",
	}
	if diff := cmp.Diff(want, outline(log)); diff != "" {
		t.Error(diff)
	}
	miss, request := find(log, events.TypeCacheMiss)[0].Data, find(log, events.TypeLLMRequest)[0].Data
	if miss["requestId"] != request["requestId"] || miss["provider"] != "test" || miss["model"] != "m" {
		t.Errorf("the miss %v of the call %v", miss, request)
	}
	second, log := h.again(v, nil)
	want = []string{
		"execution-start", "prompt-start 1", "variable-substitution 1", "cache-hit 1", "prompt-complete 1", "progress 100", "execution-complete",
	}
	if diff := cmp.Diff(want, outline(log)); diff != "" {
		t.Error(diff)
	}
	if s.count("m") != 1 {
		t.Errorf("%d calls", s.count("m"))
	}
	schemas := compileSchemas(t)
	for _, e := range log {
		if err := schemas[e.Type].Validate(map[string]any(e.Data)); err != nil {
			t.Errorf("%s: %v", e.Type, err)
		}
	}
	hit := find(log, events.TypeCacheHit)[0].Data
	if hit["sourceExecutionId"] != float64(first.ID) || hit["sourceRequestId"] != request["requestId"] || hit["requestId"] == request["requestId"] ||
		hit["savedInputTokens"] != 10.0 || hit["savedOutputTokens"] != 5.0 || hit["savedCostUsd"] != "0.00002" {
		t.Errorf("the hit: %v", hit)
	}
	if got := text(t, log, 1, 1); got != long {
		t.Errorf("the stream says %d bytes of %d", len(got), len(long))
	}
	if n := len(find(log, events.TypePromptDelta)); n > 3 {
		t.Errorf("%d deltas", n)
	}
	done := find(log, events.TypePromptComplete)[0].Data
	if done["cached"] != true || done["inputTokens"] != 0.0 || done["outputTokens"] != 0.0 || done["costUsd"] != "0" || done["finishReason"] != "stop" || done["output"] != long {
		t.Errorf("complete: %.300v", done)
	}
	end := log[len(log)-1].Data
	if end["totalTokens"] != 0.0 || end["costUsd"] != "0" || end["savedTokens"] != 15.0 || end["savedCostUsd"] != "0.00002" {
		t.Errorf("the end: %v", end)
	}
	if second.InputTokens != 0 || second.CostUSD == nil || *second.CostUSD != "0" {
		t.Errorf("execution: %+v", second)
	}
	p := h.states(second.ID)["P"]
	if !p.Cached || p.Output != long || p.Saved == nil || p.Saved.ExecutionID != first.ID || p.Saved.OutputTokens != 5 || p.Reused != nil {
		t.Errorf("prompt: cached %v, saved %+v", p.Cached, p.Saved)
	}

	// Hit rate and money in one statement.
	var asked, hits, tokens int64
	var saved, paid string
	pgtest.Query(t, url, `SELECT count(*), count(*) FILTER (WHERE hit), sum(saved_input_tokens + saved_output_tokens), sum(saved_cost_usd)::float8::text, sum(cost_usd)::float8::text
	                 FROM v_cache GROUP BY chain_name`, &asked, &hits, &tokens, &saved, &paid)
	if asked != 2 || hits != 1 || tokens != 15 || saved != "2e-05" || paid != "2e-05" {
		t.Errorf("v_cache: %d asked, %d hits, %d tokens, %s saved, %s paid", asked, hits, tokens, saved, paid)
	}
	// As the documentation has it.
	var rate string
	pgtest.Query(t, url, `SELECT round(avg(hit::integer), 3)::text FROM v_cache GROUP BY chain_name ORDER BY sum(saved_cost_usd) DESC NULLS LAST`, &rate)
	if rate != "0.500" {
		t.Errorf("hit rate %s", rate)
	}
	h.stop()
	var counted int64
	pgtest.Query(t, url, "SELECT hits FROM response_cache WHERE last_hit_at IS NOT NULL", &counted)
	if counted != 1 {
		t.Errorf("%d hits counted", counted)
	}
}

// Time is the database's: a server whose clock is wrong neither prolongs nor
// shortens the life of an answer.
func TestCacheTimeIsTheDatabases(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	s := script(answers{"m": say("yes")})
	h := newHarnessOn(t, url, s.entry(), executor.Config{Now: func() time.Time { return time.Now().Add(48 * time.Hour) }, Timeout: 100 * time.Hour})
	v := h.chain(cached)
	h.again(v, nil)
	var left float64
	pgtest.Query(t, url, "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM response_cache", &left)
	if left < 3000 || left > 3600 {
		t.Errorf("%v seconds left of an hour", left)
	}
	if h.again(v, nil); s.count("m") != 1 {
		t.Fatalf("%d calls within the time", s.count("m"))
	}
	pgtest.Query(t, url, "UPDATE response_cache SET expires_at = clock_timestamp()")
	if h.again(v, nil); s.count("m") != 2 {
		t.Fatalf("%d calls after the time", s.count("m"))
	}
	if h.again(v, nil); s.count("m") != 2 {
		t.Errorf("%d calls after the time began anew", s.count("m"))
	}
}

// An answer is gone when its chain, its execution or a document in its question is.
func TestCacheInvalidation(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	s := script(answers{"m": say("yes")})
	shelf := &shelf{version: 1}
	h := newHarnessOn(t, url, s.entry(), executor.Config{Retriever: shelf})
	rows := func() (n int) {
		pgtest.Query(t, url, "SELECT count(*) FROM response_cache", &n)
		return n
	}
	calls := 0
	run := func(v *chain.Version, called bool) executor.Execution {
		t.Helper()
		if called {
			calls++
		}
		ex, _ := h.again(v, nil)
		if ex.Status != executor.StatusCompleted || s.count("m") != calls {
			t.Fatalf("execution %s after %d calls, want %d", ex.Status, s.count("m"), calls)
		}
		return ex
	}
	document := strings.Replace(cached, "cache: 1h", "cache: 1h, knowledge: {repositories: [1]}", 1)
	v1 := h.chain(document)
	run(v1, true)
	paid := run(v1, false)
	// A new version of the chain, even one that says the same.
	same, err := chain.Parse([]byte(document), chain.FormatYAML)
	if err != nil {
		t.Fatal(err)
	}
	v2, err := h.store.UpdateChain(t.Context(), v1.ChainID, same)
	if err != nil || rows() != 0 {
		t.Fatalf("%d answers after the update, %v", rows(), err)
	}
	paid = run(v2, true)
	run(v2, false)
	// Erasing the execution that paid.
	if err := h.store.DeleteExecution(t.Context(), paid.ID); err != nil || rows() != 0 {
		t.Fatalf("%d answers after the erasure, %v", rows(), err)
	}
	run(v2, true)
	// A document in the question changes, though the passage says the same.
	shelf.set(2)
	run(v2, true)
	run(v2, false)
	if n, err := h.store.ForgetDocuments(t.Context(), 9); err != nil || n != 0 {
		t.Errorf("a stranger's document: %d, %v", n, err)
	}
	if n, err := h.store.ForgetDocuments(t.Context(), 9, 7); err != nil || n != 2 || rows() != 0 {
		t.Errorf("its document: %d, %v", n, err)
	}
	run(v2, true)
	// The chain is deleted. What is still under way keeps nothing for it.
	if err := h.store.DeleteChain(t.Context(), v2.ChainID); err != nil || rows() != 0 {
		t.Fatalf("%d answers after the deletion, %v", rows(), err)
	}
	if run(v2, true); rows() != 0 {
		t.Errorf("%d answers of a deleted chain", rows())
	}
}

// shelf is a retriever with one document.
type shelf struct {
	mu      sync.Mutex
	version int64
}

func (s *shelf) set(version int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = version
}

func (s *shelf) Missing(context.Context, []int64) ([]int64, error) { return nil, nil }

func (s *shelf) Retrieve(context.Context, knowledge.Query) (knowledge.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return knowledge.Result{Passages: []knowledge.Passage{
		{ChunkID: 1, DocumentID: 7, DocumentVersion: s.version, Document: "Guide", Text: "Rivers flow.", Score: 0.9},
		{ChunkID: 2, DocumentID: 7, DocumentVersion: s.version, Document: "Guide", Text: "And flow.", Score: 0.8},
	}}, nil
}

// What does not ask the same, or must not be remembered, is not.
func TestCacheKeepsOnlyWhatIsRight(t *testing.T) {
	t.Parallel()
	finish := func(reason string, chunk llm.Chunk) func(context.Context, llm.Request) (llm.Chunk, error) {
		return func(context.Context, llm.Request) (llm.Chunk, error) {
			chunk.FinishReason, chunk.Usage = reason, &llm.Usage{InputTokens: 1, OutputTokens: 1}
			return chunk, nil
		}
	}
	for name, test := range map[string]struct {
		answer func(context.Context, llm.Request) (llm.Chunk, error)
		prompt string
		calls  int // of three executions
	}{
		"complete":    {answer: finish(llm.FinishStop, llm.Chunk{Text: "yes"}), calls: 1},
		"cut off":     {answer: finish(llm.FinishLength, llm.Chunk{Text: "y"}), calls: 3},
		"held back":   {answer: finish(llm.FinishContentFilter, llm.Chunk{Text: "y"}), calls: 3},
		"unknown end": {answer: finish(llm.FinishUnknown, llm.Chunk{Text: "y"}), calls: 3},
		"empty":       {answer: finish(llm.FinishStop, llm.Chunk{}), calls: 3},
		"repaired":    {answer: finish(llm.FinishStop, llm.Chunk{Text: "y\ufffd", Repaired: true}), calls: 3},
		"the largest": {answer: finish(llm.FinishStop, llm.Chunk{Text: strings.Repeat("y", executor.MaxCachedBytes)}), calls: 1},
		"too large":   {answer: finish(llm.FinishStop, llm.Chunk{Text: strings.Repeat("y", executor.MaxCachedBytes+1)}), calls: 3},
		"valid":       {answer: finish(llm.FinishStop, llm.Chunk{Text: "7"}), prompt: "output: {schema: {type: integer}}", calls: 1},
		"invalid":     {answer: finish(llm.FinishStop, llm.Chunk{Text: "seven"}), prompt: "output: {schema: {type: integer}}", calls: 3},
		"failed": {answer: func(context.Context, llm.Request) (llm.Chunk, error) {
			return llm.Chunk{}, llm.NewError(llm.CodeUnauthorized, nil)
		}, calls: 3},
		"nobody wants it": {answer: finish(llm.FinishStop, llm.Chunk{Text: "yes"}), prompt: "off", calls: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &oneChunk{answer: test.answer}
			h := newHarness(t, map[string]llm.Entry{"test": {Provider: p}}, executor.Config{Retry: quick})
			document := strings.Replace(cached, "cache: 1h", "cache: 1h, retry: {attempts: 1}, "+test.prompt, 1)
			if test.prompt == "off" {
				document = strings.Replace(cached, ", cache: 1h", "", 1)
			}
			v := h.chain(document)
			for range 3 {
				h.again(v, nil)
			}
			if n := p.count(); n != test.calls && (name != "invalid" || n < 3) {
				t.Errorf("%d calls", n)
			}
			var pending int
			pgtest.Query(t, h.url, "SELECT count(*) FROM response_cache WHERE holder IS NOT NULL", &pending)
			if pending != 0 {
				t.Errorf("%d calls are noted that nobody makes", pending)
			}
		})
	}
}

// The mode of an execution: off neither reads nor writes, refresh writes only.
// Retries and forks do as their parent, or as they are told.
func TestCacheModes(t *testing.T) {
	t.Parallel()
	calls := 0
	s := script(answers{"m": func(_ context.Context, call int, _ llm.Request, say func(string) bool) error {
		calls = call
		say(fmt.Sprint("answer ", call))
		return nil
	}})
	h := newHarness(t, s.entry(), executor.Config{})
	v := h.chain(cached)
	start := func(tr executor.Trigger) (executor.Execution, string) {
		t.Helper()
		ex, _, err := h.exec.Trigger(t.Context(), tr)
		if err != nil {
			t.Fatal(err)
		}
		log := h.follow(ex.ID)
		if asked := len(find(log, events.TypeCacheHit, events.TypeCacheMiss)); (asked > 0) != (tr.Cache == executor.CacheOn) {
			t.Errorf("mode %q asked %d times", tr.Cache, asked)
		}
		return h.checkLog(ex.ID, log), h.states(ex.ID)["P"].Output
	}
	inputs := map[string]any{"topic": "rivers"}
	on := executor.Trigger{Version: v, Inputs: inputs}
	off, refresh := on, on
	off.Cache, refresh.Cache = executor.CacheOff, executor.CacheRefresh
	start(off)
	for _, step := range []struct {
		mode executor.Trigger
		want string
	}{{on, "answer 2"}, {off, "answer 3"}, {on, "answer 2"}, {refresh, "answer 4"}, {on, "answer 4"}} {
		if _, got := start(step.mode); got != step.want {
			t.Errorf("mode %q: %s, want %s", step.mode.Cache, got, step.want)
		}
	}
	parent, _ := start(off)
	if parent.CacheMode != executor.CacheOff {
		t.Errorf("the parent's mode is %q", parent.CacheMode)
	}
	for mode, want := range map[*executor.CacheMode]executor.CacheMode{nil: executor.CacheOff, new(executor.CacheMode): executor.CacheOn, &refresh.Cache: executor.CacheRefresh} {
		d := forkOf(parent.ID, "")
		d.Cache = mode
		tr, err := h.exec.Derive(t.Context(), d)
		if err != nil || tr.Cache != want {
			t.Errorf("fork with %v: mode %q, want %q, %v", mode, tr.Cache, want, err)
		}
	}
	if calls != 5 {
		t.Errorf("%d calls", calls)
	}
}

// A fork asks anew with what it changes, and hits with what it does not. What it
// takes over is no hit, also when it was one in the parent.
func TestCacheAndLineage(t *testing.T) {
	t.Parallel()
	s := script(answers{"m": say("one"), "n": say("two"), "o": say("other")})
	h := newHarness(t, s.priced("m"), executor.Config{})
	v := h.chain(`
name: two
prompts:
  - {name: First, position: 1, model: test/m, content: first, cache: 1h}
  - {name: Second, position: 2, model: test/n, content: "second ${first}", cache: 1h}
`)
	h.again(v, nil)
	parent, _ := h.again(v, nil)
	if p := h.states(parent.ID); !p["First"].Cached || !p["Second"].Cached {
		t.Fatal("the second execution had to call")
	}
	d := forkOf(parent.ID, "second")
	d.Models = map[string]string{"second": "test/o"}
	child := h.derive(d)
	h.checkLog(child.ID, h.follow(child.ID))
	got := h.states(child.ID)
	if first := got["First"]; first.Cached || first.Saved != nil || first.Reused == nil || first.Reused.ExecutionID != parent.ID || first.Output != "one" {
		t.Errorf("taken over: %+v", first)
	}
	if second := got["Second"]; second.Cached || second.Cache != events.CacheToldMiss || second.Output != "other" || s.count("o") != 1 {
		t.Errorf("with another model: %+v", second)
	}
	all := h.derive(forkOf(child.ID, ""))
	h.checkLog(all.ID, h.follow(all.ID))
	if p := h.states(all.ID); !p["First"].Cached || !p["Second"].Cached || p["Second"].Output != "other" {
		t.Errorf("the whole again: %+v", p)
	}
	if s.count("m") != 1 || s.count("n") != 1 || s.count("o") != 1 {
		t.Errorf("calls %v", s.calls)
	}
}

// brokenCache is a cache that cannot be reached.
type brokenCache struct{ executor.Cache }

var errBroken = errors.New("out of order")

func (brokenCache) AskCache(context.Context, executor.CacheQuestion, uuid.UUID, time.Duration) (executor.CacheState, error) {
	return executor.CacheState{}, errBroken
}

func (brokenCache) KeepAnswer(context.Context, executor.CacheQuestion, executor.CachedAnswer, time.Duration) error {
	return errBroken
}

// forgetfulCache is a cache that claims and then loses its memory.
type forgetfulCache struct {
	brokenCache
	*postgres.Store
}

func (f forgetfulCache) AskCache(ctx context.Context, q executor.CacheQuestion, holder uuid.UUID, lease time.Duration) (executor.CacheState, error) {
	return f.Store.AskCache(ctx, q, holder, lease)
}

func (f forgetfulCache) KeepAnswer(context.Context, executor.CacheQuestion, executor.CachedAnswer, time.Duration) error {
	return errBroken
}

func (f forgetfulCache) ReleaseCache(context.Context, executor.CacheKey, uuid.UUID) error {
	return errBroken
}

func (f forgetfulCache) RenewCache(context.Context, map[executor.CacheKey]uuid.UUID, time.Duration) error {
	return errBroken
}

func (f forgetfulCache) CountCacheHits(context.Context, map[executor.CacheKey]int64) error {
	return errBroken
}

// A cache that does not work is a cache without answers.
func TestCacheOutOfOrder(t *testing.T) {
	t.Parallel()
	for name, cache := range map[string]func(*postgres.Store) executor.Cache{
		"not reached": func(*postgres.Store) executor.Cache { return brokenCache{} },
		"not written": func(s *postgres.Store) executor.Cache { return forgetfulCache{Store: s} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			store, err := postgres.Open(t.Context(), postgres.Config{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(store.Close)
			s := script(answers{"m": say("yes")})
			h := newHarnessOn(t, url, s.entry(), executor.Config{Cache: cache(store), Lease: 500 * time.Millisecond, Renew: 100 * time.Millisecond})
			v := h.chain(cached)
			for range 2 {
				ex, log := h.again(v, nil)
				if ex.Status != executor.StatusCompleted || len(find(log, events.TypeCacheMiss)) != 1 {
					t.Errorf("execution: %s, %v", ex.Status, outline(log))
				}
			}
			if s.count("m") != 2 {
				t.Errorf("%d calls", s.count("m"))
			}
		})
	}
}

// The demo model shows how the cache works, without any key.
func TestCacheOfTheDemoModel(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{})
	v := h.chain("name: demo\nprompts:\n  - {name: P, position: 1, model: offline/echo, content: \"echo: hello\", cache: 10m}\n")
	h.again(v, nil)
	ex, _ := h.again(v, nil)
	if p := h.states(ex.ID)["P"]; !p.Cached || p.Output != "hello" {
		t.Errorf("%+v", p)
	}
}

// oneChunk is a provider that answers in one chunk.
type oneChunk struct {
	mu     sync.Mutex
	calls  int
	asked  []llm.Request
	answer func(ctx context.Context, req llm.Request) (llm.Chunk, error)
}

func (s *oneChunk) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		s.mu.Lock()
		s.calls++
		s.asked = append(s.asked, req)
		s.mu.Unlock()
		yield(s.answer(ctx, req))
	}
}

func (s *oneChunk) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}
