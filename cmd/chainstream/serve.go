package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/examples"
	"github.com/chainstream/chainstream/llm/offline"
)

// serveCommand is chainstream serve.
type serveCommand struct {
	Addr string `help:"Address to listen on; loopback only." default:"127.0.0.1:8080" environ:"CHAINSTREAM_ADDR"`
	serverFlags
}

// Help is shown by chainstream serve --help.
func (serveCommand) Help() string {
	return `Without a database URL the server runs a PostgreSQL of its own in the data directory. A server without any chain starts with the examples, which need no API key.

Model providers are configured by the environment: OPENAI_API_KEY, OPENAI_BASE_URL, ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL, GEMINI_API_KEY, GEMINI_BASE_URL, OLLAMA_BASE_URL, LMSTUDIO_BASE_URL.

SIGTERM or Ctrl-C stops it: streams are told to reconnect, running executions get --shutdown-timeout to finish and are otherwise continued after the next start. A second signal hurries.

Examples:

    chainstream serve
    chainstream serve --addr 127.0.0.1:9000 --data-dir ./data
    chainstream serve --database-url postgres://chainstream@db.internal/chainstream --workers 0`
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, a *app) error {
	logger, err := c.logger(a.stderr)
	if err != nil {
		return err
	}
	s, err := startServer(ctx, c.serverFlags, c.Addr, a.getenv, logger)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it was up, as asked
		}
		return err
	}
	if err := s.seed(ctx); err != nil {
		logger.WarnContext(ctx, "example chains not stored", "error", err)
	}
	a.banner(s)
	logger.InfoContext(ctx, "server ready", "url", s.url(), "workers", c.Workers, "version", version())

	var failure error
	select {
	case <-ctx.Done():
		logger.InfoContext(ctx, "stopping", "shutdown_timeout", c.ShutdownTimeout.String())
	case <-s.served:
		failure = s.serveErr
	case <-s.database.died():
		failure = s.database.failure()
	}
	// ctx has had its signal; the next one hurries.
	hurry, done := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt, syscall.SIGTERM)
	defer done()
	if err := s.stop(hurry); err != nil {
		logger.WarnContext(hurry, "not everything stopped in order", "error", err)
	}
	logger.InfoContext(hurry, "stopped")
	return failure
}

// seed stores the examples where there is no chain at all.
func (s *server) seed(ctx context.Context) error {
	stored, err := s.store.Chains(ctx, 0, 1)
	if err != nil || len(stored) > 0 {
		return err
	}
	documents, err := examples.All()
	if err != nil {
		return err
	}
	for _, d := range documents {
		parsed, err := chain.Parse(d.YAML, chain.FormatYAML)
		if err != nil {
			return fmt.Errorf("read the example %s: %w", d.Name, err)
		}
		if _, err := s.store.CreateChain(ctx, parsed); err != nil && !errors.Is(err, chain.ErrNameTaken) {
			return err
		}
		s.logger.InfoContext(ctx, "example chain stored", slog.String("chain", parsed.Name))
	}
	return nil
}

// banner tells a newcomer what to do now.
func (a *app) banner(s *server) {
	fmt.Fprintf(a.stdout, `
  Chainstream is running at %[1]s

  Open it in a browser and press Run on research-brief, or in a terminal:

    curl -N -X POST %[1]s/api/v1/executions -H 'Accept: text/event-stream' \
      -H 'Content-Type: application/json' -d '{"chain": "research-brief", "inputs": {"topic": "river deltas"}}'

  The examples run on %[2]s/%[3]s, the built-in demo model: no API key, no real language model.
  Data: %[4]s. Ctrl-C stops the server.

`, s.url(), offline.Name, offline.Model, s.database.where) //nolint:errcheck // a closed terminal is no reason not to serve
}
