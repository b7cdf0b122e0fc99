package embedded

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
)

// processesOf lists the PostgreSQL processes whose working directory is a data
// directory: all of them change into it.
func processesOf(_ context.Context, dataDir string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", entry.Name())
		// Processes end while they are looked at, and other users' cannot be
		// looked at: neither is ours.
		if cwd, err := os.Readlink(filepath.Join(dir, "cwd")); err != nil || cwd != dataDir {
			continue
		}
		if exe, err := os.Readlink(filepath.Join(dir, "exe")); err != nil || !isPostgres(exe) {
			continue
		}
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		found = append(found, process{
			pid: pid,
			// The others replace their command line by "postgres: what they do".
			postmaster: !bytes.HasPrefix(args, []byte("postgres: ")),
			ours:       bytes.Contains(args, []byte(ownerParameter+"=")),
		})
	}
	return found, nil
}

// isPostgres reports whether a program is a PostgreSQL server, also one whose
// file was replaced by an upgrade while it ran.
func isPostgres(exe string) bool {
	switch filepath.Base(exe) {
	case "postgres", "postmaster", "postgres (deleted)", "postmaster (deleted)":
		return true
	}
	return false
}
