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
	chat := make([]bool, len(models))
	var group sync.WaitGroup
	turn := make(chan struct{}, atOnce)
	for i := range models {
		group.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			models[i].Info, chat[i] = s.describe(ctx, root, models[i].Model)
			// What has no other tag is called without one.
			models[i].Model = strings.TrimSuffix(models[i].Model, ":latest")
		})
	}
	group.Wait()
	var kept []llm.Listed
	for i, m := range models {
		if chat[i] {
			kept = append(kept, m)
		}
	}
	return kept, nil
}

// describe asks Ollama about a model, and tells whether it can chat.
func (s Server) describe(ctx context.Context, root, model string) (info llm.Info, chat bool) {
	body, err := json.Marshal(map[string]string{"model": model})
	if err != nil {
		return llm.Info{}, true
	}
	var answer struct {
		ModelInfo    map[string]json.RawMessage `json:"model_info"`
		Capabilities []string                   `json:"capabilities"`
	}
	if err := s.call(ctx, http.MethodPost, root+"/show", s.bearer(), strings.NewReader(string(body)), &answer); err != nil {
		return llm.Info{}, true
	}
	for name, value := range answer.ModelInfo {
		var n int64
		// The name starts with that of the architecture.
		if strings.HasSuffix(name, ".context_length") && json.Unmarshal(value, &n) == nil {
			info.ContextWindow = count(n)
		}
	}
	can := func(what string) bool { return slices.Contains(answer.Capabilities, what) }
	info.Vision, info.Tools, info.Reasoning = can("vision"), can("tools"), can("thinking")
	// Ollama holds any model to a schema.
	info.Schema = true
	return info, len(answer.Capabilities) == 0 || can("completion")
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
		if m.Type == "embeddings" {
			continue
		}
		window := count(m.Loaded)
		if window == 0 {
			window = count(m.MaxContext)
		}
		models = append(models, llm.Listed{Model: m.ID, Info: llm.Info{
			ContextWindow: window, Vision: m.Type == "vlm", Tools: slices.Contains(m.Capabilities, "tool_use"), Schema: true,
		}})
	}
	return names(models), nil
}
