package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/chainstream/chainstream/postgres/embedded"
)

// psqlCommand is chainstream psql.
type psqlCommand struct {
	Command string   `help:"SQL to run; without it psql reads from the terminal." short:"c" placeholder:"SQL"`
	Args    []string `arg:"" optional:"" name:"argument" help:"Further arguments of psql, behind --."`
	databaseFlags
}

// Help is shown by chainstream psql --help.
func (psqlCommand) Help() string {
	return `Connects PostgreSQL's own psql to the database that a server uses: the one of --database-url, or the embedded one, which runs while its server does. docs/events.md lists the tables and views.

Examples:

    chainstream psql
    chainstream psql -c 'SELECT seq, event_type FROM events WHERE execution_id = 2 ORDER BY seq'
    chainstream psql -- --csv -c 'TABLE v_prompt_runs' > runs.csv`
}

// Run runs psql and ends with its exit code.
func (c *psqlCommand) Run(ctx context.Context, a *app) error {
	address, err := c.address(ctx, a)
	if err != nil {
		return err
	}
	program, err := findPSQL()
	if err != nil {
		return err
	}
	address, password := withoutPassword(address)
	args := []string{address}
	if c.Command != "" {
		args = append(args, "-c", c.Command)
	}
	// An interrupt is psql's: it reaches it from the terminal and ends a
	// statement, not the session.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, append(args, c.Args...)...) //nolint:gosec // psql with what the user typed
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, a.stdout, a.stderr
	cmd.Env = os.Environ()
	if password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+password)
	}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &exitError{code: max(exit.ExitCode(), exitFailed)} // psql has said why
	}
	if err != nil {
		return fmt.Errorf("run psql: %w", err)
	}
	return nil
}

// address answers the address of the database, of the embedded one only while
// it runs.
func (c *psqlCommand) address(ctx context.Context, a *app) (string, error) {
	if c.DatabaseURL != "" {
		return c.DatabaseURL, nil
	}
	dir, err := c.directory(a.getenv)
	if err != nil {
		return "", err
	}
	address, err := embedded.Address(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &exitError{code: exitFailed, err: err, message: fmt.Sprintf("there is no database in %s; chainstream serve makes it, or name another directory with --data-dir (CHAINSTREAM_DATA_DIR)", dir)}
	case errors.Is(err, fs.ErrPermission):
		return "", &exitError{code: exitFailed, err: err, message: fmt.Sprintf("the database in %s belongs to another user; run chainstream psql as that one", dir)}
	case err != nil:
		return "", err
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("read the address of the database: %w", err)
	}
	dialer := net.Dialer{Timeout: probeTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return "", &exitError{code: exitFailed, err: err, message: fmt.Sprintf("the database in %s does not run; it runs while its server does: chainstream serve", dir)}
	}
	return address, conn.Close()
}

// findPSQL answers the program, which is not always in the PATH.
func findPSQL() (string, error) {
	if program, err := exec.LookPath("psql"); err == nil {
		return program, nil
	}
	if bin, err := embedded.Find(); err == nil {
		if program, err := exec.LookPath(filepath.Join(bin.BinDir, "psql")); err == nil {
			return program, nil
		}
	}
	return "", &exitError{code: exitFailed, message: "psql is not installed; it comes with PostgreSQL's client programs (Debian and Ubuntu: apt-get install postgresql-client)"}
}

// withoutPassword takes the password out of a URL: everybody on the machine may
// read the arguments of a program, but not its environment. What is no URL is
// left to psql.
func withoutPassword(address string) (rest, password string) {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address, ""
	}
	password, _ = u.User.Password()
	u.User = url.User(u.User.Username())
	return u.String(), password
}
