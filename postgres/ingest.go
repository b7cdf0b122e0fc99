package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/pgvector/pgvector-go"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/knowledge"
)

// Upload implements knowledge.IngestStore.
func (s *Store) Upload(ctx context.Context, document int64, version int) (knowledge.Upload, knowledge.Repository, error) {
	row, err := s.queries.DocumentUploadGet(ctx, db.DocumentUploadGetParams{DocumentID: document, Version: int32(version)})
	if err != nil {
		return knowledge.Upload{}, knowledge.Repository{}, fmt.Errorf("read the upload of document %d: %w", document, translate(notFound(err, knowledge.ErrSuperseded)))
	}
	failpoint.Reach(failpoint.IngestBegun)
	r, err := s.Repository(ctx, row.RepositoryID)
	return knowledge.Upload{Name: row.Name, MediaType: row.MediaType, Metadata: row.Metadata, URL: row.Url, Data: row.Data, Chunks: int(row.Chunks)}, r, err
}

// SaveFetched implements knowledge.IngestStore.
func (s *Store) SaveFetched(ctx context.Context, document int64, version int, mediaType string, data []byte) (unchanged bool, err error) {
	hash := sha256.Sum256(data)
	failpoint.Reach(failpoint.FetchedBefore)
	err = s.locked(ctx, document, version, "save what was fetched for", func(q *db.Queries) error {
		ready, err := q.DocumentUnchanged(ctx, db.DocumentUnchangedParams{
			ID: document, Version: int32(version), MediaType: mediaType, Bytes: int64(len(data)), ContentHash: hash[:],
		})
		if unchanged = err == nil; unchanged {
			return leave(ctx, q, document, ready, int32(version))
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		_, err = q.DocumentFetched(ctx, db.DocumentFetchedParams{
			ID: document, Version: int32(version), MediaType: mediaType, Bytes: int64(len(data)), ContentHash: hash[:], Data: data,
		})
		return err
	})
	if err != nil {
		return false, err
	}
	failpoint.Reach(failpoint.FetchedAfter)
	return unchanged, nil
}

// locked runs f in a transaction that holds a version which is being processed.
func (s *Store) locked(ctx context.Context, document int64, version int, what string, f func(q *db.Queries) error) error {
	err := s.inTx(ctx, func(q *db.Queries) error {
		if _, err := q.DocumentLock(ctx, db.DocumentLockParams{ID: document, Version: int32(version)}); err != nil {
			return notFound(err, knowledge.ErrSuperseded)
		}
		return f(q)
	})
	if err != nil {
		return fmt.Errorf("%s document %d: %w", what, document, err)
	}
	return nil
}

// SaveChunks implements knowledge.IngestStore.
func (s *Store) SaveChunks(ctx context.Context, document int64, version int, chunks []knowledge.Chunk) error {
	p := db.ChunksInsertParams{DocumentID: document, Version: int32(version)}
	for _, c := range chunks {
		p.Ordinals = append(p.Ordinals, int32(c.Ordinal))
		p.Headings = append(p.Headings, c.Headings)
		p.Texts = append(p.Texts, c.Text)
		p.Pages = append(p.Pages, int32(c.Page))
		p.Tokens = append(p.Tokens, int32(c.Tokens))
		p.ContentHashes = append(p.ContentHashes, c.ContentHash)
	}
	failpoint.Reach(failpoint.ChunksBefore)
	err := s.locked(ctx, document, version, "save the chunks of", func(q *db.Queries) error {
		stored, err := q.ChunksExist(ctx, db.ChunksExistParams{DocumentID: document, Version: int32(version)})
		if err != nil || stored {
			return err // an earlier try has stored all of them
		}
		if err := q.ChunksInsert(ctx, p); err != nil {
			return err
		}
		return q.ChunkCountWords(ctx, db.ChunkCountWordsParams{DocumentID: document, Version: int32(version), Sign: 1})
	})
	if err == nil {
		failpoint.Reach(failpoint.ChunksAfter)
	}
	return err
}

// Unembedded implements knowledge.IngestStore.
func (s *Store) Unembedded(ctx context.Context, document int64, version int, space knowledge.Space, limit int) ([]knowledge.Chunk, error) {
	for {
		chunks, last, err := s.lacking(ctx, space, func() (rows []chunkRow, err error) {
			found, err := s.queries.ChunksUnembedded(ctx, db.ChunksUnembeddedParams{
				DocumentID: document, Version: int32(version), SpaceID: space.ID, MaxRows: int32(limit),
			})
			for _, r := range found {
				rows = append(rows, chunkRow(r))
			}
			return rows, err
		})
		if err != nil {
			return nil, fmt.Errorf("read the chunks of document %d: %w", document, err)
		}
		if len(chunks) > 0 || last == 0 {
			return chunks, nil
		}
	}
}

// chunkRow is a chunk without a vector, whichever query has read it.
type chunkRow = db.SpaceUnembeddedRow

// lacking answers what read finds without a vector, after those of it were given one
// whose text has one elsewhere. last is the id of the last one that was found, 0 when
// there was none.
func (s *Store) lacking(ctx context.Context, space knowledge.Space, read func() ([]chunkRow, error)) (chunks []knowledge.Chunk, last int64, err error) {
	rows, err := read()
	if err != nil || len(rows) == 0 {
		return nil, 0, translate(err)
	}
	looked := make(map[int64]bool, len(rows))
	p := db.VectorsReuseParams{SpaceID: space.ID, Model: space.Model, Dimensions: int32(space.Dimensions)}
	for _, r := range rows {
		looked[r.ID] = true
		p.ChunkIds = append(p.ChunkIds, r.ID)
	}
	if err := storing(func() error { return s.queries.VectorsReuse(ctx, p) }); err != nil {
		return nil, 0, translate(err)
	}
	last = rows[len(rows)-1].ID
	if rows, err = read(); err != nil {
		return nil, 0, translate(err)
	}
	for _, r := range rows {
		if !looked[r.ID] {
			continue // it stands behind those that have one now
		}
		chunks = append(chunks, knowledge.Chunk{
			ID: r.ID, Ordinal: int(r.Ordinal), Headings: r.Headings, Text: r.Text, Page: int(r.Page), Tokens: int(r.Tokens), ContentHash: r.ContentHash,
		})
	}
	return chunks, last, nil
}

// SaveVectors implements knowledge.IngestStore.
func (s *Store) SaveVectors(ctx context.Context, space knowledge.Space, vectors map[int64]knowledge.Vector) error {
	p := db.VectorsInsertParams{SpaceID: space.ID}
	for id, v := range vectors {
		if len(v.Numbers) != space.Dimensions {
			return fmt.Errorf("save vectors: %w: %d, not %d", knowledge.ErrDimensions, len(v.Numbers), space.Dimensions)
		}
		p.ChunkIds = append(p.ChunkIds, id)
		p.Embeddings = append(p.Embeddings, vectorText(v.Numbers))
		p.Cuts = append(p.Cuts, v.Cut)
	}
	if err := storing(func() error { return s.queries.VectorsInsert(ctx, p) }); err != nil {
		return fmt.Errorf("save vectors: %w", translate(err))
	}
	failpoint.Reach(failpoint.VectorsAfter)
	return nil
}

// storing runs a statement that stores vectors of the chunks that are there, and again
// where one of them, or a space, was removed in the same moment. ErrSpaceChanged says that
// the space is gone.
func storing(insert func() error) error {
	err := insert()
	for try := 1; (isCode(err, foreignKeyViolation) || isCode(err, deadlockDetected)) && try < mostTries; try++ {
		err = insert()
	}
	if noPartition(err, "chunk_vectors") {
		return knowledge.ErrSpaceChanged
	}
	return err
}

// vectorText is the form in which the database reads vectors of any kind.
func vectorText(v []float32) string { return pgvector.NewHalfVector(v).String() }

// Progress implements knowledge.IngestStore.
func (s *Store) Progress(ctx context.Context, document int64, version, percent int) error {
	n, err := s.queries.DocumentProgress(ctx, db.DocumentProgressParams{ID: document, Version: int32(version), Percent: int32(percent)})
	if err == nil && n == 0 {
		err = knowledge.ErrSuperseded
	}
	if err != nil {
		return fmt.Errorf("note the progress of document %d: %w", document, translate(err))
	}
	return nil
}

// Delay implements knowledge.IngestStore.
func (s *Store) Delay(ctx context.Context, document int64, version int, reason string) error {
	n, err := s.queries.DocumentDelay(ctx, db.DocumentDelayParams{ID: document, Version: int32(version), Reason: reason})
	if err == nil && n == 0 {
		err = knowledge.ErrSuperseded
	}
	if err != nil {
		return fmt.Errorf("note what delays document %d: %w", document, translate(err))
	}
	return nil
}

// Publish implements knowledge.IngestStore. The repository is held first, so that its
// space is not changed meanwhile.
func (s *Store) Publish(ctx context.Context, document int64, version int) error {
	failpoint.Reach(failpoint.PublishDocumentBefore)
	err := s.inTx(ctx, func(q *db.Queries) error {
		space, err := q.RepositoryHold(ctx, document)
		if err != nil {
			return notFound(err, knowledge.ErrSuperseded)
		}
		if _, err := q.DocumentLock(ctx, db.DocumentLockParams{ID: document, Version: int32(version)}); err != nil {
			return notFound(err, knowledge.ErrSuperseded)
		}
		missing, err := q.VersionUnembedded(ctx, db.VersionUnembeddedParams{DocumentID: document, Version: int32(version), SpaceID: *space})
		if err != nil {
			return err
		}
		if missing {
			return knowledge.ErrSpaceChanged
		}
		return publish(ctx, q, document, int32(version), *space)
	})
	if err != nil {
		return fmt.Errorf("publish document %d: %w", document, err)
	}
	failpoint.Reach(failpoint.PublishDocumentAfter)
	return nil
}

func publish(ctx context.Context, q *db.Queries, document int64, version int32, space int64) error {
	if err := q.DocumentPublish(ctx, db.DocumentPublishParams{ID: document, Version: version, SpaceID: space}); err != nil {
		return err
	}
	if _, err := q.ResponseCacheForgetDocuments(ctx, []int64{document}); err != nil {
		return err
	}
	return leave(ctx, q, document, version, version)
}

// leave removes all of a document but the version that searches see, 0 for none: passages
// of others, and files up to the newest.
func leave(ctx context.Context, q *db.Queries, document int64, ready, newest int32) error {
	if err := q.ChunkForgetWords(ctx, db.ChunkForgetWordsParams{DocumentID: document, Keep: ready}); err != nil {
		return err
	}
	if err := q.ChunkVersionsDelete(ctx, db.ChunkVersionsDeleteParams{DocumentID: document, Version: ready}); err != nil {
		return err
	}
	return q.DocumentUploadsDelete(ctx, db.DocumentUploadsDeleteParams{DocumentID: document, Version: newest})
}

// Fail implements knowledge.IngestStore. Passages of the version that are there already
// go with it, and those of versions before that were superseded.
func (s *Store) Fail(ctx context.Context, document int64, version int, reason string) error {
	return s.locked(ctx, document, version, "give up", func(q *db.Queries) error {
		ready, err := q.DocumentFail(ctx, db.DocumentFailParams{ID: document, Version: int32(version), Reason: reason})
		if err != nil {
			return err
		}
		return leave(ctx, q, document, ready, int32(version))
	})
}
