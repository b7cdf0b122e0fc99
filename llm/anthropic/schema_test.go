package anthropic_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/anthropic"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// TestSchemas shows what the API is given to enforce, and which schemas it is not.
func TestSchemas(t *testing.T) {
	t.Parallel()
	object := func(members string) string {
		return `{"type":"object","properties":{"a":` + members + `},"required":["a"],"additionalProperties":false}`
	}
	optional := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `%s"p%d":{"type":"string"}`, strings.Repeat(",", min(i, 1)), i)
		}
		return `{"type":"object","properties":{` + b.String() + `}`
	}
	unions := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `%s"p%d":{"type":["string","null"]}`, strings.Repeat(",", min(i, 1)), i)
		}
		return `{"type":"object","properties":{` + b.String() + `}`
	}
	tests := map[string]struct {
		schema, want string // "" = only asked for in words
	}{
		"closed already": {object(`{"type":"string"}`), object(`{"type":"string"}`)},
		"open":           {`{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"integer"}},"additionalProperties":true}},"required":["a"]}`, object(`{"type":"object","properties":{"b":{"type":"integer"}},"additionalProperties":false}`)},
		"what it has no word for": {
			object(`{"type":"integer","minimum":1,"maximum":5,"description":"Stars."}`),
			object(`{"type":"integer","description":"Stars.\n\n{minimum: 1, maximum: 5}"}`),
		},
		"and no description": {object(`{"type":"array","items":{"type":"string"},"minItems":3}`), object(`{"type":"array","items":{"type":"string"},"description":"{minItems: 3}"}`)},
		"what it enforces":   {object(`{"type":"array","minItems":1,"items":{"type":"string","format":"date","pattern":"^2"}}`), object(`{"type":"array","minItems":1,"items":{"type":"string","format":"date","pattern":"^2"}}`)},
		"unknown format":     {object(`{"type":"string","format":"isbn"}`), object(`{"type":"string","description":"{format: \"isbn\"}"}`)},
		"notes":              {`{"$schema":"https://json-schema.org/draft/2020-12/schema","$comment":"x","title":"T",` + object(`{"enum":["x","y"],"default":"x","examples":["y"]}`)[1:], `{"title":"T",` + object(`{"enum":["x","y"]}`)[1:]},
		"alternatives":       {object(`{"oneOf":[{"type":"string"},{"const":7}]}`), object(`{"anyOf":[{"type":"string"},{"const":7}]}`)},
		"definitions": {
			`{"type":"object","properties":{"a":{"$ref":"#/$defs/n","description":"x"}},"$defs":{"n":{"type":"object","properties":{"b":{"$ref":"#/$defs/m"}}},"m":{"type":"string"}}}`,
			`{"type":"object","properties":{"a":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"object","properties":{"b":{"$ref":"#/$defs/m"}},"additionalProperties":false},"m":{"type":"string"}},"additionalProperties":false}`,
		},
		"24 that may be absent": {optional(24) + `}`, optional(24) + `,"additionalProperties":false}`},
		"16 that may be null":   {unions(16) + `}`, unions(16) + `,"additionalProperties":false}`},

		"25 that may be absent": {optional(25) + `}`, ""},
		"17 that may be null":   {unions(17) + `}`, ""},
		"list":                  {`{"type":"array","items":{"type":"string"}}`, ""},
		"anything":              {`{}`, ""},
		"true":                  {`true`, ""},
		"any object":            {`{"type":"object"}`, ""},
		"any object within":     {object(`{"type":"object","properties":{}}`), ""},
		"any object or null":    {object(`{"type":["object","null"]}`), ""},
		"free keys":             {object(`{"type":"object","additionalProperties":{"type":"string"}}`), ""},
		"free keys beside":      {object(`{"type":"object","properties":{"x":{"type":"string"}},"additionalProperties":{"type":"string"}}`), ""},
		"any list":              {object(`{"type":"array"}`), ""},
		"any value":             {object(`{"description":"anything"}`), ""},
		"any value, by true":    {object(`true`), ""},
		"parts put together":    {object(`{"allOf":[{"type":"object","properties":{"x":{"type":"string"}}},{"type":"object","properties":{"y":{"type":"string"}}}]}`), ""},
		"alternative parts":     {object(`{"type":"object","properties":{"x":{"type":"string"}},"anyOf":[{"type":"object","properties":{"y":{"type":"string"}}}]}`), ""},
		"two alternatives":      {object(`{"oneOf":[{"type":"string"}],"anyOf":[{"type":"string"}]}`), ""},
		"required by surprise":  {`{"type":"object","properties":{"a":{"type":"string"}},"required":["b"]}`, ""},
		"recursion":             {`{"type":"object","properties":{"a":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"object","properties":{"b":{"$ref":"#/$defs/m"}}},"m":{"type":"array","items":{"$ref":"#/$defs/n"}}}}`, ""},
		"recursion to the root": {object(`{"$ref":"#"}`), ""},
		"elsewhere":             {object(`{"$ref":"https://schemas.example/x"}`), ""},
		"deep":                  {strings.Repeat(`{"type":"object","properties":{"a":`, 40) + `{"type":"string"}` + strings.Repeat(`}}`, 40), ""},
		"odd members":           {object(`{"type":7}`), ""},
		"odd properties":        {`{"type":"object","properties":[1]}`, ""},
		"odd requirements":      {`{"type":"object","properties":{"a":{"type":"string"}},"required":"a"}`, ""},
		"odd alternatives":      {object(`{"anyOf":{"type":"string"}}`), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Script("claude-opus-5", llmtest.Text("{}"))
			req := request("claude-opus-5")
			req.Schema = json.RawMessage(tt.schema)
			if r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), req); r.Err != nil {
				t.Fatal(r.Err)
			}
			var body struct {
				System       []struct{ Text string }
				OutputConfig struct {
					Format struct{ Schema json.RawMessage }
				} `json:"output_config"`
			}
			call := fake.Calls()[0]
			if err := json.Unmarshal(call.Body, &body); err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if len(body.System) != 1 || !strings.HasSuffix(body.System[0].Text, tt.schema) || body.OutputConfig.Format.Schema != nil {
					t.Errorf("body %s", call.Body)
				}
				return
			}
			if body.System != nil || body.OutputConfig.Format.Schema == nil {
				t.Fatalf("body %s", call.Body)
			}
			sameJSON(t, tt.want, body.OutputConfig.Format.Schema)
		})
	}
}

// TestModels shows how names of models are read, by what differs between them.
func TestModels(t *testing.T) {
	t.Parallel()
	type takes struct {
		limit                       int
		schema, temperature, adapts bool
	}
	var (
		oldest = takes{4096, false, true, false}
		old    = takes{8192, false, true, false}
		long   = takes{32000, false, true, false}
		native = takes{32000, true, true, false}
		adapts = takes{32000, true, true, true}
		newest = takes{32000, true, false, true}
	)
	tests := map[string]takes{
		"claude-2.1": oldest, "claude-instant-1.2": oldest, "claude-3-opus-20240229": oldest,
		"claude-3-5-sonnet-20241022": old, "claude-3-5-haiku-latest": old, "kimi-k2": old, "deepseek-chat": old,
		"claude-3-7-sonnet-20250219": long, "claude-sonnet-4-20250514": long, "claude-opus-4-1": long, "us.anthropic.claude-opus-4-1-20250805-v1:0": long,
		"claude-haiku-4-5": native, "claude-sonnet-4-5-20250929": native, "anthropic/claude-opus-4.5": native,
		"claude-opus-4-6": adapts, "claude-sonnet-4-6@20260217": adapts,
		"claude-opus-4-7": newest, "claude-opus-4-10": newest, "claude-sonnet-5": newest, "claude-haiku-5-5": newest, "claude-mythos-preview": newest, "Claude-Opus-12": newest,
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := llmtest.NewServer(t)
			fake.Otherwise(llmtest.Echo)
			req := request(name)
			req.Schema = json.RawMessage(`{"type":"object","properties":{"a":{"type":"string"}}}`)
			req.Temperature = new(float64)
			if r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), req); r.Err != nil {
				t.Fatal(r.Err)
			}
			req.Effort = "low"
			if r := llmtest.Collect(t.Context(), t, provider(t, fake.Root), req); r.Err != nil {
				t.Fatal(r.Err)
			}
			calls := fake.Calls()
			first := calls[0].Request
			got := takes{first.MaxTokens, first.Schema != nil, first.Temperature != nil, calls[1].Request.Effort != ""}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// FuzzSchema shows that whatever the schema is, it is sent in one of the ways, and
// that what is to be enforced is closed.
func FuzzSchema(f *testing.F) {
	f.Add(`{"type":"object","properties":{"a":{"type":"string"}}}`, true)
	f.Add(`{"type":"object","properties":{"a":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":["object","null"],"properties":{"b":{"anyOf":[{"type":"string"}]}}}}}`, true)
	f.Add(`[{"a":1}]`, false)
	f.Fuzz(func(t *testing.T, schema string, modern bool) {
		var body []byte
		p := provider(t, "http://fuzz.invalid", func(c *anthropic.Config) {
			c.Client = &http.Client{Transport: recordTransport{&body, bodyTransport(start + stop)}}
		})
		model := "m"
		if modern {
			model = "claude-opus-5"
		}
		req := request(model)
		req.Schema = json.RawMessage(schema)
		r := llmtest.Collect(t.Context(), t, p, req)
		if r.Err == nil && !json.Valid(body) {
			t.Errorf("sent %s", body)
		}
		if e, ok := r.Err.(*llm.Error); ok && e.Code != llm.CodeInvalidRequest { //nolint:errorlint // Collect has seen that it is one
			t.Error(e)
		}
		var sent struct {
			OutputConfig struct {
				Format struct{ Schema any }
			} `json:"output_config"`
		}
		if json.Unmarshal(body, &sent) == nil {
			closed(t, sent.OutputConfig.Format.Schema)
		}
	})
}

// closed looks for objects with properties that take others.
func closed(t *testing.T, schema any) {
	switch v := schema.(type) {
	case []any:
		for _, in := range v {
			closed(t, in)
		}
	case map[string]any:
		if v["type"] == "object" && v["enum"] == nil && v["const"] == nil && v["additionalProperties"] != false {
			if _, free := v["properties"].(map[string]any); free {
				t.Errorf("an open object: %v", v)
			}
		}
		for name, in := range v {
			if name != "enum" && name != "const" {
				closed(t, in)
			}
		}
	}
}

// recordTransport keeps the body of the request.
type recordTransport struct {
	body *[]byte
	bodyTransport
}

func (r recordTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	var err error
	if *r.body, err = io.ReadAll(req.Body); err != nil {
		return nil, err
	}
	return r.bodyTransport.RoundTrip(req)
}
