package postgres

import (
	"context"
	"fmt"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/knowledge"
)

// SearchChunks implements knowledge.SearchStore with one statement.
func (s *Store) SearchChunks(ctx context.Context, q knowledge.Search) ([]knowledge.Found, error) {
	return searchChunks(ctx, s.queries, q)
}

func searchChunks(ctx context.Context, queries *db.Queries, q knowledge.Search) ([]knowledge.Found, error) {
	p := db.KnowledgeSearchParams{
		Repositories: q.Repositories, Mode: q.Mode, Queries: q.Parts, Candidates: int32(q.Candidates), Filter: q.Filter,
	}
	for _, space := range q.Vectors {
		for _, v := range space.Vectors {
			p.VectorSpaces = append(p.VectorSpaces, space.Space)
			p.QueryVectors = append(p.QueryVectors, vectorText(v))
		}
	}
	rows, err := queries.KnowledgeSearch(ctx, p)
	if isCode(err, undefinedTable) {
		err = knowledge.ErrSpaceChanged // its table is gone
	}
	if err != nil {
		return nil, fmt.Errorf("search: %w", translate(err))
	}
	out := make([]knowledge.Found, len(rows))
	for i, r := range rows {
		out[i] = knowledge.Found{
			Passage: knowledge.Passage{
				ChunkID: r.ChunkID, DocumentID: r.DocumentID, DocumentVersion: int64(r.Version), RepositoryID: r.RepositoryID, Document: r.DocumentName,
				Headings: r.Headings, Page: int(r.Page), Text: r.Text, Score: r.Score,
				Signals: knowledge.Signals{
					VectorRank: int(r.VectorRank), VectorScore: r.VectorScore, KeywordRank: int(r.KeywordRank), KeywordScore: r.KeywordScore,
				},
			},
			Ordinal: int(r.Ordinal), Tokens: int(r.Tokens),
		}
	}
	return out, nil
}

// Chunk answers a chunk that searches see, or knowledge.ErrNotFound.
func (s *Store) Chunk(ctx context.Context, id int64) (knowledge.Found, error) {
	r, err := s.queries.ChunkGet(ctx, id)
	if err != nil {
		return knowledge.Found{}, fmt.Errorf("read chunk %d: %w", id, translate(notFound(err, knowledge.ErrNotFound)))
	}
	return knowledge.Found{
		Passage: knowledge.Passage{
			ChunkID: r.ID, DocumentID: r.DocumentID, DocumentVersion: int64(r.Version), RepositoryID: r.RepositoryID, Document: r.DocumentName,
			Headings: r.Headings, Page: int(r.Page), Text: r.Text,
		},
		Ordinal: int(r.Ordinal), Tokens: int(r.Tokens),
	}, nil
}

// Spaces implements knowledge.SearchStore.
func (s *Store) Spaces(ctx context.Context, repositories []int64) (map[int64]knowledge.Space, error) {
	rows, err := s.queries.SpacesInUse(ctx, repositories)
	if err != nil {
		return nil, fmt.Errorf("read the spaces of repositories: %w", translate(err))
	}
	out := make(map[int64]knowledge.Space, len(rows))
	for _, r := range rows {
		out[r.RepositoryID] = knowledge.Space{ID: r.ID, Model: r.Model, Dimensions: int(r.Dimensions)}
	}
	return out, nil
}

// Around implements knowledge.SearchStore.
func (s *Store) Around(ctx context.Context, places []knowledge.Place, reach int) (map[knowledge.Place]knowledge.Chunk, error) {
	p := db.ChunkNeighboursParams{Reach: int32(reach)}
	versions := make(map[int64]int)
	for _, at := range places {
		p.DocumentIds = append(p.DocumentIds, at.DocumentID)
		p.Versions = append(p.Versions, int32(at.Version))
		p.Ordinals = append(p.Ordinals, int32(at.Ordinal))
		versions[at.DocumentID] = at.Version
	}
	rows, err := s.queries.ChunkNeighbours(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read the chunks around passages: %w", translate(err))
	}
	out := make(map[knowledge.Place]knowledge.Chunk, len(rows))
	for _, r := range rows {
		at := knowledge.Place{DocumentID: r.DocumentID, Version: versions[r.DocumentID], Ordinal: int(r.Ordinal)}
		out[at] = knowledge.Chunk{ID: r.ID, Ordinal: int(r.Ordinal), Headings: r.Headings, Text: r.Text, Page: int(r.Page), Tokens: int(r.Tokens)}
	}
	return out, nil
}
