package executor_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/knowledge"
)

// found is a retriever that answers the same to every query.
type found struct {
	library
	result knowledge.Result
}

func (f found) Retrieve(context.Context, knowledge.Query) (knowledge.Result, error) {
	return f.result, nil
}

// The event names every passage with what it was found by, those that did not fit
// too, and the rows of the same append tell which executions used a document.
func TestRetrievalsAreKept(t *testing.T) {
	t.Parallel()
	compiled := compileSchemas(t)
	url := pgtest.Database(t)
	h := newHarnessOn(t, url, nil, executor.Config{Retriever: found{result: knowledge.Result{
		Degraded: "The search went by words alone.",
		Passages: []knowledge.Passage{
			{
				ChunkID: 11, DocumentID: 7, DocumentVersion: 3, RepositoryID: 1, Document: "Guide", Headings: "Guide > Rivers", Page: 2,
				Text: "Rivers flow.", Score: 0.9, Signals: knowledge.Signals{VectorRank: 1, VectorScore: 0.8, KeywordRank: 2, KeywordScore: 0.5, RerankRank: 1, RerankScore: 0.9},
			},
			{
				ChunkID: 12, DocumentID: 8, DocumentVersion: 1, RepositoryID: 1, Document: "Tome", Score: 0.7,
				Text:    "This passage has so many words that the few tokens of the context cannot hold all of it, whatever they are.",
				Signals: knowledge.Signals{KeywordRank: 1, KeywordScore: 0.6},
			},
		},
	}}})
	v := h.chain(`
name: retrieval
prompts:
  - {name: A, position: 1, model: offline/echo, content: "${knowledge}", knowledge: {repositories: [1], maxTokens: 12}}
`)
	ex := h.trigger(v, nil)
	log := h.follow(ex.ID)
	h.checkLog(ex.ID, log)
	event := find(log, events.TypeKnowledgeRetrieved)[0]
	if err := compiled[events.TypeKnowledgeRetrieved].Validate(event.Data); err != nil {
		t.Error(err)
	}
	got := map[string]any{"chunks": event.Data["chunks"], "cut": event.Data["cut"], "error": event.Data["error"], "documents": event.Data["documentsFound"]}
	want := map[string]any{
		"chunks": []any{map[string]any{
			"chunkId": 11.0, "documentId": 7.0, "documentVersion": 3.0, "repositoryId": 1.0, "document": "Guide", "headings": "Guide > Rivers",
			"page": 2.0, "citation": 1.0, "score": 0.9, "vectorRank": 1.0, "vectorScore": 0.8, "keywordRank": 2.0, "keywordScore": 0.5,
			"rerankRank": 1.0, "rerankScore": 0.9,
		}},
		"cut": []any{map[string]any{
			"chunkId": 12.0, "documentId": 8.0, "documentVersion": 1.0, "repositoryId": 1.0, "document": "Tome", "score": 0.7,
			"keywordRank": 1.0, "keywordScore": 0.6,
		}},
		"error": "The search went by words alone.", "documents": 1.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for document, want := range map[int]int{7: 1, 8: 0} { // the second was cut
		var n int
		pgtest.Query(t, url, `SELECT count(DISTINCT execution_id) FROM v_retrieved_chunks WHERE used AND document_id = `+string(rune('0'+document)), &n)
		if n != want {
			t.Errorf("%d executions used document %d", n, document)
		}
	}
	var rows, chunks, cut int
	pgtest.Query(t, url, `SELECT count(*) FROM retrievals r JOIN events e USING (execution_id, seq)
		WHERE e.event_type = 'knowledge-retrieved' AND (r.chunk_id, r.place, r.citation, r.document_version, r.vector_rank, r.keyword_rank)
		   IS NOT DISTINCT FROM (11, 1, 1, 3, 1, 2) AND r.vector_score = 0.8 AND r.score = 0.9 AND r.rerank_rank = 1 AND r.rerank_score = 0.9
		   OR r.chunk_id = 12 AND r.place = 2 AND r.citation IS NULL AND r.vector_rank IS NULL AND r.keyword_score = 0.6 AND r.rerank_rank IS NULL`, &rows)
	pgtest.Query(t, url, "SELECT chunks, chunks_cut FROM v_retrievals", &chunks, &cut)
	if rows != 2 || chunks != 1 || cut != 1 {
		t.Errorf("%d rows, %d chunks, %d cut", rows, chunks, cut)
	}
}

// A search without a hit is told as one, and the prompt goes on.
func TestNothingRetrieved(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil, executor.Config{Retriever: found{}})
	ex := h.trigger(h.chain(`
name: nothing
prompts:
  - {name: A, position: 1, model: offline/echo, content: "hello", knowledge: {repositories: [1]}}
`), nil)
	log := h.follow(ex.ID)
	if got := h.checkLog(ex.ID, log); got.Status != executor.StatusCompleted {
		t.Errorf("execution %s", got.Status)
	}
	event := find(log, events.TypeKnowledgeRetrieved)[0].Data
	if event["documentsFound"] != 0.0 || event["relevanceScore"] != 0.0 || event["tokens"] != 0.0 || event["error"] != nil {
		t.Errorf("told %v", event)
	}
}
