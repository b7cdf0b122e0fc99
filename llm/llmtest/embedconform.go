package llmtest

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// EmbedSubject is an embedder under test.
type EmbedSubject struct {
	Embedder llm.Embedder
	// Fake is what it talks to.
	Fake *Fake
	// Numbered says that the wire numbers its vectors.
	Numbered bool
	// Purposes are the words that arrive for the purposes, none where the wire has
	// none.
	Purposes map[llm.Purpose]string
	// Secret is the key, which no error may have.
	Secret string
	// MaxBytes is what the embedder reads of an answer, at most; the fault "flood"
	// sends some megabytes.
	MaxBytes int64
}

// ConformEmbeddings runs the suite that every embedder with a wire passes.
func ConformEmbeddings[Test T[Test]](t Test, s EmbedSubject) {
	texts := []string{"first", "Grüße, 世界", "three \"words\" \\ here\n", "first"}

	t.Run("vectors in order", func(t Test) {
		t.Parallel()
		for _, dimensions := range []int{0, 8} {
			vectors, usage, err := s.Embedder.Embed(t.Context(), embedModel(t), texts, dimensions)
			if err != nil {
				t.Fatal(err)
			}
			wantVectors(t, vectors, texts, dimensions)
			if usage.InputTokens != 8 || usage.Estimated {
				t.Errorf("usage %+v", usage)
			}
			call := lastEmbedCall(t, s, embedModel(t))
			if !reflect.DeepEqual(call.Texts, texts) || call.Dimensions != dimensions {
				t.Errorf("arrived as %+v", call)
			}
		}
	})

	t.Run("no texts", func(t Test) {
		t.Parallel()
		vectors, _, err := s.Embedder.Embed(t.Context(), embedModel(t), nil, 0)
		if err != nil || len(vectors) != 0 {
			t.Errorf("%v, %v", vectors, err)
		}
	})

	t.Run("purposes", func(t Test) {
		t.Parallel()
		for _, purpose := range []llm.Purpose{llm.PurposeAny, llm.PurposeQuery, llm.PurposeDocument} {
			if _, _, err := llm.EmbedFor(t.Context(), s.Embedder, purpose, embedModel(t), texts, 0); err != nil {
				t.Fatal(err)
			}
			if got := lastEmbedCall(t, s, embedModel(t)).TaskType; got != s.Purposes[purpose] {
				t.Errorf("the purpose %q arrived as %q", purpose, got)
			}
		}
	})

	t.Run("cancelled before", func(t Test) {
		t.Parallel()
		reason := errors.New("user pressed stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		_, _, err := s.Embedder.Embed(ctx, embedModel(t), texts, 0)
		wantCancelled(t, err, llm.CodeCancelled, context.Canceled, reason)
	})

	t.Run("many at once", func(t Test) {
		t.Parallel()
		model, failed := embedModel(t), make(chan error, 16)
		for range cap(failed) {
			go func() {
				vectors, _, err := s.Embedder.Embed(t.Context(), model, texts, 0)
				if err == nil && len(vectors) != len(texts) {
					err = errors.New("vectors are missing")
				}
				failed <- err
			}()
		}
		for range cap(failed) {
			if err := <-failed; err != nil {
				t.Errorf("%v", err)
			}
		}
	})

	for _, fault := range EmbedFaults() {
		if fault.Numbered && !s.Numbered {
			continue
		}
		t.Run("fault "+fault.Name, func(t Test) { conformEmbedFault(t, s, fault, texts) })
	}
}

func conformEmbedFault[Test T[Test]](t Test, s EmbedSubject, fault EmbedFault, texts []string) {
	t.Parallel()
	model := embedModel(t)
	s.Fake.ScriptEmbeddings(model, fault.Reply)
	ctx := t.Context()
	if fault.Reply.Stall {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
	}
	vectors, usage, err := s.Embedder.Embed(ctx, model, texts, 0)
	if calls := embedCallsOf(s, model); len(calls) > 1 {
		t.Errorf("%d calls: retries are not the provider's business", len(calls))
	}
	if fault.Code == "" {
		if err != nil {
			t.Fatal(err)
		}
		wantVectors(t, vectors, texts, 0)
		if usage.Estimated != fault.Estimated || usage.InputTokens < 1 {
			t.Errorf("usage %+v", usage)
		}
		return
	}
	e := (*llm.Error)(nil)
	if !errors.As(err, &e) {
		t.Fatal("no error: ", err)
	}
	if e.Code != fault.Code || e.Retryable != fault.Retryable || e.RetryAfter != fault.RetryAfter || vectors != nil || e.Message == "" {
		t.Errorf("got %s, retryable %t, after %v, %d vectors, detail %.300q", e.Code, e.Retryable, e.RetryAfter, len(vectors), e.Detail)
	}
	if s.Secret != "" && strings.Contains(err.Error(), s.Secret) {
		t.Errorf("the error tells the key: %v", err)
	}
}

// embedModel is a model of the fake for one test alone.
func embedModel[Test T[Test]](t Test) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == '#' {
			return '-'
		}
		return r
	}, strings.ToLower(t.Name()))
}

func embedCallsOf(s EmbedSubject, model string) (calls []EmbedRequest) {
	for _, c := range s.Fake.EmbedCalls() {
		if c.Model == model {
			calls = append(calls, c)
		}
	}
	return calls
}

func lastEmbedCall(t TB, s EmbedSubject, model string) EmbedRequest {
	t.Helper()
	calls := embedCallsOf(s, model)
	if len(calls) == 0 {
		t.Fatal("no call arrived of ", model)
	}
	return calls[len(calls)-1]
}

// wantVectors compares vectors with those that the fake gives.
func wantVectors(t TB, vectors [][]float32, texts []string, dimensions int) {
	t.Helper()
	if dimensions == 0 {
		dimensions = Dimensions
	}
	if len(vectors) != len(texts) {
		t.Errorf("%d vectors", len(vectors))
		return
	}
	for i, text := range texts {
		want := Embedding(text, dimensions)
		if len(vectors[i]) != len(want) {
			t.Errorf("vector %d has %d numbers", i, len(vectors[i]))
			continue
		}
		for k := range want {
			if math.Abs(float64(vectors[i][k])-want[k]) > 1e-6 {
				t.Errorf("vector %d is not that of %q", i, text)
				break
			}
		}
	}
}
