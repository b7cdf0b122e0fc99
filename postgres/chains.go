package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/db"
)

// CreateChain stores a new chain as version 1. It answers chain.ErrNameTaken
// when the name exists.
func (s *Store) CreateChain(ctx context.Context, c *chain.Chain) (*chain.Version, error) {
	var v *chain.Version
	err := s.inTx(ctx, func(q *db.Queries) error {
		id, err := q.ChainInsert(ctx, c.Name)
		if errors.Is(err, pgx.ErrNoRows) {
			return chain.ErrNameTaken
		}
		if err != nil {
			return err
		}
		v, err = insertVersion(ctx, q, id, 1, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create chain %s: %w", c.Name, err)
	}
	return v, nil
}

// UpdateChain stores the next version of a chain, and forgets the cached answers
// of the others. It answers chain.ErrNotFound,
// or chain.ErrNameTaken when the document carries the name of another chain.
func (s *Store) UpdateChain(ctx context.Context, id int64, c *chain.Chain) (*chain.Version, error) {
	var v *chain.Version
	err := s.inTx(ctx, func(q *db.Queries) error {
		row, err := q.ChainLock(ctx, id)
		if errors.Is(err, pgx.ErrNoRows) {
			return chain.ErrNotFound
		}
		if err != nil {
			return err
		}
		if v, err = insertVersion(ctx, q, id, int(row.Version)+1, c); err != nil {
			return err
		}
		_, err = q.ResponseCacheForgetChain(ctx, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("update chain %d: %w", id, err)
	}
	return v, nil
}

func insertVersion(ctx context.Context, q *db.Queries, id int64, number int, c *chain.Chain) (*chain.Version, error) {
	slugs := make([]string, len(c.Prompts))
	for i, p := range c.Prompts {
		slugs[i] = p.Slug
	}
	rows, err := q.ChainPromptEnsure(ctx, db.ChainPromptEnsureParams{ChainID: id, Slugs: slugs})
	if err != nil {
		return nil, err
	}
	bySlug := make(map[string]int64, len(rows))
	for _, r := range rows {
		bySlug[r.Slug] = r.ID
	}
	v := &chain.Version{ChainID: id, Version: number, Chain: c, PromptIDs: make([]int64, len(slugs)), Newest: number}
	for i, slug := range slugs {
		v.PromptIDs[i] = bySlug[slug]
	}
	v.CreatedAt, err = q.ChainVersionInsert(ctx, db.ChainVersionInsertParams{
		ChainID: id, Version: int32(number), Description: c.Description, Document: c.JSON(), PromptIds: v.PromptIDs,
	})
	if err != nil {
		return nil, err
	}
	err = q.ChainSetVersion(ctx, db.ChainSetVersionParams{
		ID: id, Version: int32(number), Name: c.Name, Concurrency: optional(int32(c.Limits.Concurrency)),
	})
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.ConstraintName == "chains_name_key" {
		return nil, chain.ErrNameTaken
	}
	return v, err
}

// ChainByID answers a version of a chain; version 0 is the newest. It answers
// chain.ErrNotFound when there is none.
func (s *Store) ChainByID(ctx context.Context, id int64, version int) (*chain.Version, error) {
	row, err := s.queries.ChainVersionByID(ctx, db.ChainVersionByIDParams{ID: id, Version: int32(version)})
	if err != nil {
		return nil, fmt.Errorf("load chain %d: %w", id, chainError(err))
	}
	return chainVersion(row.Chain, row.ChainVersion)
}

// ChainByName is ChainByID by the chain's name.
func (s *Store) ChainByName(ctx context.Context, name string, version int) (*chain.Version, error) {
	row, err := s.queries.ChainVersionByName(ctx, db.ChainVersionByNameParams{Name: name, Version: int32(version)})
	if err != nil {
		return nil, fmt.Errorf("load chain %q: %w", name, chainError(err))
	}
	return chainVersion(row.Chain, row.ChainVersion)
}

// PinnedVersion answers the version that an execution runs, also of a chain that
// was deleted since.
func (s *Store) PinnedVersion(ctx context.Context, id int64, version int) (*chain.Version, error) {
	row, err := s.queries.ChainVersionPinned(ctx, db.ChainVersionPinnedParams{ID: id, Version: int32(version)})
	if err != nil {
		return nil, fmt.Errorf("load version %d of chain %d: %w", version, id, chainError(err))
	}
	return chainVersion(row.Chain, row.ChainVersion)
}

// Chains answers up to limit chains with ids above after, in their newest versions.
func (s *Store) Chains(ctx context.Context, after int64, limit int) ([]*chain.Version, error) {
	rows, err := s.queries.ChainList(ctx, db.ChainListParams{AfterID: after, MaxRows: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", translate(err))
	}
	out := make([]*chain.Version, len(rows))
	for i, r := range rows {
		if out[i], err = chainVersion(r.Chain, r.ChainVersion); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ChainVersions answers the versions of a chain, newest first, below before; 0
// starts at the newest.
func (s *Store) ChainVersions(ctx context.Context, id int64, before, limit int) ([]chain.Summary, error) {
	params := db.ChainVersionListParams{ChainID: id, MaxRows: int32(limit)}
	if before > 0 {
		b := int32(before)
		params.Before = &b
	}
	rows, err := s.queries.ChainVersionList(ctx, params)
	if err != nil {
		return nil, fmt.Errorf("list versions of chain %d: %w", id, translate(err))
	}
	out := make([]chain.Summary, len(rows))
	for i, r := range rows {
		out[i] = chain.Summary{Version: int(r.Version), Description: r.Description, CreatedAt: r.CreatedAt}
	}
	return out, nil
}

// DeleteChain hides a chain; its executions stay. It answers chain.ErrNotFound.
func (s *Store) DeleteChain(ctx context.Context, id int64) error {
	err := s.inTx(ctx, func(q *db.Queries) error {
		n, err := q.ChainDelete(ctx, id)
		if err == nil && n == 0 {
			err = chain.ErrNotFound
		}
		if err != nil {
			return err
		}
		_, err = q.ResponseCacheForgetChain(ctx, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete chain %d: %w", id, err)
	}
	return nil
}

func chainError(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return chain.ErrNotFound
	}
	return translate(err)
}

// chainVersion reads a stored document. It was valid when it was stored.
func chainVersion(c db.Chain, v db.ChainVersion) (*chain.Version, error) {
	doc, err := chain.Load(v.Document)
	if err != nil {
		// Not wrapped: a fault of the server is no problem with a request.
		return nil, fmt.Errorf("stored version %d of chain %d cannot be read: %v", v.Version, c.ID, err) //nolint:errorlint // see above
	}
	return &chain.Version{
		ChainID: c.ID, Version: int(v.Version), Chain: doc, PromptIDs: v.PromptIds, CreatedAt: v.CreatedAt, Newest: int(c.Version),
	}, nil
}
