package main

import (
	"context"
)

// watchCommand is chainstream watch.
type watchCommand struct {
	ID       int64    `arg:"" name:"execution-id" help:"Id of the execution."`
	After    int64    `help:"Begin behind the event with this id." default:"0" placeholder:"N"`
	Types    []string `help:"Only events of these types, separated by commas; the last event always shows." placeholder:"TYPE"`
	NoDeltas bool     `help:"Leave out the pieces of text as they stream."`
	clientFlags
}

// Help is shown by chainstream watch --help.
func (watchCommand) Help() string {
	return `Events that are stored already come first, then new ones as they happen, until the last. A broken connection is resumed behind the last event that was received. Ctrl-C ends the watching, not the execution.

The exit code is that of the execution: 0 completed, 1 failed, 130 cancelled (or the watching was interrupted).

Examples:

    chainstream watch 41
    chainstream watch 41 --json --after 120
    chainstream watch 41 --types prompt-complete,progress`
}

// Run follows the execution.
func (c *watchCommand) Run(ctx context.Context, a *app) error {
	if c.ID < 1 || c.After < 0 {
		return usage("an execution id is a number from 1 on, and --after one from 0 on")
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	defer api.Close()
	f := follower{
		app: a, api: api, id: c.ID, show: a.newDisplay(c.JSON),
		view: view{after: c.After, types: c.Types, noDeltas: c.NoDeltas},
	}
	state, err := f.follow(ctx)
	if err != nil {
		return err
	}
	return outcome(state)
}
