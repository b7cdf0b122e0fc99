package tokenizer_test

import (
	_ "embed"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/llm/tokenizer"
)

//go:embed testdata/parity.json
var parity []byte

// sample is a text and its tokens, as testdata/parity.mjs wrote them.
type sample struct {
	Name   string            `json:"name"`
	Text   string            `json:"text"`
	Tokens map[string][]uint `json:"tokens"`
}

func samples(tb testing.TB) []sample {
	tb.Helper()
	var all []sample
	if err := json.Unmarshal(parity, &all); err != nil {
		tb.Fatal(err)
	}
	return all
}

var names = []string{tokenizer.O200k, tokenizer.CL100k}

// The tokens are those of another implementation of OpenAI's tokenizers.
func TestParity(t *testing.T) {
	t.Parallel()
	all := samples(t)
	if len(all) < 15 {
		t.Fatalf("%d samples", len(all))
	}
	for _, s := range all {
		for _, name := range names {
			ids, err := tokenizer.IDs(name, s.Text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.Tokens[name], append([]uint{}, ids...)); diff != "" && s.Name != "control" { // see Counter
				t.Errorf("%s of %q (-want +got):\n%s", name, s.Name, diff)
			}
			if got, want := tokenizer.Counter(name)(s.Text), int64(len(s.Tokens[name])); got != want {
				t.Errorf("%s counts %d tokens of %q, want %d", name, got, s.Name, want)
			}
		}
	}
}

func TestUnknownTokenizer(t *testing.T) {
	t.Parallel()
	if tokenizer.Counter("p50k_base") != nil || tokenizer.Counter("") != nil {
		t.Error("an unknown tokenizer counts")
	}
}

// A role is one token, which package llm relies on.
func TestRoles(t *testing.T) {
	t.Parallel()
	for _, name := range names {
		for _, role := range []string{"system", "user", "assistant", "tool"} {
			if n := tokenizer.Counter(name)(role); n != 1 {
				t.Errorf("%s: %q has %d tokens", name, role, n)
			}
		}
	}
}

// A long text is counted in pieces, with the same result where it is language.
func TestLongTexts(t *testing.T) {
	t.Parallel()
	for _, s := range samples(t) {
		if s.Text == "" {
			continue
		}
		long := strings.Repeat(s.Text, 1+5*tokenizer.MaxPiece/len(s.Text))
		var joined strings.Builder
		pieces := 0
		for piece := range tokenizer.Pieces(long) {
			if len(piece) > tokenizer.MaxPiece || piece == "" || !utf8.ValidString(piece) {
				t.Errorf("%s: a piece of %d bytes", s.Name, len(piece))
			}
			joined.WriteString(piece)
			pieces++
		}
		if joined.String() != long || pieces < 5 {
			t.Errorf("%s: %d pieces are not the text", s.Name, pieces)
		}
		apart := s.Name == "word" // nothing but letters
		for _, name := range names {
			ids, err := tokenizer.IDs(name, strings.ReplaceAll(long, "\x7f", "\x1f"))
			if err != nil {
				t.Fatal(err)
			}
			got, want := tokenizer.Counter(name)(long), int64(len(ids))
			if difference := got - want; difference != 0 && (!apart || max(difference, -difference) > 2*int64(pieces)) {
				t.Errorf("%s of %s: %d tokens in %d pieces, want %d", name, s.Name, got, pieces, want)
			}
		}
	}
}

// worst are texts that keep the codec busy longer than others: its time grows with
// the square of some of them.
var worst = []string{"a", "A", "😀", " ", "\n", " \n", "\t ", "!", "1", "\u0301", "\xff", "'s", "QUJD0987+/xyz", "世", "aA"}

// The codec is never given more than a piece at once, whatever the text is, so
// that the time grows with the text. BenchmarkWorst tells how long that is.
func TestWorst(t *testing.T) {
	t.Parallel()
	for _, unit := range worst {
		text := strings.Repeat(unit, (1<<20)/len(unit))
		total := 0
		for piece := range tokenizer.Pieces(text) {
			if len(piece) > tokenizer.MaxPiece || len(piece) < 200 && total+len(piece) < len(text) {
				t.Errorf("%q: a piece of %d bytes", unit, len(piece))
			}
			total += len(piece)
		}
		if total != len(text) {
			t.Errorf("%q: the pieces have %d bytes of %d", unit, total, len(text))
		}
		short := text[:16<<10/len(unit)*len(unit)]
		for _, name := range names {
			if n := int(tokenizer.Counter(name)(short)); n < len(short)/200 || n > len(short) {
				t.Errorf("%q is %d tokens in %s", unit, n, name)
			}
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	var group sync.WaitGroup
	for _, s := range samples(t) {
		for _, name := range names {
			group.Go(func() {
				if got, want := tokenizer.Counter(name)(s.Text), int64(len(s.Tokens[name])); got != want {
					t.Errorf("%s counts %d tokens of %q, want %d", name, got, s.Name, want)
				}
			})
		}
	}
	group.Wait()
}

func FuzzCounter(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s.Text)
	}
	f.Add("\xff\xfe\x80")
	f.Add(strings.Repeat("a", 3*tokenizer.MaxPiece))
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range names {
			// An invalid byte counts like the three bytes that stand for it.
			if n := tokenizer.Counter(name)(text); n < 0 || n > 3*int64(len(text)) || n == 0 && text != "" {
				t.Errorf("%s counts %d tokens of %d bytes", name, n, len(text))
			}
		}
	})
}

// BenchmarkWorst counts a megabyte of each.
func BenchmarkWorst(b *testing.B) {
	for _, unit := range worst {
		text := strings.Repeat(unit, (1<<20)/len(unit))
		b.Run(strconv.Quote(unit), func(b *testing.B) {
			count := tokenizer.Counter(tokenizer.O200k)
			count("")
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				count(text)
			}
		})
	}
}

func BenchmarkCounter(b *testing.B) {
	for _, s := range samples(b) {
		if s.Name != "prose" && s.Name != "code" && s.Name != "chinese" {
			continue
		}
		text := strings.Repeat(s.Text, 1+(64<<10)/len(s.Text))
		for _, name := range names {
			b.Run(s.Name+"/"+name, func(b *testing.B) {
				count := tokenizer.Counter(name)
				count("")
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					count(text)
				}
			})
		}
	}
}
