package uselite_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/chainstream/chainstream/llm/uselite"
)

// files is where scripts/setup.sh --test puts the model. Tests fail without it.
const files = "../../build/models/use-lite"

func load(t testing.TB) *uselite.Model {
	t.Helper()
	m, err := uselite.Load(os.DirFS(files))
	if err != nil {
		t.Fatalf("%v; scripts/setup.sh --test fetches the model", err)
	}
	return m
}

// Vectors and pieces are those of the package that the weights come from.
func TestReference(t *testing.T) {
	m := load(t)
	raw, err := os.ReadFile(path.Join("testdata", "reference.json"))
	if err != nil {
		t.Fatal(err)
	}
	var references []struct {
		Text   string
		Pieces []int
		Vector []float64
	}
	if err := json.Unmarshal(raw, &references); err != nil {
		t.Fatal(err)
	}
	if len(references) < 8 {
		t.Fatalf("%d texts in the reference", len(references))
	}
	for _, r := range references {
		if n := m.Count(r.Text); n != len(r.Pieces) {
			t.Errorf("%.30q has %d pieces, want %d", r.Text, n, len(r.Pieces))
		}
		v := m.Embed(r.Text)
		if len(v) != uselite.Dimensions {
			t.Fatalf("%.30q: %d numbers", r.Text, len(v))
		}
		if len(r.Vector) == 0 { // the package fails for a text without pieces
			for _, x := range v {
				if x != 0 {
					t.Fatalf("%.30q has no pieces and a vector", r.Text)
				}
			}
			continue
		}
		worst := 0.0
		for i := range v {
			worst = max(worst, math.Abs(float64(v[i])-r.Vector[i]))
		}
		if worst > 1e-5 {
			t.Errorf("%.30q differs by %g", r.Text, worst)
		}
	}
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func TestMeaning(t *testing.T) {
	m := load(t)
	question := m.Embed("How old are you?")
	near, far := dot(question, m.Embed("What is your age?")), dot(question, m.Embed("The tide comes in twice a day."))
	if near < far+0.2 {
		t.Errorf("the same question is as near as %g, another text as %g", near, far)
	}
}

// What stands behind the first pieces has no influence, however long it is, and
// text of any kind gets a finite vector of the length 1.
func TestEmbedAnything(t *testing.T) {
	m := load(t)
	start := strings.Repeat("river delta ", uselite.MaxTokens)
	if a, b := m.Embed(start), m.Embed(start+strings.Repeat("and then something else ", 100_000)); dot(a, b) < 1-1e-6 {
		t.Error("what is beyond the last piece has an influence")
	}
	for _, text := range []string{
		"\xff\xfe broken", "\x00", strings.Repeat("\u0301", 5000), strings.Repeat("x", 1<<20), strings.Repeat("漢", 300_000), "\u200b", "▁▁▁", "\n\n\n",
	} {
		if n := dot(m.Embed(text), m.Embed(text)); math.Abs(n-1) > 1e-5 {
			t.Errorf("%.20q has a vector of the length %g", text, n)
		}
		if m.Count(text) < 1 {
			t.Errorf("%.20q has no pieces", text)
		}
	}
}

func TestCountGrows(t *testing.T) {
	m := load(t)
	text := strings.Repeat("The sediment of the river settles where it meets the sea. ", 400)
	last := 0
	for n := 0; n < len(text); n += 997 {
		count := m.Count(text[:n])
		if count < last {
			t.Fatalf("%d bytes have %d pieces, fewer have %d", n, count, last)
		}
		last = count
	}
}

// present answers the model's files, to be damaged.
func present(t *testing.T) fstest.MapFS {
	t.Helper()
	dir := fstest.MapFS{}
	err := fs.WalkDir(os.DirFS(files), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path.Join(files, name))
		dir[name] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatalf("%v; scripts/setup.sh --test fetches the model", err)
	}
	return dir
}

// shape gives all weights another shape.
func shape(graph []byte, to string) []byte {
	head, manifest, _ := strings.Cut(string(graph), `"weightsManifest"`)
	return []byte(head + `"weightsManifest"` + regexp.MustCompile(`"shape":\s*\[[^]]*\]`).ReplaceAllString(manifest, `"shape":[`+to+`]`))
}

func TestLoadDamaged(t *testing.T) {
	whole := present(t)
	const shard = "group1-shard3of7"
	for name, tc := range map[string]struct {
		file string
		data func([]byte) []byte // nil = the file is missing
		want string
	}{
		"no graph":          {"model.json", nil, "model.json"},
		"graph of garbage":  {"model.json", func([]byte) []byte { return []byte("{") }, "model.json"},
		"graph of nothing":  {"model.json", func([]byte) []byte { return []byte("{}") }, "does not fit"},
		"no vocabulary":     {"vocab.json", nil, "vocab.json"},
		"empty vocabulary":  {"vocab.json", func([]byte) []byte { return []byte("[]") }, "vocabulary"},
		"other vocabulary":  {"vocab.json", func([]byte) []byte { return []byte(`[["a"]]`) }, "vocabulary"},
		"no shard":          {shard, nil, shard},
		"half a shard":      {shard, func(b []byte) []byte { return b[:len(b)/2] }, "ends in the weights"},
		"a shard too large": {shard, func(b []byte) []byte { return make([]byte, 65<<20) }, "larger"},
		"negative shape": {"model.json", func(b []byte) []byte {
			return shape(b, "-1")
		}, "shape"},
		"enormous shape": {"model.json", func(b []byte) []byte {
			return shape(b, "67108864,67108864,67108864,67108864")
		}, "shape"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := maps.Clone(whole)
			if tc.data == nil {
				delete(dir, tc.file)
			} else {
				dir[tc.file] = &fstest.MapFile{Data: tc.data(whole[tc.file].Data)}
			}
			m, err := uselite.Load(dir)
			if err == nil || m != nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("model %v, error %v; want %q in it", m != nil, err, tc.want)
			}
			if tc.data == nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("error %v does not say that a file is missing", err)
			}
		})
	}
}

func BenchmarkEmbed(b *testing.B) {
	m := load(b)
	for _, size := range []struct {
		name  string
		words int
	}{{"sentence", 10}, {"paragraph", 60}, {"full", 400}} {
		text := strings.Repeat("some words ", size.words/2)
		b.Run(size.name, func(b *testing.B) {
			for b.Loop() {
				m.Embed(text)
			}
		})
	}
}
