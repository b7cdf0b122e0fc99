package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// inputChain is the chain that executions with bad input name.
const inputChain = `
name: inputs
inputs:
  topic: {type: short_text, required: true, maxLength: 100}
  depth: {type: number, min: 1, max: 5}
prompts:
  - {name: Only, model: offline/echo, content: "Echo: the topic is ${topic}."}
`

// bodyLimit is the default of --max-body.
const bodyLimit = 4 << 20

// badCall is a request that must be refused, and how.
type badCall struct {
	name    string
	call    call
	status  int
	code    string
	pointer string // of one of the errors; "" = not looked at
}

// prompts makes a chain document of prompts, each an object in JSON.
func prompts(list ...string) string {
	return `{"name": "bad", "inputs": {"topic": {"type": "short_text"}}, "prompts": [` + strings.Join(list, ", ") + `]}`
}

// prompt makes a prompt of the demo model.
func prompt(name string, position int, content string) string {
	return fmt.Sprintf(`{"name": %q, "position": %d, "model": "offline/echo", "content": %q}`, name, position, content)
}

func badChains() []badCall {
	chain := func(name string, status int, code, pointer, body string) badCall {
		return badCall{"chain: " + name, call{method: http.MethodPost, path: "/api/v1/chains", body: body}, status, code, pointer}
	}
	yaml := func(b badCall) badCall {
		b.name += ", YAML"
		b.call.media = "application/yaml"
		return b
	}
	ok := prompt("Only", 1, "Text")
	many := make([]string, 10_000)
	for i := range many {
		many[i] = prompt(fmt.Sprintf("P%d", i), i+1, "Text")
	}
	deep := func(n int) string {
		return `{"name": "bad", "x": ` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`
	}
	return []badCall{
		chain("unknown field", 422, "invalid_chain", "/surprise", `{"name": "bad", "surprise": 1, "prompts": [`+ok+`]}`),
		chain("unknown field of a prompt", 422, "invalid_chain", "/prompts/0/surprise", prompts(`{"name": "A", "model": "offline/echo", "content": "x", "surprise": 1}`)),
		chain("wrong types", 422, "invalid_chain", "/prompts/0/temperature", `{"name": 7, "prompts": [{"name": "A", "model": "offline/echo", "content": "x", "temperature": "hot"}]}`),
		chain("prompts that are no list", 422, "invalid_chain", "/prompts", `{"name": "bad", "prompts": {}}`),
		chain("no prompts", 422, "invalid_chain", "/prompts", `{"name": "bad", "prompts": []}`),
		chain("an array", 422, "", "", `[]`),
		chain("null", 422, "", "", `null`),
		chain("no body", 400, "malformed_body", "", ` `),
		chain("cut off", 400, "malformed_body", "", `{"name": "bad", "prom`),
		chain("two values", 400, "malformed_body", "", prompts(ok)+prompts(ok)),
		chain("NUL as an escape", 400, "malformed_body", "", prompts(prompt("A", 1, "X"), `{"name": "B\u0000", "model": "offline/echo", "content": "x"}`)),
		chain("NUL as a byte", 400, "malformed_body", "", "{\"name\": \"b\x00d\"}"),
		chain("half a surrogate pair", 400, "malformed_body", "", `{"name": "\ud800"}`),
		chain("invalid UTF-8", 400, "malformed_body", "", "{\"name\": \"b\xff\xfed\"}"),
		chain("duplicate keys", 400, "malformed_body", "", `{"name": "bad", "name": "worse", "prompts": [`+ok+`]}`),
		chain("depth 65", 400, "malformed_body", "", deep(65)),
		chain("a huge number", 400, "malformed_body", "", `{"name": "bad", "prompts": [{"name": "A", "model": "offline/echo", "content": "x", "temperature": 1e999}]}`),
		chain("${nothing}", 422, "invalid_chain", "/prompts/0/content", prompts(prompt("A", 1, "About ${nothing}"))),
		chain("a later prompt", 422, "invalid_chain", "/prompts/0/content", prompts(prompt("A", 1, "After ${b}"), prompt("B", 2, "x"))),
		chain("a sibling", 422, "invalid_chain", "/prompts/1/content", prompts(prompt("A", 1, "x"), prompt("B", 1, "Beside ${a}"))),
		chain("a cycle", 422, "invalid_chain", "/prompts/0/content", prompts(prompt("A", 1, "After ${b}"), prompt("B", 2, "After ${a}"))),
		chain("itself", 422, "invalid_chain", "/prompts/0/content", prompts(prompt("A", 1, "After ${a}"))),
		chain("one slug twice", 422, "invalid_chain", "/prompts/1/name", prompts(prompt("Draft A", 1, "x"), prompt("draft-a", 2, "y"))),
		chain("10,000 prompts", 422, "invalid_chain", "/prompts", prompts(many...)),
		chain("one byte too many", 413, "body_too_large", "", prompts(ok)+strings.Repeat(" ", bodyLimit+1-len(prompts(ok)))),
		yaml(chain("NUL as a byte", 400, "malformed_body", "", "name: b\x00d\n")),
		yaml(chain("NUL as an escape", 400, "malformed_body", "", "name: \"b\\0d\"\nprompts: []\n")),
		yaml(chain("invalid UTF-8", 400, "malformed_body", "", "name: b\xff\xfed\n")),
		yaml(chain("duplicate keys", 400, "malformed_body", "", "name: bad\nname: worse\nprompts: []\n")),
		yaml(chain("depth 65", 400, "malformed_body", "", "name: bad\nx: "+strings.Repeat("[", 64)+strings.Repeat("]", 64)+"\n")),
		yaml(chain("aliases that multiply", 422, "invalid_chain", "", laughs())),
		{"chain: no media type known", call{method: http.MethodPost, path: "/api/v1/chains", media: "text/html", body: "<p>"}, 415, "unsupported_media_type", ""},
		{"chain: a name that is taken", call{method: http.MethodPost, path: "/api/v1/chains", media: "application/yaml", body: inputChain}, 409, "chain_exists", ""},
	}
}

// laughs is the document that grows beyond all bounds where aliases are
// followed.
func laughs() string {
	var b strings.Builder
	b.WriteString("name: bad\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), i-1)
	}
	return b.String()
}

func badExecutions() []badCall {
	trigger := func(name string, status int, code, pointer, body string) badCall {
		return badCall{"execution: " + name, call{method: http.MethodPost, path: "/api/v1/executions", body: body}, status, code, pointer}
	}
	get := func(name string, status int, code, path string) badCall {
		return badCall{name, call{method: http.MethodGet, path: path}, status, code, ""}
	}
	with := func(b badCall, header, value string) badCall {
		b.call.header = map[string]string{header: value}
		return b
	}
	fine := `{"chain": "inputs", "inputs": {"topic": "x"}}`
	host := get("foreign Host", 403, "host_not_allowed", "/api/v1/chains")
	host.call.host = "evil.example"
	return []badCall{
		trigger("unknown chain", 404, "chain_not_found", "", `{"chain": "nobody"}`),
		trigger("unknown id of a chain", 404, "chain_not_found", "", `{"chain": 99999}`),
		trigger("unknown version", 404, "chain_not_found", "", `{"chain": "inputs", "version": 99, "inputs": {"topic": "x"}}`),
		trigger("no chain", 422, "invalid_request", "/chain", `{}`),
		trigger("a chain of another type", 422, "invalid_request", "/chain", `{"chain": [1]}`),
		trigger("missing input", 422, "invalid_request", "/inputs/topic", `{"chain": "inputs"}`),
		trigger("surplus input", 422, "invalid_request", "/inputs/surplus", `{"chain": "inputs", "inputs": {"topic": "x", "surplus": 1}}`),
		trigger("input of another type", 422, "invalid_request", "/inputs/topic", `{"chain": "inputs", "inputs": {"topic": 7}}`),
		trigger("input that is too long", 422, "invalid_request", "/inputs/topic", `{"chain": "inputs", "inputs": {"topic": "`+strings.Repeat("x", 101)+`"}}`),
		trigger("input that is too large", 422, "invalid_request", "/inputs/depth", `{"chain": "inputs", "inputs": {"topic": "x", "depth": 6}}`),
		trigger("inputs that are no object", 422, "invalid_request", "/inputs", `{"chain": "inputs", "inputs": "x"}`),
		trigger("unknown field", 422, "invalid_request", "/surprise", `{"chain": "inputs", "inputs": {"topic": "x"}, "surprise": 1}`),
		trigger("a timeout without meaning", 422, "invalid_request", "/limits/timeout", `{"chain": "inputs", "inputs": {"topic": "x"}, "limits": {"timeout": "soon"}}`),
		trigger("NUL", 400, "malformed_body", "", `{"chain": "inputs", "inputs": {"topic": "a\u0000b"}}`),
		trigger("invalid UTF-8", 400, "malformed_body", "", "{\"chain\": \"inputs\", \"inputs\": {\"topic\": \"\xc3\x28\"}}"),
		trigger("duplicate keys", 400, "malformed_body", "", `{"chain": "inputs", "inputs": {"topic": "x", "topic": "y"}}`),
		trigger("depth 65", 400, "malformed_body", "", `{"chain": "inputs", "metadata": `+strings.Repeat(`{"a": `, 64)+"1"+strings.Repeat("}", 64)+`}`),
		trigger("one byte too many", 413, "body_too_large", "", fine+strings.Repeat(" ", bodyLimit+1-len(fine))),
		with(trigger("a key that is no key", 400, "invalid_parameter", "", fine), "Idempotency-Key", strings.Repeat("k", 300)),
		with(trigger("a foreign page", 403, "origin_not_allowed", "", fine), "Origin", "https://evil.example"),
		host,
		get("unknown execution", 404, "execution_not_found", "/api/v1/executions/99999"),
		get("execution by name", 404, "execution_not_found", "/api/v1/executions/one"),
		get("unknown address", 404, "not_found", "/api/v1/nothing"),
		get("a limit without meaning", 400, "invalid_parameter", "/api/v1/executions?limit=-1"),
		get("stream: unknown execution", 404, "execution_not_found", "/events/99999"),
		get("stream: an id out of range", 404, "execution_not_found", "/events/99999999999999999999"),
		get("stream: malformed cursor", 400, "invalid_cursor", "/events/1?after=one"),
		get("stream: negative cursor", 400, "invalid_cursor", "/events/1?after=-1"),
		get("stream: future cursor", 400, "invalid_cursor", "/events/1?after=1000"),
		get("stream: unknown type", 400, "invalid_parameter", "/events/1?types=prompt-start,nonsense"),
		with(get("stream: malformed header", 400, "invalid_cursor", "/events/1"), "Last-Event-ID", "7x"),
		with(get("stream: future header", 400, "invalid_cursor", "/events/1"), "Last-Event-ID", "1000"),
		{"a method that is not allowed", call{method: http.MethodDelete, path: "/api/v1/chains"}, 405, "method_not_allowed", ""},
		{"cancel what has ended", call{method: http.MethodPost, path: "/api/v1/executions/1/cancel"}, 409, "execution_finished", ""},
	}
}

// TestBadInput sends everything that is wrong to the real program. Each gets a
// clear answer, and a good request works after each.
func TestBadInput(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	s := serve(ctx, t, settings{args: []string{"--database-url", pgtest.Database(t), "--offline-pace", "0s"}})
	s.createChain(ctx, t, inputChain)
	if id := s.begin(ctx, t, "inputs", map[string]string{"topic": "first"}); id != 1 || lastType(s.ends(ctx, t, id)) != "execution-complete" {
		t.Fatal("the good execution before the bad ones did not complete as the first")
	}
	for _, bad := range append(badChains(), badExecutions()...) {
		t.Run(bad.name, func(t *testing.T) {
			a, err := s.do(ctx, bad.call)
			if err != nil {
				t.Fatal(err)
			}
			var problem struct {
				Type, Title, Detail, Instance, Code string
				Status                              int
				Errors                              []struct{ Pointer, Detail string }
			}
			if err := json.Unmarshal([]byte(a.body), &problem); err != nil {
				t.Fatalf("status %d with a body that is no problem: %v: %.200s", a.status, err, a.body)
			}
			if a.status != bad.status || problem.Status != a.status || bad.code != "" && problem.Code != bad.code {
				t.Errorf("status %d, %d in the body, code %s, want %d and %s: %.500s", a.status, problem.Status, problem.Code, bad.status, bad.code, a.body)
			}
			if media := a.header.Get("Content-Type"); media != "application/problem+json" {
				t.Errorf("Content-Type %s", media)
			}
			path, _, _ := strings.Cut(bad.call.path, "?")
			if problem.Type == "" || problem.Title == "" || problem.Detail == "" || problem.Instance != path {
				t.Errorf("the problem lacks a part: %.500s", a.body)
			}
			found := bad.pointer == ""
			for _, e := range problem.Errors {
				found = found || e.Pointer == bad.pointer && e.Detail != ""
			}
			if !found {
				t.Errorf("no error points at %s: %.500s", bad.pointer, a.body)
			}
		})
	}
	// What stands exactly at the limits is accepted.
	fine := prompts(prompt("Only", 1, "Text"))
	if err := s.want(ctx, http.StatusCreated, call{method: http.MethodPost, path: "/api/v1/chains", body: fine + strings.Repeat(" ", bodyLimit-len(fine))}, nil); err != nil {
		t.Error(err)
	}
	id := s.begin(ctx, t, "inputs", map[string]string{"topic": "last"})
	if log := s.ends(ctx, t, id); lastType(log) != "execution-complete" {
		t.Errorf("after all that an execution ends with %s", lastType(log))
	}
	// The refused triggers made no executions.
	if id != 2 {
		t.Errorf("the second good execution has the id %d", id)
	}
}

// TestTextStaysText gives the program texts that look like something else.
func TestTextStaysText(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	fake := llmtest.NewServer(t)
	fake.Script("broken", llmtest.Reply{
		llmtest.Role(), llmtest.Delta("nul \x00 here, "), llmtest.Data(`{"choices":[{"index":0,"delta":{"content":"half \ud800 pair, "}}]}`),
		llmtest.Raw("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"bytes \xff\xfe here, ${topic}\"}}]}\n\n"),
		llmtest.Finish("stop"), llmtest.Usage(1, 9), llmtest.Done(),
	})
	database := pgtest.Database(t)
	s := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", database, "--offline-pace", "0s"}})
	s.createChain(ctx, t, `
name: texts
inputs:
  topic: {type: short_text, required: true}
  other: {type: long_text, required: true}
prompts:
  - {name: Broken, position: 1, model: openai/broken, content: "Anything"}
  - {name: Echo, position: 2, model: offline/echo, content: "Echo: \\${topic} is ${topic}, {{other}}, ${broken}"}
`)
	topic, other := "${other} {{topic}} ${broken}", "id: 1\r\nevent: x\r\n\r\ndata: y\u2028\u0085\n\n: z 🚀 \u202e"
	id := s.begin(ctx, t, "texts", map[string]string{"topic": topic, "other": other})
	log := s.ends(ctx, t, id)
	sameLog(t, rows(ctx, t, connect(ctx, t, database), id), log)
	ex := s.execution(ctx, t, id)
	if ex.Status != "completed" || len(ex.Prompts) != 2 {
		t.Fatalf("the execution is %+v", ex)
	}
	broken := ex.Prompts[0].Output
	if strings.ContainsAny(broken, "\x00") || strings.Count(broken, "\uFFFD") < 3 || !strings.HasSuffix(broken, "here, ${topic}") {
		t.Errorf("the model's broken text became %q", broken)
	}
	if diff := cmp.Diff("${topic} is "+topic+", "+other+", "+broken, ex.Prompts[1].Output); diff != "" {
		t.Errorf("the echo of what was given (-want +got):\n%s", diff)
	}
	flagged := false
	for _, e := range log {
		flagged = flagged || decode(t, e).Metadata.Repaired
	}
	if !flagged {
		t.Error("no event says that text was repaired")
	}
	checkTexts(t, log, ex)
}
