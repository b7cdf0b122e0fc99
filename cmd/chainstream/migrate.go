package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/postgres/embedded"
)

// migrateCommand is chainstream migrate.
type migrateCommand struct {
	Up     migrateUpCommand     `cmd:"" help:"Bring the schema up to date. A server does so by itself when it starts."`
	Down   migrateDownCommand   `cmd:"" help:"Take the schema back. Data that the older schema has no place for is lost."`
	Status migrateStatusCommand `cmd:"" help:"Tell where the schema stands."`
}

// migrateFlags say which schema.
type migrateFlags struct {
	databaseFlags
	JSON bool `help:"Print JSON."`
}

// schema is where the schema of a database stands.
type schema struct {
	Current int64 `json:"current"` // 0 = empty
	Newest  int64 `json:"newest"`  // that this program knows
}

// with calls f with the database, and starts the embedded one for it.
func (f migrateFlags) with(ctx context.Context, a *app, work func(*database) error) (err error) {
	logger, err := logFlags{LogFormat: "text", LogLevel: "warn"}.logger(a.stderr)
	if err != nil {
		return err
	}
	d, err := f.open(ctx, a.getenv, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return work(d)
}

// show prints where the schema stands.
func (f migrateFlags) show(ctx context.Context, a *app, d *database) error {
	var s schema
	var err error
	if s.Current, s.Newest, err = postgres.SchemaVersion(ctx, d.direct); err != nil {
		return databaseError(err, d.where)
	}
	if f.JSON {
		return a.printJSON(s)
	}
	remark := "up to date"
	switch {
	case s.Current < s.Newest:
		remark = "behind; bring it up with: chainstream migrate up"
	case s.Current > s.Newest:
		remark = "newer than this program"
	}
	return a.printf("%s: schema version %d, this program knows %d: %s\n", d.where, s.Current, s.Newest, remark)
}

type migrateUpCommand struct{ migrateFlags }

// Run brings the schema up to date.
func (c *migrateUpCommand) Run(ctx context.Context, a *app) error {
	return c.with(ctx, a, func(d *database) error {
		if err := d.migrate(ctx, slog.New(slog.DiscardHandler)); err != nil {
			return err
		}
		return c.show(ctx, a, d)
	})
}

type migrateDownCommand struct {
	To  int64 `help:"Version to go back to; 0 removes everything. Default: the one before the current." default:"-1" placeholder:"N"`
	Yes bool  `help:"Confirm that data may be lost."`
	migrateFlags
}

// Run takes the schema back.
func (c *migrateDownCommand) Run(ctx context.Context, a *app) error {
	if !c.Yes {
		return usage("migrate down deletes what the older schema has no place for: with --to 0 every chain, execution and event; confirm it with --yes")
	}
	return c.with(ctx, a, func(d *database) error {
		current, newest, err := postgres.SchemaVersion(ctx, d.direct)
		if err != nil {
			return databaseError(err, d.where)
		}
		to := c.To
		if to < 0 {
			to = current - 1
		}
		switch {
		case current > newest:
			return databaseError(postgres.ErrNewerSchema, d.where)
		case to < 0, to > current:
			return usage("the schema is at version %d and cannot go down to %d", current, to)
		}
		if err := postgres.MigrateTo(ctx, d.direct, to); err != nil {
			return databaseError(err, d.where)
		}
		return c.show(ctx, a, d)
	})
}

type migrateStatusCommand struct{ migrateFlags }

// Run tells where the schema stands.
func (c *migrateStatusCommand) Run(ctx context.Context, a *app) error {
	err := c.with(ctx, a, func(d *database) error { return c.show(ctx, a, d) })
	if !errors.Is(err, embedded.ErrInUse) {
		return err
	}
	// A server runs on the embedded database, and looking does not disturb it.
	d, foundErr := c.running(a.getenv)
	if foundErr != nil {
		return err
	}
	return c.show(ctx, a, d)
}
