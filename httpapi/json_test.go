package httpapi_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/httpapi"
)

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		`0`, `-0.0e-0`, `9223372036854775808`, `1.7976931348623157e308`, `5e-324`, `1E5`, `true`, ` null `, `""`,
		`"\ud83d\ude00 \"\\\/\b\f\n\r\t\u00e9"`, `[]`, `{}`, `[1,[2],{"a":{"a":1}}]`, `{"":1,"a":"b"}`, "\"\u2028 \U0001F600\"", "[\t\n1 ,\r2 ]",
		strings.Repeat("[", chain.MaxDepth) + strings.Repeat("]", chain.MaxDepth),
	} {
		if err := httpapi.CheckJSON([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		``: "empty", ` `: "empty", `{`: "ends", `[1`: "ends", `[1,]`: "a value", `{"a"}`: "colon", `{"a":1,}`: "a key", `{a:1}`: "a key",
		`01`: "after the end", `-`: "digit", `1.`: "digit", `1e`: "digit", `.5`: "value", `+1`: "value", `NaN`: "value", `tru`: "value", `'a'`: "value",
		`1 2`: "after the end", `[1 2]`: "comma", `"a`: "inside a string", "\"\n\"": "control character", `"\x"`: "escape", `"\u12"`: "hexadecimal",
		`"\u0000"`: "NUL", "\"\x00\"": "NUL", "\x00": "NUL", "\"\xff\"": "UTF-8", "\xff": "UTF-8", "\"\xed\xa0\x80\"": "UTF-8",
		`"\ud800"`: "surrogate", `"\udc00"`: "surrogate", `"\ud800\ud800"`: "surrogate", `"\ud800x"`: "surrogate", `"\ud800\n"`: "surrogate",
		`{"a":1,"a":2}`: "twice", `{"a":1,"\u0061":2}`: "twice", `[{"x":{"k":0,"k":0}}]`: "twice",
		`1e309`: "float", `-1e309`: "float", `1e-400`: "float", `0e99999999`: "too long", `1e400000`: "too long", strings.Repeat("1", 1001): "too long",
		strings.Repeat("[", chain.MaxDepth+1):                                    "nested",
		strings.Repeat("[", 1_000_000):                                           "nested",
		strings.Repeat(`{"a":`, chain.MaxDepth) + `{}` + strings.Repeat("}", 64): "nested",
	} {
		err := httpapi.CheckJSON([]byte(bad))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", bad, err, want)
		}
	}
}

// What passes is JSON, survives PostgreSQL, and means the same to encoding/json.
func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-2.5e3,"x\u00e9\ud83d\ude00"],"b":{"c":null}}`, `"\ud800"`, `{"a":1,"\u0061":2}`, "\"\xff\"", `1e400`, `[[[[]]]]`, "\x00", `{"a/b~c":"\u0000"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := httpapi.CheckJSON(data)
		if err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Errorf("the message is not UTF-8: %q", err)
			}
			return
		}
		if !json.Valid(data) || !utf8.Valid(data) {
			t.Fatalf("accepted what is not JSON: %q", data)
		}
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatalf("accepted %q: %v", data, err)
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(again), `\u0000`) && !strings.Contains(string(again), `\\u0000`) {
			t.Errorf("a NUL passed: %q", data)
		}
		if _, err := events.AppendJSONB(nil, data); err != nil {
			t.Errorf("accepted %q, which cannot be stored: %v", data, err)
		}
	})
}

func TestPreferred(t *testing.T) {
	t.Parallel()
	const ndjson, csv, plain = "application/x-ndjson", "text/csv", "application/json"
	for accept, want := range map[string]string{
		"": plain, "*/*": plain, "text/html": plain, "text/csv": csv, ndjson: ndjson, "text/*": csv,
		"text/csv;q=0.5, application/x-ndjson": ndjson, "application/json;q=0, text/csv;q=0.1": csv,
		"*/*, text/csv;q=0": plain, "text/csv;q=2": plain, "nonsense;;;, text/csv": csv, "application/*;q=0.4, text/csv;q=0.3": plain,
	} {
		h := map[string][]string{"Accept": {accept}}
		if got := httpapi.Preferred(h, plain, ndjson, csv); got != want {
			t.Errorf("%q: %s, want %s", accept, got, want)
		}
	}
}

func TestHeaderJSON(t *testing.T) {
	t.Parallel()
	if got, want := httpapi.HeaderJSON("é \U0001F600\n"), `[{"pointer":"","detail":"\u00e9 \ud83d\ude00\n"}]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	many := make([]string, 500)
	for i := range many {
		many[i] = strings.Repeat("ü", 40)
	}
	got := httpapi.HeaderJSON(many...)
	if len(got) > 4<<10 || !json.Valid([]byte(got)) || !strings.HasSuffix(got, `"and more"}]`) {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
