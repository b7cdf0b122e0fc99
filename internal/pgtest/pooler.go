package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// NewPooler starts a PgBouncer in transaction mode in front of a database and
// returns the connection string through it. It ends with the test.
func NewPooler(t testing.TB, dsn string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Fatal("pgtest: PgBouncer is missing: scripts/setup.sh --test installs it")
		}
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	// Its own account may not enter the folder of the database's socket.
	host := config.Host
	if len(host) > 0 && host[0] == '/' {
		host = "127.0.0.1"
	}
	port := freePort(t)
	dir, err := os.MkdirTemp("", "chainstream-pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	settings := fmt.Sprintf(`[databases]
%[1]s = host=%[2]s port=%[3]d dbname=%[1]s user=%[4]s password=%[5]s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[6]d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000
`, config.Database, host, config.Port, config.User, config.Password, port)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "-q", file) // it is killed below, after those who use it
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 { // it refuses to run as root
		if cmd.SysProcAttr.Credential, err = nobody(dir, file); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("pgtest: start PgBouncer: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has nothing to lose
		<-ended
		if t.Failed() {
			t.Logf("PgBouncer wrote:\n%s", output.String())
		}
	})
	pooled, err := withHost(dsn, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	if err := awaitPooler(t, pooled, ended); err != nil {
		t.Fatalf("pgtest: PgBouncer: %v\n%s", err, output.String())
	}
	return pooled
}

func awaitPooler(t testing.TB, dsn string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(t.Context(), opTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-tick.C:
		case <-ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return err
		}
	}
}

// nobody gives files to the account that PostgreSQL's tests run under anyway.
func nobody(paths ...string) (*syscall.Credential, error) {
	entry, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(entry.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(entry.Gid)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if err := os.Chown(path, uid, gid); err != nil {
			return nil, err
		}
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// freePort answers a port that nothing listens on.
func freePort(t testing.TB) int {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("%v is no port", listener.Addr())
	}
	return address.Port
}
