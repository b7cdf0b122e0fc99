package events_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/chainstream/chainstream/events"
)

// payloads are all of them.
var payloads = []events.Payload{
	events.ExecutionStart{}, events.PromptStart{}, events.KnowledgeRetrievalStart{}, events.KnowledgeRetrieved{},
	events.VariableSubstitution{}, events.PromptDelta{}, events.ReasoningDelta{}, events.ToolExecutionStart{},
	events.ToolExecutionComplete{}, events.PromptRetry{}, events.PromptComplete{}, events.PromptError{}, events.Progress{},
	events.ApprovalRequested{}, events.ApprovalResolved{}, events.LLMRequest{}, events.LLMResponse{}, events.LLMError{},
	events.CacheHit{}, events.CacheMiss{}, events.ExecutionComplete{}, events.ExecutionError{},
}

// fill gives every field a value that is not the zero value.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range v.Fields() {
			fill(f)
		}
	case reflect.String:
		v.SetString("line\n\"quoted\" <tag> \u2028 é")
	case reflect.Int, reflect.Int64:
		v.SetInt(-42)
	case reflect.Float64:
		v.SetFloat(1.5e-7)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"bb": "1", "a": "\x00"}))
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte(`{"b": [1e3], "aa" :null}`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i))
		}
	default:
		panic("a payload has a " + v.Kind().String())
	}
}

// The data is what encoding/json makes of the payload and the common fields, as jsonb.
func TestDataIsThePayloadAsJSONB(t *testing.T) {
	t.Parallel()
	if len(payloads) != len(events.Types()) {
		t.Fatalf("%d payloads are tested, there are %d events", len(payloads), len(events.Types()))
	}
	stamp := time.Date(2026, 11, 25, 7, 8, 9, 123456000, time.UTC)
	id, parent := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	for _, zero := range payloads {
		filled := reflect.New(reflect.TypeOf(zero))
		fill(filled.Elem())
		empty := reflect.New(reflect.TypeOf(zero))
		for _, f := range empty.Elem().Fields() {
			if f.Kind() == reflect.Slice && f.Type() != reflect.TypeFor[json.RawMessage]() {
				f.Set(reflect.MakeSlice(f.Type(), 0, 0)) // empty, and not nil
			}
		}
		for name, payload := range map[string]reflect.Value{"zero": reflect.ValueOf(zero), "filled": filled.Elem(), "empty": empty.Elem()} {
			for _, repaired := range []bool{false, true} {
				draft := events.Draft{Payload: payload.Interface().(events.Payload), Repaired: repaired} //nolint:errcheck // it came from one
				rec := events.Record{Seq: 7, ID: id, Parent: uuid.NullUUID{UUID: parent, Valid: repaired}, Stream: "branch:\x00", Type: draft.Payload.EventType(), Time: stamp}
				got, err := events.EncodeDraft(12, rec, draft)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(reference(t, 12, rec, draft)), string(got)); diff != "" {
					t.Errorf("%T, %s, repaired %v: %s", draft.Payload, name, repaired, diff)
				}
			}
		}
	}
}

func reference(t *testing.T, execution int64, rec events.Record, d events.Draft) []byte {
	t.Helper()
	raw, err := json.Marshal(d.Payload)
	if err != nil {
		t.Fatal(err)
	}
	object := make(map[string]json.RawMessage)
	if err := json.Unmarshal(raw, &object); err != nil {
		t.Fatal(err)
	}
	common := map[string]any{
		"executionId": execution, "seq": rec.Seq, "eventId": rec.ID, "parentId": rec.Parent, "streamId": rec.Stream,
		"timestamp": rec.Time.Format("2006-01-02T15:04:05.000Z"),
	}
	if d.Repaired {
		common["metadata"] = map[string]bool{"repaired": true}
	}
	all := make(map[string]any, len(object)+len(common))
	for key, value := range object {
		all[key] = value
	}
	maps.Copy(all, common)
	if raw, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	data, err := events.AppendJSONB(nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func BenchmarkEncode(b *testing.B) {
	rec := events.Record{Seq: 1234, ID: uuid.Must(uuid.NewV7()), Stream: events.MainStream, Type: events.TypePromptDelta, Time: time.Now()}
	for _, payload := range []events.Payload{
		events.PromptDelta{PromptID: 1, Attempt: 1, Text: "about as much text as a model sends at a time, or as it gathers", Offset: 1234},
		events.LLMResponse{PromptID: 1, RequestID: rec.ID.String(), Provider: "openai", Model: "fake", FinishReason: "stop", UsageSource: "provider"},
	} {
		b.Run(string(payload.EventType()), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := events.EncodeDraft(12, rec, events.Draft{Payload: payload}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
