package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// ChainReader finds stored chains. Every method answers chain.ErrNotFound for
// what does not exist, and an error matching events.ErrUnavailable when the
// database cannot be reached.
type ChainReader interface {
	// ChainByID answers a version of a chain; version 0 is the newest.
	ChainByID(ctx context.Context, id int64, version int) (*chain.Version, error)
	// ChainByName is ChainByID for the chain's name.
	ChainByName(ctx context.Context, name string, version int) (*chain.Version, error)
	// PinnedVersion answers a version even when its chain has been deleted.
	PinnedVersion(ctx context.Context, id int64, version int) (*chain.Version, error)
	// Chains answers up to limit chains by id, above after, in their newest version.
	Chains(ctx context.Context, after int64, limit int) ([]*chain.Version, error)
	// ChainVersions answers the versions of a chain below before, newest first;
	// before 0 begins at the newest.
	ChainVersions(ctx context.Context, id int64, before, limit int) ([]chain.Summary, error)
}

// ChainWriter changes stored chains. Errors: chain.ErrNotFound,
// chain.ErrNameTaken, and one matching events.ErrUnavailable.
type ChainWriter interface {
	CreateChain(ctx context.Context, c *chain.Chain) (*chain.Version, error)
	// UpdateChain makes a new version.
	UpdateChain(ctx context.Context, id int64, c *chain.Chain) (*chain.Version, error)
	DeleteChain(ctx context.Context, id int64) error
}

// ExecutionStore finds and erases executions. Errors: executor.ErrNotFound,
// executor.ErrRunning from DeleteExecution, and one matching
// events.ErrUnavailable.
type ExecutionStore interface {
	Execution(ctx context.Context, id int64) (executor.Execution, error)
	Executions(ctx context.Context, f executor.Filter) ([]executor.Execution, error)
	// PromptStates answers the prompts that have started, by execution.
	PromptStates(ctx context.Context, executions ...int64) (map[int64][]events.PromptState, error)
	DeleteExecution(ctx context.Context, id int64) error
	// Call answers what an execution asks that is a direct call.
	Call(ctx context.Context, id int64) (json.RawMessage, error)
}

// EventStore reads pages of logs. Events and EventsOfTypes answer up to limit
// events after a seq, in order.
type EventStore interface {
	// Heads answers how far logs reach and what is missing of them.
	Heads(ctx context.Context, executions []int64) (map[int64]events.Head, error)
	Events(ctx context.Context, execution, after int64, limit int) ([]events.Record, error)
	EventsOfTypes(ctx context.Context, execution, after int64, types []events.Type, limit int) ([]events.Record, error)
}

// BudgetStore keeps budgets. Errors: executor.ErrNoBudget, and one matching
// events.ErrUnavailable.
type BudgetStore interface {
	// Budgets answers up to limit budgets by id, above after.
	Budgets(ctx context.Context, after int64, limit int) ([]executor.Budget, error)
	// SetBudget makes a budget or changes the limits of the one that has its scope
	// and period.
	SetBudget(ctx context.Context, b executor.Budget) (executor.Budget, error)
	DeleteBudget(ctx context.Context, id int64) error
}

// Store is everything that is read and written outside the executor.
type Store interface {
	ChainReader
	ChainWriter
	ExecutionStore
	EventStore
	BudgetStore
	knowledge.RepositoryStore
	knowledge.DocumentStore
	// Chunk answers a passage that searches see, or knowledge.ErrNotFound.
	Chunk(ctx context.Context, id int64) (knowledge.Found, error)
	// Ping tells whether the database answers.
	Ping(ctx context.Context) error
}

// Runner runs chains.
type Runner interface {
	// Trigger stores an execution; replayed tells that its idempotency key had
	// made it before. Errors: executor.ErrQueueFull, executor.ErrStopping,
	// executor.ErrKeyReused.
	Trigger(ctx context.Context, t executor.Trigger) (ex executor.Execution, replayed bool, err error)
	// Derive answers the trigger of a retry or a fork. Errors: chain.Problems for
	// the fields of the request, executor.ErrNotFound, executor.ErrRunning,
	// executor.ErrCompleted, executor.ErrResultsGone.
	Derive(ctx context.Context, d executor.Derivation) (executor.Trigger, error)
	// Replay answers the execution of an idempotency key that was used before.
	// Errors: executor.ErrKeyReused.
	Replay(ctx context.Context, key executor.IdempotencyKey) (ex executor.Execution, found bool, err error)
	// Cancel asks an execution to stop. Errors: executor.ErrNotFound,
	// executor.ErrFinished.
	Cancel(ctx context.Context, id int64) (executor.Execution, error)
	// Check answers chain.Problems for what this server cannot run.
	Check(ctx context.Context, c *chain.Chain) error
}

// ModelLister lists the models that a chain may name, and finds those that can be
// called.
type ModelLister interface {
	// Models and Providers answer at once what is known.
	Models() []llm.Model
	Providers() []llm.ProviderState
	// EmbeddingModels lists the models that make vectors, likewise.
	EmbeddingModels() []llm.EmbeddingState
	// Refresh asks the providers what they have, with remote also those that are
	// not on the own machine, and waits for the answers.
	Refresh(ctx context.Context, remote bool)
	// Resolve answers how to call a model, or why it cannot be called.
	Resolve(id string) (llm.Target, error)
	// Info answers what is known of a model, be it one that cannot be called.
	Info(id string) llm.Info
}

// Searcher finds passages in repositories.
type Searcher interface {
	// Missing answers which of the repositories do not exist.
	Missing(ctx context.Context, repositories []int64) ([]int64, error)
	// Retrieve answers the passages for a query, best first.
	Retrieve(ctx context.Context, q knowledge.Query) (knowledge.Result, error)
	// Explain is Retrieve, and tells why.
	Explain(ctx context.Context, q knowledge.Query) (*knowledge.Explanation, error)
}

// Config configures a Server. Store, Runner, Broker, Models, Search, Embeddings and
// Web are needed; the zero value of every other field means its default.
type Config struct {
	Store  Store
	Runner Runner
	Broker *events.Broker
	Models ModelLister
	Web    fs.FS // the page at /, with index.html at its root

	Search     Searcher
	Embeddings knowledge.Embeddings
	// EmbeddingModel embeds the repositories that name no model; "" means that
	// they have to.
	EmbeddingModel string

	Version  string               // of the program, shown by /healthz and /openapi.json; default "dev"
	Registry *prometheus.Registry // shown by /metrics; default NewRegistry
	Logger   *slog.Logger         // default discards

	MaxBody      int64         // bytes of a request body; default 4 MiB
	MaxUpload    int64         // bytes of the request with a document; default 32 MiB
	BodyTimeout  time.Duration // for a request to arrive completely; default 60 s
	WriteTimeout time.Duration // for an answer that is no stream to be read; default 60 s
	MaxWait      time.Duration // the longest Prefer: wait; default 60 s
	MaxStreams   int           // streams open at once; default 20,000
	Heartbeat    time.Duration // silence after which a stream sends a comment; default 15 s
	StreamWrite  time.Duration // for a stream's reader to take what was written, before it is cut; default 10 s
}

// Server answers HTTP requests.
type Server struct {
	cfg      Config
	logger   *slog.Logger
	echo     *echo.Echo
	metrics  *metrics
	known    map[string]bool // patterns of the routes
	streams  *streams
	uploads  atomic.Int64 // bytes of documents that are on their way into the database
	feeds    feeds
	draining atomic.Bool
	leaving  chan struct{} // closed when the HTTP server shuts down
	left     sync.Once
}

// New makes a server. It fails only for what the program was built with: an
// API description or a page that cannot be read.
func New(cfg Config) (*Server, error) {
	cfg.Version = cmp.Or(cfg.Version, "dev")
	cfg.MaxBody = cmp.Or(cfg.MaxBody, 4<<20)
	cfg.MaxUpload = cmp.Or(cfg.MaxUpload, 32<<20)
	cfg.BodyTimeout = cmp.Or(cfg.BodyTimeout, time.Minute)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, time.Minute)
	cfg.MaxWait = cmp.Or(cfg.MaxWait, time.Minute)
	cfg.MaxStreams = cmp.Or(cfg.MaxStreams, 20_000)
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 15*time.Second)
	cfg.StreamWrite = cmp.Or(cfg.StreamWrite, 10*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registry == nil {
		cfg.Registry = NewRegistry()
	}
	s := &Server{cfg: cfg, logger: cfg.Logger, echo: echo.New(), streams: newStreams(), leaving: make(chan struct{})}
	var err error
	if s.metrics, err = newMetrics(cfg.Registry, s); err != nil {
		return nil, err
	}
	e := s.echo
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect()
	e.HTTPErrorHandler = s.fail
	e.Pre(decodePath)
	e.Use(s.observe, s.rescue, s.guard)
	if err := s.routes(); err != nil {
		return nil, err
	}
	s.known = make(map[string]bool)
	for _, r := range e.Routes() {
		s.known[r.Path] = true
	}
	return s, nil
}

// routes registers what the server answers; the API description lists the same.
func (s *Server) routes() error {
	get := func(path string, h echo.HandlerFunc) {
		s.echo.GET(path, h)
		s.echo.HEAD(path, h) // the same without a body, which net/http leaves out
	}
	e := s.echo

	get("/api/v1/chains", s.listChains)
	e.POST("/api/v1/chains", s.createChain)
	e.POST("/api/v1/chains/import", s.importChains)
	e.POST("/api/v1/chains/validate", s.validateChain)
	get("/api/v1/chains/:id", s.showChain)
	e.PUT("/api/v1/chains/:id", s.updateChain)
	e.DELETE("/api/v1/chains/:id", s.deleteChain)
	get("/api/v1/chains/:id/versions", s.listVersions)
	get("/api/v1/chains/:id/export", s.exportChain)

	get("/api/v1/executions", s.listExecutions)
	e.POST("/api/v1/executions", s.trigger)
	get("/api/v1/executions/:id", s.showExecution)
	e.DELETE("/api/v1/executions/:id", s.deleteExecution)
	e.POST("/api/v1/executions/:id/cancel", s.cancel)
	e.POST("/api/v1/executions/:id/retry", s.retry)
	e.POST("/api/v1/executions/:id/fork", s.fork)
	get("/api/v1/executions/:id/events", s.listEvents)
	get(streamRoute, s.stream)

	get("/api/v1/budgets", s.listBudgets)
	e.PUT("/api/v1/budgets", s.setBudget)
	e.DELETE("/api/v1/budgets/:id", s.deleteBudget)

	get("/api/v1/repositories", s.listRepositories)
	e.POST("/api/v1/repositories", s.createRepository)
	e.POST("/api/v1/repositories/search", s.searchRepositories)
	get("/api/v1/repositories/:id", s.showRepository)
	e.PUT("/api/v1/repositories/:id", s.updateRepository)
	e.DELETE("/api/v1/repositories/:id", s.deleteRepository)
	get("/api/v1/repositories/:id/documents", s.listDocuments)
	e.POST("/api/v1/repositories/:id/documents", s.addDocument)
	get("/api/v1/repositories/:id/documents/:document", s.showDocument)
	get("/api/v1/repositories/:id/documents/:document/events", s.documentEvents)
	get("/api/v1/repositories/:id/events", s.repositoryEvents)
	get("/api/v1/chunks/:id", s.showChunk)
	e.DELETE("/api/v1/repositories/:id/documents/:document", s.deleteDocument)

	e.POST("/v1/chat/completions", s.complete)
	e.POST("/v1/embeddings", s.embed)
	e.POST("/api/v1/ai/embeddings", s.embedText)
	get("/v1/models", s.listOpenAIModels)
	get("/v1/models/*", s.showOpenAIModel)

	get("/api/v1/models", s.listModels)
	get("/schemas/chain.json", s.chainSchema)
	get("/schemas/events.json", s.eventSchema)
	get("/healthz", s.healthz)
	get("/readyz", s.readyz)
	get("/metrics", s.metrics.serve(s.cfg.Registry))

	docs, err := newDocumentation(s.cfg.Version)
	if err != nil {
		return err
	}
	get("/openapi.json", docs.openapi.serve)
	get("/docs", docs.page.serve)

	pages, err := loadPages(s.cfg.Web)
	if err != nil {
		return err
	}
	for path, page := range pages {
		get(path, page.serve)
	}
	return nil
}

// Handler answers every request of the server.
func (s *Server) Handler() http.Handler { return s.echo }

// Drain makes /readyz answer 503, so that nothing new is sent here. Streams are
// ended by closing the Broker.
func (s *Server) Drain() { s.draining.Store(true) }

// HTTPServer is a server for addr with limits against clients that are slow on
// purpose. Shutdown waits for streams; close the Broker first.
func (s *Server) HTTPServer(addr string) *http.Server {
	server := &http.Server{
		Addr:              addr,
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       s.cfg.BodyTimeout,
		WriteTimeout:      s.cfg.WriteTimeout, // streams move it as they are read
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		BaseContext: func(net.Listener) context.Context { return context.Background() },
		ErrorLog:    slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	// Whoever waits for an execution is answered before the connections are closed.
	server.RegisterOnShutdown(func() { s.left.Do(func() { close(s.leaving) }) })
	return server
}

// connKey finds the connection of a request in its context.
type connKey struct{}
