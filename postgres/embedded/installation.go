package embedded

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// oldestMajor is the oldest supported major version of PostgreSQL.
const oldestMajor = 15

// Installation is a PostgreSQL that is installed on this machine.
type Installation struct {
	Version   string // as PostgreSQL writes it, for example "15.18"
	Major     int    // for example 15
	BinDir    string // the folder of initdb and postgres
	HasVector bool   // the pgvector extension is installed for it
}

// binDirPatterns are the places where packages put PostgreSQL: Debian and
// Ubuntu, the RPM packages, Homebrew on both architectures and on Linux,
// Postgres.app.
var binDirPatterns = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// Find returns the PostgreSQL that a new cluster would be made with: of all
// installations of version 15 or newer, those with pgvector first, then the
// newest. It looks where packages put PostgreSQL and in PATH. The error is
// ErrNotInstalled; HasVector may be false.
func Find() (Installation, error) {
	found := installations()
	if len(found) == 0 {
		return Installation{}, fmt.Errorf("%w (version %d or newer); install it with: %s",
			ErrNotInstalled, oldestMajor, installCommand(0))
	}
	return found[0], nil
}

// findMajor returns the installation that can run a cluster of a major
// version. The error is ErrNotInstalled or ErrVersion.
func findMajor(major int) (Installation, error) {
	best, err := Find()
	if err != nil {
		return Installation{}, err
	}
	for _, bin := range installations() {
		if bin.Major == major {
			return bin, nil
		}
	}
	return best, nil // the caller sees the other version and says so
}

// installations returns every suitable installation, the best first.
func installations() []Installation {
	var found []Installation
	for _, dir := range candidateDirs() {
		if bin, err := inspect(dir); err == nil && bin.Major >= oldestMajor {
			found = append(found, bin)
		}
	}
	slices.SortStableFunc(found, func(a, b Installation) int {
		if a.HasVector != b.HasVector {
			if a.HasVector {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.Major, a.Major)
	})
	return found
}

// candidateDirs returns the folders to look into, each once.
func candidateDirs() []string {
	var dirs []string
	for _, pattern := range binDirPatterns {
		matches, err := filepath.Glob(pattern)
		if err == nil { // only a malformed pattern fails
			dirs = append(dirs, matches...)
		}
	}
	if path, err := exec.LookPath("pg_config"); err == nil {
		if dir, err := query(path, "--bindir"); err == nil {
			dirs = append(dirs, dir)
		}
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	seen := make(map[string]bool)
	return slices.DeleteFunc(dirs, func(dir string) bool {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || seen[real] {
			return true
		}
		seen[real] = true
		return false
	})
}

var versionPattern = regexp.MustCompile(`\) (\d+)(\.\d+|\w+)*`)

// inspect looks at the PostgreSQL of one folder.
func inspect(dir string) (Installation, error) {
	bin := Installation{BinDir: dir}
	if _, err := exec.LookPath(bin.program("initdb")); err != nil {
		return Installation{}, err
	}
	text, err := query(bin.program("postgres"), "--version")
	if err != nil {
		return Installation{}, err
	}
	match := versionPattern.FindStringSubmatch(text)
	if match == nil {
		return Installation{}, fmt.Errorf("unexpected version %q", text)
	}
	bin.Version = strings.TrimPrefix(match[0], ") ")
	if bin.Major, err = strconv.Atoi(match[1]); err != nil {
		return Installation{}, err
	}
	for _, share := range bin.shareDirs() {
		if _, err := os.Stat(filepath.Join(share, "extension", "vector.control")); err == nil {
			bin.HasVector = true
		}
	}
	return bin, nil
}

// program is the path of one of PostgreSQL's programs.
func (i Installation) program(name string) string { return filepath.Join(i.BinDir, name) }

// shareDirs are the folders that may hold this installation's extensions. Some
// packages leave pg_config out; then the usual places relative to the programs
// are tried.
func (i Installation) shareDirs() []string {
	if share, err := query(i.program("pg_config"), "--sharedir"); err == nil {
		return []string{share}
	}
	major := strconv.Itoa(i.Major)
	prefix := filepath.Dir(i.BinDir)
	return []string{
		filepath.Join("/usr/share/postgresql", major),
		filepath.Join(prefix, "share", "postgresql"),
		filepath.Join(prefix, "share", "postgresql@"+major),
		filepath.Join(prefix, "share"),
	}
}

// query runs a program that prints one fact about itself.
func query(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return "", fmt.Errorf("run %s: %w", program, err)
	}
	return string(bytes.TrimSpace(out)), nil
}

// installCommand is the one command that installs PostgreSQL and pgvector on
// this machine. A major version of 0 means any.
func installCommand(major int) string {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		release = nil // unreadable is as good as absent: the general answer follows
	}
	return installCommandFor(runtime.GOOS, string(release), major)
}

// distributionMajors is the PostgreSQL of the distributions that package
// pgvector for it.
var distributionMajors = map[string]int{
	"debian 13":    17,
	"ubuntu 24.04": 16,
	"ubuntu 24.10": 16,
	"ubuntu 25.04": 17,
	"ubuntu 25.10": 17,
	"ubuntu 26.04": 18,
}

func installCommandFor(goos, osRelease string, major int) string {
	if goos == "darwin" {
		return fmt.Sprintf("brew install postgresql@%d pgvector", max(major, 17))
	}
	fields := make(map[string]string)
	for line := range strings.Lines(osRelease) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			fields[key] = strings.Trim(value, `"'`)
		}
	}
	shipped := distributionMajors[fields["ID"]+" "+fields["VERSION_ID"]]
	if shipped != 0 && (major == 0 || major == shipped) {
		return fmt.Sprintf("sudo apt-get install -y postgresql-%[1]d postgresql-%[1]d-pgvector", shipped)
	}
	return "make setup (in a clone of the Chainstream repository)"
}
