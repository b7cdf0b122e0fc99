// Command withpg runs a command with a throw-away PostgreSQL that its tests
// share:
//
//	go run ./internal/pgtest/withpg go test ./...
//
// It exits with the command's exit status. Where CHAINSTREAM_TEST_DATABASE_URL
// is set already, the command uses that server.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/internal/pgtest"
)

func main() {
	code, err := run(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "withpg:", err)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (code int, err error) {
	if len(args) == 0 {
		return 2, errors.New("usage: withpg COMMAND [ARGUMENT …]")
	}
	ctx, cancel := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if os.Getenv(pgtest.EnvURL) == "" {
		url, stop, err := pgtest.StartCluster(ctx)
		if err != nil {
			return 1, err
		}
		defer func() {
			if stopErr := stop(context.WithoutCancel(ctx)); stopErr != nil {
				code, err = max(code, 1), errors.Join(err, stopErr)
			}
		}()
		cmd.Env = append(os.Environ(), pgtest.EnvURL+"="+url)
	}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}
