package main

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/docs"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm/offline"
)

// docsRepository is the name of the repository that the examples ask, and
// docsDescription how it is told from one that a user has made.
const (
	docsRepository  = "chainstream-docs"
	docsDescription = "Chainstream's own documentation, for the example search-the-docs. It is kept up to date at every start; delete it when it is not needed."
)

// Sizes of its passages: what the offline model reads of a text.
const (
	docsChunkTokens  = 128
	docsChunkOverlap = 16
)

// seedDocs makes the repository of the documentation and answers its id. Its pages
// are processed in the background.
func (s *server) seedDocs(ctx context.Context) (int64, error) {
	model := offline.Name + "/" + offline.SentenceModel
	e, err := s.vectors.Embedding(model)
	if err != nil {
		model = offline.Name + "/" + offline.HashModel
		e, err = s.vectors.Embedding(model)
	}
	if err != nil {
		return 0, err
	}
	size, err := knowledge.Measure(ctx, e, 0, s.flags.retry())
	if err != nil {
		return 0, err
	}
	r, err := s.store.CreateRepository(ctx, knowledge.Repository{
		Name: docsRepository, Description: docsDescription, Language: "english", ChunkTokens: docsChunkTokens, ChunkOverlap: docsChunkOverlap,
		Space: knowledge.Space{Model: model, Dimensions: size},
	})
	if err != nil {
		return 0, err
	}
	return r.ID, s.saveDocs(ctx, r.ID, nil)
}

// saveDocs stores the pages, of those that are there already what has changed. only
// says which ones; nil = all.
func (s *server) saveDocs(ctx context.Context, repository int64, only map[string]bool) error {
	names, err := fs.Glob(docs.Files, "*.md")
	if err != nil {
		return fmt.Errorf("list the documentation: %w", err)
	}
	for _, name := range names {
		if only != nil && !only[name] {
			continue
		}
		data, err := docs.Files.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read the documentation: %w", err)
		}
		if _, _, err := s.store.SaveUpload(ctx, repository, knowledge.Upload{Name: name, MediaType: "text/markdown", Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// refreshDocs brings the documentation of an older version up to date. Pages that
// somebody deleted stay away.
func (s *server) refreshDocs(ctx context.Context) error {
	repositories, err := s.store.Repositories(ctx, 0, 1)
	if err != nil || len(repositories) == 0 || repositories[0].Description != docsDescription {
		return err
	}
	id := repositories[0].ID
	documents, err := s.store.Documents(ctx, id, 0, "", 200)
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(documents))
	for _, d := range documents {
		there[d.Name] = true
	}
	return s.saveDocs(ctx, id, there)
}

// aim lets the prompts of a chain search one repository.
func aim(c *chain.Chain, repository int64) {
	for i := range c.Prompts {
		if k := c.Prompts[i].Knowledge; k != nil {
			k.Repositories = []int64{repository}
		}
	}
}
