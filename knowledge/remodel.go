package knowledge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/chainstream/chainstream/llm"
)

// Remodeller embeds repositories by another model, while searches use the one before.
// Every step can be repeated.
type Remodeller struct {
	Store      ModelStore
	Embeddings Embeddings
	Retry      llm.RetryPolicy
	Turn       time.Duration // after which Process stops at the next occasion; 0 = when all is done
	Logger     *slog.Logger
}

// Process fills a space and then lets searches use it. again says that the turn was
// too short, or that the index is still missing. Any error is worth another try.
func (m *Remodeller) Process(ctx context.Context, repository, space int64) (again bool, err error) {
	r, err := m.Store.Repository(ctx, repository)
	if errors.Is(err, ErrNotFound) || err == nil && (r.Building == nil || r.Building.ID != space) {
		return false, nil // it is gone, or was changed again
	}
	if err != nil {
		return false, err
	}
	err = m.fill(ctx, r.ID, r.Building.Space)
	var bad *documentError
	switch {
	case errors.Is(err, errTurn), errors.Is(err, ErrSpaceChanged): // the next turn finds out why
		return true, nil
	case errors.As(err, &bad):
		m.Logger.InfoContext(ctx, "a repository cannot be embedded anew", "repository_id", repository, "model", r.Building.Model, "reason", bad.reason, "error", bad.err)
		return false, m.Store.FailSpace(ctx, space, bad.reason)
	case err != nil:
		if !errors.Is(err, context.Canceled) {
			m.Logger.WarnContext(ctx, "a change of the embedding model waits for another try", "repository_id", repository, "model", r.Building.Model, "error", err)
		}
		return false, err
	}
	done, err := m.Store.UseSpace(ctx, repository, space)
	if done {
		m.Logger.InfoContext(ctx, "a repository is searched by another model", "repository_id", repository, "model", r.Building.Model)
	}
	return !done && err == nil, err
}

// GiveUp notes on a repository that its change failed too often.
func (m *Remodeller) GiveUp(ctx context.Context, _, space int64) error {
	return m.Store.FailSpace(ctx, space, "It failed too often. The server's log says why; change the model again when that is mended.")
}

// fillNoted is how often the progress of a change is noted: it is counted.
const fillNoted = 5 * time.Second

// fill embeds what has no vector in a space.
func (m *Remodeller) fill(ctx context.Context, repository int64, space Space) error {
	begin := time.Now()
	e, err := m.Embeddings.Embedding(space.Model)
	if err != nil {
		return &documentError{fmt.Sprintf("The embedding model %s cannot be called from this server: %s.", space.Model, err), err}
	}
	after, noted := int64(0), begin
	for {
		missing, last, err := m.Store.Unfilled(ctx, repository, space, after, max(e.Batch, 1))
		if err != nil || last == 0 {
			return err
		}
		after = last
		if err := embedChunks(ctx, e, missing, space, m.Store.SaveVectors, m.Retry); err != nil {
			return err
		}
		over := m.Turn > 0 && time.Since(begin) >= m.Turn
		if over || time.Since(noted) >= fillNoted {
			if err := m.Store.FillProgress(ctx, space.ID); err != nil {
				return err
			}
			noted = time.Now()
		}
		if over {
			return errTurn
		}
	}
}

// embedChunks makes and stores the vectors of chunks.
func embedChunks(ctx context.Context, e Embedding, chunks []Chunk, space Space, save func(context.Context, Space, map[int64]Vector) error, retry llm.RetryPolicy) error {
	if len(chunks) == 0 {
		return nil
	}
	texts := make([]string, len(chunks))
	for i, c := range chunks {
		texts[i] = c.embedded()
	}
	got, err := embedDocument(ctx, e, texts, space.Dimensions, retry)
	if err != nil {
		return embedError(ctx, err)
	}
	byChunk := make(map[int64]Vector, len(chunks))
	for i, c := range chunks {
		byChunk[c.ID] = Vector{Numbers: got.Vectors[i], Cut: slices.Contains(got.Cut, i)}
	}
	return embedError(ctx, save(ctx, space, byChunk))
}
