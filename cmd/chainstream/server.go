package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/replica"
	"github.com/chainstream/chainstream/web"
)

// serverFlags configure a server, whether it serves for long or runs one chain.
type serverFlags struct {
	databaseFlags
	retentionFlags
	callFlags
	modelFlags
	knowledgeFlags
	Workers         int           `help:"Executions at a time; 0 serves HTTP and streams only." default:"500" environ:"CHAINSTREAM_WORKERS"`
	MaxQueued       int           `help:"Waiting executions in the database, from all servers, before this one refuses new ones." default:"10000" environ:"CHAINSTREAM_MAX_QUEUED"`
	MaxBody         int64         `help:"Largest request body, in bytes." default:"4194304" environ:"CHAINSTREAM_MAX_BODY"`
	NATSURL         string        `name:"nats-url" help:"NATS server that carries the hints between servers instead of the database." placeholder:"nats://…" environ:"NATS_URL"`
	MaxStreams      int           `help:"Event streams open at once." default:"20000" environ:"CHAINSTREAM_MAX_STREAMS"`
	Heartbeat       time.Duration `help:"Silence after which a stream sends a comment, so that proxies keep it open." default:"15s" environ:"CHAINSTREAM_HEARTBEAT"`
	OfflinePace     time.Duration `help:"Time the demo model takes per word; 0s is instant." default:"25ms" environ:"CHAINSTREAM_OFFLINE_PACE"`
	ShutdownTimeout time.Duration `help:"How long a stop waits for the model calls that are under way before it interrupts them." default:"20s" environ:"CHAINSTREAM_SHUTDOWN_TIMEOUT"`
}

// Validate refuses values that would silently mean something else. Kong calls it.
func (f serverFlags) Validate() error {
	switch {
	case f.Workers < 0:
		return errors.New("--workers must not be negative")
	case f.MaxQueued < 1, f.MaxBody < 1, f.MaxStreams < 1:
		return errors.New("--max-queued, --max-body and --max-streams must be at least 1")
	case f.Heartbeat <= 0:
		return errors.New("--heartbeat must be longer than nothing")
	case f.OfflinePace < 0, f.ShutdownTimeout < 0:
		return errors.New("--offline-pace and --shutdown-timeout must not be negative")
	}
	if err := f.callFlags.validate(); err != nil {
		return err
	}
	if err := f.knowledgeFlags.validate(); err != nil {
		return err
	}
	return f.retentionFlags.validate()
}

// server is a running Chainstream: everything from the database to the
// listener. stop ends it, in the order that loses nothing.
type server struct {
	flags    serverFlags
	logger   *slog.Logger
	database *database
	store    *postgres.Store
	bus      *replica.Bus
	broker   *events.Broker
	log      *events.Log
	executor *executor.Executor
	api      *httpapi.Server
	http     *http.Server
	listener net.Listener
	client   *http.Client // of the model providers
	models   *llm.Registry
	jobs     *postgres.Jobs
	vectors  knowledge.Embeddings

	served     chan struct{} // closed when the HTTP server has ended
	serveErr   error         // why; read after served
	background sync.WaitGroup
	stopUpkeep context.CancelFunc
}

// startServer starts a server on an address. Its errors are sentences.
func startServer(ctx context.Context, flags serverFlags, addr string, getenv func(string) string, logger *slog.Logger) (*server, error) {
	s := &server{flags: flags, logger: logger, client: llm.NewHTTPClient(), served: make(chan struct{})}
	s.flags.dataDir, _ = flags.directory(getenv) // openDatabase says what is wrong with it
	registry, err := s.flags.registry(getenv, s.client, flags.OfflinePace)
	if err != nil {
		return nil, err
	}
	// The port is taken first: it is what most often stands in the way, and it
	// is known at once.
	if s.listener, err = listen(ctx, addr, "--addr (CHAINSTREAM_ADDR)"); err != nil {
		return nil, err
	}
	if err := s.openDatabase(ctx, getenv); err != nil {
		return nil, errors.Join(err, s.listener.Close())
	}
	if _, err := s.store.SyncPrices(ctx, prices(registry)); err != nil {
		return nil, errors.Join(databaseError(err, s.database.where), s.listener.Close(), s.closeDatabase())
	}
	if err := s.wire(ctx, registry, getenv); err != nil {
		return nil, errors.Join(err, s.listener.Close(), s.closeDatabase())
	}
	s.models = registry
	registry.Detect()
	if err := s.jobs.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, errors.Join(err, s.listener.Close(), s.closeWired())
	}
	s.executor.Start()
	s.bus.Start(receiver{broker: s.broker, executor: s.executor})
	upkeep, stopUpkeep := context.WithCancel(context.Background())
	s.stopUpkeep = stopUpkeep
	s.background.Go(func() { s.upkeep(upkeep) })
	s.background.Go(func() { s.indexes(upkeep) })
	s.background.Go(func() {
		defer close(s.served)
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.serveErr = fmt.Errorf("serve HTTP: %w", err)
		}
	})
	return s, nil
}

func (s *server) openDatabase(ctx context.Context, getenv func(string) string) error {
	var err error
	if s.database, err = s.flags.databaseFlags.open(ctx, getenv, s.logger); err != nil {
		return err
	}
	if err := s.database.migrate(ctx, s.logger); err != nil {
		return errors.Join(err, s.database.close())
	}
	if s.store, err = postgres.Open(ctx, postgres.Config{URL: s.database.url}); err != nil {
		return errors.Join(databaseError(err, s.database.where), s.database.close())
	}
	if _, err := s.store.EnsurePartitions(ctx, partitionsAhead); err != nil {
		return errors.Join(databaseError(err, s.database.where), s.closeDatabase())
	}
	return nil
}

func (s *server) closeDatabase() error {
	s.store.Close()
	return s.database.close()
}

// closeWired takes back what wire made, of a server that was not started.
func (s *server) closeWired() error {
	s.broker.Close()
	s.bus.Close(context.Background())
	return errors.Join(s.log.Close(context.Background()), s.closeDatabase())
}

// wire connects the parts, none of which knows more of the others than it needs.
func (s *server) wire(ctx context.Context, registry *llm.Registry, getenv func(string) string) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	owner, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("name this process: %w", err)
	}
	name := ownerName(host, os.Getpid(), owner.String())
	metrics := httpapi.NewRegistry()
	finished, err := httpapi.CountExecutions(metrics)
	if err != nil {
		return err
	}
	transport, err := s.transport(ctx)
	if err != nil {
		return err
	}
	vectors := embeddings(registry, s.logger)
	if vectors.observe, err = httpapi.CountEmbeddings(metrics); err != nil {
		return err
	}
	vectors.book = s.store.BookEmbedding
	s.vectors = vectors
	search, err := s.wireKnowledge(vectors, name, getenv)
	if err != nil {
		return err
	}
	s.bus = replica.NewBus(transport, replica.Config{Logger: s.logger})
	s.broker = events.NewBroker(s.store, events.BrokerConfig{Announcer: s.bus, Logger: s.logger})
	s.log = events.NewLog(s.store, s.broker, events.LogConfig{Logger: s.logger})
	s.executor = executor.New(s.store, s.log, registry, executor.Config{
		Owner: name, Workers: s.flags.Workers, MaxQueued: s.flags.MaxQueued, Logger: s.logger,
		Announcer: s.bus, OnFinish: finished, Deadlines: s.flags.deadlines(), Retry: s.flags.retry(), Cache: s.store,
		Retriever: search,
	})
	circuits := httpapi.WatchCircuits(metrics, vectors.circuits(s.executor.Circuits))
	s.api, err = httpapi.New(httpapi.Config{
		Store: s.store, Runner: s.executor, Broker: s.broker, Models: registry, Web: web.FS(),
		Version: version(), Registry: metrics, Logger: s.logger, MaxBody: s.flags.MaxBody, MaxStreams: s.flags.MaxStreams,
		Heartbeat: s.flags.Heartbeat, Search: search, Embeddings: vectors, MaxUpload: s.flags.MaxUpload,
		EmbeddingModel: s.flags.EmbeddingModel,
	})
	if err = errors.Join(err, circuits); err != nil {
		s.broker.Close()
		s.bus.Close(context.Background())
		return errors.Join(fmt.Errorf("build the HTTP API: %w", err), s.log.Close(context.Background()))
	}
	s.http = s.api.HTTPServer(s.listener.Addr().String())
	return nil
}

// url is where the server answers.
func (s *server) url() string { return "http://" + s.listener.Addr().String() }

// Bounds of the steps of a stop, beside the executions' own time.
const (
	httpStop = 4 * time.Second // for answers that are on their way
	logStop  = 2 * time.Second // for the last events to be stored
)

// stop ends the server: it is not ready any more, streams are told to reconnect
// elsewhere, and executions are handed over as soon as their model calls allow
// it, or when the time of the flags is up. Until then requests are answered.
// Then the requests end, the last events are stored, and the database is
// closed. When ctx ends, nothing is waited for that a restart recovers.
func (s *server) stop(ctx context.Context) error {
	soft, cancel := context.WithTimeout(ctx, s.flags.ShutdownTimeout)
	defer cancel()
	dead := false
	select {
	case <-s.database.died():
		dead = true
		cancel()
	default:
	}

	s.api.Drain()
	s.broker.Close()
	s.executor.HandOver(soft)
	var http sync.WaitGroup
	http.Go(func() { s.stopHTTP(ctx, dead) })
	http.Go(func() { s.stopJobs(soft) })
	err := s.stopExecutor(soft)
	http.Wait()
	s.stopBus()
	s.stopUpkeep()
	s.background.Wait()
	s.store.Close()
	s.models.Close()
	s.client.CloseIdleConnections()
	if stopErr := s.database.close(); stopErr != nil && !dead {
		err = errors.Join(err, stopErr)
	}
	return err
}

// stopHTTP ends requests and streams. Without a database none of them is waited
// for.
func (s *server) stopHTTP(ctx context.Context, dead bool) {
	ctx, cancel := context.WithTimeout(ctx, httpStop)
	defer cancel()
	if dead {
		cancel()
	}
	if err := s.http.Shutdown(ctx); err != nil {
		if err := s.http.Close(); err != nil {
			s.logger.WarnContext(ctx, "connections not closed", "error", err)
		}
	}
	s.api.WaitStreams(ctx)
	<-s.served
}

// stopBus tells the others what was written last, and that something may be
// handed over.
func (s *server) stopBus() {
	ctx, cancel := context.WithTimeout(context.Background(), logStop)
	defer cancel()
	s.bus.Close(ctx)
}

// stopExecutor stops the executions and then the log that they write to. Runs
// wait for their events to be stored, and the log tries for as long as the
// database is away; closing it lets them go.
func (s *server) stopExecutor(ctx context.Context) error {
	stopped := make(chan error, 1)
	go func() { stopped <- s.executor.Stop(ctx) }()
	var err error
	ended := false
	select {
	case err = <-stopped:
		ended = true
	case <-ctx.Done():
		select {
		case err = <-stopped:
			ended = true
		case <-time.After(logStop):
		}
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), logStop)
	defer cancel()
	err = errors.Join(err, s.log.Close(closing))
	if !ended {
		err = errors.Join(err, <-stopped)
	}
	if err != nil {
		return fmt.Errorf("stop the executions: %w", err)
	}
	return nil
}

// listen opens the port. This version has no accounts, so only addresses of the
// own machine are taken. setting is what the user chooses another one with.
func listen(ctx context.Context, addr, setting string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usage("--addr %q is not of the form host:port, such as 127.0.0.1:8080", addr)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, &exitError{code: exitFailed, message: fmt.Sprintf("%s is not a loopback address, and this version has no authentication yet: "+
			"listen on 127.0.0.1 and expose it through an SSH tunnel, or through a proxy on this machine that authenticates and passes Host: localhost", addr)}
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &exitError{code: exitFailed, err: err, message: fmt.Sprintf("the address %s is in use, perhaps by another chainstream; stop that program, or choose another port with %s", addr, setting)}
	case errors.Is(err, syscall.EACCES):
		return nil, &exitError{code: exitFailed, err: err, message: fmt.Sprintf("you may not listen on %s; choose a port above 1023 with %s", addr, setting)}
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return listener, nil
}
