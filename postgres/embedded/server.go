package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// ownerParameter marks the servers we start. PostgreSQL ignores parameters
// with a dot that no extension claims; it stays readable in the command line.
const ownerParameter = "chainstream.owner_pid"

// server is one PostgreSQL process, the postmaster.
type server struct {
	cmd      *exec.Cmd
	log      *serverLog
	exited   chan struct{} // closed when the process has been awaited
	waitErr  error         // how it ended; read after exited
	stopping atomic.Bool   // its end is wanted
}

// spawn starts the server process. It is ready some time later.
func (c *Cluster) spawn() (*server, error) {
	log, err := openLog(c.paths.log)
	if err != nil {
		return nil, err
	}
	cmd := c.account.command(context.Background(), c.paths.data, c.bin.program("postgres"),
		"-D", c.paths.data,
		"-c", ownerParameter+"="+strconv.Itoa(os.Getpid()),
		"-c", "config_file="+c.paths.settings,
		"-c", "hba_file="+c.paths.access,
		// On the command line, where no file and no ALTER SYSTEM overrides it.
		"-c", "listen_addresses="+c.listen,
		"-c", "port="+strconv.Itoa(c.port),
		"-c", "unix_socket_directories="+quoteListItem(c.socketDir),
		"-c", "unix_socket_permissions=0700",
	)
	cmd.Stdout, cmd.Stderr = log.file, log.file
	dieWithParent(cmd.SysProcAttr, fastShutdown)

	s := &server{cmd: cmd, log: log, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent-death signal fires when the thread that made the child
		// ends, so this goroutine keeps its thread for as long as the child
		// lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		trimmed := make(chan struct{})
		go func() {
			defer close(trimmed)
			log.keepSmall(s.exited)
		}()
		s.waitErr = cmd.Wait()
		close(s.exited)
		<-trimmed
	}()
	if err := <-started; err != nil {
		log.close()
		return nil, err
	}
	return s, nil
}

// stop ends the process: fast, then at once, then by force. It is an error
// when fast was not enough.
func (s *server) stop(ctx context.Context, patience time.Duration) error {
	s.stopping.Store(true)
	defer s.log.close()
	if s.isDown() {
		return nil
	}
	if err := s.cmd.Process.Signal(fastShutdown); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the embedded database: %w", err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var reason error
	select {
	case <-s.exited:
		return nil
	case <-timer.C:
		reason = fmt.Errorf("not down after %s", patience)
	case <-ctx.Done():
		reason = context.Cause(ctx)
	}
	for _, sig := range []os.Signal{immediateShutdown, syscall.SIGKILL} {
		if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop the embedded database: %w", err)
		}
		timer.Reset(quitTimeout)
		select {
		case <-s.exited:
			return fmt.Errorf("stop the embedded database: %w; it was stopped at once and recovers at the next start", reason)
		case <-timer.C:
		}
	}
	return fmt.Errorf("stop the embedded database: pid %d does not end", s.cmd.Process.Pid)
}

func (s *server) isDown() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// failure explains the end of an exited process that nobody asked to stop.
func (s *server) failure() error {
	if s.stopping.Load() {
		return nil
	}
	complaint := s.log.complaint()
	if strings.Contains(complaint, "Address already in use") || strings.Contains(complaint, "could not create any TCP/IP sockets") {
		return fmt.Errorf("%w: %s", errPortTaken, complaint)
	}
	if strings.Contains(complaint, "pre-existing shared memory block") {
		return fmt.Errorf("%w: %s", errMemoryInUse, complaint)
	}
	if s.waitErr == nil {
		return fmt.Errorf("PostgreSQL was shut down by somebody else%s", quoteOutput(complaint))
	}
	return fmt.Errorf("PostgreSQL ended: %w%s", s.waitErr, quoteOutput(complaint))
}

// quoteListItem quotes a folder for a comma-separated list of a parameter.
func quoteListItem(item string) string {
	return `"` + strings.ReplaceAll(item, `"`, `""`) + `"`
}

const (
	logLimit    = 16 << 20 // bytes; the newer half survives a trim
	logInterval = time.Minute
)

// serverLog is the file that takes PostgreSQL's messages. It grows to logLimit
// and not further: what is above is moved to a second file, in place, because
// the server keeps its descriptor.
type serverLog struct {
	path  string
	file  *os.File
	start int64 // where this server's messages begin
}

// openLog opens the log for a new server. The server writes in append mode and
// so follows a truncation.
func openLog(path string) (*serverLog, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the database log: %w", err)
	}
	l := &serverLog{path: path, file: file}
	if err := errors.Join(inheritOwner(file), l.trim()); err != nil {
		l.close()
		return nil, fmt.Errorf("open the database log: %w", err)
	}
	if l.start, err = file.Seek(0, io.SeekEnd); err != nil {
		l.close()
		return nil, fmt.Errorf("open the database log: %w", err)
	}
	return l, nil
}

func (l *serverLog) close() { _ = l.file.Close() }

// keepSmall trims the log now and then until done is closed. A log that cannot
// be trimmed is no reason to stop a database, so that is tried again.
func (l *serverLog) keepSmall(done <-chan struct{}) {
	ticker := time.NewTicker(logInterval)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			_ = l.trim()
		}
	}
}

// trim moves the content of a log that is too long to a file beside it, which
// it replaces. Lines written in between may be lost.
func (l *serverLog) trim() error {
	info, err := l.file.Stat()
	if err != nil || info.Size() <= logLimit {
		return err
	}
	old, err := os.OpenFile(l.path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = old.Close() }() // a copy of old log lines: losing some is no harm
	from := info.Size() - logLimit/2
	if _, err := io.Copy(old, io.NewSectionReader(l.file, from, logLimit/2)); err != nil {
		return err
	}
	return l.file.Truncate(0)
}

// complaint returns the last errors this server wrote.
func (l *serverLog) complaint() string {
	file, err := os.Open(l.path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }() // it is only read
	text, err := io.ReadAll(io.NewSectionReader(file, l.start, 64<<10))
	if err != nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		for _, severity := range []string{"WARNING:  ", "ERROR:  ", "FATAL:  ", "PANIC:  ", "LOG:  could not", "HINT:  "} {
			if _, rest, ok := strings.Cut(line, severity); ok {
				if strings.HasPrefix(rest, "the database system is ") {
					break // what it told clients that came too early or too late
				}
				said := strings.TrimPrefix(severity+strings.TrimSpace(rest), "LOG:  ")
				if !slices.Contains(lines, said) { // every connection says the same
					lines = append(lines, said)
				}
				break
			}
		}
	}
	if len(lines) > 5 {
		lines = lines[len(lines)-5:]
	}
	return strings.Join(lines, "; ")
}
