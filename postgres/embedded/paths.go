package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// paths names the files of a cluster.
type paths struct {
	root     string // the data directory
	lock     string // held by the process that runs the cluster
	cluster  string // appears by rename when it is complete
	data     string // PostgreSQL's own data directory
	password string
	port     string // the port of the last run
	run      string // the socket's folder, where its path is short enough
	log      string
	settings string // PostgreSQL's configuration, written at every start
	access   string // its rules of who may connect, too
}

// locate makes the data directory's path absolute and free of symbolic links,
// as the kernel reports it for the working directory of a process.
func locate(dataDir string) (paths, error) {
	if dataDir == "" {
		return paths{}, errors.New("no data directory given")
	}
	root, err := filepath.Abs(dataDir)
	if err != nil {
		return paths{}, fmt.Errorf("locate the data directory: %w", err)
	}
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real
	} else if !errors.Is(err, os.ErrNotExist) {
		return paths{}, fmt.Errorf("locate the data directory: %w", err)
	}
	return pathsIn(root), nil
}

func pathsIn(root string) paths {
	return paths{root: root, lock: filepath.Join(root, "postgres.lock")}.within(filepath.Join(root, "postgres"))
}

// within is p with the cluster in another folder, as while it is staged.
func (p paths) within(cluster string) paths {
	p.cluster = cluster
	p.data = filepath.Join(cluster, "data")
	p.password = filepath.Join(cluster, "password")
	p.port = filepath.Join(cluster, "port")
	p.run = filepath.Join(cluster, "run")
	p.log = filepath.Join(cluster, "server.log")
	p.settings = filepath.Join(cluster, "postgresql.conf")
	p.access = filepath.Join(cluster, "pg_hba.conf")
	return p
}

// mode is the mode of the folders around PostgreSQL's own: when we are root,
// PostgreSQL runs as somebody else, who has to pass through them.
func (paths) mode() os.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// make makes the data directory.
func (p *paths) make() error {
	if err := os.MkdirAll(p.root, p.mode()); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	root, err := filepath.EvalSymlinks(p.root)
	if err != nil {
		return fmt.Errorf("locate the data directory: %w", err)
	}
	*p = pathsIn(root)
	return nil
}

// major is the major version the cluster was made with, 0 if there is none.
func (p paths) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(p.data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the cluster's version: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read the cluster's version: %w", err)
	}
	return major, nil
}

// replaceFile writes a file beside the cluster by rename: it is never seen
// half-written, and a link that somebody put there is replaced, not followed.
// A file that root writes into another user's folder becomes that user's.
func replaceFile(path, text string, mode os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	err = errors.Join(err, file.Chmod(mode), inheritOwner(file), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

// inheritOwner gives a file to the owner of its folder where we are root.
func inheritOwner(file *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(file.Name()))
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
		return file.Chown(int(stat.Uid), int(stat.Gid))
	}
	return nil
}

// lock is an exclusive lock on the data directory. The kernel frees it when
// the process ends, however it ends.
type lock struct{ file *os.File }

// acquire takes the lock or returns ErrInUse with the holder's process id.
func acquire(p paths) (*lock, error) {
	file, err := os.OpenFile(p.lock, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data directory's lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = file.Close() }() // nothing was written to it
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the data directory: %w", err)
		}
		holder, err := os.ReadFile(p.lock)
		if err != nil || len(holder) == 0 {
			holder = []byte("unknown")
		}
		return nil, fmt.Errorf("%w: the process with pid %s runs a server on %s; stop it, or choose another data directory",
			ErrInUse, strings.TrimSpace(string(holder)), p.root)
	}
	l := &lock{file: file}
	if err := l.sign(); err != nil {
		l.release()
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	return l, nil
}

// sign writes our process id into the lock file, for the message of others.
func (l *lock) sign() error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// release frees the lock. Closing cannot fail in a way that keeps it.
func (l *lock) release() { _ = l.file.Close() }
