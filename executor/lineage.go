package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
)

// Origin says how an execution came from another one.
type Origin string

// The origins of executions that have a parent.
const (
	OriginRetry Origin = "retry" // the same again, without what had succeeded
	OriginFork  Origin = "fork"  // from a prompt on, possibly with other inputs, another version or model
)

// Lineage says which execution another one came from and what it takes over.
type Lineage struct {
	Parent     int64 // 0 = it came from none
	Origin     Origin
	FromPrompt string            // slug of the first prompt that a fork runs again; "" = all
	Reuse      []int64           // ids of the prompts whose results are taken over
	Models     map[string]string // by slug: what stands in for the models of the chain
}

// Derivation is the wish to run an execution again, in part or with changes. A
// retry has only the first fields and Metadata, Limits and Key.
type Derivation struct {
	Parent     int64
	Origin     Origin
	FromPrompt string                     // id, slug or name; "" = nothing is taken over
	Inputs     map[string]json.RawMessage // win over those of the parent
	Version    int                        // of the parent's chain; 0 = the parent's own
	Model      string                     // of all prompts that run; "" = as the chain says
	Models     map[string]string          // by slug; wins over Model
	Metadata   json.RawMessage            // nil = the parent's
	Limits     chain.Limits               // zero fields = as the parent was given them
	Cache      *CacheMode                 // nil = the parent's
	Key        IdempotencyKey
}

// Codes of problems with a Derivation.
const (
	codeUnknownPrompt  = "unknown_prompt"
	codeUnknownVersion = "unknown_version"
	codeUnknownModel   = "unknown_model"
)

// Derive answers the trigger that a derivation means. Everything that is wrong
// with its fields is answered at once as chain.Problems with pointers into a
// request of its form. Other errors: ErrNotFound, ErrRunning, ErrCompleted for
// the retry of what has completed, and ErrResultsGone.
func (e *Executor) Derive(ctx context.Context, d Derivation) (Trigger, error) {
	parent, err := e.store.Execution(ctx, d.Parent)
	if err != nil {
		return Trigger{}, err
	}
	switch {
	case !parent.Status.Final():
		return Trigger{}, fmt.Errorf("%s of execution %d, which is %s: %w", d.Origin, parent.ID, parent.Status, ErrRunning)
	case d.Origin == OriginRetry && parent.Status == StatusCompleted:
		return Trigger{}, fmt.Errorf("retry of execution %d: %w", parent.ID, ErrCompleted)
	}
	pinned, err := e.definitions.load(ctx, e.store, parent.ChainID, parent.ChainVersion)
	if err != nil {
		return Trigger{}, err
	}
	var call json.RawMessage
	if parent.ChainID == DirectChain {
		if call, err = e.store.Call(ctx, parent.ID); err != nil {
			return Trigger{}, err
		}
	}
	t := Trigger{Version: pinned, Call: call, Metadata: d.Metadata, Limits: d.Limits, Priority: parent.Priority, Cache: parent.CacheMode, Key: d.Key}
	t.Parent, t.Origin = parent.ID, d.Origin
	if d.Cache != nil {
		t.Cache = *d.Cache
	}
	if t.Metadata == nil {
		t.Metadata = parent.Metadata
	}
	inherit(&t.Limits, parent.Limits, pinned.Chain.Limits)
	var results map[int64]events.PromptState
	if d.Origin == OriginRetry || d.FromPrompt != "" {
		if results, err = e.results(ctx, parent); err != nil {
			return Trigger{}, err
		}
	}
	if d.Origin == OriginRetry {
		t.Models = parent.Models
		for _, id := range pinned.PromptIDs {
			if _, ok := results[id]; ok {
				t.Reuse = append(t.Reuse, id)
			}
		}
		t.Inputs, err = storedInputs(parent.Inputs)
		return t, err
	}
	return t, e.fork(ctx, &t, d, parent, results)
}

// inherit lets the caller's limits of the parent stand where none are given. The
// chain's own come from the version that runs.
func inherit(given *chain.Limits, parent, own chain.Limits) {
	if given.Timeout == 0 && parent.Timeout != own.Timeout {
		given.Timeout = parent.Timeout
	}
	if given.MaxCostUSD == "" && parent.MaxCostUSD != own.MaxCostUSD {
		given.MaxCostUSD = parent.MaxCostUSD
	}
	if given.MaxTokens == 0 && parent.MaxTokens != own.MaxTokens {
		given.MaxTokens = parent.MaxTokens
	}
}

// fork fills in what only a fork may change.
func (e *Executor) fork(ctx context.Context, t *Trigger, d Derivation, parent Execution, results map[int64]events.PromptState) error {
	var problems chain.Problems
	add := func(pointer, code, format string, args ...any) {
		problems = append(problems, chain.Problem{Pointer: pointer, Code: code, Detail: fmt.Sprintf(format, args...)})
	}
	known := true
	if d.Version != 0 && d.Version != parent.ChainVersion {
		v, err := e.definitions.load(ctx, e.store, parent.ChainID, d.Version)
		switch {
		case errors.Is(err, chain.ErrNotFound):
			known = false // the other fields are about a version that is not there
			add("/version", codeUnknownVersion, "The chain of execution %d has no version %d.", parent.ID, d.Version)
		case err != nil:
			return err
		default:
			t.Version = v
		}
	}
	c := t.Version.Chain
	first := -1
	if known && d.FromPrompt != "" {
		if first = findPrompt(t.Version, d.FromPrompt); first < 0 {
			add("/fromPrompt", codeUnknownPrompt, "Version %d of the chain has no prompt with this id, slug or name. It has: %s.", t.Version.Version, slugs(c))
		} else {
			t.FromPrompt = c.Prompts[first].Slug
		}
	}
	if first >= 0 {
		for i, id := range t.Version.PromptIDs {
			// Siblings do not know of each other, so one that is finished stays.
			if _, ok := results[id]; ok && i != first && c.Prompts[i].Position <= c.Prompts[first].Position {
				t.Reuse = append(t.Reuse, id)
			}
		}
	}
	if d.Model != "" {
		if err := e.models.Check(d.Model); err != nil {
			add("/model", codeUnknownModel, "%s.", err)
		}
	}
	t.Models = models(t, d, parent.Models)
	for _, slug := range slices.Sorted(maps.Keys(d.Models)) {
		pointer := "/model/" + pointerEscaper.Replace(slug)
		at := slices.IndexFunc(c.Prompts, func(p chain.Prompt) bool { return p.Slug == slug })
		if known && at < 0 {
			add(pointer, codeUnknownPrompt, "Version %d of the chain has no prompt with this slug. It has: %s.", t.Version.Version, slugs(c))
		} else if known && slices.Contains(t.Reuse, t.Version.PromptIDs[at]) {
			add(pointer, chain.CodeInvalid, "The prompt %s is not run again, so it needs no model.", slug)
		} else if err := e.models.Check(d.Models[slug]); err != nil {
			add(pointer, codeUnknownModel, "%s.", err)
		}
	}
	if known {
		var err error
		t.Inputs, err = mergedInputs(c, parent.Inputs, d.Inputs)
		if list, ok := errors.AsType[chain.Problems](err); ok {
			problems = append(problems, list...)
		} else if err != nil {
			return err
		}
	}
	return problems.Err()
}

// models answers the models of a fork by slug: those of the parent, then one for
// all prompts that run, then single ones.
func models(t *Trigger, d Derivation, parent map[string]string) map[string]string {
	out := make(map[string]string)
	for i, id := range t.Version.PromptIDs {
		slug := t.Version.Chain.Prompts[i].Slug
		if m, ok := parent[slug]; ok {
			out[slug] = m
		}
		if d.Model != "" && !slices.Contains(t.Reuse, id) {
			out[slug] = d.Model
		}
		if m, ok := d.Models[slug]; ok {
			out[slug] = m
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// findPrompt answers the index of the prompt with an id, a slug or a name; -1
// when there is none. A slug may look like an id and wins.
func findPrompt(v *chain.Version, name string) int {
	at := slices.IndexFunc(v.Chain.Prompts, func(p chain.Prompt) bool { return p.Slug == name || p.Name == name })
	if id, err := strconv.ParseInt(name, 10, 64); at < 0 && err == nil {
		at = slices.Index(v.PromptIDs, id)
	}
	return at
}

func slugs(c *chain.Chain) string {
	names := make([]string, len(c.Prompts))
	for i, p := range c.Prompts {
		names[i] = p.Slug
	}
	const most = 20
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return strings.Join(names, ", ")
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

// storedInputs reads inputs that were checked before.
func storedInputs(raw json.RawMessage) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var inputs map[string]any
	if err := dec.Decode(&inputs); err != nil {
		return nil, fmt.Errorf("read the inputs of the parent: %w", err)
	}
	return inputs, nil
}

// mergedInputs lays new inputs over those of the parent and checks them all. What
// the parent was given and the chain does not take any more is left out.
func mergedInputs(c *chain.Chain, parent json.RawMessage, given map[string]json.RawMessage) (map[string]any, error) {
	merged := make(map[string]json.RawMessage)
	if err := json.Unmarshal(parent, &merged); err != nil {
		return nil, fmt.Errorf("read the inputs of the parent: %w", err)
	}
	for name := range merged {
		if !slices.ContainsFunc(c.Inputs, func(in chain.Input) bool { return in.Name == name }) {
			delete(merged, name)
		}
	}
	maps.Copy(merged, given)
	return c.CheckInputs(merged)
}

// results answers the completed prompts of an execution by id. What it was to
// take over itself but did not get to, because it was stopped before, is found
// with its own parent.
func (e *Executor) results(ctx context.Context, ex Execution) (map[int64]events.PromptState, error) {
	all, err := e.store.PromptStates(ctx, ex.ID)
	if err != nil {
		return nil, err
	}
	states := all[ex.ID]
	spent := ex.Status == StatusCompleted || ex.InputTokens+ex.OutputTokens > 0 || ex.ErrorPrompt != 0
	if len(states) == 0 && spent {
		return nil, fmt.Errorf("results of execution %d: %w", ex.ID, ErrResultsGone)
	}
	out := make(map[int64]events.PromptState)
	for _, s := range states {
		if s.Status != promptCompleted {
			continue
		}
		if s.Reused == nil { // else it leads to the execution that really paid
			s.Reused = &events.Reused{ExecutionID: ex.ID, InputTokens: s.InputTokens, OutputTokens: s.OutputTokens, CostUSD: s.CostUSD}
		}
		out[s.PromptID] = s
	}
	if !slices.ContainsFunc(ex.Reuse, func(id int64) bool { _, ok := out[id]; return !ok }) {
		return out, nil
	}
	parent, err := e.store.Execution(ctx, ex.Parent)
	if err == nil {
		var older map[int64]events.PromptState
		if older, err = e.results(ctx, parent); err == nil {
			for _, id := range ex.Reuse {
				if s, ok := older[id]; ok {
					out[id] = s
				}
			}
		}
	}
	if errors.Is(err, ErrNotFound) {
		err = ErrResultsGone
	}
	return out, err
}

// reuse takes over the results that the execution begins with, all of them in
// one append: after a crash either none of them is there or all are.
func (r *run) reuse() error {
	missing := slices.DeleteFunc(slices.Clone(r.ex.Reuse), func(id int64) bool {
		_, done := r.states[slices.Index(r.version.PromptIDs, id)]
		return done
	})
	if len(missing) == 0 {
		return nil
	}
	results, err := r.e.results(r.hold, r.ex)
	if err != nil && !errors.Is(err, ErrResultsGone) {
		return err
	}
	if slices.ContainsFunc(missing, func(id int64) bool { _, ok := results[id]; return !ok }) {
		return &failure{code: codeReuseGone, message: fmt.Sprintf("The results that execution %d was to hand over have been erased.", r.ex.Parent)}
	}
	var batch events.Batch
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, group := range r.version.Chain.Plan() {
		for _, i := range group {
			if !slices.Contains(missing, r.version.PromptIDs[i]) {
				continue
			}
			s := r.reused(i, results[r.version.PromptIDs[i]])
			r.states[i] = s
			r.finished++
			batch.Prompts = append(batch.Prompts, s)
			stream := r.stream(group, i)
			for _, payload := range r.reusedEvents(i, s) {
				batch.Events = append(batch.Events, events.Draft{Stream: stream, Payload: payload})
			}
			batch.Events = append(batch.Events, r.progress("Reused", s.Name))
		}
	}
	batch.Outcome.Progressed = true
	r.writer.Append(batch)
	return nil
}

// reused is the state of a prompt whose result is taken over.
func (r *run) reused(i int, from events.PromptState) events.PromptState {
	p := &r.version.Chain.Prompts[i]
	now, none, free := r.e.cfg.Now(), int64(0), "0"
	return events.PromptState{
		PromptID: from.PromptID, Ordinal: i, Name: p.Name, Position: p.Position, Status: promptCompleted, Attempt: 1,
		ModelID: from.ModelID, UserMessage: from.UserMessage, Output: from.Output, FinishReason: from.FinishReason, ToolCalls: from.ToolCalls,
		CostUSD: &free, DurationMS: &none, FinishedAt: &now, Reused: from.Reused,
	}
}

// reusedEvents tell of such a prompt what a reader needs to show it.
func (r *run) reusedEvents(i int, s events.PromptState) []events.Payload {
	p := &r.version.Chain.Prompts[i]
	from := events.ReusedFrom(*s.Reused)
	payloads := []events.Payload{events.PromptStart{
		PromptID: s.PromptID, PromptName: s.Name, Position: s.Position, TotalPrompts: r.ex.TotalPrompts, ModelID: s.ModelID,
		HasKnowledge: p.Knowledge != nil, HasTools: len(p.Tools) > 0, Attempt: s.Attempt, ReusedFrom: &from,
	}}
	shown := cutBytes(s.Output, maxOutputBytes)
	if len(shown) < len(s.Output) { // prompt-complete cannot hold it, so it comes as if it were said again
		for rest, offset := s.Output, int64(0); rest != ""; {
			piece := cutBytes(rest, maxDeltaBytes)
			payloads = append(payloads, events.PromptDelta{PromptID: s.PromptID, Attempt: s.Attempt, Text: piece, Offset: offset})
			offset += int64(utf8.RuneCountInString(piece))
			rest = rest[len(piece):]
		}
	}
	return append(payloads, events.PromptComplete{
		PromptID: s.PromptID, Output: shown, Truncated: len(shown) < len(s.Output), CostUSD: s.CostUSD, ModelID: s.ModelID,
		FinishReason: s.FinishReason, Attempt: s.Attempt, ToolCalls: s.ToolCalls, ReusedFrom: &from,
	})
}

// withModels answers a version whose prompts name other models, by slug.
func withModels(v *chain.Version, models map[string]string) *chain.Version {
	if len(models) == 0 {
		return v
	}
	changed := *v
	changed.Chain = v.Chain.WithModels(models)
	return &changed
}
