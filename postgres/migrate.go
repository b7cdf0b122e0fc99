package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the database/sql driver that goose works with
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/chainstream/chainstream/migrations"
)

// ErrNewerSchema says that the database was migrated by a newer version of Chainstream.
var ErrNewerSchema = errors.New("the database schema is newer than this version of chainstream")

// Migrate brings the schema up to date. Each migration commits together with
// the note that it was applied, so a crash in the middle leaves either both or
// none, and a session lock makes several servers that start at once wait for
// each other. It answers the versions that were applied.
func Migrate(ctx context.Context, url string) (applied []int64, err error) {
	err = withProvider(url, func(p *goose.Provider) error {
		current, target, err := p.GetVersions(ctx)
		if err != nil {
			return err
		}
		if current > target {
			return fmt.Errorf("%w: version %d, this program knows %d", ErrNewerSchema, current, target)
		}
		results, err := p.Up(ctx)
		for _, r := range results {
			applied = append(applied, r.Source.Version)
		}
		return err
	})
	if err != nil {
		return applied, fmt.Errorf("migrate the database: %w", translate(err))
	}
	return applied, nil
}

// MigrateTo moves the schema to exactly the given version, downwards if need
// be; 0 removes everything. It is for operators and tests.
func MigrateTo(ctx context.Context, url string, version int64) error {
	err := withProvider(url, func(p *goose.Provider) error {
		current, _, err := p.GetVersions(ctx)
		switch {
		case err != nil:
			return err
		case version < current:
			_, err = p.DownTo(ctx, version)
		case version > current:
			_, err = p.UpTo(ctx, version)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("migrate the database to version %d: %w", version, translate(err))
	}
	return nil
}

// SchemaVersion answers the version of the database's schema and the newest
// version this program knows.
func SchemaVersion(ctx context.Context, url string) (current, newest int64, err error) {
	err = withProvider(url, func(p *goose.Provider) error {
		current, newest, err = p.GetVersions(ctx)
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read the schema version: %w", translate(err))
	}
	return current, newest, nil
}

func withProvider(url string, f func(*goose.Provider) error) (err error) {
	conn, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	steps, err := migrationSteps()
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, conn, nil,
		goose.WithGoMigrations(steps...), goose.WithDisableGlobalRegistry(true), goose.WithSessionLocker(locker),
		goose.WithTableName("chainstream_migrations"))
	if err != nil {
		return err
	}
	return f(p)
}

// migrationSteps pairs the files NNNNNN_name.up.sql and .down.sql.
func migrationSteps() ([]*goose.Migration, error) {
	files, err := fs.Glob(migrations.FS, "*.up.sql")
	if err != nil {
		return nil, err
	}
	steps := make([]*goose.Migration, 0, len(files))
	for _, up := range files {
		number, _, _ := strings.Cut(up, "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("migration file %s: %w", up, err)
		}
		down := strings.TrimSuffix(up, ".up.sql") + ".down.sql"
		steps = append(steps, goose.NewGoMigration(version, execFile(up), execFile(down)))
	}
	return append(steps, goose.NewGoMigration(riverMigration, riverStep(rivermigrate.DirectionUp, riverVersion), riverStep(rivermigrate.DirectionDown, -1))), nil
}

// The tables of the queue of background work are made by the library that works
// on them, as one step among ours.
const (
	riverMigration = 11
	riverVersion   = 6 // of the library's own schema
)

// riverStep moves the library's schema. It is several transactions, because one of
// its own steps uses a value of a type that another adds; each is noted by the
// library, so that what was interrupted is gone on with.
func riverStep(direction rivermigrate.Direction, target int) *goose.GoFunc {
	return &goose.GoFunc{RunDB: func(ctx context.Context, conn *sql.DB) error {
		m, err := rivermigrate.New(riverdatabasesql.New(conn), nil)
		if err != nil {
			return err
		}
		if _, err := m.Migrate(ctx, direction, &rivermigrate.MigrateOpts{TargetVersion: target}); err != nil {
			return fmt.Errorf("the queue of background work: %w", err)
		}
		return nil
	}}
}

func execFile(name string) *goose.GoFunc {
	return &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		text, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, string(text)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}}
}
