package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// account is the user that PostgreSQL's processes run as. The zero value is
// the user of this process.
type account struct {
	name       string
	credential *syscall.Credential
}

// accountFor chooses the account: our own, or, when we are root, the owner of
// an existing cluster, or else the named user. The error is ErrNoAccount.
func accountFor(p paths, name string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	if info, err := os.Stat(p.data); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
			owner := strconv.FormatUint(uint64(stat.Uid), 10)
			if known, err := user.LookupId(owner); err == nil {
				owner = known.Username
			}
			return account{name: owner, credential: &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}}, nil
		}
	}
	entry, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("%w: PostgreSQL does not run as root and there is no user %q; "+
			"create one with: useradd --system --no-create-home %s", ErrNoAccount, name, name)
	}
	uid, err := strconv.ParseUint(entry.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("%w: user %q has the id %q", ErrNoAccount, name, entry.Uid)
	}
	gid, err := strconv.ParseUint(entry.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("%w: user %q has the group id %q", ErrNoAccount, name, entry.Gid)
	}
	if uid == 0 {
		return account{}, fmt.Errorf("%w: user %q is root too", ErrNoAccount, name)
	}
	return account{name: name, credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

// own gives a file or folder that we made to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	if err := os.Chown(path, int(a.credential.Uid), int(a.credential.Gid)); err != nil {
		return fmt.Errorf("give %s to user %s: %w", path, a.name, err)
	}
	return nil
}

// command prepares a program to run as the account. Of our environment, which
// may hold secrets and PostgreSQL settings of the user, it gets what a program
// needs to be found and loaded.
func (a account) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential, Setpgid: true}
	return cmd
}

// run runs a program to its end, in a folder that the account can enter. What it
// printed is part of the error. The program dies with us.
func (a account) run(ctx context.Context, dir, input, program string, args ...string) error {
	cmd := a.command(ctx, dir, program, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = 5 * time.Second // for children of the program that hold its output
	dieWithParent(cmd.SysProcAttr, syscall.SIGKILL)
	runtime.LockOSThread() // the parent-death signal belongs to the thread
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("run %s: %w%s", filepath.Base(program), err, quoteOutput(string(out)))
	}
	return nil
}

// reach makes sure that the account can run PostgreSQL and enter a folder. It
// tries, because permission bits do not tell the whole truth (access lists,
// mounts). The errors are ErrNotInstalled and ErrNotTraversable.
func (a account) reach(ctx context.Context, bin Installation, dir string) error {
	if a.credential == nil {
		return nil
	}
	try := func(dir string) error {
		err := a.run(ctx, dir, "", bin.program("postgres"), "--version")
		return err
	}
	if err := try("/"); err != nil {
		return fmt.Errorf("%w where user %s can run it: %w", ErrNotInstalled, a.name, err)
	}
	err := try(dir)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("enter %s as user %s: %w", dir, a.name, err)
	}
	blocked := dir
	for parent := filepath.Dir(blocked); try(parent) != nil; parent = filepath.Dir(parent) {
		blocked = parent
	}
	return fmt.Errorf("%w: PostgreSQL runs as user %s (it refuses root), who may not enter %s; "+
		"choose a data directory elsewhere, for example /var/lib/chainstream, or allow it with: chmod o+x %s",
		ErrNotTraversable, a.name, blocked, blocked)
}

// quoteOutput appends what a failed program said to an error text.
func quoteOutput(out string) string {
	out = strings.TrimSpace(out)
	if out == "" {
		return ""
	}
	const longest = 2000
	if len(out) > longest {
		out = "…" + out[len(out)-longest:]
	}
	return ": " + out
}
