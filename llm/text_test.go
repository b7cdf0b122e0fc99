package llm_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm"
)

func TestEstimateTokens(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"":                        0,
		"a":                       1,
		"four":                    1,
		"fives":                   2,
		"two words":               3,
		"Grüße":                   2,
		"Привет":                  3,
		"世界":                      2,
		"\U0001F30D":              1,
		"\xff":                    1,
		strings.Repeat("x", 4000): 1000,
	} {
		if got := llm.EstimateTokens(text); got != want {
			t.Errorf("%.20q: %d tokens, want %d", text, got, want)
		}
	}
}

func TestCutTokens(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "a", "some words and more", "世界 and Привет", strings.Repeat("ab 界", 50)} {
		for limit := range llm.EstimateTokens(text) + 2 {
			cut := llm.CutTokens(text, limit)
			if !strings.HasPrefix(text, cut) || llm.EstimateTokens(cut) > limit || !utf8.ValidString(cut) {
				t.Errorf("%q cut at %d: %q", text, limit, cut)
			}
			if next := strings.TrimPrefix(text, cut); next != "" {
				_, size := utf8.DecodeRuneInString(next)
				if llm.EstimateTokens(text[:len(cut)+size]) <= limit {
					t.Errorf("%q cut at %d is too short: %q", text, limit, cut)
				}
			}
		}
	}
}

func TestRepairer(t *testing.T) {
	t.Parallel()
	type piece struct {
		Text     string
		Repaired bool
	}
	tests := map[string]struct {
		in   []string
		want []piece // the last one is Flush
	}{
		"clean":                   {[]string{"a", "世"}, []piece{{"a", false}, {"世", false}, {}}},
		"NUL":                     {[]string{"a\x00b"}, []piece{{"a\uFFFDb", true}, {}}},
		"broken byte":             {[]string{"a\xffb"}, []piece{{"a\uFFFDb", true}, {}}},
		"real replacement":        {[]string{"\uFFFD"}, []piece{{"\uFFFD", false}, {}}},
		"split in two":            {[]string{"a\xe4\xb8", "\x96b"}, []piece{{"a", false}, {"世b", false}, {}}},
		"split in three":          {[]string{"\xe4", "\xb8", "\x96"}, []piece{{"", false}, {"", false}, {"世", false}, {}}},
		"split over an empty one": {[]string{"\xe4\xb8", "", "\x96"}, []piece{{"", false}, {"", false}, {"世", false}, {}}},
		"never completed":         {[]string{"a\xf0\x9f\x8c"}, []piece{{"a", false}, {"\uFFFD", true}}},
		"other text follows":      {[]string{"\xe4\xb8", "ab"}, []piece{{"", false}, {"\uFFFD\uFFFDab", true}, {}}},
		"surrogate pair":          {[]string{"a\xed\xa0\xbc", "\xed\xbc\x8d!"}, []piece{{"a", false}, {"\U0001F30D!", false}, {}}},
		"surrogates in one piece": {[]string{"\xed\xa0\xbc\xed\xbc\x8d"}, []piece{{"\U0001F30D", false}, {}}},
		"surrogate split":         {[]string{"\xed\xa0", "\xbc\xed\xbc\x8d"}, []piece{{"", false}, {"\U0001F30D", false}, {}}},
		"second half split":       {[]string{"\xed\xa0\xbc\xed\xbc", "\x8d"}, []piece{{"", false}, {"\U0001F30D", false}, {}}},
		"second half never there": {[]string{"\xed\xa0\xbc\xed"}, []piece{{"", false}, {"\uFFFD\uFFFD", true}}},
		"high surrogate alone":    {[]string{"\xed\xa0\xbc", "x"}, []piece{{"", false}, {"\uFFFDx", true}, {}}},
		"low surrogate alone":     {[]string{"\xed\xbc\x8dx"}, []piece{{"\uFFFDx", true}, {}}},
		"high surrogate at end":   {[]string{"x\xed\xa0\xbc"}, []piece{{"x", false}, {"\uFFFD", true}}},
		"broken, then split":      {[]string{"\xff\xe4\xb8", "\x96"}, []piece{{"\uFFFD", true}, {"世", false}, {}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r llm.Repairer
			var got []piece
			for _, in := range tt.in {
				text, repaired := r.Text(in)
				got = append(got, piece{text, repaired})
			}
			text, repaired := r.Flush()
			got = append(got, piece{text, repaired})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzRepairer(f *testing.F) {
	f.Add("a世\x00", 2)
	f.Add("\xed\xa0\xbc\xed\xbc\x8d", 4)
	f.Add("\xf0\x9f\x8c\x8d\xff", 1)
	f.Fuzz(func(t *testing.T, text string, at int) {
		at = min(max(at, 0), len(text))
		run := func(pieces ...string) (all string, repaired bool) {
			var r llm.Repairer
			for _, p := range pieces {
				out, changed := r.Text(p)
				all, repaired = all+out, repaired || changed
			}
			out, changed := r.Flush()
			return all + out, repaired || changed
		}
		whole, repaired := run(text)
		if !utf8.ValidString(whole) || strings.ContainsRune(whole, 0) {
			t.Errorf("%q became %q", text, whole)
		}
		if utf8.ValidString(text) && !strings.ContainsRune(text, 0) && (whole != text || repaired) {
			t.Errorf("clean %q became %q", text, whole)
		}
		if split, splitRepaired := run(text[:at], text[at:]); split != whole || splitRepaired != repaired {
			t.Errorf("%q split at %d became %q (%t), whole %q (%t)", text, at, split, splitRepaired, whole, repaired)
		}
	})
}
