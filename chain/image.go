package chain

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// Limits of images.
const (
	// MaxImageBytes is the size of the largest image.
	MaxImageBytes = 5 << 20
	// MaxImages is the largest number of images of a prompt.
	MaxImages = 10
	// maxImageInput is the size of the largest value of an input that is an image, in bytes of JSON.
	maxImageInput = MaxImageBytes/3*4 + 64<<10
)

// Image is a picture that a prompt shows to its model.
type Image struct {
	Input    string // name of the input that it was given as
	Name     string // of the file
	MIMEType string
	Data     []byte
}

// String names the image and its size for people.
func (m Image) String() string {
	return fmt.Sprintf("%s (%s, %d bytes)", m.Name, m.MIMEType, len(m.Data))
}

// imageInputs answers the inputs that prompts name as images, by name. Their values are images and no text.
func (c *Chain) imageInputs() map[string]bool {
	var names map[string]bool
	for i := range c.Prompts {
		for _, name := range c.Prompts[i].Images {
			if names == nil {
				names = make(map[string]bool)
			}
			names[name] = true
		}
	}
	return names
}

// imageParts are the parts of an image that a template may refer to.
var imageParts = []string{"name", "mimeType"}

// imageType tells what kind of image data holds by its first bytes; "" is none that models see.
func imageType(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return "image/png"
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return "image/jpeg"
	case bytes.HasPrefix(data, []byte("GIF87a")), bytes.HasPrefix(data, []byte("GIF89a")):
		return "image/gif"
	case len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		return "image/webp"
	}
	return ""
}

// acceptImage checks the value of an input that is an image. What it answers has name, mimeType and base64.
func (in *Input) acceptImage(value any, at string, c *collector) any {
	given, ok := value.(map[string]any)
	if !ok {
		c.add(at, CodeWrongType, "expected an image as an object with base64, and optionally name and mimeType, got %s", nodeOf(value).kind)
		return nil
	}
	name, mimeType, content := in.Name, "", ""
	for _, key := range sortedKeys(given) {
		s, isString := given[key].(string)
		here := child(at, key)
		switch {
		case key != "name" && key != "mimeType" && key != "base64":
			c.add(here, CodeUnknownField, "an image has no field %s", shown(key))
			return nil
		case !isString:
			c.add(here, CodeWrongType, "expected a string, got %s", nodeOf(given[key]).kind)
			return nil
		case key == "name":
			name = s
		case key == "mimeType":
			mimeType = strings.ToLower(s)
		default:
			content = s
		}
	}
	if content == "" {
		c.add(child(at, "base64"), CodeRequired, "the image needs its bytes in base64")
		return nil
	}
	if base64.StdEncoding.DecodedLen(len(content)) > MaxImageBytes+2 {
		c.add(at, CodeTooLarge, "the image has more than the %d bytes that are allowed", MaxImageBytes)
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(content)
	if err != nil {
		c.add(child(at, "base64"), CodeInvalid, "is not valid base64")
		return nil
	}
	if len(data) > MaxImageBytes {
		c.add(at, CodeTooLarge, "the image has %d bytes, at most %d are allowed", len(data), MaxImageBytes)
		return nil
	}
	found := imageType(data)
	switch {
	case found == "":
		c.add(child(at, "base64"), CodeInvalid, "is no image; PNG, JPEG, GIF and WebP are understood")
		return nil
	case mimeType != "" && mimeType != found:
		c.add(child(at, "mimeType"), CodeInvalid, "says %s, but the bytes are %s", shown(mimeType), found)
		return nil
	}
	return map[string]any{"name": name, "mimeType": found, "base64": content}
}

// images answers the images that prompt i shows to its model, in the order of its document. An optional one that was left
// out is none.
func (r *renderer) images() ([]Image, error) {
	var list []Image
	for _, name := range r.scope.chain.Prompts[r.index].Images {
		k, known := r.scope.inputs[name]
		value := r.state.Inputs[name]
		if value == nil {
			if known && r.scope.chain.Inputs[k].Required {
				return nil, &UnresolvedError{Name: name, Reason: fmt.Sprintf("the input %s is missing", name)}
			}
			continue
		}
		file, _ := value.(map[string]any)
		m := Image{Input: name}
		m.Name, _ = file["name"].(string)
		m.MIMEType, _ = file["mimeType"].(string)
		content, _ := file["base64"].(string)
		var err error
		if m.Data, err = base64.StdEncoding.DecodeString(content); err != nil || len(m.Data) == 0 {
			return nil, &UnresolvedError{Name: name, Reason: fmt.Sprintf("the input %s is no image", name)}
		}
		if _, mapped := r.variables[name]; !mapped {
			r.variables[name] = m.String()
		}
		list = append(list, m)
	}
	return list, nil
}

// images reports what a prompt cannot show.
func (v *validator) images(p *Prompt, at string) {
	v.count(at, len(p.Images), MaxImages)
	v.duplicates(at, p.Images)
	for j, name := range p.Images {
		here := at + "/" + nodeOf(j).text
		k := slices.IndexFunc(v.chain.Inputs, func(in Input) bool { return in.Name == name })
		switch {
		case k < 0:
			v.add(here, CodeUnknownReference, "there is no input %s", shown(name))
		case v.chain.Inputs[k].Type != InputFile:
			v.add(here, CodeInvalid, "the input %s is of type %s; an image is given as a file", shown(name), v.chain.Inputs[k].Type)
		}
	}
}
