// Package listing asks model providers which models they have: local servers
// for what was downloaded to them, vendors for what a key may use. Nothing here
// calls a model. Every function gives up when its context ends.
package listing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/chainstream/chainstream/llm"
)

// Server is a provider that can be asked.
type Server struct {
	// Address is where its API for chat is, up to and including the version, such
	// as http://127.0.0.1:11434/v1. Anthropic's and Gemini's may lack that.
	Address string
	Key     string // empty when it needs none
	Client  *http.Client
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 8 << 20

// StatusError is the HTTP status of an answer that is no success.
type StatusError int

// Error names the status.
func (e StatusError) Error() string { return fmt.Sprintf("it answered with status %d", int(e)) }

// call makes one request and reads the JSON of the answer.
func (s Server) call(ctx context.Context, method, address string, header map[string]string, body io.Reader, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return errors.New("the address cannot be read") // the error would quote it, and it may hold a password
	}
	for name, value := range header {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		if inner := (*url.Error)(nil); errors.As(err, &inner) {
			err = inner.Err // without the address
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return StatusError(resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(v); err != nil {
		return fmt.Errorf("the answer is no list of models: %w", err)
	}
	return nil
}

// names bounds what is listed of a server, and leaves out what is no name.
func names(models []llm.Listed) []llm.Listed {
	const most = 1000
	kept := models[:0]
	for _, m := range models {
		m.Model = strings.ToValidUTF8(m.Model, "\uFFFD")
		if _, _, err := llm.SplitModelID("x/" + m.Model); err == nil && len(m.Model) <= 256 && len(kept) < most {
			kept = append(kept, m)
		}
	}
	return kept
}

// bearer is the header of OpenAI's API.
func (s Server) bearer() map[string]string {
	if s.Key == "" {
		return nil
	}
	return map[string]string{"Authorization": "Bearer " + s.Key}
}

// OpenAI lists the models of a server with OpenAI's API, which of them make vectors
// by their name. Those that are known from it to do something else than that and to
// chat are left out.
func (s Server) OpenAI(ctx context.Context) ([]llm.Listed, error) {
	var answer struct {
		Data []struct {
			ID          string `json:"id"`
			MaxModelLen int64  `json:"max_model_len"` // vLLM's
		} `json:"data"`
	}
	if err := s.call(ctx, http.MethodGet, s.Address+"/models", s.bearer(), http.NoBody, &answer); err != nil {
		return nil, err
	}
	var models []llm.Listed
	for _, m := range answer.Data {
		if embeds := embeds(m.ID); embeds || chats(m.ID) {
			models = append(models, llm.Listed{Model: m.ID, Embeds: embeds, Info: llm.Info{ContextWindow: count(m.MaxModelLen)}})
		}
	}
	return names(models), nil
}

// chats tells whether a model may answer text with text, by its name.
func chats(model string) bool {
	for _, other := range []string{
		"embed", "whisper", "tts", "dall-e", "moderation", "-image", "image-", "sora", "realtime", "transcribe", "audio", "davinci", "babbage", "instruct-0914",
	} {
		if strings.Contains(strings.ToLower(model), other) {
			return false
		}
	}
	return true
}

// embeds tells whether a model makes vectors, by its name.
func embeds(model string) bool { return strings.Contains(strings.ToLower(model), "embed") }

// Anthropic lists the models that Anthropic offers to the key.
func (s Server) Anthropic(ctx context.Context) ([]llm.Listed, error) {
	var answer struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	header := map[string]string{"X-Api-Key": s.Key, "Anthropic-Version": "2023-06-01"}
	if err := s.call(ctx, http.MethodGet, strings.TrimSuffix(s.Address, "/v1")+"/v1/models?limit=1000", header, http.NoBody, &answer); err != nil {
		return nil, err
	}
	var models []llm.Listed
	for _, m := range answer.Data {
		models = append(models, llm.Listed{Model: m.ID})
	}
	return names(models), nil
}

// Gemini lists the models that Google offers to the key.
func (s Server) Gemini(ctx context.Context) ([]llm.Listed, error) {
	var answer struct {
		Models []struct {
			Name             string   `json:"name"`
			InputTokenLimit  int64    `json:"inputTokenLimit"`
			OutputTokenLimit int64    `json:"outputTokenLimit"`
			Methods          []string `json:"supportedGenerationMethods"`
		} `json:"models"`
	}
	address := strings.TrimSuffix(s.Address, "/openai")
	if !strings.HasSuffix(address, "/v1beta") && !strings.HasSuffix(address, "/v1") {
		address += "/v1beta"
	}
	if err := s.call(ctx, http.MethodGet, address+"/models?pageSize=1000", map[string]string{"X-Goog-Api-Key": s.Key}, http.NoBody, &answer); err != nil {
		return nil, err
	}
	var models []llm.Listed
	for _, m := range answer.Models {
		listed := llm.Listed{Model: strings.TrimPrefix(m.Name, "models/"), Info: llm.Info{ContextWindow: count(m.InputTokenLimit)}}
		switch {
		case slices.Contains(m.Methods, "generateContent") && chats(m.Name):
			listed.Info.MaxOutput = count(m.OutputTokenLimit)
			models = append(models, listed)
		case slices.Contains(m.Methods, "embedContent"):
			listed.Embeds = true
			models = append(models, listed)
		}
	}
	return names(models), nil
}

// count is a number of tokens as a server reports it; what cannot be true is
// unknown.
func count(n int64) int64 {
	if n < 0 || n > llm.MaxTokenCount {
		return 0
	}
	return n
}
