package chain_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/chain"
)

const pictures = `
name: pictures
inputs:
  photo: {type: file, required: true}
  sketch: {type: file}
  notes: {type: file}
prompts:
  - {name: Look, model: offline/echo, content: "What is ${photo.name}, ${photo.mimeType}? ${sketch.name}${notes}", images: [sketch, photo]}
  - {name: Think, model: offline/echo, content: "${look}"}
`

func parsed(t *testing.T, document string) *chain.Chain {
	t.Helper()
	c, err := chain.Parse([]byte(document), chain.FormatYAML)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Beginnings of files.
const (
	png  = "\x89PNG\r\n\x1a\n...."
	jpeg = "\xff\xd8\xff\xe0...."
	webp = "RIFF\x10\x00\x00\x00WEBPVP8 "
)

func encoded(data string) string { return base64.StdEncoding.EncodeToString([]byte(data)) }

// What an image may be given as, and what is wrong with the rest, with the pointer.
func TestCheckInputsImage(t *testing.T) {
	t.Parallel()
	c := parsed(t, pictures)
	for name, test := range map[string]struct {
		photo, want string // the accepted value as JSON, or pointer and code
	}{
		"png":           {fmt.Sprintf(`{"base64":%q}`, encoded(png)), fmt.Sprintf(`{"base64":%q,"mimeType":"image/png","name":"photo"}`, encoded(png))},
		"jpeg":          {fmt.Sprintf(`{"name":"a.jpg","mimeType":"image/JPEG","base64":%q}`, encoded(jpeg)), fmt.Sprintf(`{"base64":%q,"mimeType":"image/jpeg","name":"a.jpg"}`, encoded(jpeg))},
		"gif":           {fmt.Sprintf(`{"mimeType":"image/gif","base64":%q}`, encoded("GIF89a...")), fmt.Sprintf(`{"base64":%q,"mimeType":"image/gif","name":"photo"}`, encoded("GIF89a..."))},
		"webp":          {fmt.Sprintf(`{"base64":%q}`, encoded(webp)), fmt.Sprintf(`{"base64":%q,"mimeType":"image/webp","name":"photo"}`, encoded(webp))},
		"missing":       {`null`, "/inputs/photo required"},
		"text":          {`"hello"`, "/inputs/photo wrong_type"},
		"text as file":  {`{"name":"a.txt","text":"hello"}`, "/inputs/photo/text unknown_field"},
		"no bytes":      {`{"name":"a.png"}`, "/inputs/photo/base64 required"},
		"no base64":     {`{"base64":"%%%"}`, "/inputs/photo/base64 invalid"},
		"no string":     {`{"base64":5}`, "/inputs/photo/base64 wrong_type"},
		"no image":      {fmt.Sprintf(`{"mimeType":"image/png","base64":%q}`, encoded("hello")), "/inputs/photo/base64 invalid"},
		"svg":           {fmt.Sprintf(`{"mimeType":"image/svg+xml","base64":%q}`, encoded("<svg/>")), "/inputs/photo/base64 invalid"},
		"wav":           {fmt.Sprintf(`{"base64":%q}`, encoded("RIFF\x10\x00\x00\x00WAVEfmt ")), "/inputs/photo/base64 invalid"},
		"another image": {fmt.Sprintf(`{"mimeType":"image/png","base64":%q}`, encoded(jpeg)), "/inputs/photo/mimeType invalid"},
		"the largest":   {fmt.Sprintf(`{"base64":%q}`, encoded(png+strings.Repeat("x", chain.MaxImageBytes-len(png)))), "ok"},
		"one byte more": {fmt.Sprintf(`{"base64":%q}`, encoded(png+strings.Repeat("x", chain.MaxImageBytes-len(png)+1))), "/inputs/photo too_large"},
		"much more":     {fmt.Sprintf(`{"base64":%q}`, encoded(png+strings.Repeat("x", 2*chain.MaxImageBytes))), "/inputs/photo too_large"},
	} {
		values, err := c.CheckInputs(map[string]json.RawMessage{"photo": json.RawMessage(test.photo)})
		got := "ok"
		var problems chain.Problems
		switch {
		case errors.As(err, &problems):
			got = problems[0].Pointer + " " + problems[0].Code
			if len(problems) != 1 {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil:
			got = err.Error()
		case test.want != "ok":
			raw, _ := json.Marshal(values["photo"])
			got = string(raw)
		}
		if got != test.want {
			t.Errorf("%s: %.200s, want %.200s", name, got, test.want)
		}
	}
	// A file that no prompt names as an image is text, as ever.
	if _, err := c.CheckInputs(map[string]json.RawMessage{
		"photo": json.RawMessage(fmt.Sprintf(`{"base64":%q}`, encoded(png))), "notes": json.RawMessage(fmt.Sprintf(`{"base64":%q}`, encoded(png))),
	}); err == nil || !strings.Contains(err.Error(), "/inputs/notes/base64") {
		t.Errorf("an image as notes: %v", err)
	}
}

// The images of a prompt come in the order of its document, also after a round
// trip through JSON; the variables name them, and no template holds their bytes.
func TestRenderImages(t *testing.T) {
	t.Parallel()
	c := parsed(t, pictures)
	values, err := c.CheckInputs(map[string]json.RawMessage{
		"photo":  json.RawMessage(fmt.Sprintf(`{"name":"cat.png","base64":%q}`, encoded(png))),
		"sketch": json.RawMessage(fmt.Sprintf(`{"name":"s.webp","base64":%q}`, encoded(webp))),
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]any
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	for name, inputs := range map[string]map[string]any{"checked": values, "stored": stored} {
		got, err := c.Render(0, chain.State{Inputs: inputs})
		if err != nil {
			t.Fatal(err)
		}
		want := []chain.Image{
			{Input: "sketch", Name: "s.webp", MIMEType: "image/webp", Data: []byte(webp)},
			{Input: "photo", Name: "cat.png", MIMEType: "image/png", Data: []byte(png)},
		}
		if diff := cmp.Diff(want, got.Images); diff != "" || got.User != "What is cat.png, image/png? s.webp" {
			t.Errorf("%s: %q %s", name, got.User, diff)
		}
		variables := map[string]string{
			"photo": "cat.png (image/png, 12 bytes)", "sketch": "s.webp (image/webp, 16 bytes)",
			"photo.name": "cat.png", "photo.mimeType": "image/png", "sketch.name": "s.webp", "notes": "",
		}
		if diff := cmp.Diff(variables, got.Variables); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	delete(stored, "sketch")
	if got, err := c.Render(0, chain.State{Inputs: stored}); err != nil || len(got.Images) != 1 || got.Images[0].Input != "photo" {
		t.Errorf("without the optional one: %+v, %v", got.Images, err)
	}
	if got, err := c.Render(1, chain.State{Inputs: stored, Outputs: map[int]string{0: "a cat"}}); err != nil || got.Images != nil {
		t.Errorf("a prompt without images: %+v, %v", got.Images, err)
	}
	var unresolved *chain.UnresolvedError
	for _, broken := range []map[string]any{{}, {"photo": "text"}, {"photo": map[string]any{"base64": "%"}}, {"photo": map[string]any{"name": "x"}}} {
		if _, err := c.Render(0, chain.State{Inputs: broken}); !errors.As(err, &unresolved) || unresolved.Name != "photo" {
			t.Errorf("with %v: %v", broken, err)
		}
	}
}
