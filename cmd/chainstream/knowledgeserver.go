package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/egress"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/knowledge/rerank"
	"github.com/chainstream/chainstream/postgres"
)

// knowledgeFlags configure what becomes of documents.
type knowledgeFlags struct {
	MaxUpload      int64         `help:"Largest request with a document, in bytes." default:"33554432" environ:"CHAINSTREAM_MAX_UPLOAD"`
	EmbeddingModel string        `help:"Embedding model of repositories that name none." default:"offline/use-lite" placeholder:"PROVIDER/MODEL" environ:"CHAINSTREAM_EMBEDDING_MODEL"`
	IngestWorkers  int           `help:"Documents processed at a time." default:"2" environ:"CHAINSTREAM_INGEST_WORKERS"`
	FetchAllow     []string      `help:"Networks of your own that documents may be fetched from by their addresses, such as 10.0.0.0/8; all that is not public is refused otherwise." placeholder:"NETWORK" environ:"CHAINSTREAM_FETCH_ALLOW"`
	RerankURL      string        `name:"rerank-url" help:"Address of a server that puts passages into a better order, such as https://api.example.com/v1/rerank; its key is read from CHAINSTREAM_RERANK_KEY." placeholder:"URL" environ:"CHAINSTREAM_RERANK_URL"`
	RerankModel    string        `help:"Model that this server is asked for." placeholder:"NAME" environ:"CHAINSTREAM_RERANK_MODEL"`
	RerankTimeout  time.Duration `help:"How long a search waits for this server before it keeps its own order." default:"5s" environ:"CHAINSTREAM_RERANK_TIMEOUT"`
}

func (f knowledgeFlags) validate() error {
	if f.RerankTimeout <= 0 {
		return errors.New("--rerank-timeout must be longer than nothing")
	}
	if f.MaxUpload < 1 || f.IngestWorkers < 1 {
		return errors.New("--max-upload and --ingest-workers must be at least 1")
	}
	_, err := f.allowed()
	return err
}

// ingestTurn is how long a document is worked on before others have their turn. It
// is far below what the queue takes for the death of a server.
const ingestTurn = 15 * time.Second

// wireKnowledge sets up the processing of documents, and answers who searches them.
func (s *server) wireKnowledge(models knowledge.Embeddings, owner string, getenv func(string) string) (*knowledge.Searcher, error) {
	pdfium, _ := s.flags.pdfiumFile(getenv) // documents that need it say that it is missing
	allowed, err := s.flags.allowed()
	if err != nil {
		return nil, err
	}
	ingester := &knowledge.Ingester{
		Store: s.store, Fetcher: fetcher{egress.New(egress.Config{Allow: allowed, Most: s.flags.MaxUpload})}, Extractor: extractor{pdfium: pdfium}, Embeddings: models, Retry: s.flags.retry(), Turn: ingestTurn, Logger: s.logger,
	}
	remodeller := &knowledge.Remodeller{Store: s.store, Embeddings: models, Retry: s.flags.retry(), Turn: ingestTurn, Logger: s.logger}
	s.jobs, err = s.store.Jobs(postgres.JobsConfig{
		Ingest: ingester.Process, GaveUp: ingester.GiveUp, Remodel: remodeller.Process, GaveUpRemodel: remodeller.GiveUp,
		Workers: s.flags.IngestWorkers, Owner: owner, Gone: gone, Logger: s.logger,
	})
	if err != nil {
		return nil, err
	}
	search := &knowledge.Searcher{Store: s.store, Embeddings: models, Retry: s.flags.retry(), Logger: s.logger}
	if s.flags.RerankURL != "" {
		client, err := rerank.New(rerank.Config{
			URL: s.flags.RerankURL, Key: getenv(rerankKey), Model: s.flags.RerankModel, Timeout: s.flags.RerankTimeout, Client: s.client,
		})
		if err != nil {
			return nil, &exitError{code: exitFailed, err: err, message: fmt.Sprintf("%s; check --rerank-url (CHAINSTREAM_RERANK_URL) and %s", err, rerankKey)}
		}
		search.Reranker = client
	}
	return search, nil
}

// rerankKey is the environment variable of the key of the rerank server.
const rerankKey = "CHAINSTREAM_RERANK_KEY"

// stopJobs lets the current turns end, for as long as ctx allows. What is cut off
// goes on after the next start.
func (s *server) stopJobs(ctx context.Context) {
	if err := s.jobs.Stop(ctx); err != nil && ctx.Err() == nil {
		s.logger.WarnContext(ctx, "background work not stopped", "error", err)
	}
}

// ownerName names a process, for whoever shares the database with it.
func ownerName(host string, pid int, unique string) string {
	return fmt.Sprintf("%s/%d/%s", shortHost(host), pid, unique)
}

// shortHost is as much of a host's name as tells it from others.
func shortHost(host string) string { return host[:min(len(host), 40)] }

// gone tells whether the process of an owner has ended for sure: it was on this
// machine and is not there any more.
func gone(owner string) bool {
	host, err := os.Hostname()
	if err != nil {
		return false
	}
	name, rest, _ := strings.Cut(owner, "/")
	number, _, _ := strings.Cut(rest, "/")
	pid, err := strconv.Atoi(number)
	if name != shortHost(host) || err != nil {
		return false
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
