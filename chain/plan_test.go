package chain_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
)

const planDocument = `
name: plan
prompts:
  - {name: D, position: 30, model: offline/echo, content: d, history: full}
  - {name: A, position: 2, model: offline/echo, content: a, history: full}
  - {name: C, position: 30, model: offline/echo, content: c, history: "last:1"}
  - {name: B, position: 2, model: offline/echo, content: b}
  - {name: E, position: 31, model: offline/echo, content: e, history: full}
  - {name: F, position: 31, model: offline/echo, content: f, history: "last:3"}
`

func TestPlan(t *testing.T) {
	t.Parallel()
	c := mustParse(t, planDocument)
	if diff := cmp.Diff([][]int{{1, 3}, {0, 2}, {4, 5}}, c.Plan()); diff != "" {
		t.Errorf("Plan (-want +got):\n%s", diff)
	}
	var positions []int
	for _, p := range c.Prompts {
		positions = append(positions, p.Position)
	}
	if diff := cmp.Diff([]int{2, 1, 2, 1, 3, 3}, positions); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
	if got := (&chain.Chain{}).Plan(); got != nil {
		t.Errorf("Plan of nothing = %v", got)
	}
}

// TestHistory finishes the prompts in every order: the history is the same each time.
func TestHistory(t *testing.T) {
	t.Parallel()
	c := mustParse(t, planDocument)
	want := map[int]string{0: "A B", 1: "", 2: "B", 3: "", 4: "A B D C", 5: "B D C"}
	order := []int{0, 1, 2, 3, 4, 5}
	for range 200 {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		turns := make(map[int]chain.Turn)
		for _, i := range order {
			turns[i] = chain.Turn{User: c.Prompts[i].Content, Assistant: c.Prompts[i].Name}
		}
		for i := range c.Prompts {
			if got := names(c.History(i, turns)); got != want[i] {
				t.Fatalf("History(%d) after %v = %q, want %q", i, order, got, want[i])
			}
		}
	}
}

func TestHistoryLeavesOutFailed(t *testing.T) {
	t.Parallel()
	c := mustParse(t, planDocument)
	turns := map[int]chain.Turn{1: {Assistant: "A"}, 2: {Assistant: "C"}}
	for i, want := range map[int]string{0: "A", 2: "A", 4: "A C", 5: "A C"} {
		if got := names(c.History(i, turns)); got != want {
			t.Errorf("History(%d) = %q, want %q", i, got, want)
		}
	}
}

func names(turns []chain.Turn) string {
	s := ""
	for i, turn := range turns {
		if i > 0 {
			s += " "
		}
		s += turn.Assistant
	}
	return s
}

func TestSlug(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Outline": "outline", "Draft A": "draft-a", "  --Draft__B!! ": "draft-b", "Résumé 2": "r-sum-2",
		"": "", "要約": "", "-": "", "a": "a", "GPT 4.1": "gpt-4-1",
	} {
		if got := chain.Slug(name); got != want {
			t.Errorf("Slug(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestRefs(t *testing.T) {
	t.Parallel()
	c, err := chain.Parse(read(t, "testdata/valid/everything.json"), chain.FormatJSON)
	if err != nil {
		t.Fatal(err)
	}
	wantModels := []chain.Ref{
		{Pointer: "/prompts/0/model", ID: "openai/gpt-4.1-mini"}, {Pointer: "/prompts/0/fallback/0", ID: "ollama/llama3.2:1b"},
		{Pointer: "/prompts/0/fallback/1", ID: "openai/o3"}, {Pointer: "/prompts/1/model", ID: "offline/echo"},
		{Pointer: "/prompts/2/model", ID: "offline/echo"},
	}
	if diff := cmp.Diff(wantModels, c.Models()); diff != "" {
		t.Errorf("Models (-want +got):\n%s", diff)
	}
	wantTools := []chain.Ref{{Pointer: "/prompts/0/tools/0", ID: "calculator"}, {Pointer: "/prompts/0/tools/1", ID: "web/search"}}
	if diff := cmp.Diff(wantTools, c.Tools()); diff != "" {
		t.Errorf("Tools (-want +got):\n%s", diff)
	}
	wantRepositories := []chain.RepositoryRef{
		{Pointer: "/prompts/0/knowledge/repositories/0", ID: 3}, {Pointer: "/prompts/0/knowledge/repositories/1", ID: 1},
	}
	if diff := cmp.Diff(wantRepositories, c.Repositories()); diff != "" {
		t.Errorf("Repositories (-want +got):\n%s", diff)
	}
	if got := fmt.Sprint(c.Prompts[1].Slug, c.Prompts[1].History); got != "prompt-2last:1" {
		t.Errorf("slug and history = %s", got)
	}
}
