package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainstream/chainstream/postgres/embedded"
)

func TestStartMakesTheClusterOnceAndKeepsItsData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "new", "data dir") // absent, with a space
	if _, err := embedded.Address(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("address before the first start: %v", err)
	}
	durable := map[string]string{}
	first := start(t, embedded.Config{DataDir: dir, Settings: durable})
	query(t, first.URL(), "CREATE TABLE kept AS SELECT 42 AS n")
	if got := query(t, first.SocketURL(), "SELECT n FROM kept"); got != "42" {
		t.Errorf("over the socket: n = %s", got)
	}
	if got, err := embedded.Address(dir); err != nil || got != first.URL() {
		t.Errorf("address %s, %v; want %s", got, err, first.URL())
	}
	// A Ctrl-C goes to the process group of the terminal.
	if group, err := syscall.Getpgid(postmaster(t, dir)); err != nil || group == syscall.Getpgrp() {
		t.Errorf("PostgreSQL is in our process group %d (%v)", group, err)
	}
	stop(t, first)
	if got := state(t, dir); got != "shut down" {
		t.Errorf("after Stop the cluster is %q", got)
	}
	if err := first.Err(); err != nil {
		t.Errorf("Err after Stop: %v", err)
	}

	second := start(t, embedded.Config{DataDir: dir, Settings: durable})
	if got := query(t, second.URL(), "SELECT n FROM kept"); got != "42" {
		t.Errorf("after a second start: n = %s", got)
	}
	if first.URL() != second.URL() {
		t.Errorf("the address changed although its port was free: %s, %s", first.URL(), second.URL())
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	cluster := start(t, embedded.Config{DataDir: openDir(t), Settings: map[string]string{
		"work_mem": "9MB", "application_name": `it's a \ name`, "listen_addresses": "*",
	}})
	for parameter, want := range map[string]string{
		"synchronous_commit":         "on",
		"fsync":                      "on",
		"full_page_writes":           "on",
		"data_checksums":             "on",
		"wal_compression":            "lz4",
		"default_toast_compression":  "lz4",
		"jit":                        "off",
		"max_connections":            "200",
		"max_wal_size":               "4GB",
		"server_encoding":            "UTF8",
		"work_mem":                   "9MB",
		"listen_addresses":           "127.0.0.1",
		"is_superuser":               "off",
		"TimeZone":                   "UTC",
		"unix_socket_permissions":    "0700",
		"password_encryption":        "scram-sha-256",
		"default_text_search_config": "pg_catalog.english",
	} {
		if got := query(t, cluster.URL(), "SELECT current_setting('"+parameter+"')"); got != want {
			t.Errorf("%s = %q, want %q", parameter, got, want)
		}
	}
	for statement, want := range map[string]string{
		"SELECT '[1,2]'::vector <-> '[1,4]'":                                    "2",
		"SELECT datcollate FROM pg_database WHERE datname = current_database()": "C",
		"SELECT upper('straße é')":                                              "STRAßE É",
	} {
		if got := query(t, cluster.URL(), statement); got != want {
			t.Errorf("%s = %q, want %q", statement, got, want)
		}
	}
}

func TestRefusesASettingThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{"work_mem": "1MB\nfsync = off", "bad name": "1"} {
		_, err := embedded.Start(t.Context(), embedded.Config{DataDir: openDir(t), Settings: map[string]string{name: value}})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNoEntryWithoutThePassword(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	cluster := start(t, embedded.Config{DataDir: dir})
	for _, userinfo := range []*url.Userinfo{
		url.UserPassword("chainstream", "wrong"),
		url.UserPassword("postgres", ""),
		url.UserPassword("postgres", "postgres"),
	} {
		for _, address := range []string{cluster.URL(), cluster.SocketURL()} {
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			u.User = userinfo
			conn, err := pgx.Connect(t.Context(), u.String())
			if err == nil {
				t.Errorf("%s came in", userinfo)
				_ = conn.Close(t.Context())
				continue
			}
			if pgErr := (*pgconn.PgError)(nil); !errors.As(err, &pgErr) || pgErr.Code != "28P01" {
				t.Errorf("%s: %v, want a refused password", userinfo, err)
			}
		}
	}
	info, err := os.Stat(filepath.Join(dir, "postgres", "password"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the password file has mode %v", info.Mode())
	}
}

func TestSecondServerOnTheSameData(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	start(t, embedded.Config{DataDir: dir})
	_, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir})
	if !errors.Is(err, embedded.ErrInUse) {
		t.Fatalf("in the same process: %v", err)
	}
	other := startOwner(t, dir, nil)
	if want := fmt.Sprintf("pid %d ", os.Getpid()); !strings.Contains(other.answer, embedded.ErrInUse.Error()) || !strings.Contains(other.answer, want) {
		t.Errorf("another process was told %q, want it to name %q", other.answer, want)
	}
}

// Clusters that are first started at the same moment do not disturb each other.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	var clusters [3]*embedded.Cluster
	var group sync.WaitGroup
	for i := range clusters {
		dir := openDir(t)
		group.Go(func() {
			var err error
			if clusters[i], err = embedded.Start(t.Context(), embedded.Config{DataDir: dir, Settings: quick}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, cluster := range clusters {
		if cluster == nil {
			continue // reported above
		}
		query(t, cluster.URL(), "SELECT 1")
		stop(t, cluster)
	}
}

func TestPostgresKilled(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	cluster := start(t, embedded.Config{DataDir: dir})
	query(t, cluster.URL(), "CREATE TABLE kept AS SELECT 42 AS n")
	for range 3 { // each of them complains in the log
		conn, err := pgx.Connect(t.Context(), cluster.URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) }) // its server is gone
	}
	// It is started again where it was, until that makes no sense any more.
	for crash := 1; ; crash++ {
		killed := postmaster(t, dir)
		if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if crash > 3 {
			break
		}
		eventually(t, "PostgreSQL answers again", func() bool {
			conn, err := pgx.Connect(t.Context(), cluster.SocketURL())
			if err != nil {
				return false
			}
			defer func() { _ = conn.Close(t.Context()) }()
			var n int
			return conn.QueryRow(t.Context(), "SELECT n FROM kept").Scan(&n) == nil && n == 42
		})
		if err := cluster.Err(); err != nil {
			t.Fatalf("after crash %d: %v", crash, err)
		}
	}
	select {
	case <-cluster.Done():
	case <-time.After(lengthy):
		t.Fatal("Done does not tell that PostgreSQL was killed again and again")
	}
	if err := cluster.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Err = %v", err)
	} else if n := strings.Count(err.Error(), "unexpected postmaster exit"); n > 1 {
		t.Errorf("the complaint of every connection is repeated: %v", err)
	}
	stop(t, cluster)

	again := start(t, embedded.Config{DataDir: dir})
	if got := query(t, again.URL(), "SELECT n FROM kept"); got != "42" {
		t.Errorf("after recovery: n = %s", got)
	}
}

// The owner is killed while a client is connected. A new server may start at
// once; it waits for what is left of the old one.
func TestOwnerKilled(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	old := startOwner(t, dir, nil)
	query(t, old.answer, "CREATE TABLE kept AS SELECT 42 AS n")
	client, err := pgx.Connect(t.Context(), old.answer)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close(t.Context()) }()
	old.kill(t)

	cluster := start(t, embedded.Config{DataDir: dir})
	if got := query(t, cluster.URL(), "SELECT n FROM kept"); got != "42" {
		t.Errorf("n = %s", got)
	}
}

// A stopped postmaster cannot act on the parent-death signal, as on systems
// that have none: the next start finds it and ends it.
func TestOrphanThatDidNotNotice(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	old := startOwner(t, dir, nil)
	query(t, old.answer, "CREATE TABLE kept AS SELECT 42 AS n")
	orphan := postmaster(t, dir)
	if err := syscall.Kill(orphan, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	old.kill(t)

	cluster := start(t, embedded.Config{DataDir: dir, StopTimeout: 300 * time.Millisecond})
	if got := query(t, cluster.URL(), "SELECT n FROM kept"); got != "42" {
		t.Errorf("n = %s", got)
	}
	if pid := postmaster(t, dir); pid == orphan {
		t.Errorf("the orphan %d still runs", pid)
	}
}

// Postmaster and owner are killed; a backend that is busy goes on for a while.
func TestBackendWithoutPostmaster(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	old := startOwner(t, dir, nil)
	client, err := pgx.Connect(t.Context(), old.answer)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close(t.Context()) }()
	backend := int(client.PgConn().PID())
	if err := syscall.Kill(backend, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(postmaster(t, dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	old.kill(t)

	cluster := start(t, embedded.Config{DataDir: dir, StopTimeout: 300 * time.Millisecond})
	query(t, cluster.URL(), "SELECT 1")
	eventually(t, "the old backend is gone", func() bool {
		return errors.Is(syscall.Kill(backend, 0), syscall.ESRCH)
	})
}

// The pid in a stale pid file belongs to another program of the same user.
func TestStalePidFile(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	old := start(t, embedded.Config{DataDir: dir})
	address, err := url.Parse(old.URL())
	if err != nil {
		t.Fatal(err)
	}
	stop(t, old)

	stranger := exec.Command("sleep", "600")
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: owns(t, filepath.Join(dir, "postgres", "data"))}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stranger.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = stranger.Wait()
	})
	stale := fmt.Sprintf("%d\n%s\n1700000000\n5432\n/nowhere\n127.0.0.1\n", stranger.Process.Pid, filepath.Join(dir, "postgres", "data"))
	if err := os.WriteFile(pidFile(dir), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	// The lock of the socket holds the number as well.
	lock := filepath.Join(dir, "postgres", "run", ".s.PGSQL."+address.Port()+".lock")
	if err := os.WriteFile(lock, []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	if owner := stranger.SysProcAttr.Credential; owner != nil {
		if err := os.Chown(lock, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}

	cluster := start(t, embedded.Config{DataDir: dir})
	query(t, cluster.URL(), "SELECT 1")
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger was touched: %v", err)
	}
}

// A server that somebody started by hand is not ours to stop.
func TestServerStartedByHand(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	stop(t, start(t, embedded.Config{DataDir: dir}))
	installation, err := embedded.Find()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "postgres", "data")
	byHand := exec.Command(filepath.Join(installation.BinDir, "postgres"), "-D", data,
		"-c", "listen_addresses=", "-k", data)
	byHand.SysProcAttr = &syscall.SysProcAttr{Credential: owns(t, data)}
	byHand.Dir = "/"
	if err := byHand.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := byHand.Process.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		_ = byHand.Wait()
	})
	eventually(t, "the server by hand runs", func() bool {
		text, err := os.ReadFile(pidFile(dir))
		return err == nil && strings.Contains(string(text), "ready")
	})

	_, err = embedded.Start(t.Context(), embedded.Config{DataDir: dir})
	if want := fmt.Sprintf("pid %d)", byHand.Process.Pid); !errors.Is(err, embedded.ErrInUse) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want ErrInUse with %q", err, want)
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	first := start(t, embedded.Config{DataDir: dir})
	stop(t, first)
	u, err := url.Parse(first.URL())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	second := start(t, embedded.Config{DataDir: dir})
	if strings.Contains(second.URL(), u.Host) {
		t.Error("the taken port was used")
	}
	query(t, second.URL(), "SELECT 1")
}

// The port is taken in the moment in which nobody listens.
func TestPortTakenDuringARestart(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	cluster := start(t, embedded.Config{DataDir: dir})
	u, err := url.Parse(cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(postmaster(t, dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "somebody has the port", func() bool {
		listener, err := net.Listen("tcp4", u.Host)
		if err == nil {
			t.Cleanup(func() { _ = listener.Close() })
			return true
		}
		conn, err := pgx.Connect(t.Context(), cluster.SocketURL()) // it was faster than we
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err == nil
	})
	eventually(t, "PostgreSQL answers on its socket", func() bool {
		conn, err := pgx.Connect(t.Context(), cluster.SocketURL())
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err == nil
	})
}

func TestLeftOversOfAnInterruptedSetUp(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	left := filepath.Join(dir, "postgres.new-123", "data")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, embedded.Config{DataDir: dir})
	if _, err := os.Stat(filepath.Dir(left)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

// A kill at any moment of the first start leaves nothing that stops the next.
func TestOwnerKilledDuringSetUp(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, stage := range []string{"postgres.new-*", "postgres.new-*/data/PG_VERSION", "postgres.new-*/data/global/pg_control", "postgres.new-*/password"} {
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), ownerEnv+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		o := &owner{cmd: cmd}
		t.Cleanup(func() { o.kill(t) })
		eventually(t, stage, func() bool {
			found, err := filepath.Glob(filepath.Join(dir, stage))
			return err == nil && len(found) > 0
		})
		o.kill(t)
	}
	if _, err := os.Stat(filepath.Join(dir, "postgres")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a cluster appeared before it was complete: %v", err)
	}
	cluster := start(t, embedded.Config{DataDir: dir})
	query(t, cluster.URL(), "SELECT NULL::vector")
}

func TestLongAndOddPaths(t *testing.T) {
	t.Parallel()
	for _, name := range []string{strings.Repeat("long", 40), `comma, "quotes" 'n ünïcode [x]`} {
		t.Run(name[:5], func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(openDir(t), name)
			cluster := start(t, embedded.Config{DataDir: dir})
			query(t, cluster.URL(), "SELECT 1")
			query(t, cluster.SocketURL(), "SELECT 1")
			u, err := url.Parse(cluster.SocketURL())
			if err != nil {
				t.Fatal(err)
			}
			sockets := u.Query().Get("host")
			stop(t, cluster)
			if _, err := os.Stat(sockets); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket folder %s is still there: %v", sockets, err)
			}
			start(t, embedded.Config{DataDir: dir})
		})
	}
}

func TestOtherMajorVersion(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	data := filepath.Join(dir, "postgres", "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("14\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir})
	if !errors.Is(err, embedded.ErrVersion) || !strings.Contains(err.Error(), "install PostgreSQL 14") {
		t.Errorf("error %v", err)
	}
}

func TestNotInstalled(t *testing.T) {
	t.Parallel()
	_, err := embedded.Start(t.Context(), embedded.Config{DataDir: openDir(t), BinDir: openDir(t)})
	if !errors.Is(err, embedded.ErrNotInstalled) {
		t.Errorf("error %v", err)
	}
}

// The log of a server that complained for years is cut before it is used.
func TestLogStaysSmall(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	stop(t, start(t, embedded.Config{DataDir: dir}))
	path := filepath.Join(dir, "postgres", "server.log")
	if err := os.WriteFile(path, bytes.Repeat([]byte("an old complaint\n"), 1<<20), 0o600); err != nil { // 17 MiB
		t.Fatal(err)
	}
	start(t, embedded.Config{DataDir: dir})
	for name, most := range map[string]int64{path: 1 << 20, path + ".1": 8 << 20} {
		if info, err := os.Stat(name); err != nil || info.Size() > most {
			t.Errorf("%s is longer than %d or unreadable: %v", name, most, err)
		}
	}
}

// A folder on the way that may not be entered is named, with a remedy where
// another account is what is missing the right.
func TestUnreachableDirectory(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(openDir(t), "closed")
	mode, want := os.FileMode(0o700), embedded.ErrNotTraversable
	if os.Geteuid() != 0 {
		mode, want = 0, fs.ErrPermission
	}
	if err := os.Mkdir(closed, mode); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(t.Context(), embedded.Config{DataDir: filepath.Join(closed, "deeper", "data")})
	if !errors.Is(err, want) || !strings.Contains(err.Error(), closed) {
		t.Errorf("error %v, want %v naming %s", err, want, closed)
	}
	if errors.Is(want, embedded.ErrNotTraversable) && !strings.Contains(err.Error(), "chmod o+x "+closed) {
		t.Errorf("no remedy in: %v", err)
	}
}

// Root needs an account to run PostgreSQL as; for others the setting is void.
func TestNoAccount(t *testing.T) {
	t.Parallel()
	cluster, err := embedded.Start(t.Context(), embedded.Config{DataDir: openDir(t), User: "no-such-user", Settings: quick})
	if os.Geteuid() == 0 {
		if !errors.Is(err, embedded.ErrNoAccount) || !strings.Contains(err.Error(), "useradd") {
			t.Errorf("error %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	stop(t, cluster)
}

// A cluster made by an ordinary user is run as that user ever after, also when
// root starts it in between.
func TestOrdinaryUserThenRoot(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	var credential *syscall.Credential // ourselves, unless we are root
	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		var uid, gid uint32
		if _, err := fmt.Sscan(nobody.Uid+" "+nobody.Gid, &uid, &gid); err != nil {
			t.Fatal(err)
		}
		credential = &syscall.Credential{Uid: uid, Gid: gid}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	runsAs := func() uint32 {
		t.Helper()
		info, err := os.Stat(fmt.Sprintf("/proc/%d", postmaster(t, dir)))
		if err != nil {
			if info, err = os.Stat(pidFile(dir)); err != nil { // no /proc here; the server makes this file
				t.Fatal(err)
			}
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			t.Fatalf("no owner: %T", info.Sys())
		}
		return stat.Uid
	}

	first := startOwner(t, dir, credential)
	query(t, first.answer, "SELECT 1")
	want := runsAs()
	if credential != nil && want != credential.Uid {
		t.Errorf("runs as %d, want %d", want, credential.Uid)
	}
	first.finish(t)

	second := start(t, embedded.Config{DataDir: dir})
	query(t, second.URL(), "SELECT 1")
	if got := runsAs(); got != want {
		t.Errorf("started by us it runs as %d, want %d", got, want)
	}
	stop(t, second)

	third := startOwner(t, dir, credential)
	query(t, third.answer, "SELECT 1")
	third.finish(t)
	if got := state(t, dir); got != "shut down" {
		t.Errorf("the cluster is %q", got)
	}
}

// owns is the account that a file belongs to, nil where it is our own.
func owns(t *testing.T, path string) *syscall.Credential {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("no owner: %T", info.Sys())
	}
	if int(stat.Uid) == os.Geteuid() {
		return nil
	}
	return &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}
}
