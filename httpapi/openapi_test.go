package httpapi_test

import (
	"bytes"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/chainstream/chainstream/httpapi"
)

// contract is the API description that every answer of every test is held
// against.
type contract struct {
	doc      map[string]any
	compiler *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema
}

const contractURL = "http://localhost/openapi.json"

// description is read once; tests run in parallel.
var description = sync.OnceValues(func() (*contract, error) {
	raw, err := httpapi.OpenAPI("test")
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	c := &contract{compiler: jsonschema.NewCompiler(), schemas: make(map[string]*jsonschema.Schema)}
	c.doc, _ = doc.(map[string]any)
	c.compiler.AssertFormat()
	return c, c.compiler.AddResource(contractURL, doc)
})

func describe(t *testing.T) *contract {
	t.Helper()
	c, err := description()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// at walks the description; nil when the path leads nowhere.
func (c *contract) at(path ...string) map[string]any {
	var v any = c.doc
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	m, _ := v.(map[string]any)
	return m
}

var escape = strings.NewReplacer("~", "~0", "/", "~1")

// schema compiles the schema at a path of the description.
func (c *contract) schema(path ...string) (*jsonschema.Schema, error) {
	pointer := ""
	for _, p := range path {
		pointer += "/" + url.PathEscape(escape.Replace(p))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.schemas[pointer]; s != nil {
		return s, nil
	}
	s, err := c.compiler.Compile(contractURL + "#" + pointer)
	if err == nil {
		c.schemas[pointer] = s
	}
	return s, err
}

var parameterName = regexp.MustCompile(`\{[^}]+\}`)

// match finds the path of the description that a request path belongs to.
func (c *contract) match(path string) string {
	if c.at("paths", path) != nil {
		return path
	}
	if strings.HasPrefix(path, "/v1/models/") {
		return "/v1/models/{id}" // whose ids have slashes
	}
	for p := range c.at("paths") {
		if regexp.MustCompile("^" + parameterName.ReplaceAllString(p, "[^/]+") + "$").MatchString(path) {
			return p
		}
	}
	return ""
}

// checkAnswer fails the test when an answer is not as the description says.
func checkAnswer(t *testing.T, method, path string, got answer) {
	t.Helper()
	c := describe(t)
	media, _, _ := mime.ParseMediaType(got.header.Get("Content-Type"))
	var wanted, failure string
	if got.status >= 400 {
		wanted, failure = "application/problem+json", "Problem"
		if strings.HasPrefix(path, "/v1/") {
			wanted, failure = "application/json", "OpenAIError"
		}
		if media != wanted {
			t.Errorf("%s %s: status %d is %q, not %s: %s", method, path, got.status, media, wanted, got.body)
		}
	}
	if method == http.MethodHead {
		if len(got.body) > 0 {
			t.Errorf("HEAD %s has a body", path)
		}
		return
	}
	at := c.match(path)
	op := []string{"paths", at, strings.ToLower(method)}
	if at == "" || c.at(op...) == nil {
		op = []string{"components"} // no route: the problem alone is checked
	}
	var where []string
	switch status := strconv.Itoa(got.status); {
	case got.status >= 400:
		where = []string{"components", "responses", failure}
	case c.at(append(slices.Clone(op), "responses", status)...) != nil:
		where = append(slices.Clone(op), "responses", status)
	case got.status == http.StatusNotModified || method == http.MethodOptions || at == "":
		return
	default:
		t.Errorf("%s %s: status %d is not described", method, path, got.status)
		return
	}
	if c.at(where...)["content"] == nil {
		if len(got.body) > 0 {
			t.Errorf("%s %s: a body with status %d is not described", method, path, got.status)
		}
		return
	}
	where = append(where, "content", media)
	if c.at(where...) == nil {
		t.Errorf("%s %s: %q with status %d is not described", method, path, media, got.status)
		return
	}
	if !strings.HasSuffix(media, "json") || media == "application/x-ndjson" {
		return
	}
	s, err := c.schema(append(where, "schema")...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(got.body))
	if err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, got.body)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%s %s: the answer is not as described: %v\n%s", method, path, err, got.body)
	}
}

func TestDescriptionListsExactlyTheRoutes(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	routes, err := httpapi.Routes(a.server)
	if err != nil {
		t.Fatal(err)
	}
	var served, heads, gets []string
	echoName := regexp.MustCompile(`:([A-Za-z]+)`)
	for _, r := range routes {
		path := echoName.ReplaceAllString(r.Path, "{$1}")
		path = strings.Replace(path, "/*", "/{id}", 1) // an id with slashes
		switch r.Method {
		case http.MethodHead:
			heads = append(heads, path)
			continue
		case http.MethodGet:
			gets = append(gets, path)
		}
		served = append(served, r.Method+" "+path)
	}
	var described []string
	c := describe(t)
	for path := range c.at("paths") {
		for _, method := range []string{"get", "put", "post", "delete", "patch", "head", "options"} {
			if c.at("paths", path, method) != nil {
				described = append(described, strings.ToUpper(method)+" "+path)
			}
		}
	}
	for _, list := range [][]string{served, described, heads, gets} {
		slices.Sort(list)
	}
	if diff := cmp.Diff(described, served); diff != "" {
		t.Errorf("described and served routes differ (-described +served):\n%s", diff)
	}
	if diff := cmp.Diff(gets, heads); diff != "" {
		t.Errorf("GET and HEAD differ:\n%s", diff)
	}
}

func TestDescriptionIsConsistent(t *testing.T) {
	t.Parallel()
	c := describe(t)
	ids := make(map[any]string)
	for path := range c.at("paths") {
		item := c.at("paths", path)
		for _, method := range slices.Sorted(maps.Keys(item)) {
			op := c.at("paths", path, method)
			if method == "parameters" {
				continue
			}
			if other, twice := ids[op["operationId"]]; twice {
				t.Errorf("%s %s and %s share an operationId", method, path, other)
			}
			ids[op["operationId"]] = method + " " + path
			if op["summary"] == nil || op["tags"] == nil {
				t.Errorf("%s %s has no summary or no tags", method, path)
			}
			named := fieldNames(c, path, method)
			for _, m := range parameterName.FindAllString(path, -1) {
				if !slices.Contains(named, strings.Trim(m, "{}")) {
					t.Errorf("%s %s does not describe the parameter %s", method, path, m)
				}
			}
		}
	}
	for name := range c.at("components", "schemas") {
		if _, err := c.schema("components", "schemas", name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	refs := regexp.MustCompile(`"\$ref": ?"#/([^"]+)"`)
	raw, err := httpapi.OpenAPI("test")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range refs.FindAllStringSubmatch(string(raw), -1) {
		if c.at(strings.Split(m[1], "/")...) == nil {
			t.Errorf("reference to nothing: %s", m[1])
		}
	}
}

// fieldNames answers the names of the path parameters of an operation.
func fieldNames(c *contract, path, method string) []string {
	var names []string
	for _, list := range []any{c.at("paths", path)["parameters"], c.at("paths", path, method)["parameters"]} {
		items, _ := list.([]any)
		for _, item := range items {
			p, _ := item.(map[string]any)
			if ref, ok := p["$ref"].(string); ok {
				p = c.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			}
			if name, ok := p["name"].(string); ok && p["in"] == "path" {
				names = append(names, name)
			}
		}
	}
	return names
}

func TestExamplesOfTheDescription(t *testing.T) {
	t.Parallel()
	c := describe(t)
	checked := 0
	var walk func(v any, path []string)
	walk = func(v any, path []string) {
		m, ok := v.(map[string]any)
		if !ok {
			return
		}
		example, has := m["example"]
		if _, object := example.(map[string]any); has && object && m["schema"] != nil {
			s, err := c.schema(append(slices.Clone(path), "schema")...)
			if err != nil {
				t.Fatal(err)
			}
			checked++
			if err := s.Validate(example); err != nil {
				t.Errorf("%s: %v", strings.Join(path, "/"), err)
			}
		}
		for k, child := range m {
			walk(child, append(slices.Clone(path), k))
		}
	}
	walk(c.doc, nil)
	if checked < 4 {
		t.Errorf("only %d examples were found", checked)
	}
}

func TestDocumentation(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	got := a.do(call{method: "GET", path: "/docs"}).want(http.StatusOK)
	c := describe(t)
	for path := range c.at("paths") {
		if !strings.Contains(string(got.body), "<code>"+path+"</code>") {
			t.Errorf("the page does not show %s", path)
		}
	}
	for _, foreign := range []string{"<script", "src=", "@import", "http://", "https://"} {
		if strings.Contains(string(got.body), foreign) {
			t.Errorf("the page contains %q", foreign)
		}
	}
	policy := got.header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") {
		t.Errorf("policy %q", policy)
	}
	if !strings.Contains(string(got.body), `id="problem-execution_not_found"`) {
		t.Error("the page does not list the problems that the type of a problem leads to")
	}
	doc := a.do(call{method: "GET", path: "/openapi.json"}).want(http.StatusOK).object()
	if info, _ := doc["info"].(map[string]any); info["version"] != "test" || doc["openapi"] != "3.1.0" {
		t.Errorf("openapi %v, info %v", doc["openapi"], doc["info"])
	}
}
