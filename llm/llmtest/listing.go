package llmtest

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// models returns the scripted models in order.
func (f *Fake) models() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.scripts))
}

// serveList answers a list of models in the format that the path, or else a
// header, belongs to. It reports whether the path is one of these.
func (f *Fake) serveList(w http.ResponseWriter, r *http.Request) bool {
	var answer object
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/api/version"):
		answer = object{"version": "0.12.3"}
	case strings.HasSuffix(path, "/api/tags"):
		answer = ollamaModels(f.models())
	case strings.HasSuffix(path, "/v1beta/models"):
		answer = geminiModels(f.models())
	case strings.HasSuffix(path, "/models") && r.Header.Get("Anthropic-Version") != "":
		answer = anthropicModels(f.models())
	case strings.HasSuffix(path, "/models"):
		answer = openAIModels(f.models())
	default:
		return false
	}
	writeBody(w, http.StatusOK, encode(answer))
	return true
}

func openAIModels(names []string) object {
	list := make([]object, 0, len(names))
	for _, name := range names {
		list = append(list, object{"id": name, "object": "model", "created": 1700000000, "owned_by": "llmtest"})
	}
	return object{"object": "list", "data": list}
}

func anthropicModels(names []string) object {
	list := make([]object, 0, len(names))
	for _, name := range names {
		list = append(list, object{"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"})
	}
	answer := object{"data": list, "has_more": false, "first_id": nil, "last_id": nil}
	if len(names) > 0 {
		answer["first_id"], answer["last_id"] = names[0], names[len(names)-1]
	}
	return answer
}

func geminiModels(names []string) object {
	list := make([]object, 0, len(names))
	for _, name := range names {
		list = append(list, object{
			"name": "models/" + name, "displayName": name, "inputTokenLimit": 1 << 20, "outputTokenLimit": 1 << 16,
			"supportedGenerationMethods": []string{"generateContent", "countTokens"},
		})
	}
	return object{"models": list}
}

func ollamaModels(names []string) object {
	list := make([]object, 0, len(names))
	for _, name := range names {
		list = append(list, object{
			"name": name, "model": name, "modified_at": "2026-01-01T00:00:00Z", "size": 1 << 30, "digest": "fa4e",
			"details": object{"format": "gguf", "family": "fake", "parameter_size": "1B", "quantization_level": "Q4_0"},
		})
	}
	return object{"models": list}
}
