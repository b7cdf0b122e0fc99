package listing

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/chainstream/chainstream/llm"
)

// atOnce is how many models are looked at at the same time.
const atOnce = 4

// Ollama lists the models that were pulled, with the limits and abilities that
// Ollama knows of them. A model that it does not describe in time is listed
// without. The window is the largest that the model has; Ollama runs it with a
// smaller one unless its num_ctx says otherwise.
func (s Server) Ollama(ctx context.Context) ([]llm.Listed, error) {
	root := strings.TrimSuffix(s.Address, "/v1") + "/api"
	var answer struct {
		Models []struct {
			Name string `json:"name"`
		} `json:"models"`
	}
	if err := s.call(ctx, http.MethodGet, root+"/tags", s.bearer(), http.NoBody, &answer); err != nil {
		return nil, err
	}
	var models []llm.Listed
	for _, m := range answer.Models {
		models = append(models, llm.Listed{Model: m.Name})
	}
	models = names(models)
	chats := make([]bool, len(models))
	var group sync.WaitGroup
	turn := make(chan struct{}, atOnce)
	for i := range models {
		group.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			chats[i] = s.describe(ctx, root, &models[i])
			// What has no other tag is called without one.
			models[i].Model = strings.TrimSuffix(models[i].Model, ":latest")
		})
	}
	group.Wait()
	var kept []llm.Listed
	for i, m := range models {
		if chats[i] || m.Embeds {
			kept = append(kept, m)
		}
	}
	return kept, nil
}

// describe asks Ollama about a model, and tells whether it can chat.
func (s Server) describe(ctx context.Context, root string, m *llm.Listed) (chat bool) {
	body, err := json.Marshal(map[string]string{"model": m.Model})
	if err != nil {
		return true
	}
	var answer struct {
		ModelInfo    map[string]json.RawMessage `json:"model_info"`
		Capabilities []string                   `json:"capabilities"`
	}
	if err := s.call(ctx, http.MethodPost, root+"/show", s.bearer(), strings.NewReader(string(body)), &answer); err != nil {
		return true
	}
	can := func(what string) bool { return slices.Contains(answer.Capabilities, what) }
	m.Embeds = can("embedding") && !can("completion")
	for name, value := range answer.ModelInfo {
		var n int64
		if json.Unmarshal(value, &n) != nil {
			continue
		}
		// The name starts with that of the architecture.
		switch {
		case strings.HasSuffix(name, ".context_length"):
			m.Info.ContextWindow = count(n)
		case strings.HasSuffix(name, ".embedding_length") && m.Embeds:
			m.Dimensions = int(count(n))
		}
	}
	m.Info.Vision, m.Info.Tools, m.Info.Reasoning = can("vision"), can("tools"), can("thinking")
	// Ollama holds any model to a schema.
	m.Info.Schema = !m.Embeds
	return len(answer.Capabilities) == 0 || can("completion")
}

// LMStudio lists the models that were downloaded, by LM Studio's own API, which
// tells more, or else by that of OpenAI.
func (s Server) LMStudio(ctx context.Context) ([]llm.Listed, error) {
	var answer struct {
		Data []struct {
			ID           string   `json:"id"`
			Type         string   `json:"type"`
			MaxContext   int64    `json:"max_context_length"`
			Loaded       int64    `json:"loaded_context_length"`
			Capabilities []string `json:"capabilities"`
		} `json:"data"`
	}
	err := s.call(ctx, http.MethodGet, strings.TrimSuffix(s.Address, "/v1")+"/api/v0/models", s.bearer(), http.NoBody, &answer)
	if status := StatusError(0); errors.As(err, &status) {
		return s.OpenAI(ctx)
	}
	if err != nil {
		return nil, err
	}
	var models []llm.Listed
	for _, m := range answer.Data {
		window := count(m.Loaded)
		if window == 0 {
			window = count(m.MaxContext)
		}
		if m.Type == "embeddings" {
			models = append(models, llm.Listed{Model: m.ID, Embeds: true, Info: llm.Info{ContextWindow: window}})
			continue
		}
		models = append(models, llm.Listed{Model: m.ID, Info: llm.Info{
			ContextWindow: window, Vision: m.Type == "vlm", Tools: slices.Contains(m.Capabilities, "tool_use"), Schema: true,
		}})
	}
	return names(models), nil
}
