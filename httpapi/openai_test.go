package httpapi_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// Everything that can be wrong with a request has its status, its code and the
// parameter that is wrong, in OpenAI's shape.
func TestOpenAIProblems(t *testing.T) {
	t.Parallel()
	s, _ := withFake(t, func(c *httpapi.Config) { c.MaxBody = 8 << 10 })
	a := newAPI(t, s)
	a.chain(twoPrompts)
	deep := strings.Repeat("[", chain.MaxDepth+1) + strings.Repeat("]", chain.MaxDepth+1)
	chat := func(more string) call { return ask(hello("offline/echo", more)) }
	messages := func(list string) call { return ask(`{"model": "offline/echo", "messages": ` + list + `}`) }
	of := func(more string) call { return ask(hello("chain/two", more)) }
	embed := func(body string) call { return call{method: "POST", path: "/v1/embeddings", body: body} }
	for name, c := range map[string]struct {
		call call
		want string // status, code and param
	}{
		"no route":          {call{method: "GET", path: "/v1/nothing"}, "404 not_found "},
		"method":            {call{method: "GET", path: "/v1/chat/completions"}, "405 method_not_allowed "},
		"not json":          {ask(`{"model": `), "400 malformed_body model"},
		"empty":             {ask(" "), "400 malformed_body "},
		"list":              {ask("[]"), "400 invalid_type "},
		"null":              {ask("null"), "400 invalid_type "},
		"duplicate key":     {ask(`{"model": "a", "model": "b"}`), "400 malformed_body model"},
		"nul":               {ask(`{"model": "a\u0000"}`), "400 malformed_body model"},
		"depth":             {ask(`{"x": ` + deep + `}`), "400 malformed_body x" + strings.Repeat("[0]", chain.MaxDepth-1)},
		"too large":         {ask(`"` + strings.Repeat("x", 8<<10) + `"`), "413 body_too_large "},
		"media type":        {call{method: "POST", path: "/v1/chat/completions", media: "text/plain", body: "x"}, "415 unsupported_media_type "},
		"key":               {call{method: "POST", path: "/v1/chat/completions", body: hello("offline/echo", ""), header: map[string]string{"Idempotency-Key": "a b"}}, "400 invalid_parameter "},
		"on disconnect":     {call{method: "POST", path: "/v1/chat/completions", body: hello("offline/echo", ""), header: map[string]string{"X-Chainstream-On-Disconnect": "shrug"}}, "400 invalid_parameter "},
		"no model":          {ask(`{"messages": [{"role": "user", "content": "x"}]}`), "400 missing_required_parameter model"},
		"model type":        {ask(`{"model": 1, "messages": []}`), "400 invalid_type model"},
		"no prefix":         {ask(hello("gpt-4.1", "")), "404 model_not_found model"},
		"unknown provider":  {ask(hello("nobody/x", "")), "404 model_not_found model"},
		"unknown model":     {ask(hello("offline/other", "")), "404 model_not_found model"},
		"unknown chain":     {ask(hello("chain/three", "")), "404 model_not_found model"},
		"odd chain":         {ask(hello("chain/_direct", "")), "404 model_not_found model"},
		"no messages":       {ask(`{"model": "offline/echo"}`), "400 missing_required_parameter messages"},
		"empty messages":    {messages("[]"), "400 invalid_value messages"},
		"messages type":     {messages(`"x"`), "400 invalid_type messages"},
		"message type":      {messages(`[1]`), "400 invalid_type messages[0]"},
		"no role":           {messages(`[{"content": "x"}]`), "400 missing_required_parameter messages[0].role"},
		"role":              {messages(`[{"role": "user", "content": "x"}, {"role": "king", "content": "x"}]`), "400 invalid_value messages[1].role"},
		"no content":        {messages(`[{"role": "user"}]`), "400 missing_required_parameter messages[0].content"},
		"content type":      {messages(`[{"role": "user", "content": 7}]`), "400 invalid_type messages[0].content"},
		"audio":             {messages(`[{"role": "user", "content": [{"type": "input_audio"}]}]`), "400 unsupported_value messages[0].content[0].type"},
		"image scheme":      {messages(`[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]`), "400 invalid_value messages[0].content[0].image_url.url"},
		"image data":        {messages(`[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%"}}]}]`), "400 invalid_value messages[0].content[0].image_url.url"},
		"no tool call id":   {messages(`[{"role": "tool", "content": "x"}]`), "400 missing_required_parameter messages[0].tool_call_id"},
		"call without name": {messages(`[{"role": "assistant", "tool_calls": [{"id": "x", "type": "function", "function": {}}]}]`), "400 missing_required_parameter messages[0].tool_calls[0].function.name"},
		"temperature":       {chat(`, "temperature": 3`), "400 invalid_value temperature"},
		"temperature type":  {chat(`, "temperature": "warm"`), "400 invalid_type temperature"},
		"max tokens":        {chat(`, "max_tokens": 0`), "400 invalid_value max_tokens"},
		"max tokens type":   {chat(`, "max_tokens": 1.5`), "400 invalid_type max_tokens"},
		"stop":              {chat(`, "stop": ["a", "b", "c", "d", "e"]`), "400 invalid_value stop"},
		"stream type":       {chat(`, "stream": "yes"`), "400 invalid_type stream"},
		"n":                 {chat(`, "n": 2`), "400 unsupported_value n"},
		"logprobs":          {chat(`, "logprobs": true`), "400 unsupported_parameter logprobs"},
		"audio out":         {chat(`, "audio": {"voice": "x"}`), "400 unsupported_parameter audio"},
		"modalities":        {chat(`, "modalities": ["text", "audio"]`), "400 unsupported_value modalities"},
		"penalty":           {chat(`, "frequency_penalty": 0.5`), "400 unsupported_parameter frequency_penalty"},
		"bias":              {chat(`, "logit_bias": {"1": 2}`), "400 unsupported_parameter logit_bias"},
		"functions":         {chat(`, "functions": []`), "400 unsupported_parameter functions"},
		"tool type":         {chat(`, "tools": [{"type": "custom"}]`), "400 unsupported_value tools[0].type"},
		"tool without name": {chat(`, "tools": [{"type": "function", "function": {}}]`), "400 missing_required_parameter tools[0].function.name"},
		"tool parameters":   {chat(`, "tools": [{"type": "function", "function": {"name": "x", "parameters": 1}}]`), "400 invalid_type tools[0].function.parameters"},
		"tool choice":       {chat(`, "tool_choice": "maybe"`), "400 invalid_value tool_choice"},
		"choice of nothing": {chat(`, "tool_choice": "required"`), "400 invalid_value tool_choice"},
		"format":            {chat(`, "response_format": {"type": "xml"}`), "400 unsupported_value response_format.type"},
		"no schema":         {chat(`, "response_format": {"type": "json_schema", "json_schema": {}}`), "400 missing_required_parameter response_format.json_schema.schema"},
		"metadata":          {chat(`, "metadata": []`), "400 invalid_type metadata"},
		"chain with tools":  {of(`, "tools": [{"type": "function", "function": {"name": "x"}}]`), "400 unsupported_parameter tools"},
		"chain with format": {of(`, "response_format": {"type": "json_object"}`), "400 unsupported_parameter response_format"},
		"chain with stop":   {of(`, "stop": "x"`), "400 unsupported_parameter stop"},
		"missing input":     {ask(`{"model": "chain/two", "messages": [{"role": "system", "content": "x"}]}`), "400 invalid_request inputs.topic"},
		"wrong input":       {of(`, "metadata": {"inputs": "{\"topic\": 1}"}`), "400 invalid_request inputs.topic"},
		"surplus input":     {of(`, "metadata": {"inputs": {"topic": "x", "colour": "red"}}`), "400 invalid_request inputs.colour"},
		"inputs no json":    {of(`, "metadata": {"inputs": "{"}`), "400 malformed_body metadata.inputs"},
		"inputs twice":      {of(`, "metadata": {"inputs": "{\"topic\": \"a\", \"topic\": \"b\"}"}`), "400 malformed_body metadata.inputs"},
		"inputs no object":  {of(`, "metadata": {"inputs": "7"}`), "400 invalid_type metadata.inputs"},

		"embed no input":   {embed(`{"model": "openai/e"}`), "400 missing_required_parameter input"},
		"embed tokens":     {embed(`{"model": "openai/e", "input": [1, 2]}`), "400 unsupported_value input"},
		"embed lists":      {embed(`{"model": "openai/e", "input": [[1, 2]]}`), "400 unsupported_value input"},
		"embed input type": {embed(`{"model": "openai/e", "input": {}}`), "400 invalid_type input"},
		"embed nothing":    {embed(`{"model": "openai/e", "input": []}`), "400 invalid_value input"},
		"embed empty":      {embed(`{"model": "openai/e", "input": ["x", ""]}`), "400 invalid_value input[1]"},
		"embed format":     {embed(`{"model": "openai/e", "input": "x", "encoding_format": "hex"}`), "400 invalid_value encoding_format"},
		"embed dimensions": {embed(`{"model": "openai/e", "input": "x", "dimensions": 0}`), "400 invalid_value dimensions"},
		"embed no model":   {embed(`{"input": "x"}`), "400 missing_required_parameter model"},
		"embed offline":    {embed(`{"model": "offline/echo", "input": "x"}`), "404 model_not_found model"},
		"embed unknown":    {embed(`{"model": "chain/two", "input": "x"}`), "404 model_not_found model"},

		"show unknown chain":    {call{method: "GET", path: "/v1/models/chain/three"}, "404 model_not_found model"},
		"show unknown provider": {call{method: "GET", path: "/v1/models/nobody/x"}, "404 model_not_found model"},
		"show nothing":          {call{method: "GET", path: "/v1/models/x"}, "404 model_not_found model"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := a.do(c.call)
			var e struct {
				Error struct{ Message, Type, Param, Code string }
			}
			got.decode(&e)
			if is := strconv.Itoa(got.status) + " " + e.Error.Code + " " + e.Error.Param; is != c.want || len(e.Error.Message) < 10 || e.Error.Type != "invalid_request_error" {
				t.Errorf("%s, want %s: %s", is, c.want, got.body)
			}
		})
	}
	if list, _ := a.do(call{method: "GET", path: "/api/v1/executions"}).object()["items"].([]any); len(list) != 0 {
		t.Errorf("%d executions were made", len(list))
	}
}

// A message is all that most clients show, so it says what is wrong by itself.
func TestOpenAIMessagesStandAlone(t *testing.T) {
	t.Parallel()
	s, _ := withFake(t, nil)
	a := newAPI(t, s)
	for name, c := range map[string]struct {
		call call
		want string
	}{
		"content": {ask(`{"model": "offline/echo", "messages": [{"role": "user", "content": 7}]}`), "messages[0].content must be a text or a list of parts."},
		"method":  {call{method: "DELETE", path: "/v1/models"}, "The method is not allowed here. The Allow header lists the methods that are."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var e struct{ Error struct{ Message string } }
			a.do(c.call).decode(&e)
			if e.Error.Message != c.want {
				t.Errorf("%q, want %q", e.Error.Message, c.want)
			}
		})
	}
}

const branches = `
name: branches
inputs:
  topic: {type: long_text, required: true}
  tone: {type: short_text}
  size: {type: number, default: 3}
  tags: {type: multi_select, options: [a, b]}
prompts:
  - {name: First, position: 1, model: openai/first, content: "${topic}"}
  - {name: Left, position: 2, model: openai/left, content: "x", onError: continue}
  - {name: Right, position: 2, model: openai/right, content: "x", onError: continue}
`

// The answer of a chain is what the prompts of its last position say, in the order
// of the document: the text of a later one waits for the end of the one before.
func TestCompletionOfChain(t *testing.T) {
	t.Parallel()
	s, fake := withFake(t, nil)
	left, right := make(chan struct{}), make(chan struct{})
	fake.Script("first", llmtest.Text("nobody sees this"))
	fake.Script("left", llmtest.Reply{llmtest.Role(), llmtest.Delta("Left"), llmtest.Tell(func() { close(right) }), llmtest.Gate(left), llmtest.Delta(" end"), llmtest.Finish("stop"), llmtest.Usage(2, 3), llmtest.Done()}, llmtest.Text("Left"))
	fake.Script("right", llmtest.Reply{llmtest.Gate(right), llmtest.Role(), llmtest.Delta("Right"), llmtest.Finish("length"), llmtest.Usage(5, 7), llmtest.Done()}, llmtest.Text("Right"))
	a := newAPI(t, s)
	a.chain(branches)
	f := a.open(ask(`{"model": "chain/branches", "stream": true, "messages": [{"role": "user", "content": "old"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "rivers"}]}`))
	lines := []string{strings.TrimSpace(f.block()), strings.TrimSpace(f.block())}
	if got := said(t, lines); got != "Left" {
		t.Errorf("first %q", got)
	}
	a.until(1, func(e events.Frame) bool { // the right one has ended, which is not shown
		return e.Type == events.TypePromptComplete && bytes.Contains(e.Data(), []byte(`"output": "Right"`))
	})
	close(left)
	lines = append(lines, f.lines()...)
	if got := said(t, lines); got != "Left end\n\nRight" {
		t.Errorf("all %q", got)
	}
	if finish := parseChunk(t, lines[len(lines)-2]).Choices[0].Finish; finish != "length" {
		t.Errorf("finish reason %q", finish)
	}
	ex := a.ended(1)
	if string(ex.Inputs) != `{"size": 3, "topic": "rivers"}` || ex.ChainName != "branches" {
		t.Errorf("execution: %+v", ex)
	}
	whole := a.do(ask(hello("chain/branches", ""))).want(http.StatusOK)
	var got struct {
		Choices []struct{ Message struct{ Content string } }
		Usage   map[string]any
	}
	whole.decode(&got)
	if got.Choices[0].Message.Content != "Left\n\nRight" || got.Usage["total_tokens"] != 24.0 {
		t.Errorf("whole: %s", whole.body)
	}
}

// A prompt of the last position that failed, where the chain goes on, is left out;
// when all of them did, so has the answer.
func TestCompletionOfChainThatGoesOn(t *testing.T) {
	t.Parallel()
	s, fake := withFake(t, nil)
	fake.Script("first", llmtest.Text("x"))
	fake.Script("left", llmtest.Status(400))
	fake.Script("right", llmtest.Text("Right"), llmtest.Text("Right"), llmtest.Status(400))
	a := newAPI(t, s)
	a.chain(branches)
	for _, more := range []string{"", `, "stream": true`} {
		if more == "" {
			body := a.do(ask(hello("chain/branches", more))).want(http.StatusOK).body
			if !bytes.Contains(body, []byte(`"content":"Right"`)) {
				t.Errorf("whole: %s", body)
			}
		} else if got := said(t, a.open(ask(hello("chain/branches", more))).lines()); got != "Right" {
			t.Errorf("stream: %q", got)
		}
	}
	a.do(ask(hello("chain/branches", ""))).problem(http.StatusBadRequest, "invalid_request")
}

// Where the inputs of a chain come from.
func TestCompletionInputs(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain(strings.NewReplacer("openai/first", "offline/echo", "openai/left", "offline/echo", "openai/right", "offline/echo").Replace(branches))
	for name, c := range map[string]struct{ message, metadata, inputs, kept string }{
		"text":                  {"rivers", "", `{"size": 3, "topic": "rivers"}`, ""},
		"text in braces":        {"{rivers}", "", `{"size": 3, "topic": "{rivers}"}`, ""},
		"object":                {`{"topic": "a", "size": 4, "tags": ["a"]}`, "", `{"size": 4, "tags": ["a"], "topic": "a"}`, ""},
		"object of other names": {`{"topic": "a", "x": 4}`, "", `{"size": 3, "topic": "{\"topic\": \"a\", \"x\": 4}"}`, ""},
		"inputs as text":        {"Hi", `{"inputs": "{\"topic\": \"a\"}", "customer": "7"}`, `{"size": 3, "topic": "a"}`, `{"customer": "7"}`},
		"inputs as object":      {"Hi", `{"inputs": {"topic": "a"}}`, `{"size": 3, "topic": "a"}`, ""},
		"names":                 {"Hi", `{"topic": "7", "size": "5", "tags": "[\"b\"]", "customer": "7"}`, `{"size": 5, "tags": ["b"], "topic": "7"}`, `{"customer": "7"}`},
		"the rest as text":      {"rivers", `{"size": "5"}`, `{"size": 5, "topic": "rivers"}`, ""},
		"the rest as object":    {`{"topic": "a", "size": 4}`, `{"size": "5"}`, `{"size": 5, "topic": "a"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			body := map[string]any{"model": "chain/branches", "messages": []any{map[string]any{"role": "user", "content": c.message}}}
			if c.metadata != "" {
				body["metadata"] = json.RawMessage(c.metadata)
			}
			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			req, err := httpapi.ReadCompletion(raw, parse(t, branches))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{c.inputs, c.kept}, req); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What is read of any body is either refused or can be passed on; nothing panics.
func FuzzReadCompletion(f *testing.F) {
	f.Add([]byte(hello("offline/echo", `, "tools": [{"type": "function", "function": {"name": "x"}}], "tool_choice": "auto", "stop": ["a"], "n": 1`)))
	f.Add([]byte(`{"model": "a/b", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAH/"}}]}], "metadata": {"inputs": "{\"topic\": \"a\"}"}}`))
	f.Add([]byte(`{"model": "a/b", "messages": [{"role": "user", "content": "{\"topic\": 1}"}], "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}`))
	doc, err := chain.Parse([]byte(branches), chain.FormatYAML)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if httpapi.CheckJSON(body) != nil {
			return
		}
		if got, err := httpapi.ReadCompletion(body, doc); err == nil && !json.Valid([]byte(got[0])) {
			t.Errorf("inputs %s", got[0])
		}
	})
}

func TestOpenAIModels(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain(twoPrompts)
	a.chain(strings.Replace(twoPrompts, "name: two", "name: other", 1))
	list := a.do(call{method: "GET", path: "/v1/models"}).want(http.StatusOK)
	golden(t, "v1/models.json", created.ReplaceAllString(string(list.body), `"created":0`))
	for _, id := range []string{"chain/two", "chain%2Ftwo", "offline/echo"} {
		m := a.do(call{method: "GET", path: "/v1/models/" + id}).want(http.StatusOK).object()
		if want := strings.Replace(id, "%2F", "/", 1); m["id"] != want || m["object"] != "model" {
			t.Errorf("%s: %v", id, m)
		}
	}
	s, _ := withFake(t, nil)
	m := newAPI(t, s).do(call{method: "GET", path: "/v1/models/openai/org/some-model"}).want(http.StatusOK).object()
	if m["id"] != "openai/org/some-model" || m["owned_by"] != "openai" {
		t.Errorf("a model that is in no list: %v", m)
	}
}

func TestEmbeddings(t *testing.T) {
	t.Parallel()
	s, fake := withFake(t, nil)
	a := newAPI(t, s)
	vector := func(text string, n int) (v []float32) {
		for _, x := range llmtest.Embedding(text, n) {
			v = append(v, float32(x))
		}
		return v
	}
	type answer struct {
		Data []struct {
			Index     int
			Embedding json.RawMessage
		}
		Model string
		Usage map[string]int
	}
	embed := func(more string) (got answer) {
		a.do(call{method: "POST", path: "/v1/embeddings", body: `{"model": "openai/org/e", ` + more + `}`}).want(http.StatusOK).decode(&got)
		return got
	}
	got := embed(`"input": ["high tide", "rivers"]`)
	if len(got.Data) != 2 || got.Model != "openai/org/e" || got.Usage["prompt_tokens"] != 3 || got.Usage["total_tokens"] != 3 {
		t.Fatalf("answer: %+v", got)
	}
	for i, text := range []string{"high tide", "rivers"} {
		var v []float32
		if err := json.Unmarshal(got.Data[i].Embedding, &v); err != nil || got.Data[i].Index != i {
			t.Fatalf("vector %d: %v", i, err)
		}
		if diff := cmp.Diff(vector(text, llmtest.Dimensions), v); diff != "" {
			t.Errorf("vector %d (-want +got):\n%s", i, diff)
		}
	}
	var packed string
	if err := json.Unmarshal(embed(`"input": "rivers", "dimensions": 3, "encoding_format": "base64"`).Data[0].Embedding, &packed); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(packed)
	if err != nil || len(raw) != 12 {
		t.Fatalf("%q: %v", packed, err)
	}
	var v []float32
	for i := range 3 {
		v = append(v, math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
	}
	if diff := cmp.Diff(vector("rivers", 3), v); diff != "" {
		t.Errorf("packed (-want +got):\n%s", diff)
	}
	metrics := string(a.do(call{method: "GET", path: "/metrics"}).body)
	for _, want := range []string{`chainstream_embedding_requests_total{provider="openai",result="answered"} 2`, `chainstream_embedding_tokens_total{provider="openai"} 4`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%s is not among the metrics", want)
		}
	}
	fake.Close()
	if fake.Count("") != 0 {
		t.Error("embeddings counted as calls")
	}
}

// A server that stops lets the model finish, and tells who still waits then.
func TestCompletionWhileStopping(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	s, fake := withFake(t, nil)
	fake.Script("m", llmtest.Reply{llmtest.Role(), llmtest.Delta("Once "), llmtest.Gate(gate), llmtest.Delta("more."), llmtest.Finish("stop"), llmtest.Usage(1, 2), llmtest.Done()})
	a := newAPI(t, s)
	f := a.open(ask(hello("openai/m", `, "stream": true`)))
	lines := []string{strings.TrimSpace(f.block()), strings.TrimSpace(f.block())}
	a.server.Drain()
	a.broker.Close()
	a.do(ask(hello("openai/m", ""))).problem(http.StatusServiceUnavailable, "stopping")
	close(gate)
	if lines = append(lines, f.lines()...); said(t, lines) != "Once more." || lines[len(lines)-1] != "data: [DONE]" {
		t.Errorf("the answer ended with %q", lines)
	}

	waiting := newAPI(t, setup{config: func(c *httpapi.Config) { c.Heartbeat = 5 * time.Millisecond }})
	g := waiting.open(ask(hello("offline/echo", `, "stream": true`)))
	g.block()
	answers := make(chan answer, 2)
	for _, key := range []string{"", "k1"} {
		c := ask(hello("offline/echo", ""))
		if key != "" {
			c.header = map[string]string{"Idempotency-Key": key}
		}
		go func() { answers <- waiting.do(c) }()
	}
	for waiting.broker.Subscribers() < 3 {
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("nobody waits")
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- waiting.http.Shutdown(t.Context()) }()
	lines = g.lines()
	if e := parseChunk(t, lines[len(lines)-1]).Error; e == nil || e.Code != "stopping" {
		t.Errorf("a client that waited in the queue was told %q", lines)
	}
	retries := make(map[string]int)
	for range 2 {
		got := <-answers
		got.problem(http.StatusServiceUnavailable, "stopping")
		retries[got.header.Get("X-Should-Retry")]++
	}
	// Without a key it would be another execution beside the one that goes on.
	if diff := cmp.Diff(map[string]int{"true": 1, "false": 1}, retries); diff != "" {
		t.Errorf("retries (-want +got):\n%s", diff)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if ex, err := waiting.store.Execution(t.Context(), 1); err != nil || ex.Status != executor.StatusQueued || ex.CancelRequested {
		t.Errorf("the execution does not go on: %+v, %v", ex, err)
	}
}
