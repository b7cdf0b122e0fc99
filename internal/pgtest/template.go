package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainstream/chainstream/migrations"
	"github.com/chainstream/chainstream/postgres"
)

// templateLock is the advisory lock under which test processes that share a
// server make the template. The number means nothing.
const templateLock = 7_302_150_911

// ensureTemplate makes the database that has the schema of the embedded
// migrations, unless it exists, and returns its name. The name follows from the
// migrations' content, so a server that outlives a change of them is safe.
func ensureTemplate(ctx context.Context, admin *pgxpool.Pool, adminURL string) (string, error) {
	version, err := fingerprint(migrations.FS)
	if err != nil {
		return "", fmt.Errorf("read the migrations: %w", err)
	}
	name, draft := "template_"+version, "draft_"+version

	conn, err := admin.Acquire(ctx)
	if err != nil {
		return "", fmt.Errorf("connect to the test database: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", templateLock); err != nil {
		return "", fmt.Errorf("lock the test template: %w", err)
	}
	defer func() {
		// A connection that cannot unlock is broken, and its end unlocks.
		_, _ = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", templateLock)
	}()

	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return "", fmt.Errorf("look for the test template: %w", err)
	}
	if exists {
		return name, nil
	}
	// The draft is renamed when it is complete; one that is here now was left
	// by a process that was killed.
	for _, statement := range []string{
		"DROP DATABASE IF EXISTS " + pgx.Identifier{draft}.Sanitize() + " WITH (FORCE)",
		"CREATE DATABASE " + pgx.Identifier{draft}.Sanitize(),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", fmt.Errorf("make the test template: %w", err)
		}
	}
	dsn, err := withDatabase(adminURL, draft)
	if err != nil {
		return "", err
	}
	if _, err := postgres.Migrate(ctx, dsn); err != nil {
		return "", fmt.Errorf("make the test template: %w", err)
	}
	rename := "ALTER DATABASE " + pgx.Identifier{draft}.Sanitize() + " RENAME TO " + pgx.Identifier{name}.Sanitize()
	if _, err := conn.Exec(ctx, rename); err != nil {
		return "", fmt.Errorf("make the test template: %w", err)
	}
	return name, nil
}

// fingerprint is a short digest of all files.
func fingerprint(files fs.FS) (string, error) {
	digest := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(digest, "%s %d\n%s", path, len(content), content)
		return err
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(digest.Sum(nil)[:8]), nil
}

// withDatabase is a connection string with another database.
func withDatabase(dsn, name string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", fmt.Errorf("%s is not of the form postgres://…", EnvURL) // without the text: it has a password
	}
	u.Path = "/" + name
	return u.String(), nil
}
