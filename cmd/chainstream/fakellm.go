package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/offline"
)

// fakeLLMCommand is chainstream fake-llm.
type fakeLLMCommand struct {
	Addr       string        `help:"Address to listen on; loopback only." default:"127.0.0.1:8099"`
	Script     string        `help:"YAML file with the replies of each model; see docs/fake-llm.md." placeholder:"FILE"`
	TTFT       time.Duration `name:"ttft" help:"Time until the first token." default:"0s"`
	Rate       float64       `help:"Tokens a second; 0 is as fast as possible." default:"0"`
	Fault      string        `help:"Answer by this fault." placeholder:"NAME"`
	EmbedFault string        `help:"Answer calls for embeddings by this fault." placeholder:"NAME"`
	FaultRate  *float64      `help:"Share of the calls that get a fault, from 0 to 1: the one named by --fault or --embed-fault, or any." placeholder:"SHARE"`
	Seed       uint64        `help:"Where the choice of calls and faults begins; the same seed chooses the same." default:"1"`
	ListFaults bool          `help:"Print the faults and end."`
	JSON       bool          `help:"Print each call, or the faults, as JSON."`
}

// Help is shown by chainstream fake-llm --help.
func (fakeLLMCommand) Help() string {
	return `It speaks the formats of OpenAI, Anthropic, Gemini and Ollama's list of models, and calls no language model: what no script answers is answered by the built-in demo model. One line tells of each call.

Examples:

    chainstream fake-llm --ttft 300ms --rate 40
    chainstream fake-llm --script replies.yaml
    chainstream fake-llm --fault-rate 0.2 --seed 7
    chainstream fake-llm --fault retry-after-120`
}

// Run serves until ctx ends.
func (c *fakeLLMCommand) Run(ctx context.Context, a *app) error {
	if c.ListFaults {
		return a.listFaults(c.JSON)
	}
	play, models, err := c.player()
	if err != nil {
		return err
	}
	listener, err := listen(ctx, c.Addr, "--addr")
	if err != nil {
		return err
	}
	fake := llmtest.New()
	fake.List(models...)
	fake.Otherwise(play.reply)
	fake.OtherwiseEmbed(play.embedReply)
	calls := callPrinter{app: a, json: c.JSON}
	fake.Watch(calls.print)

	server := &http.Server{Handler: fake, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	banner := a.stdout
	if c.JSON {
		banner = a.stderr
	}
	fmt.Fprintf(banner, fakeBanner, "http://"+listener.Addr().String())
	select {
	case err = <-ended:
	case <-ctx.Done():
		fake.Close()
		// Replies end at their next wait; who sends on is cut off.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			err = server.Close()
		}
		err = errors.Join(err, <-ended)
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the fake model: %w", err)
	}
	return nil
}

// fakeBanner tells how to use the server.
const fakeBanner = `
  fake-llm answers at %[1]s. It is no language model.
  To have chainstream call it, start chainstream with:

    export OPENAI_BASE_URL=%[1]s/v1 OPENAI_API_KEY=fake
    export ANTHROPIC_BASE_URL=%[1]s ANTHROPIC_API_KEY=fake
    export GEMINI_BASE_URL=%[1]s GEMINI_API_KEY=fake
    export OLLAMA_BASE_URL=%[1]s LMSTUDIO_BASE_URL=%[1]s

  Ctrl-C stops it. Calls:

`

// fakePlayer decides what a call is answered by.
type fakePlayer struct {
	script *llmtest.Script
	pace   llmtest.Pace
	faults []llmtest.Fault
	share  float64 // of the calls that get one of the faults

	embedFaults []llmtest.EmbedFault
	embedShare  float64

	mu     sync.Mutex
	random *rand.Rand
}

// player answers what plays, and the models to list.
func (c *fakeLLMCommand) player() (*fakePlayer, []string, error) {
	if c.Rate < 0 || c.TTFT < 0 {
		return nil, nil, usage("--rate and --ttft cannot be negative")
	}
	p := &fakePlayer{pace: llmtest.Pace{First: c.TTFT, Rate: c.Rate}, random: rand.New(rand.NewPCG(c.Seed, 0))} //nolint:gosec // a game, and it must be repeatable
	if c.FaultRate != nil {
		if p.share = *c.FaultRate; !(p.share >= 0 && p.share <= 1) {
			return nil, nil, usage("--fault-rate is a share from 0 to 1, not %v", p.share)
		}
	}
	if err := p.chooseEmbedFaults(c); err != nil {
		return nil, nil, err
	}
	switch {
	case c.Fault != "":
		fault, ok := llmtest.FaultNamed(c.Fault)
		if !ok {
			return nil, nil, usage("there is no fault called %q; chainstream fake-llm --list-faults prints them", c.Fault)
		}
		p.faults = []llmtest.Fault{fault}
		if c.FaultRate == nil {
			p.share = 1
		}
	case p.share > 0 && c.EmbedFault == "":
		for _, fault := range llmtest.Faults() {
			if fault.Code != "" {
				p.faults = append(p.faults, fault)
			}
		}
	}
	models := []string{"fake-model"}
	if c.Script != "" {
		data, err := os.ReadFile(c.Script)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, &exitError{code: exitFailed, err: err, message: fmt.Sprintf("there is no file %s", c.Script)}
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read the script: %w", err)
		}
		if p.script, err = llmtest.ParseScript(data); err != nil {
			return nil, nil, &exitError{code: exitFailed, err: err, message: fmt.Sprintf("%s: %s", c.Script, err)}
		}
		models = append(models, p.script.Models()...)
	}
	return p, models, nil
}

// chooseEmbedFaults does for embeddings what player does for prompts.
func (p *fakePlayer) chooseEmbedFaults(c *fakeLLMCommand) error {
	p.embedShare = p.share
	switch {
	case c.EmbedFault != "":
		fault, ok := llmtest.EmbedFaultNamed(c.EmbedFault)
		if !ok {
			return usage("there is no fault of embeddings called %q; chainstream fake-llm --list-faults prints them", c.EmbedFault)
		}
		p.embedFaults = []llmtest.EmbedFault{fault}
		if c.FaultRate == nil {
			p.embedShare = 1
		}
	case p.share > 0 && c.Fault == "":
		for _, fault := range llmtest.EmbedFaults() {
			if fault.Code != "" {
				p.embedFaults = append(p.embedFaults, fault)
			}
		}
	}
	return nil
}

// embedReply answers one call for embeddings: as usual, or by a fault.
func (p *fakePlayer) embedReply(llmtest.EmbedRequest) llmtest.EmbedReply {
	if len(p.embedFaults) == 0 {
		return llmtest.EmbedReply{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.random.Float64() >= p.embedShare {
		return llmtest.EmbedReply{}
	}
	return p.embedFaults[p.random.IntN(len(p.embedFaults))].Reply
}

// fault draws whether a call gets a fault.
func (p *fakePlayer) fault() (llmtest.Fault, bool) {
	if len(p.faults) == 0 {
		return llmtest.Fault{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.random.Float64() >= p.share {
		return llmtest.Fault{}, false
	}
	return p.faults[p.random.IntN(len(p.faults))], true
}

// reply answers one call: by a fault, by the script, or as the demo model does.
func (p *fakePlayer) reply(req llmtest.Request) llmtest.Reply {
	if fault, ok := p.fault(); ok {
		return append(llmtest.Reply{llmtest.Note("fault " + fault.Name)}, fault.Reply...)
	}
	if p.script != nil {
		if reply, ok := p.script.Reply(req, p.pace); ok {
			return reply
		}
	}
	demo := req.Request
	demo.Model = offline.Model
	var answer llmtest.Result
	for chunk, err := range (offline.Provider{}).Stream(context.Background(), demo) { // without a pace it does not wait
		if e := (*llm.Error)(nil); errors.As(err, &e) {
			refusal := llmtest.StatusError(http.StatusBadRequest, llmtest.KindInvalid, e.Message+" "+e.Detail)
			return append(llmtest.Reply{llmtest.Note("status 400")}, refusal...)
		}
		answer.Text += chunk.Text
		answer.ToolCalls = append(answer.ToolCalls, chunk.ToolCalls...)
		if chunk.FinishReason != "" {
			answer.FinishReason = chunk.FinishReason
		}
		answer.Usage = chunk.Usage
	}
	return llmtest.Whole(req, p.pace, answer)
}

// callPrinter prints one line for each call.
type callPrinter struct {
	app  *app
	json bool
	mu   sync.Mutex
}

// printedCall is a line in JSON.
type printedCall struct {
	Model      string `json:"model"`
	Wire       string `json:"wire"`
	Stream     bool   `json:"stream"`
	Answer     string `json:"answer"`
	ClientGone bool   `json:"clientGone"`
}

func (p *callPrinter) print(call *llmtest.Call) {
	c := printedCall{Model: call.Request.Model, Wire: call.Request.Wire, Stream: call.Request.Stream, Answer: call.Note}
	select {
	case <-call.Gone:
		c.ClientGone = true
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.json {
		line, err := json.Marshal(c)
		if err == nil {
			_ = p.app.printf("%s\n", line) // a reader that has left has no use for it
		}
		return
	}
	kind, gone := "whole", ""
	switch {
	case strings.HasSuffix(call.Path, "/embeddings"), strings.HasSuffix(call.Path, ":batchEmbedContents"):
		kind = "embed"
	case c.Stream:
		kind = "stream"
	}
	if c.ClientGone {
		gone = "; the client left before the end"
	}
	_ = p.app.printf("%-9s  %s  %s: %s%s\n", c.Wire, kind, printable(c.Model), c.Answer, gone) // as above
}

// listedFault is a fault in JSON.
type listedFault struct {
	Name       string   `json:"name"`
	Code       llm.Code `json:"code,omitempty"`
	Retryable  bool     `json:"retryable"`
	RetryAfter string   `json:"retryAfter,omitempty"`
	Embeddings bool     `json:"embeddings,omitempty"` // of calls for embeddings
}

// listFaults prints what --fault takes.
func (a *app) listFaults(asJSON bool) error {
	var list []listedFault
	for _, fault := range llmtest.Faults() {
		f := listedFault{Name: fault.Name, Code: fault.Code, Retryable: fault.Retryable}
		if fault.RetryAfter > 0 {
			f.RetryAfter = fault.RetryAfter.String()
		}
		list = append(list, f)
	}
	for _, fault := range llmtest.EmbedFaults() {
		f := listedFault{Name: fault.Name, Code: fault.Code, Retryable: fault.Retryable, Embeddings: true}
		if fault.RetryAfter > 0 {
			f.RetryAfter = fault.RetryAfter.String()
		}
		list = append(list, f)
	}
	if asJSON {
		return a.printJSON(list)
	}
	t := a.table("FAULT", "WHAT CHAINSTREAM MAKES OF IT", "RETRIED", "ASKED TO WAIT", "OPTION")
	for _, f := range list {
		outcome, retried := string(f.Code), "no"
		if f.Code == "" {
			outcome, retried = "an answer", ""
		}
		if f.Retryable {
			retried = "yes"
		}
		option := "--fault"
		if f.Embeddings {
			option = "--embed-fault"
		}
		t.row(f.Name, outcome, retried, f.RetryAfter, option)
	}
	return t.flush()
}
