package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/bench/internal/subscriber"
)

// Server is chainstream serve: the whole program as users start it, with its
// embedded database, built from this module.
type Server struct {
	Addr string
	PID  int

	cmd    *exec.Cmd
	dir    string
	client *http.Client
}

// StartServer builds the program and starts it with additional environment
// variables, such as the addresses of model providers. Its demo model does not
// wait between words.
func StartServer(ctx context.Context, env ...string) (*Server, error) {
	dir, err := temporary()
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, client: &http.Client{Timeout: 10 * time.Second}}
	if err := s.start(ctx, env); err != nil {
		log, _ := os.ReadFile(s.log()) // it may not exist yet
		return nil, errors.Join(fmt.Errorf("start chainstream serve: %w\n%s", err, log), s.Close())
	}
	return s, nil
}

func (s *Server) log() string { return filepath.Join(s.dir, "log") }

func (s *Server) start(ctx context.Context, env []string) error {
	binary := filepath.Join(s.dir, "chainstream")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "github.com/chainstream/chainstream/cmd/chainstream")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	log, err := os.Create(s.log())
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the program has its own handle
	// Not bound to ctx: it is asked to stop, so that it stops its database.
	s.cmd = exec.Command(binary, "serve", "--addr", "127.0.0.1:0", "--data-dir", filepath.Join(s.dir, "data"), "--offline-pace", "0s", "--no-example-docs") //nolint:noctx // see above
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the benchmark
	s.cmd.Stderr = log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.PID = s.cmd.Process.Pid
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, addr, found := strings.Cut(lines.Text(), "running at http://"); found {
			s.Addr = strings.TrimSpace(addr)
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return nil
		}
	}
	return fmt.Errorf("it did not say where it listens: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}

// serverStop is how long the program may take to stop.
const serverStop = 20 * time.Second

// Close stops the program and removes its data.
func (s *Server) Close() error {
	var err error
	if s.cmd != nil && s.cmd.Process != nil {
		err = s.cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(serverStop, func() { _ = s.cmd.Process.Kill() })
		defer timer.Stop()
		err = errors.Join(err, s.cmd.Wait())
	}
	s.client.CloseIdleConnections()
	return errors.Join(err, os.RemoveAll(s.dir))
}

// CreateChain stores a chain document in YAML.
func (s *Server) CreateChain(ctx context.Context, document string) error {
	_, err := s.post(ctx, "/api/v1/chains", "application/yaml", document, http.StatusCreated)
	return err
}

const executionsPath = "/api/v1/executions"

// Trigger starts an execution of a chain and answers the path of its stream.
func (s *Server) Trigger(ctx context.Context, chain string) (path string, err error) {
	header, err := s.post(ctx, executionsPath, "application/json", triggerBody(chain), http.StatusAccepted)
	if err != nil {
		return "", err
	}
	return "/events/" + header.Get("Execution-Id"), nil
}

// Run starts an execution of a chain and answers the stream of its events, all
// in one request.
func (s *Server) Run(ctx context.Context, chain string) (*subscriber.Stream, error) {
	return subscriber.Open(ctx, s.Addr, executionsPath, subscriber.Options{Method: http.MethodPost, Body: triggerBody(chain)})
}

func triggerBody(chain string) string { return fmt.Sprintf(`{"chain": %q}`, chain) }

func (s *Server) post(ctx context.Context, path, mediaType, body string, want int) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Addr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaType)
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var text bytes.Buffer
	if _, err := io.Copy(&text, res.Body); err != nil {
		return nil, err
	}
	if res.StatusCode != want {
		return nil, fmt.Errorf("POST %s: %s: %s", path, res.Status, text.Bytes())
	}
	return res.Header, nil
}

// Follow reads a stream to its end and checks that the events have the ids 1,
// 2, 3 … and that the last one says that the execution succeeded. first is
// called once per type of event, when its first event has come.
func Follow(stream *subscriber.Stream, first func(eventType string)) (events int64, err error) {
	seen := make(map[string]bool, 16)
	var last string
	var wrong error
	for err == nil {
		err = stream.Read(func(e subscriber.Event) {
			if events++; e.ID != events && wrong == nil {
				wrong = fmt.Errorf("event %d came as number %d", e.ID, events)
			}
			if last = ""; !seen[string(e.Type)] {
				seen[string(e.Type)] = true
				first(string(e.Type))
			}
			if string(e.Type) == completed {
				last = completed
			}
		})
	}
	switch {
	case wrong != nil:
		return events, wrong
	case !errors.Is(err, io.EOF):
		return events, err
	case last != completed:
		return events, fmt.Errorf("the stream of %d events did not end with %s", events, completed)
	}
	return events, nil
}

const completed = "execution-complete"
