package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	main "github.com/chainstream/chainstream/cmd/chainstream"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/postgres"
)

func TestServe(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	s := serve(t, map[string]string{"DATABASE_URL": database})
	// A server without any chain begins with the examples.
	listed := succeed(t, s.client(), "chains", "list")
	for _, name := range []string{"hello", "research-brief"} {
		if !strings.Contains(listed, name) {
			t.Errorf("%s is not among the chains:\n%s", name, listed)
		}
	}
	output := succeed(t, s.client(), "executions", "start", "research-brief", "--follow")
	for _, want := range []string{"> Outline: position 1", "> Brief: position 3", "4 of 4, 100 %", "completed in "} {
		if !strings.Contains(output, want) {
			t.Errorf("%q is not in:\n%s", want, output)
		}
	}
	succeed(t, s.client(), "chains", "delete", "hello")
	s.stop()

	// A chain is left, so the examples do not come back.
	s = serve(t, map[string]string{"DATABASE_URL": database})
	if listed := succeed(t, s.client(), "chains", "list"); strings.Contains(listed, "hello") {
		t.Errorf("a deleted example is back:\n%s", listed)
	}
}

// TestServeStops ends with a stream open and an execution at work: the stream is
// told to come back, and the execution goes on after the next start.
func TestServeStops(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	s := serve(t, nil, "--database-url", database, "--shutdown-timeout", "0s", "--offline-pace", "20ms")
	document := file(t, "slow.yaml", "name: slow\nprompts: [{name: A, model: offline/echo, content: \"Echo: "+strings.Repeat("word ", 100)+"\"}]\n")
	succeed(t, s.client(), "chains", "apply", document)
	succeed(t, s.client(), "executions", "start", "slow")

	stdout, stderr := newWatchedOutput(`"prompt-delta"`), newWatchedOutput(`reconnecting`)
	watched := make(chan error, 1)
	ctx, stopWatching := context.WithCancel(t.Context())
	defer stopWatching()
	go func() {
		watched <- main.Run(ctx, []string{"watch", "1", "--json", "--server", s.url}, environment(nil), stdout, stderr)
	}()
	select {
	case <-stdout.found:
	case err := <-watched:
		t.Fatalf("watch ended with %v\n%s", err, stderr)
	}
	begin := time.Now()
	s.stop()
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("the stop took %s", took)
	}
	<-stderr.found // told to come back, and nobody is there yet

	address, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, nil, "--database-url", database, "--addr", address.Host)
	if code := main.Report(<-watched, stderr); code != 0 {
		t.Errorf("watch: exit code %d\n%s", code, stderr)
	}
	if got, want := stdout.String(), stored(t, database, 1); got != want {
		t.Errorf("what was watched is not the log:\n%s\nwant\n%s", got, want)
	}
}

func TestServeRefuses(t *testing.T) {
	t.Parallel()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // after the subtests
	database := pgtest.Database(t)
	tests := []struct {
		name string
		env  map[string]string
		args []string
		code int
		want string
	}{
		{"another address", nil, []string{"--addr", "0.0.0.0:8080"}, 1, "0.0.0.0:8080 is not a loopback address, and this version has no authentication yet"},
		{"all addresses", map[string]string{"CHAINSTREAM_ADDR": ":8080"}, nil, 1, ":8080 is not a loopback address"},
		{"a name", nil, []string{"--addr", "example.com:80"}, 1, "is not a loopback address"},
		{"no address", nil, []string{"--addr", "nonsense"}, 2, "is not of the form host:port"},
		{"a taken port", map[string]string{"DATABASE_URL": database}, []string{"--addr", taken.Addr().String()}, 1, "is in use"},
		{"no database", map[string]string{"DATABASE_URL": "postgres://u:secret@127.0.0.1:1/d"}, []string{"--addr", "127.0.0.1:0"}, 1, "the database 127.0.0.1:1/d cannot be reached (connection refused)"},
		{"no database URL", nil, []string{"--addr", "127.0.0.1:0", "--database-url", "secret nonsense"}, 1, "the database URL cannot be read"},
		{"a wrong password", map[string]string{"DATABASE_URL": withPassword(t, database, "wrong")}, []string{"--addr", "127.0.0.1:0"}, 1, "refuses the user or the password"},
		{"a database that is not there", map[string]string{"DATABASE_URL": withName(t, database, "nowhere")}, []string{"--addr", "127.0.0.1:0"}, 1, "createdb"},
		{"a data directory that is a file", nil, []string{"--addr", "127.0.0.1:0", "--data-dir", file(t, "f", "")}, 1, "--data-dir"},
		{"a key that is none", map[string]string{"OPENAI_API_KEY": "secret key"}, nil, 1, "OPENAI_API_KEY"},
		{"negative workers", nil, []string{"--workers=-1"}, 2, "--workers must not be negative"},
		{"no idle time", nil, []string{"--idle-timeout=0s"}, 2, "must be more than nothing"},
		{"no number", map[string]string{"CHAINSTREAM_WORKERS": "many"}, nil, 2, "--workers"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := execute(t, test.env, append([]string{"serve", "--log-level", "error"}, test.args...)...)
			if r.code != test.code || !strings.Contains(r.stderr, test.want) {
				t.Errorf("exit code %d, want %d; %q is not in: %s", r.code, test.code, test.want, r.stderr)
			}
			if strings.Count(r.stderr, "\n") != 1 || strings.Contains(r.stderr, "secret") {
				t.Errorf("not one sentence without secrets: %s", r.stderr)
			}
		})
	}
}

// withPassword changes the password of a connection string.
func withPassword(t *testing.T, database, password string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String()
}

// withName changes the database of a connection string.
func withName(t *testing.T, database, name string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// TestDatabaseDies kills the embedded PostgreSQL under a running server.
// The embedded database is killed and started again under a running server.
func TestDatabaseComesBack(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := serve(t, map[string]string{"CHAINSTREAM_DATA_DIR": dir})
	killDatabase(t, dir)
	deadline := time.Now().Add(patience)
	for execute(t, s.client(), "executions", "start", "hello", "--follow").code != 0 {
		if time.Now().After(deadline) {
			t.Fatal("the server does not get over the end of its database")
		}
	}
}

// A database that dies again and again is given up.
func TestDatabaseDies(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := serve(t, map[string]string{"CHAINSTREAM_DATA_DIR": dir})
	s.once.Do(func() {}) // it ends by itself
	var stderr bytes.Buffer
	err := killDatabaseForGood(t, dir, s.ended)
	if code := main.Report(err, &stderr); code != 1 || !strings.Contains(stderr.String(), "the embedded database ended unexpectedly") {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
	s.cancel()

	// The next start recovers.
	again := serve(t, map[string]string{"CHAINSTREAM_DATA_DIR": dir})
	succeed(t, again.client(), "executions", "start", "hello", "--follow")
}

// killDatabase kills the PostgreSQL of a data directory, if it runs.
func killDatabase(t *testing.T, dir string) {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(dir, "postgres", "data", "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(pid), "\n")
	number, err := strconv.Atoi(line)
	if err != nil || number < 2 {
		return // it is being written
	}
	if err := syscall.Kill(number, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
}

// killDatabaseForGood kills it until the program that it belongs to has ended,
// and answers how.
func killDatabaseForGood(t *testing.T, dir string, ended <-chan error) error {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		killDatabase(t, dir)
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		case <-late:
			t.Fatal("it goes on without its database")
		}
	}
}

// TestDatabaseDiesInRun is TestDatabaseDies for the private server of a run.
func TestDatabaseDiesInRun(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	document := file(t, "slow.yaml", "name: slow\nprompts: [{name: A, model: offline/echo, content: \"Echo: "+strings.Repeat("word ", 2000)+"\"}]\n")
	stdout, stderr := newWatchedOutput(`"prompt-delta"`), newWatchedOutput(`$^`)
	ended := make(chan error, 1)
	go func() {
		ended <- main.Run(t.Context(), []string{"run", document, "--data-dir", dir, "--offline-pace", "20ms", "--json"}, environment(nil), stdout, stderr)
	}()
	select {
	case <-stdout.found:
	case err := <-ended:
		t.Fatalf("it ended with %v\n%s", err, stderr)
	}
	err := killDatabaseForGood(t, dir, ended)
	if code := main.Report(err, stderr); code != 1 || !strings.Contains(stderr.String(), "the embedded database ended unexpectedly") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestReadyz(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "--database-url", pgtest.Database(t), "--workers", "0")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/readyz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	// Without workers an execution waits, and can be cancelled.
	succeed(t, s.client(), "executions", "start", "hello")
	succeed(t, s.client(), "executions", "cancel", "1")
	if r := execute(t, s.client(), "watch", "1"); r.code != 130 || !strings.HasSuffix(r.stdout, "cancelled\n") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

func TestDatabaseErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"newer schema", fmt.Errorf("migrate: %w: version 9, this program knows 2", postgres.ErrNewerSchema), "version 9, this program knows 2; start the newer chainstream"},
		{"no pgvector", fmt.Errorf("migrate: %w", sqlError{"0A000", `extension "vector" is not available`}), "CREATE EXTENSION vector"},
		{"no right to pgvector", fmt.Errorf("migrate: %w", sqlError{"42501", `permission denied to create extension "vector"`}), "CREATE EXTENSION vector"},
		{"no right", fmt.Errorf("migrate: %w", sqlError{"42501", "permission denied for schema public"}), "let the user own the database"},
		{"another program", fmt.Errorf("%w: connect: invalid body length: expected at most 1073741822, but got 1414811691", events.ErrUnavailable), "what answers at the database h/d is not PostgreSQL"},
		{"full disk", fmt.Errorf("PostgreSQL ended: PANIC: could not write to file \"pg_wal/x\": No space left on device"), "the disk under the database h/d is full"},
		{"full disk at the set-up", fmt.Errorf("run initdb: FATAL: could not extend file; HINT: Check free disk space; child process exited"), "is full; make room"},
		{"no connection", fmt.Errorf("open: %w", sqlError{"53300", "sorry, too many clients already"}), "max_connections"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := main.DatabaseError(test.err, "the database h/d"); !strings.Contains(got.Error(), test.want) {
				t.Errorf("%q is not in: %s", test.want, got)
			}
		})
	}
	if err := main.DatabaseError(nil, ""); err != nil {
		t.Errorf("no error became %v", err)
	}
}

// sqlError looks like an error of PostgreSQL.
type sqlError struct{ state, message string }

func (e sqlError) Error() string    { return e.message }
func (e sqlError) SQLState() string { return e.state }
