package postgres

import (
	"context"
	"fmt"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/knowledge"
)

// ChangeModel implements knowledge.RepositoryStore.
func (s *Store) ChangeModel(ctx context.Context, repository int64, model knowledge.Space) (knowledge.Repository, error) {
	err := s.inJobTx(ctx, func(q *db.Queries, jobs queue) error {
		if err := q.SpacesLock(ctx); err != nil {
			return err
		}
		current, err := q.RepositoryLock(ctx, repository)
		if err != nil {
			return notFound(err, knowledge.ErrNotFound)
		}
		spaces, err := q.RepositorySpaces(ctx, repository)
		if err != nil {
			return err
		}
		for _, space := range spaces {
			if space == *current {
				continue
			}
			if err := q.SpaceDrop(ctx, space); err != nil {
				return err
			}
		}
		used, err := q.SpaceGet(ctx, *current)
		if err != nil {
			return err
		}
		if used.Model == model.Model && int(used.Dimensions) == model.Dimensions {
			return nil
		}
		space, err := q.SpaceAdd(ctx, db.SpaceAddParams{RepositoryID: repository, Model: model.Model, Dimensions: int32(model.Dimensions)})
		if err != nil {
			return err
		}
		return jobs.remodel(ctx, repository, space)
	})
	if err != nil {
		return knowledge.Repository{}, fmt.Errorf("change the model of repository %d: %w", repository, err)
	}
	return s.Repository(ctx, repository)
}

// Unfilled implements knowledge.ModelStore.
func (s *Store) Unfilled(ctx context.Context, repository int64, space knowledge.Space, after int64, limit int) (chunks []knowledge.Chunk, last int64, err error) {
	chunks, last, err = s.lacking(ctx, space, func() ([]chunkRow, error) {
		return s.queries.SpaceUnembedded(ctx, db.SpaceUnembeddedParams{RepositoryID: repository, AfterID: after, SpaceID: space.ID, MaxRows: int32(limit)})
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the chunks of repository %d: %w", repository, err)
	}
	return chunks, last, nil
}

// FillProgress implements knowledge.ModelStore.
func (s *Store) FillProgress(ctx context.Context, space int64) error {
	if _, err := s.queries.SpaceProgress(ctx, space); err != nil {
		return fmt.Errorf("note the progress of space %d: %w", space, translate(err))
	}
	return nil
}

// UseSpace implements knowledge.ModelStore.
func (s *Store) UseSpace(ctx context.Context, repository, space int64) (done bool, err error) {
	failpoint.Reach(failpoint.SpaceBefore)
	err = s.inTx(ctx, func(q *db.Queries) error {
		done = false
		if err := q.SpacesLock(ctx); err != nil {
			return err
		}
		current, err := q.RepositoryLock(ctx, repository)
		if err != nil {
			return notFound(err, nil)
		}
		ready, err := q.SpaceComplete(ctx, db.SpaceCompleteParams{RepositoryID: repository, SpaceID: space})
		if err != nil || !ready {
			return err
		}
		if statement, err := q.SpaceIndex(ctx, space); err != nil || statement != "" {
			return err // the upkeep makes the index
		}
		if err := q.RepositorySetSpace(ctx, db.RepositorySetSpaceParams{ID: repository, SpaceID: &space}); err != nil {
			return err
		}
		if err := q.RepositoryCountCut(ctx, db.RepositoryCountCutParams{RepositoryID: repository, SpaceID: space}); err != nil {
			return err
		}
		if err := q.ResponseCacheForgetRepository(ctx, repository); err != nil {
			return err
		}
		done = true
		return q.SpaceDrop(ctx, *current)
	})
	if err != nil {
		return false, fmt.Errorf("use space %d of repository %d: %w", space, repository, err)
	}
	failpoint.Reach(failpoint.SpaceAfter)
	return done, nil
}

// FailSpace implements knowledge.ModelStore.
func (s *Store) FailSpace(ctx context.Context, space int64, reason string) error {
	if _, err := s.queries.SpaceFail(ctx, db.SpaceFailParams{ID: space, Reason: reason}); err != nil {
		return fmt.Errorf("give up space %d: %w", space, translate(err))
	}
	return nil
}
