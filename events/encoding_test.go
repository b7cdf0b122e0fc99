package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/chainstream/chainstream/events"
)

func TestAppendJSONB(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{`{}`, `{}`},
		{` [ ] `, `[]`},
		{`{"bb":1,"a":[true,false,null],"c":{"z":"","y":-1.50}}`, `{"a": [true, false, null], "c": {"y": -1.50, "z": ""}, "bb": 1}`},
		{`{"a":1,"a":2}`, `{"a": 2}`},
		{`"\u0000\ud800 \u00e9 \u001f \/ \u2028 <&>"`, "\"\uFFFD\uFFFD é \\u001f / \u2028 <&>\""},
		{`"\ud83d\ude00"`, `"😀"`},
		{"\"a\xffb\"", "\"a\uFFFDb\""},
		{`1e3`, `1000`}, {`1.5e1`, `15`}, {`1.50e1`, `15.0`}, {`12e-3`, `0.012`}, {`-1.25E+1`, `-12.5`},
		{`-0`, `0`}, {`-0.0`, `0.0`}, {`0e5`, `0`}, {`0e-3`, `0.000`}, {`1e-7`, `0.0000001`},
	} {
		got, err := events.AppendJSONB(nil, []byte(tt.in))
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
		}
		if diff := cmp.Diff(tt.want, string(got)); diff != "" {
			t.Errorf("%s: %s", tt.in, diff)
		}
	}
	for _, bad := range []string{``, `{`, `[1,]`, `{"a"}`, `{"a":}`, `tru`, `01`, `1.`, `--1`, `"`, "\"\x01\"", `{}x`, `1e99999`, strings.Repeat("[", 1000)} {
		if got, err := events.AppendJSONB(nil, []byte(bad)); err == nil {
			t.Errorf("%.20s was read as %s", bad, got)
		}
	}
}

func FuzzAppendJSONB(f *testing.F) {
	f.Add(`{"b":[1,-0.0,1e3,"x\u0000"],"aa":{"":null}}`)
	f.Fuzz(func(t *testing.T, in string) {
		once, err := events.AppendJSONB(nil, []byte(in))
		if err != nil {
			return
		}
		if !json.Valid([]byte(in)) {
			t.Fatalf("%q is not JSON and was read as %q", in, once)
		}
		if !json.Valid(once) || bytes.ContainsAny(once, "\r\n\x00") || !utf8.Valid(once) {
			t.Fatalf("%q became %q", in, once)
		}
		if twice, err := events.AppendJSONB(nil, once); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q, again: %q, %v", once, twice, err)
		}
	})
}

// parseSSE reads an event stream as the WHATWG HTML standard says (9.2.6).
func parseSSE(stream string) (id, event, data string, blocks int) {
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	for line := range strings.SplitSeq(stream, "\n") {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			blocks++
		case field == "id":
			id = value
		case field == "event":
			event = value
		case field == "data":
			data += value + "\n"
		}
	}
	return id, event, strings.TrimSuffix(data, "\n"), blocks - 1
}

// Whatever a model, a name or a person says arrives as one event with exactly
// this text, NUL and broken UTF-8 replaced.
func FuzzFrame(f *testing.F) {
	f.Add("Hello, wörld", int64(1))
	f.Add("a\r\nid: 9\n\nevent: forged\rdata: x\u2028\x00\xff", int64(7))
	f.Fuzz(func(t *testing.T, text string, seq int64) {
		rec := events.Record{Seq: seq, ID: uuid.Must(uuid.NewV7()), Stream: text, Type: events.TypePromptDelta, Time: time.Now()}
		data, err := events.EncodeDraft(1, rec, events.Draft{Payload: events.PromptDelta{Text: text}})
		if err != nil {
			t.Fatal(err)
		}
		frame := events.NewFrame(seq, rec.Type, data)
		id, event, got, blocks := parseSSE(string(frame.Wire()))
		var want, decoded struct {
			Seq            int64
			Text, StreamID string
		}
		if err := json.Unmarshal([]byte(got), &decoded); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		want.Seq, want.Text = seq, strings.ReplaceAll(strings.ToValidUTF8(runes(text), "\uFFFD"), "\x00", "\uFFFD")
		want.StreamID = want.Text
		if diff := cmp.Diff(want, decoded); diff != "" || blocks != 1 || event != "prompt-delta" || !bytes.Equal(frame.Data(), []byte(got)) {
			t.Fatalf("id %s event %s blocks %d: %s", id, event, blocks, diff)
		}
		if n, err := events.ParseCursor(id); seq >= 0 && (err != nil || n != seq) {
			t.Fatalf("id %q: %v", id, err)
		}
	})
}

// runes replaces every invalid byte by U+FFFD, one for one.
func runes(s string) string { return string([]rune(s)) }

func TestParseCursor(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"0": 0, "7": 7, "0012": 12, "9223372036854775807": 1<<63 - 1} {
		if got, err := events.ParseCursor(in); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-1", "+1", "1.0", "abc", " 1", "1 ", "1\n", "\x00", "9223372036854775808", "99999999999999999999", "１", "0x1"} {
		if got, err := events.ParseCursor(in); !errors.Is(err, events.ErrBadCursor) {
			t.Errorf("%q was read as %d, %v", in, got, err)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add("41")
	f.Fuzz(func(t *testing.T, in string) {
		n, err := events.ParseCursor(in)
		if err != nil && !errors.Is(err, events.ErrBadCursor) || n < 0 {
			t.Fatalf("%q: %d, %v", in, n, err)
		}
	})
}
