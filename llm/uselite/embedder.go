package uselite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/chainstream/chainstream/llm"
)

// Name is the model's name.
const Name = "use-lite"

// Remedy says how the files of the model come to be where they are looked for.
const Remedy = "run make models in a clone of the Chainstream repository, or name their folder with --models-dir (CHAINSTREAM_MODELS_DIR)"

// ErrMissing says that the files of the model are not there.
var ErrMissing = errors.New("the files of the embedding model use-lite are missing")

// Embedder makes vectors of texts with the model. It loads the model when it is
// first needed, 28 MB, and then keeps it; where that fails, the next call tries
// again. At most as many texts are worked on at a time as there are cores, over
// all calls. It is safe for concurrent use.
type Embedder struct {
	dirs  []fs.FS
	cores chan struct{}

	mu    sync.Mutex
	model *Model
}

// NewEmbedder answers an embedder that reads the model from the first of the
// directories that has it.
func NewEmbedder(dirs ...fs.FS) *Embedder {
	return &Embedder{dirs: dirs, cores: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// Model answers the model. Errors: ErrMissing, or what is wrong with its files.
func (e *Embedder) Model() (*Model, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.model != nil {
		return e.model, nil
	}
	for _, dir := range e.dirs {
		model, err := Load(dir)
		switch {
		case err == nil:
			e.model = model
			return model, nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return nil, ErrMissing
}

// Present tells whether the model's files are there, without reading them.
func (e *Embedder) Present() bool {
	for _, dir := range e.dirs {
		if _, err := fs.Stat(dir, graphFile); err == nil {
			return true
		}
	}
	return false
}

// Embed implements llm.Embedder. The vectors have Dimensions numbers; another
// length, or another model than Name, is refused.
func (e *Embedder) Embed(ctx context.Context, model string, texts []string, dimensions int) ([][]float32, llm.Usage, error) {
	if model != Name {
		return nil, llm.Usage{}, refuse(llm.CodeNotFound, nil, "the embedding model here is %q, not %q", Name, model)
	}
	if dimensions != 0 && dimensions != Dimensions {
		return nil, llm.Usage{}, refuse(llm.CodeInvalidRequest, nil, "the vectors of %s have %d dimensions, not %d", Name, Dimensions, dimensions)
	}
	m, err := e.Model()
	if err != nil {
		return nil, llm.Usage{}, refuse(llm.CodeNotFound, err, "%s: %s", err, Remedy)
	}
	vectors, counts := make([][]float32, len(texts)), make([]int64, len(texts))
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(cap(e.cores))
	for i, text := range texts {
		group.Go(func() error {
			select {
			case e.cores <- struct{}{}:
			case <-within.Done():
				return within.Err()
			}
			defer func() { <-e.cores }()
			vectors[i], counts[i] = m.embed(text)
			return nil
		})
	}
	if err := group.Wait(); err != nil || ctx.Err() != nil {
		return nil, llm.Usage{}, llm.ContextError(ctx)
	}
	var usage llm.Usage
	for _, n := range counts {
		usage.InputTokens += n
	}
	return vectors, usage, nil
}

func refuse(code llm.Code, cause error, format string, args ...any) *llm.Error {
	e := llm.NewError(code, cause)
	e.Detail = llm.Redact(fmt.Sprintf(format, args...))
	return e
}
