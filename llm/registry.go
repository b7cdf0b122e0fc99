package llm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Errors of Registry. They carry the offending name in their text.
var (
	// ErrModelID reports a model id that is not of the form provider/model.
	ErrModelID = errors.New("model id is not of the form provider/model")
	// ErrUnknownProvider reports a provider that does not exist.
	ErrUnknownProvider = errors.New("unknown model provider")
	// ErrUnknownModel reports a model that a provider with a fixed list lacks.
	ErrUnknownModel = errors.New("unknown model")
	// ErrEmbeddingModel reports a model for prompts that makes vectors.
	ErrEmbeddingModel = errors.New("the model makes vectors and answers no prompts")
	// ErrNotConfigured reports a provider that exists but was not set up; the
	// text names the environment variable that sets it up.
	ErrNotConfigured = errors.New("model provider is not configured")
)

// Entry is one provider of a Registry.
type Entry struct {
	// Provider answers the calls; nil means that the provider is known but not
	// configured.
	Provider Provider
	// Label is the name for people, such as "OpenAI".
	Label string
	// Env is the environment variable that configures the provider.
	Env string
	// Demo marks answers that come from no real model and have to be labelled
	// wherever they show.
	Demo bool
	// Models lists well-known models for choosing from, without prefix.
	Models []string
	// Embeddings are the embedding models that people may choose from. They can be
	// resolved, and no prompt may name one. FindEmbedding is asked for the others,
	// nil knows none.
	Embeddings    []EmbeddingModel
	FindEmbedding func(model string) (EmbeddingModel, bool)
	// Info is what is known of models, by their name without prefix; Lookup is
	// asked for the others, and nil knows none.
	Info   map[string]Info
	Lookup func(model string) Info
	// List asks the provider which models it has, nil when it cannot be asked.
	List func(ctx context.Context) ([]Listed, error)
	// Local marks a server that may be asked at any time, because asking costs
	// nothing and reaches nobody else. It is asked in the background; a provider
	// that is not local is asked by Refresh alone.
	Local bool
	// Remedy says what helps when a local server does not answer.
	Remedy string
	// Fixed says that Models is complete: any other model is an error. Otherwise
	// the provider itself decides at the call.
	Fixed bool
}

// Target is a model that can be called.
type Target struct {
	ID       string // provider/model
	Vendor   string // the first part of ID
	Model    string // as the provider knows it
	Provider Provider
	Info     Info
}

// Model is one line of the list a user may choose from.
type Model struct {
	ID         string // provider/model
	Provider   string
	Label      string // of the provider
	Demo       bool
	Configured bool
	// Available tells that a call can be made, as far as is known without one:
	// the provider is configured and, where it is a local server, runs and has the
	// model.
	Available bool
	Info      Info
}

// Registry finds providers by the first part of a model id. Its providers do not
// change after NewRegistry; what is known of local servers does, in the
// background. It is safe for concurrent use.
type Registry struct {
	entries map[string]*listing
	looks   looks
}

// NewRegistry returns a registry of the given providers, keyed by the prefix of
// their model ids. It asks nobody yet; Close it where an Entry is Local.
func NewRegistry(entries map[string]Entry) *Registry {
	r := &Registry{entries: make(map[string]*listing, len(entries))}
	for name, e := range entries {
		r.entries[name] = &listing{Entry: e}
	}
	return r
}

// SplitModelID splits "provider/model" at the first slash; the model may contain
// more of them. It returns ErrModelID when either part is missing or has spaces
// around it.
func SplitModelID(id string) (provider, model string, err error) {
	provider, model, ok := strings.Cut(id, "/")
	if !ok || provider == "" || model == "" || strings.TrimSpace(provider) != provider || strings.TrimSpace(model) != model {
		return "", "", fmt.Errorf("%w: %q", ErrModelID, id)
	}
	return provider, model, nil
}

// Resolve returns how to call a model. Errors: ErrModelID, ErrUnknownProvider,
// ErrUnknownModel, ErrNotConfigured.
func (r *Registry) Resolve(id string) (Target, error) {
	entry, model, err := r.find(id)
	if errors.Is(err, ErrUnknownModel) {
		if _, embeds := entry.embedding(model, sight{}); embeds {
			err = nil
		}
	}
	if err != nil {
		return Target{}, err
	}
	if entry.Provider == nil {
		if entry.Env == "" {
			return Target{}, fmt.Errorf("%w: %q", ErrNotConfigured, id)
		}
		return Target{}, fmt.Errorf("%w: %q needs the environment variable %s", ErrNotConfigured, id, entry.Env)
	}
	vendor, _, _ := strings.Cut(id, "/")
	return Target{ID: id, Vendor: vendor, Model: model, Provider: entry.Provider, Info: r.info(entry, model)}, nil
}

// Info returns what is known of a model; the zero Info when nothing is.
func (r *Registry) Info(id string) Info {
	entry, model, err := r.find(id)
	if err != nil {
		return Info{}
	}
	return r.info(entry, model)
}

// Check reports whether a chain may name this model: ErrModelID,
// ErrUnknownProvider, ErrUnknownModel or ErrEmbeddingModel when not. A provider
// that is merely not configured passes, because a chain may be written before its
// key is there; Resolve tells at the call.
func (r *Registry) Check(id string) error {
	entry, model, err := r.find(id)
	if err == nil {
		if _, embeds := entry.embedding(model, r.look(entry)); embeds {
			err = fmt.Errorf("%w: %q", ErrEmbeddingModel, id)
		}
	}
	return err
}

// Models lists the well-known models of all providers, and what they were seen
// to have, sorted by id. It answers at once; local servers that were last asked
// a while ago are asked again in the background.
func (r *Registry) Models() []Model {
	var models []Model
	for name, e := range r.entries {
		seen := r.look(e)
		names := slices.Clone(e.Models)
		for _, l := range seen.models {
			if _, embeds := e.embedding(l.Model, seen); !embeds {
				names = append(names, l.Model)
			}
		}
		slices.Sort(names)
		for _, model := range slices.Compact(names) {
			models = append(models, Model{
				ID: name + "/" + model, Provider: name, Label: e.Label, Demo: e.Demo, Configured: e.Provider != nil,
				Available: e.Provider != nil && (!e.asked() || seen.has(model)), Info: e.info(model, seen),
			})
		}
	}
	slices.SortFunc(models, func(a, b Model) int { return strings.Compare(a.ID, b.ID) })
	return models
}

// info answers what is known of a model of the entry.
func (r *Registry) info(e *listing, model string) Info { return e.info(model, r.look(e)) }

// find answers the entry of a model, with ErrUnknownModel also.
func (r *Registry) find(id string) (*listing, string, error) {
	provider, model, err := SplitModelID(id)
	if err != nil {
		return nil, "", err
	}
	entry, ok := r.entries[provider]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(r.entries)), ", ")
		return nil, "", fmt.Errorf("%w: %q (known: %s)", ErrUnknownProvider, provider, known)
	}
	if entry.Fixed && !slices.Contains(entry.Models, model) {
		return entry, model, fmt.Errorf("%w: %q (known: %s)", ErrUnknownModel, id, strings.Join(entry.Models, ", "))
	}
	return entry, model, nil
}
