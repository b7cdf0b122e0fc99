package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"github.com/chainstream/chainstream/db"
)

// JobsConfig says how background work is done. The work itself is short: what
// takes long is done in turns, so that it goes on soon after the death of a server.
type JobsConfig struct {
	// Ingest works on a version of a document for one turn. again says that there
	// is more to do. An error is tried again later.
	Ingest func(ctx context.Context, document int64, version int) (again bool, err error)
	// GaveUp is told when a version failed too often.
	GaveUp func(ctx context.Context, document int64, version int) error
	// Remodel works on a change of the model of a repository for one turn, and
	// GaveUpRemodel is told when it failed too often.
	Remodel       func(ctx context.Context, repository, space int64) (again bool, err error)
	GaveUpRemodel func(ctx context.Context, repository, space int64) error
	Workers       int    // jobs at a time
	Owner         string // names this process; must not be longer than 100 bytes
	// Gone tells whether the process of an owner has ended for sure. Its jobs are
	// taken up at once at a start.
	Gone   func(owner string) bool
	Logger *slog.Logger
}

// Jobs works on what was put into the queue of background work.
type Jobs struct {
	client *river.Client[pgx.Tx]
	store  *Store
	gone   func(owner string) bool
}

// Bounds of a turn. A job whose server died is taken up by another one, or by the
// same after a restart, when it has been running for longer than the rescue time;
// that has to be above the time of a turn.
const (
	jobTurn     = time.Minute
	jobRescue   = 75 * time.Second
	jobAttempts = 12 // with growing waits: about a day
)

// ingestArgs names a version of a document that waits to be processed.
type ingestArgs struct {
	DocumentID int64 `json:"documentId"`
	Version    int   `json:"version"`
}

// Kind implements river.JobArgs.
func (ingestArgs) Kind() string { return "ingest_document" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (ingestArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{MaxAttempts: jobAttempts, UniqueOpts: river.UniqueOpts{ByArgs: true}}
}

type ingestWorker struct {
	river.WorkerDefaults[ingestArgs]
	cfg JobsConfig
}

// Work implements river.Worker.
func (w *ingestWorker) Work(ctx context.Context, job *river.Job[ingestArgs]) error {
	again, err := w.cfg.Ingest(ctx, job.Args.DocumentID, job.Args.Version)
	return ended(ctx, job.JobRow, again, err, 0, func() error { return w.cfg.GaveUp(ctx, job.Args.DocumentID, job.Args.Version) })
}

// ended says what becomes of a job after a turn: it goes on after a pause, is tried
// again later, or was tried too often. What a stop cut off was no try, whatever it
// says that it failed of.
func ended(ctx context.Context, job *rivertype.JobRow, again bool, err error, pause time.Duration, gaveUp func() error) error {
	switch {
	case again, errors.Is(err, context.Canceled), err != nil && errors.Is(ctx.Err(), context.Canceled):
		return river.JobSnooze(pause)
	case err != nil && job.Attempt >= job.MaxAttempts:
		return errors.Join(err, gaveUp())
	}
	return err
}

// remodelArgs names a space that is to be filled.
type remodelArgs struct {
	RepositoryID int64 `json:"repositoryId"`
	SpaceID      int64 `json:"spaceId"`
}

// Kind implements river.JobArgs.
func (remodelArgs) Kind() string { return "embed_repository" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (remodelArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{MaxAttempts: jobAttempts, UniqueOpts: river.UniqueOpts{ByArgs: true}}
}

type remodelWorker struct {
	river.WorkerDefaults[remodelArgs]
	cfg JobsConfig
}

// remodelPause is the time between two turns: the index may be on its way.
const remodelPause = time.Second

// Work implements river.Worker.
func (w *remodelWorker) Work(ctx context.Context, job *river.Job[remodelArgs]) error {
	again, err := w.cfg.Remodel(ctx, job.Args.RepositoryID, job.Args.SpaceID)
	return ended(ctx, job.JobRow, again, err, remodelPause, func() error { return w.cfg.GaveUpRemodel(ctx, job.Args.RepositoryID, job.Args.SpaceID) })
}

// Jobs makes the worker of the queue; Start sets it to work.
func (s *Store) Jobs(cfg JobsConfig) (*Jobs, error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &ingestWorker{cfg: cfg})
	river.AddWorker(workers, &remodelWorker{cfg: cfg})
	client, err := river.NewClient(riverpgxv5.New(s.pool), &river.Config{
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: cfg.Workers}},
		Workers: workers, JobTimeout: jobTurn, RescueStuckJobsAfter: jobRescue, PollOnly: s.pooled, Logger: quiet(cfg.Logger),
		FetchCooldown: 50 * time.Millisecond, ID: cfg.Owner,
	})
	if err != nil {
		return nil, fmt.Errorf("set up background work: %w", err)
	}
	return &Jobs{client, s, cfg.Gone}, nil
}

// Start begins to work. It does not wait.
func (j *Jobs) Start(ctx context.Context) error {
	if err := j.takeUp(ctx); err != nil {
		return err
	}
	if err := j.client.Start(ctx); err != nil {
		return fmt.Errorf("start background work: %w", translate(err))
	}
	return nil
}

// takeUp lets the jobs be done again whose processes are gone. Others whose server
// died are found by the queue after jobRescue.
func (j *Jobs) takeUp(ctx context.Context) error {
	if j.gone == nil {
		return nil
	}
	rows, err := j.store.pool.Query(ctx, "SELECT DISTINCT attempted_by[array_upper(attempted_by, 1)] FROM river_job WHERE state = 'running'")
	if err != nil {
		return fmt.Errorf("look for interrupted background work: %w", translate(err))
	}
	owners, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for interrupted background work: %w", translate(err))
	}
	owners = slices.DeleteFunc(owners, func(owner string) bool { return !j.gone(owner) })
	if len(owners) == 0 {
		return nil
	}
	_, err = j.store.pool.Exec(ctx, `UPDATE river_job SET state = 'available', scheduled_at = now()
		WHERE state = 'running' AND attempted_by[array_upper(attempted_by, 1)] = ANY($1)`, owners)
	if err != nil {
		return fmt.Errorf("take up interrupted background work: %w", translate(err))
	}
	return nil
}

// Stop ends the work after the current turns, or cuts them off when ctx ends:
// then they begin again.
func (j *Jobs) Stop(ctx context.Context) error {
	if err := j.client.Stop(ctx); err != nil {
		return errors.Join(err, j.client.StopAndCancel(context.WithoutCancel(ctx)))
	}
	return nil
}

// inserter puts jobs into the queue.
type inserter = river.Client[pgx.Tx]

func newInserter(s *Store) (*inserter, error) {
	return river.NewClient(riverpgxv5.New(s.pool), &river.Config{})
}

// queue puts jobs into the queue, in a transaction.
type queue struct {
	client *inserter
	tx     pgx.Tx
}

// smallUpload is up to how many bytes a document goes before larger ones, and before those
// that are to be fetched: an address may take half a minute to answer nothing.
const smallUpload = 256 << 10

func (q queue) ingest(ctx context.Context, document int64, version int32, long bool) error {
	opts := &river.InsertOpts{Priority: 1}
	if long {
		opts.Priority = 2
	}
	_, err := q.client.InsertTx(ctx, q.tx, ingestArgs{DocumentID: document, Version: int(version)}, opts)
	return err
}

func (q queue) remodel(ctx context.Context, repository, space int64) error {
	_, err := q.client.InsertTx(ctx, q.tx, remodelArgs{RepositoryID: repository, SpaceID: space}, nil)
	return err
}

// inJobTx is inTx for what also queues background work: both commit together.
func (s *Store) inJobTx(ctx context.Context, f func(q *db.Queries, jobs queue) error) error {
	return s.begin(ctx, func(tx pgx.Tx) error { return f(s.queries.WithTx(tx), queue{s.jobs, tx}) })
}

// quiet is a logger without the queue's remarks on its own work, which come every few
// seconds. Its warnings and errors stay.
func quiet(logger *slog.Logger) *slog.Logger { return slog.New(warnings{logger.Handler()}) }

type warnings struct{ slog.Handler }

// Enabled implements slog.Handler.
func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{w.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }
