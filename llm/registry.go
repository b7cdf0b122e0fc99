package llm

import (
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
	// Info is what is known of models, by their name without prefix; others have
	// the zero Info.
	Info map[string]Info
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
}

// Registry finds providers by the first part of a model id. It does not change
// after NewRegistry and is safe for concurrent use.
type Registry struct {
	entries map[string]Entry
}

// NewRegistry returns a registry of the given providers, keyed by the prefix of
// their model ids.
func NewRegistry(entries map[string]Entry) *Registry {
	return &Registry{entries: maps.Clone(entries)}
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
	return Target{ID: id, Vendor: vendor, Model: model, Provider: entry.Provider, Info: entry.Info[model]}, nil
}

// Info returns what is known of a model; the zero Info when nothing is.
func (r *Registry) Info(id string) Info {
	entry, model, err := r.find(id)
	if err != nil {
		return Info{}
	}
	return entry.Info[model]
}

// Check reports whether a chain may name this model: ErrModelID,
// ErrUnknownProvider or ErrUnknownModel when not. A provider that is merely not
// configured passes, because a chain may be written before its key is there;
// Resolve tells at the call.
func (r *Registry) Check(id string) error {
	_, _, err := r.find(id)
	return err
}

// Demo reports whether the answers of this model have to be labelled as a demo.
func (r *Registry) Demo(id string) bool {
	entry, _, err := r.find(id)
	return err == nil && entry.Demo
}

// Models lists the well-known models of all providers, sorted by id.
func (r *Registry) Models() []Model {
	var list []Model
	for name, entry := range r.entries {
		for _, model := range entry.Models {
			list = append(list, Model{
				ID:         name + "/" + model,
				Provider:   name,
				Label:      entry.Label,
				Demo:       entry.Demo,
				Configured: entry.Provider != nil,
			})
		}
	}
	slices.SortFunc(list, func(a, b Model) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func (r *Registry) find(id string) (Entry, string, error) {
	provider, model, err := SplitModelID(id)
	if err != nil {
		return Entry{}, "", err
	}
	entry, ok := r.entries[provider]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(r.entries)), ", ")
		return Entry{}, "", fmt.Errorf("%w: %q (known: %s)", ErrUnknownProvider, provider, known)
	}
	if entry.Fixed && !slices.Contains(entry.Models, model) {
		return Entry{}, "", fmt.Errorf("%w: %q (known: %s)", ErrUnknownModel, id, strings.Join(entry.Models, ", "))
	}
	return entry, model, nil
}
