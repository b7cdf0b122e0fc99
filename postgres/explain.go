package postgres

import (
	"context"
	"fmt"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/knowledge"
)

// SearchExplained implements knowledge.ExplainStore. Which index was used is asked of
// the statistics of the transaction that searches.
func (s *Store) SearchExplained(ctx context.Context, q knowledge.Search) (found []knowledge.Found, indexes []knowledge.IndexUse, err error) {
	err = s.inTx(ctx, func(queries *db.Queries) (err error) {
		if found, err = searchChunks(ctx, queries, q); err != nil || q.Mode == knowledge.SearchKeyword {
			return err
		}
		rows, err := queries.KnowledgeIndexUse(ctx, q.Repositories)
		indexes = nil
		for _, r := range rows {
			indexes = append(indexes, knowledge.IndexUse{RepositoryID: r.RepositoryID, Exists: r.Present, Used: r.Used})
		}
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("explain a search: %w", err)
	}
	return found, indexes, nil
}

// Terms implements knowledge.ExplainStore.
func (s *Store) Terms(ctx context.Context, repositories []int64, parts []string, chunks []int64) (terms, matched map[int64][]knowledge.Term, err error) {
	words, err := s.queries.KnowledgeTerms(ctx, db.KnowledgeTermsParams{Repositories: repositories, Queries: parts})
	if err != nil {
		return nil, nil, fmt.Errorf("read the words of a search: %w", translate(err))
	}
	terms = make(map[int64][]knowledge.Term)
	for _, w := range words {
		terms[w.RepositoryID] = append(terms[w.RepositoryID], knowledge.Term{Word: w.Word, Weight: w.Weight})
	}
	found, err := s.queries.KnowledgeMatched(ctx, db.KnowledgeMatchedParams{Repositories: repositories, Queries: parts, Chunks: chunks})
	if err != nil {
		return nil, nil, fmt.Errorf("read the words of passages: %w", translate(err))
	}
	matched = make(map[int64][]knowledge.Term)
	for _, w := range found {
		matched[w.ChunkID] = append(matched[w.ChunkID], knowledge.Term{Word: w.Word, Weight: w.Weight})
	}
	return terms, matched, nil
}
