package embedded

import (
	"errors"
	"fmt"
)

// Errors of Start and Find. Each is wrapped in a text that says what to do.
var (
	// ErrNotInstalled says that no PostgreSQL of a supported version was found.
	ErrNotInstalled = errors.New("PostgreSQL is not installed")
	// ErrVectorMissing says that the PostgreSQL found lacks the pgvector extension.
	ErrVectorMissing = errors.New("the pgvector extension of PostgreSQL is not installed")
	// ErrVersion says that the cluster was made by another major version than
	// the one that shall run it.
	ErrVersion = errors.New("the database was made by another major version of PostgreSQL")
	// ErrInUse says that another server runs on the same data directory.
	ErrInUse = errors.New("the data directory is in use")
	// ErrNotTraversable says that the account PostgreSQL runs as cannot enter
	// the data directory.
	ErrNotTraversable = errors.New("the data directory cannot be reached")
	// ErrNoAccount says that this process is root and there is no other
	// account to run PostgreSQL as.
	ErrNoAccount = errors.New("no account to run PostgreSQL as")
	// errPortTaken says that another program listens on the chosen port.
	errPortTaken = errors.New("port taken")
	// errMemoryInUse says that a process of the server before has not let go of
	// its shared memory yet.
	errMemoryInUse = errors.New("shared memory in use")
)

func versionError(dataDir string, made int, found string) error {
	return fmt.Errorf("%w: %s needs PostgreSQL %d, found %s; "+
		"install PostgreSQL %d with pgvector beside it (both can stay), "+
		"or move the data with pg_dump or pg_upgrade",
		ErrVersion, dataDir, made, found, made)
}

func vectorError(bin Installation) error {
	return fmt.Errorf("%w for PostgreSQL %s in %s; install it with: %s",
		ErrVectorMissing, bin.Version, bin.BinDir, installCommand(bin.Major))
}
