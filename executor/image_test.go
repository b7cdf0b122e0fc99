package executor_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

const pictures = `
name: pictures
inputs:
  photo: {type: file, required: true}
  sketch: {type: file}
prompts:
  - {name: Look, position: 1, model: test/m, content: "What is ${photo.name}?", system: Be brief, images: [photo, sketch], cache: 1h}
  - {name: Think, position: 2, model: test/n, content: "More of ${look}", history: full}
`

// picture is the value of an input that is an image with these last bytes.
func picture(name, data string) json.RawMessage {
	return fmt.Appendf(nil, `{"name":%q,"base64":%q}`, name, base64.StdEncoding.EncodeToString([]byte("\x89PNG\r\n\x1a\n"+data)))
}

// triggerWith queues an execution with inputs of any type.
func (h *harness) triggerWith(v *chain.Version, inputs map[string]json.RawMessage) executor.Execution {
	h.t.Helper()
	checked, err := v.Chain.CheckInputs(inputs)
	if err != nil {
		h.t.Fatal(err)
	}
	ex, _, err := h.exec.Trigger(h.t.Context(), executor.Trigger{Version: v, Inputs: checked})
	if err != nil {
		h.t.Fatal(err)
	}
	return ex
}

// An image reaches the provider with the prompt's own message and no other. The
// events name it and hold none of its bytes; retries, forks and the cache know it.
func TestImagesReachTheProvider(t *testing.T) {
	t.Parallel()
	p := &oneChunk{answer: func(_ context.Context, req llm.Request) (llm.Chunk, error) {
		if req.Model == "n" {
			return llm.Chunk{}, llm.NewError(llm.CodeUnauthorized, nil)
		}
		return llm.Chunk{Text: "a cat", FinishReason: llm.FinishStop, Usage: &llm.Usage{InputTokens: 1, OutputTokens: 1}}, nil
	}}
	h := newHarness(t, map[string]llm.Entry{"test": {Provider: p}}, executor.Config{Retry: quick})
	v := h.chain(pictures)
	secret := strings.Repeat("pixels", 100)
	ex := h.triggerWith(v, map[string]json.RawMessage{"photo": picture("cat.png", secret), "sketch": picture("s.png", "2")})
	log := h.follow(ex.ID)
	h.checkLog(ex.ID, log)
	want := []llm.Message{
		{Role: llm.RoleSystem, Text: "Be brief"},
		{Role: llm.RoleUser, Text: "What is cat.png?", Images: []llm.Image{
			{MIMEType: "image/png", Data: []byte("\x89PNG\r\n\x1a\n" + secret)}, {MIMEType: "image/png", Data: []byte("\x89PNG\r\n\x1a\n2")},
		}},
	}
	if diff := cmp.Diff(want, p.asked[0].Messages); diff != "" {
		t.Error(diff)
	}
	for _, m := range p.asked[1].Messages {
		if m.Images != nil {
			t.Errorf("the next prompt shows images too: %+v", m)
		}
	}
	variables := find(log, events.TypeVariableSubstitution)[0].Data["variables"]
	if diff := cmp.Diff(map[string]any{"photo": "cat.png (image/png, 608 bytes)", "photo.name": "cat.png", "sketch": "s.png (image/png, 9 bytes)"}, variables); diff != "" {
		t.Error(diff)
	}
	bytes := base64.StdEncoding.EncodeToString([]byte(secret))[:40]
	for _, e := range log {
		if raw, _ := json.Marshal(e.Data); strings.Contains(string(raw), bytes[4:]) || strings.Contains(string(raw), "pixelspixels") {
			t.Errorf("event %d, %s, holds the image", e.Seq, e.Type)
		}
	}

	// The retry takes over what was seen; a fork sees it again, or another picture.
	calls := func(ex executor.Execution) []llm.Request {
		t.Helper()
		h.checkLog(ex.ID, h.follow(ex.ID))
		p.mu.Lock()
		defer p.mu.Unlock()
		var seen []llm.Request
		for _, req := range p.asked {
			if req.Model == "m" {
				seen = append(seen, req)
			}
		}
		return seen
	}
	if n := len(calls(h.derive(retryOf(ex.ID)))); n != 1 {
		t.Errorf("the retry looked %d times", n-1)
	}
	if n := len(calls(h.derive(forkOf(ex.ID, "")))); n != 1 {
		t.Errorf("the same picture is not in the cache: %d calls", n)
	}
	other := forkOf(ex.ID, "")
	other.Inputs = map[string]json.RawMessage{"photo": picture("cat.png", secret+"!")}
	seen := calls(h.derive(other))
	if len(seen) != 2 || len(seen[1].Messages[1].Images) != 2 || string(seen[1].Messages[1].Images[0].Data) != "\x89PNG\r\n\x1a\n"+secret+"!" {
		t.Errorf("with another picture of the same name: %d calls", len(seen))
	}
}

// A model that is known not to see is refused when the chain is saved or started,
// and at the call where that was before; one of which nothing is known is asked.
func TestModelsThatCannotSee(t *testing.T) {
	t.Parallel()
	s := script(answers{"m": say("seen"), "n": say("thought"), "blind": say("guessed"), "eyes": say("looked")})
	entry := s.entry()["test"]
	entry.Info = map[string]llm.Info{"blind": {Tools: true}, "eyes": {Tools: true, Vision: true}}
	h := newHarness(t, map[string]llm.Entry{"test": entry}, executor.Config{Retry: quick})
	for model, ok := range map[string]bool{"m": true, "eyes": true, "blind": false} {
		c, err := chain.Parse([]byte(strings.Replace(pictures, "test/m", "test/"+model, 1)), chain.FormatYAML)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.exec.Check(t.Context(), c); (err == nil) != ok {
			t.Errorf("%s: %v", model, err)
		}
	}
	c, err := chain.Parse([]byte(strings.Replace(pictures, "images:", "fallback: [test/eyes, test/blind], images:", 1)), chain.FormatYAML)
	if err != nil {
		t.Fatal(err)
	}
	var problems chain.Problems
	if err := h.exec.Check(t.Context(), c); !errors.As(err, &problems) || len(problems) != 1 || problems[0].Pointer != "/prompts/0/fallback/1" || problems[0].Code != "no_vision" {
		t.Errorf("as a fallback: %v", err)
	}
	// Stored before it was known, with a fallback that can see.
	v := h.chain(strings.Replace(pictures, "test/m,", "test/blind, fallback: [test/eyes],", 1))
	ex := h.triggerWith(v, map[string]json.RawMessage{"photo": picture("cat.png", "x")})
	log := h.follow(ex.ID)
	h.checkLog(ex.ID, log)
	if look := h.states(ex.ID)["Look"]; look.Output != "looked" || s.count("blind") != 0 {
		t.Errorf("%+v after %d calls", look, s.count("blind"))
	}
	if reason := find(log, events.TypePromptRetry)[0].Data["reason"]; reason != "The model test/blind cannot see images. Falling back to test/eyes." {
		t.Errorf("reason %q", reason)
	}
}
