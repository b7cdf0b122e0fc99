package wire_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/llm/wire"
)

func TestText(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ literal, want string }{
		"plain":                   {`"a"`, "a"},
		"empty":                   {`""`, ""},
		"null":                    {`null`, ""},
		"number":                  {`7`, ""},
		"object":                  {`{"text":"a"}`, ""},
		"escapes":                 {`"\"\\\/\b\f\n\r\t\u0041\u00e9\u4E16"`, "\"\\/\b\f\n\r\tAé世"},
		"a pair":                  {`"\ud83c\udf0d"`, "\U0001F30D"},
		"NUL":                     {`"\u0000"`, "\x00"},
		"half a pair":             {`"\ud83c"`, "\xed\xa0\xbc"},
		"half a pair, then text":  {`"\ud83cx"`, "\xed\xa0\xbcx"},
		"the halves in disorder":  {`"\udf0d\ud83c"`, "\xed\xbc\x8d\xed\xa0\xbc"},
		"two first halves":        {`"\ud83c\ud83c\udf0d"`, "\xed\xa0\xbc\U0001F30D"},
		"broken UTF-8":            {"\"a\xff\xe4\xb8\"", "a\xff\xe4\xb8"},
		"parts":                   {`[{"type":"text","text":"a"},{"type":"image"},{"type":"thinking","thinking":[]},{"type":"text","text":"b"}]`, "ab"},
		"a list of something":     {`[1,2]`, ""},
		"an empty list":           {`[]`, ""},
		"parts of another type":   {`[{"type":7,"text":"a"}]`, ""},
		"a part without its text": {`[{"type":"text"}]`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := struct{ T wire.Text }{"before"}
			if err := json.Unmarshal([]byte(`{"T":`+tt.literal+`}`), &got); err != nil {
				t.Fatal(err)
			}
			if string(got.T) != tt.want {
				t.Errorf("%q, want %q", got.T, tt.want)
			}
		})
	}
}

// FuzzText shows that a text, once it is repaired, is what encoding/json reads,
// up to how many replacement characters stand for what is broken.
func FuzzText(f *testing.F) {
	f.Add(`a\ud83c\udf0d\u0000`)
	f.Add("\\ud83c\xff\\\\u0041\xed\xa0\x80")
	replaced := regexp.MustCompile("\uFFFD+")
	f.Fuzz(func(t *testing.T, inner string) {
		literal := []byte(`"` + inner + `"`)
		var want string
		var got wire.Text
		if json.Unmarshal(literal, &want) != nil {
			return // not a string
		}
		if err := json.Unmarshal(literal, &got); err != nil {
			t.Fatal(err)
		}
		var r llm.Repairer
		text, _ := r.Text(string(got))
		tail, _ := r.Flush()
		text = replaced.ReplaceAllString(text+tail, "\uFFFD")
		if want = replaced.ReplaceAllString(strings.ReplaceAll(want, "\x00", "\uFFFD"), "\uFFFD"); text != want {
			t.Errorf("%q read as %q, want %q", inner, text, want)
		}
	})
}
