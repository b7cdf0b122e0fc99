package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/chainstream/chainstream/internal/client"
	"github.com/chainstream/chainstream/postgres/embedded"
)

// runCommand is chainstream run.
type runCommand struct {
	File   string `arg:"" help:"Chain document, YAML or JSON."`
	Server string `help:"Server to run it on. Without one, a private server runs it in this process." placeholder:"URL" environ:"CHAINSTREAM_SERVER"`
	JSON   bool   `help:"Print one JSON line per event, as the log has it."`
	cacheFlags
	inputFlags
	serverFlags
}

// cacheFlags say how prompts with cache use the response cache.
type cacheFlags struct {
	NoCache bool `help:"Call every model, and remember no answer."`
}

// mode is the word of the API.
func (f cacheFlags) mode() string {
	if f.NoCache {
		return "off"
	}
	return ""
}

// Help is shown by chainstream run --help.
func (runCommand) Help() string {
	return `The chain is stored under its name first: it is created, or gets a new version when the document differs from the newest one. Ctrl-C cancels the execution and waits for its end; a second Ctrl-C leaves at once.

The exit code is 0 when the execution completed, 1 when it failed, 130 when it was cancelled.

Examples:

    chainstream run examples/research-brief.yaml --input topic="river deltas"
    chainstream run review.yaml --input text=@report.txt --server http://127.0.0.1:8080
    chainstream run review.yaml --inputs-json inputs.json --json > events.ndjson`
}

// Run runs the chain and shows it.
func (c *runCommand) Run(ctx context.Context, a *app) error {
	d, err := readDocument(c.File)
	if err != nil {
		return err
	}
	inputs, err := c.values(inputTypes(d.chain))
	if err != nil {
		return err
	}
	if _, err := d.chain.CheckInputs(inputs); err != nil {
		return problemsIn("the input", err)
	}
	if c.Server != "" {
		return c.runOn(ctx, a, c.Server, nil, d, inputs)
	}
	s, err := c.startPrivate(ctx, a)
	if err != nil {
		return err
	}
	err = c.runOn(ctx, a, s.url(), s.database.died(), d, inputs)
	select {
	case <-s.database.died():
		err = s.database.failure()
	default:
	}
	if stopErr := s.stopPrivate(); stopErr != nil && err == nil {
		err = stopErr
	}
	return err
}

// runOn runs the chain on a server. broken is closed when the server cannot go on.
func (c *runCommand) runOn(ctx context.Context, a *app, address string, broken <-chan struct{}, d *document, inputs map[string]json.RawMessage) error {
	api, err := clientFlags{Server: address}.client()
	if err != nil {
		return err
	}
	defer api.Close()
	stored, err := apply(ctx, api, d)
	if err != nil {
		return err
	}
	// An interrupt from here on cancels an execution whose id is known.
	ex, err := trigger(context.WithoutCancel(ctx), api, triggered{Chain: stored.Name, Version: stored.Version, Inputs: inputs, Cache: c.mode()})
	if err != nil {
		return err
	}
	f := follower{app: a, api: api, id: ex.ID, show: a.newDisplay(c.JSON), broken: broken}
	f.interrupted = func(ctx context.Context) error {
		a.remark("cancelling execution %d; interrupt again to leave at once", ex.ID)
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err := api.Do(ctx, client.Request{Method: http.MethodPost, Path: executionPath(ex.ID) + "/cancel"}, nil)
		if hasCode(err, http.StatusConflict) {
			return nil // it has just ended by itself
		}
		return err
	}
	state, err := f.follow(ctx)
	if err != nil {
		return err
	}
	return outcome(state)
}

// startPrivate starts a server of our own on a free port of the loopback
// interface. Its log stays silent about what the transcript shows.
func (c *runCommand) startPrivate(ctx context.Context, a *app) (*server, error) {
	logger, err := logFlags{LogFormat: "text", LogLevel: "error"}.logger(a.stderr)
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, c.serverFlags, "127.0.0.1:0", a.getenv, logger)
	switch {
	case errors.Is(err, embedded.ErrInUse):
		return nil, &exitError{code: exitFailed, err: err, message: err.Error() +
			", or run the chain on that server with --server http://127.0.0.1:8080 (CHAINSTREAM_SERVER)"}
	case err != nil && ctx.Err() != nil:
		return nil, &exitError{code: exitCancelled, err: err}
	}
	return s, err
}

// privateStop is how long a private server waits for executions that are not
// the one it was started for; they are continued by the next server.
const privateStop = time.Second

func (s *server) stopPrivate() error {
	ctx, cancel := context.WithTimeout(context.Background(), privateStop)
	defer cancel()
	return s.stop(ctx)
}
