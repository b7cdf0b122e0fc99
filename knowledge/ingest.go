package knowledge

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/chainstream/chainstream/knowledge/chunk"
	"github.com/chainstream/chainstream/knowledge/extract"
	"github.com/chainstream/chainstream/llm"
)

// Embedding is a model that turns texts into vectors of one length.
type Embedding struct {
	Embedder  llm.Embedder
	Model     string // as the provider knows it
	MaxTokens int    // of a text; what is longer is cut or refused; 0 = unknown
	Batch     int    // texts of one call, at most
	Count     func(text string) int64

	Exact       bool          // Count is the model's tokenizer, not an estimate
	Dimensions  int           // of the model's own vectors; 0 = unknown
	BatchTokens int           // tokens of the texts of one call together, at most; 0 = any number
	Timeout     time.Duration // of one call; 0 = DefaultEmbedTimeout
	// State is what this process has learned of the model; nil = nothing is kept.
	State *EmbeddingState
	// Observe is told of every call, and of texts that were cut; it may be nil.
	Observe func(EmbeddingCall)
}

// Embeddings finds embedding models by provider/model.
type Embeddings interface {
	Embedding(id string) (Embedding, error)
}

// Extractor takes files apart. Its errors are those of package extract, or say
// that reading was cut off.
type Extractor interface {
	Extract(ctx context.Context, name, mediaType string, data []byte) ([]extract.Block, error)
}

// Fetcher fetches what is at a web address. Its errors are a *FetchError where users can
// be told why.
type Fetcher interface {
	Fetch(ctx context.Context, url string) (mediaType string, data []byte, err error)
}

// FetchError says why an address is not fetched, in a sentence for users.
type FetchError struct {
	Reason  string
	Passing bool // another try may help
	Err     error
}

// Error implements error.
func (e *FetchError) Error() string {
	if e.Err != nil {
		return e.Reason + " " + e.Err.Error()
	}
	return e.Reason
}

// Unwrap answers the cause.
func (e *FetchError) Unwrap() error { return e.Err }

// Ingester turns uploads into chunks with vectors. Every step can be repeated: what
// was interrupted goes on where it stopped.
type Ingester struct {
	Store      IngestStore
	Fetcher    Fetcher
	Extractor  Extractor
	Embeddings Embeddings
	Retry      llm.RetryPolicy
	Turn       time.Duration // after which Process stops at the next occasion; 0 = when all is done
	Logger     *slog.Logger
}

// Shares of the progress, in percent.
const (
	progressExtracted = 10
	progressChunked   = 20
	progressEmbedded  = 99
)

// errTurn says that the time of a turn is up.
var errTurn = errors.New("the turn is over")

// Process makes a version of a document ready for searches. again says that the
// turn was too short for all of it; the next one goes on. Otherwise an error that
// is nil means that nothing more is to be done for the version: it is ready, it has
// failed for good and its document says why, or a newer one has taken its place.
// Any other error is worth another try.
func (g *Ingester) Process(ctx context.Context, document int64, version int) (again bool, err error) {
	err = g.process(ctx, document, version)
	var bad *documentError
	switch {
	case errors.Is(err, errTurn), errors.Is(err, ErrSpaceChanged):
		return true, nil
	case errors.Is(err, ErrSuperseded):
		return false, nil
	case errors.As(err, &bad):
		g.Logger.InfoContext(ctx, "a document cannot be processed", "document_id", document, "version", version, "reason", bad.reason, "error", bad.err)
		if err := g.Store.Fail(ctx, document, version, bad.reason); err != nil && !errors.Is(err, ErrSuperseded) {
			return false, err
		}
		return false, nil
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		g.delayed(ctx, document, version, err)
	}
	return false, err
}

// delayed tells users and operators that a try has failed. It does not matter when the
// note cannot be made.
func (g *Ingester) delayed(ctx context.Context, document int64, version int, err error) {
	g.Logger.WarnContext(ctx, "a document waits for another try", "document_id", document, "version", version, "error", err)
	reason := "It could not be processed; the server's log says why."
	if e, ok := errors.AsType[*FetchError](err); ok {
		reason = e.Reason
	} else if e, ok := errors.AsType[*llm.Error](err); ok {
		reason = "The text could not be embedded: " + e.Message
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), delayedWithin) // the time of the try may be what is over
	defer cancel()
	if err := g.Store.Delay(within, document, version, reason+" It will be tried again."); err != nil && !errors.Is(err, ErrSuperseded) {
		g.Logger.WarnContext(ctx, "it is not noted why a document waits", "document_id", document, "version", version, "error", err)
	}
}

// delayedWithin bounds how long that takes.
const delayedWithin = 5 * time.Second

// GiveUp notes on a document that its version failed too often.
func (g *Ingester) GiveUp(ctx context.Context, document int64, version int) error {
	err := g.Store.Fail(ctx, document, version, "Processing failed too often. The server's log says why; upload the document again when that is mended.")
	if errors.Is(err, ErrSuperseded) {
		return nil
	}
	return err
}

// documentError is a failure that another try does not mend.
type documentError struct {
	reason string // for users
	err    error
}

func (e *documentError) Error() string { return e.reason }
func (e *documentError) Unwrap() error { return e.err }

func (g *Ingester) process(ctx context.Context, document int64, version int) error {
	ctx = OnBehalf(ctx, Owner{DocumentID: document})
	begin := time.Now()
	upload, repository, err := g.Store.Upload(ctx, document, version)
	if err != nil {
		return err
	}
	embedding, err := g.Embeddings.Embedding(repository.Space.Model)
	if err != nil {
		return &documentError{fmt.Sprintf("The embedding model %s cannot be called from this server: %s.", repository.Space.Model, err), err}
	}
	// An earlier turn, or try, may have come as far as the chunks.
	if upload.Chunks == 0 {
		if upload.URL != "" {
			if unchanged, err := g.fetch(ctx, document, version, &upload); err != nil || unchanged {
				return err
			}
		}
		if upload.Chunks, err = g.read(ctx, document, version, upload, repository, embedding); err != nil {
			return err
		}
	}
	if err := g.embed(ctx, document, version, upload.Chunks, repository.Space, embedding, begin); err != nil {
		return err
	}
	return g.Store.Publish(ctx, document, version)
}

// read makes the chunks of an upload and answers how many there are.
func (g *Ingester) read(ctx context.Context, document int64, version int, upload Upload, repository Repository, embedding Embedding) (int, error) {
	blocks, err := g.Extractor.Extract(ctx, upload.Name, upload.MediaType, upload.Data)
	if err != nil {
		return 0, extractError(ctx, err)
	}
	if err := g.Store.Progress(ctx, document, version, progressExtracted); err != nil {
		return 0, err
	}
	chunks, err := cut(ctx, blocks, repository, embedding)
	if err != nil {
		return 0, err
	}
	if err := g.Store.SaveChunks(ctx, document, version, chunks); err != nil {
		return 0, err
	}
	return len(chunks), g.Store.Progress(ctx, document, version, progressChunked)
}

// fetch brings what is at the address of an upload. unchanged says that searches see
// it already, and that nothing is left to be done.
func (g *Ingester) fetch(ctx context.Context, document int64, version int, u *Upload) (unchanged bool, err error) {
	mediaType, data, err := g.Fetcher.Fetch(ctx, u.URL)
	if refused, ok := errors.AsType[*FetchError](err); ok && !refused.Passing {
		return false, &documentError{reason: refused.Reason, err: err}
	}
	if err != nil {
		return false, err
	}
	u.MediaType, u.Data = mediaType, data
	return g.Store.SaveFetched(ctx, document, version, mediaType, data)
}

func extractError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, known := range []error{
		extract.ErrUnsupported, extract.ErrInvalid, extract.ErrEncoding, extract.ErrEncrypted, extract.ErrTooLarge, extract.ErrEmpty,
	} {
		if errors.Is(err, known) {
			return &documentError{reason: sentence(known.Error()), err: err}
		}
	}
	return err
}

// sentence makes a sentence of the text of an error.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:] + "."
}

// cut makes the chunks of a document.
func cut(ctx context.Context, blocks []extract.Block, r Repository, e Embedding) ([]Chunk, error) {
	most := r.ChunkTokens
	if e.MaxTokens > 0 {
		most = min(most, e.MaxTokens)
	}
	pieces, err := chunk.Split(ctx, blocks, chunk.Options{
		MaxTokens: most, Overlap: r.ChunkOverlap, Count: func(text string) int { return int(e.Count(text)) },
	})
	if err != nil {
		return nil, err
	}
	chunks := make([]Chunk, len(pieces))
	for i, p := range pieces {
		hash := sha256.Sum256([]byte(p.Embedded()))
		chunks[i] = Chunk{
			Ordinal: i, Headings: p.Path(), Text: p.Text, Page: p.Page, Tokens: p.Tokens, ContentHash: hash[:],
		}
	}
	return chunks, nil
}

// embedded is the text of a stored chunk that its vector stands for.
func (c Chunk) embedded() string { return chunk.Embedded(c.Headings, c.Text) }

// embed makes the vectors that a version still lacks, batch after batch, one at
// least in a turn.
func (g *Ingester) embed(ctx context.Context, document int64, version, total int, space Space, e Embedding, begin time.Time) error {
	for {
		missing, err := g.Store.Unembedded(ctx, document, version, space, max(e.Batch, 1))
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		if err := embedChunks(ctx, e, missing, space, g.Store.SaveVectors, g.Retry); err != nil {
			return err
		}
		done := missing[len(missing)-1].Ordinal + 1
		if err := g.Store.Progress(ctx, document, version, progressChunked+(progressEmbedded-progressChunked)*min(done, total)/max(total, 1)); err != nil {
			return err
		}
		if g.Turn > 0 && time.Since(begin) >= g.Turn {
			return errTurn
		}
	}
}

func embedError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrDimensions) {
		return &documentError{"The embedding model answered vectors of another length than the repository's.", err}
	}
	var e *llm.Error
	if ctx.Err() == nil && errors.As(err, &e) && !e.Retryable {
		return &documentError{reason: "The text could not be embedded: " + e.Message, err: err}
	}
	return err
}
