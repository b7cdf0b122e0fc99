package llm

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Listed is a model that a provider says it has.
type Listed struct {
	Model string // without our prefix
	Info  Info   // as far as the provider tells
	// Embeds says that the model makes vectors instead of answering prompts, of
	// Dimensions numbers where that is known.
	Embeds     bool
	Dimensions int
}

// How local servers are asked.
const (
	lookEvery   = 30 * time.Second       // after which what is known is old
	lookTimeout = 500 * time.Millisecond // for a local server to answer
	listTimeout = 10 * time.Second       // for any other, in Refresh
)

// listing is an entry and what its provider was last seen to have.
type listing struct {
	Entry
	mu     sync.Mutex
	asking bool
	last   sight
}

// sight is an answer to List.
type sight struct {
	at     time.Time // zero = never asked
	models []Listed
	err    error
}

func (s sight) has(model string) bool {
	return slices.ContainsFunc(s.models, func(l Listed) bool { return l.Model == model })
}

// looks are the questions under way in the background.
type looks struct {
	mu     sync.Mutex
	closed bool
	group  sync.WaitGroup
}

// asked tells whether the provider is asked without being told to.
func (e *listing) asked() bool { return e.Local && e.List != nil }

// info answers what is known of a model. What the catalogue and the operator say
// goes before what the provider says.
func (e *listing) info(model string, seen sight) Info {
	info, known := e.Info[model]
	if !known && e.Lookup != nil {
		info = e.Lookup(model)
	}
	for _, l := range seen.models {
		if l.Model == model {
			return info.or(l.Info)
		}
	}
	return info
}

// or fills what is unknown.
func (i Info) or(other Info) Info {
	if i.ContextWindow == 0 {
		i.ContextWindow = other.ContextWindow
	}
	if i.MaxOutput == 0 {
		i.MaxOutput = other.MaxOutput
	}
	if !i.Vision && !i.Tools && !i.Schema && !i.Reasoning {
		i.Vision, i.Tools, i.Schema, i.Reasoning = other.Vision, other.Tools, other.Schema, other.Reasoning
	}
	if len(i.Prices) == 0 {
		i.Prices = other.Prices
	}
	if i.Count == nil {
		i.Count = other.Count
	}
	return i
}

// Detect asks the local servers in the background, as every use of the registry
// does when what is known is old. It returns at once.
func (r *Registry) Detect() {
	for _, e := range r.entries {
		r.look(e)
	}
}

// Close waits for the questions under way, which takes moments, and lets no more
// begin. What is known stays readable.
func (r *Registry) Close() {
	r.looks.mu.Lock()
	r.looks.closed = true
	r.looks.mu.Unlock()
	r.looks.group.Wait()
}

// look answers what was last seen of a provider, at once. If it is a local server
// and that is a while ago, it is asked again in the background.
func (r *Registry) look(e *listing) sight {
	if e.List == nil {
		return sight{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Local && !e.asking && (e.last.at.IsZero() || time.Since(e.last.at) >= lookEvery) {
		r.looks.mu.Lock()
		if !r.looks.closed {
			e.asking = true
			r.looks.group.Go(func() { e.ask(context.Background(), lookTimeout) })
		}
		r.looks.mu.Unlock()
	}
	return e.last
}

// ask asks the provider and notes the answer.
func (e *listing) ask(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	models, err := e.List(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asking = false
	e.last = sight{at: time.Now(), models: models, err: err}
}

// Refresh asks the local servers, and with remote every other provider that is
// configured and can be asked, and waits for the answers: half a second for a
// local server, ten seconds for another.
func (r *Registry) Refresh(ctx context.Context, remote bool) {
	var group sync.WaitGroup
	for _, e := range r.entries {
		switch {
		case e.List == nil || e.Provider == nil:
		case e.Local:
			group.Go(func() { e.ask(ctx, lookTimeout) })
		case remote:
			group.Go(func() { e.ask(ctx, listTimeout) })
		}
	}
	group.Wait()
}

// ProviderState is what is known of a provider.
type ProviderState struct {
	Name       string // the first part of its model ids
	Label      string
	Demo       bool
	Configured bool
	Local      bool // a server that is looked for
	// Checked is when the provider was last asked for its models, zero when it
	// was not.
	Checked time.Time
	// Available tells that it can be called, as far as is known: it is
	// configured and, where it is looked for, was found.
	Available bool
	// Note says what to do about a provider that is not available, or that could
	// not be asked; empty when there is nothing to say.
	Note string
}

// Providers answers the state of every provider, sorted by name. Like Models it
// answers at once.
func (r *Registry) Providers() []ProviderState {
	states := make([]ProviderState, 0, len(r.entries))
	for name, e := range r.entries {
		seen := r.look(e)
		s := ProviderState{
			Name: name, Label: e.Label, Demo: e.Demo, Configured: e.Provider != nil, Local: e.asked(), Checked: seen.at,
			Available: e.Provider != nil && (!e.asked() || !seen.at.IsZero() && seen.err == nil),
		}
		switch {
		case !s.Configured && e.Env != "":
			s.Note = "set " + e.Env + " to use " + e.Label
		case seen.err != nil && e.Remedy != "":
			s.Note = e.Remedy
		case seen.err != nil:
			s.Note = "its models could not be listed: " + Redact(seen.err.Error())
		case s.Local && seen.at.IsZero():
			s.Note = "being looked for"
		}
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b ProviderState) int { return strings.Compare(a.Name, b.Name) })
	return states
}
