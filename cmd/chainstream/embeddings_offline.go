package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/offline"
	"github.com/chainstream/chainstream/llm/uselite"
)

// modelDirectories answers where files of models may be, the first ones first.
func (f modelFlags) modelDirectories(getenv func(string) string) []string {
	if f.ModelsDir != "" {
		return []string{f.ModelsDir}
	}
	var dirs []string
	if program, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(program), "models"))
	}
	dirs = append(dirs, filepath.Join("build", "models"))
	data := f.dataDir
	if data == "" {
		data, _ = databaseFlags{DataDir: getenv("CHAINSTREAM_DATA_DIR")}.directory(getenv) // none is no place to look at
	}
	if data != "" {
		dirs = append(dirs, filepath.Join(data, "models"))
	}
	return dirs
}

// pdfiumFile answers where PDFium is. The error wraps fs.ErrNotExist.
func (f modelFlags) pdfiumFile(getenv func(string) string) (string, error) {
	dirs := f.modelDirectories(getenv)
	for _, dir := range dirs {
		file := filepath.Join(dir, "pdfium", "pdfium.wasm")
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("PDFium is not in %s: %w", dirs[0], fs.ErrNotExist)
}

// sentences is the embedding model whose files are read when it is first used.
func (f modelFlags) sentences(getenv func(string) string) *uselite.Embedder {
	var dirs []fs.FS
	for _, dir := range f.modelDirectories(getenv) {
		dirs = append(dirs, os.DirFS(filepath.Join(dir, uselite.Name)))
	}
	return uselite.NewEmbedder(dirs...)
}

// offlineModels are the embedding models that need neither a key nor a network.
func offlineModels(sentences *uselite.Embedder) []llm.EmbeddingModel {
	return []llm.EmbeddingModel{
		{ID: offline.SentenceModel, Label: "Universal Sentence Encoder lite, English", Dimensions: uselite.Dimensions, MaxTokens: uselite.MaxTokens, Info: llm.Info{Prices: llm.Free()}, Available: sentences.Present},
		{ID: offline.HashModel, Label: offline.HashLabel, Dimensions: offline.HashDimensions, Info: llm.Info{Prices: llm.Free()}},
	}
}

// offlineBatch is how many texts are embedded between two looks at what has become
// of a document: about a second's work.
const offlineBatch = 32

// offlineEmbedding answers an embedding model of the offline provider, as
// knowledge.Embeddings does.
func offlineEmbedding(target llm.Target) (knowledge.Embedding, error) {
	provider, ok := target.Provider.(offline.Provider)
	if !ok {
		return knowledge.Embedding{}, fmt.Errorf("%w: %q", llm.ErrUnknownProvider, target.ID)
	}
	e := knowledge.Embedding{Embedder: provider, Model: target.Model, Batch: offlineBatch, Count: llm.EstimateTokens}
	switch target.Model {
	case offline.HashModel:
		e.Dimensions = offline.HashDimensions
		return e, nil
	case offline.SentenceModel:
		sentences, ok := provider.Sentences.(*uselite.Embedder)
		if !ok {
			break
		}
		model, err := sentences.Model()
		if err != nil {
			return knowledge.Embedding{}, fmt.Errorf("%w; %s", err, uselite.Remedy)
		}
		e.Dimensions, e.Exact = uselite.Dimensions, true
		e.MaxTokens, e.Count = uselite.MaxTokens, func(text string) int64 { return int64(model.Count(text)) }
		return e, nil
	}
	return knowledge.Embedding{}, fmt.Errorf("%w: %q is no embedding model", llm.ErrUnknownModel, target.ID)
}

// files looks for what is read beside the program. Neither is needed by a server
// that has no documents.
func (e *examination) files() {
	f := e.command.modelFlags
	f.dataDir, _ = e.command.directory(e.app.getenv) // database says what is wrong with it
	switch _, err := f.sentences(e.app.getenv).Model(); {
	case err == nil:
		e.add(uselite.Name, verdictOK, "the embedding model %s/%s can be used, without a key and a network", offline.Name, uselite.Name)
	default:
		e.add(uselite.Name, verdictNote, "%s; %s. Until then only %s/%s embeds without a key (%s)", err, uselite.Remedy, offline.Name, offline.HashModel, offline.HashLabel)
	}
	if file, err := f.pdfiumFile(e.app.getenv); err != nil {
		e.add("pdfium", verdictNote, "missing, so that PDF documents cannot be read; %s", uselite.Remedy)
	} else {
		e.add("pdfium", verdictOK, "%s", file)
	}
}
