package knowledge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Repository is a collection of documents that are searched together. All its
// vectors are by one model.
type Repository struct {
	ID           int64
	Name         string
	Description  string
	Language     string    // text search configuration of PostgreSQL, such as english or simple
	Space        Space     // that searches use
	Building     *Building // to take its place; nil when none is
	ChunkTokens  int
	ChunkOverlap int
	Documents    int64
	Pending      int64 // documents that are being processed
	Chunks       int64
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Space holds the vectors of a repository by one model.
type Space struct {
	ID         int64
	Model      string // provider/model
	Dimensions int
}

// Building is a space that is being filled to take the place of another.
type Building struct {
	Space
	Progress int    // 0–100
	Error    string // why it cannot be filled, for users; the other one stays
}

// Status says where the newest version of a document stands.
type Status string

// The states of a document.
const (
	StatusProcessing Status = "processing"
	StatusReady      Status = "ready"
	StatusFailed     Status = "failed"
)

// Document is a document of a repository. An upload under the name of one makes
// its next version, which takes the place of the last one when it is ready.
type Document struct {
	ID           int64
	RepositoryID int64
	Name         string
	Version      int // that searches see; 0 = none yet
	Uploaded     int // the newest; above Version while it is processed, or when it failed
	Status       Status
	Unchanged    bool   // what was at the address last was that of Version, and nothing was stored
	Error        string // why it has failed or, while it is processed, why it waits for another try; safe for users
	Progress     int    // 0–100
	MediaType    string
	Bytes        int64
	ContentHash  []byte          // SHA-256 of the file
	Metadata     json.RawMessage // object
	Chunks       int
	Tokens       int64
	Cut          int // chunks that are longer than the model reads, and found by their beginning
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Notices tell users what was lost of the version that searches see, in sentences.
func (d Document) Notices() []string {
	notices := []string{}
	switch {
	case d.Cut == 1:
		notices = append(notices, "1 passage was longer than the model reads and was embedded by its beginning.")
	case d.Cut > 1:
		notices = append(notices, fmt.Sprintf("%d passages were longer than the model reads and were embedded by their beginning.", d.Cut))
	}
	return notices
}

// Changes are what happened to the documents of a repository.
type Changes struct {
	Documents []Change
	Cursor    string // to go on after
	Anew      bool   // the cursor was too old: these are not the changes since
}

// Change names a document that has changed.
type Change struct {
	DocumentID int64
	Deleted    bool
}

// Upload is a file on its way into a repository.
type Upload struct {
	Name      string
	MediaType string          // may be empty
	Metadata  json.RawMessage // object; nil = none
	Data      []byte
	URL       string // where Data is to be fetched from; "" when it is here
	Chunks    int    // of it that are stored; 0 = it was not cut yet. Then Data is needed no more
}

// Chunk is a passage of a document, as it is stored.
type Chunk struct {
	ID          int64
	Ordinal     int // 0-based place in the document
	Headings    string
	Text        string
	Page        int // 1-based; 0 in formats without pages
	Tokens      int
	ContentHash []byte // SHA-256 of what is embedded
}

// Vector is what a model made of a chunk.
type Vector struct {
	Numbers []float32
	Cut     bool // it stands for the beginning of the text alone
}

// Errors about repositories and documents.
var (
	// ErrNotFound says that there is no such repository or document.
	ErrNotFound = errors.New("no such repository or document")
	// ErrNameTaken says that another repository has the name.
	ErrNameTaken = errors.New("a repository of this name exists")
	// ErrCursor says that a text is no cursor of Changes.
	ErrCursor = errors.New("this is no cursor")
	// ErrSuperseded says that a document was deleted, or uploaded anew, while a
	// version of it was processed.
	ErrSuperseded = errors.New("the document has changed")
	// ErrDimensions says that vectors do not have the length of their space.
	ErrDimensions = errors.New("the vectors have another length than those of the repository")
	// ErrSpaceChanged says that the repository uses another space by now.
	ErrSpaceChanged = errors.New("the repository has changed its embedding model")
	// ErrLanguage says that the database has no text search configuration of a
	// name.
	ErrLanguage = errors.New("the database knows no such language")
)

// RepositoryStore keeps repositories. Every method answers ErrNotFound for what
// does not exist.
type RepositoryStore interface {
	// CreateRepository answers ErrNameTaken and ErrLanguage.
	CreateRepository(ctx context.Context, r Repository) (Repository, error)
	Repository(ctx context.Context, id int64) (Repository, error)
	// Repositories answers up to limit repositories by id, above after.
	Repositories(ctx context.Context, after int64, limit int) ([]Repository, error)
	// UpdateRepository changes name and description.
	UpdateRepository(ctx context.Context, r Repository) (Repository, error)
	// ChangeModel begins to fill a space by another model, in place of one that is being
	// filled. The model that the repository has ends that, and nothing is to be filled.
	ChangeModel(ctx context.Context, repository int64, model Space) (Repository, error)
	// DeleteRepository removes a repository with everything in it.
	DeleteRepository(ctx context.Context, id int64) error
}

// DocumentStore keeps documents. Every method answers ErrNotFound for what does
// not exist.
type DocumentStore interface {
	// SaveUpload stores a file as the next version of the document of its name, to
	// be processed. unchanged says that the newest version is the same file with
	// the same metadata and nothing was stored.
	SaveUpload(ctx context.Context, repository int64, u Upload) (d Document, unchanged bool, err error)
	Document(ctx context.Context, repository, id int64) (Document, error)
	// Documents answers up to limit documents by id, above after; status "" is any.
	Documents(ctx context.Context, repository, after int64, status Status, limit int) ([]Document, error)
	// Changes answers which documents have changed after a cursor of an earlier answer,
	// those that changed first at the beginning; none that commits late is missed, and
	// some may be answered again. Without a cursor, or with one that is too old, those are
	// answered that are processed and those that changed last, up to limit. Errors:
	// ErrCursor.
	Changes(ctx context.Context, repository int64, after string, limit int) (Changes, error)
	// DocumentsOf answers those documents that are there, in the order of the ids.
	DocumentsOf(ctx context.Context, repository int64, ids []int64) ([]Document, error)
	// DeleteDocument removes a document with its chunks at once.
	DeleteDocument(ctx context.Context, repository, id int64) error
}

// IngestStore is what processing needs. Every method answers ErrSuperseded when
// the version is no longer the newest one.
type IngestStore interface {
	// Upload answers a file that waits to be processed, and its repository.
	Upload(ctx context.Context, document int64, version int) (Upload, Repository, error)
	// SaveFetched stores what was at the address of an upload. unchanged says that the
	// version that searches see is made of the same and has the same metadata: then the
	// new one is gone, and the document is ready as it was.
	SaveFetched(ctx context.Context, document int64, version int, mediaType string, data []byte) (unchanged bool, err error)
	// SaveChunks stores the chunks of a version, unless they are there already.
	SaveChunks(ctx context.Context, document int64, version int, chunks []Chunk) error
	// Unembedded answers up to limit chunks of a version that have no vector in a
	// space, by ordinal. Vectors of the same text by the same model are taken over
	// first.
	Unembedded(ctx context.Context, document int64, version int, space Space, limit int) ([]Chunk, error)
	// SaveVectors stores vectors of chunks in a space. ErrSpaceChanged says that it is gone.
	SaveVectors(ctx context.Context, space Space, vectors map[int64]Vector) error
	// Progress notes how far the processing is, in percent.
	Progress(ctx context.Context, document int64, version, percent int) error
	// Delay notes on a version why a try has failed, until the next one goes on.
	Delay(ctx context.Context, document int64, version int, reason string) error
	// Publish lets searches see a version, in place of the one before, which is
	// removed. ErrSpaceChanged says that it has to be embedded by another model first.
	Publish(ctx context.Context, document int64, version int) error
	// Fail notes that a version cannot be processed; the one before stays.
	Fail(ctx context.Context, document int64, version int, reason string) error
}

// ModelStore is what a change of the model needs.
type ModelStore interface {
	// Repository answers a repository, or ErrNotFound.
	Repository(ctx context.Context, id int64) (Repository, error)
	// Unfilled answers up to limit chunks of a repository, by id and above after, that
	// have no vector in a space. Vectors of the same text by the same model are taken
	// over first; last is the id to go on after, 0 at the end.
	Unfilled(ctx context.Context, repository int64, space Space, after int64, limit int) (chunks []Chunk, last int64, err error)
	// SaveVectors stores vectors of chunks in a space. ErrSpaceChanged says that it is gone.
	SaveVectors(ctx context.Context, space Space, vectors map[int64]Vector) error
	// FillProgress notes how far a space is filled.
	FillProgress(ctx context.Context, space int64) error
	// UseSpace lets searches use a space in place of the one before, which is removed.
	// done is false while vectors or their index are missing.
	UseSpace(ctx context.Context, repository, space int64) (done bool, err error)
	// FailSpace notes why a space cannot be filled.
	FailSpace(ctx context.Context, space int64, reason string) error
}
