package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/postgres/embedded"
)

// Exit codes.
const (
	exitFailed    = 1   // the command, or the execution it shows, failed
	exitUsage     = 2   // the command line cannot be understood
	exitCancelled = 130 // interrupted, or the execution was cancelled
)

// exitError ends the program with a code. Without a message nothing is printed:
// what there is to say has been said.
type exitError struct {
	code    int
	message string
	err     error // what caused it; may be nil
}

func (e *exitError) Error() string { return e.message }
func (e *exitError) Unwrap() error { return e.err }

// usage is a mistake in what the user typed.
func usage(format string, args ...any) error {
	return &exitError{code: exitUsage, message: fmt.Sprintf(format, args...)}
}

// report prints an error as one sentence and answers the exit code.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	code, message := exitFailed, err.Error()
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		code = exit.code
		if exit.message == "" {
			return code
		}
	case errors.Is(err, context.Canceled):
		code, message = exitCancelled, "interrupted"
	}
	// What is quoted may come from a document or a server.
	fmt.Fprintln(stderr, "chainstream:", printable(message)) // should that fail, there is nobody left to tell
	return code
}

// databaseError is an error of the database as a sentence with its remedy. where
// names the database without its password.
func databaseError(err error, where string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	sentence := func(format string, args ...any) error {
		return &exitError{code: exitFailed, message: fmt.Sprintf(format, args...), err: err}
	}
	switch {
	case diskFull(err):
		return sentence("the disk under %s is full; make room there and start again: what was committed is not lost", where)
	case strings.Contains(err.Error(), "invalid body length"): // pgx has no sentinel for a foreign protocol
		return sentence("what answers at %s is not PostgreSQL; check the host and the port in --database-url (DATABASE_URL)", where)
	case errors.Is(err, postgres.ErrNewerSchema):
		return sentence("%s; start the newer chainstream again, or take the schema back with that one's migrate down", trim(err))
	case errors.Is(err, embedded.ErrInUse):
		return sentence("%s with --data-dir (CHAINSTREAM_DATA_DIR)", trim(err))
	case errors.Is(err, embedded.ErrNotInstalled), errors.Is(err, embedded.ErrVectorMissing),
		errors.Is(err, embedded.ErrVersion), errors.Is(err, embedded.ErrNotTraversable), errors.Is(err, embedded.ErrNoAccount):
		return sentence("%s", trim(err))
	case strings.Contains(err.Error(), `extension "vector"`), strings.Contains(err.Error(), "vector.control"):
		return sentence("the PostgreSQL server of %s has no pgvector extension, or this role may not create it; "+
			"install pgvector there (make setup does so on this machine) and run CREATE EXTENSION vector in the database as a superuser", where)
	}
	if strings.Contains(err.Error(), "cannot parse `") { // pgx has no sentinel for it; the text hides passwords
		return sentence("the database URL cannot be read; it has the form postgres://user:password@host:5432/name (--database-url, DATABASE_URL)")
	}
	var state interface{ SQLState() string } // *pgconn.PgError, which is known to package postgres alone
	if errors.As(err, &state) {
		switch state.SQLState() {
		case "28P01", "28000":
			return sentence("%s refuses the user or the password; check them in --database-url (DATABASE_URL)", where)
		case "3D000":
			return sentence("there is no database at %s; create it with: createdb, or name another one in --database-url (DATABASE_URL)", where)
		case "42501":
			return sentence("the user of %s may not do this: %s; let the user own the database", where, trim(err))
		case "53300":
			return sentence("%s has no free connection left; raise max_connections, or close other programs", where)
		}
	}
	if errors.Is(err, events.ErrUnavailable) {
		return sentence("%s cannot be reached (%s); check that PostgreSQL runs there and that --database-url (DATABASE_URL) is right", where, reason(err))
	}
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENOENT) {
		return sentence("%s; name a directory that you may write to with --data-dir (CHAINSTREAM_DATA_DIR)", trim(err))
	}
	return err
}

// diskFull tells whether PostgreSQL, whose words are all there is to go by, or
// the system found no room on the disk.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "No space left on device") ||
		strings.Contains(err.Error(), "Check free disk space")
}

// trim joins the lines of an error and leaves out what a user need not know.
func trim(err error) string {
	return strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "start embedded database: ")
}

// reason is the innermost cause of an error, which says in the fewest words why
// something cannot be reached.
func reason(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	for {
		switch wrapped := err.(type) { //nolint:errorlint // it walks the tree itself
		case interface{ Unwrap() error }:
			if inner := wrapped.Unwrap(); inner != nil {
				err = inner
				continue
			}
		case interface{ Unwrap() []error }:
			if list := wrapped.Unwrap(); len(list) > 0 {
				err = list[len(list)-1]
				continue
			}
		}
		return trim(err)
	}
}
