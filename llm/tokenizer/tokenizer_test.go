package tokenizer_test

import (
	_ "embed"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
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
		long := strings.Repeat(s.Text, 1+20*tokenizer.MaxPiece/len(s.Text))
		var joined strings.Builder
		pieces := 0
		for piece := range tokenizer.Pieces(long) {
			if len(piece) > tokenizer.MaxPiece || piece == "" || !utf8.ValidString(piece) {
				t.Errorf("%s: a piece of %d bytes", s.Name, len(piece))
			}
			joined.WriteString(piece)
			pieces++
		}
		if joined.String() != long || pieces < 10 {
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

// What is no language must not keep a processor busy: a count that grows with
// the square of the text takes minutes here.
func TestWorstCases(t *testing.T) {
	t.Parallel()
	const size = 256 << 10
	for _, unit := range []string{"a", "A", "😀", " ", "\n", " \n", "\t ", "!", "1", "\u0301", "\xff", "'s", "QUJD0987+/xyz", "世", "aA"} {
		text := strings.Repeat(unit, size/len(unit))
		for _, name := range names {
			began := time.Now()
			n := tokenizer.Counter(name)(text)
			if n < size/200 || n > size {
				t.Errorf("%q is %d tokens in %s", unit, n, name)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("%q took %s in %s", unit, took, name)
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
