package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/mattn/go-isatty"
)

// commands is the command line.
type commands struct {
	Serve      serveCommand      `cmd:"" help:"Start the server: the web page, the HTTP API and the workers."`
	Run        runCommand        `cmd:"" help:"Run a chain from a file and show it live."`
	Watch      watchCommand      `cmd:"" help:"Follow an execution, from its first event or from any other."`
	Chains     chainsCommand     `cmd:"" help:"List, store, check and move chains."`
	Executions executionsCommand `cmd:"" help:"List, start, cancel and read executions."`
	Knowledge  knowledgeCommand  `cmd:"" help:"Make repositories of documents, fill and search them."`
	Models     modelsCommand     `cmd:"" help:"List the models that chains may name, with limits and prices."`
	Budgets    budgetsCommand    `cmd:"" help:"List and set what executions may cost together."`
	Costs      costsCommand      `cmd:"" help:"Price past calls anew."`
	Migrate    migrateCommand    `cmd:"" help:"Bring the database schema up, down, or tell where it stands."`
	PSQL       psqlCommand       `cmd:"" name:"psql" help:"Look into the database of a server with psql."`
	Doctor     doctorCommand     `cmd:"" help:"Say what is missing or misconfigured, and how to mend it."`
	FakeLLM    fakeLLMCommand    `cmd:"" name:"fake-llm" help:"Play a server of models, good or bad, for trying things out."`
	Extract    extractCommand    `cmd:"" hidden:"" help:"Take a file apart, for the server."`
	OpenAPI    openAPICommand    `cmd:"" name:"openapi" help:"Print the OpenAPI document of the HTTP API."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
}

// app is what every command is given.
type app struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

// run executes one command line. Cancelling ctx is a polite request to stop: a
// server drains, a run cancels its execution. What commands print goes to
// stdout; logs and remarks go to stderr.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	a := &app{getenv: getenv, stdout: stdout, stderr: stderr}
	helped := false
	parser, err := kong.New(&commands{},
		kong.Name("chainstream"),
		kong.Description("Run multi-prompt chains and watch every step live."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.Resolvers(kong.ResolverFunc(a.fromEnvironment)),
		kong.ValueFormatter(describeValue),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(a),
	)
	if err != nil {
		return fmt.Errorf("build the command line: %w", err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	selected, err := parser.Parse(args)
	switch {
	case helped:
		return nil
	case err != nil:
		return usageError(err)
	}
	return selected.Run()
}

// usageError says what is wrong with a command line and where help is.
func usageError(err error) error {
	command := "chainstream"
	if parse := (*kong.ParseError)(nil); errors.As(err, &parse) {
		if node := parse.Context.Selected(); node != nil {
			command = strings.Fields(node.FullPath())[0] + " " + strings.TrimPrefix(node.Path(), "chainstream ")
		}
	}
	return &exitError{code: exitUsage, message: fmt.Sprintf("%s; see %s --help", err, command)}
}

// environmentTag names the tag of the environment variables that stand in for a
// flag. Kong's own tag reads the process's environment; this one reads the
// environment that run was given.
const environmentTag = "environ"

// fromEnvironment answers the value of a flag that was not given. An empty
// variable is no value.
func (a *app) fromEnvironment(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if name := flag.Tag.Get(environmentTag); name != "" {
		if value := a.getenv(name); value != "" {
			return value, nil
		}
	}
	return nil, nil // kong's way to say "no value"
}

// describeValue adds the environment variable to the help of a flag.
func describeValue(value *kong.Value) string {
	if name := value.Tag.Get(environmentTag); name != "" {
		return strings.TrimSuffix(value.Help, ".") + " ($" + name + ")."
	}
	return value.Help
}

// isTerminal tells whether somebody reads along.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
