package knowledge_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// scripted is an embedding model with limits and failures.
type scripted struct {
	mu     sync.Mutex
	calls  [][]string
	told   []int // dimensions of each call
	answer func(call int, texts []string, dimensions int) ([][]float32, error)
}

func (s *scripted) Embed(_ context.Context, _ string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	s.mu.Lock()
	s.calls, s.told = append(s.calls, append([]string(nil), texts...)), append(s.told, dimensions)
	call := len(s.calls)
	s.mu.Unlock()
	if s.answer != nil {
		if vectors, err := s.answer(call, texts, dimensions); vectors != nil || err != nil {
			return vectors, llm.Usage{InputTokens: 1}, err
		}
	}
	if dimensions == 0 {
		dimensions = 4
	}
	out := make([][]float32, len(texts))
	for i, text := range texts {
		out[i] = make([]float32, dimensions)
		out[i][0], out[i][1] = float32(len(text)), 1
	}
	return out, llm.Usage{InputTokens: int64(len(texts))}, nil
}

func words(text string) int64 { return int64(len(strings.Fields(text))) }

func texts(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strings.Repeat("w ", i+1)
	}
	return out
}

func sizes(calls [][]string) (out []int) {
	for _, c := range calls {
		out = append(out, len(c))
	}
	return out
}

func refusal(code llm.Code) error { return llm.NewError(code, nil) }

// A call has as many texts and as many tokens as the model takes, a text that comes
// twice is sent once, and every text gets its own vector.
func TestEmbedBatches(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		e     knowledge.Embedding
		texts []string
		want  []int
	}{
		"by count":            {knowledge.Embedding{Batch: 3}, texts(8), []int{3, 3, 2}},
		"by tokens":           {knowledge.Embedding{Batch: 100, BatchTokens: 10, Count: words}, texts(6), []int{4, 1, 1}}, // 1+2+3+4, 5, 6
		"one beyond":          {knowledge.Embedding{Batch: 100, BatchTokens: 2, Count: words}, texts(3), []int{1, 1, 1}},
		"without a batch":     {knowledge.Embedding{}, texts(2), []int{1, 1}},
		"twice the same text": {knowledge.Embedding{Batch: 10}, []string{"a", "bb", "a", "a", "bb"}, []int{2}},
		"none":                {knowledge.Embedding{Batch: 10}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &scripted{}
			c.e.Embedder = s
			got, err := knowledge.EmbedTexts(t.Context(), c.e, c.texts, knowledge.EmbedOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, sizes(s.calls)); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if got.Calls != len(c.want) || len(got.Vectors) != len(c.texts) {
				t.Errorf("%+v", got)
			}
			for i, text := range c.texts {
				if got.Vectors[i][0] != float32(len(text)) {
					t.Errorf("the vector of %q is %v", text, got.Vectors[i])
				}
			}
		})
	}
}

// A call that is refused for its size is made in halves, and later calls are no
// larger than what went through.
func TestEmbedHalves(t *testing.T) {
	t.Parallel()
	s := &scripted{answer: func(_ int, texts []string, _ int) ([][]float32, error) {
		if len(texts) > 3 {
			return nil, refusal(llm.CodeInvalidRequest)
		}
		return nil, nil
	}}
	e := knowledge.Embedding{Embedder: s, Batch: 8, State: state()}
	for range 2 {
		got, err := knowledge.EmbedTexts(t.Context(), e, texts(8), knowledge.EmbedOptions{})
		if err != nil || len(got.Vectors) != 8 || got.Vectors[7][0] != 16 {
			t.Fatal(got, err)
		}
	}
	if diff := cmp.Diff([]int{8, 4, 2, 2, 4, 2, 2, 2, 2, 2, 2}, sizes(s.calls)); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	// What no size mends costs a call for each halving, not one for each text.
	s = &scripted{answer: func(int, []string, int) ([][]float32, error) { return nil, refusal(llm.CodeInvalidRequest) }}
	e.Embedder, e.State = s, nil
	if _, err := knowledge.EmbedTexts(t.Context(), e, texts(8), knowledge.EmbedOptions{}); err == nil || len(s.calls) != 4 {
		t.Errorf("%v after %d calls", err, len(s.calls))
	}
}

func state() *knowledge.EmbeddingState {
	return knowledge.NewEmbeddingState(llm.NewBreaker(llm.BreakerPolicy{}, nil, nil), llm.NewRetryBudget(nil))
}

// Texts that are too long are cut, before the call where the limit is known and
// otherwise when the provider says so; without leave the refusal is the error.
func TestEmbedCuts(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("wörd ", 50)
	limited := func(_ int, texts []string, _ int) ([][]float32, error) {
		for _, text := range texts {
			if words(text) > 10 {
				return nil, refusal(llm.CodeContextTooLong)
			}
		}
		return nil, nil
	}
	var seen []knowledge.EmbeddingCall
	observe := func(c knowledge.EmbeddingCall) { seen = append(seen, c) }
	s := &scripted{answer: limited}
	e := knowledge.Embedding{Embedder: s, Batch: 4, MaxTokens: 10, Count: words, Observe: observe}
	got, err := knowledge.EmbedTexts(t.Context(), e, []string{"short", long}, knowledge.EmbedOptions{Cut: true})
	if err != nil || len(s.calls) != 1 || words(s.calls[0][1]) != 10 || !strings.HasPrefix(long, s.calls[0][1]) {
		t.Fatal(err, s.calls)
	}
	if diff := cmp.Diff([]int{1}, got.Cut); diff != "" || seen[0].Cut != 1 {
		t.Errorf("cut (-want +got):\n%s%+v", diff, seen)
	}

	s = &scripted{answer: limited}
	e.Embedder, e.MaxTokens, seen = s, 0, nil
	got, err = knowledge.EmbedTexts(t.Context(), e, []string{"short", long}, knowledge.EmbedOptions{Cut: true})
	if err != nil || len(got.Vectors) != 2 || len(got.Cut) != 1 || got.Vectors[0][0] != 5 {
		t.Fatal(err, got)
	}
	last := s.calls[len(s.calls)-1]
	if words(last[0]) > 10 || !strings.HasPrefix(long, last[0]) {
		t.Errorf("sent %q", last)
	}
	cut := 0
	for _, c := range seen {
		cut += c.Cut
	}
	if cut == 0 {
		t.Error("nobody is told of the cut")
	}

	s = &scripted{answer: limited}
	e.Embedder = s
	_, err = knowledge.EmbedTexts(t.Context(), e, []string{long}, knowledge.EmbedOptions{})
	if f, ok := errors.AsType[*llm.Error](err); !ok || f.Code != llm.CodeContextTooLong || len(s.calls) != 1 {
		t.Errorf("%v after %d calls", err, len(s.calls))
	}
	// A text of one character cannot be cut further.
	s = &scripted{answer: func(int, []string, int) ([][]float32, error) { return nil, refusal(llm.CodeContextTooLong) }}
	e.Embedder = s
	if _, err = knowledge.EmbedTexts(t.Context(), e, []string{"語"}, knowledge.EmbedOptions{Cut: true}); err == nil || len(s.calls) != 1 {
		t.Errorf("%v after %d calls", err, len(s.calls))
	}
}

// The length of vectors is told only where it is not the model's own, and not to
// servers that refuse to hear it.
func TestEmbedDimensions(t *testing.T) {
	t.Parallel()
	deaf := func(_ int, _ []string, dimensions int) ([][]float32, error) {
		if dimensions > 0 {
			return nil, refusal(llm.CodeInvalidRequest)
		}
		return nil, nil
	}
	for name, c := range map[string]struct {
		native, wanted int
		answer         func(int, []string, int) ([][]float32, error)
		told           []int // of two rounds
		err            error
	}{
		"the model's own":       {4, 4, deaf, []int{0, 0}, nil},
		"shortened":             {4, 2, nil, []int{2, 2}, nil},
		"unknown":               {0, 4, nil, []int{4, 4}, nil},
		"unknown and refused":   {0, 4, deaf, []int{4, 0, 0}, nil},
		"another than it makes": {0, 3, deaf, []int{3, 0, 3, 0}, knowledge.ErrDimensions},
		"whatever it is":        {0, 0, deaf, []int{0, 0}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &scripted{answer: c.answer}
			e := knowledge.Embedding{Embedder: s, Batch: 4, Dimensions: c.native, State: state()}
			for range 2 {
				if _, err := knowledge.EmbedTexts(t.Context(), e, texts(1), knowledge.EmbedOptions{Dimensions: c.wanted}); !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
					t.Errorf("%v, want %v", err, c.err)
				}
			}
			if diff := cmp.Diff(c.told, s.told); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

// Vectors that cannot be are an error, whoever answers them.
func TestEmbedChecks(t *testing.T) {
	t.Parallel()
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, vectors := range map[string][][]float32{
		"too few": {{1, 2}}, "too many": {{1}, {1}, {1}}, "uneven": {{1, 2}, {1}}, "another length": {{1}, {1}}, "nan": {{1, nan}, {1, 2}}, "inf": {{1, 2}, {inf, 1}},
	} {
		s := &scripted{answer: func(int, []string, int) ([][]float32, error) { return vectors, nil }}
		_, err := knowledge.EmbedTexts(t.Context(), knowledge.Embedding{Embedder: s, Batch: 4}, texts(2), knowledge.EmbedOptions{Dimensions: 2})
		e, ok := errors.AsType[*llm.Error](err)
		if !ok || e.Code != llm.CodeMalformedResponse {
			t.Errorf("%s: %v", name, err)
		}
		if want := name == "uneven" || name == "another length"; errors.Is(err, knowledge.ErrDimensions) != want {
			t.Errorf("%s: is ErrDimensions: %v in %v", name, !want, err)
		}
	}
}

// Vectors of documents have the length 1, so that they can be stored and compared;
// one of zeros is near to nothing instead of to everything.
func TestEmbedUnit(t *testing.T) {
	t.Parallel()
	s := &scripted{answer: func(int, []string, int) ([][]float32, error) {
		return [][]float32{{3e6, 4e6, 0, 0}, {0, 0, 0, 0}, {1, 0, 0, 0}}, nil
	}}
	got, err := knowledge.Embed(t.Context(), knowledge.Embedding{Embedder: s, Batch: 4}, texts(3), 4, llm.RetryPolicy{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]float32{{0.6, 0.8, 0, 0}, {0.5, 0.5, 0.5, 0.5}, {1, 0, 0, 0}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Failures are tried again by the table of prompts: those that may pass, after the
// time the provider names, as often as the budget allows, and not while the breaker
// is open.
func TestEmbedRetries(t *testing.T) {
	t.Parallel()
	type outcome struct {
		calls int
		took  time.Duration
		code  llm.Code
	}
	limited := llm.NewError(llm.CodeRateLimited, nil)
	limited.RetryAfter = 7 * time.Second
	always := func(err error) func(int, []string, int) ([][]float32, error) {
		return func(int, []string, int) ([][]float32, error) { return nil, err }
	}
	once := func(err error) func(int, []string, int) ([][]float32, error) {
		return func(call int, _ []string, _ int) ([][]float32, error) {
			if call == 1 {
				return nil, err
			}
			return nil, nil
		}
	}
	for name, c := range map[string]struct {
		answer func(int, []string, int) ([][]float32, error)
		want   outcome
	}{
		"passes":      {once(refusal(llm.CodeUnavailable)), outcome{calls: 2}},
		"named time":  {once(limited), outcome{calls: 2, took: 7 * time.Second}},
		"stays":       {always(refusal(llm.CodeOverloaded)), outcome{calls: 3, code: llm.CodeOverloaded}},
		"final":       {always(refusal(llm.CodeUnauthorized)), outcome{calls: 1, code: llm.CodeUnauthorized}},
		"malformed":   {always(refusal(llm.CodeMalformedResponse)), outcome{calls: 1, code: llm.CodeMalformedResponse}},
		"not for now": {always(&llm.Error{Code: llm.CodeRateLimited, Retryable: true, RetryAfter: time.Hour}), outcome{calls: 1, code: llm.CodeRateLimited}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{answer: c.answer}
				begin := time.Now()
				_, err := knowledge.EmbedTexts(t.Context(), knowledge.Embedding{Embedder: s, Batch: 4, State: state()}, texts(2),
					knowledge.EmbedOptions{Retry: llm.RetryPolicy{Rand: func() float64 { return 0 }}})
				got := outcome{calls: len(s.calls), took: time.Since(begin)}
				if e, ok := errors.AsType[*llm.Error](err); ok {
					got.code = e.Code
				}
				if got != c.want {
					t.Errorf("%+v, want %+v", got, c.want)
				}
			})
		})
	}

	t.Run("budget", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{answer: always(refusal(llm.CodeUnavailable))}
			e := knowledge.Embedding{Embedder: s, Batch: 4, State: knowledge.NewEmbeddingState(llm.NewBreaker(llm.BreakerPolicy{Consecutive: -1}, nil, nil), llm.NewRetryBudget(nil))}
			for range 10 {
				_, err := knowledge.EmbedTexts(t.Context(), e, texts(1), knowledge.EmbedOptions{Retry: llm.RetryPolicy{Rand: func() float64 { return 0 }}})
				if err == nil {
					t.Fatal("no error")
				}
			}
			if n := len(s.calls); n < 20 || n > 22 { // ten tries, ten retries, and what the tries earn
				t.Errorf("%d calls", n)
			}
		})
	})

	t.Run("breaker", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{answer: always(refusal(llm.CodeUnavailable))}
			e := knowledge.Embedding{Embedder: s, Batch: 4, State: state()}
			var last error
			for range 8 {
				_, last = knowledge.EmbedTexts(t.Context(), e, texts(1), knowledge.EmbedOptions{Retry: llm.RetryPolicy{Attempts: 1}})
			}
			if f, ok := errors.AsType[*llm.Error](last); !ok || f.Code != llm.CodeCircuitOpen || len(s.calls) != llm.DefaultBreakerConsecutive {
				t.Errorf("%v after %d calls", last, len(s.calls))
			}
			if e.State.Circuit() != llm.BreakerOpen {
				t.Error("the breaker is not open")
			}
		})
	})

	t.Run("cancelled while waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			reason := errors.New("stop")
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(reason) })
			s := &scripted{answer: always(limited)}
			if _, err := knowledge.EmbedTexts(ctx, knowledge.Embedding{Embedder: s, Batch: 4}, texts(1), knowledge.EmbedOptions{}); !errors.Is(err, reason) || len(s.calls) != 1 {
				t.Errorf("%v after %d calls", err, len(s.calls))
			}
		})
	})
}

// silent never answers.
type silent struct{ calls int }

func (s *silent) Embed(ctx context.Context, _ string, _ []string, _ int) ([][]float32, llm.Usage, error) {
	s.calls++
	<-ctx.Done()
	return nil, llm.Usage{}, llm.ContextError(ctx)
}

// A model that does not answer is given up, and asked again.
func TestEmbedTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &silent{}
		_, err := knowledge.EmbedTexts(t.Context(), knowledge.Embedding{Embedder: s, Batch: 4, Timeout: time.Second}, texts(1), knowledge.EmbedOptions{Retry: llm.RetryPolicy{Attempts: 2}})
		if e, ok := errors.AsType[*llm.Error](err); !ok || e.Code != llm.CodeTimeoutFirstByte || s.calls != 2 {
			t.Errorf("%v after %d calls", err, s.calls)
		}
	})
}

// slow is an embedding model that takes its time for each text.
type slow struct {
	scripted
	pace time.Duration
}

func (s *slow) Embed(ctx context.Context, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	select {
	case <-time.After(time.Duration(len(texts)) * s.pace):
	case <-ctx.Done():
		s.calls = append(s.calls, texts)
		return nil, llm.Usage{}, llm.ContextError(ctx)
	}
	return s.scripted.Embed(ctx, model, texts, dimensions)
}

// A model that is too slow for so many texts at once gets fewer, also after what had to
// wait for it was cut off, and more again when it has become faster.
func TestEmbedSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &slow{pace: time.Second}
		e := knowledge.Embedding{Embedder: s, Batch: 100, State: state()}
		embed := func(n int, within time.Duration) error {
			s.calls = nil
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			_, err := knowledge.EmbedTexts(ctx, e, texts(n), knowledge.EmbedOptions{Purpose: llm.PurposeDocument, Retry: llm.RetryPolicy{Attempts: 3}})
			return err
		}
		if err := embed(100, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{100, 50}, sizes(s.calls)); diff != "" {
			t.Errorf("the first turn (-want +got):\n%s", diff)
		}
		if err := embed(100, time.Hour); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{25, 25, 25, 25}, sizes(s.calls)); diff != "" {
			t.Errorf("the next (-want +got):\n%s", diff)
		}
		s.pace = time.Millisecond
		if err := embed(200, time.Hour); err != nil { // a hundred of them are known
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{25, 50, 25}, sizes(s.calls)); diff != "" {
			t.Errorf("faster (-want +got):\n%s", diff)
		}
	})
}

// What a purpose is arrives where the provider makes a difference.
type purposeful struct {
	scripted
	purposes []llm.Purpose
}

func (p *purposeful) EmbedFor(ctx context.Context, purpose llm.Purpose, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	p.purposes = append(p.purposes, purpose)
	return p.Embed(ctx, model, texts, dimensions)
}

func TestEmbedPurposes(t *testing.T) {
	t.Parallel()
	p := &purposeful{}
	e := knowledge.Embedding{Embedder: p, Batch: 4}
	if _, err := knowledge.Embed(t.Context(), e, texts(1), 0, llm.RetryPolicy{}); err != nil {
		t.Fatal(err)
	}
	for _, purpose := range []llm.Purpose{llm.PurposeQuery, llm.PurposeAny} {
		if _, err := knowledge.EmbedTexts(t.Context(), e, texts(1), knowledge.EmbedOptions{Purpose: purpose}); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(p.purposes); got != "[document query ]" {
		t.Error(got)
	}
}

// A text that was cut for one document is told to be cut to each that has it.
func TestEmbedCutsTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: func(_ int, texts []string, _ int) ([][]float32, error) {
			<-time.After(time.Second)
			for _, text := range texts {
				if words(text) > 4 {
					return nil, refusal(llm.CodeContextTooLong)
				}
			}
			return nil, nil
		}}
		const short, long, begin = "two words", "a text of some six words", "a text of"
		unknown := knowledge.Embedding{Embedder: s, Batch: 4, State: state()}
		known := knowledge.Embedding{Embedder: s, Batch: 4, MaxTokens: 3, Count: words, State: state()}
		for _, e := range []knowledge.Embedding{unknown, known} {
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					for range 2 {
						got, err := knowledge.EmbedTexts(t.Context(), e, []string{short, long, begin}, knowledge.EmbedOptions{Purpose: llm.PurposeDocument, Cut: true})
						if err != nil || !slices.Equal(got.Cut, []int{1}) {
							t.Errorf("cut %v, %v", got.Cut, err)
						}
					}
				})
			}
			all.Wait()
		}
	})
}

// What documents have in common is sent once, though they are processed at a time;
// when that fails, another one tries.
func TestEmbedTogether(t *testing.T) {
	t.Parallel()
	options := knowledge.EmbedOptions{Purpose: llm.PurposeDocument, Retry: llm.RetryPolicy{Attempts: 1}}
	t.Run("once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			slow := &scripted{answer: func(int, []string, int) ([][]float32, error) {
				<-time.After(time.Second)
				return nil, nil
			}}
			e := knowledge.Embedding{Embedder: slow, Batch: 4, State: state()}
			var all sync.WaitGroup
			for i := range 5 {
				all.Go(func() {
					mine := append(texts(6), fmt.Sprint("own text ", i))
					got, err := knowledge.EmbedTexts(t.Context(), e, mine, options)
					if err != nil || len(got.Vectors) != 7 {
						t.Error(got, err)
						return
					}
					for k, text := range mine {
						if got.Vectors[k][0] != float32(len(text)) {
							t.Errorf("the vector of %q is %v", text, got.Vectors[k])
						}
						got.Vectors[k][0] = -1 // nobody else's
					}
				})
			}
			all.Wait()
			sent := make(map[string]int)
			for _, call := range slow.calls {
				for _, text := range call {
					sent[text]++
				}
			}
			for text, n := range sent {
				if n != 1 {
					t.Errorf("%q was sent %d times", text, n)
				}
			}
			if len(sent) != 11 {
				t.Errorf("%d texts were sent", len(sent))
			}
			// Another length is another vector.
			if _, err := knowledge.EmbedTexts(t.Context(), e, texts(1), knowledge.EmbedOptions{Purpose: llm.PurposeDocument, Dimensions: 3}); err != nil || len(slow.calls[len(slow.calls)-1]) != 1 {
				t.Error(err)
			}
		})
	})
	t.Run("after a failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{answer: func(call int, _ []string, _ int) ([][]float32, error) {
				<-time.After(time.Second)
				if call == 1 {
					return nil, refusal(llm.CodeUnavailable)
				}
				return nil, nil
			}}
			e := knowledge.Embedding{Embedder: s, Batch: 4, State: state()}
			errs := make(chan error, 3)
			for range cap(errs) {
				go func() {
					_, err := knowledge.EmbedTexts(t.Context(), e, texts(2), options)
					errs <- err
				}()
			}
			failed := 0
			for range cap(errs) {
				if <-errs != nil {
					failed++
				}
			}
			if failed != 1 || len(s.calls) != 2 {
				t.Errorf("%d failed after %d calls", failed, len(s.calls))
			}
		})
	})
	t.Run("given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &silent{}
			e := knowledge.Embedding{Embedder: s, Batch: 4, State: state()}
			first, stop := context.WithCancel(t.Context())
			second, leave := context.WithCancel(t.Context())
			errs := make(chan error, 2)
			for _, ctx := range []context.Context{first, second} {
				go func() {
					_, err := knowledge.EmbedTexts(ctx, e, texts(1), options)
					errs <- err
				}()
				synctest.Wait()
			}
			leave()
			if err := <-errs; !errors.Is(err, context.Canceled) || s.calls != 1 {
				t.Errorf("who waits: %v after %d calls", err, s.calls)
			}
			stop()
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("who calls: %v", err)
			}
		})
	})
}
