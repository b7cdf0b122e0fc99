package main

import (
	"context"
	"errors"
	"time"

	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/postgres"
)

// knowledgeFlags configure what becomes of documents.
type knowledgeFlags struct {
	MaxUpload     int64 `help:"Largest request with a document, in bytes." default:"33554432" environ:"CHAINSTREAM_MAX_UPLOAD"`
	IngestWorkers int   `help:"Documents processed at a time." default:"2" environ:"CHAINSTREAM_INGEST_WORKERS"`
}

func (f knowledgeFlags) validate() error {
	if f.MaxUpload < 1 || f.IngestWorkers < 1 {
		return errors.New("--max-upload and --ingest-workers must be at least 1")
	}
	return nil
}

// ingestTurn is how long a document is worked on before others have their turn. It
// is far below what the queue takes for the death of a server.
const ingestTurn = 15 * time.Second

// wireKnowledge sets up the processing of documents, and answers who searches them.
func (s *server) wireKnowledge(models knowledge.Embeddings, getenv func(string) string) (*knowledge.Searcher, error) {
	pdfium, _ := s.flags.pdfiumFile(getenv) // documents that need it say that it is missing
	ingester := &knowledge.Ingester{
		Store: s.store, Extractor: extractor{pdfium: pdfium}, Embeddings: models, Retry: s.flags.retry(), Turn: ingestTurn, Logger: s.logger,
	}
	var err error
	s.jobs, err = s.store.Jobs(postgres.JobsConfig{
		Ingest: ingester.Process, GaveUp: ingester.GiveUp, Workers: s.flags.IngestWorkers, Logger: s.logger,
	})
	return &knowledge.Searcher{Store: s.store, Embeddings: models, Retry: s.flags.retry(), Logger: s.logger}, err
}

// stopJobs lets the current turns end, for as long as ctx allows. What is cut off
// goes on after the next start.
func (s *server) stopJobs(ctx context.Context) {
	if err := s.jobs.Stop(ctx); err != nil && ctx.Err() == nil {
		s.logger.WarnContext(ctx, "background work not stopped", "error", err)
	}
}
