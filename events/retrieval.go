package events

// RetrievalState is a chunk that a search found for a prompt, a projection of
// KnowledgeRetrieved that the Writer makes and stores with it.
type RetrievalState struct {
	PromptID        int64    `json:"prompt_id"`
	Seq             int64    `json:"seq"`                // of the event
	Place           int      `json:"place"`              // in the list of the search, from 1
	Citation        *int     `json:"citation,omitempty"` // nil = cut
	RepositoryID    int64    `json:"repository_id"`
	DocumentID      int64    `json:"document_id"`
	DocumentVersion int64    `json:"document_version"`
	ChunkID         int64    `json:"chunk_id"`
	VectorRank      *int     `json:"vector_rank,omitempty"` // nil = not found that way
	VectorScore     *float64 `json:"vector_score,omitempty"`
	KeywordRank     *int     `json:"keyword_rank,omitempty"`
	KeywordScore    *float64 `json:"keyword_score,omitempty"`
	RerankRank      *int     `json:"rerank_rank,omitempty"`
	RerankScore     *float64 `json:"rerank_score,omitempty"`
	Score           float64  `json:"score"`
}

// retrievals lists what a search found: what was placed, and behind it what was cut.
func retrievals(e KnowledgeRetrieved, seq int64) []RetrievalState {
	out := make([]RetrievalState, 0, len(e.Chunks)+len(e.Cut))
	for _, list := range [][]ChunkRef{e.Chunks, e.Cut} {
		for _, c := range list {
			r := RetrievalState{
				PromptID: e.PromptID, Seq: seq, Place: len(out) + 1, RepositoryID: c.RepositoryID, DocumentID: c.DocumentID,
				DocumentVersion: c.DocumentVersion, ChunkID: c.ChunkID, Score: c.Score,
			}
			if c.Citation > 0 {
				r.Citation = &c.Citation
			}
			if c.VectorRank > 0 {
				r.VectorRank, r.VectorScore = &c.VectorRank, &c.VectorScore
			}
			if c.KeywordRank > 0 {
				r.KeywordRank, r.KeywordScore = &c.KeywordRank, &c.KeywordScore
			}
			if c.RerankRank > 0 {
				r.RerankRank, r.RerankScore = &c.RerankRank, &c.RerankScore
			}
			out = append(out, r)
		}
	}
	return out
}
