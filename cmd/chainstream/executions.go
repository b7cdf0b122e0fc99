package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/internal/client"
)

// executionsCommand is chainstream executions.
type executionsCommand struct {
	List   executionsListCommand   `cmd:"" help:"List executions, newest first."`
	Show   executionsShowCommand   `cmd:"" help:"Show an execution with its prompts."`
	Start  executionsStartCommand  `cmd:"" help:"Start an execution of a stored chain."`
	Retry  executionsRetryCommand  `cmd:"" help:"Run again what a failed or cancelled execution did not finish."`
	Fork   executionsForkCommand   `cmd:"" help:"Run an execution again from a prompt on, possibly with changes."`
	Cancel executionsCancelCommand `cmd:"" help:"Stop an execution; what it has so far is kept."`
	Events executionsEventsCommand `cmd:"" help:"Print the stored events of an execution."`
	Delete executionsDeleteCommand `cmd:"" help:"Erase an execution that has ended, with its events."`
}

type executionsListCommand struct {
	Chain  string    `help:"Only executions of this chain, by name or id."`
	Status string    `help:"Only executions in this state: queued, running, waiting, completed, failed or cancelled."`
	From   time.Time `help:"Only executions made at or after this time, such as 2026-11-22T04:00:00Z." placeholder:"TIME"`
	To     time.Time `help:"Only executions made before this time." placeholder:"TIME"`
	Limit  int       `help:"At most so many; 0 lists all." default:"50"`
	clientFlags
}

// Run lists executions.
func (c *executionsListCommand) Run(ctx context.Context, a *app) error {
	if c.Limit < 0 {
		return usage("--limit must not be negative")
	}
	query := url.Values{}
	for name, value := range map[string]string{"chain": c.Chain, "status": c.Status, "from": timeText(c.From), "to": timeText(c.To)} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var raw []json.RawMessage
	if err := c.pages(ctx, "/api/v1/executions", query, c.Limit, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	t := a.table("ID", "CHAIN", "VERSION", "STATUS", "TOKENS", "CREATED")
	for _, text := range raw {
		var ex execution
		if err := json.Unmarshal(text, &ex); err != nil {
			return fmt.Errorf("read an execution: %w", err)
		}
		t.row(ex.ID, ex.ChainName, ex.ChainVersion, ex.Status, ex.Usage.TotalTokens, ex.CreatedAt.Local().Format(time.DateTime))
	}
	return t.flush()
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

// executionFlags name one execution.
type executionFlags struct {
	ID int64 `arg:"" name:"execution-id" help:"Id of the execution."`
	clientFlags
}

type executionsShowCommand struct {
	executionFlags
	AtSeq *int64 `help:"Show it as it was after the event with this id." placeholder:"N"`
}

// Run shows an execution.
func (c *executionsShowCommand) Run(ctx context.Context, a *app) error {
	var raw json.RawMessage
	if err := c.call(ctx, client.Request{Path: executionPath(c.ID), Query: atQuery(c.AtSeq)}, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	var ex execution
	if err := json.Unmarshal(raw, &ex); err != nil {
		return fmt.Errorf("read the execution: %w", err)
	}
	if err := a.printf("execution %d of %s, version %d: %s, %s\n", ex.ID, ex.ChainName, ex.ChainVersion, ex.Status, count(int(ex.Usage.TotalTokens), "token")); err != nil {
		return err
	}
	if ex.WakeAt != nil {
		if err := a.printf("waiting until %s\n", ex.WakeAt.Local().Format(time.DateTime)); err != nil {
			return err
		}
	}
	if from := ex.lineage(); from != "" {
		if err := a.printf("%s\n", from); err != nil {
			return err
		}
	}
	if ex.Error != nil {
		if err := a.printf("%s (%s)\n", printable(ex.Error.Message), ex.Error.Code); err != nil {
			return err
		}
	}
	if ex.EventsRemoved {
		if err := a.printf("its events have been removed by the retention policy; what follows is what it resulted in\n"); err != nil {
			return err
		}
	} else if ex.FoldedAt != nil {
		if err := a.printf("its text deltas were folded away; the text is in the results\n"); err != nil {
			return err
		}
	}
	t := a.table("POSITION", "PROMPT", "STATUS", "ATTEMPT", "DURATION", "MODEL")
	for _, p := range ex.Prompts {
		duration := ""
		if p.DurationMS != nil {
			duration = milliseconds(*p.DurationMS)
		}
		if p.ReusedFrom != nil {
			duration = fmt.Sprintf("from %d", p.ReusedFrom.ExecutionID)
		}
		t.row(p.Position, p.Name, p.Status, p.Attempt, duration, p.ModelID)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, p := range ex.Prompts {
		if p.Output == "" {
			continue
		}
		if err := a.printf("\n%s:\n%s\n", printable(p.Name), strings.TrimSuffix(printable(p.Output), "\n")); err != nil {
			return err
		}
	}
	return nil
}

type executionsStartCommand struct {
	Chain    string `arg:"" help:"Name or id of the chain."`
	Version  int    `help:"Version of the chain; without it the newest."`
	Follow   bool   `help:"Show the execution live until it has ended; its state is the exit code." short:"f"`
	Priority int    `help:"Place in the queue, from -10 to 10; higher goes first." default:"0"`
	cacheFlags
	inputFlags
	clientFlags
}

// Help is shown by chainstream executions start --help.
func (executionsStartCommand) Help() string {
	return `Examples:

    chainstream executions start research-brief --input topic="river deltas" --follow
    chainstream executions start research-brief --inputs-json inputs.json --json`
}

// Run starts an execution. Unlike chainstream run, an interrupt leaves it running.
func (c *executionsStartCommand) Run(ctx context.Context, a *app) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	defer api.Close()
	types, err := c.types(ctx)
	if err != nil {
		return err
	}
	inputs, err := c.values(types)
	if err != nil {
		return err
	}
	ex, err := trigger(ctx, api, triggered{Chain: c.Chain, Version: c.Version, Inputs: inputs, Priority: c.Priority, Cache: c.mode()})
	if err != nil {
		return err
	}
	if c.Follow {
		f := follower{app: a, api: api, id: ex.ID, show: a.newDisplay(c.JSON)}
		state, err := f.follow(ctx)
		if err != nil {
			return err
		}
		return outcome(state)
	}
	if c.JSON {
		return a.printJSON(map[string]any{"executionId": ex.ID, "status": ex.Status, "chain": ex.ChainName, "chainVersion": ex.ChainVersion})
	}
	return a.printf("execution %d of %s, version %d, is %s; follow it with: chainstream watch %d\n", ex.ID, ex.ChainName, ex.ChainVersion, ex.Status, ex.ID)
}

// types asks the server for the types of the chain's inputs.
func (c *executionsStartCommand) types(ctx context.Context) (map[string]chain.InputType, error) {
	return c.inputTypes(ctx, c.Chain, c.Version)
}

// inputTypes asks the server for the types of the inputs of a chain's version.
func (f clientFlags) inputTypes(ctx context.Context, name string, version int) (map[string]chain.InputType, error) {
	var stored struct {
		Inputs map[string]struct {
			Type chain.InputType `json:"type"`
		} `json:"inputs"`
	}
	if err := f.call(ctx, client.Request{Path: chainPath(name), Query: versionQuery(version)}, &stored); err != nil {
		return nil, err
	}
	types := make(map[string]chain.InputType, len(stored.Inputs))
	for name, in := range stored.Inputs {
		types[name] = in.Type
	}
	return types, nil
}

type executionsCancelCommand struct{ executionFlags }

// Run cancels an execution.
func (c *executionsCancelCommand) Run(ctx context.Context, a *app) error {
	var raw json.RawMessage
	if err := c.call(ctx, client.Request{Method: http.MethodPost, Path: executionPath(c.ID) + "/cancel"}, &raw); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(raw)
	}
	return a.printf("execution %d is being cancelled\n", c.ID)
}

type executionsEventsCommand struct {
	executionFlags
	After int64    `help:"Begin behind the event with this id." placeholder:"N"`
	Limit int      `help:"At most so many events; 0 prints all."`
	Types []string `help:"Only events of these types, separated by commas." placeholder:"TYPE"`
	CSV   bool     `help:"Print CSV."`
}

// Help is shown by chainstream executions events --help.
func (executionsEventsCommand) Help() string {
	return `Prints one JSON line per event, as the log has it, or CSV. Nothing is waited for; chainstream watch follows an execution that still runs.`
}

// Run prints stored events.
func (c *executionsEventsCommand) Run(ctx context.Context, a *app) error {
	if c.After < 0 || c.Limit < 0 {
		return usage("--after and --limit must not be negative")
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	defer api.Close()
	query := url.Values{}
	if c.After > 0 {
		query.Set("after", strconv.FormatInt(c.After, 10))
	}
	if len(c.Types) > 0 {
		query.Set("type", strings.Join(c.Types, ","))
	}
	accept := "application/x-ndjson"
	if c.CSV {
		accept = "text/csv"
	}
	resp, err := api.Open(ctx, client.Request{Path: executionPath(c.ID) + "/events", Query: query, Accept: accept})
	if err != nil {
		return err
	}
	if c.Limit > 0 {
		lines := c.Limit
		if c.CSV {
			lines++ // the names of the columns
		}
		resp.Body = &firstLines{ReadCloser: resp.Body, left: lines}
	}
	return a.copy(resp)
}

type executionsDeleteCommand struct{ executionFlags }

// Run erases an execution.
func (c *executionsDeleteCommand) Run(ctx context.Context, a *app) error {
	if err := c.call(ctx, client.Request{Method: http.MethodDelete, Path: executionPath(c.ID)}, nil); err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(map[string]int64{"deleted": c.ID})
	}
	return a.printf("deleted execution %d with its events\n", c.ID)
}
