package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/examples"
	"github.com/chainstream/chainstream/internal/heap"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm/offline"
)

// serveCommand is chainstream serve.
type serveCommand struct {
	Addr        string `help:"Address to listen on; loopback only." default:"127.0.0.1:8080" environ:"CHAINSTREAM_ADDR"`
	ExampleDocs bool   `help:"Begin with a repository of Chainstream's documentation, where there is no chain yet." default:"true" negatable:"" environ:"CHAINSTREAM_EXAMPLE_DOCS"`
	serverFlags
	logFlags
}

// Help is shown by chainstream serve --help.
func (serveCommand) Help() string {
	return `Without a database URL the server runs a PostgreSQL of its own in the data directory. A server without any chain starts with the examples, which need no API key.

Model providers are configured by the environment: OPENAI_API_KEY, OPENAI_BASE_URL, ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL, ANTHROPIC_PROMPT_CACHE, GEMINI_API_KEY, GEMINI_BASE_URL, OLLAMA_BASE_URL, LMSTUDIO_BASE_URL; further ones, and prices, by --models-file. chainstream models lists what there is.

SIGTERM or Ctrl-C stops it: streams are told to reconnect, and running executions are handed over to another server on the same database, or to the next start, as soon as their model calls have ended. Calls that take longer than --shutdown-timeout are interrupted and made again. A second signal hurries.

The server lets its heap grow to 32 MiB before Go's garbage collector runs; GOGC or GOMEMLIMIT in the environment turn that off and count instead.

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
	defer heap.Floor(heap.DefaultFloor, a.getenv)()
	s, err := startServer(ctx, c.serverFlags, c.Addr, a.getenv, logger)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it was up, as asked
		}
		return err
	}
	begin, err := s.seed(ctx, c.ExampleDocs)
	if err != nil {
		logger.WarnContext(ctx, "example chains not stored", "error", err)
	}
	a.banner(s, begin)
	logger.InfoContext(ctx, "server ready", "url", s.url(), "workers", c.Workers, "version", version())

	// A reader of the log that goes away is no reason to stop. Not ignored,
	// because the database would inherit that.
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE)
	defer signal.Stop(unread)

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
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop(hurry) }()
	select {
	case err := <-stopped:
		if err != nil {
			logger.WarnContext(hurry, "not everything stopped in order", "error", err)
		}
	case <-time.After(c.ShutdownTimeout + lastWait):
		// Something waits for a database that is away. What was shown is stored,
		// and leases run out, so nothing is lost by leaving.
		return errors.Join(failure, errors.New("the server did not stop in time; what was running is continued by the next start"))
	}
	logger.InfoContext(hurry, "stopped")
	return failure
}

// lastWait is how much longer than --shutdown-timeout a stop may take.
const lastWait = 5 * time.Second

// firstChain is the example that a newcomer is pointed to.
const firstChain = "research-brief"

// seed stores the examples where there is no chain at all, and tells whether the
// first of them is there.
func (s *server) seed(ctx context.Context, withDocs bool) (bool, error) {
	stored, err := s.store.Chains(ctx, 0, 1)
	if err != nil {
		return false, err
	}
	if len(stored) > 0 {
		if withDocs {
			if err := s.refreshDocs(ctx); err != nil {
				return false, err
			}
		}
		_, err := s.store.ChainByName(ctx, firstChain, 0)
		if errors.Is(err, chain.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	documents, err := examples.All()
	if err != nil {
		return false, err
	}
	var repository int64
	if withDocs {
		if repository, err = s.seedDocs(ctx); err != nil && !errors.Is(err, knowledge.ErrNameTaken) {
			return false, err
		}
	}
	for _, d := range documents {
		parsed, err := chain.Parse(d.YAML, chain.FormatYAML)
		if err != nil {
			return false, fmt.Errorf("read the example %s: %w", d.Name, err)
		}
		if repository == 0 && len(parsed.Repositories()) > 0 {
			continue // there is nothing to ask
		}
		aim(parsed, repository)
		if _, err := s.store.CreateChain(ctx, parsed); err != nil && !errors.Is(err, chain.ErrNameTaken) {
			return false, err
		}
		s.logger.InfoContext(ctx, "example chain stored", slog.String("chain", parsed.Name))
	}
	return true, nil
}

// banner tells a newcomer what to do now. example says that the first chain is there.
func (a *app) banner(s *server, example bool) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n  Chainstream is running at %s\n", s.url())
	if example {
		fmt.Fprintf(&b, `
  Open it in a browser and press Run on %[1]s, or in another terminal:

    curl -N %[2]s/api/v1/executions -H 'Accept: text/event-stream' \
      -H 'Content-Type: application/json' -d '{"chain": "%[1]s", "inputs": {"topic": "river deltas"}}'

  It runs on %[3]s/%[4]s, the built-in demo model: no API key, no real language model.
`, firstChain, s.url(), offline.Name, offline.Model)
	}
	fmt.Fprintf(&b, "\n  Data: %s. Ctrl-C stops the server.\n\n", s.database.where)
	fmt.Fprint(a.stdout, b.String()) // a closed terminal is no reason not to serve
}
