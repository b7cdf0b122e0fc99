package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
)

func TestChainLifecycle(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	created := a.do(call{method: "POST", path: "/api/v1/chains", media: "application/yaml", body: twoPrompts}).want(http.StatusCreated)
	m := created.object()
	if created.header.Get("Location") != fmt.Sprintf("/api/v1/chains/%v", m["id"]) || m["version"] != 1.0 || m["newestVersion"] != 1.0 {
		t.Errorf("answer %v", m)
	}
	prompts, _ := m["prompts"].([]any)
	first, _ := prompts[0].(map[string]any)
	if first["slug"] != "outline" || first["id"] == nil || first["content"] != "Outline ${topic}" {
		t.Errorf("prompt %v", first)
	}
	for _, path := range []string{"/api/v1/chains/two", fmt.Sprintf("/api/v1/chains/%v", m["id"]), "/api/v1/chains/two?version=1", "/api/v1/chains/t%77o"} {
		if diff := cmp.Diff(m, a.do(call{method: "GET", path: path}).want(http.StatusOK).object()); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}

	second := a.do(call{method: "PUT", path: "/api/v1/chains/two", media: "application/yaml", body: strings.Replace(twoPrompts, "Expand", "Shorten", 1)}).want(http.StatusOK).object()
	if second["version"] != 2.0 || second["id"] != m["id"] {
		t.Errorf("answer %v", second)
	}
	old := a.do(call{method: "GET", path: "/api/v1/chains/two?version=1"}).object()
	if old["newestVersion"] != 2.0 || old["version"] != 1.0 {
		t.Errorf("answer %v", old)
	}
	versions := a.do(call{method: "GET", path: "/api/v1/chains/two/versions?limit=1"}).want(http.StatusOK).object()
	if next := versions["nextCursor"]; next != "2" {
		t.Errorf("next cursor %v", next)
	}
	rest := a.do(call{method: "GET", path: "/api/v1/chains/two/versions?cursor=2"}).want(http.StatusOK).object()
	if items, _ := rest["items"].([]any); len(items) != 1 {
		t.Errorf("versions %v", rest)
	}

	a.chain(strings.Replace(twoPrompts, "name: two", "name: other", 1))
	list := a.do(call{method: "GET", path: "/api/v1/chains?limit=1"}).want(http.StatusOK).object()
	items, _ := list["items"].([]any)
	if e, _ := items[0].(map[string]any); len(items) != 1 || e["name"] != "two" || e["version"] != 2.0 || e["promptCount"] != 2.0 || list["nextCursor"] == nil {
		t.Errorf("list %v", list)
	}

	id := a.queue()
	a.do(call{method: "DELETE", path: "/api/v1/chains/two"}).want(http.StatusNoContent)
	a.do(call{method: "GET", path: "/api/v1/chains/two"}).problem(http.StatusNotFound, "chain_not_found")
	// Executions outlive their chain.
	ex := a.do(call{method: "GET", path: fmt.Sprintf("/api/v1/executions/%d", id)}).want(http.StatusOK).object()
	if prompts, _ := ex["prompts"].([]any); len(prompts) != 2 {
		t.Errorf("execution %v", ex)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain(twoPrompts)
	m := a.do(call{method: "POST", path: "/api/v1/chains/validate", media: "text/yaml; charset=utf-8", body: twoPrompts}).want(http.StatusOK).object()
	if doc, _ := m["chain"].(map[string]any); m["valid"] != true || doc["name"] != "two" {
		t.Errorf("answer %v", m)
	}
	p := a.do(call{method: "POST", path: "/api/v1/chains/validate", media: "application/yaml", body: "name: X y\nprompts:\n  - {name: A, model: none, content: \"${b}\"}\n"}).problem(http.StatusUnprocessableEntity, "invalid_chain")
	if len(p.Errors) < 3 {
		t.Errorf("not all problems at once: %+v", p)
	}
}

func TestExport(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain(twoPrompts)
	want := string(parse(t, twoPrompts).JSON())
	for format, f := range map[string]chain.Format{"yaml": chain.FormatYAML, "json": chain.FormatJSON} {
		got := a.do(call{method: "GET", path: "/api/v1/chains/two/export?format=" + format}).want(http.StatusOK)
		again, err := chain.Parse(got.body, f)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(again.JSON())); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
		if got.header.Get("Content-Disposition") != `attachment; filename="two.`+format+`"` {
			t.Errorf("%s: %v", format, got.header)
		}
	}
	got := a.do(call{method: "GET", path: "/api/v1/chains/two/export?format=assistants"}).want(http.StatusOK)
	if m := got.object(); m["version"] != "1.0" || got.header.Get("Export-Changes") == "" {
		t.Errorf("answer %v, changes %q", m, got.header.Get("Export-Changes"))
	}
	yaml := a.do(call{method: "GET", path: "/api/v1/chains/two/export"}).want(http.StatusOK)
	if media := yaml.header.Get("Content-Type"); media != "application/yaml" {
		t.Errorf("media type %q", media)
	}
}

type imported struct {
	Items []struct {
		Pointer, Name, Result, Chain string
		ID, Version                  int
		Changes, Errors              []map[string]any
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	a := newAPI(t, setup{})
	a.chain(twoPrompts)
	assistants := string(a.do(call{method: "GET", path: "/api/v1/chains/two/export?format=assistants"}).want(http.StatusOK).body)

	var got imported
	a.do(call{method: "POST", path: "/api/v1/chains/import", body: assistants}).want(http.StatusOK).decode(&got)
	if len(got.Items) != 1 || got.Items[0].Result != "refused" || got.Items[0].Errors[0]["code"] != "chain_exists" {
		t.Errorf("a name that exists: %+v", got)
	}
	got = imported{}
	a.do(call{method: "POST", path: "/api/v1/chains/import?replace=true", body: assistants}).want(http.StatusOK).decode(&got)
	if e := got.Items[0]; e.Result != "updated" || e.Version != 2 || e.Chain != "two" || e.Pointer != "/assistants/0" {
		t.Errorf("replaced: %+v", got)
	}
	got = imported{}
	a.do(call{method: "POST", path: "/api/v1/chains/import", media: "application/yaml", body: strings.Replace(twoPrompts, "name: two", "name: native", 1)}).want(http.StatusOK).decode(&got)
	if e := got.Items[0]; e.Result != "created" || e.Version != 1 || e.Chain != "native" {
		t.Errorf("native: %+v", got)
	}

	// One entry that is refused does not keep the others out.
	mixed := `{"version":"1.0","assistants":[
		{"name":"Good One","prompts":[{"name":"P","content":"Hello","model_name":"offline/echo","position":0}]},
		{"name":"Bad One","prompts":[]},
		{"name":"Foreign","prompts":[{"name":"P","content":"Hello","model_name":"nobody/x","position":0}]},
		{"name":"Last One","prompts":[{"name":"P","content":"Bye","model_name":"offline/echo","position":0}]}]}`
	got = imported{}
	a.do(call{method: "POST", path: "/api/v1/chains/import", body: mixed}).want(http.StatusOK).decode(&got)
	var results []string
	for _, e := range got.Items {
		results = append(results, e.Name+" "+e.Result)
		if (e.Result == "refused") != (len(e.Errors) > 0) {
			t.Errorf("entry %+v", e)
		}
	}
	if diff := cmp.Diff([]string{"Good One created", "Bad One refused", "Foreign refused", "Last One created"}, results); diff != "" {
		t.Error(diff)
	}
	a.do(call{method: "GET", path: "/api/v1/chains/last-one"}).want(http.StatusOK)
}
