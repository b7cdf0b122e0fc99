package events

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// This file writes the data of events: the fields of a payload and the common
// ones, as jsonb text. That happens for every piece of text of every model, so
// what a payload type alone decides is found out once: the keys, as they are
// written, in the order of jsonb.

// layout is how the data of events of one payload type is written.
type layout struct {
	fields []field
	texts  []int // fields of the payload that are strings
	size   int   // of the data without these, about
}

// field is a member of the data.
type field struct {
	key       string
	index     int // in the payload; -1 for a common one
	omitEmpty bool
	write     writeFunc
}

// writeFunc appends a value: one of the payload, or a common one of the record.
type writeFunc func(dst []byte, execution int64, rec *Record, v reflect.Value) ([]byte, error)

type layoutKey struct {
	payload  reflect.Type
	repaired bool
}

// layouts keeps the layout for every layoutKey that was met.
var layouts sync.Map

func layoutOf(key layoutKey) *layout {
	if l, ok := layouts.Load(key); ok {
		return l.(*layout) //nolint:errcheck // nothing else is stored
	}
	l := &layout{fields: commonFields(key.repaired)}
	for i := range key.payload.NumField() {
		f := key.payload.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		l.fields = append(l.fields, field{name, i, option == "omitempty", writerOf(f.Type)})
		if f.Type.Kind() == reflect.String {
			l.texts = append(l.texts, i)
		}
	}
	slices.SortFunc(l.fields, func(a, b field) int { return compareKeys(a.key, b.key) })
	for i := range l.fields {
		l.fields[i].key = strconv.Quote(l.fields[i].key) + ": "
		l.size += len(l.fields[i].key) + numberBytes
	}
	l.size += commonBytes
	layouts.Store(key, l)
	return l
}

// Sizes of values: of a number with its comma, about, and of the common fields
// beyond that.
const (
	numberBytes = 8
	commonBytes = 96
)

// compareKeys is jsonb's order of the keys of an object.
func compareKeys(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) }

// commonFields are the members of every event.
func commonFields(repaired bool) []field {
	common := func(key string, write func(dst []byte, execution int64, rec *Record) []byte) field {
		return field{key: key, index: -1, write: func(dst []byte, execution int64, rec *Record, _ reflect.Value) ([]byte, error) {
			return write(dst, execution, rec), nil
		}}
	}
	fields := []field{
		common("executionId", func(dst []byte, execution int64, _ *Record) []byte { return strconv.AppendInt(dst, execution, 10) }),
		common("seq", func(dst []byte, _ int64, rec *Record) []byte { return strconv.AppendInt(dst, rec.Seq, 10) }),
		common("eventId", func(dst []byte, _ int64, rec *Record) []byte { return appendUUID(dst, rec.ID) }),
		common("parentId", func(dst []byte, _ int64, rec *Record) []byte {
			if !rec.Parent.Valid {
				return append(dst, "null"...)
			}
			return appendUUID(dst, rec.Parent.UUID)
		}),
		common("streamId", func(dst []byte, _ int64, rec *Record) []byte { return appendString(dst, rec.Stream) }),
		common("timestamp", func(dst []byte, _ int64, rec *Record) []byte {
			return append(rec.Time.AppendFormat(append(dst, '"'), timestampLayout), '"')
		}),
	}
	if repaired {
		fields = append(fields, common("metadata", func(dst []byte, _ int64, _ *Record) []byte { return append(dst, `{"repaired": true}`...) }))
	}
	return fields
}

// timestampLayout has milliseconds, as clients expect them; the table keeps microseconds.
const timestampLayout = "2006-01-02T15:04:05.000Z"

// writerOf answers how the values of a payload's field are written.
func writerOf(t reflect.Type) writeFunc {
	switch t.Kind() {
	case reflect.String:
		return func(dst []byte, _ int64, _ *Record, v reflect.Value) ([]byte, error) {
			return appendString(dst, v.String()), nil
		}
	case reflect.Int, reflect.Int64:
		return func(dst []byte, _ int64, _ *Record, v reflect.Value) ([]byte, error) {
			return strconv.AppendInt(dst, v.Int(), 10), nil
		}
	case reflect.Bool:
		return func(dst []byte, _ int64, _ *Record, v reflect.Value) ([]byte, error) {
			return strconv.AppendBool(dst, v.Bool()), nil
		}
	default:
		return func(dst []byte, _ int64, _ *Record, v reflect.Value) ([]byte, error) {
			raw, err := json.Marshal(v.Interface())
			if err != nil {
				return nil, err
			}
			return AppendJSONB(dst, raw)
		}
	}
}

// newRecordFrame encodes an event that is about to be stored. The data of the
// record and the frame that shows it are the same bytes.
func newRecordFrame(execution int64, rec *Record, d Draft) (Frame, error) {
	payload := reflect.ValueOf(d.Payload)
	l := layoutOf(layoutKey{payload.Type(), d.Repaired})
	size := l.size
	for _, i := range l.texts {
		size += payload.Field(i).Len()
	}
	wire := appendFrameStart(make([]byte, 0, frameBytes+len(rec.Type)+size), rec.Seq, rec.Type)
	at := len(wire)
	for _, f := range l.fields {
		var v reflect.Value
		if f.index >= 0 {
			if v = payload.Field(f.index); f.omitEmpty && isEmpty(v) {
				continue
			}
		}
		if len(wire) == at {
			wire = append(wire, '{')
		} else {
			wire = append(wire, ", "...)
		}
		var err error
		if wire, err = f.write(append(wire, f.key...), execution, rec, v); err != nil {
			return Frame{}, err
		}
	}
	wire = append(wire, '}')
	rec.Data = wire[at:len(wire):len(wire)]
	return Frame{Seq: rec.Seq, Type: rec.Type, wire: append(wire, frameEnd...), data: at, size: len(rec.Data)}, nil
}

// isEmpty tells what omitempty leaves out.
func isEmpty(v reflect.Value) bool {
	if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
		return v.Len() == 0
	}
	return v.IsZero()
}

// appendUUID appends a quoted UUID in its usual form (RFC 9562, section 4).
func appendUUID(dst []byte, id uuid.UUID) []byte {
	dst = append(dst, '"')
	for i, part := range [][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, part)
	}
	return append(dst, '"')
}
