package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/db"
	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/knowledge"
)

// CreateRepository implements knowledge.RepositoryStore.
func (s *Store) CreateRepository(ctx context.Context, r knowledge.Repository) (knowledge.Repository, error) {
	var id int64
	err := s.inTx(ctx, func(q *db.Queries) (err error) {
		known, err := q.LanguageExists(ctx, r.Language)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("%w: %q", knowledge.ErrLanguage, r.Language)
		}
		if err := q.SpacesLock(ctx); err != nil {
			return err
		}
		id, err = q.RepositoryInsert(ctx, db.RepositoryInsertParams{
			Name: r.Name, Description: r.Description, Language: r.Language, ChunkTokens: int32(r.ChunkTokens), ChunkOverlap: int32(r.ChunkOverlap),
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return knowledge.ErrNameTaken
		}
		if err != nil {
			return err
		}
		space, err := q.SpaceAdd(ctx, db.SpaceAddParams{RepositoryID: id, Model: r.Space.Model, Dimensions: int32(r.Space.Dimensions)})
		if err != nil {
			return err
		}
		return q.RepositorySetSpace(ctx, db.RepositorySetSpaceParams{ID: id, SpaceID: &space})
	})
	if err != nil {
		return knowledge.Repository{}, fmt.Errorf("create repository %s: %w", r.Name, err)
	}
	return s.Repository(ctx, id)
}

// Repository implements knowledge.RepositoryStore.
func (s *Store) Repository(ctx context.Context, id int64) (knowledge.Repository, error) {
	if id <= 0 {
		return knowledge.Repository{}, fmt.Errorf("repository %d: %w", id, knowledge.ErrNotFound)
	}
	rows, err := s.queries.RepositoryPage(ctx, db.RepositoryPageParams{OnlyID: id, MaxRows: 1})
	if err != nil {
		return knowledge.Repository{}, fmt.Errorf("read repository %d: %w", id, translate(err))
	}
	if len(rows) == 0 {
		return knowledge.Repository{}, fmt.Errorf("repository %d: %w", id, knowledge.ErrNotFound)
	}
	return repository(rows[0]), nil
}

// Repositories implements knowledge.RepositoryStore.
func (s *Store) Repositories(ctx context.Context, after int64, limit int) ([]knowledge.Repository, error) {
	rows, err := s.queries.RepositoryPage(ctx, db.RepositoryPageParams{AfterID: after, MaxRows: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("list repositories: %w", translate(err))
	}
	out := make([]knowledge.Repository, len(rows))
	for i, r := range rows {
		out[i] = repository(r)
	}
	return out, nil
}

func repository(r db.RepositoryPageRow) knowledge.Repository {
	out := knowledge.Repository{
		ID: r.ID, Name: r.Name, Description: r.Description, Language: r.Language,
		Space:       knowledge.Space{ID: r.SpaceID, Model: r.Model, Dimensions: int(r.Dimensions)},
		ChunkTokens: int(r.ChunkTokens), ChunkOverlap: int(r.ChunkOverlap), Documents: r.Documents, Pending: r.Pending, Chunks: r.Chunks,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
	if r.BuildingID != 0 {
		out.Building = &knowledge.Building{
			Space:    knowledge.Space{ID: r.BuildingID, Model: r.BuildingModel, Dimensions: int(r.BuildingDimensions)},
			Progress: int(r.BuildingProgress), Error: r.BuildingError,
		}
	}
	return out
}

// UpdateRepository implements knowledge.RepositoryStore.
func (s *Store) UpdateRepository(ctx context.Context, r knowledge.Repository) (knowledge.Repository, error) {
	_, err := s.queries.RepositoryUpdate(ctx, db.RepositoryUpdateParams{ID: r.ID, Name: r.Name, Description: r.Description})
	switch {
	case isCode(err, uniqueViolation):
		err = knowledge.ErrNameTaken
	default:
		err = translate(notFound(err, knowledge.ErrNotFound))
	}
	if err != nil {
		return knowledge.Repository{}, fmt.Errorf("update repository %d: %w", r.ID, err)
	}
	return s.Repository(ctx, r.ID)
}

// DeleteRepository implements knowledge.RepositoryStore.
func (s *Store) DeleteRepository(ctx context.Context, id int64) error {
	err := s.inTx(ctx, func(q *db.Queries) error {
		if err := q.SpacesLock(ctx); err != nil {
			return err
		}
		spaces, err := q.RepositorySpaces(ctx, id)
		if err != nil {
			return err
		}
		if err := q.ResponseCacheForgetRepository(ctx, id); err != nil {
			return err
		}
		n, err := q.RepositoryDelete(ctx, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return knowledge.ErrNotFound
		}
		for _, space := range spaces {
			if err := q.SpaceDrop(ctx, space); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete repository %d: %w", id, err)
	}
	return nil
}

// Missing answers which of the repositories do not exist.
func (s *Store) Missing(ctx context.Context, repositories []int64) ([]int64, error) {
	ids, err := s.queries.RepositoriesMissing(ctx, repositories)
	if err != nil {
		return nil, fmt.Errorf("look up repositories: %w", translate(err))
	}
	return ids, nil
}

// notFound replaces the absence of a row by an error of the domain.
func notFound(err, absent error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return absent
	}
	return err
}

// errOvertaken says that another upload of the same name came between looking for the
// document and making it.
var errOvertaken = errors.New("another upload of the same name came first")

// SaveUpload implements knowledge.DocumentStore.
func (s *Store) SaveUpload(ctx context.Context, repository int64, u knowledge.Upload) (d knowledge.Document, unchanged bool, err error) {
	for {
		// Each time round, another upload has got through; the next look finds its document
		// and waits for the lock on it.
		if d, unchanged, err = s.saveUpload(ctx, repository, u); !errors.Is(err, errOvertaken) {
			return d, unchanged, err
		}
	}
}

func (s *Store) saveUpload(ctx context.Context, repository int64, u knowledge.Upload) (d knowledge.Document, unchanged bool, err error) {
	hash := sha256.Sum256(u.Data)
	metadata := []byte(u.Metadata)
	if metadata == nil {
		metadata = []byte("{}")
	}
	data := u.Data
	if data == nil {
		data = []byte{}
	}
	err = s.inJobTx(ctx, func(q *db.Queries, jobs queue) error {
		found, err := q.DocumentByName(ctx, db.DocumentByNameParams{RepositoryID: repository, Name: u.Name})
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		// What is at an address is known only after it was fetched.
		if err == nil && u.URL == "" && found.Status != string(knowledge.StatusFailed) && string(found.ContentHash) == string(hash[:]) {
			same, err := q.DocumentSameMetadata(ctx, db.DocumentSameMetadataParams{ID: found.ID, Metadata: metadata})
			if err != nil {
				return err
			}
			if same {
				d, unchanged = documentOf(found), true
				return nil
			}
		}
		row, err := q.DocumentUpsert(ctx, db.DocumentUpsertParams{
			RepositoryID: repository, Name: u.Name, MediaType: u.MediaType, Bytes: int64(len(u.Data)), ContentHash: hash[:], Metadata: metadata,
		})
		if isCode(err, foreignKeyViolation) {
			return knowledge.ErrNotFound
		}
		if err != nil {
			return err
		}
		if row.Uploaded != found.Uploaded+1 {
			return errOvertaken
		}
		d = documentOf(row)
		var address *string
		if u.URL != "" {
			address = &u.URL
		}
		if err := q.DocumentUploadInsert(ctx, db.DocumentUploadInsertParams{
			DocumentID: row.ID, Version: row.Uploaded, MediaType: u.MediaType, Metadata: metadata, Url: address, Data: data,
		}); err != nil {
			return err
		}
		if err := q.DocumentUploadsDelete(ctx, db.DocumentUploadsDeleteParams{DocumentID: row.ID, Version: row.Uploaded - 1}); err != nil {
			return err
		}
		return jobs.ingest(ctx, row.ID, row.Uploaded, u.URL != "" || len(u.Data) > smallUpload)
	})
	if err != nil {
		return knowledge.Document{}, false, fmt.Errorf("save %s in repository %d: %w", u.Name, repository, err)
	}
	failpoint.Reach(failpoint.UploadCommitted)
	return d, unchanged, nil
}

// Document implements knowledge.DocumentStore.
func (s *Store) Document(ctx context.Context, repository, id int64) (knowledge.Document, error) {
	row, err := s.queries.DocumentGet(ctx, db.DocumentGetParams{RepositoryID: repository, ID: id})
	if err != nil {
		return knowledge.Document{}, fmt.Errorf("read document %d: %w", id, translate(notFound(err, knowledge.ErrNotFound)))
	}
	return documentOf(row), nil
}

// Documents implements knowledge.DocumentStore.
func (s *Store) Documents(ctx context.Context, repository, after int64, status knowledge.Status, limit int) ([]knowledge.Document, error) {
	rows, err := s.queries.DocumentPage(ctx, db.DocumentPageParams{RepositoryID: repository, AfterID: after, Status: string(status), MaxRows: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("list documents of repository %d: %w", repository, translate(err))
	}
	out := make([]knowledge.Document, len(rows))
	for i, r := range rows {
		out[i] = documentOf(r)
	}
	return out, nil
}

func documentOf(r db.Document) knowledge.Document {
	d := knowledge.Document{
		ID: r.ID, RepositoryID: r.RepositoryID, Name: r.Name, Version: int(r.Version), Uploaded: int(r.Uploaded), Status: knowledge.Status(r.Status),
		Progress: int(r.Progress), MediaType: r.MediaType, Bytes: r.Bytes, ContentHash: r.ContentHash, Metadata: r.Metadata,
		Chunks: int(r.Chunks), Tokens: r.Tokens, Cut: int(r.CutChunks), CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
	if r.Error != nil {
		d.Error = *r.Error
	}
	if d.Status == knowledge.StatusReady && d.Uploaded > d.Version {
		d.Unchanged, d.Uploaded = true, d.Version // the number was given back
	}
	return d
}

// DeleteDocument implements knowledge.DocumentStore.
func (s *Store) DeleteDocument(ctx context.Context, repository, id int64) error {
	err := s.inTx(ctx, func(q *db.Queries) error {
		// What is being stored of it is counted first, or not at all.
		if _, err := q.DocumentHold(ctx, db.DocumentHoldParams{RepositoryID: repository, ID: id}); err != nil {
			return notFound(err, knowledge.ErrNotFound)
		}
		if err := q.ChunkForgetWords(ctx, db.ChunkForgetWordsParams{DocumentID: id}); err != nil {
			return err
		}
		if _, err := q.ResponseCacheForgetDocuments(ctx, []int64{id}); err != nil {
			return err
		}
		_, err := q.DocumentDelete(ctx, db.DocumentDeleteParams{RepositoryID: repository, ID: id})
		return notFound(err, knowledge.ErrNotFound)
	})
	if err != nil {
		return fmt.Errorf("delete document %d: %w", id, err)
	}
	return nil
}
