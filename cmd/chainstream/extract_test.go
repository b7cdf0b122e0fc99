package main_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	main "github.com/chainstream/chainstream/cmd/chainstream"
	"github.com/chainstream/chainstream/knowledge/extract"
)

// extracting makes the test binary a process that has a PDF document taken apart by
// another one, with PDFium from the file that follows.
const extracting = "extracting"

// A process that takes a file apart ends with the one that started it, even when
// that one is killed and the reading has got stuck: here, while PDFium comes from a
// pipe into which nobody writes.
func TestExtractEndsWithItsParent(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pdfium")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), os.Args[0], extracting, pipe)
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(pipe, os.O_WRONLY, 0) // returns when the child reads
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close() //nolint:errcheck // nothing was written
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed
	if !readerGone(t, writer, patience/4) {
		t.Error("the child lives on after its parent")
	}
}

// readerGone waits until nobody can read from a pipe any more.
func readerGone(t *testing.T, pipe *os.File, atMost time.Duration) bool {
	t.Helper()
	until := time.Now().Add(atMost)
	for {
		fds := []unix.PollFd{{Fd: int32(pipe.Fd())}}
		n, err := unix.Poll(fds, int(max(time.Until(until), 0).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n == 1 && fds[0].Revents&unix.POLLERR != 0
	}
}

// What a server is asked to stop for ends the process, too.
func TestExtractEndsWithItsContext(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pdfium")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the server stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := main.Extract(ctx, pipe, "a.pdf", []byte("%PDF-1.7"))
		ended <- err
	}()
	writer, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close() //nolint:errcheck // nothing was written
	cancel(gone)
	if err := <-ended; !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
	if !readerGone(t, writer, patience/4) {
		t.Error("the child lives on")
	}
}

// Files that would take all memory of a server are refused, those of text formats as
// well, and the server keeps its own.
func TestExtractBombs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		name string
		data []byte
	}{
		"a long name of a column": {"a.csv", []byte(strings.Repeat("x", 1<<20) + "\n" + strings.Repeat("1\n", 1<<20))},
		"a long name of a list":   {"a.json", []byte(`{"` + strings.Repeat("x", 1<<20) + `":[` + strings.Repeat("1,", 1<<20) + `1]}`)},
		"more blocks than taken":  {"a.txt", []byte(strings.Repeat("a\n\n", 2<<20))},
		"a line of the most":      {"a.txt", bytes.Repeat([]byte("word "), extract.MaxText/5+10)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blocks, err := main.Extract(t.Context(), "", tc.name, tc.data)
			if !errors.Is(err, extract.ErrTooLarge) {
				t.Errorf("%d blocks, error %v", len(blocks), err)
			}
		})
	}
}
