package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/chainstream/chainstream/internal/client"
	"github.com/chainstream/chainstream/internal/sseclient"
)

// clientFlags say which server a command talks to.
type clientFlags struct {
	Server string `help:"Address of the server. Default: http://127.0.0.1:8080." default:"http://127.0.0.1:8080" placeholder:"URL" environ:"CHAINSTREAM_SERVER"`
	JSON   bool   `help:"Print JSON."`
}

// callTimeout bounds a call that is neither a stream nor a download.
const callTimeout = time.Minute

// client makes a client of the server.
func (f clientFlags) client() (*client.Client, error) {
	c, err := client.New(f.Server)
	if err != nil {
		return nil, usage("--server: %s", err)
	}
	return c, nil
}

// call sends one request and reads the answer into v.
func (f clientFlags) call(ctx context.Context, r client.Request, v any) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.Do(ctx, r, v)
}

// execution is what the command line reads of an execution.
type execution struct {
	ID           int64     `json:"executionId"`
	Status       string    `json:"status"`
	ChainName    string    `json:"chainName"`
	ChainVersion int       `json:"chainVersion"`
	CreatedAt    time.Time `json:"createdAt"`
	Prompts      []struct {
		Name       string `json:"name"`
		Position   int    `json:"position"`
		Status     string `json:"status"`
		Attempt    int    `json:"attempt"`
		ModelID    string `json:"modelId"`
		Output     string `json:"output"`
		DurationMS *int64 `json:"durationMs"`
		ReusedFrom *struct {
			ExecutionID int64 `json:"executionId"`
		} `json:"reusedFrom"`
	} `json:"prompts"`
	Parent     int64  `json:"parentExecutionId"`
	Origin     string `json:"origin"`
	FromPrompt string `json:"fromPrompt"`
	Usage      struct {
		TotalTokens int64 `json:"totalTokens"`
	} `json:"usage"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Inputs        json.RawMessage `json:"inputs"`
	EventsRemoved bool            `json:"eventsRemoved"`
	FoldedAt      *time.Time      `json:"foldedAt"`
	WakeAt        *time.Time      `json:"wakeAt"`
}

// States that an execution ends in.
const (
	stateCompleted = "completed"
	stateFailed    = "failed"
	stateCancelled = "cancelled"
)

func executionPath(id int64) string { return "/api/v1/executions/" + strconv.FormatInt(id, 10) }

func chainPath(name string) string { return "/api/v1/chains/" + url.PathEscape(name) }

// triggered is what an execution is started with.
type triggered struct {
	Chain    string                     `json:"chain"`
	Version  int                        `json:"version,omitempty"`
	Inputs   map[string]json.RawMessage `json:"inputs"`
	Priority int                        `json:"priority,omitempty"`
	Cache    string                     `json:"cache,omitempty"`
}

// trigger starts an execution. The request carries a key of its own, so that it
// may be sent twice when a connection breaks under it.
func trigger(ctx context.Context, c *client.Client, t triggered) (execution, error) {
	body, err := json.Marshal(t)
	if err != nil {
		return execution{}, err
	}
	var ex execution
	err = send(ctx, c, client.Request{Method: http.MethodPost, Path: "/api/v1/executions", Body: body, Key: uuid.NewString()}, &ex)
	return ex, err
}

// view is the part of a log that is followed.
type view struct {
	after    int64
	types    []string
	noDeltas bool
}

func (v view) query() url.Values {
	q := url.Values{}
	if v.after > 0 {
		q.Set("after", strconv.FormatInt(v.after, 10))
	}
	if len(v.types) > 0 {
		q.Set("types", strings.Join(v.types, ","))
	}
	if v.noDeltas {
		q.Set("deltas", "false")
	}
	return q
}

// follower shows an execution.
type follower struct {
	app  *app
	api  *client.Client
	id   int64
	view view
	show display
	// interrupted is called when the user interrupts for the first time; the
	// execution is followed on then, until it has ended or a second interrupt
	// comes. Without it the first interrupt ends the following.
	interrupted func(context.Context) error
	// broken, when it is closed, ends the following; nil never does.
	broken <-chan struct{}
}

// follow shows the events until the execution has ended and answers the state
// that it ended in. The end of ctx is the first interrupt.
func (f *follower) follow(ctx context.Context) (state string, err error) {
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		f.awaitInterrupt(ctx, following, stop)
	}()
	defer func() { stop(); <-watcher }()

	stream := sseclient.Follow(following, sseclient.Config{
		URL: f.api.URL("/events/"+strconv.FormatInt(f.id, 10), f.view.query()), Client: f.api.HTTP(), After: f.view.after,
		Last: func(event string) bool { return event == eventComplete || event == eventError },
		OnReconnect: func(r sseclient.Reconnect) {
			why := "the server closed the stream"
			if gone := (*client.NoServerError)(nil); errors.As(f.api.Unreachable(r.Err), &gone) {
				why = "the server does not answer"
			} else if r.Err != nil {
				why = r.Err.Error()
			}
			f.app.remark("reconnecting in %s, last event %d (%s)", r.Wait.Round(time.Millisecond), r.After, why)
		},
	})
	for event, err := range stream {
		if err != nil {
			return "", streamError(f.api, err)
		}
		if err := f.show.show(event); err != nil {
			return "", err
		}
		switch event.Type {
		case eventComplete:
			state = stateCompleted
		case eventError:
			state = stateFailed
			if data := decodeEvent(event); data.Code == "cancelled" {
				state = stateCancelled
			}
		}
	}
	if state == "" { // the cursor was at the end already
		var ex execution
		if err := f.api.Do(following, client.Request{Path: executionPath(f.id)}, &ex); err != nil {
			return "", err
		}
		state = ex.Status
	}
	return state, nil
}

// awaitInterrupt lets ctx end the following politely, and a second signal at once.
func (f *follower) awaitInterrupt(ctx, following context.Context, stop context.CancelFunc) {
	defer stop()
	select {
	case <-ctx.Done():
	case <-f.broken:
		return
	case <-following.Done():
		return
	}
	if f.interrupted == nil {
		return
	}
	second, done := signal.NotifyContext(following, os.Interrupt, syscall.SIGTERM)
	defer done()
	if err := f.interrupted(second); err != nil && second.Err() == nil {
		f.app.remark("%s", err)
	}
	select {
	case <-second.Done():
	case <-f.broken:
	}
}

// streamError makes a refusal of the stream readable.
func streamError(c *client.Client, err error) error {
	var status *sseclient.StatusError
	switch {
	case errors.As(err, &status):
		return client.NewProblem(status.Status, status.ContentType, status.Body)
	case errors.Is(err, context.Canceled):
		return &exitError{code: exitCancelled, err: err}
	}
	return c.Unreachable(err)
}

// outcome is the exit code of a command that showed an execution to its end.
func outcome(state string) error {
	switch state {
	case stateCompleted:
		return nil
	case stateCancelled:
		return &exitError{code: exitCancelled}
	default:
		return &exitError{code: exitFailed}
	}
}
