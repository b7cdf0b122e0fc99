package knowledge

import (
	"strings"
	"testing"
)

func TestParts(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("Answer in a friendly way and name your sources. ", 6)
	long = strings.TrimSpace(long) + " "
	prompt := long + "Why are the tides higher at full moon than in between? " + long
	for _, tt := range []struct {
		name, query string
		want        int // parts
		one         string
	}{
		{"short", " two words ", 1, "two words"},
		{"a prompt", prompt, 13, "Why are the tides higher at full moon than in between?"},
		{"no sentence ends", strings.Repeat("word ", 200), 5, strings.TrimSpace(strings.Repeat("word ", 48))},
		{"one endless word", strings.Repeat("x", 10_000), 1, strings.Repeat("x", 10_000)},
		{"very long", strings.Repeat("Every sentence here has just eight words now. ", 1000), mostParts, ""},
		{"nothing", " ", 1, ""},
	} {
		got := parts(tt.query)
		if len(got) != tt.want || tt.one != "" && !strings.Contains("|"+strings.Join(got, "|")+"|", "|"+tt.one+"|") {
			t.Errorf("%s: %d parts, want %d with %.60q: %.300q", tt.name, len(got), tt.want, tt.one, got)
		}
	}
	if got := parts(prompt); !strings.Contains(strings.Join(got, " "), "Why are the tides higher at full moon than in between?") {
		t.Errorf("the question is not asked: %q", got)
	}
	// The same text always has the same parts, and nothing of a text that is not very
	// long is left out.
	if joined := strings.Join(parts(prompt), " "); len(parts(prompt)) < mostParts && strings.Join(strings.Fields(joined), " ") != strings.Join(strings.Fields(prompt), " ") {
		t.Errorf("joined: %q", joined)
	}
}
