package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/chainstream/chainstream/bench/internal/measure"
)

// Cores of the two sides.
const (
	serverCore = 0
	loadCore   = 1
)

// streamerArgument is the first argument of a process that is a streamer.
const streamerArgument = "streamer"

// Main is the main function of a program that uses streamers, which are the
// same program: it binds the program to the core of the load, or is a streamer.
// It answers the exit code.
func Main(main func() int) int {
	if len(os.Args) > 1 && os.Args[1] == streamerArgument {
		// A streamer ends with its orders; a Ctrl-C is for the program.
		signal.Ignore(os.Interrupt)
		if err := serveStreamer(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "streamer:", err)
			return 1
		}
		return 0
	}
	if err := measure.PinSelf(loadCore); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return main()
}

// Kind is whose server of Server-Sent Events is measured.
type Kind string

// The kinds.
const (
	Ours   Kind = "chainstream"
	R3labs Kind = "r3labs/sse"
)

// StreamerConfig says what a streamer serves.
type StreamerConfig struct {
	Kind     Kind   `json:"kind"`
	Database string `json:"database"` // connection string; for Ours
	Bytes    int    `json:"bytes"`    // of the data of an event
	Profile  string `json:"profile"`  // file for a profile of the processor time; empty = none
}

// Streamer is a server of one event stream, in a process of its own.
type Streamer struct {
	Addr string `json:"addr"`
	Path string `json:"path"` // of the stream
	PID  int    `json:"-"`

	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Reader
}

// Stats is what a streamer tells of itself.
type Stats struct {
	Goroutines  int `json:"goroutines"`
	Subscribers int `json:"subscribers"`
}

// StartStreamer starts a streamer on a core of its own.
func StartStreamer(ctx context.Context, config StreamerConfig) (*Streamer, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the own program: %w", err)
	}
	s := &Streamer{cmd: exec.CommandContext(ctx, program, streamerArgument)}
	s.cmd.Stderr = os.Stderr
	if s.orders, err = s.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start a streamer: %w", err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a streamer: %w", err)
	}
	s.answers = bufio.NewReader(out)
	if err := measure.StartPinned(s.cmd, serverCore); err != nil {
		return nil, fmt.Errorf("start a streamer: %w", err)
	}
	s.PID = s.cmd.Process.Pid
	if err := errors.Join(json.NewEncoder(s.orders).Encode(config), s.answer(s)); err != nil {
		return nil, errors.Join(fmt.Errorf("start the streamer %s: %w", config.Kind, err), s.Close())
	}
	return s, nil
}

func (s *Streamer) answer(v any) error {
	line, err := s.answers.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

// Publish orders one more event. Events have the ids 1, 2, 3 …
func (s *Streamer) Publish() error {
	_, err := io.WriteString(s.orders, "publish\n")
	return err
}

// Stats asks how many goroutines and subscribers there are.
func (s *Streamer) Stats() (Stats, error) {
	var stats Stats
	if _, err := io.WriteString(s.orders, "stats\n"); err != nil {
		return stats, fmt.Errorf("ask a streamer: %w", err)
	}
	if err := s.answer(&stats); err != nil {
		return stats, fmt.Errorf("ask a streamer: %w", err)
	}
	return stats, nil
}

// CPU answers the processor time that the streamer has used.
func (s *Streamer) CPU() (time.Duration, error) { return measure.ProcessCPU(s.PID) }

// Close ends the streamer, by force where it is held up by a subscriber.
func (s *Streamer) Close() error {
	err := s.orders.Close() // the process ends with its orders
	var killed atomic.Bool
	timer := time.AfterFunc(streamerStop, func() { killed.Store(s.cmd.Process.Kill() == nil) })
	defer timer.Stop()
	waitErr := s.cmd.Wait()
	if killed.Load() {
		return nil
	}
	if waitErr != nil {
		return fmt.Errorf("end a streamer: %w", waitErr)
	}
	return err
}

// streamerStop is how long a streamer may take to end.
const streamerStop = 5 * time.Second
