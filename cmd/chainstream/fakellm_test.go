package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	main "github.com/chainstream/chainstream/cmd/chainstream"
	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/llmtest"
	"github.com/chainstream/chainstream/llm/openai"
)

// fakeLLM is a chainstream fake-llm in the background.
type fakeLLM struct {
	t              *testing.T
	url            string
	stdout, stderr *watchedOutput
}

// fakeModel starts one on a free port; it must end in order.
func fakeModel(t *testing.T, args ...string) *fakeLLM {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	banner := `answers at (http://[^ ]+)\.`
	f := &fakeLLM{t: t, stdout: newWatchedOutput(banner), stderr: newWatchedOutput(banner)}
	ended := make(chan error, 1)
	args = append([]string{"fake-llm", "--addr", "127.0.0.1:0"}, args...)
	go func() { ended <- main.Run(ctx, args, environment(nil), f.stdout, f.stderr) }()
	var match []string
	select {
	case match = <-f.stdout.found: // or with --json
	case match = <-f.stderr.found:
	case err := <-ended:
		cancel()
		t.Fatalf("fake-llm ended with %v", err)
	case <-time.After(patience):
		cancel()
		t.Fatal("fake-llm is not up")
	}
	f.url = match[1]
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("fake-llm ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("fake-llm did not stop")
		}
	})
	return f
}

// provider is a client of it.
func (f *fakeLLM) provider() llm.Provider {
	f.t.Helper()
	client := llm.NewHTTPClient()
	f.t.Cleanup(client.CloseIdleConnections)
	p, err := openai.New(openai.Config{BaseURL: f.url + "/v1", Client: client})
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// ask sends a prompt to a model.
func (f *fakeLLM) ask(model, prompt string) llmtest.Result {
	f.t.Helper()
	return llmtest.Collect(f.t.Context(), f.t, f.provider(), llm.Request{Model: model, Messages: []llm.Message{{Role: llm.RoleUser, Text: prompt}}})
}

// printed waits until the output has a pattern.
func (f *fakeLLM) printed(pattern string) {
	f.t.Helper()
	select {
	case <-f.stdout.expect(pattern):
	case <-time.After(patience):
		f.t.Fatalf("%s is not in:\n%s", pattern, f.stdout)
	}
}

func TestFakeLLM(t *testing.T) {
	t.Parallel()
	f := fakeModel(t)
	for _, line := range []string{
		"export OPENAI_BASE_URL=" + f.url + "/v1 OPENAI_API_KEY=fake",
		"export ANTHROPIC_BASE_URL=" + f.url + " ANTHROPIC_API_KEY=fake",
		"export GEMINI_BASE_URL=" + f.url + " GEMINI_API_KEY=fake",
		"export OLLAMA_BASE_URL=" + f.url,
	} {
		if !strings.Contains(f.stdout.String(), line) {
			t.Errorf("%q is not in:\n%s", line, f.stdout)
		}
	}
	if r := f.ask("any-model", "Echo: as you say"); r.Text != "as you say" || r.Usage.Estimated {
		t.Errorf("%+v", r)
	}
	f.printed(`(?m)^openai     stream  any-model: \d+ tokens, stop$`)
	if r := f.ask("any-model", "Write about tea."); !strings.Contains(r.Text, "No language model was called") {
		t.Errorf("%+v", r)
	}
	for path, want := range map[string]string{
		"/v1/models": `"id":"fake-model"`, "/v1beta/models": `"name":"models/fake-model"`, "/api/tags": `"name":"fake-model"`, "/api/version": `"version"`,
	} {
		if got := fetchText(t, f.url+path); !strings.Contains(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	const chat = `{"model":"whole","max_tokens":99,"messages":[{"role":"user","content":"Echo: hello"}]}`
	for path, body := range map[string]string{
		"/v1/chat/completions":                 chat,
		"/v1/messages":                         chat,
		"/v1beta/models/whole:generateContent": `{"contents":[{"role":"user","parts":[{"text":"Echo: hello"}]}]}`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if got := answerText(t, req); !strings.Contains(got, "hello") {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, wire := range llmtest.Wires() {
		f.printed(`(?m)^` + wire + ` +whole  whole: `)
	}
}

func fetchText(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return answerText(t, req)
}

func answerText(t *testing.T, req *http.Request) string {
	t.Helper()
	client := llm.NewHTTPClient()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestFakeLLMRun runs a chain whose model fails once, by a script.
func TestFakeLLMRun(t *testing.T) {
	t.Parallel()
	f := fakeModel(t, "--ttft", "1ms", "--rate", "10000", "--script", file(t, "replies.yaml", `
flaky:
  - {status: 503, headers: {Retry-After-Ms: "1"}}
  - - reasoning: "Let me see. "
    - text: "fine now"
    - usage: {input: 12, output: 34}
`))
	chain := file(t, "chain.yaml", "name: flaky\nprompts:\n  - {name: One, position: 1, model: openai/flaky, content: hi}\n")
	env := map[string]string{"OPENAI_BASE_URL": f.url + "/v1", "OPENAI_API_KEY": "fake"}
	output := succeed(t, env, "run", chain, "--database-url", pgtest.Database(t))
	if !strings.Contains(output, "fine now") {
		t.Errorf("output:\n%s", output)
	}
	f.printed(`(?m)^openai     stream  flaky: status 503\nopenai     stream  flaky: 34 tokens, stop$`)
}

// TestFakeLLMGone shows that a client that leaves is told of.
func TestFakeLLMGone(t *testing.T) {
	t.Parallel()
	f := fakeModel(t, "--json", "--script", file(t, "replies.yaml", "stuck: [[{text: half}, {stall: true}]]"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for chunk, err := range f.provider().Stream(ctx, llm.Request{Model: "stuck"}) {
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if chunk.Text != "" {
			cancel()
		}
	}
	f.printed(`"clientGone":true`)
	var line struct {
		Model, Wire, Answer string
		Stream, ClientGone  bool
	}
	if err := json.Unmarshal([]byte(f.stdout.String()), &line); err != nil {
		t.Fatalf("%v in %s", err, f.stdout)
	}
	if line.Model != "stuck" || line.Wire != "openai" || line.Answer != "1 tokens, then a stall" || !line.Stream {
		t.Errorf("%+v", line)
	}
}

func TestFakeLLMFaults(t *testing.T) {
	t.Parallel()
	always := fakeModel(t, "--fault", "retry-after-120")
	r := always.ask("m", "Echo: x")
	if e := (*llm.Error)(nil); !errors.As(r.Err, &e) || e.Code != llm.CodeRateLimited || e.RetryAfter != 2*time.Minute {
		t.Errorf("%+v", r)
	}
	always.printed(`m: fault retry-after-120\n`)

	// The same seed draws the same calls.
	var drawn [2]string
	for i := range drawn {
		f := fakeModel(t, "--fault", "status-500", "--fault-rate", "0.5", "--seed", "3")
		for range 20 {
			if r := f.ask("m", "Echo: x"); r.Err != nil {
				drawn[i] += "!"
			} else {
				drawn[i] += "."
			}
		}
	}
	if n := strings.Count(drawn[0], "!"); drawn[0] != drawn[1] || n < 3 || n > 17 {
		t.Errorf("drawn %q and %q", drawn[0], drawn[1])
	}

	list := succeed(t, nil, "fake-llm", "--list-faults")
	if !regexp.MustCompile(`(?m)^retry-after-120 +rate_limited +yes +2m0s +--fault$`).MatchString(list) || !regexp.MustCompile(`(?m)^comments +an answer`).MatchString(list) {
		t.Errorf("faults:\n%s", list)
	}
	var faults []struct{ Name, Code string }
	if err := json.Unmarshal([]byte(succeed(t, nil, "fake-llm", "--list-faults", "--json")), &faults); err != nil || len(faults) != len(llmtest.Faults())+len(llmtest.EmbedFaults()) {
		t.Errorf("%d faults, error %v", len(faults), err)
	}
}

func TestFakeLLMRefuses(t *testing.T) {
	t.Parallel()
	bad := file(t, "bad.yaml", "m: [{fault: fire}]")
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"another address":  {[]string{"--addr", "0.0.0.0:8099"}, 1, "is not a loopback address"},
		"no address":       {[]string{"--addr", "nonsense"}, 2, "is not of the form host:port"},
		"no such fault":    {[]string{"--fault", "fire"}, 2, `there is no fault called "fire"; chainstream fake-llm --list-faults prints them`},
		"too large a rate": {[]string{"--fault-rate", "1.5"}, 2, "--fault-rate is a share from 0 to 1, not 1.5"},
		"no rate":          {[]string{"--fault-rate", "NaN"}, 2, "--fault-rate is a share from 0 to 1, not NaN"},
		"negative tokens":  {[]string{"--rate=-1"}, 2, "cannot be negative"},
		"no script":        {[]string{"--script", "/nonexistent.yaml"}, 1, "there is no file /nonexistent.yaml"},
		"a wrong script":   {[]string{"--script", bad}, 1, bad + `: model "m", reply 1: there is no fault called "fire"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := execute(t, nil, append([]string{"fake-llm"}, tt.args...)...)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("exit code %d, %q", r.code, r.stderr)
			}
		})
	}
}
