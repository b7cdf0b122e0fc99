package executor_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/llm"
)

// fullRequest has a value in every field, however deep, so that a field that the
// contract gets one day makes a test fail which does not fill it in.
func fullRequest(t *testing.T) llm.Request {
	t.Helper()
	temperature, topP, seed, parallel := 0.5, 0.9, int64(7), true
	req := llm.Request{
		Model: "m",
		Messages: []llm.Message{{
			Role: llm.RoleUser, Text: "text", ToolCallID: "call",
			Images:    []llm.Image{{URL: "https://example.com", MIMEType: "image/png", Data: []byte("image"), Detail: "low"}},
			ToolCalls: []llm.ToolCall{{ID: "id", Name: "name", Arguments: "{}", Signature: "signed"}},
		}},
		Temperature: &temperature, TopP: &topP, MaxTokens: 5, Stop: []string{"END"}, Seed: &seed, Schema: json.RawMessage(`{"a":1}`),
		Tools:      []llm.Tool{{Name: "tool", Description: "d", Parameters: json.RawMessage(`{"b":1}`), Strict: true}},
		ToolChoice: "none", ParallelTools: &parallel, Effort: "low",
	}
	each(reflect.ValueOf(&req).Elem(), "Request", func(path string, v reflect.Value) {
		if v.IsZero() {
			t.Fatalf("%s has no value here: fill it in, so that the test can change it", path)
		}
	})
	return req
}

// each calls f for every value that stands in v, from the outside in.
func each(v reflect.Value, path string, f func(path string, v reflect.Value)) {
	f(path, v)
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			each(v.Field(i), path+"."+v.Type().Field(i).Name, f)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			each(v.Elem(), path, f)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		for i := range v.Len() {
			each(v.Index(i), fmt.Sprintf("%s[%d]", path, i), f)
		}
	}
}

// changes answers other values than v.
func changes(t *testing.T, path string, v reflect.Value) []reflect.Value {
	t.Helper()
	zero := reflect.Zero(v.Type())
	switch v.Kind() {
	case reflect.String:
		return []reflect.Value{zero, reflect.ValueOf(v.String() + "x").Convert(v.Type())}
	case reflect.Bool, reflect.Pointer:
		return []reflect.Value{zero}
	case reflect.Int, reflect.Int64:
		return []reflect.Value{zero, reflect.ValueOf(v.Int() + 1).Convert(v.Type())}
	case reflect.Float64:
		return []reflect.Value{zero, reflect.ValueOf(v.Float() + 0.01)}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if v.Type() == reflect.TypeFor[json.RawMessage]() {
				return []reflect.Value{zero, reflect.ValueOf(json.RawMessage(`{"c":2}`))}
			}
			return []reflect.Value{zero, reflect.ValueOf(append([]byte("x"), v.Bytes()...))}
		}
		return []reflect.Value{zero, reflect.AppendSlice(v, v)}
	case reflect.Struct:
		return nil // its fields are changed
	}
	t.Fatalf("%s is a %s: say how it is changed", path, v.Kind())
	return nil
}

// Everything in a request, and everything around it that the answer depends on,
// changes the key; asking the same again does not.
func TestCacheKey(t *testing.T) {
	t.Parallel()
	v := &chain.Version{ChainID: 3, Version: 4}
	seen := make(map[executor.CacheKey]string)
	add := func(name string, v *chain.Version, slug, model string, documents [][2]int64, req llm.Request) {
		t.Helper()
		key, err := executor.KeyOf(v, slug, model, documents, req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if other, ok := seen[key]; ok {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[key] = name
	}
	documents := [][2]int64{{5, 1}, {6, 1}}
	add("the request", v, "slug", "test/m", documents, fullRequest(t))
	again, err := executor.KeyOf(v, "slug", "test/m", [][2]int64{{5, 1}, {6, 1}}, fullRequest(t))
	if err != nil || seen[again] == "" {
		t.Errorf("the same request has another key, %v", err)
	}
	add("another chain", &chain.Version{ChainID: 4, Version: 4}, "slug", "test/m", documents, fullRequest(t))
	add("another version", &chain.Version{ChainID: 3, Version: 5}, "slug", "test/m", documents, fullRequest(t))
	add("another prompt", v, "other", "test/m", documents, fullRequest(t))
	add("another model", v, "slug", "other/m", documents, fullRequest(t))
	add("another document", v, "slug", "test/m", [][2]int64{{5, 1}, {7, 1}}, fullRequest(t))
	add("another version of a document", v, "slug", "test/m", [][2]int64{{5, 1}, {6, 2}}, fullRequest(t))
	add("one document less", v, "slug", "test/m", documents[:1], fullRequest(t))
	add("no document", v, "slug", "test/m", nil, fullRequest(t))

	changed := 0
	full := fullRequest(t)
	each(reflect.ValueOf(&full).Elem(), "Request", func(path string, value reflect.Value) {
		for n := range changes(t, path, value) {
			req := fullRequest(t) // a fresh one, in which the same place is changed
			each(reflect.ValueOf(&req).Elem(), "Request", func(at string, field reflect.Value) {
				if at == path && field.Kind() == value.Kind() {
					field.Set(changes(t, at, field)[n])
				}
			})
			changed++
			add(fmt.Sprintf("%s (%s, change %d)", path, value.Kind(), n), v, "slug", "test/m", documents, req)
		}
	})
	if changed < 40 {
		t.Errorf("only %d changes were made", changed)
	}

	// The key costs by the text, not by the images, and changes nothing.
	before := fullRequest(t)
	if _, err := executor.KeyOf(v, "slug", "test/m", nil, before); err != nil || !reflect.DeepEqual(before, fullRequest(t)) {
		t.Errorf("the request was changed: %+v, %v", before, err)
	}
}
