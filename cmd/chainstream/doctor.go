package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/internal/client"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/listing"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/postgres/embedded"
)

// doctorCommand is chainstream doctor.
type doctorCommand struct {
	databaseFlags
	retentionFlags
	modelFlags
	clientFlags
}

// Help is shown by chainstream doctor --help.
func (doctorCommand) Help() string {
	return `Little is changed: an embedded database that exists and does not run is started for a moment, and a database that was never migrated gets the empty table that notes migrations. The exit code is 1 when something that a server needs is missing.`
}

// A finding's verdicts.
const (
	verdictOK      = "ok"
	verdictNote    = "note"    // worth knowing, nothing is missing
	verdictMissing = "missing" // a server cannot work like this
)

// finding is one thing that was looked at.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Detail  string `json:"detail"`
	Data    any    `json:"data,omitempty"` // the figures, for programs
}

// examination gathers findings.
type examination struct {
	app      *app
	command  *doctorCommand
	findings []finding
}

func (e *examination) add(check, verdict, format string, args ...any) {
	e.findings = append(e.findings, finding{Check: check, Verdict: verdict, Detail: fmt.Sprintf(format, args...)})
}

// Run examines what a server and a client need.
func (c *doctorCommand) Run(ctx context.Context, a *app) error {
	e := &examination{app: a, command: c}
	serving := e.server(ctx)
	e.installation()
	e.database(ctx, serving)
	e.providers(ctx)
	e.files()
	e.embeddings(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	missing := slices.ContainsFunc(e.findings, func(f finding) bool { return f.Verdict == verdictMissing })
	if err := e.print(missing); err != nil {
		return err
	}
	if missing {
		return &exitError{code: exitFailed}
	}
	return nil
}

func (e *examination) print(missing bool) error {
	if e.command.JSON {
		return e.app.printJSON(map[string]any{"healthy": !missing, "findings": e.findings})
	}
	for _, f := range e.findings {
		if err := e.app.printf("%-8s %-12s %s\n", f.Verdict, f.Check, f.Detail); err != nil {
			return err
		}
	}
	if missing {
		return e.app.printf("\nSomething that a server needs is missing.\n")
	}
	return e.app.printf("\nNothing is missing.\n")
}

// probeTimeout bounds each look at another program.
const probeTimeout = 3 * time.Second

// server looks for a running server and tells whether there is one.
func (e *examination) server(ctx context.Context) bool {
	api, err := e.command.client()
	if err != nil {
		e.add("server", verdictMissing, "%s", err)
		return false
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var health struct {
		Status  string `json:"status"`
		Version string `json:"version"`
	}
	err = api.Do(ctx, client.Request{Path: "/readyz"}, &health)
	var problem *client.Problem
	switch {
	case err == nil && health.Status == "":
		e.add("server", verdictNote, "what answers at %s is no Chainstream server; serve on another port with --addr", e.command.Server)
	case err == nil:
		e.add("server", verdictOK, "%s is ready (version %s)", e.command.Server, health.Version)
		return true
	case errors.As(err, &problem):
		e.add("server", verdictMissing, "%s is not ready: %s", e.command.Server, err)
	default:
		e.add("server", verdictNote, "%s", err)
	}
	return false
}

// installation looks for PostgreSQL on this machine. It is needed only where
// the database is the embedded one.
func (e *examination) installation() {
	needed := verdictMissing
	if e.command.DatabaseURL != "" {
		needed = verdictNote
	}
	bin, err := embedded.Find()
	if err != nil {
		e.add("postgresql", needed, "%s", trim(err))
		return
	}
	e.add("postgresql", verdictOK, "version %s in %s", bin.Version, bin.BinDir)
	if bin.HasVector {
		e.add("pgvector", verdictOK, "installed for PostgreSQL %s", bin.Version)
	} else {
		e.add("pgvector", needed, "not installed for PostgreSQL %s; install it with: make setup (in a clone of the Chainstream repository)", bin.Version)
	}
}

// database looks at the database that a server started here would use.
func (e *examination) database(ctx context.Context, serving bool) {
	if e.command.DatabaseURL != "" {
		e.schema(ctx, e.command.given())
		return
	}
	dir, err := e.command.directory(e.app.getenv)
	if err != nil {
		e.add("data", verdictMissing, "%s", err)
		return
	}
	if _, err := os.Stat(filepath.Join(dir, "postgres")); err != nil {
		if e.writable(dir) {
			e.add("database", verdictNote, "%s holds no database yet; chainstream serve makes it", dir)
		}
		return
	}
	d, err := e.command.open(ctx, e.app.getenv, slog.New(slog.DiscardHandler))
	switch {
	case errors.Is(err, embedded.ErrInUse) && serving:
		e.add("database", verdictOK, "the embedded database in %s runs with the server", dir)
		if running, err := e.command.running(e.app.getenv); err == nil { // else it is somebody else's, and private
			e.schema(ctx, running)
		}
		return
	case errors.Is(err, embedded.ErrInUse):
		e.add("database", verdictNote, "%s is in use by a server on another address; name it with --server", dir)
		return
	case err != nil:
		e.add("database", verdictMissing, "%s", err)
		return
	}
	e.add("data", verdictOK, "%s", dir)
	if serving {
		e.add("database", verdictNote, "the server at %s uses another database than the one in %s; name its own with --database-url or --data-dir to look into it", e.command.Server, dir)
	} else {
		e.schema(ctx, d)
	}
	if err := d.close(); err != nil {
		e.add("database", verdictMissing, "%s", err)
	}
}

// writable tells whether a data directory can be made: the nearest folder above
// it that exists must be writable.
func (e *examination) writable(dir string) bool {
	refuse := func(format string, args ...any) bool {
		e.add("data", verdictMissing, format+"; name a directory of yours with --data-dir (CHAINSTREAM_DATA_DIR)", args...)
		return false
	}
	at := dir
	info, err := os.Stat(at)
	for errors.Is(err, os.ErrNotExist) && filepath.Dir(at) != at {
		at = filepath.Dir(at)
		info, err = os.Stat(at)
	}
	const write, enter = 2, 1
	switch {
	case err != nil:
		return refuse("%s cannot be reached: %s", dir, reason(err))
	case !info.IsDir():
		return refuse("%s is not a folder", at)
	}
	if err := syscall.Access(at, write|enter); err != nil {
		return refuse("you may not write to %s (%s)", at, reason(err))
	}
	e.add("data", verdictOK, "%s can be used", dir)
	return true
}

// schema connects and looks at the schema.
func (e *examination) schema(ctx context.Context, d *database) {
	store, err := postgres.Open(ctx, postgres.Config{URL: d.url, ConnectTimeout: probeTimeout})
	if err != nil {
		e.add("database", verdictMissing, "%s", databaseError(err, d.where))
		return
	}
	defer store.Close()
	if store.Pooled() {
		e.add("database", verdictOK, "%s can be reached, through a connection pooler", d.where)
	} else {
		e.add("database", verdictOK, "%s can be reached", d.where)
	}
	e.hints(ctx, d)
	current, newest, err := postgres.SchemaVersion(ctx, d.direct)
	switch {
	case err != nil:
		e.add("schema", verdictMissing, "%s", databaseError(err, d.where))
	case current > newest:
		e.add("schema", verdictMissing, "version %d is newer than this program, which knows %d; use the newer chainstream", current, newest)
	case current < newest:
		e.add("schema", verdictNote, "version %d of %d; chainstream serve brings it up to date, as does chainstream migrate up", current, newest)
	default:
		e.add("schema", verdictOK, "version %d", current)
		e.eventLog(ctx, store, d.where)
	}
}

// hints looks whether servers on the database can tell each other what they do.
// Without it they look by themselves once a second, so nothing is missing.
func (e *examination) hints(ctx context.Context, d *database) {
	took, err := postgres.TryHints(ctx, postgres.HintsConfig{URL: d.url, ListenURL: d.direct, Timeout: probeTimeout})
	switch {
	case errors.Is(err, postgres.ErrDeaf):
		e.add("hints", verdictNote, "%s", err)
	case err != nil:
		e.add("hints", verdictNote, "%s", databaseError(err, "the database of --listen-database-url (CHAINSTREAM_LISTEN_DATABASE_URL)"))
	default:
		e.add("hints", verdictOK, "a notification is heard after %s", took.Round(10*time.Microsecond))
	}
}

// providers looks at the model providers. None is needed: the demo model is
// always there.
func (e *examination) providers(ctx context.Context) {
	e.add("offline", verdictOK, "the demo model offline/echo is built in")
	httpClient := llm.NewHTTPClient()
	defer httpClient.CloseIdleConnections()
	all := vendors()
	if known, err := e.command.catalogue(); err != nil {
		e.add("models", verdictMissing, "%s", err)
	} else {
		all = append(all, further(known)...)
	}
	for _, v := range all {
		switch {
		case !v.configured(e.app.getenv):
			e.add(v.name, verdictNote, "not configured; set %s to use %s", v.key, v.label)
		case v.local:
			e.local(ctx, httpClient, v)
		default: // who may charge for it is not asked
			e.add(v.name, verdictOK, "configured for %s", shownAddress(v.endpoint(e.app.getenv)))
		}
	}
}

// local looks whether a model server on one's own machine runs, and what it has.
func (e *examination) local(ctx context.Context, httpClient *http.Client, v vendor) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	models, err := v.list(v.server(e.app.getenv, httpClient), ctx)
	shown := shownAddress(v.endpoint(e.app.getenv))
	switch status := listing.StatusError(0); {
	case errors.As(err, &status):
		e.add(v.name, verdictNote, "%s answered with status %d; is that %s?", shown, int(status), v.label)
	case err != nil:
		e.add(v.name, verdictNote, "%s", v.silent(e.app.getenv))
	case len(models) == 0:
		e.add(v.name, verdictNote, "answers at %s and has no model yet", shown)
	default:
		names := make([]string, len(models))
		for i, m := range models {
			names[i] = v.name + "/" + m.Model
		}
		const most = 5
		more := ""
		if len(names) > most {
			more = fmt.Sprintf(" and %d more", len(names)-most)
			names = names[:most]
		}
		e.add(v.name, verdictOK, "answers at %s with %s%s", shown, strings.Join(names, ", "), more)
	}
}

// shownAddress is an address without what may be secret in it, because people
// paste what doctor says into reports.
func shownAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	return u.Redacted()
}
